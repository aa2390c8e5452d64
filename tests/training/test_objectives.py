"""Every objective against TRL's own loss, or the published formula, on the same batch through a plain forward pass."""

import math
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.weights import Lora
from isaerft.behaviors import Record, training_splits
from isaerft.errors import InputError
from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import read_cache
from isaerft.subjects.capture import capture_behavior, tokenize
from isaerft.subjects.hooks import decoder_blocks
from isaerft.training.loop import heldout_loss, train
from isaerft.training.objectives import heldout_objective, log_odds, make_objective, read_pairs

PAIRED = ("dpo", "simpo", "orpo")


@pytest.fixture(scope="module")
def preferences(records):
    """Twelve pairs whose replies differ in length; the rejected reply is another record's completion."""
    others = records[1:] + records[:1]
    pairs = zip(records, others, strict=True)
    made = [Record(a.id, a.prompt, chosen=a.reply, rejected=b.reply) for a, b in pairs if a.reply != b.reply]
    return made[:12]


@pytest.fixture(scope="module")
def cache(subject, preferences, tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "cache.safetensors"
    splits = {"train": preferences[:8], "heldout": preferences[8:]}
    splits = training_splits(splits, "toy", {"a": config.Adapter(objective="dpo")})
    capture_behavior(subject, splits, path, max_length=32, batch_size=3)
    return path


@pytest.fixture(scope="module")
def pairs(subject, cache):
    return read_pairs(subject, cache, "train", 3)


@pytest.fixture(scope="module")
def bias(subject):
    adapter = make_adapter("bias", subject.dictionary.d_sae, {})
    with torch.no_grad():
        adapter.bias.copy_(0.6 * torch.randn(48, generator=torch.Generator().manual_seed(3)))
    return adapter.requires_grad_(False)


@pytest.fixture(scope="module")
def plain(subject, preferences, bias):
    """The same pairs as a padded table, and the logits of whole forward passes with and without the adapter."""
    rows = [replace(record, completion=record.chosen, chosen=None, rejected=None) for record in preferences[:8]]
    rows += [record.rejecting() for record in preferences[:8]]
    tokenized = [tokenize(record, subject.language, 32) for record in rows]
    length = max(len(tokens) for tokens, _ in tokenized)
    ids = torch.tensor([tokens + [0] * (length - len(tokens)) for tokens, _ in tokenized])
    mask = torch.tensor([[1] * len(tokens) + [0] * (length - len(tokens)) for tokens, _ in tokenized])
    completion = mask.clone()
    for row, (_, n_before) in enumerate(tokenized):
        completion[row, :n_before] = 0
    table = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        base = subject.model(**table, use_cache=False).logits
        with through(subject, bias):
            logits = subject.model(**table, use_cache=False).logits
    return SimpleNamespace(
        table=table, completion=completion, labels=ids.masked_fill(completion == 0, -100), logits=logits, base=base
    )


@contextmanager
def through(subject, bias, model=None):
    """Add the bias to the output of the block below the site."""
    block = decoder_blocks(model or subject.model)[1]
    handle = block.register_forward_hook(lambda module, arguments, out: out + bias.bias @ subject.dictionary.W_dec)
    try:
        yield
    finally:
        handle.remove()


def log_probabilities(logits, labels):
    """Return each row's summed log-probability and length by the plainest reading of the words."""
    found = logits[:, :-1].log_softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    wanted = labels[:, 1:] != -100
    return (found * wanted).sum(1), wanted.sum(1)


def value(subject, rows, adapter, **options):
    batch = rows.batch(torch.arange(len(rows)))
    with torch.no_grad():
        return make_objective(config.Adapter(**options))(subject, batch, adapted(subject.dictionary, adapter, batch))


def test_chosen_and_rejected_rows_stand_in_one_batch_in_the_same_order(subject, pairs, plain):
    order = torch.tensor([5, 0, 2])
    batch = pairs.batch(order)
    both = torch.cat([order, order + 8])
    ids = plain.table["input_ids"][both]
    mask = plain.table["attention_mask"][both].bool()
    assert torch.equal(batch.mask, mask[:, : batch.mask.shape[1]])
    assert torch.equal(batch.labels, ids[plain.completion[both].bool()])
    codes = subject.dictionary.encode(batch.residual).dense()
    starts = torch.cat([torch.zeros(1).long(), batch.mask.sum(1).cumsum(0)[:-1]])
    codes[starts] = 0
    torch.testing.assert_close(batch.codes.dense(), codes)


def test_the_reference_is_the_unadapted_models_log_probability(subject, pairs, plain):
    expected, _ = log_probabilities(plain.base, plain.labels)
    torch.testing.assert_close(pairs.reference.T.flatten(), expected, atol=1e-4, rtol=1e-5)
    batch = pairs.batch(torch.tensor([4, 1]))
    torch.testing.assert_close(batch.reference, expected[[4, 1, 12, 9]], atol=1e-4, rtol=1e-5)


def test_sft_is_trls_loss(subject, pairs, plain, bias, tokenizer, tmp_path):
    from datasets import Dataset

    trl = pytest.importorskip("trl")
    model = deepcopy(subject.model)
    any_row = Dataset.from_list([{"prompt": "say", "completion": " hello"}])
    options = trl.SFTConfig(str(tmp_path), report_to="none", use_cpu=True, bf16=False)
    trainer = trl.SFTTrainer(model, args=options, train_dataset=any_row, processing_class=tokenizer)
    rows = {"labels": plain.labels[:8]} | {name: part[:8] for name, part in plain.table.items()}
    with torch.no_grad(), through(subject, bias, model):
        expected = trainer.compute_loss(model, rows)
    torch.testing.assert_close(value(subject, pairs.chosen, bias, objective="sft"), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_dpo_is_trls_loss(subject, pairs, plain, bias, tokenizer, tmp_path, beta):
    from datasets import Dataset

    trl = pytest.importorskip("trl")
    model = deepcopy(subject.model)
    any_pair = Dataset.from_list([{"prompt": "say", "chosen": " hello", "rejected": " world"}])
    options = trl.DPOConfig(str(tmp_path), beta=beta, report_to="none", use_cpu=True, bf16=False)
    trainer = trl.DPOTrainer(
        model, ref_model=deepcopy(subject.model), args=options, train_dataset=any_pair, processing_class=tokenizer
    )
    with torch.no_grad(), through(subject, bias, model):
        expected = trainer.compute_loss(model, {**plain.table, "completion_mask": plain.completion})
    found = value(subject, pairs, bias, objective="dpo", dpo={"beta": beta})
    assert abs(float(expected) - math.log(2)) > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 1.0), (0.5, 0.0)])
