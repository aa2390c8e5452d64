"""overall.csv"""

import numpy as np
import pandas as pd
import pytest

from isaerft import stats
from tests.analysis.small_study import BEHAVIORS, DEAD, EXPECTED, UNEXPLAINED, N


def test_reliable_differences_are_those_of_the_estimates_without_each_seed(finished):
    parts, tables = finished
    known = np.array([i for i in range(N) if i not in (*DEAD, *UNEXPLAINED)])
    behaviors = [name for name in BEHAVIORS if name != "silent"]
    expected = np.array([np.isin(known, EXPECTED[name]) for name in behaviors])
    without = []
    for left_out in range(2):
        values = []
        for name, wanted in zip(behaviors, expected, strict=True):
            table = pd.read_parquet(parts.folder / f"changes/toy/{name}.parquet")
            table = table.query("adapter == 'bias' and measure == 'contribution'")
            table = table[table.seed != left_out]
            changes = table.pivot(index="seed", columns="latent_index", values="change").to_numpy()[:, known]
            values.append(stats.auroc(stats.mean_rank(changes), wanted))
        without.append(np.mean(values))
    rows = tables["overall"].query("adapter == 'bias' and measure == 'contribution' and source == 'said'")
    found = rows.set_index("quantity").reliable_difference
    assert found["agreement"] == pytest.approx(stats.reliable_difference(without), rel=1e-3)
    assert found["agreement"] > 0
    assert found["specificity"] > 0


def test_overall_results_are_means_over_the_behaviors_that_could_be_tested(finished):
    tables, keys = finished[1], ["adapter", "measure", "source", "judge"]
    overall = tables["overall"].set_index([*keys, "quantity"]).sort_index()
    assert (overall.n_behaviors == 5).all()
    assert (overall.n_families == 5).all()
    assert (overall.statistic == "auroc").all()
    own = tables["agreement"].query("control == 'none' and statistic == 'auroc'").groupby(keys).estimate.mean()
    agreement = overall.xs("agreement", level="quantity")
    assert len(agreement) == len(own)
    assert agreement.estimate.to_dict() == pytest.approx(own.to_dict(), rel=1e-5)
    matrix = tables["specificity"].dropna()
    of_row = matrix.assign(own=matrix.trained_on == matrix.judged_for)[lambda rows: rows.trained_on != "silent"]
    means = of_row.groupby([*keys, "own"]).adjusted_estimate.mean().unstack()
    specificity = overall.xs("specificity", level="quantity").estimate
    assert specificity.to_dict() == pytest.approx((means[True] - means[False]).to_dict(), rel=1e-4)
    assert overall.primary.sum() == 2
    pvalue = overall.xs(("bias", "contribution", "said", "lexical")).pvalue
    assert np.isnan(pvalue.agreement)
    assert pvalue.specificity == pytest.approx(1 / 120)
