"""Every way to make an adapter, from a study's config to its folder."""

import copy
import json
import os
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
import yaml

from isaerft import cli, config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.fitting import Selection, completion_means
from isaerft.adapters.saved import checkpoint_folders, load_adapter, read_tensors, save_adapter, seed_folders
from isaerft.changes.causal import check_causes
from isaerft.changes.measures import score_changes, score_changes_over_time
from isaerft.errors import InputError
from isaerft.io import read_json
from isaerft.subjects.blocks import decoder_blocks
from isaerft.subjects.cache import CachedRows, read_cache, write_cache
from isaerft.subjects.capture import capture
from isaerft.training import tracking
from isaerft.training.loop import heldout_loss, subsample
from isaerft.training.replicates import train_adapter

SPLITS = ("train", "heldout")


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
    return heldout_loss(subject, lambda batch: adapted(subject, adapter, batch), rows, 4)


@pytest.fixture
def caches(subject, records, cached, tmp_path):
    """A folder with the caches of two behaviors."""
    write_cache({"train": cached[0], "heldout": copied(cached[0])}, tmp_path / "cache" / "a.safetensors")
    others = [replace(record, completion=" kindly , kindly the dog") for record in records]
    rows = {"train": capture(subject, others[:10], 32, 5), "heldout": capture(subject, others[10:], 32, 5)}
    write_cache(rows, tmp_path / "cache" / "b.safetensors")
    return tmp_path / "cache"


@pytest.fixture
def tuned(subject, tmp_path):
    """Two fine-tuned checkpoints, one for each seed."""
    for seed in range(2):
        model = copy.deepcopy(subject.model)
        with torch.no_grad():
            decoder_blocks(model)[0].mlp.down_proj.weight.mul_(1.05 + 0.1 * seed)
        model.save_pretrained(tmp_path / f"tuned-a-{seed}")
    return tmp_path


@pytest.fixture
def saved(tmp_path):
    """A trained adapter of our own, and one of the original ISaeRFT code for each seed."""
    adapter = make_adapter("affine", 48, {})
    with torch.no_grad():
        adapter.bias.copy_(0.1 * torch.randn(48, generator=torch.Generator().manual_seed(0)))
    save_adapter(adapter, tmp_path / "own")
    for seed in range(2):
        folder = tmp_path / f"original-{seed}"
        folder.mkdir()
        (folder / "adapter_config.json").write_text('{"peft_type": "ISAERFT"}')
        (folder / "blocks_manifest.json").write_text('{"block_names": ["blocks_1_hook_resid_post"]}')
        torch.save({"scaling_factors": torch.full((48,), 0.1 + seed)}, folder / "blocks_1_hook_resid_post.pt")
    return tmp_path


@pytest.fixture
def plan(tuned, saved):
    short = {"steps": 6, "learning_rate": 0.1, "evaluate_every": 1, "batch_size": 4}
    adam = short | {"optimizer": "adam", "learning_rate": 0.01}
    return config.plan_from_dict(
        {
            "study": "small",
            "subjects": {"toy": {"testbed": {}}},
            "behaviors": {name: {"description": name, "rule": True} for name in ("a", "b")},
            "adapters": {
                "bias": short,
                "residual": adam | {"options": {"rank": 2}},
                "below": adam | {"kind": "lora", "options": {"rank": 2, "where": "below"}},
                "checkpoint": {"options": {"path": f"{tuned}/tuned-{{behavior}}-0"}},
                "checkpoints": {"kind": "checkpoint", "options": {"path": f"{tuned}/tuned-a-{{seed}}"}},
                "saved": {"options": {"path": f"{saved}/own"}},
                "originals": {"kind": "saved", "options": {"path": f"{saved}/original-{{seed}}"}},
                "mean_difference": {},
                "probe": {},
                "lat": {},
                "logit_lens": {},
                "first_gradient": {},
                "lora": adam | {"options": {"rank": 2}},
            },
            "reference": "lora",
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
            "n_seeds": 2,
        }
    )


def with_options(plan, **options):
    """The plan of the same study with other options."""
    return config.Plan(replace(plan.study, **options))


ALL = [
    "bias",
    "residual",
    "below",
    "checkpoint",
    "checkpoints",
    "saved",
    "originals",
    "mean_difference",
    "probe",
    "lat",
    "logit_lens",
    "first_gradient",
    "lora",
]


