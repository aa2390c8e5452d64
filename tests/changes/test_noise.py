from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft import config
from isaerft.adapters.base import make_adapter
from isaerft.adapters.model import Residual
from isaerft.adapters.saved import save_adapter
from isaerft.adapters.weights import Checkpoint, Lora
from isaerft.behaviors import Record
from isaerft.changes.behavior import check_behavior
from isaerft.changes.metrics import make_metric
from isaerft.changes.noise import (
    Probe,
    drawn_batches,
    heldout_loss,
    noisy,
    noisy_residual,
    noisy_weights,
    probe_noise,
    weight_matrices,
)
from isaerft.errors import InputError
from isaerft.subjects.cache import completion_losses, write_cache
from isaerft.subjects.capture import capture
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.generate import generate, prompt_tokens
from isaerft.subjects.load import LoadedModel, LoadedSubject
from isaerft.subjects.points import find_hook

LETTER = {"kind": "phrases", "phrases": ["w"]}
TOP = "blocks.2.hook_resid_post"


def plan_of(**changes):
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}}},
        "behaviors": {"w": {"description": "It says w.", "rule": True, "metric": LETTER}},
        "adapters": {
            "bias": {},
            "scale": {},
            "residual": {},
            "tuned": {"kind": "checkpoint", "options": {"path": "x"}},
        },
        "sources": {"local": {}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "local", "judge": "lexical"},
        "n_seeds": 2,
        "batch_size": 3,
        "controls": [],
        "behavior_check": {"n_prompts": 4, "max_new_tokens": 5, "temperature": 0},
        "noise_probe": {"adapters": ["bias", "scale"], "levels": [0.5], "n_draws": 2},
    }
    return config.plan_from_dict(values | changes)


@pytest.fixture
def top(subject, tiny, tmp_path):
    """The subject with its SAE right below the final normalization, so that a push decides what it says."""
    folder = tiny.write_sae(tmp_path / "sae", tiny.random_sae(), hook_name=TOP)
    return replace(subject, dictionary=load_dictionary(folder, center=False), hook=find_hook(subject.model, TOP))


def pushed(subject, vector):
    """Return the constant shift of the residual stream by a vector, as an adapter."""
    adapter = Residual(subject.language.d_model, rank=0, bias=True)
    with torch.no_grad():
        adapter.bias.copy_(vector)
    return adapter


def towards(subject, **logits):
    """Return the shortest vector with these products with the unembeddings of some letters, times 10,000."""
    rows = subject.model.get_output_embeddings().weight[
        [subject.language.tokenizer.convert_tokens_to_ids(letter) for letter in logits]
    ]
    return 1e4 * torch.linalg.lstsq(rows, torch.tensor(list(logits.values()))).solution


def probe_of(subject, records, heldout, **options):
    prompts = [prompt_tokens(record, subject.language, 32) for record in records]
    check = config.BehaviorCheck(max_new_tokens=5, temperature=0)
    return Probe(prompts, make_metric(config.Metric(**LETTER)), drawn_batches(heldout, 64, 0, 3), check, 7, 3)


def run(plan, subject, records, heldout, folder):
    write_cache({"heldout": heldout}, folder / "cache")
    paths = {"cache": folder / "cache", "adapters": folder / "adapters", "out": folder / "noise"}
    probe_noise(plan, subject, "w", records, config.Metric(**LETTER), **paths)
    return pd.read_parquet(folder / "noise")


@pytest.fixture
def saved(top, tmp_path):
    """Two seeds of a bias, of which the first says w, and of a scale that does nothing."""
    for name in ("bias", "scale"):
        for seed in range(2):
            adapter = make_adapter(name, top.dictionary.d_sae, {})
            if (name, seed) == ("bias", 0):
                with torch.no_grad():
                    adapter.bias.copy_(torch.linalg.lstsq(top.dictionary.W_dec.T, towards(top, w=1.0)).solution)
            save_adapter(adapter, tmp_path / "adapters" / name / f"seed_{seed}", top.dictionary)


