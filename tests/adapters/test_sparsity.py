import pytest
import torch

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.saved import load_adapter, save_adapter
from isaerft.adapters.sparsity import Dense, Gated, Proximal, sparsity
from isaerft.errors import InputError
from isaerft.registry import OBJECTIVES
from isaerft.subjects.codes import Codes
from isaerft.training.loop import train
from isaerft.training.row_space import trainable

KINDS = {
    "bias": {},
    "scale": {},
    "affine": {},
    "lerp": {},
    "low_rank": {"rank": 3},
    "mlp": {"depth": 1, "width": 4},
}
PLANTED = (3, 7, 20)


@pytest.fixture
def regression(subject):
    """An objective whose lowest value is where the residual stream moves as three planted latents would move it."""

    def towards(batch, change):
        return batch.residual + change.shift(batch.codes).residual(subject.dictionary.W_dec)

    def using(change):
        @OBJECTIVES("planted")
        def planted(subject, batch, residual):
            return (residual - towards(batch, change).detach()).square().sum(-1).mean()

    yield using
    OBJECTIVES._parts.pop("planted", None)


def fit(subject, cached, adapter, sparse, *, seed=0, steps=120, rate=0.3):
    options = config.Adapter(
        objective="planted", learning_rate=rate, steps=steps, batch_size=6, subsample=1, patience=99, sparsity=sparse
    )
    follow = sparsity(adapter, options.sparsity, steps, seed)
    with trainable(adapter, subject, options, follow) as (module, adapt):
        return train(subject, module, adapt, *cached, options, seed=seed, batch_size=4, sparsity=follow)


def firing(cached, n):
    """The latents that fire most often."""
    counts = torch.bincount(cached[0].codes.indices, minlength=cached[0].codes.d_sae)
    return counts.topk(n).indices


@pytest.mark.parametrize("how", ["l1", "l0"])
@pytest.mark.parametrize("kind", ["bias", "scale", "affine"])
def test_sparse_training_finds_the_planted_latents_and_silences_all_others(subject, cached, regression, kind, how):
    planted = torch.tensor(PLANTED) if kind == "bias" else firing(cached, 3)
    change = make_adapter("bias" if kind == "bias" else "scale", 48, {})
    with torch.no_grad():
        change.writing_parameters()[0][planted] = torch.tensor([1.0, -0.8, 0.9])
    regression(change)
    adapter = make_adapter(kind, 48, {})
    result = fit(subject, cached, adapter, config.Sparsity(target=3, kind=how))
    assert set(adapter.latent_parameter().nonzero()[:, 0].tolist()) == set(planted.tolist())
    assert adapter.n_active() == 3
    assert result.heldout_objective_adapted < 0.1 * result.heldout_objective_base
    assert result.best_step >= round(0.7 * 120)


