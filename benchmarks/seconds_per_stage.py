"""Print how long each stage of a finished study took, and how often a process was begun and a model loaded.

Times are from the benchmark files that Snakemake wrote, the rest from the logs of the jobs and of the worker.

$ python benchmarks/seconds_per_stage.py results/testbed
"""

import argparse
from pathlib import Path

from isaerft.report.seconds import stage_seconds

BEGUN, LOADED = " begins\n", "Loading weights: 100%"


def counts(results: Path) -> str:
    """Return how many processes of the worker ran a study's jobs, and how many of these loaded a model."""
    texts = [log.read_text(encoding="utf-8", errors="replace") for log in (results / "logs").rglob("*.log")]
    begun, loaded = sum(text.count(BEGUN) for text in texts), sum(LOADED in text for text in texts)
    return f"{begun} processes of the worker; {loaded} jobs loaded a model"


def main() -> None:
    """Print the wall-clock seconds of each rule's jobs, longest first, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results folder of a study, e.g. results/testbed")
    results = parser.parse_args().results
    folder = results / "benchmarks"
    table = stage_seconds(folder)
    if table.empty:
        parser.error(f"no benchmark files under {folder}; run the study first")
    print(table.round(1).to_string(index=False))
    print(f"\nall stages: {table.total.sum():.0f} seconds of jobs (two run at a time on two cores)")
    print(counts(results))


if __name__ == "__main__":
    main()