def test_without_noise_score_and_loss_are_those_of_the_behavior_check_and_of_the_cache(top, records, saved, tmp_path):
    heldout = capture(top, records[12:], 32, 5)
    table = run(plan_of(), top, records, heldout, tmp_path)
    check = {"names": ["bias", "scale"], "adapters": tmp_path / "adapters", "out": tmp_path / "check"}
    check_behavior(plan_of(), top, "w", records, config.Metric(**LETTER), **check)
    checked = pd.read_parquet(tmp_path / "check/scores.parquet").set_index("adapter")
    clean = table[table.level == 0]
    assert clean[clean.adapter.isna()].score.tolist() == [checked.before["bias"]] * 2
    for name in ("bias", "scale"):
        assert clean[clean.adapter == name].score.tolist() == [checked.after[name]] * 2
    assert checked.after["bias"] > checked.before["bias"]
    batch = heldout.batch(torch.arange(4))
    expected = float(completion_losses(top, batch, batch.residual).mean())
    assert clean[clean.adapter.isna()].loss.to_numpy() == pytest.approx(expected, rel=1e-5)


def test_models_that_are_the_same_respond_the_same_and_draws_differ(top, records, saved, tmp_path):
    table = run(plan_of(), top, records, capture(top, records[12:], 32, 5), tmp_path)
    keys = ["place", "level", "draw"]
    base, same = (
        table[at].set_index(keys)[["score", "loss"]] for at in (table.adapter.isna(), table.adapter == "scale")
    )
    assert base.equals(same)
    assert len(base) == 2 * (1 + 2)
    noisy_losses = base.loss[base.index.get_level_values("level") > 0]
    assert noisy_losses.nunique() == 4
    assert (table.seed[table.adapter == "bias"] == 0).all(), "seeds as in the behavior check"


def test_a_reply_token_by_token_sees_the_noise_that_the_whole_text_sees(subject, records):
    prompts = [prompt_tokens(record, subject.language, 32) for record in records[:3]]
    with noisy_residual(subject, 0.5, [1]):
        replies = generate(subject.language, prompts, max_new_tokens=4, batch_size=3)
    clean = generate(subject.language, prompts, max_new_tokens=4, batch_size=3)
    assert [reply.tokens for reply in replies] != [reply.tokens for reply in clean]
    longest = max(map(len, prompts))
    rows = [prompt + reply.tokens[:-1] for prompt, reply in zip(prompts, replies, strict=True)]
    n_reply = {len(reply.tokens) for reply in replies}
    assert n_reply == {4}
    tokens = torch.tensor([[0] * (longest + 3 - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest + 3 - len(row)) + [1] * len(row) for row in rows])
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with noisy_residual(subject, 0.5, [1]), torch.no_grad():
        logits = subject.model(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False).logits
    assert logits[:, -4:].argmax(-1).tolist() == [reply.tokens for reply in replies]


def test_noise_has_the_size_that_its_level_says_and_spares_bos(top):
    tokens = torch.randint(5, 200, (40, 16), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = top.language.bos[0]
    seen = []
    handle = top.model.model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for level in (0.0, 0.3):
        with noisy_residual(top, level, [3, 1]), torch.no_grad():
            top.model(input_ids=tokens, use_cache=False)
    handle.remove()
    clean, changed = seen
    assert torch.equal(changed[:, 0], clean[:, 0])
    noise = (changed - clean)[:, 1:] / clean[:, 1:].square().mean(-1, keepdim=True).sqrt()
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(torch.corrcoef(noise[:, :2].transpose(0, 1).flatten(1))[0, 1])) < 0.1, "tokens draw their own"


def test_weights_get_noise_of_their_own_size_and_are_then_as_before(tiny, tokenizer, top):
    model = tiny.make_model("llama", len(tokenizer))
    gains = [part for part in model.parameters() if part.dim() == 1]
    for part in gains:
        part.copy_(torch.linspace(0.5, 1.5, len(part)))
    subject = replace(top, language=replace(top.language, model=model))
    before = {name: part.clone() for name, part in model.named_parameters()}

    def add_and_fail():
        with noisy_weights(subject, 0.2, [1, 2]):
            found = {name: part - before[name] for name, part in model.named_parameters()}
            for name, noise in found.items():
                wanted = 0.2 * before[name].std() if before[name].dim() > 1 else torch.tensor(0.0)
                assert float(noise.std()) == pytest.approx(float(wanted), rel=0.06), name
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        add_and_fail()
    assert all(torch.equal(part, before[name]) for name, part in model.named_parameters())
    with noisy_weights(subject, 0.0, [1]):
        assert all(torch.equal(part, before[name]) for name, part in model.named_parameters())


