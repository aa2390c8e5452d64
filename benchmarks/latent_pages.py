"""CPU-seconds, memory and megabytes of the page of single latents, for a whole dictionary.

$ python benchmarks/latent_pages.py                           16,384 latents; two minutes on one core
$ python benchmarks/latent_pages.py --latents 1024            a look
$ python benchmarks/latent_pages.py --keep /tmp/pages         leaves the study there, to open its page
$ python benchmarks/latent_pages.py --write docs/speed.md     and the table put between its marks

The study is config/gemma2_2b_it.yaml with one of its subjects: 14 behaviors, 3 seeds, 3 sources of explanations, 2
judges and 9 placebos. What its jobs would have written is random, of the size and shape that they write; texts are
drawn from the study's own prompts and descriptions. Measured is `isaerft latent-pages` as a process of its own, which
uses one core: its CPU-seconds, start included, are how long it takes where that core is free.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from page import machine, markdown, write_block

from isaerft import analysis
from isaerft.config import Plan, load_plan
from isaerft.explanations import write_explanations
from isaerft.io import write_parquet
from isaerft.judges import judgements, write_judgements
from isaerft.layout import Results

ROOT = Path(__file__).parents[1]
SUBJECT = "block_12"
WIDTH, N_CONTEXTS, N_TOKENS, N_NEIGHBORS = 8, 6, 8, 10
SHARES = {"untestable": 0.75, "inconclusive": 0.15, "supported": 0.05, "contradicted": 0.04, "absorbed": 0.01}
REASON = "it predicts a rise with {} and its latent changed so; score {:.2f}, {:.2f} at the average effect; q = {:.2g}"


class World:
    """A study in a folder, all of it random.

    Parameters
    ----------
    folder : Path
    d_sae : int
        Number of latents.
    n_steered : int
        Latents of a steering check; none when 0.
    odd : list of str
        Texts that come in wherever text from outside does: explanations, makers, tokens, reasons, answers.
    """

    def __init__(self, folder: Path, d_sae: int, *, n_steered: int = 0, odd: tuple[str, ...] = ()) -> None:
        self.d_sae, self.n_steered, self.odd = d_sae, n_steered, odd
        self.random = np.random.default_rng(0)
        values = yaml.safe_load((ROOT / "config/gemma2_2b_it.yaml").read_text(encoding="utf-8"))
        values["include"] = str(ROOT / values["include"])
        values["subjects"] = {SUBJECT: values["subjects"][SUBJECT]}
        if n_steered:
            values["steering_check"] = {"n_latents": n_steered}
        folder.mkdir(parents=True, exist_ok=True)
        self.config, self.results = folder / "study.yaml", Results(folder / "results")
        self.config.write_text(yaml.safe_dump(values), encoding="utf-8")
        self.plan: Plan = load_plan(self.config)
        said = [behavior.description for behavior in self.plan.study.behaviors.values()]
        said += [json.loads(line)["prompt"] for line in (ROOT / "data/elicit/requests.jsonl").open(encoding="utf-8")]
        # As often as they are said: the unit of a context is a word, which is longer than most tokenizers' units.
        self.words = np.array(" ".join(said).split(), dtype=object)

    def texts(self, n: int, n_words: int) -> list[str]:
        """Return random texts; every seventh holds one of the odd ones, where there are any."""
        found = [" ".join(row) for row in self.random.choice(self.words, (n, n_words))]
        if self.odd:
            found[::7] = [f"{text} {self.odd[place % len(self.odd)]}" for place, text in enumerate(found[::7])]
        return found

    def write(self) -> None:
        """Write every file that the page reads."""
        self._facts()
        self._changes()
        verdicts = []
        for source in self.plan.study.sources:
            explanations = self._explanations(source)
            write_explanations(explanations, self.results.explanations(SUBJECT, source), d_sae=self.d_sae)
            for judge in self.plan.judges_of(source):
                self._judgements(explanations, source, judge)
                verdicts.append(self._verdicts(explanations, source, judge))
        table = pd.concat(verdicts, ignore_index=True)
        analysis.table("explanation_verdicts").write(table, self.results.table("explanation_verdicts"))
        if self.n_steered:
            self._steering(table)

    def _facts(self) -> None:
        n, random = self.d_sae, self.random
        rate = random.lognormal(-6, 2, n).clip(max=0.3)
        rate[::50] = 0
        facts = pd.DataFrame({"latent_index": np.arange(n), "firing_rate": rate})
        for name in ("mean_activation", "max_activation", "decoder_norm", "density", "absorption"):
            facts[name] = random.lognormal(1, 1, n)
        facts = facts.assign(
            absorber=0, absorber_cosine=0.5, encoder_decoder_cosine=random.uniform(size=n), cluster=np.arange(n)
        )
        folder = self.results.subject(SUBJECT)
        write_parquet([facts], folder.latents)
        near = {
            "latent_index": np.repeat(np.arange(n), N_NEIGHBORS),
            "rank": np.tile(np.arange(N_NEIGHBORS), n),
            "neighbor": random.integers(n, size=n * N_NEIGHBORS),
            "cosine": random.uniform(size=n * N_NEIGHBORS),
        }
        write_parquet([pd.DataFrame(near)], folder.neighbors)
        fires = np.flatnonzero(rate)
        write_parquet([self._activations(fires)], folder.activations)
        write_parquet([self._promoted(fires)], folder.contexts)

    def _activations(self, latents: np.ndarray) -> pd.DataFrame:
        n, length = len(latents) * N_CONTEXTS, 2 * WIDTH + 1
        words = self.random.choice(self.words, (n, length))
        tokens = [[f" {word}" for word in row] for row in words]
        for place, row in enumerate(tokens[::7] if self.odd else []):
            row[3] = self.odd[place % len(self.odd)]
        # A latent fires on its own token, and on one in eight of the others.
        fires = self.random.uniform(size=(n, length)) < 1 / 8
        fires[:, WIDTH] = True
        values = np.where(fires, self.random.lognormal(1, 1, (n, length)), 0).astype(np.float32)
        values[:, WIDTH] += values.max(1)
        return pd.DataFrame(
            {
                "latent_index": np.repeat(latents, N_CONTEXTS),
                "rank": np.tile(np.arange(N_CONTEXTS), len(latents)),
                "tokens": tokens,
                "activations": list(values),
            }
        )

    def _promoted(self, latents: np.ndarray) -> pd.DataFrame:
        n = len(latents) * N_TOKENS
        parts = []
        for side in ("output", "amplified"):
            tokens = [f" {word}" for word in self.random.choice(self.words, n)]
            if self.odd:
                tokens[::7] = [self.odd[place % len(self.odd)] for place in range(len(tokens[::7]))]
            rank = np.tile(np.arange(N_TOKENS), len(latents))
            own = {"latent_index": np.repeat(latents, N_TOKENS), "side": side, "rank": rank, "token": tokens}
            parts.append(pd.DataFrame(own | {"before": "", "after": "", "value": self.random.uniform(size=n)}))
        return pd.concat(parts, ignore_index=True)

    def _changes(self) -> None:
        study, n_seeds = self.plan.study, self.plan.n_seeds_of(self.plan.study.primary.adapter)
        keys = [(name, measure) for name in self.plan.analyzed_adapters() for measure in study.measures]
        for behavior in self.plan.tested_behaviors:
            write_parquet(self._changed(keys, "adapter", n_seeds), self.results.changes(SUBJECT, behavior))
        placebos = [(placebo, measure) for placebo in range(study.placebos.n) for measure in study.measures]
        write_parquet(self._changed(placebos, "placebo", n_seeds), self.results.placebos(SUBJECT))

    def _changed(self, keys: list[tuple[Any, str]], name: str, n_seeds: int) -> Iterator[pd.DataFrame]:
        latents = np.arange(self.d_sae)
        for of, measure in keys:
            mean = self.random.normal(0, 0.05, self.d_sae)
            for seed in range(n_seeds):
                change = mean + self.random.normal(0, 0.02, self.d_sae)
                own = {name: of, "measure": measure, "seed": seed, "latent_index": latents, "change": change}
                yield pd.DataFrame(own)

    def _explanations(self, source: str) -> pd.DataFrame:
        neuronpedia = source == "neuronpedia"
        latents = np.arange(self.d_sae)
        page = "https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/{}"
        return pd.DataFrame(
            {
                "latent_index": latents,
                "explanation": self.texts(self.d_sae, 10 if neuronpedia else 20),
                "side": "input" if neuronpedia else source.removeprefix("local_"),
                "url": [page.format(latent) for latent in latents] if neuronpedia else "",
                "maker": self.odd[0] if self.odd else "gpt-4o-mini/oai_token-act-pair" if neuronpedia else "",
            }
        )

    def _judgements(self, explanations: pd.DataFrame, source: str, judge: str) -> None:
        behaviors = {name: self.plan.study.behaviors[name].description for name in self.plan.tested_behaviors}
        shape = self.d_sae, len(behaviors)
        effects = self.random.uniform(-0.2, 0.5, shape)
        expected = self.random.uniform(size=shape) < 0.05
        if judge == "lexical":
            effects = np.where(expected, effects, 0)
        table = judgements(explanations, behaviors, effects, expected=expected)
        write_judgements(table, self.results.judgements(SUBJECT, source, judge))

    def _verdicts(self, explanations: pd.DataFrame, source: str, judge: str) -> pd.DataFrame:
        n, behaviors = self.d_sae, self.plan.tested_behaviors
        verdict = self.random.choice(list(SHARES), n, p=list(SHARES.values()))
        score, q = self.random.normal(0, 2, n), self.random.uniform(size=n)
        named = self.random.choice(behaviors, n)
        reasons = [
            REASON.format(name, *numbers)
            if one != "untestable"
            else f"it predicts nothing for each of the {len(behaviors)} behaviors"
            for one, name, *numbers in zip(verdict, named, score, score / 2, q, strict=True)
        ]
        if self.odd:
            reasons[::7] = [self.odd[place % len(self.odd)] for place in range(len(reasons[::7]))]
        tested = verdict != "untestable"
        table = explanations[["latent_index", "explanation"]].assign(
            subject=SUBJECT, source=source, judge=judge, n_behaviors=len(behaviors), verdict=verdict, reason=reasons,
            score=np.where(tested, score, np.nan), qvalue=np.where(tested, q, np.nan),
        )  # fmt: skip
        return table.reindex(columns=analysis.table("explanation_verdicts").column_names)

    def _steering(self, verdicts: pd.DataFrame) -> None:
        primary, behaviors = self.plan.study.primary, self.plan.tested_behaviors
        own = verdicts[(verdicts["source"] == primary.source) & (verdicts["judge"] == primary.judge)]
        latents = own.head(self.n_steered)
        about = {"subject": SUBJECT, "source": primary.source, "judge": primary.judge, "group": "supported"}
        lines, effects, claims = [], [], []
        for latent, text in zip(latents["latent_index"], latents["explanation"], strict=True):
            of = about | {"latent_index": latent, "explanation": text}
            for strength in (0.5, 1.0):
                said = dict(zip(("prompt", "plain", "amplified", "suppressed"), self.texts(4, 12), strict=True))
                lines += [json.dumps({"latent_index": int(latent), "strength": strength} | said) + "\n"] * 4
            for place, behavior in enumerate(behaviors):
                plain, up, down = self.random.uniform(size=3)
                numbers = {"plain": plain, "amplified": up, "suppressed": down, "effect": up - down}
                ends = {"ci_low": up - down - 0.1, "ci_high": up - down + 0.1}
                effects.append(of | numbers | ends | {"behavior": behavior, "claim": int(place == 0), "n_prompts": 4})
            claim = {"claim": f"raises {behaviors[0]}", "effect": 0.4, "ci_low": 0.1, "ci_high": 0.7, "confirmed": True}
            claims.append(of | claim)
        folder = self.results.steering_check(SUBJECT)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.answers.write_text("".join(lines), encoding="utf-8")
        for name, rows in (("steering_check", effects), ("steering_latents", claims)):
            table = analysis.table(name)
            table.write(pd.DataFrame(rows).reindex(columns=table.column_names), self.results.table(name))
        table = analysis.table("steering_summary")
        table.write(pd.DataFrame(columns=table.column_names), self.results.table("steering_summary"))


def measured(world: World) -> dict[str, object]:
    """Make the page in a process of its own; return what that took."""
    command = [sys.executable, "-m", "isaerft.cli", "latent-pages", "--study", str(world.config)]
    subprocess.run([*command, "--results", str(world.results.root)], check=True, cwd=ROOT)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    sizes = [path.stat().st_size for path in world.results.latents.iterdir()]
    return {
        "latents": f"{world.d_sae:,}",
        "CPU-seconds": f"{used.ru_utime + used.ru_stime:.0f}",
        "peak memory, MB": f"{used.ru_maxrss / 1024:,.0f}",
        "files": f"{len(sizes):,}",
        "size, MB": f"{sum(sizes) / 1e6:.1f}",
        "largest file, MB": f"{max(sizes) / 1e6:.1f}",
    }


def main() -> None:
    """Print the figures, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=16_384)
    parser.add_argument("--steered", type=int, default=100, help="latents of a steering check")
    parser.add_argument("--keep", type=Path, help="folder of the study, which is kept")
    parser.add_argument("--write", type=Path, help="page with the block <!-- latent_pages -->")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        world = World(options.keep or Path(temporary), options.latents, n_steered=options.steered)
        world.write()
        text = f"{markdown(pd.DataFrame([measured(world)]))}\n\nMeasured on {machine()}."
    if options.write:
        write_block(options.write, "latent_pages", text)
    print(text)


if __name__ == "__main__":
    main()
