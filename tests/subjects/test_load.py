import copy
import json
from dataclasses import replace

import pytest
import torch

from isaerft import config
from isaerft.errors import InputError
from isaerft.layout import SubjectFolder
from isaerft.subjects.capture import capture
from isaerft.subjects.corpus import make_corpus, pad_rows, read_corpus, texts_to_rows, write_corpus
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.hooks import HookPoint, residual_stream
from isaerft.subjects.load import LoadedModel, load_model, load_subject
from isaerft.subjects.sae import corpus_activations, fetch_sae, train_sae


def test_a_loaded_subject_is_frozen_and_knows_its_place(subject):
    assert subject.hook.n_below == 2
    assert subject.language.bos == [1]
    assert subject.language.d_model == 32
    assert not subject.model.training
    assert not any(parameter.requires_grad for parameter in subject.model.parameters())


def test_a_model_that_is_not_there_is_named_in_one_line(tmp_path):
    missing = config.Subject(model=str(tmp_path / "none"), sae_path="sae")
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_subject(missing, tmp_path, "cpu")
    assert "\n" not in str(caught.value)


def test_a_model_without_bos_must_say_so(tmp_path, subject_folder, tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = None
    (tmp_path / "model").mkdir()
    for path in (subject_folder / "model").iterdir():
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    bare.save_pretrained(tmp_path / "model")
    options = config.Subject(model=str(tmp_path / "model"), sae_path="sae")
    with pytest.raises(InputError, match="prepend_bos: false"):
        load_model(options, SubjectFolder(tmp_path), "cpu")
    assert load_model(replace(options, prepend_bos=False), SubjectFolder(tmp_path), "cpu").bos == []


def test_texts_become_rows_until_there_are_enough_tokens(subject, tokenizer):
    texts = ["say hello", "", "tell me about the garden and the weather", "the world"]
    rows = texts_to_rows(texts, subject.language, n_tokens=9, context_size=6)
    first = [1, *tokenizer("say hello", add_special_tokens=False)["input_ids"]]
    assert rows.tokens[0, : len(first)].tolist() == first
    assert rows.mask.sum(1).tolist() == [len(first), 6]
    with pytest.raises(InputError, match="holds no text"):
        texts_to_rows(["", ""], subject.language, n_tokens=9, context_size=6)


def test_rows_read_again_are_the_rows_written_and_batches_lose_no_token(tmp_path):
    rows = pad_rows([[5, 6, 7], [8], [9, 10]], padding=0)
    write_corpus(rows, tmp_path / "corpus.safetensors")
    read = read_corpus(tmp_path / "corpus.safetensors")
    kept = [row[m.bool()].tolist() for t, mask in read.batches(2) for row, m in zip(t, mask, strict=True)]
    assert kept == [[5, 6, 7], [8], [9, 10]]
    assert [tuple(tokens.shape) for tokens, _ in read.batches(2)] == [(2, 3), (1, 2)]
    with pytest.raises(InputError, match="isaerft corpus"):
        read_corpus(tmp_path / "none")


def test_a_corpus_file_without_the_column_is_refused_with_those_it_has(subject, tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps({"body": "say hello"}) + "\n")
    with pytest.raises(InputError, match=r"line 1.*'text'.*allowed: body"):
        make_corpus(config.Corpus(path=str(path)), subject.language, 0)
    rows = make_corpus(config.Corpus(path=str(path), column="body"), subject.language, 0)
    assert rows.tokens[0, 0] == 1


@pytest.mark.parametrize("same", [False, True], ids=["eos differs", "eos is bos, as in GPT-2"])
def test_a_sampled_corpus_begins_with_bos_ends_at_eos_and_follows_its_seed(subject, tokenizer, same):
    used = copy.deepcopy(tokenizer)
    if same:
        used.bos_token = used.eos_token
    language = LoadedModel(subject.model, used, True)
    corpus = config.Corpus(sample=True, tokens=300, context_size=12)
    rows = make_corpus(corpus, language, 5)
    assert int(rows.mask.sum()) >= 300
    assert (rows.tokens[:, 0] == used.bos_token_id).all()
    assert rows.mask.sum(1).float().mean() > 3
    for tokens, mask in zip(rows.tokens, rows.mask, strict=True):
        assert used.eos_token_id not in tokens[mask.bool()][1:-1]
    assert torch.equal(make_corpus(corpus, language, 5).tokens, rows.tokens)
    assert not torch.equal(make_corpus(corpus, language, 6).tokens[:5, :5], rows.tokens[:5, :5])


def test_the_training_tokens_of_an_sae_are_the_residual_stream_without_bos(subject):
    rows = pad_rows([[1, 5, 6, 7], [1, 8]], padding=0)
    activations = corpus_activations(subject.language, rows, "blocks.1.hook_resid_post", batch_size=1)
    residual = residual_stream(subject.model, subject.hook, rows.tokens, rows.mask)
    expected = torch.cat([residual[0, 1:], residual[1, 1:2]])
    torch.testing.assert_close(activations, expected, atol=1e-5, rtol=1e-5)


def test_a_trained_sae_is_read_back_folded_and_the_same_seed_gives_the_same_bytes(subject, tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = pad_rows(
        torch.cat([torch.ones(40, 1).long(), torch.randint(3, 250, (40, 10), generator=generator)], 1).tolist(),
        padding=0,
    )
    options = config.TrainSae(d_sae=64, tokens=20_000, batch_size=256)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_sae(
            options, subject.language, rows, hook_name="blocks.1.hook_resid_post", folder=tmp_path / name, seed=seed
        )
    dictionary = load_dictionary(tmp_path / "a")
    assert (dictionary.d_in, dictionary.d_sae) == (32, 64)
    assert dictionary.hook_name == "blocks.1.hook_resid_post"
    x = corpus_activations(subject.language, rows, "blocks.1.hook_resid_post")
    left = (x - dictionary.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert left < 0.7
    weights = [(tmp_path / name / "sae_weights.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_a_ready_sae_is_copied_with_its_hook(subject, tiny, tmp_path):
    source = tiny.write_sae(
        tmp_path / "given", tiny.random_sae(), dtype="float32", device="cpu", reshape_activations="none"
    )
    fetch_sae(config.Subject(model="a/b", sae_path=str(source)), subject.language, tmp_path / "sae")
    read, given = load_dictionary(tmp_path / "sae"), load_dictionary(source)
    assert torch.equal(read.W_enc, given.W_enc)
    assert read.hook_name == "blocks.1.hook_resid_post"
    moved = config.Subject(model="a/b", sae_path=str(source), hook_name="blocks.0.hook_resid_post")
    fetch_sae(moved, subject.language, tmp_path / "moved")
    assert load_dictionary(tmp_path / "moved").hook_name == "blocks.0.hook_resid_post"


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"hook_name": None}, "SAE hook ''"),
        ({"hook_name": "blocks.9.hook_resid_post"}, "has 3 blocks"),
        ({"normalize_activations": "expected_average_only_in"}, "activations normalised by 'expected_average_only_in'"),
        ({"normalize_activations": "covariance_whitening"}, "covariance_whitening"),
        ({"hook_name": "blocks.1.attn.hook_z"}, "attention heads"),
        ({"reshape_activations": "hook_z"}, "attention heads"),
        ({"architecture": "temporal"}, "depend on other tokens"),
        ({"architecture": "matching_pursuit"}, "found by search"),
        ({"architecture": "transcoder"}, "writes at another"),
        ({"architecture": "batchtopk"}, "save_inference_model"),
    ],
)
def test_an_sae_that_cannot_serve_is_refused_and_nothing_is_left(subject, tiny, tmp_path, cfg, message):
    source = tiny.write_sae(
        tmp_path / "given",
        tiny.random_sae(),
        **({"dtype": "float32", "device": "cpu", "reshape_activations": "none"} | cfg),
    )
    with pytest.raises(InputError, match=message):
        fetch_sae(config.Subject(model="a/b", sae_path=str(source)), subject.language, tmp_path / "out" / "sae")
    assert not (tmp_path / "out").exists()


def test_an_average_norm_that_is_known_is_folded_in(subject, tiny, tmp_path):
    source = tiny.write_sae(
        tmp_path / "given",
        tiny.random_sae(),
        dtype="float32",
        device="cpu",
        reshape_activations="none",
        normalize_activations="expected_average_only_in",
    )
    options = config.Subject(model="a/b", sae_path=str(source), norm_scaling_factor=0.5)
    fetch_sae(options, subject.language, tmp_path / "sae")
    folded = load_dictionary(tmp_path / "sae")
    tiny.write_sae(tmp_path / "plain", tiny.random_sae())
    plain, x = load_dictionary(tmp_path / "plain"), torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded.encode_dense(x), plain.encode_dense(0.5 * x))
    torch.testing.assert_close(folded.reconstruct(x), plain.reconstruct(0.5 * x) / 0.5)


