"""Dictionaries that write elsewhere than they read: heads of attention, and transcoders of an MLP."""

from copy import deepcopy

import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from isaerft.errors import InputError
from isaerft.subjects.absorption import NOBODY
from isaerft.subjects.blocks import mlp_of, norm_before_mlp, norm_behind, projection_matrix, projection_of, writer_of
from isaerft.subjects.cache import read_cache, write_cache
from isaerft.subjects.capture import capture
from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.facts import latent_facts, measure_firing
from isaerft.subjects.gate import measure_fit
from isaerft.subjects.hooks import hidden_above, reaching, run_below, unembed, value_bias
from isaerft.subjects.load import verify_hook
from isaerft.subjects.points import find_hook

HEADS, MLP_IN, NORMALIZED = "blocks.1.attn.hook_z", "blocks.1.mlp.hook_in", "blocks.1.ln2.hook_normalized"
OUT = "blocks.1.hook_mlp_out"
FAMILIES = ["llama", "gpt2", "gemma2", "gemma3", "qwen2", "qwen3", "mistral", "gemma", "gpt_neo", "gpt_neox_sequential"]
FAMILIES += ["olmo2", "phi3", "stablelm", "gpt_neox", "gptj", "phi", "cohere", "stablelm_parallel"]
FAMILIES += ["llama_wide", "gemma2_wide"]
NO_NORM = {"olmo2", "gptj", "phi", "cohere", "stablelm_parallel"}
PLACES = [*((name, HEADS) for name in FAMILIES), *((name, MLP_IN) for name in FAMILIES)]
PLACES += [(name, NORMALIZED) for name in FAMILIES if name not in NO_NORM]


@pytest.fixture
def rows():
    tokens = torch.randint(3, 250, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(9) < torch.tensor((9, 6, 1))[:, None]).long()
    return tokens * mask, mask


@pytest.fixture(scope="module")
def biased(model_of):
    """Give a copy of a model whose biases and gains are not those of a new one."""

    def give(family):
        model = deepcopy(model_of(family))
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias") or "norm" in name or "ln_" in name:
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        return model

    return give


def place(model, name):
    return find_hook(model, name, "" if name == HEADS else OUT)


def logits_of(model, tokens, mask):
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[mask.bool()]


