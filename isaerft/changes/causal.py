"""The causal check: does the held-out loss rise again when the most changed latents are reset?

A measure only ranks latents. Here the k highest latents are neutralized in the trained adapter: they keep the
activations that they had before training. The share of the adapter's fall in held-out loss that remains is compared
with what remains after neutralizing k other latents with similar firing rate and decoder norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from isaerft import config
from isaerft.adapters.saved import seed_folders
from isaerft.changes.pullback import Trained, load_trained
from isaerft.io import replacing
from isaerft.progress import Progress
from isaerft.stats import Share, matched_draws, median_of_draws, remaining_share
from isaerft.subjects.cache import Batch, CachedRows, completion_losses, read_cache
from isaerft.subjects.device import in_float64
from isaerft.subjects.load import LoadedSubject

MOST_CHANGED, MATCHED_RANDOM = "most_changed", "matched_random"


@dataclass(frozen=True)
class Neutralised:
    """Latents that are neutralized in the adapters of some seeds.

    Attributes
    ----------
    k : int
        Number of latents.
    latents : str
        `most_changed` or `matched_random`.
    indices : (k,) int64
    seeds : tuple of int
        Replicates in whose adapters they are neutralized.
    """

    k: int
    latents: str
    indices: torch.Tensor
    seeds: tuple[int, ...]


def check_causes(
    plan: config.Plan,
    subject: LoadedSubject,
    facts: pd.DataFrame,
    cache: str | Path,
    adapters: str | Path,
    changes: str | Path,
    out: str | Path,
) -> None:
    """Neutralise latents of every adapter that the study checks, and write the table `out` (Parquet).

    Parameters
    ----------
    facts : DataFrame
        One row per latent: latent_index, firing_rate, decoder_norm.
    adapters : path
        Holds {adapter}/seed_{k}.
    changes : path
        The behavior's table of changes, by which latents are ranked.
    """
    options = plan.study.causal_check
    heldout = read_cache(cache, "heldout")
    drawn = np.random.default_rng(plan.study.seed).permutation(len(heldout))[: options.max_rows]
    rows = torch.from_numpy(np.sort(drawn))
    alive = facts[facts.firing_rate >= plan.study.agreement.min_firing_rate]
    parts = []
    for name in Progress(plan.causally_checked, desc="causal check", unit="adapter"):
        folders = seed_folders(Path(adapters) / name)
        trained = _replicates(folders, subject, heldout, plan.study.batch_size)
        ranked = _ranked(changes, name, plan.study.primary.measure, alive)
        sets = sets_to_neutralise(ranked, options, len(folders), np.random.default_rng(plan.study.seed))
        table = causal_table(trained, sets, rows, options.ks, plan.study.agreement.confidence_level)
        parts.append(table.assign(adapter=name))
    with replacing(out) as temporary:
        pd.concat(parts, ignore_index=True).to_parquet(temporary, index=False)


def _replicates(folders: list[Path], subject: LoadedSubject, heldout: CachedRows, batch_size: int) -> Iterator[Trained]:
    """Yield one seed at a time: a loaded adapter may change the model."""
    for folder in folders:
        with load_trained(folder, subject, heldout, batch_size) as trained:
            yield trained


def sets_to_neutralise(
    ranked: pd.DataFrame, options: config.CausalCheck, n_seeds: int, rng: np.random.Generator
) -> list[Neutralised]:
    """Return for each k the most changed latents, for all seeds, and the matched draws, spread over the seeds.

    Parameters
    ----------
    ranked : DataFrame
        The latents of the universe (latent_index, firing_rate, decoder_norm), most changed first. A k with too few
        latents gives no set.
    """
    latents = torch.tensor(ranked.latent_index.to_numpy(np.int64))
    confounds = ranked.firing_rate.to_numpy(float), ranked.decoder_norm.to_numpy(float)
    sets = []
    for k in options.ks:
        if k <= len(latents):
            sets.append(Neutralised(k, MOST_CHANGED, latents[:k], tuple(range(n_seeds))))
        if 2 * k <= len(latents):
            draws = matched_draws(np.arange(k), *confounds, n_draws=options.n_draws, rng=rng)
            for number, draw in enumerate(draws):
                sets.append(Neutralised(k, MATCHED_RANDOM, latents[torch.from_numpy(draw)], (number % n_seeds,)))
    return sets


def causal_table(
    trained: Iterable[Trained], sets: list[Neutralised], rows: torch.Tensor, ks: list[int], confidence_level: float
) -> pd.DataFrame:
    """Return columns k, latents, loss_recovered, ci_low, ci_high; two rows for each of `ks`.

    `loss_recovered` is the share of the adapter's fall in held-out loss that remains: 1 if the neutralized latents had
    no part in it, 0 if they caused all of it, NaN if the loss did not fall or there is no set.

    Parameters
    ----------
    trained : iterable of Trained
        The adapter of each seed.
    rows : (n_rows,) int64
        Held-out rows on which the loss is computed.
    """
    whole: list[np.ndarray] = []
    remaining: dict[tuple[int, int], np.ndarray] = {}
    for seed, replicate in enumerate(trained):
        own = [number for number, part in enumerate(sets) if seed in part.seeds]
        base, adapted, *without = row_losses(replicate, rows, [sets[number].indices for number in own])
        whole.append(base - adapted)
        remaining |= {(number, seed): base - loss for number, loss in zip(own, without, strict=True)}
    table = []
    for k in ks:
        for latents in (MOST_CHANGED, MATCHED_RANDOM):
            kept = [number for number, part in enumerate(sets) if (part.k, part.latents) == (k, latents)]
            falls = [[remaining[number, seed] for seed in sets[number].seeds] for number in kept]
            if latents == MOST_CHANGED and kept:
                share = remaining_share(falls[0], whole, confidence_level=confidence_level)
            else:
                shares = [
                    _share(fall[0], whole[sets[number].seeds[0]]) for number, fall in zip(kept, falls, strict=True)
                ]
                share = median_of_draws(shares, confidence_level=confidence_level)
            table.append(_row(k, latents, share))
    return pd.DataFrame(table)


def row_losses(trained: Trained, rows: torch.Tensor, sets: list[torch.Tensor]) -> np.ndarray:
    """Return the summed loss of each row's completion: base, adapted, and with each set of latents neutralized.

    Returns
    -------
    (2 + n_sets, n_rows) float64
        In nats.
    """
    parts = []
    with torch.no_grad():
        for chosen in rows.split(trained.batch_size):
            batch = trained.heldout.batch(chosen).to(trained.subject.model.device)
            shift, displacement = trained.shift(batch), trained.displacement(batch)
            # The part of a displacement that the dictionary does not explain is kept.
            rest = displacement - trained.explained(batch, shift)
            losses = [_per_row(trained.subject, batch, batch.residual)]
            losses.append(_per_row(trained.subject, batch, batch.residual + displacement))
            for latents in sets:
                kept = trained.explained(batch, shift.without(latents.to(displacement.device)))
                losses.append(_per_row(trained.subject, batch, batch.residual + rest + kept))
            parts.append(torch.stack(losses))
    return torch.cat(parts, dim=1).cpu().numpy()


def _per_row(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Return the summed loss of each row's completion, (n_rows,) float64."""
    row = batch.mask.nonzero()[:, 0][batch.predicts]
    losses = in_float64(completion_losses(subject, batch, residual))
    return losses.new_zeros(len(batch.mask)).index_add(0, row.to(losses.device), losses)


def _ranked(changes: str | Path, adapter: str, measure: str, alive: pd.DataFrame) -> pd.DataFrame:
    """Return the latents of the universe by the mean over seeds of their absolute change, largest first."""
    table = pd.read_parquet(changes, filters=[("adapter", "==", adapter), ("measure", "==", measure)])
    size = table.change.abs().groupby(table.latent_index).mean()
    order = np.argsort(-size.loc[alive.latent_index].to_numpy(), kind="stable")
    return alive.iloc[order]


def _share(remaining: np.ndarray, whole: np.ndarray) -> float:
    """Return the share that remains in one seed; NaN if its loss did not fall."""
    return float(remaining.sum() / whole.sum()) if whole.sum() > 0 else np.nan


def _row(k: int, latents: str, share: Share) -> dict[str, object]:
    low, high = share.confidence_interval
    return {"k": k, "latents": latents, "loss_recovered": share.estimate, "ci_low": low, "ci_high": high}
