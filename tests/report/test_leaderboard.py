"""The leaderboard's page: every row with what a reader compares, self-contained, and with outside names escaped."""

import re

import numpy as np
import pandas as pd

from isaerft.analysis.leaderboard import LEADERBOARD
from isaerft.cli.app import run_here
from isaerft.report.leaderboard import leaderboard_page
from tests.analysis.small_study import Parts, make_study


def board(**changes):
    row = dict.fromkeys(LEADERBOARD.column_names)
    row |= {"rank": 1, "study": "one", "subject": "toy", "source": "neuronpedia", "judge": "lexical", "n_seeds": 3}
    row |= {"adapter": "bias", "measure": "contribution", "statistic": "auroc", "behaviors": "a, b"}
    row |= {
        "wrong_on_purpose": False,
        "provenance": "proven",
        "behind_best": 0.0,
        "n_tested": 200,
        "share_supported": 0.125,
    }
    row |= {"share_contradicted": 0.02, "share_absorbed": 0.0, "n_explanations": 400}
    for quantity, value in (("specificity", 0.41), ("agreement", 0.77)):
        row |= {quantity: value, f"{quantity}_ci_low": value - 0.1, f"{quantity}_ci_high": value + 0.1}
        row |= {f"{quantity}_reliable_difference": 0.03}
    second = row | {"rank": 2, "specificity": 0.3, "behind_best": 0.11, "reliably_behind": True, "study": "two"}
    control = row | {"rank": None, "wrong_on_purpose": True, "specificity": -0.1, "specificity_ci_low": np.nan}
    control |= {"behind_best": 0.51, "n_tested": 0, "specificity_ci_high": np.nan}
    return LEADERBOARD.conform(pd.DataFrame([row, second, control]).assign(**changes))


def test_each_row_shows_estimate_interval_reseeding_and_verdicts():
    page = leaderboard_page(board())
    for text in ("0.41<br>0.31 to 0.51<br>± 0.03", "0.77<br>0.67 to 0.87", "0.11<br>reliably"):
        assert text in page
    assert "200 tested<br>12.5 % supported<br>2.0 % contradicted" in page
    assert page.count("none tested") == 1
    assert page.count("wrong on purpose") == 1
    assert page.count("<svg") == 3
    assert page.count("provenance proven") == 2


def test_the_page_loads_nothing_and_outside_names_are_escaped():
    page = leaderboard_page(board(makers="<script>alert(1)</script>", study="<b>\u202e", sae="a&b"))
    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)=|https?://|url\(", page)


def test_points_and_intervals_lie_within_their_picture():
    page = leaderboard_page(board(specificity=[9.0, 0.3, -4.0]))
    places = [float(x) for x in re.findall(r'(?:cx|x1|x2)="([-0-9.]+)"', page)]
    assert len(places) >= 3 * 3
    assert min(places) >= 0
    assert max(places) <= 150


def test_the_verb_writes_the_page_and_its_csv(tmp_path, capsys):
    for name in ("one", "two"):
        Parts(tmp_path / name).tables(make_study())
    out = tmp_path / "page.html"
    assert run_here(["leaderboard", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(out)]) == 0
    assert "4 results of 2 studies" in capsys.readouterr().out
    assert len(LEADERBOARD.read(tmp_path / "page.csv")) == 4
    assert "Whose explanations hold?" in out.read_text(encoding="utf-8")
    assert run_here(["leaderboard", str(tmp_path / "one"), "--out", str(tmp_path / "page")]) == 2
    assert "ends in .html" in capsys.readouterr().err
