"""Every way in which an adapter comes about, from a study's config to its folder."""

import copy
from dataclasses import replace

import pandas as pd
import pytest
import torch

from isaerft import config
from isaerft.adapters.base import adapted, load_adapter, make_adapter, save_adapter
from isaerft.changes.causal import check_causes
from isaerft.changes.run import score_changes
from isaerft.errors import InputError
from isaerft.io import read_json
from isaerft.registry import ADAPTERS, CONTRASTED, UNTRAINED
from isaerft.subjects.cache import CachedRows, read_cache, write_cache
from isaerft.subjects.capture import capture
from isaerft.subjects.hooks import decoder_blocks
from isaerft.training.loop import heldout_loss
from isaerft.training.run import WAYS, run_adapter


def copied(rows):
    """The same rows in memory of their own, as safetensors wants them."""
    return CachedRows(
        rows.residual.clone(),
        rows.codes.rows(torch.arange(rows.codes.n_tokens)),
        rows.tokens.clone(),
        rows.predicts.clone(),
        rows.starts.clone(),
    )


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
                "lora": adam | {"options": {"rank": 2}},
            },
            "reference": "lora",
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
            "n_seeds": 2,
        }
    )


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
    "lora",
]


@pytest.fixture
def make(plan, subject, caches, tmp_path):
    """Make an adapter in a folder and return its training.json."""

    def run(name, place="made", **more):
        options = {"behavior": "a", "permuted": False, "contrast": caches} | more
        run_adapter(plan, subject, name, caches / "a.safetensors", tmp_path / place / name, **options)
        return read_json(tmp_path / place / name / "training.json")

    return run


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


def test_training_outside_the_basis_lowers_the_loss_and_says_what_the_dictionary_explains(make):
    for name in ("residual", "below"):
        for row in make(name):
            found = row["diagnostics"]
            assert row["heldout_loss_adapted"] < row["heldout_loss_base"] - 0.01
            assert row["objective"] == "sft"
            assert row["steps"] > 0
            assert found["explained_share"] < 1
            # Nothing of a residual adapter or of LoRA below the hook goes past the hook.
            assert found["heldout_loss_displaced"] == pytest.approx(row["heldout_loss_adapted"], abs=1e-4)
            assert found["heldout_loss_pulled_back"] != pytest.approx(row["heldout_loss_adapted"], abs=1e-4)


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
    assert row["diagnostics"]["heldout_loss_displaced"] == pytest.approx(row["heldout_loss_adapted"], rel=1e-4)


def test_a_checkpoint_is_there_once_unless_its_path_or_the_dictionary_changes_with_the_seed(make):
    assert [row["seed"] for row in make("checkpoint")] == [0]
    first, second = make("checkpoints")
    assert first["heldout_loss_adapted"] != second["heldout_loss_adapted"]
    assert [row["seed"] for row in make("checkpoint", "twin", permuted=True)] == [0, 1]


def test_a_saved_adapter_is_measured_without_a_step_as_what_it_is(make, subject, cached, tmp_path):
    (row,) = make("saved")
    assert (row["seed"], row["steps"], row["objective"], row["n_parameters"]) == (0, 0, "none", 96)
    read, own = load_adapter(tmp_path / "made" / "saved" / "seed_0", 48), load_adapter(tmp_path / "own", 48)
    assert torch.equal(read.bias, own.bias)
    loss = heldout_loss(subject, lambda batch: adapted(subject.dictionary, own, batch), cached[0], 4)
    assert row["heldout_loss_adapted"] == pytest.approx(loss, rel=1e-6)
    assert row["heldout_loss_adapted"] != pytest.approx(row["heldout_loss_base"], rel=1e-4)
    assert [row["seed"] for row in make("originals")] == [0, 1]
    one, two = (load_adapter(tmp_path / "made" / "originals" / f"seed_{seed}", 48) for seed in range(2))
    assert (one.kind, float(one.scale[0]), float(two.scale[0])) == ("scale", pytest.approx(0.1), pytest.approx(1.1))


@pytest.mark.parametrize("name", ["mean_difference", "probe"])
def test_a_baseline_takes_no_step_and_reports_how_well_it_tells_held_out_texts_apart(make, name):
    for row in make(name):
        assert (row["steps"], row["tokens"], row["objective"], row["n_parameters"]) == (0, 0, "none", 48)
        found = row["diagnostics"]
        assert set(found) == {"heldout_auroc", "heldout_accuracy", "steering_strength"}
        assert 0.5 < found["heldout_auroc"] <= 1


@pytest.mark.parametrize("name", ["mean_difference", "probe"])
def test_no_held_out_row_reaches_a_fit(make, caches, tmp_path, name):
    """With other held-out rows of both behaviors, the fitted numbers stay what they were."""
    make(name, "one")
    for behavior in ("a", "b"):
        path = caches / f"{behavior}.safetensors"
        splits = {split: copied(read_cache(path, split)) for split in ("train", "heldout")}
        codes = splits["heldout"].codes
        splits["heldout"] = replace(splits["heldout"], codes=replace(codes, values=7 * codes.values))
        write_cache(splits, path)
    make(name, "two")
    for seed in range(2):
        one, two = (load_adapter(tmp_path / place / name / f"seed_{seed}", 48).state_dict() for place in ("one", "two"))
        assert all(torch.equal(one[part], two[part]) for part in one)


