"""overall.csv"""

import numpy as np
import pytest


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
