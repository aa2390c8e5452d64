import pandas as pd
import pytest

from isaerft.analysis import tables_of
from isaerft.layout import Results
from tests.analysis.small_study import make_study


@pytest.fixture
def table(parts):
    rows = [
        {"latent_index": 3, "meta_latent": 0, "weight": 0.75, "explained": 0.9},
        {"latent_index": 3, "meta_latent": 1, "weight": 0.5, "explained": 0.9},
        {"latent_index": 5, "meta_latent": 0, "weight": 0.25, "explained": 0.4},
        {"latent_index": 9, "meta_latent": 0, "weight": 0.625, "explained": 0.4},
        {"latent_index": 8, "meta_latent": None, "weight": None, "explained": -0.2},
        {"latent_index": 999, "meta_latent": 1, "weight": 0.9, "explained": 0.8},
    ]
    path = Results(parts.folder).subject("toy").composition
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).astype({"meta_latent": "Int64"}).to_parquet(path)
    return parts.table(make_study(meta_sae={"n_named": 2}), "latent_composition")


def test_a_part_is_shown_with_the_other_latents_in_which_it_weighs_most(table):
    assert table.shared_with.tolist()[:4] == [
        "9 (0.62); 5 (0.25)",
        "999 (0.90)",
        "3 (0.75); 9 (0.62)",
        "3 (0.75); 5 (0.25)",
    ]
    assert table.shared_explanation[0] == "latent 9"
    assert pd.isna(table.shared_explanation[1]), "latent 999 has none"
    assert table.explanation[0] == "latent 3"
    assert table.n_latents.tolist()[:4] == [3, 2, 3, 3]


def test_a_latent_that_is_composed_of_nothing_is_kept_with_empty_fields(table):
    lone = table[table.latent_index == 8].iloc[0]
    assert pd.isna(lone.meta_latent)
    assert pd.isna(lone.shared_with)
    assert pd.isna(lone.n_latents)
    assert lone.explained == pytest.approx(-0.2)


def test_only_studies_that_ask_for_it_have_the_table():
    assert "latent_composition" not in tables_of(make_study())
    assert "latent_composition" in tables_of(make_study(meta_sae={}))