def test_an_average_norm_for_an_sae_that_asks_for_none_is_refused(subject, tiny, tmp_path):
    cfg = {"dtype": "float32", "device": "cpu", "reshape_activations": "none"}
    source = tiny.write_sae(tmp_path / "given", tiny.random_sae(), **cfg)
    options = config.Subject(model="a/b", sae_path=str(source), norm_scaling_factor=0.5)
    with pytest.raises(InputError, match=r"norm_scaling_factor 0\.5.*'none'"):
        fetch_sae(options, subject.language, tmp_path / "sae")


@pytest.mark.parametrize("normalization", ["layer_norm", "constant_norm_rescale"])
def test_a_normalisation_by_token_is_kept(subject, tiny, tmp_path, normalization):
    cfg = {"dtype": "float32", "device": "cpu", "reshape_activations": "none"}
    source = tiny.write_sae(tmp_path / "given", tiny.random_sae(), normalize_activations=normalization, **cfg)
    fetch_sae(config.Subject(model="a/b", sae_path=str(source)), subject.language, tmp_path / "sae")
    assert load_dictionary(tmp_path / "sae").normalization == normalization


def test_weights_that_are_not_safetensors_are_refused_and_never_opened(subject, tiny, tmp_path):
    source = tiny.write_sae(tmp_path / "given", tiny.random_sae())
    (source / "sae_weights.safetensors").rename(source / "sae_weights.pt")
    with pytest.raises(InputError, match=r"has no sae_weights\.safetensors"):
        fetch_sae(config.Subject(model="a/b", sae_path=str(source)), subject.language, tmp_path / "sae")


