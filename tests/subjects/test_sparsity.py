import json

import pytest
import torch
from safetensors.torch import load_file

from isaerft import config
from isaerft.adapters.base import make_adapter
from isaerft.config.base import validated
from isaerft.errors import InputError
from isaerft.registry import ADAPTERS
from isaerft.subjects import sparsity
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.sae import fit_sae, read_sae
from isaerft.subjects.sparsity import COMMON, RAREST, FiringCost, cost_of

ARCHITECTURES = ("standard", "jumprelu", "topk", "batchtopk", "matryoshka")
METADATA = {"hook_name": "blocks.1.hook_resid_post", "model_name": "m", "prepend_bos": True}
TARGET = 5.0


def mixtures(n_tokens=4000, n_parts=32, width=24, seed=0):
    """Activations (n_tokens, width) that are sums of about five of some parts, with noise."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.nn.functional.normalize(torch.randn(n_parts, width, generator=generator), dim=1)
    rates = torch.linspace(0.02, 0.3, n_parts)
    on = (torch.rand(n_tokens, n_parts, generator=generator) < rates).float()
    sizes = 1 + 0.3 * torch.randn(n_tokens, n_parts, generator=generator)
    return (on * sizes) @ parts + 0.05 * torch.randn(n_tokens, width, generator=generator)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every architecture, trained on the same activations."""
    folder, activations = tmp_path_factory.mktemp("saes"), mixtures()
    for name in ARCHITECTURES:
        options = config.TrainSae(d_sae=96, architecture=name, target_l0=TARGET, tokens=128 * 600, batch_size=128)
        fit_sae(options, activations, METADATA, folder / name, seed=0)
    return folder