@pytest.fixture
def make(plan, subject, caches, tmp_path):
    """Make an adapter in a folder and return its training.json."""

    def run(name, folder="adapters", study=plan, **more):
        options = {"behavior": "a", "permuted": False, "contrast": caches} | more
        train_adapter(study, subject, name, caches / "a.safetensors", tmp_path / folder / name, **options)
        return read_json(tmp_path / folder / name / "training.json")

    return run


@pytest.mark.parametrize("permuted", [False, True])
def test_seeds_together_are_those_of_one_after_the_other(plan, subject, caches, tmp_path, permuted):
    """Three seeds, two at a time, so that the last pass holds one."""
    trainings, shifts = [], []
    for n_together in (1, 2):
        bias = replace(plan.study.adapters["bias"], seeds_together=n_together)
        used = with_options(plan, n_seeds=3, adapters=plan.study.adapters | {"bias": bias})
        folder = tmp_path / str(n_together)
        train_adapter(used, subject, "bias", caches / "a.safetensors", folder, behavior="a", permuted=permuted)
        trainings.append(pd.DataFrame(read_json(folder / "training.json")))
        shifts.append([load_adapter(folder / f"seed_{seed}", 48).bias.detach() for seed in range(3)])
    pd.testing.assert_frame_equal(*trainings, rtol=1e-5)
    torch.testing.assert_close(*shifts, atol=1e-5, rtol=1e-4)
    assert not torch.equal(*shifts[0][:2])


@pytest.mark.parametrize("name", ALL)
def test_the_same_study_gives_the_same_bytes_and_leaves_the_model_alone(make, subject, tmp_path, name):
    before = {key: value.clone() for key, value in subject.model.state_dict().items()}
    make(name, "one")
    make(name, "two")
    folders = [tmp_path / place / name for place in ("one", "two")]
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.*")) for folder in folders]
    assert files[0] == files[1]
    assert all((folders[0] / path).read_bytes() == (folders[1] / path).read_bytes() for path in files[0])
    after = subject.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_training_on_the_model_lowers_the_loss(make):
    for name in ("residual", "below"):
        for row in make(name):
            assert row["heldout_loss_adapted"] < row["heldout_loss_base"] - 0.01
            assert row["objective"] == "sft"
            assert row["steps"] > 0
            assert row["diagnostics"] == {}, "the change of latents is not measured here"


