"""Adapters on heads of attention and on transcoders: attached, from the cache, trained, measured and checked."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import isaerft
from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.fitting import Fitting, Selection
from isaerft.adapters.model import Residual
from isaerft.changes.causal import row_losses
from isaerft.changes.measures import attribution
from isaerft.changes.pullback import Trained
from isaerft.errors import InputError
from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import completion_losses
from isaerft.subjects.capture import capture, tokenize
from isaerft.subjects.hooks import hidden_above, unembed
from isaerft.training.loop import heldout_loss, train
from isaerft.training.row_space import trainable

HEADS, MLP_IN, NORMALIZED = "blocks.1.attn.hook_z", "blocks.1.mlp.hook_in", "blocks.1.ln2.hook_normalized"
KINDS = ("bias", "scale", "affine", "low_rank", "mlp")
FAMILIES = ("llama_wide", "gpt2", "gpt_neox", "gemma2_wide")
PLACES = [(family, name) for family in FAMILIES for name in (HEADS, MLP_IN, NORMALIZED)]
FEW = [("llama_wide", HEADS), ("gemma2_wide", HEADS), ("llama_wide", MLP_IN), ("gemma2_wide", NORMALIZED)]


@pytest.fixture
def given(model_of, tiny, tokenizer, tmp_path):
    """Give a subject of its own model at a hook."""
    return lambda family, name: tiny.place(tmp_path / "sae", deepcopy(model_of(family)), tokenizer, name, skip=True)


def table_of(subject, records):
    rows = [tokenize(record, subject.language, 32)[0] for record in records]
    ids = torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def logits_of(model, table):
    with torch.no_grad():
        return model(**table, use_cache=False).logits[table["attention_mask"].bool()]


def stirred(kind, d_sae, size=0.5):
    adapter, generator = make_adapter(kind, d_sae, {}), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return adapter


@pytest.mark.parametrize(("family", "name"), PLACES)
def test_a_new_adapter_is_the_exact_identity_in_the_model_and_from_the_cache(given, records, family, name):
    subject = given(family, name)
    table = table_of(subject, records[:6])
    before = logits_of(subject.model, table)
    batch = capture(subject, records[:6], 32, 4).batch(torch.arange(6))
    assert len(batch.codes.indices) > 0
    for kind in KINDS:
        adapter = make_adapter(kind, subject.dictionary.d_sae, {})
        assert torch.equal(adapted(subject, adapter, batch), batch.residual)
        isaerft.attach(subject.model, subject.dictionary, adapter, name=kind)
    assert torch.equal(logits_of(subject.model, table), before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("family", "name"), PLACES)
def test_attached_logits_are_those_of_the_cached_path(given, records, family, name, kind):
    subject = given(family, name)
    table = table_of(subject, records[:6])
    batch = capture(subject, records[:6], 32, 4).batch(torch.arange(6))
    adapter = stirred(kind, subject.dictionary.d_sae)
    with torch.no_grad():
        residual = adapted(subject, adapter, batch)
        padded = residual.new_zeros(*batch.mask.shape, residual.shape[-1])
        padded[batch.mask] = residual
        expected = unembed(
            subject.model, hidden_above(subject.model, subject.hook, padded, batch.mask.long())[batch.mask]
        )
    plain = logits_of(subject.model, table)
    attached = isaerft.attach(subject.model, subject.dictionary, adapter)
    found = logits_of(subject.model, table)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().max() > 1e-2
    attached.detach()
    assert torch.equal(logits_of(subject.model, table), plain)


@pytest.mark.parametrize(("family", "name"), FEW)
def test_training_attached_is_training_from_the_cache_step_for_step(given, records, family, name):
    subject = given(family, name)
    cached = [capture(subject, part, 32, 5) for part in (records[:12], records[12:])]
    for kind in ("bias", "scale"):
        options = config.Adapter(learning_rate=0.3, steps=4, batch_size=12, subsample=1, evaluate_every=1, patience=99)
        adapter, seen = make_adapter(kind, subject.dictionary.d_sae, {}), []

        def adapt(batch, adapter=adapter, seen=seen):
            if torch.is_grad_enabled():
                seen.append(torch.cat([p.detach().clone() for p in adapter.parameters()]))
            return adapted(subject, adapter, batch)

        train(subject, adapter, adapt, *cached, options, seed=0, batch_size=4)
        table = table_of(subject, records[:12])
        labels = table["input_ids"].masked_fill(table["input_ids"] == 0, -100)
        for row, record in enumerate(records[:12]):
            labels[row, : tokenize(record, subject.language, 32).n_prompt] = -100
        attached = isaerft.attach(subject.model, subject.dictionary, kind)
        parameters = list(attached.adapter().parameters())
        optimizer = torch.optim.SGD(parameters, lr=0.3, momentum=0.9)
        scale, steps = None, []
        for _ in range(4):
            steps.append(torch.cat([p.detach().clone() for p in parameters]))
            optimizer.zero_grad()
            subject.model(**table, labels=labels).loss.backward()
            scale = scale or 1 / float(torch.stack([p.grad.norm() for p in parameters]).norm())
            for parameter in parameters:
                parameter.grad.mul_(scale)
            optimizer.step()
        torch.testing.assert_close(torch.stack(seen), torch.stack(steps), atol=1e-4, rtol=1e-3)
        assert seen[-1].norm() > 0.2
        attached.detach()


@pytest.mark.parametrize(("family", "name"), FEW)
def test_gradients_agree_with_finite_differences_and_with_the_first_gradient(given, records, family, name):
    subject = given(family, name)
    rows = capture(subject, records[:4], 32, 4)
    batch = rows.batch(torch.arange(4))
    bias = make_adapter("bias", subject.dictionary.d_sae, {})
    OBJECTIVES["sft"](subject, batch, adapted(subject, bias, batch)).backward()
    gradient = bias.bias.grad.clone()
    direction, size = gradient / gradient.norm(), 0.02
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            bias.bias.copy_(sign * size * direction)
            losses.append(float(OBJECTIVES["sft"](subject, batch, adapted(subject, bias, batch))))
    assert (losses[0] - losses[1]) / (2 * size) == pytest.approx(float(gradient.norm()), rel=2e-2)
    fitting = Fitting(subject, Selection(rows, torch.arange(4)), [], 2, None)
    torch.testing.assert_close(subject.dictionary.decoder @ fitting.gradient.float(), gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("family", "name"), FEW)
def test_training_in_the_row_space_is_training_the_bias_itself(given, records, family, name):
    subject = given(family, name)
    cached = [capture(subject, part, 32, 5) for part in (records[:12], records[12:])]
    options = config.Adapter(learning_rate=0.3, steps=5, batch_size=6, evaluate_every=5)
    plain, other = (make_adapter("bias", subject.dictionary.d_sae, {}) for _ in range(2))
    train(subject, plain, lambda batch: adapted(subject, plain, batch), *cached, options, seed=0, batch_size=4)
    with trainable(other, subject, options) as (module, adapt):
        assert module is not other
        train(subject, module, adapt, *cached, options, seed=0, batch_size=4)
    torch.testing.assert_close(other.bias, plain.bias, atol=1e-4, rtol=1e-3)
    assert plain.bias.norm() > 0.2


@pytest.mark.parametrize(("family", "name"), FEW)
def test_attributions_sum_to_the_fall_in_loss_and_neutralizing_everything_undoes_it(given, records, family, name):
    subject = given(family, name)
    rows = capture(subject, records[:8], 32, 4)
    adapter = stirred("affine", subject.dictionary.d_sae, 0.1).requires_grad_(False)
    trained = Trained(subject, adapter, rows, 3)
    base = heldout_loss(subject, lambda batch: batch.residual, rows, 3)
    after = heldout_loss(subject, lambda batch: adapted(subject, adapter, batch), rows, 3)
    assert abs(base - after) > 1e-3
    assert float(attribution(trained).sum()) == pytest.approx(base - after, rel=2e-2)
    everything = torch.arange(subject.dictionary.d_sae)
    losses = row_losses(trained, torch.arange(8), [everything, everything[:0]])
    assert losses[2] == pytest.approx(losses[0], abs=1e-4)
    assert losses[3] == pytest.approx(losses[1], abs=1e-4)
    assert losses[1].sum() == pytest.approx(after * int(rows.predicts.sum()), rel=1e-4)


@pytest.mark.parametrize(("family", "name"), FEW)
def test_lora_below_is_pulled_back_into_the_latents_that_it_changes(given, records, family, name):
    from isaerft.adapters.weights import Lora
    from isaerft.changes.pullback import PulledBack

    subject = given(family, name)
    rows = capture(subject, records[:6], 32, 4)
    with Lora.on(subject, {"where": "below"}, 0) as adapter:
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        batch = rows.batch(torch.arange(6))
        pulled = PulledBack(subject, adapter, rows, 3)
        assert pulled.displacement(batch).abs().max() > 1e-2
        assert pulled.shift(batch).entries.abs().max() > 1e-2
        assert all(value is not None for value in pulled.diagnostics().values())


@pytest.mark.parametrize("name", [HEADS, MLP_IN])
def test_an_adapter_of_the_residual_stream_says_nothing_of_such_latents_and_is_refused(given, name):
    subject = given("llama", name)
    with (
        pytest.raises(InputError, match=r"says nothing of latents.*lora with where: below"),
        Residual.on(subject, {}, 0),
    ):
        pass


@pytest.mark.parametrize("name", [HEADS, MLP_IN])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(given, records, name, reentrant):
    found = []
    for checkpointing in (False, True):
        subject = given("llama_wide", name)
        table = table_of(subject, records[:4])
        attached = isaerft.attach(subject.model, subject.dictionary, "scale")
        subject.model.train()
        if checkpointing:
            subject.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            subject.model.enable_input_require_grads()
        subject.model(**table, labels=table["input_ids"], use_cache=False).loss.backward()
        found.append(attached.adapter().scale.grad)
    assert found[0].abs().max() > 1e-4
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", [HEADS, MLP_IN])
def test_in_bfloat16_codes_stay_float32_and_the_cache_agrees_with_the_model(tiny, tokenizer, records, tmp_path, name):
    model = tiny.make_model("gemma2_wide", len(tokenizer)).bfloat16()
    subject = tiny.place(tmp_path, model, tokenizer, name)
    batch = capture(subject, records[:4], 32, 2).batch(torch.arange(4))
    assert (batch.residual.dtype, batch.codes.values.dtype) == (torch.bfloat16, torch.float32)
    adapter = stirred("bias", subject.dictionary.d_sae)
    with torch.no_grad():
        residual = adapted(subject, adapter, batch)
        assert residual.dtype == torch.bfloat16
        losses = completion_losses(subject, batch, residual)
    assert losses.isfinite().all()
    table, attached = table_of(subject, records[:4]), isaerft.attach(model, subject.dictionary, adapter)
    with torch.no_grad():
        logits = model(**table, use_cache=False).logits[batch.mask][batch.predicts].float()
    expected = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
    assert (losses - expected).abs().mean() < 0.05
    attached.detach()


def test_steering_pushes_where_the_dictionary_writes(given, records):
    from isaerft.changes.steering import Steering

    subject = given("gemma2_wide", HEADS)
    table = table_of(subject, records[:1])
    push = 3 * subject.dictionary.decoder[5][None]
    with Steering(subject, push).registered(subject.model, bos=None):
        found = logits_of(subject.model, table)[-1]
    last = SimpleNamespace(at=None)

    def pushed(_, args):
        last.at = args[0].clone()
        last.at[:, -1] += 3 * subject.dictionary.W_dec[5]
        return (last.at,)

    handle = subject.model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(pushed)
    expected = logits_of(subject.model, table)[-1]
    handle.remove()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - logits_of(subject.model, table)[-1]).abs().max() > 1e-2


def test_a_random_dictionary_writes_the_rows_of_others_through_the_same_projection(given):
    subject = given("llama_wide", HEADS)
    random = subject.with_random_dictionary(3)
    order = [int((random.dictionary.W_dec[i] == subject.dictionary.W_dec).all(1).nonzero()) for i in range(48)]
    assert order != list(range(48))
    torch.testing.assert_close(random.dictionary.decoder, subject.dictionary.decoder[order])
    assert random.dictionary.decoder.shape == (48, 32)
    assert replace(subject.dictionary, W_out=None).decoder.shape == (48, 48)
