"""judge_quality.csv and corrected_agreement.csv: who is compared with whom, on what, and what follows."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from isaerft.analysis import analysis_of
from isaerft.analysis.judge_quality import CORRECTION, QUALITY, corrected_agreement, judge_quality
from isaerft.config import plan_from_dict
from isaerft.explanations import write_explanations
from isaerft.judges import judgements, write_judgements
from isaerft.layout import Results

N, N_TEXTS = 90, 30
BEHAVIORS = {"a": "d", "b": "d"}
DEAD = 89


def make_study(**judges):
    return plan_from_dict(
        {
            "study": "small",
            "subjects": {"toy": {"testbed": {}}},
            "behaviors": {name: {"description": "d", "testbed": name} for name in BEHAVIORS},
            "adapters": {"bias": {}},
            "sources": {"said": {"kind": "file"}, "other": {"kind": "file", "judges": ["near"]}},
            "judges": {"near": {"kind": "lexical"}, **judges},
            "primary": {"adapter": "bias", "measure": "contribution", "source": "said", "judge": "near"},
        }
    )


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "subjects" / "toy"
    folder.mkdir(parents=True)
    facts = pd.DataFrame({"latent_index": np.arange(N), "firing_rate": 0.1})
    facts.loc[DEAD, "firing_rate"] = 0
    facts.to_parquet(folder / "latents.parquet")
    (folder / "subject.json").write_text(json.dumps([]))
    write_explanations(explanations(), tmp_path / "explanations/toy/said.parquet")
    return tmp_path


def explanations():
    texts = [f"text {i % N_TEXTS}" for i in range(N)]
    return pd.DataFrame({"latent_index": np.arange(N), "explanation": texts, "side": "input", "url": ""})


def judge(results, name, effects, drop=()):
    frame = judgements(explanations(), BEHAVIORS, effects, expected=effects > 0.5)
    frame = frame[~frame.latent_index.isin(drop)].reset_index(drop=True)
    write_judgements(frame, results / "judgements/toy/said" / f"{name}.parquet")


def of_texts(seed, share=0.3):
    """Return effects that are alike where the text is, (N, 2)."""
    rng = np.random.default_rng(seed)
    return ((rng.random((N_TEXTS, 2)) < share) * 1.0)[np.arange(N) % N_TEXTS]


def quality_of(plan, results):
    return judge_quality(analysis_of(plan, Results(results)))


def corrected(plan, agreement, results):
    return corrected_agreement(analysis_of(plan, Results(results), {"agreement": agreement}))


def test_judges_are_compared_pair_by_pair_and_a_reference_stands_in_second_place(results):
    for seed, name in enumerate(["near", "truth", "far"]):
        judge(results, name, of_texts(seed))
    plan = make_study(truth={"kind": "table", "reference": True}, far={"kind": "embedding"})
    quality = QUALITY.conform(quality_of(plan, results))
    assert set(zip(quality.judge, quality.against, strict=True)) == {
        ("near", "truth"),
        ("far", "truth"),
        ("near", "far"),
    }
    with_rates = quality[quality.statistic.isin(["true_positive_rate", "true_negative_rate"])]
    assert set(with_rates.against) == {"truth"}
    assert set(quality.source) == {"said"}


def test_values_are_those_of_the_pairs_that_both_judged_among_the_living(results):
    first, second = of_texts(1), of_texts(2)
    first[DEAD], second[DEAD] = 1, 0
    judge(results, "near", first)
    judge(results, "people", second, drop=range(60))
    plan = make_study(people={"kind": "human", "path": None, "reference": True})
    quality = quality_of(plan, results).set_index("statistic")
    living = np.arange(60, DEAD)
    kappa = cohen_kappa_score(second[living].ravel() > 0.5, first[living].ravel() > 0.5)
    assert quality.estimate["kappa"] == pytest.approx(kappa)
    assert quality.n_latents.unique() == [len(living)]
    assert quality.n_judgements.unique() == [2 * len(living)]
    assert quality.n_explanations.unique() == [len({i % N_TEXTS for i in living})]
    assert quality.ci_low["kappa"] < kappa < quality.ci_high["kappa"]


def test_the_same_judge_under_another_name_agrees_wholly_which_is_how_a_repeat_is_read(results):
    judge(results, "near", of_texts(1))
    judge(results, "again", of_texts(1))
    quality = quality_of(make_study(again={"kind": "lexical", "tested": False}), results)
    assert quality.estimate.tolist() == pytest.approx([1, 1, 1])


def test_judges_without_a_pair_in_common_have_no_row(results):
    judge(results, "near", of_texts(1), drop=range(45))
    judge(results, "people", of_texts(1), drop=range(45, 90))
    assert quality_of(make_study(people={"kind": "human"}), results).empty


def agreement_row(judge, estimate, **changes):
    row = {"subject": "toy", "behavior": "a", "adapter": "bias", "measure": "contribution", "source": "said"}
    row |= {"judge": judge, "control": "none", "statistic": "auroc", "estimate": estimate}
    return row | {"ci_low": estimate - 0.05, "ci_high": estimate + 0.05, "n_latents": 100, "n_expected": 25} | changes


def with_errors(results):
    """Write a truth that expects 9 of 30 texts, and a judge that misses 2 of these and adds 6; return its rates."""
    truth, near = np.zeros((2, N_TEXTS, 2))
    truth[:9], near[2:15] = 1, 1
    for name, effects in (("truth", truth), ("near", near)):
        judge(results, name, effects[np.arange(N) % N_TEXTS])
    living = np.arange(DEAD) % N_TEXTS
    return near[living][truth[living] == 1].mean(), 1 - near[living][truth[living] == 0].mean()


def test_only_results_by_a_judge_that_was_measured_are_corrected(results):
    plan = make_study(truth={"kind": "table", "reference": True})
    found, left_alone = with_errors(results)
    agreement = pd.DataFrame(
        [
            agreement_row("near", 0.6, n_expected=50),
            agreement_row("truth", 0.7),
            agreement_row("near", 0.5, control="shuffled_explanations"),
            agreement_row("near", 0.2, statistic="spearman"),
            agreement_row("near", 0.2, statistic="precision_at_k"),
            agreement_row("near", 0.6, source="other"),
        ]
    )
    table = CORRECTION.conform(corrected(plan, agreement, results))
    assert table.statistic.tolist() == ["auroc", "spearman"]
    assert table.against.tolist() == ["truth", "truth"]
    assert table.true_positive_rate[0] == pytest.approx(found)
    assert table.true_negative_rate[0] == pytest.approx(left_alone)
    true_share = (0.5 + left_alone - 1) / (found + left_alone - 1)
    factor = found * true_share / 0.5 + left_alone * (1 - true_share) / 0.5 - 1
    assert table.corrected[0] == pytest.approx(0.5 + 0.1 / factor)
    assert table.ci_low[0] < 0.5 + 0.05 / factor
    quality = quality_of(plan, results).set_index("statistic").estimate
    assert table.correlation[1] == pytest.approx(quality["spearman"])
    assert table.corrected[1] == pytest.approx(0.2 / quality["spearman"])
    assert pd.isna(table.correlation[0])


def test_what_cannot_be_corrected_is_empty_and_the_raw_estimate_stays(results):
    plan = make_study(truth={"kind": "table", "reference": True})
    judge(results, "truth", of_texts(1))
    judge(results, "near", 1 - of_texts(1))
    agreement = pd.DataFrame([agreement_row("near", 0.6), agreement_row("near", np.nan, n_expected=0)])
    table = CORRECTION.conform(corrected(plan, agreement, results))
    assert table.estimate.tolist()[0] == 0.6
    assert table[["corrected", "ci_low", "ci_high"]].isna().all(axis=None)


def test_tables_without_rows_keep_their_columns(results):
    plan = make_study()
    assert QUALITY.conform(quality_of(plan, results)).empty
    assert CORRECTION.conform(corrected(plan, pd.DataFrame([agreement_row("near", 0.6)]), results)).empty
