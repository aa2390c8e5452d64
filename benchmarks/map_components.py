"""Does reading a learned map tell what the map does? Measured where the answer is known, on a finished study.

Maps of rank 2 that read two known latents and write two others are planted, and read as learned ones are. Then, of
the maps that the study trained (its verb map-components must have run): how often the first latent by which a
component's writing side is named has a concept of the style that was taught, against random maps; and how alike the
largest components are over seeds of one behavior, and over behaviors.

$ python benchmarks/map_components.py config/testbed.yaml --subject testbed
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from isaerft import config
from isaerft.adapters.base import LatentAdapter, make_adapter
from isaerft.adapters.model import Residual
from isaerft.changes.components import Reading
from isaerft.changes.parts import Adapter, parts_of
from isaerft.cli.options import open_study, open_subject
from isaerft.config import Plan
from isaerft.layout import Results
from isaerft.subjects.cache import read_cache

KINDS = ("low_rank", "residual")
STRENGTHS = (2.0, 1.0)
OWN = ("answer", "known", "word")
"""Kinds of concept that name a style's state or its words; what a latent promotes counts besides."""


def planted(reading: Reading, kind: str, rng: np.random.Generator) -> tuple[Adapter, np.ndarray]:
    """Return a map of rank 2 whose parts add as much as `STRENGTHS` on held-out text, and its latents [read, write]."""
    dictionary = reading.subject.dictionary
    pairs = rng.choice(reading.alive.numpy(), (2, 2), replace=False)
    adapter = made(reading, kind, 2)
    codes, residual = reading.batch.codes, reading.batch.residual.float()
    for place, (strength, (read, written)) in enumerate(zip(STRENGTHS, pairs, strict=True)):
        row = dictionary.decoder[written] / dictionary.decoder_norm[written]
        if isinstance(adapter, LatentAdapter):
            size = codes.dense()[:, read].square().mean().sqrt()
            adapter.down[read, place], adapter.up[place, written] = (
                1,
                strength / dictionary.decoder_norm[written] / size,
            )
        else:
            adapter.down[place] = dictionary.W_enc[:, read]
            size = (residual @ dictionary.W_enc[:, read]).square().mean().sqrt()
            adapter.up[:, place] = strength * row / size
    return adapter, pairs


def made(reading: Reading, kind: str, rank: int) -> Adapter:
    """Return an adapter that adds nothing."""
    adapter: Adapter = (
        make_adapter(kind, reading.subject.dictionary.d_sae, {"rank": rank})
        if kind == "low_rank"
        else Residual(reading.subject.language.d_model, rank=rank)
    ).requires_grad_(False)
    for parameter in adapter.parameters():
        parameter.zero_()
    return adapter


def first_names(reading: Reading, adapter: Adapter) -> pd.DataFrame:
    """Return the first latent by which each side of each component is named, largest component first."""
    parts = parts_of(reading.subject, adapter)
    ((split, tokens),) = reading.split(adapter, parts)
    rows = [reading.sides(parts[0], split, k, tokens) for k in range(len(split.size))]
    return pd.DataFrame([{role: row[role][0] for role in ("reads", "reads_encoder", "writes")} for row in rows])


