"""Which latents change first, where it is known: trained on one behavior for some steps, and then on another.

    python benchmarks/onset.py --study config/testbed.yaml --subject testbed --first humor --then refusal

It reads the caches and the judgements of a study that has been run. The rows of the first behavior fill the first
half of the steps, those of the second behavior the other half. The latents expected for the first must begin before
those expected for the second, whose onset lies in the second half.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from isaerft import stats
from isaerft.adapters.saved import checkpoint_folders, seed_folders
from isaerft.analysis import analysis_of
from isaerft.changes.measures import measured_changes
from isaerft.changes.pullback import load_trained
from isaerft.cli.options import open_study, open_subject
from isaerft.config import Plan
from isaerft.subjects.cache import Batch, CachedRows, read_cache
from isaerft.training.replicates import train_seeds


@dataclass
class OneThenOther:
    """Training rows of one behavior for some steps, then of another.

    Attributes
    ----------
    n_batches : int
        Batches asked for so far.
    """

    first: CachedRows
    then: CachedRows
    switch: int
    n_batches: int = 0

    def __len__(self) -> int:
        return min(len(self.first), len(self.then))

    def batch(self, rows: torch.Tensor) -> Batch:
        """Return the rows (n_rows,) int64 of the behavior whose turn it is."""
        self.n_batches += 1
        return (self.first if self.n_batches <= self.switch else self.then).batch(rows)


def main() -> None:
    """Print the median onset, in steps, of each behavior's latents and of all others, and the AUROC of the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--subject", required=True)
    parser.add_argument("--first", required=True)
    parser.add_argument("--then", required=True)
    arguments = parser.parse_args()
    opened = open_study(arguments.study, arguments.results)
    plan, name = opened.plan, opened.plan.study.primary.adapter
    # Each seed alone, so that batches are asked for in the order of its steps; the last parameters are kept.
    own = replace(plan.study.adapters[name], checkpoints=20, seeds_together=1, keep="last", subsample=1.0)
    plan = Plan(replace(plan.study, adapters=plan.study.adapters | {name: own}, n_seeds=1))
    subject = open_subject(opened, arguments.subject)
    caches = [opened.results.cache(arguments.subject, one) for one in (arguments.first, arguments.then)]
    first, then = (read_cache(cache, "train") for cache in caches)
    heldout = read_cache(caches[1], "heldout")
    rows = OneThenOther(first, then, own.steps // 2)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / name
        train_seeds(
            plan, subject, name, out, train=rows, heldout=heldout, contrast=[], behavior=arguments.then, permuted=False
        )
        course = checkpoint_folders(out, 0)
        changes = []
        for saved in [*course.values(), *seed_folders(out)]:
            with load_trained(saved, subject, heldout, plan.study.batch_size) as trained:
                (table,) = measured_changes(trained, [plan.study.primary.measure], 0)
                changes.append(table.change.to_numpy())
    reading = analysis_of(opened.plan, opened.results).primary_reading(arguments.subject)
    if reading is None:
        raise SystemExit(f"the primary source does not explain {arguments.subject}")
    starts = stats.onsets(np.array(changes[:-1]), list(course), changes[-1])[reading.latents]
    labels = dict(zip(reading.behaviors, reading.expectation.expected, strict=True))
    of_first, of_then = labels[arguments.first], labels[arguments.then]
    groups = {
        arguments.first: of_first & ~of_then,
        arguments.then: of_then & ~of_first,
        "others": ~of_first & ~of_then,
    }
    print(f"{own.steps} steps, the second behavior from step {rows.switch + 1}")
    for one, chosen in groups.items():
        began = starts[chosen]
        print(f"{one}: {chosen.sum()} latents, median onset {np.median(began[np.isfinite(began)]):.1f}")
    either = groups[arguments.first] | groups[arguments.then]
    late = np.where(np.isfinite(starts), starts, 10.0 * own.steps)
    print(f"AUROC, first before then: {stats.auroc(-late[either], groups[arguments.first][either]):.3f}")


if __name__ == "__main__":
    main()
