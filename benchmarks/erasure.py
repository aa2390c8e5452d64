"""How much of what training writes do erased directions take, and what if its own direction is erased?

    python benchmarks/erasure.py --study config/testbed.yaml --subject testbed

It reads a study that has been run with controls `erased_...` and trains the primary adapter, which must be a constant
shift (bias), once more for each behavior: where the mean displacement of its own seeds is erased.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from isaerft.adapters.saved import load_adapter, seed_folders
from isaerft.analysis import analysis_of
from isaerft.analysis.erasure import compared
from isaerft.changes.measures import measured_changes
from isaerft.changes.pullback import load_trained
from isaerft.cli.options import open_study, open_subject
from isaerft.config import Plan
from isaerft.io import read_json
from isaerft.subjects.cache import read_cache
from isaerft.subjects.erasure import Erasure, read_erasures
from isaerft.training.replicates import train_seeds


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the cosine of two vectors."""
    return float(a @ b / a.norm() / b.norm())


def main() -> None:
    """Print, for each behavior, cosines of displacements before and after erasure, and the training without its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--subject", required=True)
    arguments = parser.parse_args()
    opened = open_study(arguments.study, arguments.results)
    plan, results, name = opened.plan, opened.results, opened.plan.study.primary.adapter
    primary = plan.study.primary
    subject = open_subject(opened, arguments.subject)
    decoder = subject.dictionary.decoder
    reading = analysis_of(plan, results).primary_reading(arguments.subject)
    if reading is None:
        raise SystemExit(f"the primary source does not explain {arguments.subject}")
    once = Plan(replace(plan.study, n_seeds=1))
    table = []
    for behavior in plan.tested_behaviors:
        folders = seed_folders(results.adapters(arguments.subject, behavior) / name)
        moves = [load_adapter(folder, subject.dictionary.d_sae).latent_parameter() @ decoder for folder in folders]
        moved = torch.stack(moves).mean(0).detach()
        row = {}
        for twin, (base, control) in plan.erased_behaviors.items():
            if base == behavior:
                found = read_erasures(results.erasure(arguments.subject, twin))
                row[control] = np.mean([cosine(moved - (moved @ one.read) @ one.write, moved) for one in found])
        unit = moved / moved.norm()
        own = Erasure(torch.zeros_like(unit), unit[:, None], unit[None])
        cache = results.cache(arguments.subject, behavior)
        train, heldout = (read_cache(cache, split) for split in ("train", "heldout"))
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / name
            options = {"train": train, "heldout": heldout, "contrast": [], "behavior": behavior, "permuted": False}
            train_seeds(once, subject, name, out, erasures=[own], **options)
            (run,) = read_json(out / "training.json")
            rows = own.on_rows(subject, heldout)
            with load_trained(seed_folders(out)[0], own.on_subject(subject), rows, plan.study.batch_size) as trained:
                (changes,) = measured_changes(trained, [primary.measure], 0)
        whole = analysis_of(plan, results).changes(arguments.subject, name)[behavior, primary.measure][0]
        before = read_json(results.training(arguments.subject, behavior, name))[0]
        fall = before["heldout_loss_base"] - before["heldout_loss_adapted"]
        row["fall_kept"] = (run["heldout_loss_base"] - run["heldout_loss_adapted"]) / fall
        found = compared(reading, behavior, primary.statistic, whole, changes.change.to_numpy())
        row |= {column: found[column] for column in ("agreement", "erased_agreement")}
        table.append(row)
        print(behavior, ", ".join(f"{key} {value:.2f}" for key, value in row.items()), flush=True)
    print("mean", ", ".join(f"{key} {np.mean([row[key] for row in table]):.2f}" for key in table[0]))


if __name__ == "__main__":
    main()