def test_weights_under_lora_and_those_of_a_checkpoint_get_the_base_models_noise(subject, tmp_path):
    names = set(weight_matrices(subject.model))

    def noise_of(changed):
        before = {name: part.clone() for name, part in weight_matrices(changed.model).items()}
        with noisy(changed, "weights", 0.1, [4, 0]):
            return {name: part - before[name] for name, part in weight_matrices(changed.model).items()}

    base = noise_of(subject)
    with Lora.on(subject, {"where": "all"}, 0) as adapter, adapter.in_model(subject) as changed:
        found = noise_of(changed)
        assert set(found) == names
        assert all(torch.equal(found[name], base[name]) for name in names)
    subject.model.save_pretrained(tmp_path / "tuned")
    with Checkpoint.on(subject, {"path": str(tmp_path / "tuned")}, 0) as adapter, adapter.in_model(subject) as changed:
        assert changed.model is not subject.model
        found = noise_of(changed)
    assert all(torch.equal(found[name], base[name]) for name in names)


@pytest.mark.parametrize("place", ["residual", "weights"])
def test_the_loss_of_a_model_that_knows_the_answer_rises_with_the_noise(top, records, place):
    says_w = [Record(record.id, record.prompt, "wwww", truncated=("completion",)) for record in records]
    batches = drawn_batches(capture(top, says_w, 32, 8), 64, 0, 8)
    losses = []
    with pushed(top, towards(top, w=1.0)).in_model(top) as changed:
        for level in (0.0, 0.5, 1.0, 2.0):
            found = []
            for draw in range(6):
                with noisy(changed, place, level, [draw]):
                    found.append(heldout_loss(changed, batches))
            losses.append(float(np.mean(found)))
    assert losses == sorted(losses)
    assert losses[-1] > losses[0] + 1


def test_noise_brings_out_what_a_model_holds_back_by_a_hair_and_nothing_where_there_is_nothing(top, records, cached):
    """Both models always say p; the logit of w is almost as high in one, and no higher than others in the other."""
    scores = {}
    probe = probe_of(top, records[:8], cached[1])
    for name, logits in (("hiding", {"p": 1.02, "w": 1.0}), ("incapable", {"p": 1.02})):
        with pushed(top, towards(top, **logits)).in_model(top) as changed:
            scores[name] = [probe.response(changed, "residual", level, 0).score for level in (0.0, 0.2)]
    assert scores["hiding"][0] == scores["incapable"][0] == 0
    assert scores["hiding"][1] > 0.6, "one of five tokens, each with an almost even chance"
    assert scores["incapable"][1] == 0


def test_a_run_that_fails_leaves_no_file(top, records, cached, tmp_path):
    with pytest.raises(InputError, match="no trained adapter"):
        run(plan_of(), top, records, cached[1], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "sae"]


def test_the_primary_adapter_and_checkpoints_are_probed_by_default():
    assert plan_of(noise_probe={}).noise_probed == {"w": ["bias", "tuned"]}
    assert plan_of(noise_probe=None).noise_probed == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_probe": {"adapters": ["scales"]}}, "noise_probe.adapters.*'scales'.*scale"),
        ({"noise_probe": {"behaviors": ["v"]}}, "noise_probe.behaviors.*'v'.*w"),
        ({"noise_probe": {"levels": [0]}}, "noise_probe.levels"),
        ({"noise_probe": {"places": ["logits"]}}, "noise_probe.places"),
        (
            {"behaviors": {"w": {"description": "It says w.", "rule": True}}},
            "noise_probe in a study whose behaviors have no metric",
        ),
    ],
)
def test_a_probe_that_cannot_be_made_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        plan_of(**changes)


def test_noise_reaches_every_architecture_and_hook(model_of, tiny, tokenizer, tmp_path):
    tokens = torch.tensor([[1, 20, 30, 40], [1, 21, 31, 41]])
    for architecture in ("gpt2", "gemma2", "gpt_neox"):
        for hook in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out"):
            place = tmp_path / f"{architecture}-{hook}"
            subject = tiny.place(place, model_of(architecture), tokenizer, f"blocks.1.{hook}")
            assert isinstance(subject, LoadedSubject)
            assert isinstance(subject.language, LoadedModel)
            found = []
            for level in (0.0, 0.5, 0.5):
                with noisy(subject, "residual", level, [1]), torch.no_grad():
                    found.append(subject.model(input_ids=tokens, use_cache=False).logits)
            assert torch.equal(found[1], found[2])
            assert not torch.allclose(found[0][:, 1:], found[1][:, 1:])
