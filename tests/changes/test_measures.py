from dataclasses import replace

import pandas as pd
import pytest
import torch

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.saved import save_adapter
from isaerft.changes import measures
from isaerft.changes.measures import COLUMNS, attribution, contribution, parameter, score_changes
from isaerft.changes.pullback import Trained
from isaerft.io import read_json
from isaerft.subjects.cache import write_cache
from isaerft.training.loop import heldout_loss


@pytest.fixture(params=["bias", "scale"])
def trained(request, subject, cached):
    adapter = make_adapter(request.param, subject.dictionary.d_sae, {})
    with torch.no_grad():
        values = 0.5 * torch.randn(adapter.d_sae, generator=torch.Generator().manual_seed(3))
        next(adapter.parameters()).copy_(values)
    return Trained(subject, adapter.requires_grad_(False), cached[1], 3)


def loss(trained, adapter=None):
    used = adapter or trained.adapter
    return heldout_loss(trained.subject, lambda b: adapted(trained.subject, used, b), trained.heldout, 3)


def test_attributions_add_up_to_the_fall_in_loss(trained):
    untrained = make_adapter(trained.adapter.kind, trained.adapter.d_sae, {})
    fall = loss(trained, untrained) - loss(trained)
    assert abs(fall) > 0.02
    assert float(attribution(trained).double().sum()) == pytest.approx(fall, rel=1e-3)


def test_a_large_change_gets_the_points_that_its_attributions_need_to_add_up(trained, monkeypatch):
    with torch.no_grad():
        next(trained.adapter.parameters()).mul_(20)
    fall = loss(trained, make_adapter(trained.adapter.kind, trained.adapter.d_sae, {})) - loss(trained)
    assert float(attribution(trained).double().sum()) == pytest.approx(fall, rel=0.01)
    monkeypatch.setattr(measures, "POINTS", measures.POINTS[:1])
    assert float(attribution(trained).double().sum()) != pytest.approx(fall, rel=0.01)


def test_a_small_change_is_attributed_by_its_gradient(subject, cached):
    adapter = make_adapter("bias", subject.dictionary.d_sae, {})
    objective = torch.zeros(())
    total = 0
    from isaerft.subjects.cache import completion_losses

    for batch in cached[1].batches(3):
        losses = completion_losses(subject, batch, adapted(subject, adapter, batch))
        objective, total = objective + losses.sum(), total + len(losses)
    (gradient,) = torch.autograd.grad(objective / total, adapter.bias)
    with torch.no_grad():
        adapter.bias.copy_(-1e-4 * gradient)
    result = attribution(Trained(subject, adapter.requires_grad_(False), cached[1], 3))
    torch.testing.assert_close(result, 1e-4 * gradient**2, rtol=2e-2, atol=1e-8)
    assert (result >= -1e-8).all(), "a step down the gradient promotes every latent's fall in loss"


def test_a_latent_that_did_not_change_is_attributed_nothing(trained):
    with torch.no_grad():
        next(trained.adapter.parameters())[5] = 0
    for measure in (attribution, contribution, parameter):
        assert measure(trained)[5] == 0
        assert measure(trained).abs().max() > 0


def test_contribution_is_the_mean_change_of_activation_times_decoder_norm(trained):
    dense = trained.heldout.codes.dense()
    expected = (trained.adapter(dense) - dense).mean(0) * trained.subject.dictionary.W_dec.norm(dim=1)
    torch.testing.assert_close(contribution(trained), expected, atol=1e-6, rtol=1e-4)


def test_a_scale_contributes_nothing_where_its_latent_never_fires(subject, cached):
    adapter = make_adapter("scale", subject.dictionary.d_sae, {})
    with torch.no_grad():
        adapter.scale.fill_(1)
    trained = Trained(subject, adapter, cached[1], 3)
    silent = cached[1].codes.dense().sum(0) == 0
    assert silent.any()
    assert torch.equal(contribution(trained) == 0, silent)
    assert torch.equal(parameter(trained), torch.ones(subject.dictionary.d_sae))


def test_measures_do_not_depend_on_the_batch_size(trained):
    for measure in (attribution, contribution):
        one, many = measure(replace(trained, batch_size=1)), measure(replace(trained, batch_size=100))
        torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-3)


@pytest.fixture
def plan():
    behaviors = {name: {"description": name, "rule": True} for name in ("a", "b")}
    return config.plan_from_dict(
        {
            "study": "small",
            "subjects": {"toy": {"testbed": {}}},
            "behaviors": behaviors,
            "adapters": {"bias": {}, "scale": {}, "lora": {}},
            "reference": "lora",
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
            "n_seeds": 2,
        }
    )


@pytest.mark.parametrize("permuted", [False, True])
def test_every_adapter_seed_and_measure_is_scored_but_not_the_reference(plan, subject, cached, tmp_path, permuted):
    write_cache({"heldout": cached[1]}, tmp_path / "cache.safetensors")
    for name in ("bias", "scale"):
        for seed in range(2):
            adapter = make_adapter(name, subject.dictionary.d_sae, {})
            with torch.no_grad():
                next(adapter.parameters()).add_(seed + 1)
            save_adapter(adapter, tmp_path / "adapters" / name / f"seed_{seed}")
    paths = tmp_path / "cache.safetensors", tmp_path / "adapters", tmp_path / "x.parquet"
    score_changes(
        plan,
        subject,
        *paths,
        measured=plan.analyzed_adapters(),
        diagnosed=(),
        diagnostics=tmp_path / "x.json",
        permuted=permuted,
    )
    assert read_json(tmp_path / "x.json") == []
    table = pd.read_parquet(tmp_path / "x.parquet")
    assert tuple(table) == COLUMNS
    assert table.groupby(["adapter", "measure", "seed"]).size().eq(48).all()
    assert set(table.adapter) == {"bias", "scale"}
    assert len(table) == 2 * 3 * 2 * 48
    own = table.query("adapter == 'bias' and measure == 'contribution' and seed == 1").change.to_numpy()
    used = subject.with_random_dictionary(plan.replicate_seed(1)) if permuted else subject
    torch.testing.assert_close(torch.tensor(own), 2.0 * used.dictionary.decoder_norm.double(), rtol=1e-5, atol=1e-6)


def test_measures_know_an_adapter_by_its_shift_displacement_and_parameter_alone(trained):
    class Elsewhere(Trained):
        def shift(self, batch):
            return trained.shift(batch)

        def displacement(self, batch):
            return trained.displacement(batch)

        def latent_parameter(self):
            return trained.latent_parameter()

    other = Elsewhere(trained.subject, None, trained.heldout, 3)
    for measure in (attribution, contribution, parameter):
        assert torch.equal(measure(other), measure(trained))


def test_the_gradient_is_taken_along_what_reaches_the_residual_stream(trained):
    """Where the dictionary expresses half of the effect, each latent is credited by the gradient of the whole."""

    class Doubled(Trained):
        def displacement(self, batch):
            return 2 * super().displacement(batch)

    twice = make_adapter(trained.adapter.kind, trained.adapter.d_sae, {}).requires_grad_(False)
    next(twice.parameters()).copy_(2 * next(trained.adapter.parameters()))
    whole = attribution(replace(trained, adapter=twice))
    half = attribution(Doubled(trained.subject, trained.adapter, trained.heldout, 3))
    torch.testing.assert_close(2 * half, whole, rtol=1e-3, atol=1e-6)
