import math
from dataclasses import replace

import pytest
import torch

from isaerft import config
from isaerft.adapters.base import adapted, load_adapter, make_adapter
from isaerft.errors import InputError
from isaerft.io import read_json
from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import CachedRows, write_cache
from isaerft.subjects.capture import tokenize
from isaerft.subjects.hooks import decoder_blocks
from isaerft.training.loop import heldout_loss, train
from isaerft.training.run import run_adapter


@pytest.fixture
def bias(subject):
    return make_adapter("bias", subject.dictionary.d_sae, {})


@pytest.fixture
def fit(subject, cached, bias):
    """Train `bias` and return what came of it."""

    def run(adapter=bias, rows=cached, *, seed=0, **options):
        settings = {"learning_rate": 0.3, "steps": 6, "batch_size": 4, "evaluate_every": 2} | options
        return train(
            subject,
            adapter,
            lambda batch: adapted(subject.dictionary, adapter, batch),
            *rows,
            config.Adapter(**settings),
            seed=seed,
            batch_size=4,
        )

    return run


def copied(rows):
    """The same rows in memory of their own, as safetensors wants them."""
    return CachedRows(
        rows.residual.clone(),
        rows.codes.rows(torch.arange(rows.codes.n_tokens)),
        rows.tokens.clone(),
        rows.predicts.clone(),
        rows.starts.clone(),
    )


def loss_of(subject, adapter, rows):
    return heldout_loss(subject, lambda batch: adapted(subject.dictionary, adapter, batch), rows, 4)


def test_training_from_the_cache_is_training_the_full_model_through_a_hook(subject, cached, records, bias):
    options = config.Adapter(learning_rate=0.3, steps=5, batch_size=12, subsample=1, evaluate_every=1, patience=99)
    seen = []

    def adapt(batch):
        if torch.is_grad_enabled():
            seen.append(bias.bias.detach().clone())
        return adapted(subject.dictionary, bias, batch)

    train(subject, bias, adapt, *cached, options, seed=0, batch_size=4)

    twin = torch.nn.Parameter(torch.zeros(subject.dictionary.d_sae))
    optimizer = torch.optim.SGD([twin], lr=0.3, momentum=0.9)
    pairs = [tokenize(record, subject.language, 32) for record in records[:12]]
    length = max(len(tokens) for tokens, _ in pairs)
    ids = torch.tensor([tokens + [0] * (length - len(tokens)) for tokens, _ in pairs])
    mask = torch.tensor([[1] * len(tokens) + [0] * (length - len(tokens)) for tokens, _ in pairs])
    labels = torch.where(mask.bool(), ids, -100)
    for row, (_, n_before) in enumerate(pairs):
        labels[row, :n_before] = -100

    def hook(module, arguments, output):
        return output + twin @ subject.dictionary.W_dec

    scale, steps = None, []
    handle = decoder_blocks(subject.model)[1].register_forward_hook(hook)
    try:
        for _ in range(5):
            steps.append(twin.detach().clone())
            optimizer.zero_grad()
            subject.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
            scale = scale or 1 / float(twin.grad.norm())
            twin.grad.mul_(scale)
            optimizer.step()
    finally:
        handle.remove()
    assert len(seen) == 5
    torch.testing.assert_close(torch.stack(seen), torch.stack(steps), atol=1e-5, rtol=1e-4)
    assert seen[-1].norm() > 0.3


def test_the_first_sgd_step_is_as_long_as_the_learning_rate(fit, bias):
    fit(learning_rate=0.05, steps=1, momentum=0.0)
    assert float(bias.bias.detach().norm()) == pytest.approx(0.05, rel=1e-4)


def test_the_held_out_loss_is_the_mean_over_completion_tokens_at_any_batch_size(subject, cached, bias):
    _, heldout = cached
    losses = []
    for batch in heldout.batches(1):
        with torch.no_grad():
            from isaerft.subjects.cache import completion_losses

            losses.append(completion_losses(subject, batch, batch.residual))
    expected = float(torch.cat(losses).mean())
    for n in (1, 3, 100):
        result = heldout_loss(subject, lambda batch: batch.residual, heldout, n)
        assert result == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["bias", "scale"])