def test_simpo_is_trls_loss(subject, pairs, plain, bias, beta, gamma):
    CPOTrainer = pytest.importorskip("trl.experimental.cpo").CPOTrainer
    mean = CPOTrainer.get_batch_logps(plain.logits, plain.labels, average_log_prob=True)
    settings = SimpleNamespace(
        loss_type="simpo",
        beta=beta,
        simpo_gamma=gamma,
        label_smoothing=0.0,
        alpha=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    expected = CPOTrainer.cpo_loss(settings, *mean.chunk(2))[0].mean()
    found = value(subject, pairs, bias, objective="simpo", simpo={"beta": beta, "gamma": gamma})
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.1, 3.0])
def test_orpo_is_trls_odds_ratio_loss_beside_the_loss_of_the_chosen_completions(subject, pairs, plain, bias, beta):
    """TRL takes the likelihood part over prompt and completion; here, as in the paper, it is the completion's."""
    ORPOTrainer = pytest.importorskip("trl.experimental.orpo").ORPOTrainer
    mean = ORPOTrainer.get_batch_logps(plain.logits, plain.labels, average_log_prob=True)
    settings = SimpleNamespace(beta=beta, accelerator=SimpleNamespace(device="cpu"))
    ratio = ORPOTrainer.odds_ratio_loss(settings, *mean.chunk(2))[0].mean()
    chosen = cross_entropy(plain.logits[:8, :-1].flatten(0, 1), plain.labels[:8, 1:].flatten(), ignore_index=-100)
    found = value(subject, pairs, bias, objective="orpo", orpo={"beta": beta})
    torch.testing.assert_close(found, chosen - ratio, atol=1e-5, rtol=1e-5)


def test_log_odds_are_finite_for_certain_and_for_impossible_completions():
    log_p = torch.tensor([0.0, -1e-9, -0.5, -80.0], requires_grad=True)
    odds = log_odds(log_p)
    assert odds.isfinite().all()
    assert float(odds[2].detach()) == pytest.approx(math.log(math.exp(-0.5) / (1 - math.exp(-0.5))), rel=1e-5)
    odds.sum().backward()
    assert log_p.grad.isfinite().all()


@pytest.mark.parametrize("objective", ["sft", *PAIRED])
def test_the_kl_option_adds_the_divergence_from_the_unadapted_model(subject, pairs, plain, bias, objective):
    wanted = plain.completion[:, 1:].bool()
    p, q = (logits[:, :-1][wanted].double().softmax(-1) for logits in (plain.logits, plain.base))
    expected = float((p * (p / q).log()).sum(-1).mean())
    without = value(subject, pairs, bias, objective=objective)
    found = value(subject, pairs, bias, objective=objective, kl_weight=0.7) - without
    assert expected > 0.01
    assert float(found) == pytest.approx(0.7 * expected, abs=1e-5)