def test_the_contrast_is_what_the_behavior_names(make, plan, caches, subject, records, tmp_path):
    make("mean_difference", "others")
    assert plan.contrast_behaviors("a", "mean_difference") == ["b"]
    assert plan.contrast_behaviors("a", "bias") == []
    with pytest.raises(InputError, match="needs the cached activations of b; say with --contrast"):
        make("mean_difference", "none", contrast=None)
    behaviors = plan.study.behaviors | {"a": replace(plan.study.behaviors["a"], contrast="rejected")}
    asked = replace(plan, behaviors=behaviors)
    assert asked.contrast_behaviors("a", "mean_difference") == []
    assert asked.compares_replies("a")
    assert not asked.compares_replies("b")
    own, other = caches / "a.safetensors", caches / "b.safetensors"
    splits = {split: copied(read_cache(own, split)) for split in ("train", "heldout")}
    splits |= {f"{split}_rejected": copied(read_cache(other, split)) for split in ("train", "heldout")}
    write_cache(splits, own)
    run_adapter(asked, subject, "mean_difference", own, tmp_path / "rejected", behavior="a", permuted=False)
    places = tmp_path / "rejected", tmp_path / "others" / "mean_difference"
    found = [load_adapter(place / "seed_0", 48) for place in places]
    assert torch.equal(found[0].direction, found[1].direction), "the same text by another way"


def test_every_adapter_of_a_study_is_scored_by_every_measure(make, plan, subject, caches, tmp_path):
    names = plan.analysed_adapters()
    assert set(names) == set(ALL) - {"lora"}
    for name in names:
        make(name)
    paths = caches / "a.safetensors", tmp_path / "made", tmp_path / "changes.parquet"
    score_changes(plan, subject, *paths, names=names, permuted=False)
    table = pd.read_parquet(tmp_path / "changes.parquet")
    n_seeds = {name: 1 if name in ("checkpoint", "saved") else 2 for name in names}
    assert table.groupby("adapter").seed.nunique().to_dict() == n_seeds
    assert table.groupby(["adapter", "measure", "seed"]).size().eq(48).all()
    assert table.groupby(["adapter", "measure", "seed"]).change.agg(lambda change: change.abs().max()).gt(0).all()


def test_the_causal_check_takes_every_kind_and_leaves_the_model_as_it_was(make, plan, subject, caches, tmp_path):
    names = plan.analysed_adapters()
    for name in names:
        make(name)
    before = {key: value.clone() for key, value in subject.model.state_dict().items()}
    places = caches / "a.safetensors", tmp_path / "made"
    score_changes(plan, subject, *places, tmp_path / "changes.parquet", names=names, permuted=False)
    facts = pd.DataFrame({"latent_index": range(48), "firing_rate": 0.1, "decoder_norm": 1.0})
    asked = replace(plan, causal_check=replace(plan.study.causal_check, ks=[3], n_draws=2))
    check_causes(asked, subject, facts, *places, tmp_path / "changes.parquet", tmp_path / "causes.parquet")
    table = pd.read_parquet(tmp_path / "causes.parquet")
    assert set(table.adapter) == set(asked.causally_checked) == set(names)
    after = subject.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_a_kind_says_how_it_is_made_and_the_config_knows_which_are_not_trained():
    assert {getattr(ADAPTERS[kind], "made", "latents") for kind in ADAPTERS} == set(WAYS)
    assert {kind for kind in ADAPTERS if ADAPTERS[kind].made == "fitted"} == CONTRASTED
    assert {kind for kind in ADAPTERS if ADAPTERS[kind].made in ("fitted", "given", "saved")} == UNTRAINED


@pytest.mark.parametrize("name", ["residual", "lora", "probe", "checkpoint", "saved"])
def test_what_does_not_train_latents_refuses_to_be_sparse(plan, subject, caches, tmp_path, name):
    sparse = replace(plan.study.adapters[name], sparsity=config.Sparsity(target=3))
    asked = replace(plan, adapters=plan.study.adapters | {name: sparse})
    place = caches / "a.safetensors", tmp_path / "sparse"
    with pytest.raises(InputError, match=f"'{name}' cannot be trained sparsely"):
        run_adapter(asked, subject, name, *place, behavior="a", permuted=False, contrast=caches)


def test_on_shuffled_completions_an_adapter_is_fitted_against_what_its_behavior_is(
    make, plan, caches, subject, tmp_path
):
    make("mean_difference", "own")
    asked, place = replace(plan, controls=["shuffled_completions"]), tmp_path / "twin"
    options = {"behavior": "a-shuffled", "permuted": False, "contrast": caches}
    run_adapter(asked, subject, "mean_difference", caches / "a.safetensors", place, **options)
    found = [load_adapter(folder / "seed_0", 48) for folder in (tmp_path / "own/mean_difference", place)]
    assert torch.equal(found[0].direction, found[1].direction), "the same text has the same direction"
