import math
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.sparsity import sparsity
from isaerft.errors import InputError
from isaerft.registry import OBJECTIVES
from isaerft.subjects.blocks import decoder_blocks
from isaerft.subjects.cache import read_cache
from isaerft.subjects.capture import capture_behavior, tokenize
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.points import find_hook
from isaerft.training.loop import Trainee, add_gradients, frozen_part, heldout_loss, train, train_together
from isaerft.training.objectives import make_objective, one_by_one, sft_together
from isaerft.training.pairs import PreferenceRows
from isaerft.training.row_space import trainable


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
            lambda batch: adapted(subject, adapter, batch),
            *rows,
            config.Adapter(**settings),
            seed=seed,
            batch_size=4,
        )

    return run


def loss_of(subject, adapter, rows):
    return heldout_loss(subject, lambda batch: adapted(subject, adapter, batch), rows, 4)


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
    OBJECTIVES["sft"](subject, batch, adapted(subject, start, batch)).backward()
    latent = int(start.bias.grad.abs().argmax())
    sign = float(start.bias.grad[latent].sign())

    def adapt(batch):
        return adapted(subject, bias, batch)

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
                lambda batch: adapted(subject, bias, batch),
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
            return adapted(subject, adapter, batch)

        train(subject, adapter, adapt, *cached, options, seed=seed, batch_size=4)
        seen.setdefault(seed, []).append(rows)
    assert seen[0][0] == seen[0][1]
    assert seen[0][0] != seen[1][0]
    assert all(len({value for batch in rows for value in batch}) <= 6 for rows in (seen[0][0], seen[1][0]))


@pytest.fixture
def adapter(subject):
    adapter = make_adapter("affine", subject.dictionary.d_sae, {})
    with torch.no_grad():
        adapter.bias[2] = 0.5
    return adapter


@pytest.fixture
def adapt(subject, adapter):
    return lambda batch: adapted(subject, adapter, batch)


def gradients(subject, rows, adapter, adapt, cuts, objective=None):
    adapter.zero_grad()
    parts = [rows.batch(part) for part in torch.arange(len(rows)).tensor_split(cuts)]
    (loss,) = add_gradients(subject, one_by_one(objective or OBJECTIVES["sft"]), [adapt], [parts])
    return loss, [parameter.grad.clone() for parameter in adapter.parameters()]


@pytest.mark.parametrize("cuts", [[1], [2, 3, 9], list(range(1, 12))])
def test_the_gradient_of_a_step_does_not_depend_on_how_its_rows_are_cut(subject, cached, adapter, adapt, cuts):
    """The rows' completions differ in length, so a mean of the parts' means would be another number."""
    loss, whole = gradients(subject, cached[0], adapter, adapt, [])
    loss_in_parts, parts = gradients(subject, cached[0], adapter, adapt, cuts)
    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
        assert one.any()
    batch = cached[0].batch(torch.arange(len(cached[0])))
    assert loss == pytest.approx(float(OBJECTIVES["sft"](subject, batch, adapt(batch)).detach()))


def test_a_step_on_pairs_does_not_depend_on_how_they_are_cut(subject, cached, adapter, adapt):
    replies = replace(cached[0], residual=cached[0].residual.flip(0))
    pairs = PreferenceRows(cached[0], replies, torch.linspace(-9, -5, 2 * len(replies)).view(-1, 2))
    objective = make_objective(config.Adapter(objective="dpo"))
    _, whole = gradients(subject, pairs, adapter, adapt, [], objective)
    _, parts = gradients(subject, pairs, adapter, adapt, [2, 3, 9], objective)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
        assert one.any()


def test_accumulation_takes_the_same_steps_with_fewer_rows_at_a_time(subject, cached):
    biases, sizes = [], []
    for n in (1, 3):
        adapter = make_adapter("bias", subject.dictionary.d_sae, {})

        def adapt(batch, adapter=adapter):
            if torch.is_grad_enabled():
                sizes.append(len(batch.mask))
            return adapted(subject, adapter, batch)

        options = config.Adapter(
            learning_rate=0.3, steps=4, batch_size=6, subsample=1, evaluate_every=4, gradient_accumulation=n
        )
        result = train(subject, adapter, adapt, *cached, options, seed=0, batch_size=4)
        assert (result.steps, result.best_step) == (4, 4)
        biases.append(adapter.bias.detach())
    assert sizes == [6] * 4 + [2] * 12
    torch.testing.assert_close(*biases, atol=1e-5, rtol=1e-5)


