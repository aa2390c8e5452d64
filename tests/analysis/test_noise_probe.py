"""noise_probe.csv"""

import numpy as np
import pandas as pd
import pytest

from isaerft.analysis import tables_of
from isaerft.layout import Results
from tests.analysis.small_study import SCORED, make_study


@pytest.fixture
def plan():
    return make_study(noise_probe={"levels": [0.5], "n_draws": 2, "places": ["weights"]})


def rows(adapter, seed, scores):
    """Return the rows of one model: without noise, and two draws; losses are ten times the scores."""
    at = [(0.0, 0), (0.5, 0), (0.5, 1)]
    return [
        {"adapter": adapter, "seed": seed, "place": "weights", "level": level, "draw": draw}
        | {"score": score, "loss": 10 * score, "metric": "words", "n_prompts": 5}
        for (level, draw), score in zip(at, scores, strict=True)
    ]


def write(parts, found):
    for behavior in SCORED:
        path = Results(parts.folder).noise_probe("toy", behavior)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(found).astype({"adapter": "string", "seed": "Int64"})
        table.to_parquet(path)


def test_responses_are_paired_by_draw_and_intervals_are_over_draws(parts, plan):
    found = rows(None, None, [0.25, 0.5, 1.0]) + rows("bias", 0, [0.5, 1.0, 1.5]) + rows("bias", 1, [0.5, 1.0, 1.5])
    write(parts, found)
    table = parts.table(plan, "noise_probe")
    assert len(table) == 4 * len(SCORED)
    base, noisy_base, clean, noisy = (table.iloc[n] for n in range(4))
    assert pd.isna(base.adapter)
    assert (base.n_draws, base.n_seeds, noisy_base.n_draws, noisy.n_seeds) == (0, 1, 2, 2)
    assert (base.score, noisy_base.score) == (0.25, 0.75)
    assert np.isnan(base.score_ci_low)
    half = 12.7062 * np.std([0.5, 1.0], ddof=1) / 2**0.5
    assert (noisy_base.score_ci_low, noisy_base.score_ci_high) == pytest.approx((0.75 - half, 0.75 + half), rel=1e-4)
    assert np.isnan(noisy_base.score_beyond_base)
    assert (clean.score_beyond_base, noisy.score_beyond_base) == (0.25, 0.5)
    assert np.isnan(clean.score_response)
    assert noisy.score_response == 0.25
    assert noisy.score_response_ci_low == noisy.score_response_ci_high == 0.25, "the same in both draws"
    assert (noisy.loss, noisy.loss_response) == (12.5, 2.5)


def test_it_is_made_only_where_a_study_asks_for_it(plan):
    assert "noise_probe" in tables_of(plan)
    assert "noise_probe" not in tables_of(make_study())
