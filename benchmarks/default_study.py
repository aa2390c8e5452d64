"""Run the default study from nothing, several times, and say what it cost.

$ python benchmarks/default_study.py --runs 3 --write docs/speed.md    about 20 minutes, on a quiet machine

Each run is in a fresh clone of this checkout's last commit, with the packages of this environment. CPU-seconds are
those of the whole machine while it ran, Snakemake's own among them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from page import machine, markdown, write_block
from seconds_per_stage import counts

from isaerft.report.seconds import stage_seconds

ROOT = Path(__file__).resolve().parents[1]
SMALLEST = 20


def busy_seconds() -> float:
    """Return the CPU-seconds that all processes of the machine have taken since it started."""
    user, nice, system = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def run(folder: Path, cores: int) -> tuple[float, float]:
    """Run the study in a new clone; return its wall-clock and CPU-seconds."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
    }
    began, busy = time.monotonic(), busy_seconds()
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores)]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.monotonic() - began, busy_seconds() - busy


def main() -> None:
    """Print the figures, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--write", type=Path, help="page whose block `default_study` is replaced")
    options = parser.parse_args()
    times, tables = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.runs):
            folder = Path(scratch, str(number))
            times.append(run(folder, options.cores))
            results = folder / "results/testbed"
            tables.append({path.name: path.read_bytes() for path in sorted((results / "tables").glob("*.csv"))})
        stages, found = stage_seconds(results / "benchmarks"), counts(results)
    shown = stages[stages.total >= SMALLEST]
    rest = stages[stages.total < SMALLEST]
    rows = [(row.stage, row.jobs, round(row.total)) for row in shown.itertuples()]
    rows.append(("everything else", rest.jobs.sum(), round(rest.total.sum())))
    rows.append(("all", stages.jobs.sum(), round(stages.total.sum())))
    same = "the same bytes" if all(one == tables[0] for one in tables) else "other bytes"
    clock = ", ".join("{}:{:02d}".format(*divmod(round(seconds), 60)) for seconds, _ in times)
    busy = ", ".join(f"{seconds:.0f}" for _, seconds in times)
    runs = "1 run" if options.runs == 1 else f"{options.runs} runs"
    compared = f"; {same} in all {len(tables[0])} tables" if options.runs > 1 else ""
    text = (
        f"{runs} on {options.cores} cores: {clock} minutes, {busy} CPU-seconds{compared}.\n"
        f"The last one: {found}. {machine()}.\n\n"
        + markdown(pd.DataFrame(rows, columns=["stage", "jobs", "seconds in all"]))
    )
    print(text)
    if options.write:
        write_block(options.write, "default_study", text)


if __name__ == "__main__":
    main()
