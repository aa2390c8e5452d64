"""What adapters outside the SAE's basis do to latents, where the answer is known."""

from dataclasses import replace

import pytest
import torch

from isaerft.adapters.model import ModelAdapter, Residual
from isaerft.adapters.saved import save_adapter
from isaerft.adapters.weights import Checkpoint, Lora
from isaerft.changes.measures import attribution, contribution, parameter
from isaerft.changes.pullback import PulledBack, activation_change, load_trained
from isaerft.subjects.capture import capture
from isaerft.subjects.codes import Codes
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.points import find_hook
from isaerft.training.loop import heldout_loss

PLANTED = 3


@pytest.fixture
def orthogonal(subject, records, tiny, tmp_path):
    """A subject whose SAE has twenty orthonormal latents, each so biased that it is always on, and its held-out rows.

    On it encode(x + d) - encode(x) is exactly what of d lies in the latents' span.
    """
    frame = torch.linalg.qr(torch.randn(tiny.d_model, tiny.d_model, generator=torch.Generator().manual_seed(0)))[0]
    rows, rest = frame[:20], frame[20:]
    zeros = torch.zeros(tiny.d_model)
    weights = {"W_enc": rows.T, "b_enc": torch.full((20,), 1000.0), "W_dec": rows, "b_dec": zeros}
    used = replace(subject, dictionary=load_dictionary(tiny.write_sae(tmp_path / "sae", weights)))
    return used, capture(used, records[12:], 32, 5), rest


def steering(subject, direction):
    """A residual adapter that adds one vector everywhere."""
    adapter = Residual(subject.language.d_model, rank=0, bias=True)
    with torch.no_grad():
        adapter.bias.copy_(direction)
    return adapter.requires_grad_(False)


def loss(trained, displace):
    return heldout_loss(trained.subject, lambda batch: batch.residual + displace(batch), trained.heldout, 3)


def test_an_adapter_along_one_latents_direction_is_pulled_back_to_that_latent(orthogonal):
    subject, heldout, _ = orthogonal
    adapter = steering(subject, 2.0 * subject.dictionary.W_dec[PLANTED])
    trained = PulledBack(subject, adapter, heldout, 3)
    assert trained.explained_share() == pytest.approx(1, abs=1e-4)
    n_bos = len(heldout)
    expected = torch.zeros(20)
    expected[PLANTED] = 2.0 * (1 - n_bos / len(heldout.tokens))
    for measure in (contribution, parameter):
        torch.testing.assert_close(measure(trained), expected, atol=2e-3, rtol=1e-3)
    credit = attribution(trained)
    assert int(credit.abs().argmax()) == PLANTED
    others = torch.arange(20) != PLANTED
    assert float(credit[others].abs().max()) < 1e-2 * float(credit[PLANTED].abs())


def test_an_adapter_outside_the_decoders_span_is_not_explained(orthogonal):
    subject, heldout, rest = orthogonal
    trained = PulledBack(subject, steering(subject, 2.0 * rest[0]), heldout, 3)
    assert trained.explained_share() == pytest.approx(0, abs=1e-4)
    assert float(contribution(trained).abs().max()) < 1e-3
    half = PulledBack(subject, steering(subject, rest[0] + subject.dictionary.W_dec[PLANTED]), heldout, 3)
    assert half.explained_share() == pytest.approx(0.5, abs=1e-3)


def test_a_random_dictionary_does_not_explain_what_the_dictionary_did(orthogonal):
    subject, heldout, _ = orthogonal
    twin = subject.with_random_dictionary(1)
    trained = PulledBack(twin, steering(subject, 2.0 * subject.dictionary.W_dec[PLANTED]), heldout, 3)
    assert trained.explained_share() < 0.1


def test_an_adapter_that_changes_nothing_has_no_explained_share(orthogonal):
    subject, heldout, _ = orthogonal
    trained = PulledBack(subject, steering(subject, torch.zeros(32)), heldout, 3)
    assert trained.explained_share() is None
    for measure in (contribution, parameter, attribution):
        assert not measure(trained).any()


@pytest.fixture
def lora(subject, cached):
    """LoRA on both sides of the hook, idle as it is while changes are scored."""
    with Lora.on(subject, {"rank": 2, "where": "all"}, 0) as adapter:
        with torch.no_grad():
            for name, weight in adapter.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
        with adapter.idle():
            yield PulledBack(subject, adapter, cached[1], 3)


