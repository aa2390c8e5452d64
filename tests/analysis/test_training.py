"""training.csv"""

import json

import pytest

from tests.analysis.small_study import BEHAVIORS, make_study


def test_loss_recovered_is_the_share_of_the_references_fall(finished):
    table = finished[1]["training"]
    assert len(table) == len(BEHAVIORS) * (3 + 2) * 2
    by = table.set_index(["subject", "behavior", "adapter", "seed"]).loss_recovered
    # The reference falls from 3.0 to 2.1 in the mean.
    assert by["toy", "a", "bias", 0] == pytest.approx(0.4 / 0.9, rel=1e-4)
    assert by["toy", "a", "lora", 0] == pytest.approx(1 / 0.9, rel=1e-4)
    assert by["toy", "a", "scale", 1] == pytest.approx(-0.2 / 0.9, rel=1e-4)
    assert by["toy-permuted", "a", "bias", 0] == pytest.approx(0.4 / 0.9, rel=1e-4)
    assert (table.reference == "lora").all()
    assert table.seconds.isna().all()


def test_loss_recovered_is_empty_where_the_reference_did_not_help_or_is_not_named(parts):
    for row in (parts.path("adapters", "toy", "a", "lora", "training.json"),):
        rows = json.loads(row.read_text())
        row.write_text(json.dumps([r | {"heldout_loss_adapted": 3.0} for r in rows]))
    table = parts.table(make_study(), "training")
    assert table[table.behavior == "a"].loss_recovered.isna().all()
    assert table[table.behavior == "b"].loss_recovered.notna().all()
    without = make_study(reference=None, adapters={"bias": {}, "scale": {}})
    table = parts.table(without, "training")
    assert table.loss_recovered.isna().all()
    assert table.reference.isna().all()