def logits_above(model, hook, residual, mask):
    with torch.no_grad():
        return unembed(model, hidden_above(model, hook, residual, mask)[mask.bool()])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_heads_are_what_the_output_projection_reads(biased, rows, family):
    model, (tokens, mask) = biased(family), rows
    hook = find_hook(model, HEADS)
    below, projection = run_below(model, hook, tokens, mask), projection_of(model, 1)
    expected = below.activation @ projection_matrix(model, 1) + (0 if projection.bias is None else projection.bias)
    torch.testing.assert_close(below.written, expected, atol=1e-5, rtol=1e-5)
    assert below.target is below.activation
    attention = run_below(model, find_hook(model, "blocks.1.hook_attn_out"), tokens, mask)
    norm = norm_behind(model, 1)
    torch.testing.assert_close(below.written if norm is None else norm(below.written), attention.activation)
    assert torch.equal(below.residual, attention.residual)
    assert hook.is_normed == (norm is not None) == (family in ("gemma2", "gemma3", "olmo2", "gemma2_wide"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transcoder_reads_what_the_mlp_reads_and_reconstructs_what_it_gives(biased, rows, family):
    model, (tokens, mask) = biased(family), rows
    below = run_below(model, place(model, MLP_IN), tokens, mask)
    given, writer = mlp_of(model, 1)(below.activation), writer_of(model, 1, "mlp")
    expected = given if writer is mlp_of(model, 1) else writer(given)
    torch.testing.assert_close(below.target, expected, atol=1e-5, rtol=1e-5)
    output = run_below(model, find_hook(model, OUT), tokens, mask)
    assert torch.equal(below.target, output.activation)
    assert torch.equal(below.residual, output.residual)
    if family in NO_NORM:
        with pytest.raises(InputError, match=r"no normalization of its own; allowed: blocks\.L\.mlp\.hook_in"):
            place(model, NORMALIZED)
        return
    normalized, norm = run_below(model, place(model, NORMALIZED), tokens, mask), norm_before_mlp(model, 1)
    gain = norm.weight + ("gemma" in family)
    again = normalized.activation * gain + (getattr(norm, "bias", None) if hasattr(norm, "bias") else 0)
    torch.testing.assert_close(again, below.activation, atol=1e-5, rtol=1e-5)
    assert torch.equal(normalized.target, below.target)


@pytest.mark.parametrize(("family", "name"), PLACES)
def test_a_change_arrives_as_if_it_were_added_to_what_the_dictionary_writes_to(biased, rows, family, name):
    model, (tokens, mask) = biased(family), rows
    hook = place(model, name)
    verify_hook(model, hook)
    below = run_below(model, hook, tokens, mask)
    plain = logits_of(model, tokens, mask)
    torch.testing.assert_close(logits_above(model, hook, below.residual, mask), plain, atol=1e-5, rtol=1e-5)
    change = 0.5 * torch.randn(below.written.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        arrives = reaching(model, hook, below.written, change)
        assert not reaching(model, hook, below.written, torch.zeros_like(change)).any(), "no change is none, exactly"
    assert (arrives is change) == (not hook.is_normed)
    module = projection_of(model, 1) if name == HEADS else writer_of(model, 1, "mlp")
    handle = module.register_forward_hook(
        lambda _, args, output: (output[0] + change, *output[1:]) if isinstance(output, tuple) else output + change
    )
    try:
        expected = logits_of(model, tokens, mask)
    finally:
        handle.remove()
    found = logits_above(model, hook, below.residual + arrives, mask)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (expected - plain).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "olmo2"])
def test_what_is_read_is_what_transformerlens_calls_by_that_name(biased, tokenizer, tmp_path, family):
    bridges = pytest.importorskip("transformer_lens.model_bridge")
    model = biased(family)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bridge = bridges.TransformerBridge.boot_transformers(str(tmp_path), device="cpu")
    tokens = torch.arange(5, 15)[None]
    with torch.no_grad():
        _, cache = bridge.run_with_cache(tokens)
    for name in (HEADS, MLP_IN, NORMALIZED):
        if (family, name) != ("olmo2", NORMALIZED):
            found = run_below(model, place(model, name), tokens, torch.ones_like(tokens)).activation
            torch.testing.assert_close(found, cache[name].reshape(found.shape), atol=1e-5, rtol=1e-5)


def test_value_biases_are_what_attention_gives_of_nothing(biased, rows):
    gpt2, qwen2, llama = biased("gpt2"), biased("qwen2"), biased("llama")
    torch.testing.assert_close(value_bias(gpt2, 1), gpt2.transformer.h[1].attn.c_attn.bias[-32:])
    grouped = qwen2.model.layers[1].self_attn.v_proj.bias.view(2, 1, 8).expand(2, 2, 8).flatten()
    torch.testing.assert_close(value_bias(qwen2, 1), grouped)
    assert not value_bias(llama, 1).any()
    folded = find_hook(gpt2, HEADS, fold_value_biases=True)
    found = run_below(gpt2, folded, *rows).activation
    plain = run_below(gpt2, find_hook(gpt2, HEADS), *rows).activation
    torch.testing.assert_close(found, plain - gpt2.transformer.h[1].attn.c_attn.bias[-32:])
    with pytest.raises(InputError, match=r"fold_value_biases at 'blocks.1.hook_resid_post'.*attn\.hook_z"):
        find_hook(gpt2, "blocks.1.hook_resid_post", fold_value_biases=True)


@pytest.mark.parametrize(
    ("hook", "out", "said"),
    [
        (MLP_IN, "blocks.2.hook_mlp_out", "another block: a latent's effect would have to be added in several places"),
        (MLP_IN, "blocks.1.hook_attn_out", "a transcoder from 'blocks.1.mlp.hook_in' to 'blocks.1.hook_attn_out'"),
        ("blocks.1.hook_resid_mid", OUT, "allowed: transcoders from blocks.L.mlp.hook_in"),
        (MLP_IN, "", "through the MLP alone"),
        (
            "blocks.1.hook_mlp_in",
            OUT,
            r"the residual stream in TransformerLens.*set hook_name: blocks\.1\.mlp\.hook_in",
        ),
    ],
)
def test_a_transcoder_of_anything_but_one_mlp_is_refused_with_the_reason(model_of, hook, out, said):
    with pytest.raises(InputError, match=said):
        find_hook(model_of("llama"), hook, out)


def by_hand(model, tokens, mask):
    """Return the loss per predicted token of a plain forward pass."""
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1]
    kept = mask[:, 1:].bool()
    return float(cross_entropy(logits[kept], tokens[:, 1:][kept]))