def test_a_checkpoint_is_measured_without_a_step(make, plan, subject, tmp_path, cached, tuned):
    (row,) = make("checkpoint")
    assert (row["steps"], row["tokens"], row["objective"]) == (0, 0, "none")
    weight = decoder_blocks(subject.model)[0].mlp.down_proj.weight
    assert row["n_parameters"] == weight.numel()
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tuned / "tuned-a-0")
    total = n_tokens = 0
    for batch in cached[0].batches(4):
        ids = batch.tokens.new_zeros(batch.mask.shape)
        ids[batch.mask] = batch.tokens
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=batch.mask.long()).logits[batch.mask][batch.predicts]
        total += float(torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum"))
        n_tokens += len(batch.labels)
    assert row["heldout_loss_adapted"] == pytest.approx(total / n_tokens, rel=1e-4)
    assert row["heldout_loss_adapted"] != pytest.approx(row["heldout_loss_base"], rel=1e-4)


def test_a_checkpoint_is_there_once_unless_its_path_or_the_dictionary_changes_with_the_seed(make):
    assert [row["seed"] for row in make("checkpoint")] == [0]
    first, second = make("checkpoints")
    assert first["heldout_loss_adapted"] != second["heldout_loss_adapted"]
    assert [row["seed"] for row in make("checkpoint", "twin", permuted=True)] == [0, 1]


def test_a_saved_adapter_is_measured_without_a_step_as_what_it_is(make, subject, cached, tmp_path):
    (row,) = make("saved")
    assert (row["seed"], row["steps"], row["objective"], row["n_parameters"]) == (0, 0, "none", 96)
    read, own = load_adapter(tmp_path / "adapters" / "saved" / "seed_0", 48), load_adapter(tmp_path / "own", 48)
    assert torch.equal(read.bias, own.bias)
    loss = heldout_loss(subject, lambda batch: adapted(subject, own, batch), cached[0], 4)
    assert row["heldout_loss_adapted"] == pytest.approx(loss, rel=1e-6)
    assert row["heldout_loss_adapted"] != pytest.approx(row["heldout_loss_base"], rel=1e-4)
    assert [row["seed"] for row in make("originals")] == [0, 1]
    one, two = (load_adapter(tmp_path / "adapters" / "originals" / f"seed_{seed}", 48) for seed in range(2))
    assert (one.kind, float(one.scale[0]), float(two.scale[0])) == ("scale", pytest.approx(0.1), pytest.approx(1.1))


@pytest.mark.parametrize("name", ["mean_difference", "probe", "logit_lens"])
def test_a_baseline_takes_no_step_and_reports_how_well_it_tells_held_out_texts_apart(make, name):
    for row in make(name):
        assert (row["steps"], row["tokens"], row["objective"], row["n_parameters"]) == (0, 0, "none", 48)
        found = row["diagnostics"]
        assert set(found) == {"heldout_auroc", "heldout_accuracy", "steering_strength"}
        # A random model's unembedding says nothing about the latents that fire on its own words.
        assert (0 if name == "logit_lens" else 0.5) < found["heldout_auroc"] <= 1


@pytest.mark.parametrize("contrast", ["b", "rejected"])
def test_a_direction_is_also_scored_under_prompts_of_another_phrasing(make, plan, caches, contrast):
    """The rephrased rows of the behavior are those of the contrast, and the other way round: all order is reversed."""
    own, other = (
        {split: copied(read_cache(caches / f"{name}.safetensors", split)) for split in SPLITS} for name in "ab"
    )
    others = {f"{split}_rejected": copied(rows) for split, rows in other.items()}
    swapped = {"heldout_rephrased": copied(other["heldout"]), "heldout_rephrased_rejected": copied(own["heldout"])}
    write_cache(own | others | swapped, caches / "a.safetensors")
    write_cache(other | {"heldout_rephrased": copied(own["heldout"])}, caches / "b.safetensors")
    behaviors = plan.study.behaviors | {"a": replace(plan.study.behaviors["a"], contrast=contrast)}
    asked = with_options(plan, behaviors=behaviors, rephrased_prompts=True)
    for row in make("mean_difference", study=asked):
        found = row["diagnostics"]
        assert found["heldout_auroc"] > 0.9
        assert found["rephrased_auroc"] == pytest.approx(1 - found["heldout_auroc"])
        assert found["rephrased_accuracy"] < 0.5 < found["heldout_accuracy"]
    (row, _) = make("first_gradient", study=asked)
    assert set(row["diagnostics"]) == {"steering_strength"}
    # What is not asked for is not read.
    for row in make("mean_difference", "without", with_options(plan, behaviors=behaviors)):
        assert set(row["diagnostics"]) == {"heldout_auroc", "heldout_accuracy", "steering_strength"}


@pytest.mark.parametrize("name", ["mean_difference", "probe", "logit_lens", "first_gradient"])
def test_no_held_out_row_reaches_a_fit(make, caches, tmp_path, name):
    """With other held-out rows of both behaviors, the fitted numbers stay what they were."""
    make(name, "one")
    for behavior in ("a", "b"):
        path = caches / f"{behavior}.safetensors"
        splits = {split: copied(read_cache(path, split)) for split in ("train", "heldout")}
        codes = splits["heldout"].codes
        other = {"codes": replace(codes, values=7 * codes.values), "residual": 7 * splits["heldout"].residual}
        splits["heldout"] = replace(splits["heldout"], tokens=splits["heldout"].tokens.flip(0), **other)
        write_cache(splits, path)
    make(name, "two")
    for seed in range(2):
        one, two = (load_adapter(tmp_path / place / name / f"seed_{seed}", 48).state_dict() for place in ("one", "two"))
        assert all(torch.equal(one[part], two[part]) for part in one)


def test_a_first_gradient_needs_no_other_text(make, plan):
    assert plan.contrast_behaviors("a", "first_gradient") == []
    for row in make("first_gradient", contrast=None):
        assert (row["steps"], row["objective"], set(row["diagnostics"])) == (0, "none", {"steering_strength"})
        assert row["heldout_loss_adapted"] < row["heldout_loss_base"]


def test_a_logit_lens_needs_other_text(make, plan):
    with pytest.raises(InputError, match="needs the cached activations of b; give their folder with --contrast"):
        make("logit_lens", contrast=None)
    alone = {"a": plan.study.behaviors["a"]}
    with pytest.raises(InputError, match="compares behavior 'a' with others, and there are none; add a second"):
        with_options(
            plan,
            behaviors=alone,
            adapters={name: plan.study.adapters[name] for name in ("bias", "logit_lens")},
            controls=[],
            reference=None,
        )


def test_the_contrast_is_what_the_behavior_names(make, plan, caches, subject, records, tmp_path):
    make("mean_difference", "others")
    assert plan.contrast_behaviors("a", "mean_difference") == ["b"]
    assert plan.contrast_behaviors("a", "bias") == []
    with pytest.raises(InputError, match="needs the cached activations of b; give their folder with --contrast"):
        make("mean_difference", "none", contrast=None)
    behaviors = plan.study.behaviors | {"a": replace(plan.study.behaviors["a"], contrast="rejected")}
    asked = with_options(plan, behaviors=behaviors)
    assert asked.contrast_behaviors("a", "mean_difference") == []
    assert asked.compares_replies("a")
    assert not asked.compares_replies("b")
    own, other = caches / "a.safetensors", caches / "b.safetensors"
    splits = {split: copied(read_cache(own, split)) for split in ("train", "heldout")}
    splits |= {f"{split}_rejected": copied(read_cache(other, split)) for split in ("train", "heldout")}
    write_cache(splits, own)
    train_adapter(asked, subject, "mean_difference", own, tmp_path / "rejected", behavior="a", permuted=False)
    places = tmp_path / "rejected", tmp_path / "others" / "mean_difference"
    found = [load_adapter(place / "seed_0", 48) for place in places]
    assert torch.equal(found[0].direction, found[1].direction), "the same text by another way"


@pytest.fixture
def measured(make, plan, subject, caches, tmp_path):
    """Every adapter made and its change measured; gives training rows by adapter."""
    rows = {name: make(name) for name in ALL}
    score_changes(
        plan,
        subject,
        caches / "a.safetensors",
        tmp_path / "adapters",
        tmp_path / "changes.parquet",
        measured=plan.analyzed_adapters(),
        diagnosed=plan.diagnosed_adapters("toy", "a"),
        diagnostics=tmp_path / "diagnostics.json",
        permuted=False,
    )
    return rows


@pytest.mark.slow
def test_every_kind_is_measured_diagnosed_and_checked_and_the_model_is_left_as_it_was(
    measured, plan, subject, caches, tmp_path
):
    names = plan.analyzed_adapters()
    assert set(names) == set(ALL) - {"lora"}
    table = pd.read_parquet(tmp_path / "changes.parquet")
    n_seeds = {name: 1 if name in ("checkpoint", "saved") else 2 for name in names}
    assert table.groupby("adapter").seed.nunique().to_dict() == n_seeds
    assert table.groupby(["adapter", "measure", "seed"]).size().eq(48).all()
    assert table.groupby(["adapter", "measure", "seed"]).change.agg(lambda change: change.abs().max()).gt(0).all()

    found = {(row["adapter"], row["seed"]): row["diagnostics"] for row in read_json(tmp_path / "diagnostics.json")}
    assert [name for name, seed in found if seed == 0] == ["residual", "below", "checkpoint", "checkpoints", "lora"]
    for (name, seed), values in found.items():
        row = measured[name][seed]
        if name == "lora":
            # LoRA above the hook passes nothing through it.
            assert values["explained_share"] is None
            assert values["heldout_loss_displaced"] == pytest.approx(row["heldout_loss_base"], rel=1e-6)
            continue
        assert values["explained_share"] < 1
        # The first block is all that these adapters change, so all of their effect passes through the hook.
        assert values["heldout_loss_displaced"] == pytest.approx(row["heldout_loss_adapted"], abs=1e-4)
        assert values["heldout_loss_pulled_back"] != pytest.approx(row["heldout_loss_adapted"], abs=1e-4)

    before = {key: value.clone() for key, value in subject.model.state_dict().items()}
    short = with_options(plan, causal_check=replace(plan.study.causal_check, ks=[3], n_draws=2))
    facts = pd.DataFrame({"latent_index": range(48), "firing_rate": 0.1, "decoder_norm": 1.0})
    paths = caches / "a.safetensors", tmp_path / "adapters", tmp_path / "changes.parquet", tmp_path / "causes.parquet"
    check_causes(short, subject, facts, *paths)
    causes = pd.read_parquet(tmp_path / "causes.parquet")
    assert set(causes.adapter) == set(short.causally_checked) == set(names)
    after = subject.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", ["residual", "lora", "probe", "checkpoint", "saved"])
def test_what_does_not_train_latents_refuses_to_be_sparse(plan, subject, caches, tmp_path, name):
    sparse = replace(plan.study.adapters[name], sparsity=config.Sparsity(target=3))
    asked = with_options(plan, adapters=plan.study.adapters | {name: sparse})
    place = caches / "a.safetensors", tmp_path / "sparse"
    with pytest.raises(InputError, match=f"'{name}' cannot be trained sparsely"):
        train_adapter(asked, subject, name, *place, behavior="a", permuted=False, contrast=caches)


def test_on_shuffled_completions_an_adapter_is_fitted_against_what_its_behavior_is(
    make, plan, caches, subject, tmp_path
):
    make("mean_difference", "own")
    asked, place = with_options(plan, controls=["shuffled_completions"]), tmp_path / "twin"
    options = {"behavior": "a-shuffled", "permuted": False, "contrast": caches}
    train_adapter(asked, subject, "mean_difference", caches / "a.safetensors", place, **options)
    found = [load_adapter(folder / "seed_0", 48) for folder in (tmp_path / "own/mean_difference", place)]
    assert torch.equal(found[0].direction, found[1].direction), "the same text has the same direction"


def test_a_permuted_subject_trains_every_seed_on_its_own_dictionary(plan, subject, cached, tmp_path):
    write_cache({"train": cached[0], "heldout": copied(cached[0])}, tmp_path / "cache")
    train_adapter(plan, subject, "bias", tmp_path / "cache", tmp_path / "out", permuted=True, behavior="a")
    for seed in range(2):
        used = subject.with_random_dictionary(plan.replicate_seed(seed))
        adapter = load_adapter(tmp_path / "out" / f"seed_{seed}", 48)
        reported = read_json(tmp_path / "out" / "training.json")[seed]["heldout_loss_adapted"]
        assert loss_of(used, adapter, cached[0]) == pytest.approx(reported, rel=1e-6)
        assert loss_of(subject, adapter, cached[0]) != pytest.approx(reported, rel=1e-4)


def test_seconds_are_recorded_only_when_asked_for(plan, subject, cached, tmp_path):
    write_cache({"train": cached[0], "heldout": cached[1]}, tmp_path / "cache")
    timed = with_options(plan, record_seconds=True, n_seeds=1)
    train_adapter(timed, subject, "bias", tmp_path / "cache", tmp_path / "out", permuted=False, behavior="a")
    assert read_json(tmp_path / "out" / "training.json")[0]["seconds"] > 0


def test_an_adapter_can_have_a_number_of_seeds_of_its_own(plan, subject, cached, tmp_path):
    write_cache({"train": cached[0], "heldout": cached[1]}, tmp_path / "cache")
    fewer = with_options(plan, adapters=plan.study.adapters | {"bias": replace(plan.study.adapters["bias"], n_seeds=1)})
    for name, out in (("bias", "one"), ("residual", "two")):
        train_adapter(fewer, subject, name, tmp_path / "cache", tmp_path / out, permuted=False, behavior="a")
    assert [row["seed"] for row in read_json(tmp_path / "one" / "training.json")] == [0]
    assert [row["seed"] for row in read_json(tmp_path / "two" / "training.json")] == [0, 1]


PAIR_STEPS = {"learning_rate": 0.2, "steps": 4, "batch_size": 4, "evaluate_every": 2}


@pytest.fixture
def study(subject_folder, tmp_path, capsys):
    """Write a study with these adapters and call verbs on it; gives the exit code."""
    rows = [{"prompt": f"say {i}", "chosen": " hello to the cat", "rejected": f" world {i}"} for i in range(16)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "subjects").mkdir()
    (tmp_path / "subjects/toy").symlink_to(subject_folder)

    def write(adapters, behavior=None):
        model, sae = str(subject_folder / "model"), str(subject_folder / "sae")
        first = next(iter(adapters))
        plan = {
            "study": "pairs",
            "subjects": {"toy": {"model": model, "sae_path": sae, "corpus": {"sample": True}}},
            "behaviors": {"greeting": behavior or {"description": "It greets.", "path": str(tmp_path / "rows.jsonl")}},
            "adapters": adapters,
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": first, "measure": "attribution", "source": "local", "judge": "lexical"},
            "controls": ["firing_rate_only"],
            "n_seeds": 1,
            "max_length": 32,
            "device": "cpu",
        }
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))

    def call(verb, **options):
        given = {"study": tmp_path / "study.yaml", "behavior": "greeting", "results": tmp_path} | options
        return cli.main([verb, *(part for key, value in given.items() for part in (f"--{key}", str(value)))])

    return write, call


