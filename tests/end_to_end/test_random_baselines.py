"""Random baselines of a small study, from their dictionaries to the rows beside the result, in one process."""

import contextlib

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from isaerft import analysis
from isaerft.cli.app import app
from isaerft.cli.options import as_in_a_process_of_its_own, loaded_once, open_study, open_subject
from isaerft.config import BASELINES, load_plan, plan_from_dict
from isaerft.steps import steps_of
from isaerft.subjects.dictionary import load_dictionary
from tests.end_to_end.test_small_study import ROOT

TWINS = {name: f"tiny-{name.replace('_', '-')}" for name in BASELINES}
CHEAP = {
    "scorers": {},
    "steering_check": None,
    "map_components": None,
    "meta_sae": None,
    "loss_curves": None,
    "noise_probe": None,
    "reference": None,
    "causal_check": {"adapters": []},
    "behavior_check": {"adapters": []},
    "placebos": {"n": 0},
    "controls": ["random_dictionary", "shuffled_completions", *BASELINES],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Run a small study with every random baseline; return its config's file and the folder of its results."""
    folder = tmp_path_factory.mktemp("baselines")
    values = yaml.safe_load((ROOT / "tests/end_to_end/small.yaml").read_text(encoding="utf-8")) | CHEAP
    values["adapters"] = {"bias": values["adapters"]["bias"]}
    values["behaviors"]["formality"] = values["behaviors"]["humor"] | {"testbed": "formality"}
    file, results = folder / "study.yaml", folder / "results"
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    verbs = {command.name: command.callback for command in app.registered_commands}
    with contextlib.chdir(folder), loaded_once():
        for step in steps_of(plan_from_dict(values)):
            with as_in_a_process_of_its_own():
                verbs[step.verb](study=file, results=results, **step.names)
    return file, results


@pytest.fixture(scope="module")
def tables(study):
    _, results = study
    return {path.stem: analysis.table(path.stem).read(path) for path in (results / "tables").glob("*.csv")}


def dictionary_of(results, name):
    return load_dictionary(results / "subjects" / name / "sae")


@pytest.mark.slow
def test_no_baseline_is_its_subject_in_silence(study):
    _, results = study
    own = dictionary_of(results, "tiny")
    files = ("latents.parquet", "truth/input.csv", "truth/output.csv")
    for twin in TWINS.values():
        other = dictionary_of(results, twin)
        assert (other.d_in, other.d_sae, other.hook_name) == (own.d_in, own.d_sae, own.hook_name)
        for name in ("W_enc", "W_dec"):
            assert not torch.equal(getattr(own, name), getattr(other, name)), (twin, name)
        for file in files:
            read = pd.read_parquet if file.endswith("parquet") else pd.read_csv
            assert not read(results / "subjects" / twin / file).equals(read(results / "subjects" / "tiny" / file))
        for behavior in ("refusal", "humor", "formality"):
            changes = [pd.read_parquet(results / "changes" / name / f"{behavior}.parquet") for name in ("tiny", twin)]
            assert not np.allclose(*[frame.change.to_numpy() for frame in changes])
        assert not (results / "subjects" / twin / "corpus.safetensors").exists(), "it shares the subject's"
        assert not list((results / "changes" / twin).glob("*-shuffled*"))


@pytest.mark.slow
def test_a_frozen_baseline_begins_where_its_subject_did_and_an_untrained_one_fires_as_often(study, tables):
    _, results = study
    rate = {
        name: pd.read_parquet(results / "subjects" / name / "latents.parquet").firing_rate.to_numpy()
        for name in ("tiny", *TWINS.values())
    }
    untrained = TWINS["untrained_dictionary"]
    assert np.abs(rate["tiny"] - rate[untrained]).max() < 0.1
    assert np.corrcoef(rate["tiny"], rate[untrained])[0, 1] > 0.95
    assert np.corrcoef(rate["tiny"], rate[TWINS["random_model"]])[0, 1] < 0.9
    l0 = tables["subjects"].set_index("subject").l0
    assert l0[untrained] == pytest.approx(l0["tiny"], rel=0.05)
    decoder, encoder = (dictionary_of(results, TWINS[name]) for name in ("frozen_decoder", "frozen_encoder"))
    # Both begin from one initialization, in which a latent reads what it writes.
    normalize = torch.nn.functional.normalize
    torch.testing.assert_close(normalize(decoder.W_dec), normalize(encoder.W_enc.T))
    assert not torch.allclose(normalize(decoder.W_enc.T), normalize(encoder.W_enc.T))


@pytest.mark.slow
def test_only_the_random_model_has_other_weights_than_the_subjects(study):
    opened = open_study(*study)
    own = open_subject(opened, "tiny").model.state_dict()
    for control, twin in TWINS.items():
        weights = open_subject(opened, twin).model.state_dict()
        assert weights.keys() == own.keys()
        alike = [torch.equal(weights[name], own[name]) for name in own]
        assert not any(alike) if control == "random_model" else all(alike)


@pytest.mark.slow
def test_baselines_are_rows_beside_the_result_and_subjects_of_no_test_of_their_own(study, tables):
    agreement = tables["agreement"]
    assert set(agreement.subject) == {"tiny"}
    keys = ["behavior", "adapter", "measure", "source", "judge", "statistic"]
    sources = load_plan(study[0]).study.sources
    right = agreement[[not sources[name].wrong_share for name in agreement.source]]
    result = right[right.control == "none"].set_index(keys).estimate.sort_index()
    for control in BASELINES:
        rows = right[right.control == control].set_index(keys)
        assert rows.index.is_unique
        assert set(rows.index) == set(result.index)
        assert not rows.primary.any()
        assert rows.qvalue.isna().all()
        assert not np.allclose(rows.estimate.sort_index(), result, equal_nan=True)
        # Its own latents are tested, and not those of the subject.
        assert (rows.n_latents != right[right.control == "none"].set_index(keys).n_latents.loc[rows.index]).any()
    assert not set(BASELINES) & set(agreement.control[[bool(sources[name].wrong_share) for name in agreement.source]])
    assert set(tables["specificity"].subject) == set(tables["overall"].subject) == {"tiny"}
    assert set(TWINS.values()) <= set(tables["subjects"].subject)
    assert set(TWINS.values()) <= set(tables["training"].subject)


@pytest.mark.slow
def test_the_specificity_of_baselines_is_set_beside_the_dictionarys(study, tables):
    table = tables["random_dictionaries"]
    read = table[["source", "judge"]].drop_duplicates()
    assert set(read.source) == {"truth_output", "local_output", "local_sampled"}
    for _, rows in table.groupby(["source", "judge"], sort=False):
        assert rows.control.tolist() == ["none", "random_dictionary", *BASELINES]


@pytest.mark.slow
def test_the_summary_says_where_a_baseline_is_not_known_to_be_less_specific(study, tables):
    _, results = study
    page = (results / "summary.html").read_text(encoding="utf-8")
    rows = tables["random_dictionaries"].query("source == 'local_output' and judge == 'lexical'")
    assert len(rows) == 6
    for row in rows[rows.control != "none"].itertuples():
        said = f" baseline {row.control.replace('_', ' ')} has"
        assert (said in page) == (not row.difference_ci_low > 0), row.control
