"""What Snakemake itself costs while jobs wait: with its own settings, with ours, and also without its limit per second.

$ python benchmarks/scheduler.py

400 jobs of 0.3 seconds with 20 inputs each, two at a time: at best a minute. Printed are minutes and CPU-seconds of the
whole run: Snakemake, and a shell per job. `--long N` makes every tenth job one of N seconds, during which others wait.

The limit (`--max-jobs-per-timespan`) is lifted by workflow/rules/worker.smk as it is here.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SNAKEFILE = """
rule all:
    input: [f"out/{i}" for i in range(JOBS)]
rule one:
    input: lambda w: [f"in/{(7 * int(w.i) + j) % 1000}" for j in range(20)]
    output: "out/{i}"
    params: seconds=lambda w: LONG if LONG and int(w.i) % 10 == 0 else 0.3
    shell: "sleep {params.seconds}; touch {output}"
"""
UNLIMITED = "onstart:\n    workflow.scheduler.job_rate_limiter = None\n"
PROFILE = Path(__file__).parent.parent / "profiles" / "default"
OURS = ["--workflow-profile", str(PROFILE.resolve())]
SETTINGS = {
    "Snakemake's own settings": ("", []),
    "profiles/default": ("", OURS),
    "profiles/default without the limit": (UNLIMITED, OURS),
}


def measure(first_line: str, options: list[str], jobs: int, long: float) -> tuple[float, float]:
    """Return the seconds and CPU-seconds of one run in a folder of its own."""
    snakefile = first_line + SNAKEFILE.replace("JOBS", str(jobs)).replace("LONG", str(long))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Snakefile").write_text(snakefile, encoding="utf-8")
        Path(folder, "in").mkdir()
        for number in range(1000):
            Path(folder, "in", str(number)).touch()
        before, start = os.times(), time.monotonic()
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all", *options]
        subprocess.run(command, cwd=folder, check=True)
        after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return time.monotonic() - start, used


def main() -> None:
    """Print one line per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--long", type=float, default=0, help="seconds of every tenth job; none when 0")
    given = parser.parse_args()
    for name, (first_line, options) in SETTINGS.items():
        seconds, used = measure(first_line, options, given.jobs, given.long)
        print(f"{name}: {seconds / 60:.2f} minutes, {used:.0f} CPU-seconds")


if __name__ == "__main__":
    main()