def test_a_pulled_back_change_is_the_shift_of_the_latents_on_the_same_text(lora, subject):
    batch = lora.heldout.batch(torch.arange(4))
    ids = batch.tokens.new_zeros(batch.mask.shape)
    ids[batch.mask] = batch.tokens
    lora.adapter._enable(True)
    with torch.no_grad():
        found = subject.model(input_ids=ids, attention_mask=batch.mask.long(), output_hidden_states=True)
    lora.adapter._enable(False)
    after = found.hidden_states[2]
    codes = subject.dictionary.encode_dense(after[batch.mask])
    is_bos = torch.zeros_like(batch.mask)
    is_bos[:, 0] = True
    codes[is_bos[batch.mask]] = 0
    expected = codes - batch.codes.dense()
    shift = lora.shift(batch)
    torch.testing.assert_close(shift.residual(torch.eye(48)), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shift.total(), expected.sum(0), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(lora.displacement(batch), after[batch.mask] - batch.residual, atol=1e-5, rtol=1e-4)
    norm = subject.dictionary.decoder_norm
    torch.testing.assert_close(contribution(lora), expected.mean(0) * norm, atol=1e-5, rtol=1e-3)


def test_attributions_of_a_fully_explained_change_add_up_to_the_fall_in_loss(subject, records, tiny, tmp_path):
    folder = tiny.write_sae(tmp_path / "sae", tiny.perfect_sae())
    used = replace(subject, dictionary=load_dictionary(folder))
    heldout = capture(replace(used, language=replace(used.language, prepend_bos=False)), records[12:], 32, 5)
    adapter = steering(used, 0.5 * torch.randn(32, generator=torch.Generator().manual_seed(0)))
    trained = PulledBack(replace(used, language=replace(used.language, prepend_bos=False)), adapter, heldout, 3)
    fall = loss(trained, lambda batch: 0) - loss(trained, trained.displacement)
    assert abs(fall) > 0.02
    assert trained.explained_share() == pytest.approx(1, abs=1e-5)
    assert float(attribution(trained).double().sum()) == pytest.approx(fall, rel=2e-3)


def test_lora_above_the_hook_does_not_touch_the_score_of_what_is_below(lora, subject, cached, tmp_path):
    """The loss gradient is that of the base model's upper part: LoRA is switched off there."""
    own = attribution(lora)
    with torch.no_grad():
        for name, weight in lora.adapter.named_parameters():
            if "blocks.2" in name and "lora_B" in name:
                weight.add_(1.0)
    assert torch.equal(attribution(lora), own)


def test_a_checkpoint_with_the_models_own_weights_changes_no_latent(subject, subject_folder, cached):
    with Checkpoint.on(subject, {"path": str(subject_folder / "model")}, 0) as adapter:
        trained = PulledBack(subject, adapter, cached[1], 3)
        assert float(contribution(trained).abs().max()) < 1e-5
        assert adapter.n_changed(subject.model) == 0


@pytest.mark.parametrize("hook", ["blocks.1.hook_mlp_out", "blocks.1.hook_attn_out"])
def test_an_sae_on_what_a_sublayer_adds_reads_the_adapters_vector_too(orthogonal, records, hook):
    subject, _, _ = orthogonal
    used = replace(subject, hook=find_hook(subject.model, hook))
    heldout = capture(used, records[12:], 32, 5)
    trained = PulledBack(used, steering(used, 2.0 * used.dictionary.W_dec[PLANTED]), heldout, 3)
    assert trained.explained_share() == pytest.approx(1, abs=1e-4)
    assert int(contribution(trained).abs().argmax()) == PLANTED


def test_a_change_of_activations_is_exact_and_zero_where_nothing_changed():
    before = Codes.from_dense(torch.tensor([[0.0, 1.0, 0.3, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    after = Codes.from_dense(torch.tensor([[0.0, 0.5, 0.3, 4.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    shift = activation_change(before, after)
    expected = torch.tensor([[0.0, -0.5, 0.0, 4.0], [-2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert torch.equal(shift.residual(torch.eye(4)), expected)
    assert torch.equal(shift.total(), expected.sum(0))
    assert torch.equal(shift.codes.dense(), before.dense())


def test_what_was_saved_is_scored_again_and_the_model_is_left_as_it_was(subject, cached, tmp_path):
    with Lora.on(subject, {"rank": 2, "where": "below"}, 0) as adapter:
        with torch.no_grad():
            for name, weight in adapter.named_parameters():
                if "lora_B" in name:
                    weight.add_(0.02)
        with adapter.idle():
            expected = contribution(PulledBack(subject, adapter, cached[1], 3))
        save_adapter(adapter, tmp_path / "seed_0")
    with load_trained(tmp_path / "seed_0", subject, cached[1], 3) as trained:
        assert isinstance(trained.adapter, ModelAdapter)
        torch.testing.assert_close(contribution(trained), expected, rtol=0, atol=0)
        assert expected.any()
    assert not any("lora" in name for name in subject.model.state_dict())