def test_adapters_on_pairs_and_on_the_chosen_replies_train_side_by_side(study, subject_folder, tmp_path):
    write, call = study
    adapters = {
        "bias_dpo": {"kind": "bias", "objective": "dpo", "kl_weight": 0.1} | PAIR_STEPS,
        "scale_orpo": {"kind": "scale", "objective": "orpo"} | PAIR_STEPS,
        "bias": {"sft_on_chosen": True} | PAIR_STEPS,
        "lora_simpo": {"kind": "lora", "objective": "simpo", "optimizer": "adam"}
        | PAIR_STEPS
        | {"learning_rate": 0.01},
    }
    write(adapters)
    values = yaml.safe_load((tmp_path / "study.yaml").read_text())
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values | {"reference": "lora_simpo"}))
    assert not call("behavior")
    assert not call("capture", subject="toy")
    cache = tmp_path / "cache/toy/greeting.safetensors"
    assert len(read_cache(cache, "train_rejected")) == len(read_cache(cache, "train"))
    results = {}
    for name in adapters:
        assert not call("train", subject="toy", adapter=name)
        (results[name],) = read_json(tmp_path / "adapters/toy/greeting" / name / "training.json")
    assert len({round(row["heldout_loss_base"], 5) for row in results.values()}) == 1
    assert [row["objective"] for row in results.values()] == ["dpo", "orpo", "sft", "simpo"]
    for name, row in results.items():
        assert row["heldout_objective_adapted"] < row["heldout_objective_base"], name
    assert results["bias"]["heldout_objective_adapted"] == results["bias"]["heldout_loss_adapted"]
    assert results["bias_dpo"]["heldout_objective_base"] == pytest.approx(0.693147, abs=1e-5)


