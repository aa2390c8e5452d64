from dataclasses import replace

import numpy as np
import pytest
import torch
from sae_lens import SAE

from isaerft.subjects.corpus import pad_rows
from isaerft.subjects.dictionary import load_dictionary, read_card
from isaerft.subjects.hooks import run_below
from isaerft.subjects.load import placed
from isaerft.subjects.untrained import _cut, write_untrained_sae

HOOKS = ["blocks.1.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.1.attn.hook_z", "blocks.1.mlp.hook_in"]


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 250, (60, 12), generator=generator)
    return pad_rows(torch.cat([torch.ones(60, 1).long(), tokens], 1).tolist(), padding=0)


def activations(subject, rows):
    activation = run_below(subject.model, subject.hook, rows.tokens, rows.mask).activation
    return activation[subject.language.content_mask(rows.tokens, rows.mask)]


def untrained(subject, rows, folder, **options):
    """Write an untrained SAE like that in `folder`, and return the subject with it."""
    options = {"seed": 0, "batch_size": 7} | options
    write_untrained_sae(subject, rows, folder, folder.with_name("untrained"), **options)
    dictionary, _ = placed(load_dictionary(folder.with_name("untrained")), subject.model)
    return replace(subject, dictionary=dictionary)


@pytest.mark.parametrize("cfg", [{}, {"architecture": "topk", "k": 6}, {"normalize_activations": "layer_norm"}])
@pytest.mark.parametrize("hook", HOOKS)
def test_an_untrained_dictionary_has_random_directions_and_fires_as_often_as_its_subjects(
    model_of, tokenizer, tiny, rows, tmp_path, hook, cfg
):
    if hook.endswith("hook_in") and cfg:
        pytest.skip("a transcoder is of another architecture")
    subject = tiny.place(tmp_path / "sae", model_of("llama"), tokenizer, hook, **cfg)
    other = untrained(subject, rows, tmp_path / "sae")
    own, drawn, x = subject.dictionary, other.dictionary, activations(subject, rows)
    rates = [part.encode_dense(x).bool().double().mean(0) for part in (own, drawn)]
    torch.testing.assert_close(rates[0], rates[1], atol=2 / len(x), rtol=0)
    l0 = [part.encode(x).counts().double().mean() for part in (own, drawn)]
    torch.testing.assert_close(*l0, rtol=0.01, atol=0)
    assert (drawn.encode_dense(x) >= 0).all()
    torch.testing.assert_close(drawn.W_dec.norm(dim=1), own.W_dec.norm(dim=1))
    torch.testing.assert_close(drawn.W_enc.norm(dim=0), own.W_enc.norm(dim=0))
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(drawn.W_dec, own.W_dec).abs().mean() < 0.3, "the directions are not the subject's"
    reads_what_it_writes = cosine(drawn.W_dec, drawn.W_enc.T)
    if own.hook_name_out:
        assert reads_what_it_writes.abs().mean() < 0.3, "a transcoder writes another space than it reads"
    else:
        torch.testing.assert_close(reads_what_it_writes, torch.ones(own.d_sae))
    assert (drawn.hook_name, drawn.hook_name_out) == (own.hook_name, own.hook_name_out)


def test_an_untrained_dictionary_is_made_again_from_its_seed_and_saelens_reads_it(subject, rows, tiny, tmp_path):
    folder = tiny.write_sae(tmp_path / "sae", tiny.random_sae(), device="cpu", dtype="float32")
    first = untrained(subject, rows, folder)
    written = [path.read_bytes() for path in sorted((tmp_path / "untrained").iterdir())]
    again = untrained(subject, rows, folder)
    assert written == [path.read_bytes() for path in sorted((tmp_path / "untrained").iterdir())]
    assert not torch.equal(untrained(subject, rows, folder, seed=1).dictionary.W_dec, first.dictionary.W_dec)
    untrained(subject, rows, folder)
    x = activations(subject, rows)
    read = SAE.load_from_disk(tmp_path / "untrained")
    torch.testing.assert_close(read.encode(x), again.dictionary.encode_dense(x))
    assert read_card(tmp_path / "untrained").options["architecture"] == "jumprelu"


def test_a_cut_leaves_as_many_values_above_it_as_asked_and_keeps_equal_ones_together():
    ordered = np.array([5.0, 4.0, 4.0, 4.0, 1.0, -2.0])
    assert [int((ordered > _cut(ordered, n)).sum()) for n in range(7)] == [0, 1, 1, 4, 4, 5, 6]
    assert int((np.ones(4) > _cut(np.ones(4), 2)).sum()) == 4
