"""source_comparison.csv: sources are compared on common latents and behaviors, with the numbers of overall.csv."""

import numpy as np
import pytest

from isaerft import config
from isaerft.analysis.matrix import BehaviorMatrix
from isaerft.analysis.overall import overall_rows
from isaerft.analysis.readings import Confounds, Expectation
from isaerft.analysis.source_comparison import comparison_rows, per_behavior
from isaerft.stats import auroc, mean_rank, overall_specificity

N, BEHAVIORS = 200, ("a", "b", "c", "d")


def make_study(**changes):
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}}},
        "behaviors": {name: {"description": name, "rule": True} for name in BEHAVIORS},
        "adapters": {"bias": {}},
        "measures": ["contribution"],
        "sources": {
            "good": {"kind": "local", "side": "output"},
            "poor": {"kind": "local"},
            "other": {"kind": "local", "judges": ["lexical"]},
            "wrong": {"kind": "local", "wrong_share": 0.5},
        },
        "judges": {"lexical": {}, "embedding": {}, "shown": {"kind": "lexical", "tested": False}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "good", "judge": "lexical"},
        "n_seeds": 2,
    }
    return config.plan_from_dict(values | changes)


@pytest.fixture
def world():
    """Changes that follow the first source's expectations, and less the second's."""
    rng = np.random.default_rng(0)
    expected = rng.random((4, N)) < 0.15
    mixed = np.where(rng.random((4, N)) < 0.5, expected, rng.random((4, N)) < 0.15)
    own = {(name, "contribution"): 2 * expected[i] + rng.normal(size=(2, N)) for i, name in enumerate(BEHAVIORS)}
    return own, expected, mixed


def reading(own, expected, latents):
    own_code = np.arange(len(latents))
    confounds = Confounds(np.zeros(len(latents), int), own_code, own_code, *np.zeros((3, len(latents))))
    said = Expectation(latents, expected[:, latents], expected[:, latents].astype(float))
    return BehaviorMatrix(make_study(), said, confounds, "contribution", "auroc", own)


def rows_of(read):
    return {(row["quantity"], row["source"]): row for row in comparison_rows(make_study(), read)}


def test_sources_are_compared_on_the_latents_that_all_explain(world):
    own, expected, mixed = world
    read = {"good": reading(own, expected, np.arange(150)), "poor": reading(own, mixed, np.arange(50, N))}
    rows = rows_of(read)
    common = np.arange(50, 150)
    for source, labels in (("good", expected), ("poor", mixed)):
        by_hand = [
            auroc(mean_rank(own[name, "contribution"][:, common]), labels[i, common])
            for i, name in enumerate(BEHAVIORS)
        ]
        row = rows["agreement", source]
        assert row["estimate"] == pytest.approx(np.mean(by_hand))
        assert (row["n_latents"], row["n_behaviors"]) == (100, 4)
        assert row["n_expected"] == pytest.approx(labels[:, common].sum() / 4)
    good, poor = rows["agreement", "good"], rows["agreement", "poor"]
    assert (good["rank"], poor["rank"], good["rival"], poor["rival"]) == (1, 2, "poor", "good")
    assert good["difference"] == pytest.approx(good["estimate"] - poor["estimate"])
    assert poor["difference_ci_high"] < 0 < good["difference_ci_low"]
    assert (good["side"], poor["side"]) == ("output", "input")


def test_the_estimates_are_those_of_overall_where_the_latents_are_the_same(world):
    own, expected, mixed = world
    read = {"good": reading(own, expected, np.arange(N)), "poor": reading(own, mixed, np.arange(N))}
    rows, same = rows_of(read), ("estimate", "ci_low", "ci_high")
    for source in read:
        overall = list(overall_rows(read[source]))
        for whole in overall:
            row = rows[whole["quantity"], source]
            assert [row[name] for name in same] == pytest.approx([whole[name] for name in same])


def test_each_behaviors_part_of_specificity_is_that_of_the_statistics():
    matrix = np.random.default_rng(2).random((5, 5))
    np.testing.assert_allclose(per_behavior(matrix, "specificity"), overall_specificity(matrix).per_family)
    np.testing.assert_array_equal(per_behavior(matrix, "agreement"), np.diagonal(matrix))


def test_a_behavior_that_one_source_cannot_be_tested_on_counts_for_none(world):
    own, expected, mixed = world
    silent = mixed.copy()
    silent[1] = False
    read = {"good": reading(own, expected, np.arange(N)), "poor": reading(own, silent, np.arange(N))}
    rows = rows_of(read)
    kept = [auroc(mean_rank(own[name, "contribution"]), expected[i]) for i, name in enumerate(BEHAVIORS) if name != "b"]
    assert rows["agreement", "good"]["estimate"] == pytest.approx(np.mean(kept))
    assert {row["n_behaviors"] for row in rows.values()} == {3}


def test_a_source_that_expects_nothing_is_left_empty_and_does_not_empty_the_others(world):
    own, expected, mixed = world
    read = {
        "good": reading(own, expected, np.arange(N)),
        "poor": reading(own, mixed, np.arange(N)),
        "other": reading(own, np.zeros_like(mixed), np.arange(N)),
    }
    rows = rows_of(read)
    assert "estimate" not in rows["agreement", "other"]
    assert "rank" not in rows["specificity", "other"]
    assert rows["agreement", "good"]["rank"] == 1
    assert rows["agreement", "good"]["n_behaviors"] == 4


def test_sources_without_a_common_latent_have_no_estimates(world):
    own, expected, mixed = world
    read = {"good": reading(own, expected, np.arange(100)), "poor": reading(own, mixed, np.arange(100, N))}
    rows = rows_of(read)
    assert len(rows) == 4
    assert all(row["n_latents"] == 0 and "estimate" not in row for row in rows.values())


def test_which_sources_are_compared_is_known_from_the_study_alone(world):
    plan = make_study()
    assert plan.compared_sources == {"lexical": ["good", "poor", "other"], "embedding": ["good", "poor"]}
    own, expected, _ = world
    assert rows_of({"good": reading(own, expected, np.arange(N))}) == {}