def test_a_loss_that_is_not_finite_stops_at_its_own_step_and_not_at_the_next_evaluation(subject, cached):
    calls = []

    @OBJECTIVES("breaks_early")
    def breaks(subject, batch, residual):
        calls.extend([1] if torch.is_grad_enabled() else [])
        return OBJECTIVES["sft"](subject, batch, residual) * (math.inf if len(calls) == 4 else 1)

    adapter = make_adapter("bias", subject.dictionary.d_sae, {})
    try:
        options = config.Adapter(objective="breaks_early", learning_rate=0.1, steps=50, evaluate_every=50)
        with pytest.raises(InputError, match=r"toy: loss is inf at step 4; lower the adapter's learning_rate"):
            train(
                subject,
                adapter,
                lambda batch: adapted(subject, adapter, batch),
                *cached,
                options,
                seed=0,
                batch_size=4,
                description="toy",
            )
    finally:
        del OBJECTIVES._parts["breaks_early"]
    assert len(calls) == 4
    assert adapter.bias.isfinite().all()


def at(subject, model, hook_name="blocks.0.hook_resid_post"):
    language = replace(subject.language, model=model)
    return replace(subject, language=language, hook=find_hook(model, hook_name))


def frozen_gradients(subject, rows, adapter, **options):
    """Return the loss of a step and its gradients, run as the options say."""
    adapter.zero_grad()
    parts = [rows.batch(torch.arange(len(rows)))]

    def adapt(batch):
        return adapted(subject, adapter, batch)

    with frozen_part(subject, config.Adapter(**options)) as precise:
        (loss,) = add_gradients(subject, sft_together, [precise(adapt)], [parts])
    return loss, torch.cat([parameter.grad for parameter in adapter.parameters()])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_checkpointing_runs_every_block_above_again_and_gives_the_same_gradients(
    subject, model_of, cached, adapter, architecture
):
    used = at(subject, model_of(architecture))
    # The first pass through a model also finds out what its blocks return.
    frozen_gradients(used, cached[0], adapter)
    calls = []
    blocks = decoder_blocks(used.model)
    handles = [block.mlp.register_forward_pre_hook(lambda *_: calls.append(1)) for block in blocks]
    try:
        loss, expected = frozen_gradients(used, cached[0], adapter)
        n_plain = len(calls)
        again, found = frozen_gradients(used, cached[0], adapter, gradient_checkpointing=True)
    finally:
        for handle in handles:
            handle.remove()
    assert (n_plain, len(calls) - n_plain) == (2, 4)
    assert again == loss
    assert torch.equal(found, expected)
    assert not any("forward" in vars(block) for block in blocks)


def test_a_forward_that_was_put_on_a_block_comes_back_after_checkpointing(subject, cached, adapter):
    block = decoder_blocks(subject.model)[2]

    def own(*args, **kwargs):
        return type(block).forward(block, *args, **kwargs)

    block.forward = own
    try:
        frozen_gradients(at(subject, subject.model), cached[0], adapter, gradient_checkpointing=True)
        assert block.forward is own
    finally:
        del block.forward


def test_autocast_computes_the_blocks_in_bfloat16_and_the_adapter_in_float32(subject, cached, adapter):
    used, seen = at(subject, subject.model), []
    handle = decoder_blocks(used.model)[2].mlp.register_forward_hook(lambda *a: seen.append(a[-1].dtype))
    try:
        exact, expected = frozen_gradients(used, cached[0], adapter)
        loss, found = frozen_gradients(used, cached[0], adapter, precision="bfloat16")
    finally:
        handle.remove()
    assert seen == [torch.float32, torch.bfloat16]
    assert loss != exact
    assert loss == pytest.approx(exact, rel=0.02)
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.99
    assert not torch.is_autocast_enabled("cpu")


