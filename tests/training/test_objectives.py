"""Every objective against TRL's own loss, or the published formula, on the same batch through a plain forward pass."""

import math
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.weights import Lora
from isaerft.errors import InputError
from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import read_cache
from isaerft.training.loop import heldout_loss, heldout_objective, train
from isaerft.training.objectives import log_odds, make_objective
from isaerft.training.pairs import read_pairs

PAIRED = ("dpo", "simpo", "orpo")


def value(subject, rows, adapter, **options):
    batch = rows.batch(torch.arange(len(rows)))
    with torch.no_grad():
        return make_objective(config.Adapter(**options))(subject, batch, adapted(subject, adapter, batch))


def test_sft_is_trls_loss(subject, pairs, plain, bias, tokenizer, tmp_path):
    from datasets import Dataset

    trl = pytest.importorskip("trl")
    model = deepcopy(subject.model)
    any_row = Dataset.from_list([{"prompt": "say", "completion": " hello"}])
    options = trl.SFTConfig(str(tmp_path), report_to="none", use_cpu=True, bf16=False)
    trainer = trl.SFTTrainer(model, args=options, train_dataset=any_row, processing_class=tokenizer)
    rows = {"labels": plain.labels[:8]} | {name: part[:8] for name, part in plain.table.items()}
    with torch.no_grad(), plain.through(subject, bias, model):
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
    with torch.no_grad(), plain.through(subject, bias, model):
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
    point = adapted(subject, bias, batch).detach().requires_grad_(True)
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
        return adapted(subject, adapter, batch)

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
            lambda batch, adapter=adapter: adapted(subject, adapter, batch),
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


def test_a_record_gives_an_objective_what_its_facts_ask_for():
    assert {name for name in OBJECTIVES.builtin if OBJECTIVES.facts(name).pairs} == set(PAIRED)
    for name in OBJECTIVES.builtin:
        assert config.Adapter(objective=name).trained_on == ("pair" if name in PAIRED else "completion")