def test_training_lowers_the_held_out_loss_and_reports_what_it_left(subject, cached, fit, kind):
    adapter = make_adapter(kind, subject.dictionary.d_sae, {})
    rows = cached[0], cached[0]
    result = fit(adapter, rows, steps=20, subsample=1)
    assert result.heldout_loss_adapted < result.heldout_loss_base - 0.05
    untrained = make_adapter(kind, subject.dictionary.d_sae, {})
    assert result.heldout_loss_base == pytest.approx(loss_of(subject, untrained, cached[0]))
    assert result.heldout_loss_adapted == pytest.approx(loss_of(subject, adapter, cached[0]))


def test_training_stops_when_held_out_loss_no_longer_falls_and_keeps_the_best_step(subject, cached, bias):
    """An adapter that is driven past its best point, step by step, must end at that point."""
    states, losses = [], []
    start = make_adapter("bias", subject.dictionary.d_sae, {})
    batch = cached[1].batch(torch.arange(4))
    OBJECTIVES["sft"](subject, batch, adapted(subject.dictionary, start, batch)).backward()
    latent = int(start.bias.grad.abs().argmax())
    sign = float(start.bias.grad[latent].sign())

    def adapt(batch):
        return adapted(subject.dictionary, bias, batch)

    @OBJECTIVES("drive")
    def drive(subject, batch, residual):
        """Have the value of sft, by which the best step is chosen, and the gradient of a straight road past it."""
        road = sign * bias.bias[latent]
        return OBJECTIVES["sft"](subject, batch, residual).detach() + road - road.detach()

    try:
        options = config.Adapter(
            objective="drive", learning_rate=0.4, momentum=0, steps=60, evaluate_every=1, patience=3
        )
        result = train(subject, bias, adapt, *cached, options, seed=0, batch_size=4)
    finally:
        del OBJECTIVES._parts["drive"]
    for step in range(result.steps + 1):
        other = make_adapter("bias", subject.dictionary.d_sae, {})
        with torch.no_grad():
            other.bias[latent] = -0.4 * sign * step
        states.append(other.bias.detach()[latent])
        losses.append(loss_of(subject, other, cached[1]))
    best = min(range(len(losses)), key=losses.__getitem__)
    assert 0 < best < result.steps < 60
    assert result.best_step == best
    assert result.steps == best + 3
    assert float(bias.bias.detach()[latent]) == pytest.approx(float(states[best]), abs=1e-5)
    assert result.heldout_loss_adapted == pytest.approx(losses[best], rel=1e-6)


def test_an_adapter_that_never_helps_stays_the_identity(fit, bias, subject, cached):
    result = fit(learning_rate=1000.0, steps=4, evaluate_every=1)
    assert result.best_step == 0
    assert not bias.bias.any()
    assert result.heldout_loss_adapted == result.heldout_loss_base


def test_a_loss_that_is_not_finite_is_an_input_error_and_leaves_the_last_good_state(subject, cached, bias):
    calls = []

    @OBJECTIVES("breaks")
    def breaks(subject, batch, residual):
        calls.extend([1] * torch.is_grad_enabled())
        return OBJECTIVES["sft"](subject, batch, residual) * (math.nan if len(calls) > 2 else 1)

    try:
        options = config.Adapter(objective="breaks", learning_rate=0.1, steps=9, evaluate_every=1, batch_size=12)
        with pytest.raises(InputError, match=r"toy: loss is nan at step 3; lower the adapter's learning_rate"):
            train(
                subject,
                bias,
                lambda batch: adapted(subject.dictionary, bias, batch),
                cached[0],
                cached[0],
                options,
                seed=0,
                batch_size=4,
                description="toy",
            )
    finally:
        del OBJECTIVES._parts["breaks"]
    assert bias.bias.isfinite().all()
    assert bias.bias.any()


def test_the_tokens_of_every_step_are_counted(cached, fit):
    result = fit(steps=3, batch_size=12, subsample=1, evaluate_every=9)
    assert (result.steps, result.tokens) == (3, 3 * len(cached[0].tokens))


