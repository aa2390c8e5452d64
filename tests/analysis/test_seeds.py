"""seeds.csv says of every adapter whether its seeds agree, and what agreement is seed by seed."""

import numpy as np
import pandas as pd
import pytest

from isaerft.analysis import Analysis
from isaerft.analysis.seeds import TABLE
from isaerft.config import Adapter, Agreement, Behavior, Judge, Primary, Source, Study, Subject
from isaerft.config.plan import Plan
from isaerft.layout import Results
from isaerft.stats import auroc

D_SAE, N_SEEDS = 60, 3
BEHAVIORS = ("refusal", "humor")


@pytest.fixture
def plan():
    return Plan(
        Study(
            study="s",
            subjects={"toy": Subject(testbed={})},
            behaviors={name: Behavior(description=name, testbed=name) for name in BEHAVIORS},
            adapters={name: Adapter(kind="bias") for name in ("steady", "noisy", "still")},
            sources={"local": Source()},
            judges={"lexical": Judge()},
            measures=["contribution"],
            primary=Primary(adapter="steady", measure="contribution", source="local", judge="lexical"),
            agreement=Agreement(min_firing_rate=0.01),
        )
    )


@pytest.fixture
def results(tmp_path):
    rng = np.random.default_rng(0)
    facts = pd.DataFrame({"latent_index": range(D_SAE), "firing_rate": np.where(np.arange(D_SAE) < 50, 0.1, 0.0)})
    (tmp_path / "subjects/toy").mkdir(parents=True)
    facts.to_parquet(tmp_path / "subjects/toy/latents.parquet")
    expected = {name: np.arange(D_SAE) % 5 == place for place, name in enumerate(BEHAVIORS)}
    rows = [
        (latent, name, float(labels[latent]), bool(labels[latent]), 0.5, "")
        for name, labels in expected.items()
        for latent in range(D_SAE)
    ]
    columns = ["latent_index", "behavior", "expected_effect", "expected", "confidence", "rationale"]
    (tmp_path / "judgements/toy/local").mkdir(parents=True)
    pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "judgements/toy/local/lexical.parquet")
    (tmp_path / "changes/toy").mkdir(parents=True)
    changes = {}
    for name, labels in expected.items():
        own = rng.normal(size=D_SAE) + labels
        noise = rng.normal(size=(N_SEEDS, D_SAE))
        changes[name] = {"steady": own + 0.1 * noise, "noisy": 0.01 * own + noise, "still": 0 * noise}
        parts = [
            pd.DataFrame({"latent_index": range(D_SAE), "change": change}).assign(
                adapter=adapter, seed=seed, measure="contribution"
            )
            for adapter, seeds in changes[name].items()
            for seed, change in enumerate(seeds)
        ]
        pd.concat(parts).to_parquet(tmp_path / f"changes/toy/{name}.parquet")
    return tmp_path, changes, expected


def test_seeds_that_share_little_are_called_so_and_the_rest_is_counted(plan, results):
    folder, changes, expected = results
    table = Analysis(plan, Results(folder)).frame("seeds").set_index(["adapter", "behavior"])
    TABLE.conform(table.reset_index())
    assert table.seeds.to_dict() == {
        (adapter, behavior): word
        for adapter, word in (("steady", "agree"), ("noisy", "disagree"), ("still", "unchanged"))
        for behavior in BEHAVIORS
    }
    alive = slice(0, 50)
    values = [float(auroc(change[alive], expected["humor"][alive])) for change in changes["humor"]["steady"]]
    row = table.loc["steady", "humor"]
    assert row.estimate == pytest.approx(np.mean(values))
    assert row.ci_low < row.estimate < row.ci_high
    assert 0 < row.share_of_ceiling < 1
    assert row.reliability > row.reliability_single > 0.9
    assert table.loc["still", "humor"][["estimate", "reliability"]].isna().all()


def test_one_seed_is_no_reliability(plan, results):
    folder, _, _ = results
    for path in (folder / "changes/toy").glob("*.parquet"):
        table = pd.read_parquet(path)
        table[table.seed == 0].to_parquet(path)
    table = Analysis(plan, Results(folder)).frame("seeds")
    assert table[["reliability", "split_half", "seeds", "ci_low", "share_of_ceiling"]].isna().all().all()
    assert table[table.adapter == "steady"].estimate.notna().all()
