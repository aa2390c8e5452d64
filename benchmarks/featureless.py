"""A world without features: does any explanation get a verdict there, and is agreement at chance?

    python benchmarks/featureless.py --worlds 40
    python benchmarks/featureless.py --study config/STUDY.yaml      # of a study that has been run

Simulated: latents read a few directions of the residual stream; every training is a random direction in it, and
explanations know nothing of either. What a study would find on disk is written, and the study's own tables are made
from it. A finished study is held to the same standard (`STANDARD`), if its subjects have no features.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.analysis import analysis_of
from isaerft.analysis.agreement import write_agreement
from isaerft.calibration.worlds import Dictionary, World
from isaerft.explanations import write_explanations
from isaerft.judges import write_judgements
from isaerft.layout import Results

STANDARD = 0.95
"""Least share of the explanations that predict something which are untestable or inconclusive."""
SILENT = ("untestable", "inconclusive")
WORLDS: dict[str, World] = {
    # A mixture of 40 or so Gaussians: latents of one component are near each other, and are said alike.
    "mixture": World(400, concept_size=10, alike=0.5, n_directions=64),
    # Points in a square: two dimensions, so that every training moves half of all latents up and half down.
    "square": World(400, concept_size=40, alike=0.9, n_directions=2),
    # A cloud without any structure, every latent with an explanation of its own.
    "cloud": World(400, n_directions=16),
}
N_BEHAVIORS, N_SEEDS, EXPECTED = 8, 4, 0.1
TABLES = ("explanation_verdicts", "agreement", "overall")


def plan_of(n_behaviors: int) -> config.Plan:
    """Return the plan of a study of a world."""
    names = [f"behavior_{number}" for number in range(n_behaviors)]
    primary = {"adapter": "bias", "measure": "contribution", "source": "said", "judge": "lexical"}
    return config.plan_from_dict(
        {
            "study": "featureless",
            "subjects": {"world": {"testbed": {}}},
            "behaviors": {name: {"description": name, "rule": True} for name in names},
            "adapters": {"bias": {}},
            "measures": ["contribution"],
            "sources": {"said": {"kind": "local"}},
            "judges": {"lexical": {}},
            "primary": primary,
            "controls": [],
            "placebos": {"n": 0},
            "agreement": {"n_resamples": 199},
            "n_seeds": N_SEEDS,
        }
    )


def write_world(folder: Path, world: World, rng: np.random.Generator) -> config.Plan:
    """Write what the rules of a study of one drawn world would have written, up to its tests; return the plan."""
    world = replace(world, n_behaviors=N_BEHAVIORS, n_seeds=N_SEEDS, expected_share=EXPECTED)
    dictionary = Dictionary(world, rng)
    drawn, plan, at = dictionary.behaviors(N_BEHAVIORS, rng), plan_of(N_BEHAVIORS), Results(folder)
    latents, names = np.arange(len(drawn)), plan.tested_behaviors
    cosines = dictionary.decoder @ dictionary.decoder.T
    np.fill_diagonal(cosines, -1)
    # As much asymmetry as there can be: every latent could be called absorbed by its neighbor.
    facts = {
        "latent_index": latents,
        "firing_rate": drawn.firing_rate,
        "decoder_norm": drawn.decoder_norm,
        "density": drawn.density,
        "cluster": drawn.clusters,
        "absorber": cosines.argmax(axis=1),
        "absorber_cosine": cosines.max(axis=1),
        "absorption": np.inf,
    }
    for path in (at.subject("world").latents, at.changes("world", "x"), at.explanations("world", "said")):
        path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(facts).to_parquet(at.subject("world").latents)
    for name, seeds in zip(names, drawn.changes, strict=True):
        same = {"adapter": "bias", "measure": "contribution", "latent_index": latents}
        rows = [pd.DataFrame(same | {"seed": seed, "change": change}) for seed, change in enumerate(seeds)]
        pd.concat(rows).to_parquet(at.changes("world", name))
    said = {"latent_index": latents, "explanation": [f"concept {text}" for text in drawn.texts]}
    write_explanations(pd.DataFrame(said).assign(side="input", url=""), at.explanations("world", "said"))
    rows = [
        pd.DataFrame({"latent_index": latents, "behavior": name, "expected": expected})
        for name, expected in zip(names, drawn.expected, strict=True)
    ]
    judged = pd.concat(rows, ignore_index=True)
    judged = judged.assign(expected_effect=judged.expected.astype(float), confidence=np.nan, rationale="")
    at.judgements("world", "said", "lexical").parent.mkdir(parents=True, exist_ok=True)
    write_judgements(judged, at.judgements("world", "said", "lexical"))
    return plan


def tables_of_world(world: World, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Return `TABLES` of one drawn world."""
    with tempfile.TemporaryDirectory() as folder:
        plan = write_world(Path(folder), world, rng)
        write_agreement(plan, Results(folder), "world", "bias")
        analysis = analysis_of(plan, Results(folder))
        return {name: analysis.frame(name) for name in TABLES}


