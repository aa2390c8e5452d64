"""specificity.csv"""


def test_the_own_column_is_the_rows_largest_where_changes_are_specific(finished):
    table = finished[1]["specificity"].query("measure == 'contribution' and adapter == 'bias' and source == 'said'")
    matrix = table.pivot(index="trained_on", columns="judged_for", values="estimate")
    assert matrix.loc["a", "a"] > 0.9 > matrix.loc["a", "b"]
    assert matrix.loc["b", "b"] > 0.9 > matrix.loc["b", "a"]
