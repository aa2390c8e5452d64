"""Peak memory of the jobs after training, for many behaviors and for a very large dictionary.

$ python benchmarks/scale_memory.py                         both studies of docs/scale.md; some 40 minutes on two cores
$ python benchmarks/scale_memory.py --study many --behaviors 20 --latents 4096      a look
$ python benchmarks/scale_memory.py --write docs/scale.md   and the tables put between their marks

What training and judging would have written is random, of the right size: changes of 5 adapters by two measures,
explanations of which no two are alike, judgements for every behavior. Then every verb runs as a process of its own, as
it does on a cluster. Printed are the most memory that the process held (maximum resident set size, with Python and its
libraries), and its CPU-seconds.

`many` has 100 behaviors on 16,384 latents, all of them explained, and 5 seeds. `large` has 6 behaviors on 1,048,576
latents, of which a case-control sample is explained, and 2 seeds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from page import write_block

ADAPTERS = ("bias", "scale", "affine", "low_rank", "mean_difference")
MEASURES = ("contribution", "parameter")
SUBJECT, TWIN, SOURCE, JUDGE = "model", "model-permuted", "said", "lexical"
N_PLACEBOS, EXPECTED = 5, 0.02
SIZES = {"many": (100, 16_384, 5), "large": (6, 1_048_576, 2)}


@dataclass(frozen=True)
class World:
    """A study whose trainings and judgements are random: its config, and the folder of its results."""

    kind: str
    n_behaviors: int
    d_sae: int
    n_seeds: int
    folder: Path

    @property
    def behaviors(self) -> list[str]:
        """Names of the behaviors."""
        return [f"behavior_{i:03d}" for i in range(self.n_behaviors)]

    @property
    def config(self) -> Path:
        """The study's file."""
        return self.folder / "study.yaml"

    @property
    def results(self):
        """Paths of the results."""
        from isaerft.layout import Results

        return Results(self.folder / "results")

    def write_config(self) -> None:
        """Write the study's file."""
        values = {
            "study": "large",
            "subjects": {SUBJECT: {"testbed": {}}},
            "behaviors": {name: {"description": name, "rule": True} for name in self.behaviors},
            "adapters": {name: {} for name in ADAPTERS},
            "random_dictionary_adapters": [ADAPTERS[0]],
            "placebos": {"n": N_PLACEBOS},
            "measures": list(MEASURES),
            "sources": {SOURCE: {"kind": "local"}},
            "judges": {JUDGE: {}},
            "primary": {"adapter": "bias", "measure": MEASURES[0], "source": SOURCE, "judge": JUDGE},
            "n_seeds": self.n_seeds,
        }
        if self.kind == "large":
            values["design"] = {"kind": "case_control"}
        self.config.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    def write_subject(self) -> None:
        """Write facts of the latents, and the card."""
        folder, rng, n = self.results.subject(SUBJECT), np.random.default_rng(0), self.d_sae
        folder.path.mkdir(parents=True)
        pd.DataFrame(
            {
                "latent_index": np.arange(n),
                "firing_rate": 10 ** rng.uniform(-3, -1, n),
                "decoder_norm": rng.normal(1, 0.1, n),
                "density": rng.uniform(size=n),
                "cluster": np.arange(n),
                "max_activation": 1.0,
                "absorber": np.roll(np.arange(n), 1),
                "absorber_cosine": 0.5,
                "absorption": 0.0,
                "encoder_decoder_cosine": 0.7,
            }
        ).to_parquet(folder.latents)
        card = {"subject": SUBJECT, "model": "random", "release": None, "sae_id": None, "sae_model": None}
        card |= {"hook_name": "blocks.1", "d_in": 64, "d_sae": n, "variance_explained": 0.8, "l0": 60.0, "n_alive": n}
        card |= {"n_dense": 0, "loss_base": 2.0, "loss_spliced": 2.1}
        folder.card.write_text(json.dumps([card, card | {"subject": TWIN}]))

    def write_trainings(self) -> None:
        """Write what trainings leave beside their adapters and changes, with the subject and its placebos."""
        self.write_subject()
        self.write_placebos()
        training = {"n_parameters": self.d_sae, "objective": "sft", "steps": 9, "tokens": 99, "best_step": 9}
        training |= {"heldout_loss_base": 3.0, "heldout_loss_adapted": 2.5, "diagnostics": {}}
        shares = [
            {"adapter": name, "k": k, "latents": which, "loss_recovered": 0.5, "ci_low": 0.4, "ci_high": 0.6}
            for name in ADAPTERS
            for k in (10, 50)
            for which in ("most_changed", "matched_random")
        ]
        for behavior in self.behaviors:
            for subject, name in [*((SUBJECT, name) for name in ADAPTERS), (TWIN, ADAPTERS[0])]:
                path = self.results.training(subject, behavior, name)
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps([{"seed": seed} | training for seed in range(self.n_seeds)]))
            for subject in (SUBJECT, TWIN):
                diagnostics = self.results.diagnostics(subject, behavior)
                diagnostics.parent.mkdir(parents=True, exist_ok=True)
                diagnostics.write_text("[]")
            path = self.results.causal_check(SUBJECT, behavior)
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(shares).to_parquet(path)

    def write_placebos(self) -> None:
        """Write the changes of placebo trainings, as `isaerft placebos` does."""
        from isaerft.io import write_parquet

        write_parquet(
            (
                pd.DataFrame(
                    {"placebo": k, "measure": measure, "seed": seed, "latent_index": range(self.d_sae)}
                    | {"change": np.random.default_rng([k, seed]).normal(size=self.d_sae)}
                )
                for k in range(N_PLACEBOS)
                for seed in range(self.n_seeds)
                for measure in MEASURES
            ),
            self.results.placebos(SUBJECT),
        )

    def parts(self, number: int, adapters: tuple[str, ...]) -> Iterator[pd.DataFrame]:
        """Yield the changes of every adapter, seed and measure, from training on a behavior."""
        for place, name in enumerate(adapters):
            shared = np.random.default_rng([number, place]).normal(size=self.d_sae)
            for seed in range(self.n_seeds):
                rng = np.random.default_rng([number, place, seed])
                for measure in MEASURES:
                    change = shared + rng.normal(size=self.d_sae)
                    columns = {"adapter": name, "measure": measure, "seed": seed, "latent_index": range(self.d_sae)}
                    yield pd.DataFrame(columns | {"change": change})

    def write_changes(self, number: int) -> None:
        """Write the changes from training on a behavior, by the function of `isaerft changes`."""
        from isaerft.io import write_parquet

        for subject, adapters in ((SUBJECT, ADAPTERS), (TWIN, ADAPTERS[:1])):
            write_parquet(self.parts(number, adapters), self.results.changes(subject, self.behaviors[number]))

    @property
    def asked(self) -> np.ndarray:
        """The latents that are explained, (n,) int64."""
        from isaerft.explanations import read_sample

        if self.kind == "many":
            return np.arange(self.d_sae)
        return read_sample(self.results.design(SUBJECT)).latent_index.to_numpy()

    def write_explanations(self) -> None:
        """Write explanations of the latents that are asked for."""
        from isaerft.explanations import write_explanations

        latents = self.asked
        texts = [
            f"words about matter number {latent}, of moderate length, as a model would write" for latent in latents
        ]
        frame = pd.DataFrame({"latent_index": latents, "explanation": texts, "side": "input", "url": ""})
        write_explanations(frame, self.results.explanations(SUBJECT, SOURCE))

    def write_judgements(self) -> None:
        """Write judgements by which some latents are expected to change for every behavior, in place of the judge's."""
        from isaerft.judges import write_judgements

        latents, rng = self.asked, np.random.default_rng(1)
        expected = rng.random((self.n_behaviors, len(latents))) < EXPECTED
        rows = {
            "latent_index": np.tile(latents, self.n_behaviors),
            "behavior": np.repeat(self.behaviors, len(latents)),
            "expected_effect": expected.ravel().astype(float),
            "expected": expected.ravel(),
            "confidence": np.nan,
            "rationale": "",
        }
        write_judgements(pd.DataFrame(rows), self.results.judgements(SUBJECT, SOURCE, JUDGE))