def found_in(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Return what a study says of its primary result.

    Returns
    -------
    dict
        silent: share of the tested explanations (those that predict something that could be tested) without a verdict;
        one entry for each other verdict; agreement: mean over behaviors; significant: share of behaviors with p < 0.05;
        specificity, and specificity_pvalue.
    """
    overall = tables["overall"][tables["overall"].primary]
    agreement = tables["agreement"][tables["agreement"].primary & (tables["agreement"].control == "none")]
    verdicts = tables["explanation_verdicts"].merge(overall[["source", "judge"]].drop_duplicates())
    tested = verdicts[verdicts.pvalue.notna()]
    of = overall.set_index("quantity")
    return {
        "explanations": len(verdicts),
        "tested": len(tested),
        "silent": float(tested.verdict.isin(SILENT).mean()),
        **{name: float((tested.verdict == name).mean()) for name in ("supported", "contradicted", "absorbed")},
        "agreement": float(of.estimate["agreement"]),
        "significant": float((agreement.pvalue.dropna() < 0.05).mean()),
        "specificity": float(of.estimate["specificity"]),
        "specificity_pvalue": float(of.pvalue["specificity"]),
    }


def simulated(name: str, n_worlds: int, *, odds_ratio: float = 1.0) -> pd.DataFrame:
    """Return what is found in each of some drawn worlds of a kind, one row each; at odds ratio 1 nothing is true."""
    world = replace(WORLDS[name], odds_ratio=odds_ratio)
    streams = [np.random.default_rng([number, *name.encode()]) for number in range(n_worlds)]
    return pd.DataFrame([found_in(tables_of_world(world, rng)) for rng in streams])


def main() -> None:
    """Print a table in Markdown, or what one finished study found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--study", type=Path)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    if arguments.study:
        plan = config.load_plan(arguments.study)
        results = Results(arguments.results or plan.results.root)
        found = found_in({name: analysis_of(plan, results).frame(name) for name in TABLES})
        print("\n".join(f"{name}: {value:.3g}" for name, value in found.items()))
        print("held" if found["silent"] >= STANDARD else "not held")
        return
    columns = ["tested explanations", "without a verdict", "supported", "contradicted", "absorbed", "agreement"]
    columns = ["world", *columns, "behaviors with p < 0.05", "specificity with p < 0.05"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name in WORLDS:
        table = simulated(name, arguments.worlds)
        half = 1.96 * table.agreement.std() / len(table) ** 0.5
        shares = [table[one].mean() for one in ("silent", "supported", "contradicted", "absorbed")]
        chances = [table.significant.mean(), (table.specificity_pvalue < 0.05).mean()]
        cells = [name, f"{table.tested.mean():.0f}", *(f"{share:.3f}" for share in shares)]
        cells += [f"{table.agreement.mean():.3f} ± {half:.3f}", *(f"{chance:.3f}" for chance in chances)]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
