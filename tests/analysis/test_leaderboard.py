"""The leaderboard says what the tables of its studies say, and ranks only what was measured in one way."""

import shutil

import numpy as np
import pandas as pd
import pytest

from isaerft import stats
from isaerft.analysis import TABLES
from isaerft.analysis.leaderboard import LEADERBOARD, leaderboard, ranked
from isaerft.errors import InputError
from tests.analysis.small_study import Parts, make_study

SOURCES = {"said": {"kind": "local"}, "other": {"kind": "local"}, "wrong": {"kind": "local", "wrong_share": 0.5}}


def study(folder, shift=0.0):
    """Write a study with three sources; `shift` lowers what the explanations get right."""
    parts = Parts(folder)
    parts.explanations("toy", "other")
    parts.judgements("toy", "other")
    path = folder / "judgements/toy/other/lexical.parquet"
    frame = pd.read_parquet(path)
    lost = (frame.latent_index % 3 == 0) & frame.expected
    frame.assign(expected=frame.expected & ~lost, expected_effect=frame.expected_effect * ~lost).to_parquet(path)
    if shift:
        for changed in (folder / "changes/toy").glob("*.parquet"):
            table = pd.read_parquet(changed)
            noise = np.random.default_rng(len(changed.stem)).normal(size=len(table))
            table.assign(change=table.change + shift * noise).to_parquet(changed)
    return parts.tables(make_study(sources=SOURCES))


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    root = tmp_path_factory.mktemp("studies")
    return root, {"one": study(root / "one"), "two": study(root / "two", 2.0)}


@pytest.fixture(scope="module")
def board(studies):
    return LEADERBOARD.conform(leaderboard(TABLES, [studies[0] / "one", studies[0] / "two"]))


def test_every_number_is_that_of_the_studys_own_tables(studies, board):
    assert len(board) == 6
    for row in board.itertuples():
        tables = studies[1][row.study]
        own = tables["overall"]
        own = own[(own.adapter == "bias") & (own.measure == "contribution") & (own.source == row.source)]
        for quantity in ("specificity", "agreement"):
            found = own[own.quantity == quantity].iloc[0]
            ours = [getattr(row, f"{quantity}{end}") for end in ("", "_ci_low", "_ci_high", "_reliable_difference")]
            theirs = [found.estimate, found.ci_low, found.ci_high, found.reliable_difference]
            assert ours == theirs
            assert np.isfinite(ours).all()
        verdicts = tables["explanation_verdicts"].query("source == @row.source").verdict
        tested = verdicts[verdicts != "untestable"]
        assert (row.n_explanations, row.n_tested) == (len(verdicts), len(tested))
        if len(tested):
            assert row.share_contradicted == pytest.approx((tested == "contradicted").mean())
        compared = tables["source_comparison"].query(
            "source == @row.source and adapter == 'bias' and measure == 'contribution' and quantity == 'specificity'"
        )
        if len(compared):
            assert row.difference == compared.difference.iloc[0]
        assert row.wrong_on_purpose == (row.source == "wrong")
        assert row.n_seeds == 2
        assert row.provenance == own.provenance.iloc[0]


def test_the_best_comes_first_and_explanations_that_are_wrong_on_purpose_have_no_rank(board):
    assert board.specificity.is_monotonic_decreasing
    assert board["rank"].dropna().tolist() == [1, 2, 3, 4]
    assert board[board["rank"].isna()].source.tolist() == ["wrong", "wrong"]
    best = board[board["rank"] == 1].iloc[0]
    assert best.behind_best == 0
    assert pd.isna(best.reliably_behind)


def test_studies_on_other_behaviors_are_ranked_apart(studies, tmp_path):
    shutil.copytree(studies[0] / "two/tables", tmp_path / "two/tables")
    path = tmp_path / "two/tables/agreement.csv"
    frame = pd.read_csv(path)
    frame[frame.behavior != "silent"].to_csv(path, index=False)
    board = leaderboard(TABLES, [studies[0] / "one", tmp_path / "two"])
    assert board["rank"].dropna().tolist() == [1, 2, 1, 2]
    assert board.behaviors.unique().tolist() == ["a, b, c, d, e, silent", "a, b, c, d, e"]


@pytest.mark.parametrize(("behind", "reliably"), [(0.10, False), (0.13, False), (0.16, True)])
def test_a_row_is_reliably_behind_beyond_what_reseeding_both_explains(behind, reliably):
    noise = [0.10, 0.12, 0.11]
    frame = pd.DataFrame({"specificity": [0.5, 0.5 - behind, 0.5], "specificity_reliable_difference": noise})
    frame = frame.assign(behaviors="a", adapter="b", measure="m", statistic="s", judge="j", n_seeds=4)
    frame["wrong_on_purpose"] = False
    found = ranked(frame.reindex(columns=LEADERBOARD.column_names))
    limit = np.sqrt((0.12**2 + 0.10**2) / 2) * stats.factor_among(3, 4)
    assert 0.13 < limit < 0.16
    assert bool(found.reliably_behind[found.specificity < 0.5].iloc[0]) == reliably == (behind > limit)
    single = ranked(frame.assign(specificity_reliable_difference=np.nan, n_seeds=1).reindex(columns=frame.columns))
    assert single.reliably_behind.isna().all()


def test_what_is_no_finished_study_is_named(studies, tmp_path):
    one = studies[0] / "one"
    with pytest.raises(InputError, match="given twice"):
        leaderboard(TABLES, [one, one])
    with pytest.raises(InputError, match="no study"):
        leaderboard(TABLES, [])
    with pytest.raises(InputError, match=r"empty: table .*overall\.csv' does not exist; run the study to its end"):
        leaderboard(TABLES, [one, tmp_path / "empty"])
    shutil.copytree(one / "tables", tmp_path / "old/tables")
    path = tmp_path / "old/tables/overall.csv"
    pd.read_csv(path).drop(columns="reliable_difference").to_csv(path, index=False)
    with pytest.raises(InputError, match=r"old: .*missing columns \['reliable_difference'\].*this version of isaerft"):
        leaderboard(TABLES, [tmp_path / "old"])


def test_two_results_folders_of_one_name_are_told_apart(studies, tmp_path):
    shutil.copytree(studies[0] / "two/tables", tmp_path / "other/one/tables")
    board = leaderboard(TABLES, [studies[0] / "one", tmp_path / "other/one"])
    assert board.study.nunique() == 2