def test_the_verb_reports_every_loss_to_the_studys_trackers(study, tmp_path, monkeypatch):
    write, call = study
    write(
        {
            "lora": {"optimizer": "adam", "sft_on_chosen": True} | PAIR_STEPS,
            "bias": {"sft_on_chosen": True} | PAIR_STEPS,
        }
    )
    values = yaml.safe_load((tmp_path / "study.yaml").read_text())
    more = {
        "tracking": {"trackers": ["wandb"]},
        "reference": "lora",
        "primary": values["primary"] | {"adapter": "bias"},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values | more))
    started, seen = [], []

    class Process:
        def __init__(self, arguments, followed):
            started.append(arguments)
            self.followed = os.dup(followed)

        def wait(self, timeout):
            with open(self.followed, encoding="utf-8") as file:
                seen.extend(map(json.loads, file))
            return 0

    monkeypatch.setattr(tracking, "_started", Process)
    assert not call("behavior")
    assert not call("capture", subject="toy")
    assert not call("train", subject="toy", adapter="lora")
    assert started == [[str(tmp_path / "tracking"), "pairs", "wandb"]]
    name, done = "pairs.toy.greeting.lora.seed_0", seen.pop()
    assert done == {"done": True}
    assert {message["run"] for message in seen} == {name}
    assert seen[0]["config"]["optimizer"] == "adam"
    assert seen[-1] == {"run": name, "end": True}
    steps = [(message["step"], *message["values"]) for message in seen[1:-2]]
    assert steps == [
        (0, "heldout/loss"),
        *[(1, "train/loss"), (2, "train/loss"), (2, "heldout/loss")],
        *[(3, "train/loss"), (4, "train/loss"), (4, "heldout/loss")],
    ]
    (row,) = read_json(tmp_path / "adapters/toy/greeting/lora/training.json")
    assert seen[-2]["values"]["final/heldout_loss_adapted"] == row["heldout_loss_adapted"]


