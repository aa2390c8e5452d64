"""Placebo trainings: the primary adapter, trained on the unadapted model's own answers.

A placebo has all that the training on a behavior has (prompts, numbers of rows and steps, seeds, measures), but no
behavior to learn: the expected gradient on a model's own samples is zero. So it changes what chance and the model's
geometry make any training change, in a direction that no explanation speaks of. No step lowers its held-out loss, and
early stopping would keep none; a placebo keeps the last.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.adapters.saved import seed_folders, seed_of
from isaerft.behaviors import Record
from isaerft.changes.measures import measured_changes
from isaerft.changes.pullback import load_trained
from isaerft.io import write_parquet
from isaerft.progress import Progress
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import CachedRows
from isaerft.subjects.capture import TokenizedRow, capture_tokens, joined_rows, tokenize
from isaerft.subjects.generate import generate
from isaerft.subjects.load import LoadedModel, LoadedSubject
from isaerft.training.loop import frozen_part
from isaerft.training.pairs import Rows, completions, make_pairs
from isaerft.training.replicates import Compared, train_seeds

# Answering keeps no activations but those of attention, so it has room for more rows than a scored forward pass.
ANSWERED_BATCHES = 4


def train_placebos(
    plan: config.Plan,
    subject: LoadedSubject,
    train: Mapping[str, Sequence[Record]],
    heldout: Mapping[str, Sequence[Record]],
    out: str | Path,
) -> None:
    """Train all seeds of the primary adapter on each placebo and write their changes as a table (Parquet), atomically.

    It has the columns placebo, measure, seed, latent_index, change.

    Parameters
    ----------
    train, heldout : mapping of str to sequence of Record
        Records of each tested behavior, by name. A placebo has as many rows of either kind as the median behavior, with
        prompts that are drawn from those of all behaviors, without replacement. Placebos share some prompts, but no
        answers.
    """
    splits = [_Prompts.of(records, plan, subject.language) for records in (train, heldout)]

    def changes() -> Iterator[pd.DataFrame]:
        for placebo in Progress(range(plan.study.placebos.n), desc="placebos", unit="placebo"):
            rng = np.random.default_rng(zlib.crc32(f"{plan.study.seed} placebo {placebo}".encode()))
            yield from _placebo_changes(plan, subject, _placebo_rows(plan, subject, splits, rng), placebo)

    write_parquet(changes(), out)


class _Prompts(NamedTuple):
    """Prompts of one split to draw from, each with the completion that limits its answer's length."""

    pool: list[TokenizedRow]
    n: int

    @classmethod
    def of(cls, behaviors: Mapping[str, Sequence[Record]], plan: config.Plan, language: LoadedModel) -> _Prompts:
        pool = []
        for name, records in behaviors.items():
            prompted = language.prompted(plan.study.behaviors[name])
            pool += [tokenize(record, prompted, plan.study.max_length) for record in records]
        return cls(pool, round(np.median([len(records) for records in behaviors.values()])))

    def draw(self, rng: np.random.Generator) -> list[TokenizedRow]:
        return [self.pool[number] for number in rng.choice(len(self.pool), self.n, replace=False)]


class _PlaceboRows(NamedTuple):
    """What a placebo is trained on, or fitted to; the fields are those of a `Replicate`."""

    train: Rows
    heldout: Rows
    contrast: list[Compared]


def _placebo_rows(
    plan: config.Plan, subject: LoadedSubject, splits: Sequence[_Prompts], rng: np.random.Generator
) -> _PlaceboRows:
    """Sample the rows of one placebo; rejected replies, or a contrast, are other answers to the same prompts."""
    name, batch_size = plan.study.primary.adapter, plan.study.batch_size
    options = plan.study.adapters[name]
    drawn = [prompts.draw(rng) for prompts in splits]

    def answered() -> tuple[CachedRows, CachedRows]:
        answers = [model_answers(subject, rows, batch_size, rng) for rows in drawn]
        train, heldout = (_captured(subject, rows, batch_size) for rows in answers)
        return train, heldout

    own = answered()
    if options.trained_on == "pair":
        rejected = answered()
        with frozen_part(subject, options):
            train, heldout = (make_pairs(subject, *both, batch_size) for both in zip(own, rejected, strict=True))
        return _PlaceboRows(train, heldout, [])
    is_contrasted = ADAPTERS.facts(plan.kind_of(name)).contrasted
    return _PlaceboRows(*own, [Compared(*answered())] if is_contrasted else [])


def model_answers(
    subject: LoadedSubject, prompts: Sequence[TokenizedRow], batch_size: int, rng: np.random.Generator
) -> list[TokenizedRow]:
    """Return the rows with answers sampled from the model, at temperature 1, in place of their completions.

    An answer ends with the model's own EOS, or with as many tokens as the completion that it replaces. Then no EOS is
    added: it would teach the model to be brief.
    """
    found, n_together = [], ANSWERED_BATCHES * batch_size
    for start in range(0, len(prompts), n_together):
        part = prompts[start : start + n_together]
        rooms = [len(row.tokens) - row.n_prompt for row in part]
        before = [row.tokens[: row.n_prompt] for row in part]
        after = generate(
            subject.language,
            before,
            max_new_tokens=max(rooms),
            batch_size=len(part),
            temperature=1.0,
            seed=int(rng.integers(2**32)),
            description="answers",
        )
        for prompt, answer, room in zip(before, after, rooms, strict=True):
            found.append(TokenizedRow([*prompt, *answer.tokens[:room]], len(prompt)))
    return found


def _captured(subject: LoadedSubject, rows: Sequence[TokenizedRow], batch_size: int) -> CachedRows:
    starts = range(0, len(rows), batch_size)
    return joined_rows(capture_tokens(subject, rows[start : start + batch_size]) for start in starts)


def _placebo_changes(
    plan: config.Plan, subject: LoadedSubject, rows: _PlaceboRows, placebo: int
) -> Iterator[pd.DataFrame]:
    """Train all seeds on one placebo's rows and yield the changes, a table for each seed and measure."""
    with TemporaryDirectory() as scratch:
        folder, name = Path(scratch, "adapter"), plan.study.primary.adapter
        adapters = plan.study.adapters | {name: replace(plan.study.adapters[name], keep="last")}
        plan = config.Plan(replace(plan.study, adapters=adapters))
        train_seeds(plan, subject, name, folder, **rows._asdict(), behavior=f"placebo {placebo}", permuted=False)
        for replicate in seed_folders(folder):
            with load_trained(replicate, subject, completions(rows.heldout), plan.study.batch_size) as trained:
                yield from measured_changes(trained, plan.study.measures, seed_of(replicate), placebo=placebo)
