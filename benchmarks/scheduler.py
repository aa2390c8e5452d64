"""What Snakemake itself costs while jobs wait, with its own settings and with those of profiles/default.

$ python benchmarks/scheduler.py

400 jobs of 0.3 seconds with 20 inputs each, two at a time: at best a minute. Printed are minutes and CPU-seconds of the
whole run: Snakemake, and a shell per job.
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
    shell: "sleep 0.3; touch {output}"
"""
PROFILE = Path(__file__).parent.parent / "profiles" / "default"
SETTINGS = {"Snakemake's own settings": [], "profiles/default": ["--workflow-profile", str(PROFILE.resolve())]}


def measure(options: list[str], jobs: int) -> tuple[float, float]:
    """Return the seconds and CPU-seconds of one run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Snakefile").write_text(SNAKEFILE.replace("JOBS", str(jobs)), encoding="utf-8")
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
    jobs = parser.parse_args().jobs
    for name, options in SETTINGS.items():
        seconds, used = measure(options, jobs)
        print(f"{name}: {seconds / 60:.2f} minutes, {used:.0f} CPU-seconds")


if __name__ == "__main__":
    main()