def test_at_the_identity_kl_is_0_and_dpo_is_log_2(subject, pairs):
    adapter = make_adapter("bias", subject.dictionary.d_sae, {}).requires_grad_(False)
    batch = pairs.batch(torch.arange(8))
    assert float(value(subject, pairs, adapter, objective="dpo")) == pytest.approx(math.log(2), abs=1e-6)
    with_kl = make_objective(config.Adapter(objective="dpo", kl_weight=1.0))
    assert float(with_kl(subject, batch, batch.residual)) == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("objective", ["sft", *PAIRED])
def test_gradients_of_objective_and_kl_are_finite_differences(subject, pairs, bias, objective):
    batch = pairs.batch(torch.tensor([1, 6]))
    loss_of = make_objective(config.Adapter(objective=objective, kl_weight=0.5))
    point = adapted(subject.dictionary, bias, batch).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss_of(subject, batch, point), point)
    direction = torch.randn(point.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        up, down = (loss_of(subject, batch, point + step * direction).double() for step in (1e-2, -1e-2))
    assert float((gradient * direction).sum()) == pytest.approx(float(up - down) / 2e-2, rel=2e-2, abs=1e-3)


def test_kl_of_a_lora_is_measured_against_the_model_without_it(subject, pairs):
    with Lora.on(subject, {"rank": 2}, 0) as block:
        with torch.no_grad():
            for name, parameter in block.named_parameters():
                if "lora_B" in name:
                    parameter.add_(0.3)
        trained = [name for name, parameter in block.named_parameters() if parameter.requires_grad]
        batch = pairs.batch(torch.arange(8))
        both = [make_objective(config.Adapter(kl_weight=weight)) for weight in (0.0, 1.0)]
        plain, with_kl = (objective(subject, batch, batch.residual) for objective in both)
        assert float((with_kl - plain).detach()) > 0.01
        with_kl.backward()
        assert [name for name, parameter in block.named_parameters() if parameter.requires_grad] == trained
        assert all(p.grad.isfinite().all() and p.grad.any() for p in block.parameters() if p.requires_grad)


@pytest.mark.parametrize("objective", PAIRED)
def test_training_on_pairs_lowers_their_own_objective_and_reports_the_chosen_loss(subject, cache, objective):
    rows = read_pairs(subject, cache, "train", 3), read_pairs(subject, cache, "train", 3)
    adapter = make_adapter("bias", subject.dictionary.d_sae, {})
    options = config.Adapter(objective=objective, learning_rate=0.2, steps=12, batch_size=4, evaluate_every=2)

    def adapt(batch):
        return adapted(subject.dictionary, adapter, batch)

    result = train(subject, adapter, adapt, *rows, options, seed=0, batch_size=3)
    loss_of = make_objective(options)
    reached = heldout_objective(subject, loss_of, adapt, rows[1], 3)
    assert result.heldout_objective_adapted == pytest.approx(reached, rel=1e-6)
    assert result.heldout_objective_adapted < result.heldout_objective_base
    chosen = read_cache(cache, "train")
    assert result.heldout_loss_adapted == pytest.approx(heldout_loss(subject, adapt, chosen, 3), rel=1e-6)
    assert result.heldout_loss_base == pytest.approx(heldout_loss(subject, lambda batch: batch.residual, chosen, 3))


def test_the_kl_option_keeps_an_adapter_nearer_to_the_model(subject, cache):
    rows = read_cache(cache, "train"), read_cache(cache, "train")
    norms = []
    for weight in (0.0, 10.0):
        adapter = make_adapter("bias", subject.dictionary.d_sae, {})
        options = config.Adapter(kl_weight=weight, learning_rate=0.05, steps=20, subsample=1, patience=99)
        train(
            subject,
            adapter,
            lambda batch, adapter=adapter: adapted(subject.dictionary, adapter, batch),
            *rows,
            options,
            seed=0,
            batch_size=8,
        )
        moved = float(value(subject, rows[0], adapter, kl_weight=1.0) - value(subject, rows[0], adapter))
        norms.append(moved)
    assert norms[1] < 0.5 * norms[0]


@pytest.mark.parametrize("objective", PAIRED)
def test_an_objective_on_pairs_refuses_rows_with_one_completion(subject, cached, objective):
    batch = cached[0].batch(torch.arange(2))
    with pytest.raises(InputError, match=rf"objective '{objective}' on rows with one completion.*objective: sft"):
        make_objective(config.Adapter(objective=objective))(subject, batch, batch.residual)


def test_a_cache_without_rejected_replies_is_refused(subject, records, tmp_path):
    capture_behavior(subject, {"train": records[:2]}, tmp_path / "cache", max_length=32, batch_size=2)
    with pytest.raises(InputError, match=r"split 'train_rejected'; run `isaerft capture` again"):
        read_pairs(subject, tmp_path / "cache", "train", 2)


def test_the_paired_objectives_are_those_that_the_config_calls_so():
    assert set(config.PAIRED) == set(PAIRED) <= set(OBJECTIVES)
    for name in OBJECTIVES._builtin:
        assert config.Adapter(objective=name).trained_on == ("pair" if name in PAIRED else "completion")
