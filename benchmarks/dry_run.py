"""How long does Snakemake take to plan a large study?

$ python benchmarks/dry_run.py                          100 behaviors, 5 adapters, 5 seeds
$ python benchmarks/dry_run.py --profile dry_run.prof   and a profile for pstats

The study is the testbed's, with copies of its behaviors under other names. Printed are jobs and the CPU-seconds of
`snakemake --dry-run`, also as a ratio to those of the default study, which are measured in the same run.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
ADAPTERS = ("bias", "scale", "affine", "low_rank", "lora")


def study(n_behaviors: int, n_adapters: int, n_seeds: int) -> dict[str, object]:
    """Return the values of a config with so many behaviors, adapters and seeds of the testbed."""
    values = yaml.safe_load((ROOT / "config/testbed.yaml").read_text(encoding="utf-8"))
    behaviors, adapters = values["behaviors"], values["adapters"]
    names = list(behaviors)
    values["behaviors"] = {f"behavior_{i:03d}": behaviors[names[i % len(names)]] for i in range(n_behaviors)}
    values["adapters"] = {name: adapters[name] for name in ADAPTERS} | {
        f"bias_{i}": adapters["bias"] | {"kind": "bias"} for i in range(n_adapters - len(ADAPTERS))
    }
    values["study"], values["n_seeds"] = "large", n_seeds
    return values


def plan(folder: Path, *options: str) -> tuple[int, float]:
    """Return the jobs of a dry run and its CPU-seconds."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, *options, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--configfile", "study.yaml"],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    after = os.times()
    if done.returncode:
        raise SystemExit(done.stderr[-3000:] or done.stdout[-3000:])
    jobs = re.search(r"^total\s+(\d+)", done.stdout + done.stderr, re.MULTILINE)
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return int(jobs[1]) if jobs else 0, seconds


def main() -> None:
    """Plan the default study and a large one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--behaviors", type=int, default=100)
    parser.add_argument("--adapters", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--profile", help="write a profile of the large study's dry run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("workflow", "profiles", "data", "config"):
            (folder / part).symlink_to(ROOT / part)
        (folder / "study.yaml").write_text((ROOT / "config/testbed.yaml").read_text(encoding="utf-8"))
        jobs, seconds = plan(folder)
        print(f"default study: {jobs} jobs, {seconds:.1f} CPU-seconds", flush=True)
        large = study(options.behaviors, options.adapters, options.seeds)
        (folder / "study.yaml").write_text(yaml.safe_dump(large, sort_keys=False))
        profile = ("-m", "cProfile", "-o", str(Path(options.profile).absolute())) if options.profile else ()
        many, more = plan(folder, *profile)
        print(
            f"{options.behaviors} behaviors, {options.adapters} adapters, {options.seeds} seeds: {many} jobs,"
            f" {more:.1f} CPU-seconds ({more / seconds:.1f} times the default study's; jobs {many / jobs:.1f} times)"
        )


if __name__ == "__main__":
    main()
