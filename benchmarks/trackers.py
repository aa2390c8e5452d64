"""What an experiment tracker costs a job beside its training: its process, on the losses of three seeds of 160 steps.

WANDB_MODE=offline python benchmarks/trackers.py wandb
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

SEEDS, STEPS = 3, 160


def messages() -> list[dict[str, object]]:
    """Return what a job writes."""
    found: list[dict[str, object]] = []
    for seed in range(SEEDS):
        run = f"study.subject.behavior.adapter.seed_{seed}"
        found.append({"run": run, "config": {"seed": seed}})
        found += [{"run": run, "step": step, "values": {"train/loss": 1 / step}} for step in range(1, STEPS + 1)]
        found.append({"run": run, "end": True})
    return [*found, {"done": True}]


def main() -> None:
    """Run the process of each tracker that is named, and print its time and memory."""
    for name in sys.argv[1:]:
        with TemporaryDirectory() as folder:
            path = Path(folder, "messages.jsonl")
            path.write_text("".join(json.dumps(message) + "\n" for message in messages()), encoding="utf-8")
            command = [sys.executable, "-m", "isaerft.training.trackers", str(os.getpid()), folder, "project", name]
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            with open(path, "rb") as stream:
                subprocess.run(command, stdin=stream, env=os.environ | {"TRACKIO_DIR": folder}, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            wall, memory = time.perf_counter() - began, after.ru_maxrss / 1024
            print(f"{name}: {cpu:.1f} s of a core, {wall:.1f} s in all, at most {memory:.0f} MB")


if __name__ == "__main__":
    main()