def test_what_the_adapter_adds_is_not_rounded_to_bfloat16_by_autocast(subject, cached, adapter):
    batch = cached[0].batch(torch.arange(3))
    expected = adapted(subject, adapter, batch)
    with frozen_part(subject, config.Adapter(precision="bfloat16")) as precise:
        assert torch.equal(precise(lambda batch: adapted(subject, adapter, batch))(batch), expected)


def test_float32_widens_a_bfloat16_model_for_the_training_only(subject, tiny, tokenizer, cached, adapter):
    model = tiny.make_model("llama", len(tokenizer)).bfloat16()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    used = at(subject, model)
    rows = replace(cached[0], residual=cached[0].residual.bfloat16())
    wide, found = frozen_gradients(used, rows, adapter, precision="float32")
    narrow, _ = frozen_gradients(used, rows, adapter)
    reference = at(subject, tiny.make_model("llama", len(tokenizer)).bfloat16().float())
    exact, expected = frozen_gradients(reference, replace(rows, residual=rows.residual.float()), adapter)
    assert wide == exact
    assert wide != narrow
    torch.testing.assert_close(found, expected)
    assert model.dtype == torch.bfloat16
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


N_STEPS, BATCH, RATE, MOMENTUM = 5, 4, 0.3, 0.9


def full_model_steps(subject, records, order, kind):
    """Return what the adapter adds to the residual stream of a step's tokens, for every step of plain SGD."""
    dictionary, seen, scale = subject.dictionary, [], None
    adapter = make_adapter(kind, dictionary.d_sae, {})
    optimizer = torch.optim.SGD(adapter.parameters(), lr=RATE, momentum=MOMENTUM)
    for rows in order:
        pairs = [tokenize(records[row], subject.language, 32) for row in rows]
        length = max(len(tokens) for tokens, _ in pairs)
        ids = torch.tensor([tokens + [0] * (length - len(tokens)) for tokens, _ in pairs])
        mask = torch.tensor([[1] * len(tokens) + [0] * (length - len(tokens)) for tokens, _ in pairs])
        labels = torch.where(mask.bool(), ids, -100)
        for row, (_, n_before) in enumerate(pairs):
            labels[row, :n_before] = -100

        def splice(module, arguments, output, mask=mask):
            residual = output[0] if isinstance(output, tuple) else output
            activations = dictionary.encode_dense(residual)
            # No latent counts as active at BOS.
            activations = activations * (torch.arange(residual.shape[1]) > 0)[:, None]
            added = (adapter(activations) - activations) @ dictionary.W_dec
            seen.append(added.detach()[mask.bool()])
            return (residual + added, *output[1:]) if isinstance(output, tuple) else residual + added

        handle = decoder_blocks(subject.model)[1].register_forward_hook(splice)
        try:
            optimizer.zero_grad()
            subject.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        finally:
            handle.remove()
        gradients = [parameter.grad for parameter in adapter.parameters()]
        scale = scale or 1 / float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        for gradient in gradients:
            gradient.mul_(scale)
        optimizer.step()
    return seen


