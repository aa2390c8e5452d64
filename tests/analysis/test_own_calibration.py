"""A study counts its own false positives, from its own files."""

import pandas as pd
import pytest

from isaerft.analysis.calibration import TABLE
from isaerft.analysis.own_calibration import write_own_calibration
from isaerft.cli import main
from isaerft.errors import InputError
from isaerft.layout import Results
from tests.analysis.small_study import N, make_study
from tests.conftest import random_sae, write_sae


@pytest.fixture
def results(parts):
    """The small study, with a dictionary."""
    path = parts.path("subjects", "toy", "latents.parquet")
    pd.read_parquet(path).assign(mean_activation=1.0).to_parquet(path)
    write_sae(parts.path("subjects", "toy", "sae"), random_sae(d_in=8, d_sae=N))
    return Results(parts.folder)


def test_rates_are_written_as_rows_of_calibration(results):
    table = write_own_calibration(make_study(placebos={"n": 0}), results, "toy", n_draws=20)
    written = TABLE.read(results.calibration_part("toy"))
    assert written.value.tolist() == pytest.approx(table.value.tolist(), rel=1e-4, nan_ok=True)
    assert set(table.quantity) == {"false_positive_rate", "coverage", "pvalue"}
    rates = table[table.quantity == "false_positive_rate"].setting
    assert rates.str.contains("directions=isotropic").sum() == rates.str.contains("residual_covariance").sum() > 0
    # Nothing is expected of the behavior "silent".
    of_result = table[table.quantity == "pvalue"].setting
    assert of_result.str.contains("behavior=a").any()
    assert not of_result.str.contains("silent").any()


def test_a_subject_without_the_primary_source_is_refused(results):
    sources = {"said": {"kind": "local", "subjects": ["toy"]}}
    study = make_study(subjects={"toy": {"testbed": {}}, "other": {"testbed": {}}}, sources=sources)
    with pytest.raises(InputError, match="does not explain 'other'"):
        write_own_calibration(study, results, "other", n_draws=20)


def test_the_verb_refuses_a_subject_that_there_is_not(capsys):
    assert main(["calibrate", "--study", "config/testbed.yaml", "--subject", "testbd"]) == 2
    assert "did you mean 'testbed'?" in capsys.readouterr().err