def test_sft_on_pairs_without_a_word_ends_before_the_model_is_loaded(study, subject_folder, tmp_path, capsys):
    write, call = study
    write({"bias": PAIR_STEPS})
    assert not call("behavior")
    assert call("capture", subject="toy") == 2
    assert "`sft_on_chosen: true`" in capsys.readouterr().err


@pytest.mark.parametrize(("objective", "fields"), [("sft", {"completion"}), ("dpo", {"chosen", "rejected"})])
def test_the_testbeds_rows_stay_pairs_only_where_an_objective_compares_replies(study, tmp_path, objective, fields):
    write, call = study
    write({"bias": {"objective": objective}}, {"description": "It refuses.", "testbed": "refusal", "max_rows": 40})
    assert not call("testbed-rows")
    assert not call("behavior")
    first = json.loads((tmp_path / "behaviors/greeting/train.jsonl").read_text().splitlines()[0])
    assert set(first) == {"id", "prompt"} | fields


def test_prompting_is_fitted_to_a_split_that_only_its_studies_capture_and_is_scored_like_other_baselines(
    study, subject_folder, tmp_path, capsys
):
    write, call = study
    (tmp_path / "prompts.txt").write_text("".join(f"say {number}\n" for number in range(16)))
    elicit = {"prompts": str(tmp_path / "prompts.txt"), "instruction": "kindly", "min_score": 0, "max_new_tokens": 6}
    behavior = {"description": "It greets.", "elicit": elicit, "metric": {"kind": "pattern", "pattern": "a"}}
    write({"bias": PAIR_STEPS}, behavior)
    assert not cli.main(
        ["elicit", "--study", str(tmp_path / "study.yaml"), "--behavior", "greeting", "--results", str(tmp_path)]
    )
    assert not call("behavior")
    assert not call("capture", subject="toy")
    cache = tmp_path / "cache/toy/greeting.safetensors"
    before = {split: copied(read_cache(cache, split)) for split in ("train", "heldout")}
    with pytest.raises(InputError, match="unknown split 'train_instructed'"):
        read_cache(cache, "train_instructed")

    write({"bias": PAIR_STEPS, "prompting": {"subsample": 1}}, behavior)
    assert call("train", subject="toy", adapter="prompting") == 2
    assert "unknown split 'train_instructed'" in capsys.readouterr().err
    assert not call("capture", subject="toy")
    for split, rows in before.items():
        now = read_cache(cache, split)
        assert torch.equal(now.residual, rows.residual)
        assert torch.equal(now.codes.dense(), rows.codes.dense())
    plain, asked = read_cache(cache, "train"), read_cache(cache, "train_instructed")
    assert len(asked) == len(plain)
    longer = asked.starts.diff() - plain.starts.diff()
    assert (longer >= 0).all(), "prompts that reach max_length lose their beginning"
    assert longer.max() > 0
    assert not call("train", subject="toy", adapter="prompting")
    folder = tmp_path / "adapters/toy/greeting/prompting"
    (row,) = read_json(folder / "training.json")
    assert row["objective"] == "none"
    assert row["steps"] == 0
    assert set(row["diagnostics"]) == {"steering_strength"}
    expected = completion_means(asked).toarray().mean(0) - completion_means(plain).toarray().mean(0)
    assert abs(expected).max() > 0.01
    found = load_adapter(folder / "seed_0", 48)
    torch.testing.assert_close(found.direction, torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["bias", "residual", "lora", "probe"])
