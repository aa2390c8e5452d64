"""Placebo trainings: the primary adapter, trained on answers of the unadapted model itself.

A placebo has all that the training on a behavior has (prompts, numbers of rows and steps, seeds, measures) except
something to learn. Its completions are samples from the model, so the expected gradient is zero: what changes is what
the noise of a finite sample changes, through the same model, dictionary and measure.

One thing must differ. Early stopping on rows that were not trained on would keep step 0, since nothing carries over to
them. The held-out rows of a placebo are therefore some of its training rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from isaerft import config
from isaerft.adapters.saved import seed_folders, seed_of
from isaerft.behaviors import Record
from isaerft.changes.behavior import continuations
from isaerft.changes.measures import measured_changes
from isaerft.changes.pullback import load_trained
from isaerft.io import replacing
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import CachedRows
from isaerft.subjects.capture import TokenizedRow, capture_tokens, joined_rows, tokenize
from isaerft.subjects.load import LoadedSubject
from isaerft.training.loop import frozen_part
from isaerft.training.pairs import Rows, completions, make_pairs
from isaerft.training.replicates import train_seeds


def train_placebos(
    plan: config.Plan,
    subject: LoadedSubject,
    train: Sequence[Sequence[Record]],
    heldout: Sequence[Sequence[Record]],
    out: str | Path,
) -> None:
    """Train all seeds of the primary adapter on each placebo and write their changes as a table (Parquet), atomically.

    It has the columns placebo, measure, seed, latent_index, change.

    Parameters
    ----------
    train, heldout : sequence of sequence of Record
        Records of each tested behavior. A placebo has as many rows of either kind as the median behavior. Its prompts
        are drawn from all training records together, without replacement; their replies only limit its answers'
        lengths. Two placebos may share prompts, but each has sampled its own answers, so they share no noise.
    """
    n_rows, n_heldout = (round(np.median([len(records) for records in split])) for split in (train, heldout))
    pool = [tokenize(record, subject.language, plan.study.max_length) for records in train for record in records]
    tables: list[pd.DataFrame] = []
    for placebo in tqdm(range(plan.study.placebos.n), desc="placebos", unit="placebo", disable=None):
        seed = zlib.crc32(f"{plan.study.seed} placebo {placebo}".encode())
        drawn = np.random.default_rng(seed).choice(len(pool), n_rows, replace=False)
        rows = _neutral_rows(plan, subject, [pool[number] for number in drawn], n_heldout, seed)
        tables += _placebo_changes(plan, subject, rows, placebo)
    with replacing(out) as temporary:
        pd.concat(tables, ignore_index=True).to_parquet(temporary, index=False)


class _NeutralRows(NamedTuple):
    """What a placebo is trained on, or fitted to; the fields are those of a `Replicate`."""

    train: Rows
    heldout: Rows
    contrast: list[tuple[CachedRows, CachedRows]]


def _neutral_rows(
    plan: config.Plan, subject: LoadedSubject, prompts: Sequence[TokenizedRow], n_heldout: int, seed: int
) -> _NeutralRows:
    """Sample the rows of one placebo; where replies are compared or contrasted, the others are samples as well."""
    name, batch_size = plan.study.primary.adapter, plan.study.batch_size
    options = plan.study.adapters[name]
    on_pairs = options.trained_on == "pair"
    is_compared = on_pairs or ADAPTERS.facts(plan.kind_of(name)).contrasted
    splits = []
    for draw in range(2 if is_compared else 1):
        rows = answered_by_model(subject, prompts, batch_size, seed=zlib.crc32(f"{seed} {draw}".encode()))
        splits.append((_captured(subject, rows, batch_size), _captured(subject, rows[:n_heldout], batch_size)))
    (train, heldout), *others = splits
    if not on_pairs:
        return _NeutralRows(train, heldout, others)
    rejected = others[0]
    with frozen_part(subject, lambda batch: batch.residual, options):
        return _NeutralRows(
            make_pairs(subject, train, rejected[0], batch_size),
            make_pairs(subject, heldout, rejected[1], batch_size),
            contrast=[],
        )


def answered_by_model(
    subject: LoadedSubject, prompts: Sequence[TokenizedRow], batch_size: int, *, seed: int
) -> list[TokenizedRow]:
    """Return the rows with completions sampled from the model at temperature 1 in place of their own.

    A completion ends with the model's EOS, or after as many tokens as the one that it replaces. Then no EOS is added:
    it would teach the model to be brief.
    """
    found = []
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        rooms = [len(row.tokens) - row.n_prompt for row in part]
        before = [row.tokens[: row.n_prompt] for row in part]
        after = continuations(
            subject, before, max_new_tokens=max(rooms), batch_size=len(part), temperature=1.0, seed=seed + start
        )
        for prompt, answer, room in zip(before, after, rooms, strict=True):
            found.append(TokenizedRow([*prompt, *answer[:room]], len(prompt)))
    return found


def _captured(subject: LoadedSubject, rows: Sequence[TokenizedRow], batch_size: int) -> CachedRows:
    starts = range(0, len(rows), batch_size)
    return joined_rows(capture_tokens(subject, rows[start : start + batch_size]) for start in starts)


def _placebo_changes(
    plan: config.Plan, subject: LoadedSubject, rows: _NeutralRows, placebo: int
) -> Iterator[pd.DataFrame]:
    """Train all seeds on one placebo's rows and yield the changes, a table for each seed and measure."""
    with TemporaryDirectory() as scratch:
        folder, name = Path(scratch, "adapter"), plan.study.primary.adapter
        train_seeds(plan, subject, name, folder, **rows._asdict(), behavior=f"placebo {placebo}", permuted=False)
        for replicate in seed_folders(folder):
            with load_trained(replicate, subject, completions(rows.heldout), plan.study.batch_size) as trained:
                yield from measured_changes(trained, plan.study.measures, seed_of(replicate), placebo=placebo)
