"""In a world without features no explanation gets a verdict, and agreement is at chance, by a study's own tables."""

import numpy as np
import pytest

from benchmarks.featureless import SILENT, STANDARD, WORLDS, found_in, simulated, tables_of_world

N_WORLDS = 6


@pytest.fixture(scope="module")
def found():
    return {name: simulated(name, N_WORLDS) for name in WORLDS}


@pytest.mark.slow
def test_nearly_all_explanations_are_untestable_or_inconclusive(found):
    for name, table in found.items():
        assert table.tested.min() > 50, name
        assert table.silent.mean() >= STANDARD, name


@pytest.mark.slow
def test_agreement_is_at_chance_and_trainings_are_found_no_more_often(found):
    for name in ("mixture", "cloud"):
        table = found[name]
        assert abs(table.agreement.mean() - 0.5) < 4 * table.agreement.std() / N_WORLDS**0.5 + 1e-3, name
    n = 8 * N_WORLDS * len(WORLDS)
    significant = np.mean([table.significant.mean() for table in found.values()])
    assert significant <= 0.05 + 4 * (0.05 * 0.95 / n) ** 0.5


@pytest.mark.slow
def test_the_same_world_with_features_gets_verdicts():
    table = simulated("cloud", 2, odds_ratio=1000.0)
    assert table.silent.mean() < STANDARD
    assert table.supported.mean() > 0.3
    assert table.agreement.mean() > 0.8
    assert (table.specificity_pvalue < 0.05).all()


@pytest.mark.slow
def test_what_is_counted_is_what_the_tables_say():
    tables = tables_of_world(WORLDS["cloud"], np.random.default_rng(0))
    found = found_in(tables)
    verdicts = tables["explanation_verdicts"]
    tested = verdicts[verdicts.pvalue.notna()]
    assert found["tested"] == len(tested) < found["explanations"] == 400
    assert found["silent"] == pytest.approx(1 - (~tested.verdict.isin(SILENT)).mean())
    loud = {**tables, "explanation_verdicts": verdicts.assign(verdict="supported")}
    assert found_in(loud)["silent"] == 0
    assert found_in(loud)["supported"] == 1
