"""map_components.csv and weight_pullback.csv"""

import numpy as np
import pandas as pd
import pytest

from isaerft.layout import Results
from tests.analysis.small_study import BEHAVIORS, make_study

NAMES = ("reads", "reads_encoder", "writes", "writes_encoder")


@pytest.fixture
def plan():
    adapters = {"bias": {}, "scale": {}, "lora": {}, "low_rank": {}, "residual": {}}
    return make_study(adapters=adapters, map_components={})


def component(seed, number, **changes):
    row = {"adapter": "low_rank", "seed": seed, "part": "", "component": number, "n_components": 4, "size": 1.0}
    row |= {"share": 0.5, "constant_share": 0.1, "loss_base": 3.0, "loss_adapted": 2.0, "loss_without": 2.25}
    row |= {"loss_alone": 2.5, "reads_tokens": ["a", "<b>"], "writes_tokens": ["=c"]}
    row |= {name: [3, 5] for name in NAMES} | {f"{name}_values": [0.75, -0.5] for name in NAMES}
    direction = np.eye(6)[number].tolist()
    return row | {"read_vector": direction, "write_vector": direction} | changes


def bias():
    nothing = dict.fromkeys(
        (*NAMES[:2], "reads_values", "reads_encoder_values", "reads_tokens", "read_vector", "share")
    )
    return component(0, 0, **nothing)


def write(parts, rows, pulled=()):
    for behavior in BEHAVIORS:
        folder = Results(parts.folder).maps("toy", behavior)
        folder.path.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_parquet(folder.components)
        frame = pd.DataFrame(pulled) if len(pulled) else pd.DataFrame({"adapter": pd.Series(dtype=str)})
        frame.to_parquet(folder.pullback)


def test_a_components_part_is_a_share_of_the_fall_in_loss(parts, plan):
    write(parts, [component(0, 1), component(1, 1), component(0, 2, loss_adapted=3.0), bias()])
    table = parts.table(plan, "map_components")
    assert len(table) == 4 * len(BEHAVIORS)
    first = table.iloc[0]
    assert first.lost_without == pytest.approx(0.25)
    assert first.kept_alone == pytest.approx(0.5)
    assert pd.isna(table.lost_without[2]), "the loss did not fall"
    assert pd.isna(table.kept_alone[2])


def test_both_sides_are_named_with_the_explanation_of_the_first_latent(parts, plan):
    write(parts, [component(0, 1), component(0, 2, reads=[999], reads_values=[1.0]), bias()])
    table = parts.table(plan, "map_components")
    assert table.reads[0] == "3 (+0.75); 5 (-0.50)"
    assert table.reads_explanation[0] == "latent 3"
    assert table.reads_tokens[0] == "a | <b>"
    assert table.writes_tokens[0] == "'=c", "no spreadsheet runs a token"
    assert pd.isna(table.reads_explanation[1]), "it has none"
    assert pd.isna(table.reads[2])
    assert table.writes_explanation[2] == "latent 3"


def test_components_are_compared_over_seeds(parts, plan):
    rows = [component(seed, number) for seed in (0, 1) for number in (1, 2)]
    write(parts, [*rows, bias(), component(0, 1, adapter="lora", part="blocks.2.mlp.up_proj")])
    table = parts.table(plan, "map_components")[: len(rows) + 2]
    assert table.read_recurrence[:4].tolist() == [1, 1, 1, 1]
    assert table.write_recurrence[:4].tolist() == [1, 1, 1, 1]
    assert table.write_chance[0] == pytest.approx(table.read_chance[0], abs=0.05)
    assert 0.2 < table.read_chance[0] < 0.7
    assert table[["read_recurrence", "read_chance", "write_chance"]][4:].isna().all(axis=None), "a bias; one seed"


@pytest.mark.parametrize("other", [{"adapter": "residual"}, {"part": "blocks.2.mlp.up_proj"}])
def test_a_component_that_recurs_in_another_map_alone_does_not_recur(parts, plan, other):
    one, two = ({f"{side}_vector": np.eye(6)[place].tolist() for side in ("read", "write")} for place in (1, 2))
    mine, theirs = [component(0, 1, **one), component(1, 1, **two)], [(0, two), (1, one)]
    write(parts, [*mine, *(component(seed, 1, **vectors, **other) for seed, vectors in theirs)])
    table = parts.table(plan, "map_components")
    assert table.read_recurrence[:4].tolist() == [0, 0, 0, 0]
    assert table.write_recurrence[:4].tolist() == [0, 0, 0, 0]


def test_a_study_without_the_option_has_neither_table(parts):
    from isaerft.analysis import tables_of

    assert not {"map_components", "weight_pullback"} & set(tables_of(make_study()))


def test_the_two_pullbacks_are_compared_by_ranks_over_latents(parts, plan):
    latents = np.arange(10)
    change = latents - 4.5
    row = {"adapter": "residual", "seed": 0, "latent_index": latents, "activations": change, "first_order": change**3}
    row |= {"encoder": -change, "decoder": np.ones(10), "weights_encoder": np.abs(change), "weights_decoder": np.nan}
    shares = {"spanned_decoder": 1.0, "readable_encoder": 0.9, "spanned_by_k": 0.4, "spanned_by_k_random": 0.2}
    write(parts, [component(0, 1)], pd.DataFrame(row | shares))
    table = parts.table(plan, "weight_pullback")
    assert table.behavior.tolist() == list(BEHAVIORS)
    found = table.iloc[0]
    assert found.n_latents == 10
    assert found.first_order == pytest.approx(1)
    assert found.encoder == pytest.approx(-1)
    assert pd.isna(found.decoder), "constant"
    assert found.weights_encoder == pytest.approx(1), "sizes are compared with sizes"
    assert pd.isna(found.weights_decoder)
    assert found[list(shares)].tolist() == list(shares.values())


def test_where_nothing_was_pulled_back_the_table_is_empty(parts, plan):
    write(parts, [component(0, 1)])
    assert parts.table(plan, "weight_pullback").empty
