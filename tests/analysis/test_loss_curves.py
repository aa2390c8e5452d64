"""loss_curves.csv and basis_advantage.csv"""

import pandas as pd
import pytest

from isaerft.layout import Results
from tests.analysis.small_study import BEHAVIORS, make_study

FULL = 32
RECOVERED = {"latents": 0.9, "random_latents": 0.3, "principal": 0.5, "random": 0.2, "rank_latents": 0.8}


@pytest.fixture
def plan():
    return make_study(loss_curves={"ks": [1, 4], "n_seeds": 2})


def write(parts, behaviors, recovered, fall=1.0):
    """Curves whose points recover what `recovered` says (a number, or a function of place and seed)."""
    for place, behavior in enumerate(behaviors):
        rows = []
        for seed in range(2):
            for family in (*recovered, "rank_residual"):
                share = 0.8 if family == "rank_residual" else recovered[family]
                share = share(place, seed) if callable(share) else share
                for k in (1, 4):
                    loss = 3.0 - fall * share * k / 4
                    rows.append((family, k, seed, k * k, 3.0, loss))
            rows.append(("rank_residual", FULL, seed, 2048, 3.0, 3.0 - fall))
        path = Results(parts.folder).loss_curves("toy", behavior)
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = ["family", "k", "seed", "n_parameters", "heldout_loss_base", "heldout_loss"]
        pd.DataFrame(rows, columns=columns).to_parquet(path)


def test_a_point_is_a_share_of_the_full_maps_fall_and_means_are_over_behaviors(parts, plan):
    write(parts, BEHAVIORS, RECOVERED | {"latents": lambda place, seed: 0.8 + 0.1 * place + 0.02 * seed}, fall=2.0)
    table = parts.table(plan, "loss_curves")
    own = table[(table.behavior == BEHAVIORS[1]) & (table.family == "latents") & (table.k == 4)].iloc[0]
    assert own.recovered == pytest.approx(0.91)
    assert own.n_replicates == 2
    assert own.heldout_loss == pytest.approx(3 - 2 * 0.91)
    mean = table[table.behavior.isna() & (table.family == "latents") & (table.k == 4)].iloc[0]
    assert mean.n_replicates == len(BEHAVIORS)
    assert mean.recovered == pytest.approx(0.81 + 0.1 * (len(BEHAVIORS) - 1) / 2)
    assert mean.ci_low < mean.recovered < mean.ci_high
    full = table[(table.family == "rank_residual") & (table.k == FULL)]
    assert full.recovered.to_numpy() == pytest.approx(1)


def test_where_the_full_map_lowers_no_loss_nothing_is_recovered(parts, plan):
    write(parts, BEHAVIORS, RECOVERED, fall=-0.5)
    assert parts.table(plan, "loss_curves").recovered.isna().all()
    advantage = parts.table(plan, "basis_advantage")
    assert set(advantage.verdict) == {"untested"}


def test_advantages_are_paired_means_over_ks_with_behaviors_as_replicates(parts, plan):
    def noisy(mean):
        return lambda place, seed: mean + 0.01 * place + 0.1 * seed

    write(parts, BEHAVIORS, RECOVERED | {"latents": noisy(0.9), "rank_latents": noisy(0.7)})
    table = parts.table(plan, "basis_advantage").set_index(["claim", "compared_with"])
    found = table.loc[("sparsity", "random_latents")]
    shift = 0.01 * (len(BEHAVIORS) - 1) / 2 + 0.05
    assert found.estimate == pytest.approx((0.9 + shift - 0.3) * (1 / 4 + 1) / 2)
    assert (found.k_min, found.k_max, found.n_replicates) == (1, 4, len(BEHAVIORS))
    assert found.verdict == "yes"
    assert list(table.index) == [
        *(("sparsity", other) for other in ("random_latents", "principal", "random")),
        ("low_rank", "rank_residual"),
    ]
    assert table.loc[("low_rank", "rank_residual"), "verdict"] == "no"


def test_an_advantage_that_varies_more_than_it_is_large_is_not_shown(parts, plan):
    write(parts, BEHAVIORS, RECOVERED | {"latents": lambda place, seed: 0.5 + 0.4 * (-1) ** place})
    verdicts = parts.table(plan, "basis_advantage").set_index("compared_with").verdict
    assert verdicts["principal"] == "not shown"


def test_with_one_behavior_seeds_are_the_replicates_and_there_are_no_means(parts):
    plan = make_study(loss_curves={"ks": [1, 4], "n_seeds": 2, "behaviors": [BEHAVIORS[0]]})
    write(parts, BEHAVIORS[:1], RECOVERED)
    assert set(parts.table(plan, "loss_curves").behavior) == {BEHAVIORS[0]}
    assert set(parts.table(plan, "basis_advantage").n_replicates) == {2}


def test_a_family_that_was_not_trained_is_not_compared(parts, plan):
    write(parts, BEHAVIORS, {"latents": 0.9, "principal": 0.5})
    assert list(parts.table(plan, "basis_advantage").compared_with) == ["principal"]