def test_two_subjects_of_one_study_sit_at_two_hooks_of_one_model(subject_folder, tiny, tmp_path, records):
    hooks = {"early": "blocks.0.hook_mlp_out", "late": "blocks.2.hook_resid_pre"}
    cfg = {"dtype": "float32", "device": "cpu", "reshape_activations": "none"}
    for name, hook in hooks.items():
        tiny.write_sae(tmp_path / "given" / name, tiny.random_sae(), hook_name=hook, **cfg)
    plan = config.plan_from_dict(
        {
            "study": "two",
            "subjects": {
                name: {
                    "model": str(subject_folder / "model"),
                    "sae_path": str(tmp_path / "given" / name),
                    "corpus": {"sample": True},
                }
                for name in hooks
            },
            "behaviors": {n: {"description": n, "rule": True} for n in ("a", "b")},
            "adapters": {"bias": {}},
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
        }
    )
    loaded = {}
    for name, options in plan.study.subjects.items():
        paths = SubjectFolder(tmp_path / name)
        fetch_sae(options, load_model(options, paths, "cpu"), paths.sae)
        loaded[name] = load_subject(options, paths.path, "cpu")
    assert loaded["early"].hook == HookPoint(1, 3, "mlp")
    assert loaded["late"].hook == HookPoint(2, 3)
    early, late = (capture(part, records[:2], 32, 2) for part in loaded.values())
    assert torch.equal(early.tokens, late.tokens)
    assert not torch.equal(early.residual, late.residual)
    assert set(plan.permuted_subjects) == {"early-permuted", "late-permuted"}


def test_a_tokenizer_that_does_not_tell_where_its_tokens_lie_is_refused(subject_folder, tmp_path):
    from transformers import AutoConfig, ByT5Tokenizer

    AutoConfig.from_pretrained(subject_folder / "model").save_pretrained(tmp_path / "model")
    weights = subject_folder / "model" / "model.safetensors"
    (tmp_path / "model" / weights.name).write_bytes(weights.read_bytes())
    ByT5Tokenizer(bos_token="<s>").save_pretrained(tmp_path / "model")
    options = config.Subject(model=str(tmp_path / "model"), sae_path="sae")
    with pytest.raises(InputError, match="which characters a token stands for"):
        load_model(options, SubjectFolder(tmp_path), "cpu")


def test_an_unknown_release_is_refused_before_any_network(subject, tmp_path):
    options = config.Subject(model="a/b", release="gpt2-small-res-jbb", sae_id="blocks.1.hook_resid_pre")
    with pytest.raises(InputError, match="cannot be loaded"):
        fetch_sae(options, subject.language, tmp_path / "sae")


def test_only_one_module_of_the_package_imports_sae_lens():
    from pathlib import Path

    import isaerft

    package = Path(isaerft.__file__).parent
    users = [
        path
        for path in package.rglob("*.py")
        if "import sae_lens" in (text := path.read_text(encoding="utf-8")) or "from sae_lens" in text
    ]
    assert [str(path.relative_to(package)) for path in users] == ["subjects/sae.py"]