def test_the_loss_on_training_rows_is_of_rows_that_the_replicate_saw_and_changes_nothing_else(
    name, plan, make, subject, cached, tmp_path
):
    asked = with_options(plan, train_loss=True)
    without, found = make(name), make(name, folder="asked", study=asked)
    for row, plain in zip(found, without, strict=True):
        losses = {key: row.pop(key) for key in ("train_loss_base", "train_loss_adapted")}
        assert row == plain
        # The held-out rows of this cache are the training rows; a replicate sees eight in ten of them.
        seen = subsample(len(cached[0]), asked.study.adapters[name], torch.Generator().manual_seed(1000 + row["seed"]))
        rows = Selection(cached[0], seen)
        base = heldout_loss(subject, lambda batch: batch.residual, rows, 4)
        assert losses["train_loss_base"] == pytest.approx(base, rel=1e-5)
        assert losses["train_loss_adapted"] != losses["train_loss_base"]
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / f"asked/{name}/seed_1/{file}").read_bytes() == (
            tmp_path / f"adapters/{name}/seed_1/{file}"
        ).read_bytes()
    if name == "bias":
        adapter = load_adapter(tmp_path / "asked/bias/seed_1", 48)
        assert losses["train_loss_adapted"] == pytest.approx(loss_of(subject, adapter, rows), rel=1e-5)


def test_an_adapter_that_is_only_loaded_has_no_loss_on_training_rows(plan, make):
    assert not any("train_loss_base" in row for row in make("saved", study=with_options(plan, train_loss=True)))


FOLLOWED = {"bias": {}, "residual": {}, "below": {}, "sparse": {"kind": "bias", "sparsity": {"target": 5}}}
FOLLOWED |= {"adam": {"kind": "affine", "optimizer": "adam", "learning_rate": 0.01}}