def peak_of(*arguments: str) -> tuple[float, float]:
    """Return the most memory that a Python process held, in bytes, and its CPU-seconds."""
    child = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True)
    text = child.stderr.read() if child.stderr else ""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed with {child.returncode}:\n{text[-3000:]}")
    return usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime


def measured(world: World) -> Iterator[tuple[str, float, float]]:
    """Make a study and yield each of its jobs with peak memory in bytes and CPU-seconds."""
    world.write_config()
    shape = ["--behaviors", str(world.n_behaviors), "--latents", str(world.d_sae), "--seeds", str(world.n_seeds)]
    own = [__file__, "--study", world.kind, *shape, "--folder", str(world.folder)]
    # Each part is made in a process of its own: what this one holds would count as its children's, too.
    peak_of(*own, "--only", "trainings")
    for number in range(world.n_behaviors):
        found = peak_of(*own, "--only", str(number))
        if number == 0:
            yield "changes of one behavior, written", *found
    options = ["--study", str(world.config), "--results", str(world.results.root)]
    if world.kind == "large":
        yield "design", *peak_of("-m", "isaerft.cli", "design", *options, "--subject", SUBJECT)
    peak_of(*own, "--only", "explanations")
    judge = ["--subject", SUBJECT, "--source", SOURCE, "--judge", JUDGE]
    yield "judge (by word lists)", *peak_of("-m", "isaerft.cli", "judge", *options, *judge)
    peak_of(*own, "--only", "judgements")
    agreement = ["-m", "isaerft.cli", "agreement", *options, "--subject", SUBJECT, "--adapter"]
    yield "agreement of the primary adapter", *peak_of(*agreement, "bias")
    others = [peak_of(*agreement, name) for name in ADAPTERS[1:]]
    yield "agreement of another adapter", max(peak for peak, _ in others), max(seconds for _, seconds in others)
    for verb in ("tables", "figures", "pages", "summary"):
        yield verb, *peak_of("-m", "isaerft.cli", verb, *options)


