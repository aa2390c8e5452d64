"""diagnostics.csv"""

from tests.analysis.small_study import BEHAVIORS, make_study


def test_what_was_noted_of_a_run_is_a_row_of_the_diagnostics(finished):
    table = finished[1]["diagnostics"]
    measured = table[table.adapter == "bias"]
    assert measured[["subject", "seed", "quantity", "value"]].to_numpy().tolist() == len(BEHAVIORS) * [
        ["toy", 1, "explained_share", 0.75]
    ]
    table = table[table.adapter != "bias"]
    assert set(table.adapter) == {"scale"}
    assert len(table) == 2 * len(BEHAVIORS) * 2 * 2, "twins too"
    shares = table[table.quantity == "explained_share"]
    assert shares.value.tolist() == [0.25 + seed / 4 for seed in shares.seed]
    assert table[table.quantity == "none"].value.isna().all()


def test_a_study_in_which_nothing_was_noted_has_an_empty_table(parts):
    plan = make_study(adapters={"bias": {}}, reference=None, random_dictionary_adapters=["bias"])
    for path in parts.folder.glob("changes/*/*.json"):
        path.write_text("[]")
    assert parts.table(plan, "diagnostics").empty
