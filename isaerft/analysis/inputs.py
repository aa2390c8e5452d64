"""Reading what the rules of one subject wrote: facts of its latents, changes, and what the judges expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.errors import InputError, shown
from isaerft.judges import read_judgements
from isaerft.stats import strata_of


@dataclass(frozen=True)
class Expectation:
    """What a judge expects of the latents, by the explanations of one source.

    Attributes
    ----------
    latents : (n,) int64
        The universe: alive on the reference corpus and with an explanation.
    expected : (n_behaviors, n) bool
    effect : (n_behaviors, n) float
        In [-1, 1].
    """

    latents: np.ndarray
    expected: np.ndarray
    effect: np.ndarray


@dataclass(frozen=True)
class Confounds:
    """What besides the explanation could make a latent change, for each latent of a universe.

    Attributes
    ----------
    strata, clusters : (n,) int64
    firing_rate, decoder_norm, density : (n,) float
    """

    strata: np.ndarray
    clusters: np.ndarray
    firing_rate: np.ndarray
    decoder_norm: np.ndarray
    density: np.ndarray

    def null(self) -> dict[str, np.ndarray]:
        """Return the arguments `strata`, `clusters` and `confounds` of every test."""
        confounds = np.array([self.firing_rate, self.decoder_norm, self.density])
        return {"strata": self.strata, "clusters": self.clusters, "confounds": confounds}


def alive_latents(plan: config.Plan, facts: pd.DataFrame) -> np.ndarray:
    """Return the latents that fire often enough on the reference corpus, (n,) int64."""
    return facts.loc[facts.firing_rate >= plan.study.agreement.min_firing_rate, "latent_index"].to_numpy()


def read_expectation(
    plan: config.Plan, path: str | Path, alive: np.ndarray, behaviors: Sequence[str] | None = None
) -> Expectation:
    """Read a judge's table for the latents that are alive; behaviors in the study's order, or those given.

    A latent that was not judged for every behavior (a language model failed on it, people left it out) is not in the
    universe. No judge sees what changed, so the universe is still fixed before changes are.
    """
    behaviors = plan.tested_behaviors if behaviors is None else behaviors
    table = read_judgements(path)
    table = table[table.latent_index.isin(alive)]
    if table.empty:
        raise InputError(f"{path} speaks of no latent that is alive on the reference corpus")
    lacking = sorted(set(behaviors) - set(table.behavior))
    if lacking:
        raise InputError(f"{path} judges no latent for {shown(lacking)}", remedy="run `isaerft judge` again")
    wide = table.pivot(index="behavior", columns="latent_index", values=["expected", "expected_effect"])
    wide = wide.reindex(list(behaviors))
    complete = wide["expected_effect"].notna().all()
    latents = complete.index[complete].to_numpy(np.int64)
    if not len(latents):
        raise InputError(
            f"{path} judges no latent for every behavior",
            remedy="judge more, or set `tested: false` for this judge: it is then only compared with the others",
        )
    wide = wide.loc[:, wide.columns.get_level_values(1).isin(latents)]
    return Expectation(latents, wide["expected"].to_numpy(bool), wide["expected_effect"].to_numpy(float))


def read_changes(
    plan: config.Plan, folder: str | Path, subject: str, adapter: str, behaviors: Sequence[str] | None = None
) -> Mapping[tuple[str, str], np.ndarray]:
    """Return (behavior, measure) -> changes (n_seeds, d_sae) of one adapter; of the tested behaviors, or those given.

    Raises
    ------
    InputError
        A change is missing or not finite.
    """
    result = {}
    for behavior in plan.tested_behaviors if behaviors is None else behaviors:
        path = Path(folder) / subject / f"{behavior}.parquet"
        table = pd.read_parquet(path, filters=[("adapter", "==", adapter)])
        for measure, rows in table.groupby("measure"):
            wide = rows.pivot(index="seed", columns="latent_index", values="change").to_numpy(float)
            if not np.isfinite(wide).all():
                raise InputError(f"{path}: {measure} of adapter {adapter!r} holds changes that are not finite")
            result[behavior, str(measure)] = wide
    return result


def judges_of(plan: config.Plan, source: str, *, tested: bool = False) -> list[str]:
    """Return the judges that read a source; `tested`: those among them by which agreement is tested."""
    names = plan.study.sources[source].judges or list(plan.study.judges)
    return [name for name in names if plan.study.judges[name].tested or not tested]


def sources_of(plan: config.Plan, subject: str) -> list[str]:
    """Return the sources that speak of a subject."""
    return [name for name, part in plan.study.sources.items() if not part.subjects or subject in part.subjects]


def confounds_of(
    plan: config.Plan, facts: pd.DataFrame, latents: np.ndarray, sample: pd.DataFrame | None = None
) -> Confounds:
    """Return firing rate, decoder norm and density with strata of them, and clusters of near-duplicates.

    A sample keeps the strata that it was drawn within: bins of its own would join latents that are not exchangeable.
    """
    own = facts.set_index("latent_index").loc[latents]
    clusters = own.cluster.to_numpy()
    values = (own.firing_rate.to_numpy(), own.decoder_norm.to_numpy(), own.density.to_numpy())
    if sample is not None:
        strata = sample.set_index("latent_index").stratum.loc[latents].to_numpy()
    else:
        strata = strata_of(*values, n_bins=plan.study.agreement.n_bins, clusters=clusters)
    return Confounds(strata, clusters, *values)