def main() -> None:
    """Measure both studies, or the one that is given, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=list(SIZES), help="default: both")
    parser.add_argument("--behaviors", type=int, help="number of behaviors")
    parser.add_argument("--latents", type=int, help="size of the dictionary")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page, between their marks")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    for kind in [given.study] if given.study else SIZES:
        sizes = zip((given.behaviors, given.latents, given.seeds), SIZES[kind], strict=True)
        n_behaviors, d_sae, n_seeds = (own or usual for own, usual in sizes)
        if given.only:
            world = World(kind, n_behaviors, d_sae, n_seeds, given.folder)
            writers = {
                "trainings": world.write_trainings,
                "explanations": world.write_explanations,
                "judgements": world.write_judgements,
            }
            writers[given.only]() if given.only in writers else world.write_changes(int(given.only))
            return
        text = f"{n_behaviors} behaviors, {len(ADAPTERS)} adapters, {n_seeds} seeds, {d_sae:,} latents"
        text += "\n\n| job | peak memory, GB | CPU-seconds |\n|---|---:|---:|"
        with tempfile.TemporaryDirectory() as name:
            for job, peak, seconds in measured(World(kind, n_behaviors, d_sae, n_seeds, Path(name))):
                text += f"\n| {job} | {peak / 1e9:.2f} | {seconds:.0f} |"
                print(text.splitlines()[-1], flush=True)
        print(text)
        if given.write:
            write_block(given.write, f"scale_memory_{kind}", text)


if __name__ == "__main__":
    main()
