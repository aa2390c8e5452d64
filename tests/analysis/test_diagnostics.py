"""diagnostics.csv"""

from tests.analysis.small_study import make_study


def test_what_was_noted_of_a_run_is_a_row_of_the_diagnostics(finished):
    table = finished[1]["diagnostics"]
    assert set(table.adapter) == {"scale"}
    assert len(table) == 2 * 3 * 2 * 2, "twins too"
    shares = table[table.quantity == "explained_share"]
    assert shares.value.tolist() == [0.25 + seed / 4 for seed in shares.seed]
    assert table[table.quantity == "none"].value.isna().all()


def test_a_study_in_which_nothing_was_noted_has_an_empty_table(parts, tmp_path):
    table = parts.tables(make_study(adapters={"bias": {}}, reference=None, random_dictionary_adapters=["bias"]))
    assert table["diagnostics"].empty
