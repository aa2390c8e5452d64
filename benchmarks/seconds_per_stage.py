"""Print how long each stage of a finished study took, from the benchmark files that Snakemake wrote.

$ python benchmarks/seconds_per_stage.py results/testbed
"""

import argparse
from pathlib import Path

from isaerft.report.seconds import stage_seconds


def main() -> None:
    """Sum the wall-clock seconds of each rule's jobs and print them, longest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results folder of a study, e.g. results/testbed")
    folder = parser.parse_args().results / "benchmarks"
    table = stage_seconds(folder)
    if table.empty:
        parser.error(f"no benchmark files under {folder}; run the study first")
    print(table.round(1).to_string(index=False))
    print(f"\nall stages: {table.total.sum():.0f} seconds of jobs (two run at a time on two cores)")


if __name__ == "__main__":
    main()