@pytest.mark.parametrize("how", ["l1", "l0"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_ends_with_at_most_the_target_and_exact_zeros(subject, cached, regression, tmp_path, kind, how):
    change = make_adapter("affine", 48, {})
    with torch.no_grad():
        change.bias.copy_(0.3 * torch.randn(48, generator=torch.Generator().manual_seed(0)))
        change.scale.copy_(0.3 * torch.randn(48, generator=torch.Generator().manual_seed(1)))
    regression(change)
    adapter = make_adapter(kind, 48, KINDS[kind], seed=1)
    fit(subject, cached, adapter, config.Sparsity(target=5, kind=how), steps=40, rate=0.03)
    save_adapter(adapter, tmp_path / "saved")
    read = load_adapter(tmp_path / "saved", 48)
    assert type(read) is type(adapter), "what is saved is the plain kind"
    assert 0 < read.n_active() <= 5
    silent = read.latent_parameter() == 0
    assert int((~silent).sum()) == read.n_active()
    for parameter in read.writing_parameters():
        assert not parameter[..., silent].any()
    if kind == "lerp":
        assert not read.target[silent].any()
    dense = torch.relu(torch.randn(20, 48, generator=torch.Generator().manual_seed(2)))
    assert torch.equal((read(dense) != dense).any(0), ~silent)


def test_the_number_allowed_falls_from_all_to_the_target_and_stays():
    follow = Proximal(make_adapter("bias", 48, {}), config.Sparsity(target=4, anneal=0.5), 100)
    allowed = [follow.allowed(step) for step in range(51)]
    assert allowed[0] == 48
    assert allowed == sorted(allowed, reverse=True)
    assert allowed[40:] == [4] * 11
    assert allowed[20] == round((48 * 4) ** 0.5)


def test_the_threshold_shrinks_whole_latents_by_the_first_that_is_not_allowed():
    adapter = make_adapter("affine", 4, {})
    with torch.no_grad():
        adapter.bias.copy_(torch.tensor([3.0, 0.0, 0.6, 0.1]))
        adapter.scale.copy_(torch.tensor([4.0, 2.0, 0.8, 0.0]))
    follow = Proximal(adapter, config.Sparsity(target=2, shrinkage=1), 100)
    follow.after_step(99)
    torch.testing.assert_close(adapter.bias.detach(), torch.tensor([3 * 0.8, 0, 0, 0]))
    torch.testing.assert_close(adapter.scale.detach(), torch.tensor([4 * 0.8, 2 * 0.5, 0, 0]))


def test_without_shrinkage_survivors_stay_as_they_are():
    adapter = make_adapter("bias", 4, {})
    with torch.no_grad():
        adapter.bias.copy_(torch.tensor([3.0, -2.0, 0.6, 0.1]))
    Proximal(adapter, config.Sparsity(target=2, shrinkage=0), 100).after_step(99)
    assert torch.equal(adapter.bias.detach(), torch.tensor([3.0, -2, 0, 0]))


def test_a_silent_latent_stays_silent_whatever_the_optimizer_does():
    adapter = make_adapter("bias", 6, {})
    follow = Proximal(adapter, config.Sparsity(target=2, anneal=0.1), 10)
    with torch.no_grad():
        adapter.bias.copy_(torch.arange(6.0))
    follow.after_step(1)
    with torch.no_grad():
        adapter.bias.add_(10)
    follow.after_step(2)
    assert (adapter.bias != 0).tolist() == [False] * 4 + [True] * 2
    assert adapter.bias[5] > 10


def test_gates_are_random_where_a_gradient_is_taken_and_fixed_where_not():
    adapter = make_adapter("bias", 30, {})
    with torch.no_grad():
        adapter.bias.fill_(1)
    follow = Gated(adapter, config.Sparsity(target=2, kind="l0"), 100, seed=0)
    shift = adapter.shift(Codes.from_dense(torch.ones(1, 30)))
    drawn = [follow.weigh(shift).constant for _ in range(400)]
    assert not torch.equal(drawn[0], drawn[1])
    assert all(((one >= 0) & (one <= 1)).all() for one in drawn)
    # P(open) of the hard-concrete distribution: sigmoid(log alpha - temperature * log(-low / high)).
    expected = torch.sigmoid(torch.tensor(2.0) + 2 / 3 * torch.tensor(11.0).log())
    assert float((torch.stack(drawn) > 0).float().mean()) == pytest.approx(float(expected), abs=0.01)
    with torch.no_grad():
        assert torch.equal(follow.weigh(shift).constant, follow.weigh(shift).constant)
    same = Gated(adapter, config.Sparsity(target=2, kind="l0"), 100, seed=0)
    assert torch.equal(same.weigh(shift).constant, drawn[0])


@pytest.mark.parametrize("how", ["l1", "l0"])
def test_the_same_seed_gives_the_same_numbers(subject, cached, regression, how):
    change = make_adapter("bias", 48, {})
    with torch.no_grad():
        change.bias[list(PLANTED)] = 1
    regression(change)
    made = []
    for seed in (0, 0, 1):
        adapter = make_adapter("bias", 48, {})
        fit(subject, cached, adapter, config.Sparsity(target=6, kind=how), steps=20, seed=seed)
        made.append(adapter.bias.detach())
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_a_target_that_is_no_choice_and_an_adapter_that_cannot_be_sparse_are_refused():
    with pytest.raises(InputError, match=r"target 8 for an SAE of 8 latents; allowed: 1 to 7"):
        sparsity(make_adapter("bias", 8, {}), config.Sparsity(target=8), 10, 0)
    adapter = make_adapter("bias", 8, {})
    adapter.writing_parameters = tuple
    with pytest.raises(InputError, match="'bias' cannot be trained sparsely"):
        sparsity(adapter, config.Sparsity(target=2), 10, 0)
    assert type(sparsity(make_adapter("bias", 8, {}), None, 10, 0)) is Dense


def test_gates_leave_the_adapted_stream_where_they_are_open_or_gone(subject, cached):
    batch, adapter = cached[0].batch(torch.tensor([0, 1])), make_adapter("bias", 48, {})
    follow = Gated(adapter, config.Sparsity(target=2, kind="l0"), 100, seed=0)
    with torch.no_grad():
        adapter.bias.fill_(0.5)
        follow.log_alpha[:10] = -9
        result = adapted(subject, adapter, batch, follow.weigh)
        gates = follow.weigh(adapter.shift(batch.codes)).constant / 0.5
        assert not gates[:10].any()
        assert (gates[10:] > 0.9).all()
        torch.testing.assert_close(result - batch.residual, (gates * 0.5 @ subject.dictionary.W_dec).expand_as(result))


MAP = {"depth": 0, "bias": False}


def planted_map(cached):
    """A map that reads the three latents that fire most and writes two others, and these latents."""
    change = make_adapter("mlp", 48, MAP)
    reads, writes = firing(cached, 3), torch.tensor([5, 11])
    with torch.no_grad():
        change.output[reads[:, None], writes] = torch.tensor([[0.9, -0.5], [0.4, 0.8], [-0.6, 0.7]])
    return change, set(reads.tolist()), set(writes.tolist())


def used(adapter):
    """The latents that a map reads, and those that it writes."""
    return tuple(set((adapter.output != 0).any(side).nonzero()[:, 0].tolist()) for side in (1, 0))


def test_a_map_that_is_sparse_in_both_directions_finds_what_is_read_and_what_is_written(
    subject, cached, regression, tmp_path
):
    change, reads, writes = planted_map(cached)
    regression(change)
    adapter = make_adapter("mlp", 48, MAP)
    result = fit(subject, cached, adapter, config.Sparsity(target=2, read_target=3), steps=200, rate=0.1)
    assert used(adapter) == (reads, writes)
    assert result.heldout_objective_adapted < 0.1 * result.heldout_objective_base
    save_adapter(adapter, tmp_path / "saved")
    assert torch.equal(load_adapter(tmp_path / "saved", 48).output, adapter.output)


def test_without_a_read_target_the_reading_side_stays_dense(subject, cached, regression):
    regression(planted_map(cached)[0])
    adapter = make_adapter("mlp", 48, MAP)
    fit(subject, cached, adapter, config.Sparsity(target=2), steps=40, rate=0.1)
    reads, writes = used(adapter)
    assert len(writes) == 2
    assert len(reads) > 20


def test_both_sides_are_cut_by_their_own_number_and_stay_cut_whatever_the_optimizer_does():
    adapter = make_adapter("mlp", 4, MAP)
    with torch.no_grad():
        adapter.output.copy_(torch.tensor([[9.0, 1, 2, 0], [8, 1, 1, 0], [3, 7, 6, 0], [0, 0, 0, 1]]))
    follow = Proximal(adapter, config.Sparsity(target=1, read_target=2, shrinkage=0, anneal=0.1), 10)
    follow.after_step(1)
    assert used(adapter) == ({0, 2}, {0})
    with torch.no_grad():
        adapter.output.add_(10)
    follow.after_step(2)
    assert used(adapter) == ({0, 2}, {0})


def test_a_reading_side_that_cannot_be_sparse_is_refused():
    with pytest.raises(InputError, match=r"'low_rank' with sparsity.read_target; allowed: mlp"):
        sparsity(make_adapter("low_rank", 8, {}), config.Sparsity(target=2, read_target=2), 10, 0)
    with pytest.raises(InputError, match=r"'mlp' with sparsity.read_target"):
        sparsity(make_adapter("mlp", 8, {"depth": 1}), config.Sparsity(target=2, read_target=2), 10, 0)
    with pytest.raises(InputError, match=r"sparsity.read_target 8 for an SAE of 8 latents"):
        sparsity(make_adapter("mlp", 8, MAP), config.Sparsity(target=2, read_target=8), 10, 0)
    with pytest.raises(ValueError, match="gates act on latents that change alone"):
        config.Sparsity(target=2, read_target=2, kind="l0")
