"""Make worlds of a study one after another in this process; print CPU-seconds by verb, and how good each world is.

Agreement is the mean AUROC of the primary adapter over behaviors. Specificity is how much better its changes agree with
the expectations of their own behavior than of others, without what confounds explain. Tables and pages are not made.

$ python benchmarks/world_seconds.py config/worlds.yaml default_0 --testbed batch_size=32 --train-sae tokens=1000000
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from isaerft.cli.app import run_here
from isaerft.config import load_plan
from isaerft.config.base import read_options
from isaerft.io import read_json
from isaerft.layout import Results
from isaerft.stats import auroc
from isaerft.steps import steps_of

LAST = "placebos"
SHOWN = ("variance_explained", "l0", "n_alive", "loss_base", "loss_spliced")


def study_of(path: str, world: str, changed: dict[str, list[str]]) -> dict[str, object]:
    """Return the options of a study with one of its worlds, and some options of that changed."""
    options = read_options(path)
    subject = options["subjects"][world]
    for part, pairs in changed.items():
        subject[part] = subject[part] | {
            key: yaml.safe_load(value) for key, value in (pair.split("=") for pair in pairs)
        }
    return options | {"subjects": {world: subject}}


def agreement_of(changes: Iterable[Path], judgements: Path, adapter: str) -> tuple[float, float]:
    """Return the mean AUROC over behaviors, and specificity; NaN where no latent is expected to change."""
    judged = pd.read_parquet(judgements).pivot(index="latent_index", columns="behavior", values="expected")
    values = []
    for path in changes:
        frame = pd.read_parquet(path, filters=[("adapter", "==", adapter)])
        change = frame.groupby("latent_index").change.mean().reindex(judged.index).to_numpy()
        defined = {name: column for name, column in judged.items() if 0 < column.sum() < len(column)}
        own = auroc(change, judged[path.stem].to_numpy(bool)) if path.stem in defined else np.nan
        others = [auroc(change, column.to_numpy(bool)) for name, column in defined.items() if name != path.stem]
        values.append((own, own - np.mean(others) if others else np.nan))
    agreement, specificity = np.mean(values, axis=0)
    return float(agreement), float(specificity)


def main() -> None:
    """Print one line of seconds and one of quality for each world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("worlds", nargs="+")
    parser.add_argument("--testbed", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--train-sae", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--until", default=LAST, help="last verb to run")
    given = parser.parse_args()
    for world in given.worlds:
        seconds: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            study = Path(folder, "world.yaml")
            changed = {"testbed": given.testbed, "train_sae": given.train_sae}
            study.write_text(yaml.safe_dump(study_of(given.study, world, changed)), encoding="utf-8")
            plan = load_plan(study)
            at = Results(Path(folder, "results"))
            wanted, skipped = {"explain", "judge"}, {"agreement", "tables", "figures"}
            steps = steps_of(plan)
            last = max(i for i, step in enumerate(steps) if step.verb == given.until)
            for step in [*steps[: last + 1], *(step for step in steps[last + 1 :] if step.verb in wanted - skipped)]:
                start = time.process_time()
                names = [part for kind, name in step.names.items() for part in (f"--{kind}", name)]
                if run_here([step.verb, "--study", str(study), *names, "--results", str(at.root)]):
                    raise SystemExit(f"{world}: {step} failed")
                seconds[step.verb] += time.process_time() - start
            print(
                world, f"{sum(seconds.values()):.0f} CPU-seconds:", {k: round(v, 1) for k, v in seconds.most_common()}
            )
            card = read_json(at.subject(world).card)[0]
            fit = {key: round(card[key], 3) for key in SHOWN if key in card}
            primary = plan.study.primary
            paths = [at.changes(world, name) for name in plan.tested_behaviors]
            found = {}
            if all(map(os.path.isfile, paths)):
                judged = at.judgements(world, primary.source, primary.judge)
                found = dict(
                    zip(("agreement", "specificity"), agreement_of(paths, judged, primary.adapter), strict=True)
                )
            print(world, fit | {key: round(value, 3) for key, value in found.items()}, flush=True)


if __name__ == "__main__":
    main()