def test_a_seed_sees_its_own_share_of_the_rows_and_always_the_same(subject, cached):
    seen = {}
    for seed in (0, 0, 1):
        rows = []
        options = config.Adapter(steps=20, batch_size=4, subsample=0.5, evaluate_every=99, learning_rate=1e-6)
        adapter = make_adapter("bias", subject.dictionary.d_sae, {})

        def adapt(batch, rows=rows, adapter=adapter):
            if torch.is_grad_enabled():
                starts = torch.cat([torch.zeros(1).long(), batch.mask.sum(1).cumsum(0)])[:-1]
                rows.append(batch.residual[starts + 1].sum(1).tolist())
            return adapted(subject.dictionary, adapter, batch)

        train(subject, adapter, adapt, *cached, options, seed=seed, batch_size=4)
        seen.setdefault(seed, []).append(rows)
    assert seen[0][0] == seen[0][1]
    assert seen[0][0] != seen[1][0]
    assert all(len({value for batch in rows for value in batch}) <= 6 for rows in (seen[0][0], seen[1][0]))


@pytest.fixture
def plan():
    return config.plan_from_dict(
        {
            "study": "small",
            "subjects": {"toy": {"testbed": {}}},
            "behaviors": {name: {"description": name, "rule": True} for name in ("a", "b")},
            "adapters": {
                "bias": {"steps": 4, "learning_rate": 0.2, "evaluate_every": 1, "batch_size": 4},
                "wide": {"kind": "scale", "steps": 4, "learning_rate": 0.2, "evaluate_every": 1, "batch_size": 4},
                "lora": {"optimizer": "adam", "learning_rate": 0.02, "steps": 4, "options": {"rank": 2}},
            },
            "reference": "lora",
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
            "n_seeds": 2,
        }
    )


@pytest.mark.parametrize("name", ["bias", "wide", "lora"])
def test_all_seeds_are_trained_and_the_same_study_gives_the_same_bytes(plan, subject, cached, tmp_path, name):
    write_cache({"train": cached[0], "heldout": copied(cached[0])}, tmp_path / "cache")
    folders = [tmp_path / "a", tmp_path / "b"]
    before = {key: value.clone() for key, value in subject.model.state_dict().items()}
    for folder in folders:
        run_adapter(plan, subject, name, tmp_path / "cache", folder, permuted=False, behavior="a")
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.*")) for folder in folders]
    assert files[0] == files[1]
    assert all((folders[0] / path).read_bytes() == (folders[1] / path).read_bytes() for path in files[0])
    results = read_json(folders[0] / "training.json")
    assert [row["seed"] for row in results] == [0, 1]
    assert all("seconds" not in row for row in results)
    assert all(row["heldout_loss_adapted"] < row["heldout_loss_base"] for row in results)
    one, two = ((folders[0] / f"seed_{seed}" / "adapter_model.safetensors").read_bytes() for seed in (0, 1))
    assert one != two
    after = subject.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    if name == "bias":
        assert results[0]["n_parameters"] == 48
        assert load_adapter(folders[0] / "seed_0", 48).bias.any()


def test_a_permuted_subject_trains_every_seed_on_its_own_dictionary(plan, subject, cached, tmp_path):
    write_cache({"train": cached[0], "heldout": copied(cached[0])}, tmp_path / "cache")
    run_adapter(plan, subject, "bias", tmp_path / "cache", tmp_path / "out", permuted=True, behavior="a")
    for seed in range(2):
        used = subject.with_random_dictionary(plan.replicate_seed(seed))
        adapter = load_adapter(tmp_path / "out" / f"seed_{seed}", 48)
        reported = read_json(tmp_path / "out" / "training.json")[seed]["heldout_loss_adapted"]
        assert loss_of(used, adapter, cached[0]) == pytest.approx(reported, rel=1e-6)
        assert loss_of(subject, adapter, cached[0]) != pytest.approx(reported, rel=1e-4)


def test_seconds_are_recorded_only_when_asked_for(plan, subject, cached, tmp_path):
    write_cache({"train": cached[0], "heldout": cached[1]}, tmp_path / "cache")
    timed = replace(plan, record_seconds=True, n_seeds=1)
    run_adapter(timed, subject, "bias", tmp_path / "cache", tmp_path / "out", permuted=False, behavior="a")
    assert read_json(tmp_path / "out" / "training.json")[0]["seconds"] > 0
