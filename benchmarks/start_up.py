"""How long a job of a finished study takes with the warm worker and without: seconds, medians, and their ratio.

$ python benchmarks/start_up.py config/testbed.yaml results/testbed --subject testbed --behavior humor --adapter bias
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from isaerft.cli.worker import OFF, SOCKET

CALL = [sys.executable, "-c", "import sys; from isaerft.cli import main; sys.exit(main())"]


def listens(name: str) -> bool:
    """Tell whether a worker waits for callers."""
    return f"@{name}\n" in Path("/proc/net/unix").read_text(encoding="ascii", errors="replace")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("results", type=Path)
    for name in ("subject", "behavior", "adapter"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    environment = os.environ | {SOCKET: f"isaerft-{secrets.token_hex(8)}", "OMP_NUM_THREADS": "1"}
    found: dict[str, list[float]] = {"a process of its own": [], "by the warm worker": []}
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(options.results, Path(scratch, "results"))
        verb = ["train", "--study", options.study, "--results", str(copy), "--subject", options.subject]
        verb += ["--behavior", options.behavior, "--adapter", options.adapter]
        worker = subprocess.Popen([sys.executable, "-P", "-m", "isaerft.cli.worker"], env=environment)
        while not listens(environment[SOCKET]):
            time.sleep(0.1)
        for _ in range(options.runs):
            for name, asked in zip(found, (OFF, environment[SOCKET]), strict=True):
                began = time.perf_counter()
                subprocess.run([*CALL, *verb], env=environment | {SOCKET: asked}, check=True, capture_output=True)
                found[name].append(time.perf_counter() - began)
        worker.terminate()
    print("| a training | median, s |\n|---|---:|")
    for name, seconds in found.items():
        print(f"| {name} | {statistics.median(seconds):.1f} |")
    alone, warm = map(statistics.median, found.values())
    print(f"\nratio {alone / warm:.1f}")


if __name__ == "__main__":
    main()