@pytest.mark.parametrize("target", [None, TARGET])
def test_a_jumprelu_sae_is_to_the_bit_the_one_that_saelens_trains(tmp_path, monkeypatch, target):
    """With and without gradients of pre-activations; thresholds move, so their gradients count."""
    activations = mixtures(600)
    options = config.TrainSae(d_sae=96, architecture="jumprelu", target_l0=target, tokens=128 * 60, batch_size=128)
    fit_sae(options, activations, METADATA, tmp_path / "ours", seed=0)
    monkeypatch.setattr(sparsity, "FusedJumpReLUSAE", sparsity.JumpReLUTrainingSAE)
    fit_sae(options, activations, METADATA, tmp_path / "theirs", seed=0)
    ours, theirs = (load_file(tmp_path / name / "sae_weights.safetensors") for name in ("ours", "theirs"))
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert ours["threshold"].unique().numel() > 90
    assert (tmp_path / "ours/cfg.json").read_bytes() == (tmp_path / "theirs/cfg.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_reaches_its_target_and_all_but_standard_reconstruct_after_600_steps(trained, name):
    dictionary, x = load_dictionary(trained / name), mixtures()
    l0 = float(dictionary.encode(x).counts().float().mean())
    left = (x - dictionary.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert l0 == pytest.approx(TARGET, rel=0.15)
    # The L1 cost shrinks what a standard SAE of a short training reconstructs to nearly nothing.
    assert name == "standard" or left < 0.3
    if name == "topk":
        assert int(dictionary.encode(x).counts().max()) <= TARGET


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_read_as_any_dictionary_of_saelens_is(trained, name):
    saved = {"batchtopk": "jumprelu", "matryoshka": "jumprelu"}.get(name, name)
    assert json.loads((trained / name / "cfg.json").read_text())["architecture"] == saved
    dictionary, x = read_sae(trained / name), mixtures(20)
    from sae_lens import SAE

    theirs = SAE.load_from_disk(trained / name)
    torch.testing.assert_close(dictionary.encode_dense(x), theirs.encode(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(dictionary.reconstruct(x), theirs.decode(theirs.encode(x)), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_every_architecture_serves_every_adapter_of_latents(trained):
    kinds = [name for name in ADAPTERS if ADAPTERS.facts(name).made == "latents"]
    for name in ARCHITECTURES:
        dictionary = load_dictionary(trained / name)
        active = dictionary.encode_dense(mixtures(20))
        for kind in kinds:
            torch.testing.assert_close(make_adapter(kind, dictionary.d_sae, {})(active), active, msg=f"{name}, {kind}")


@pytest.mark.parametrize("k", [None, 4])
def test_the_default_is_saelens_own_jumprelu_and_k_its_topk(tmp_path, k):
    from sae_lens import (
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
        LoggingConfig,
        SAETrainer,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig

    activations, steps = mixtures(500), 4000 // 128
    options = config.TrainSae(d_sae=48, k=k, tokens=4000, batch_size=128)
    fit_sae(options, activations, METADATA, tmp_path / "ours", seed=0)
    torch.manual_seed(0)
    common = {"d_in": 24, "d_sae": 48, "normalize_activations": "expected_average_only_in"}
    if k is None:
        sae = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(l0_coefficient=1.0, l0_warm_up_steps=steps // 8, **common))
    else:
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(k=k, **common))
    generator = torch.Generator().manual_seed(0)
    cfg = SAETrainerConfig(
        total_training_samples=steps * 128,
        train_batch_size_samples=128,
        lr=2e-3,
        lr_end=2e-4,
        lr_scheduler_name="cosineannealing",
        dead_feature_window=100,
        device="cpu",
        logger=LoggingConfig(log_to_wandb=False),
    )
    batches = iter(lambda: activations[torch.randint(500, (128,), generator=generator)], None)
    SAETrainer(cfg=cfg, sae=sae, data_provider=batches).fit()
    sae.save_inference_model(str(tmp_path / "theirs"))
    ours, theirs = (load_file(tmp_path / name / "sae_weights.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ["standard", "jumprelu"])
@pytest.mark.parametrize("cost", ["weighted", "penalty"])
def test_a_cost_by_frequency_changes_what_is_learned_and_the_same_seed_gives_the_same_bytes(tmp_path, name, cost):
    weights = {}
    for folder, kind in (("a", cost), ("b", cost), ("plain", "plain")):
        options = config.TrainSae(
            d_sae=48, architecture=name, target_l0=TARGET, sparsity_cost=kind, tokens=6000, batch_size=128
        )
        fit_sae(options, mixtures(500), METADATA, tmp_path / folder, seed=0)
        weights[folder] = (tmp_path / folder / "sae_weights.safetensors").read_bytes()
    assert weights["a"] == weights["b"] != weights["plain"]


def test_common_latents_are_cheap_by_their_surprise_and_dear_by_the_penalty():
    p = torch.tensor([0.0, RAREST, 0.01, 0.1, 0.5, 1.0])
    weighted, penalty = cost_of(p, "weighted"), cost_of(p, "penalty")
    assert weighted[0] == weighted[1], "what never fires costs as what fires at the least frequency"
    assert torch.all(weighted[1:].diff() < 0)
    assert weighted[-1] == 0, "a latent that is always active says nothing"
    torch.testing.assert_close(weighted[2] / weighted[3], torch.tensor(2.0))  # log 100 to log 10
    assert torch.all(penalty[1:].diff() > 0)
    torch.testing.assert_close(penalty[3] / penalty[2], torch.tensor((1 + 0.2 / COMMON) / (1 + 0.02 / COMMON)))
    assert torch.equal(cost_of(p, "plain"), torch.ones(6))


@pytest.mark.parametrize("kind", ["weighted", "penalty"])
def test_costs_add_up_to_what_the_same_firing_would_cost_at_one_each(kind):
    active = (torch.rand(5000, 30, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.01, 0.6, 30)).float()
    paid = (active @ FiringCost(kind)(active)).mean()
    torch.testing.assert_close(paid, active.sum(1).mean())


def test_a_cost_follows_the_running_frequency_and_not_one_batch():
    cost = FiringCost("weighted")
    often, never = torch.ones(10, 2), torch.zeros(10, 2)
    often[:9, 1] = 0
    first = cost(often)
    after = cost(never)
    torch.testing.assert_close(first, after, rtol=0.1, atol=0.1)
    for _ in range(300):
        after = cost(torch.tensor([[0.0, 1.0]]))
    assert after[1] < after[0], "in the long run, the second fires more often"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"architecture": "standard"}, "standard without target_l0"),
        ({"architecture": "batchtopk"}, "batchtopk without target_l0"),
        ({"architecture": "topk", "target_l0": 3.5}, "a whole number; batchtopk takes any"),
        ({"architecture": "topk", "k": 3, "target_l0": 3}, "give target_l0 in place of k"),
        ({"architecture": "jumprelu", "k": 3}, "give target_l0 in place of k"),
        ({"target_l0": 512}, "target_l0 below d_sae"),
        ({"k": 512}, "k below d_sae"),
        ({"k": 3, "sparsity_cost": "weighted"}, "allowed: standard or jumprelu"),
        ({"architecture": "matryoshka", "target_l0": 2, "d_sae": 6}, "8 latents or more"),
        ({"architecture": "gated"}, "architecture"),
    ],
)
def test_options_that_do_not_fit_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        validated(config.TrainSae, given)