def recovered(reading: Reading, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return the share of planted components whose sides are named by the planted latents."""
    rows = []
    for kind in KINDS:
        for _ in range(n):
            adapter, pairs = planted(reading, kind, rng)
            named = first_names(reading, adapter)
            for place, (read, written) in enumerate(pairs):
                found = named.iloc[place] if place < len(named) else None
                told = {"reads": read, "reads_encoder": read, "writes": written}
                hits = {role: found is not None and found[role] == latent for role, latent in told.items()}
                rows.append({"kind": kind, "component": place + 1} | hits)
    return pd.DataFrame(rows).groupby(["kind", "component"]).mean()


def styles_told(
    plan: Plan, concepts: pd.DataFrame, table: pd.DataFrame, reading: Reading, n: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Return how often a first name is of the style taught, for trained maps and for random ones."""
    of = concepts.groupby("latent_index")["concept"].agg(set).to_dict()

    def is_own(latent: int, behavior: str) -> bool:
        style = plan.study.behaviors[behavior].testbed
        return bool({f"{kind}:{style}" for kind in (*OWN, "promotes")} & of.get(latent, set()))

    table = table[(table["component"] > 0) & table["writes"].notna()]
    rows = []
    for (adapter, component), own in table.groupby(["adapter", "component"]):
        pairs = list(zip(own["writes"], own["behavior"], strict=True))
        rows.append(
            {
                "maps": f"{adapter}, component {component}",
                "n": len(pairs),
                "first_is_own": np.mean([is_own(latents[0], name) for latents, name in pairs]),
                "share_of_names": np.mean([is_own(latent, name) for latents, name in pairs for latent in latents]),
            }
        )
    for kind in KINDS:
        drawn = []
        for _ in range(n):
            adapter = made(reading, kind, 4)
            for parameter in adapter.parameters():
                parameter.copy_(torch.from_numpy(rng.normal(size=tuple(parameter.shape))))
            drawn.append(int(first_names(reading, adapter)["writes"].iloc[0]))
        hits = [is_own(latent, name) for latent in drawn for name in plan.study.behaviors]
        rows.append({"maps": f"random {kind}, component 1", "n": n, "first_is_own": np.mean(hits)})
    return pd.DataFrame(rows).set_index("maps")


def alike(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean absolute cosines of largest components with those of other seeds: of the behavior, and of others."""
    rows = []
    for adapter, own in table[(table["component"] == 1) & (table["part"] == "")].groupby("adapter"):
        row: dict[str, object] = {"adapter": adapter}
        for side in ("read", "write"):
            vectors = np.stack(own[f"{side}_vector"].to_list())
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            cosines = np.abs(vectors @ vectors.T)
            other_seed = own["seed"].to_numpy()[:, None] != own["seed"].to_numpy()
            same = own["behavior"].to_numpy()[:, None] == own["behavior"].to_numpy()
            row[f"{side}, same behavior"] = cosines[other_seed & same].mean()
            row[f"{side}, others"] = cosines[other_seed & ~same].mean()
        rows.append(row)
    return pd.DataFrame(rows).set_index("adapter")


def components_read(plan: Plan, layout: Results, subject: str) -> pd.DataFrame:
    """Return the components that the study's maps were split into, of all behaviors."""
    names = plan.study.behaviors
    tables = [pd.read_parquet(layout.maps(subject, name).components).assign(behavior=name) for name in names]
    return pd.concat(tables, ignore_index=True)


def main() -> None:
    """Print both measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--subject", required=True)
    parser.add_argument("--results", type=Path)
    parser.add_argument("-n", type=int, default=200, help="planted and random maps of each kind")
    given = parser.parse_args()
    opened = plan, layout = open_study(given.study, given.results)
    loaded = open_subject(opened, given.subject)
    heldout = read_cache(layout.cache(given.subject, next(iter(plan.study.behaviors))), "heldout")
    facts = layout.subject(given.subject).read_latents()
    alive = facts.latent_index[facts.firing_rate >= plan.study.agreement.min_firing_rate].to_numpy(np.int64)
    options = plan.study.map_components or config.MapComponents()
    rows = torch.arange(min(options.max_rows, len(heldout)))
    fired = torch.zeros(loaded.dictionary.d_sae, dtype=torch.bool)
    fired[heldout.batch(rows).codes.indices] = True
    firing = torch.tensor(alive)[fired[torch.tensor(alive)]]
    reading = Reading(loaded, heldout, rows, firing, options, plan.study.batch_size)
    rng = np.random.default_rng(plan.study.seed)
    print(f"{len(firing)} latents that fire on these rows: a blind guess is right in {1 / len(firing):.2%}\n")
    print(recovered(reading, given.n, rng).round(3).to_string(), "\n")
    table = components_read(plan, layout, given.subject)
    concepts = pd.read_csv(layout.subject(given.subject).truth / "concepts.csv")
    print(styles_told(plan, concepts, table, reading, given.n, rng).round(3).to_string(), "\n")
    print(alike(table).round(3).to_string())


if __name__ == "__main__":
    main()