@pytest.mark.parametrize("kind", ["bias", "scale", "affine"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "run", [{}, {"gradient_accumulation": 2, "gradient_checkpointing": True}], ids=["plain", "parts"]
)
def test_training_from_the_cache_takes_the_steps_of_the_full_model(
    subject, model_of, records, tmp_path, kind, architecture, run
):
    model = model_of(architecture)
    site = find_hook(model, "blocks.1.hook_resid_post")
    subject = LoadedSubject(replace(subject.language, model=model), subject.dictionary, site)
    splits = {"train": records[:12], "heldout": records[12:]}
    capture_behavior(subject, splits, tmp_path / "cache", max_length=32, batch_size=5)
    rows = read_cache(tmp_path / "cache", "train")
    order, seen = [], []

    class Noted:
        """The rows, keeping a note of which were asked for."""

        def __len__(self):
            return len(rows)

        def batch(self, chosen):
            order.append(chosen.tolist())
            return rows.batch(chosen)

    options = config.Adapter(
        learning_rate=RATE, momentum=MOMENTUM, steps=N_STEPS, batch_size=BATCH, evaluate_every=99, **run
    )
    adapter = make_adapter(kind, subject.dictionary.d_sae, {})
    with trainable(adapter, subject, options) as (module, adapt):

        def noting(batch):
            residual = adapt(batch)
            if torch.is_grad_enabled():
                seen.append((residual - batch.residual).detach())
            return residual

        train(
            subject, module, noting, Noted(), read_cache(tmp_path / "cache", "heldout"), options, seed=3, batch_size=4
        )

    n_parts = options.gradient_accumulation
    assert len(seen) == len(order) == n_parts * N_STEPS
    found = [torch.cat(seen[i : i + n_parts]) for i in range(0, len(seen), n_parts)]
    whole = [[row for part in order[i : i + n_parts] for row in part] for i in range(0, len(order), n_parts)]
    for step, expected in enumerate(full_model_steps(subject, records[:12], whole, kind)):
        torch.testing.assert_close(
            found[step], expected, atol=1e-5, rtol=1e-4, msg=lambda text, s=step: f"step {s}: {text}"
        )
    assert found[-1].abs().max() > 1e-2


TOGETHER = {
    "row space": ("bias", {}),
    "adam": ("low_rank", {"optimizer": "adam", "learning_rate": 0.02}),
    "l0": ("bias", {"sparsity": config.Sparsity(target=4, kind="l0", anneal=0.5)}),
    "l1": ("affine", {"sparsity": config.Sparsity(target=4, anneal=0.5)}),
    "accumulated": ("affine", {"gradient_accumulation": 3, "gradient_checkpointing": True}),
    "with a penalty": ("bias", {"kl_weight": 0.1}),
    "stopped early": ("bias", {"learning_rate": 4.0, "patience": 1, "steps": 30, "evaluate_every": 1, "batch_size": 2}),
}


@pytest.mark.parametrize("case", TOGETHER)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_seeds_trained_together_end_where_each_ends_alone(subject, model_of, cached, case, architecture):
    kind, changed = TOGETHER[case]
    used = at(subject, model_of(architecture))
    settings = {"learning_rate": 0.3, "steps": 8, "batch_size": 5, "evaluate_every": 2} | changed
    options, seeds = config.Adapter(**settings), range(3)

    def trained(group):
        adapters, trainees = [], []
        with ExitStack() as stack:
            for seed in group:
                adapters.append(make_adapter(kind, subject.dictionary.d_sae, {}, seed))
                sparse = sparsity(adapters[-1], options.sparsity, options.steps, seed)
                parts = stack.enter_context(trainable(adapters[-1], subject, options, sparse))
                trainees.append(Trainee(*parts, seed, sparsity=sparse))
            results = train_together(used, trainees, *cached, options, batch_size=7)
        return list(zip(adapters, results, strict=True))

    alone = [trained([seed])[0] for seed in seeds]
    ends = []
    for (adapter, result), (expected, own) in zip(trained(seeds), alone, strict=True):
        assert (result.steps, result.best_step, result.tokens) == (own.steps, own.best_step, own.tokens)
        assert result.heldout_loss_adapted == pytest.approx(own.heldout_loss_adapted, rel=1e-5)
        for one, other in zip(adapter.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
        ends.append(adapter.latent_parameter().detach())
        assert ends[-1].any()
    assert not torch.allclose(ends[0], ends[1], atol=1e-3)
    if (case, architecture) == ("stopped early", "llama"):
        # One seed leaves before the others.
        assert len({own.steps for _, own in alone}) > 1


def test_seeds_trained_together_share_the_passes_of_the_completion_loss(subject, cached):
    rows_of_passes = []
    handle = decoder_blocks(subject.model)[-1].register_forward_pre_hook(
        lambda _, arguments: rows_of_passes.append(len(arguments[0])) if torch.is_grad_enabled() else None
    )
    adapters = [make_adapter("bias", subject.dictionary.d_sae, {}) for _ in range(4)]
    trainees = [
        Trainee(adapter, lambda batch, adapter=adapter: adapted(subject, adapter, batch), seed)
        for seed, adapter in enumerate(adapters)
    ]
    options = config.Adapter(learning_rate=0.3, steps=2, batch_size=3, evaluate_every=2, subsample=1)
    try:
        train_together(subject, trainees, *cached, options, batch_size=4)
    finally:
        handle.remove()
    assert rows_of_passes == [12, 12]
