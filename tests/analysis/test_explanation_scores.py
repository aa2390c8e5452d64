"""explanation_quality.csv and agreement_by_quality.csv: means beside floors, and agreement by thirds of a score."""

import json

import numpy as np
import pandas as pd
import pytest

from isaerft.analysis import Analysis, table
from isaerft.analysis.explanation_scores import thirds_of
from isaerft.config import plan_from_dict
from isaerft.errors import InputError
from isaerft.explanations import write_explanations
from isaerft.judges import judgements, write_judgements
from isaerft.layout import Results
from isaerft.scorers import write_scores
from isaerft.stats import mean_interval

N, DEAD = 90, 89
BEHAVIORS = {"a": "d", "b": "d"}
EXPECTED = np.arange(N) % 5 == 0
GOOD = np.arange(N) >= 60


def make_study(**changes):
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}}},
        "behaviors": {name: {"description": "d", "testbed": name} for name in BEHAVIORS},
        "adapters": {"bias": {}, "scale": {}},
        "sources": {"said": {"kind": "file"}, "other": {"kind": "file", "adapters": ["scale"]}},
        "judges": {"near": {"kind": "lexical"}, "compared": {"kind": "lexical", "tested": False}},
        "scorers": {"words": {"kind": "lexical"}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "said", "judge": "near"},
    }
    return plan_from_dict(values | changes)


@pytest.fixture
def results(tmp_path):
    """Latents of explanations that score high change where they are expected to, the others at random."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "subjects" / "toy"
    folder.mkdir(parents=True)
    rate = np.where(np.arange(N) == DEAD, 0, 0.1)
    pd.DataFrame({"latent_index": np.arange(N), "firing_rate": rate}).to_parquet(folder / "latents.parquet")
    (folder / "subject.json").write_text(json.dumps([]))
    texts = [f"text {i}" for i in range(N)]
    said = pd.DataFrame({"latent_index": np.arange(N), "explanation": texts, "side": "input", "url": ""})
    (tmp_path / "changes/toy").mkdir(parents=True)
    for behavior in BEHAVIORS:
        for seed in range(2):
            change = rng.normal(size=N) + 9 * (EXPECTED & GOOD)
            change[DEAD] = 99
            rows = {"adapter": "bias", "measure": "contribution", "seed": seed, "latent_index": range(N)}
            path = tmp_path / f"changes/toy/{behavior}.parquet"
            known = [pd.read_parquet(path)] if path.exists() else []
            pd.concat([*known, pd.DataFrame(rows | {"change": change})]).to_parquet(path)
    effects = np.tile(EXPECTED[:, None].astype(float), 2)
    for source in ("said", "other"):
        write_explanations(said, tmp_path / f"explanations/toy/{source}.parquet")
        for judge in ("near", "compared"):
            frame = judgements(said, BEHAVIORS, effects, expected=effects > 0.5)
            write_judgements(frame, tmp_path / f"judgements/toy/{source}/{judge}.parquet")
        scores(tmp_path, source)
    return tmp_path


def scores(folder, source, value=None):
    value = 0.2 + 0.3 * (np.arange(N) >= 30) + 0.3 * GOOD if value is None else value
    frame = pd.DataFrame({"score": "detection", "latent_index": np.arange(N), "n_items": 12, "value": value})
    path = folder / "scores/toy" / source / "words.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_scores(frame.assign(floor=0.5), path)


def made(plan, results, name):
    return table(name).conform(Analysis(plan, Results(results)).frame(name))


def test_the_mean_stands_beside_its_floor_and_failures_are_in_neither(results):
    plan = make_study()
    value = np.linspace(0.5, 1, N)
    value[:9] = np.nan
    scores(results, "said", value)
    table = made(plan, results, "explanation_quality")
    row = table.set_index("source").loc["said"]
    assert (row.n_explanations, row.n_failed, row.floor) == (N - 9, 9, 0.5)
    interval = mean_interval(value[9:], 0.95)
    np.testing.assert_allclose([row["mean"], row.ci_low, row.ci_high], [value[9:].mean(), *interval])


def test_agreement_is_high_where_explanations_score_high_and_at_chance_where_they_do_not(results):
    plan = make_study()
    table = made(plan, results, "agreement_by_quality").set_index("quality")
    assert table.loc["high", "estimate"] == 1
    assert abs(table.loc["low", "estimate"] - 0.5) < 0.25
    assert table["n_latents"].to_dict() == {"low": 30, "middle": 30, "high": 29}  # the dead one is no part of it
    assert table["n_expected"].to_dict() == {"low": 12, "middle": 12, "high": 12}
    assert set(table["n_behaviors"]) == {2}
    assert (table["ci_low"] >= 0).all()
    assert (table["ci_high"] <= 1).all()


def test_only_what_is_tested_at_the_primary_adapter_has_rows(results):
    plan = make_study()
    table = made(plan, results, "agreement_by_quality")
    assert set(table["source"]) == {"said"}
    assert set(table["judge"]) == {"near"}


def test_a_latent_without_a_score_is_in_no_third(results):
    value = np.linspace(0, 1, N)
    value[:60] = np.nan
    scores(results, "said", value)
    plan = make_study()
    table = made(plan, results, "agreement_by_quality")
    assert table["n_latents"].sum() == 29


def test_where_all_score_alike_there_is_one_third_and_no_other(results):
    scores(results, "said", np.full(N, 0.7))
    plan = make_study()
    table = made(plan, results, "agreement_by_quality")
    assert table[["quality", "n_latents"]].to_numpy().tolist() == [["middle", 89]]


@pytest.mark.parametrize(
    ("values", "thirds"),
    [
        ([1, 2, 3], [0, 1, 2]),
        ([3, 3, 1, 2, 2, 1], [2, 2, 0, 1, 1, 0]),
        ([1, 1, 1, 1, 1, 2], [1, 1, 1, 1, 1, 2]),
        ([5], [1]),
        ([], []),
    ],
)
def test_equal_values_share_a_third(values, thirds):
    assert thirds_of(np.array(values, dtype=float)).tolist() == thirds


def test_a_scorer_of_unknown_kind_source_or_model_is_refused():
    for scorer, message in [
        ({"kind": "lexcal"}, "unknown scorer 'lexcal'.*did you mean 'lexical'"),
        ({"kind": "lexical", "sources": ["sad"]}, r"scorers\.words\.sources.*'sad'.*'said'"),
        ({"kind": "llm"}, "'words' is of kind 'llm' and names no model"),
        ({"kind": "llm", "llm": "big"}, r"words\.llm"),
    ]:
        with pytest.raises(InputError, match=message):
            make_study(scorers={"words": scorer})