@pytest.mark.parametrize("family", ["llama_wide", "gpt2", "gpt_neox", "gemma2_wide"])
@pytest.mark.parametrize("name", [HEADS, MLP_IN])
def test_the_gate_splices_in_where_the_dictionary_writes(biased, tiny, tokenizer, tmp_path, family, name):
    model = biased(family)
    tokens = torch.cat([torch.ones(6, 1, dtype=torch.int64), torch.randint(3, 250, (6, 9))], 1)
    rows = TokenRows(tokens, torch.ones_like(tokens))
    subject = tiny.place(tmp_path, model, tokenizer, name, skip=True)
    subject.dictionary.W_dec.mul_(0.5)
    fit = measure_fit(subject, rows, 4)
    assert fit.loss_base == pytest.approx(by_hand(model, tokens, rows.mask), abs=1e-5)
    read = []
    module = projection_of(model, 1) if name == HEADS else mlp_of(model, 1)

    def rebuilt(activation):
        return subject.dictionary.reconstruct(activation[:, 1:].flatten(0, 1)).view(
            len(activation), -1, subject.dictionary.d_out
        )

    def keep(_, args):
        read.append(args[0])
        if name == HEADS:
            return (torch.cat([args[0][:, :1], rebuilt(args[0])], 1),)
        return None

    handles = [module.register_forward_pre_hook(keep)]
    if name != HEADS:
        writer = writer_of(model, 1, "mlp")
        handles.append(writer.register_forward_hook(lambda _, args, out: torch.cat([out[:, :1], rebuilt(read[-1])], 1)))
    try:
        expected = by_hand(model, tokens, rows.mask)
    finally:
        for handle in handles:
            handle.remove()
    assert fit.loss_spliced == pytest.approx(expected, abs=1e-4)
    assert abs(fit.loss_spliced - fit.loss_base) > 1e-3
    target = run_below(model, subject.hook, tokens, rows.mask).target[:, 1:].flatten(0, 1)
    read_at = run_below(model, subject.hook, tokens, rows.mask).activation[:, 1:].flatten(0, 1)
    error = (subject.dictionary.reconstruct(read_at) - target).square().sum()
    variance = (target - target.mean(0)).square().sum()
    assert fit.variance_explained == pytest.approx(1 - float(error / variance), abs=1e-4)
    assert fit.l0 == pytest.approx(float(subject.dictionary.encode(read_at).counts().float().mean()))


@pytest.mark.parametrize(("family", "name"), [("llama", HEADS), ("gemma2", HEADS), ("gemma2", NORMALIZED)])
def test_the_cache_keeps_the_output_in_front_of_a_normalization_and_nothing_else(
    model_of, tiny, tokenizer, records, tmp_path, family, name
):
    subject = tiny.place(tmp_path / "sae", model_of(family), tokenizer, name)
    rows = capture(subject, records[:6], 32, 4)
    assert (rows.written is not None) == subject.hook.is_normed == (family == "gemma2" and name == HEADS)
    write_cache({"train": rows}, tmp_path / "cache")
    again = read_cache(tmp_path / "cache", "train").batch(torch.tensor([4, 1]))
    batch = rows.batch(torch.tensor([4, 1]))
    assert torch.equal(again.residual, batch.residual)
    assert (again.written is batch.written is None) or torch.equal(again.written, batch.written)
    padded = torch.zeros(batch.mask.shape, dtype=torch.int64)
    padded[batch.mask] = batch.tokens
    below = run_below(subject.model, subject.hook, padded, batch.mask.long())
    torch.testing.assert_close(batch.residual, below.residual[batch.mask], atol=1e-5, rtol=1e-5)
    is_bos = batch.tokens == 1
    codes = subject.dictionary.encode(below.activation[batch.mask]).emptied(is_bos)
    torch.testing.assert_close(batch.codes.dense(), codes.dense(), atol=1e-5, rtol=1e-5)


def test_facts_are_of_what_latents_write_and_a_transcoder_has_no_cosine_of_both_sides(
    model_of, tiny, tokenizer, tmp_path
):
    tokens = torch.randint(3, 250, (8, 10), generator=torch.Generator().manual_seed(0))
    rows = TokenRows(tokens, torch.ones_like(tokens))
    facts = {}
    for name in (HEADS, MLP_IN):
        subject = tiny.place(tmp_path / name, model_of("llama_wide"), tokenizer, name)
        facts[name] = latent_facts(subject, measure_firing(subject, rows, 4), cluster_cosine=0.9)
    heads, transcoder = facts[HEADS], facts[MLP_IN]
    weights = tiny.random_sae(48)
    written = (weights["W_dec"] @ projection_matrix(model_of("llama_wide"), 1)).norm(dim=1)
    assert heads.decoder_norm.to_numpy() == pytest.approx(written.numpy(), rel=1e-5)
    assert heads.encoder_decoder_cosine.notna().all()
    assert pd.isna(transcoder[["encoder_decoder_cosine", "absorption"]]).all(axis=None)
    assert (transcoder.absorber == NOBODY).all()