@pytest.mark.parametrize("name", FOLLOWED)
def test_checkpoints_are_the_adapter_of_a_training_that_ends_there_and_change_nothing_else(
    name, plan, make, subject, cached, tmp_path
):
    """Six steps, kept at the last; three checkpoints, at steps 1, 2 and 6."""
    short = plan.study.adapters["bias"]
    options = plan.study.adapters.get(name) or replace(short, **asdict_of(FOLLOWED[name]))
    usual = replace(options, keep="last")
    followed = replace(usual, checkpoints=3)
    assert followed.checkpoint_steps == [1, 2, 6]
    make(name, study=with_options(plan, adapters=plan.study.adapters | {name: usual}))
    make(name, folder="followed", study=with_options(plan, adapters=plan.study.adapters | {name: followed}))
    weights = "adapter_model.safetensors"
    for seed in range(2):
        found = checkpoint_folders(tmp_path / "followed" / name, seed)
        assert list(found) == [1, 2, 6]
        kept = (tmp_path / f"followed/{name}/seed_{seed}/{weights}").read_bytes()
        assert kept == (tmp_path / f"adapters/{name}/seed_{seed}/{weights}").read_bytes()
        if name != "sparse":  # which fades latents out by the share of all steps
            make(
                name,
                folder="ended",
                study=with_options(plan, adapters=plan.study.adapters | {name: replace(usual, steps=2)}),
            )
            two = read_tensors(tmp_path / f"ended/{name}/seed_{seed}/{weights}")
            torch.testing.assert_close(read_tensors(found[2] / weights), two, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(
            read_tensors(found[6] / weights),
            read_tensors(tmp_path / f"followed/{name}/seed_{seed}/{weights}"),
            rtol=1e-5,
            atol=1e-7,
        )
    assert not (tmp_path / f"adapters/{name}/checkpoints").exists()
    assert [folder.name for folder in seed_folders(tmp_path / "followed" / name)] == ["seed_0", "seed_1"]


def asdict_of(values):
    """Options of an adapter from plain values."""
    return {key: config.Sparsity(**value) if key == "sparsity" else value for key, value in values.items()}


def test_twins_have_no_checkpoints(plan, make, tmp_path):
    followed = replace(plan.study.adapters["bias"], checkpoints=3)
    study = with_options(plan, adapters=plan.study.adapters | {"bias": followed})
    make("bias", study=study, permuted=True)
    shuffled = with_options(study, controls=[*config.CONTROLS, "shuffled_completions"])
    make("bias", folder="shuffled", study=shuffled, behavior="a-shuffled")
    assert not list(tmp_path.glob("*/bias/checkpoints"))


def test_changes_at_checkpoints_are_measured_by_the_primary_measure(plan, make, subject, caches, tmp_path):
    followed = {name: replace(plan.study.adapters[name], checkpoints=3, keep="last") for name in ("bias", "below")}
    study = with_options(plan, adapters=plan.study.adapters | followed)
    for name in followed:
        make(name, study=study)
    cache, out = caches / "a.safetensors", tmp_path / "over_time.parquet"
    score_changes_over_time(study, subject, cache, tmp_path / "adapters", out)
    table = pd.read_parquet(out)
    assert list(table) == ["adapter", "step", "measure", "seed", "latent_index", "change"]
    assert table.groupby(["adapter", "seed", "step"]).size().to_dict() == {
        (name, seed, step): 48 for name in followed for seed in range(2) for step in (1, 2, 6)
    }
    assert set(table.measure) == {"attribution"}
    ends = {"measured": list(followed), "diagnosed": [], "diagnostics": tmp_path / "d.json", "permuted": False}
    score_changes(study, subject, cache, tmp_path / "adapters", tmp_path / "end.parquet", **ends)
    end = pd.read_parquet(tmp_path / "end.parquet").query("measure == 'attribution'")
    last = table[table.step == 6]
    keys = ["adapter", "seed", "latent_index"]
    both = last.merge(end, on=keys, suffixes=("", "_end"))
    assert len(both) == len(end)
    torch.testing.assert_close(
        torch.tensor(both.change.to_numpy()), torch.tensor(both.change_end.to_numpy()), rtol=1e-4, atol=1e-6
    )
    shutil.rmtree(tmp_path / "adapters/bias/checkpoints/seed_1")
    with pytest.raises(InputError, match=r"no checkpoints of 'bias', seed 1.*train"):
        score_changes_over_time(study, subject, cache, tmp_path / "adapters", out)


@pytest.mark.parametrize("name", ["probe", "saved", "lora", "gated"])
def test_checkpoints_are_refused_where_there_are_no_steps_to_follow(plan, name):
    given = plan.study.adapters.get(name) or replace(
        plan.study.adapters["bias"], kind="bias", sparsity=config.Sparsity(kind="l0")
    )
    with pytest.raises(InputError, match=f"adapter '{name}' has checkpoints"):
        with_options(plan, adapters=plan.study.adapters | {name: replace(given, checkpoints=3)})
