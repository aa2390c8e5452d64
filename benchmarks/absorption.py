"""Absorption where it is planted: which pattern between encoder and decoder finds it, and how often is it wrong?

    python benchmarks/absorption.py --worlds 20
    python benchmarks/absorption.py --study config/worlds.yaml --subject hierarchy_0      # of a study that has been run
    python benchmarks/absorption.py --sae data/smollm2/block_15 data/smollm2/block_20     # all latents taken as living

Planted: features of a hierarchy, of which a child is only ever present with its parent, others that are independent,
and pairs whose directions overlap although they are independent. A sparse autoencoder is trained on their sums; that it
must be sparse makes it absorb (the toy model of Chanin et al. 2024, arXiv 2409.14507). Truth comes from activations: a
parent's latent is absorbed if it is silent where a child is present, while a latent of the child fires and carries the
parent's direction. Half of the worlds of all kinds of autoencoders set the thresholds, the others are held out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from isaerft.analysis.explanation_verdicts import LEAST_ABSORPTION
from isaerft.cli.options import open_study, open_subject
from isaerft.config import Plan
from isaerft.layout import Results
from isaerft.subjects.absorption import find_absorbers, standing_out
from isaerft.subjects.dictionary import Dictionary, load_dictionary
from isaerft.subjects.hooks import run_below
from isaerft.testbed.dialogues import concepts, sample_dialogues
from isaerft.testbed.language import Language, language_of
from isaerft.testbed.truth import _dialogues_as_rows

D_IN, N_TOKENS, N_MEASURED = 48, 20_000, 6000
CHILDREN = (1, 1, 2, 2, 3)
"""Children of each parent. A parent is as often without any child as with each one."""
N_ORDINARY, N_OVERLAPPING = 12, 4
N_LATENTS, ACTIVE = 34, 2
STEPS, BATCH, LEARNING_RATE = 1500, 200, 1e-2
PENALTY = {"relu": 0.2, "jumprelu": 0.1, "topk": 0.0}
SOFTNESS = 0.05
LEVEL = 0.05
"""Share of the latents without absorption that may be flagged in the worlds that set the threshold."""
RECALL, PRECISION, SILENT, CARRIED = 0.5, 0.5, 0.2, 0.5
LEAST_RATE = 1e-3


@dataclass(frozen=True)
class Planted:
    """Features of one world.

    Attributes
    ----------
    tokens : (n_tokens, D_IN) float32
        Sums of the features that are present, and a little noise.
    present : (n_tokens, n_features) bool
    families : list of (int, tuple of int)
        Each parent and its children.
    overlapping : (n_features,) bool
        Features that share a direction with another although the two are independent.
    """

    tokens: np.ndarray
    present: np.ndarray
    families: list[tuple[int, tuple[int, ...]]]
    overlapping: np.ndarray

    @classmethod
    def draw(cls, seed: int) -> Planted:
        """Draw a world."""
        rng = np.random.default_rng([seed, 7])
        present: list[np.ndarray] = []
        directions: list[np.ndarray] = []
        families = []

        def add(where: np.ndarray, direction: np.ndarray | None = None) -> int:
            drawn = rng.normal(size=D_IN) if direction is None else direction
            present.append(where)
            directions.append(drawn / np.linalg.norm(drawn))
            return len(present) - 1

        for n_children in CHILDREN:
            anywhere = rng.random(N_TOKENS) < 0.04 * (n_children + 1)
            which = rng.integers(0, n_children + 1, N_TOKENS)
            parent = add(anywhere)
            families.append((parent, tuple(add(anywhere & (which == one + 1)) for one in range(n_children))))
        for number in range(N_ORDINARY):
            add(rng.random(N_TOKENS) < (0.12, 0.04, 0.04)[number % 3])
        n_apart = len(present)
        for _ in range(N_OVERLAPPING):
            first = directions[add(rng.random(N_TOKENS) < 0.06)]
            other = rng.normal(size=D_IN)
            add(rng.random(N_TOKENS) < 0.06, first + other / np.linalg.norm(other))
        where = np.stack(present, axis=1)
        sizes = np.clip(1 + 0.1 * rng.normal(size=where.shape), 0.3, None)
        tokens = (where * sizes) @ np.stack(directions) + 0.01 * rng.normal(size=(N_TOKENS, D_IN))
        return cls(tokens.astype(np.float32), where, families, np.arange(where.shape[1]) >= n_apart)


def trained(worlds: Sequence[Planted], kind: str) -> list[Dictionary]:
    """Train a sparse autoencoder on each world, all at once.

    Parameters
    ----------
    kind : {"relu", "jumprelu", "topk"}
        With an L1 penalty; with an L0 penalty, and in training a soft threshold in place of the hard one; with the
        `ACTIVE` largest activations of each token.
    """
    tokens = torch.from_numpy(np.stack([world.tokens for world in worlds]))
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(len(worlds), N_LATENTS, D_IN, generator=rng)
    W_dec = (0.3 * start / start.norm(dim=-1, keepdim=True)).requires_grad_()
    W_enc = W_dec.detach().transpose(1, 2).clone().requires_grad_()
    b_enc = torch.zeros(len(worlds), 1, N_LATENTS, requires_grad=True)
    b_dec = torch.zeros(len(worlds), 1, D_IN, requires_grad=True)
    threshold = torch.full((len(worlds), 1, N_LATENTS), 0.1, requires_grad=kind == "jumprelu")
    optimizer = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec, threshold], lr=LEARNING_RATE)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1, (STEPS - step) / (0.3 * STEPS))
        batch = tokens[:, torch.randint(N_TOKENS, (BATCH,), generator=rng)]
        before, norm = (batch - b_dec) @ W_enc + b_enc, W_dec.norm(dim=-1)[:, None]
        active = torch.relu(before)
        cost = active * norm
        if kind == "topk":
            top = active.topk(ACTIVE, dim=-1)
            active = torch.zeros_like(active).scatter(-1, top.indices, top.values)
        elif kind == "jumprelu":
            cost = torch.sigmoid((before * norm - threshold) / SOFTNESS)
            active = active * cost
        error = (active @ W_dec + b_dec - batch).square().sum(-1).mean(1).sum()
        loss = error + PENALTY[kind] * min(1, step / (0.1 * STEPS)) * cost.sum(-1).mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    reached = threshold / W_dec.norm(dim=-1)[:, None]
    return [
        Dictionary(
            W_enc=W_enc[i].detach(),
            b_enc=b_enc[i, 0].detach(),
            W_dec=W_dec[i].detach(),
            b_dec=b_dec[i, 0].detach(),
            threshold=reached[i, 0].detach() if kind == "jumprelu" else None,
            gate=None,
            k=ACTIVE if kind == "topk" else None,
            apply_b_dec_to_input=True,
            center=False,
            hook_name="",
            neuronpedia_id="",
        )
        for i in range(len(worlds))
    ]


@dataclass(frozen=True)
class Measured:
    """What a dictionary's latents do on tokens of known states.

    Attributes
    ----------
    tokens : (n, d_in) float32
    active : (n, d_sae) float32
        Activations of the latents.
    decoder : (d_sae, d_in) float32
    """

    tokens: np.ndarray
    active: np.ndarray
    decoder: np.ndarray

    @classmethod
    def of(cls, dictionary: Dictionary, tokens: np.ndarray) -> Measured:
        """Encode tokens."""
        with torch.no_grad():
            active = dictionary.encode_dense(torch.from_numpy(tokens)).numpy()
        return cls(tokens, active, dictionary.W_dec.numpy())

    def latents_of(self, state: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Return which latents are of a state (n,) bool: precise for it, and firing on most of the tokens `where`."""
        fires = self.active > 0
        precision = fires[state].sum(0) / np.maximum(fires.sum(0), 1)
        return (precision >= PRECISION) & (fires[where].mean(0) >= RECALL)

    def absorbed_by(
        self, parent: np.ndarray, children: Sequence[np.ndarray], others: np.ndarray
    ) -> set[tuple[int, int]]:
        """Return the pairs (absorbed latent of the parent, latent of a child), from states (n,) bool each.

        `others` are tokens without the parent; the parent's direction is how far its tokens without any child differ
        from them.
        """
        alone = parent & ~np.any(children, axis=0)
        direction = self.tokens[alone].mean(0) - self.tokens[others].mean(0)
        share = self.decoder @ direction / (direction @ direction)
        usual, pairs = self.active[alone].mean(0), set()
        for child in children:
            here = self.active[child].mean(0)
            silent = self.latents_of(parent, alone) & (here <= SILENT * usual)
            carries = self.latents_of(child, child) & (here * share >= CARRIED)
            pairs |= {(int(i), int(j)) for i in np.flatnonzero(silent) for j in np.flatnonzero(carries) if i != j}
        return pairs

    def family_of(self, parent: np.ndarray) -> np.ndarray:
        """Return which latents have to do with a parent or its children, (d_sae,) bool."""
        fires = self.active > 0
        return fires[parent].sum(0) >= PRECISION * np.maximum(fires.sum(0), 1)


def patterns_of(dictionary: Dictionary, alive: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each pattern's scores of the living latents, and the absorber that it names, (n_alive,) each.

    The first is `find_absorbers`, as facts have it. The others are measured against the dictionary in the same way.
    """
    found, living = find_absorbers(dictionary, alive), np.flatnonzero(alive)
    unit = torch.nn.functional.normalize
    reads = unit(dictionary.W_enc.T[living], dim=1).numpy()
    writes = unit(dictionary.W_dec[living], dim=1).numpy()
    pairs = {
        "what both write, less what it reads": writes @ writes.T - reads @ writes.T,
        "what both write": writes @ writes.T,
    }
    own = -(reads * writes).sum(1)
    scores = {
        "asymmetry of a pair": (found.scores[living], found.latents[living]),
        "encoder against decoder, one latent": (standing_out(own), np.full(len(living), -1)),
    }
    for name, values in pairs.items():
        np.fill_diagonal(values, -np.inf)
        scores[name] = (standing_out(values.max(1)), living[values.argmax(1)])
    return scores


def rows_of(world: Planted, dictionary: Dictionary) -> pd.DataFrame:
    """Return a row for each living latent and pattern.

    Returns
    -------
    DataFrame
        pattern, role (absorbed, absorber, overlapping or ordinary; latents of a family that are neither absorbed nor
        absorbers have no row), score, right (whether the named absorber is one).
    """
    measured = Measured.of(dictionary, world.tokens[:N_MEASURED])
    present, fires = world.present[:N_MEASURED], measured.active > 0
    alive = fires.mean(0) >= LEAST_RATE
    pairs, family = set[tuple[int, int]](), np.zeros(len(alive), bool)
    for parent, children in world.families:
        state = present[:, parent]
        pairs |= measured.absorbed_by(state, [present[:, one] for one in children], ~state)
        family |= measured.family_of(state)
    together = fires.T.astype(np.float32) @ present
    feature = (together / (fires.sum(0)[:, None] + present.sum(0))).argmax(1)
    role = np.where(world.overlapping[feature], "overlapping", np.where(family, "", "ordinary")).astype(object)
    role[[j for _, j in pairs]] = "absorber"
    role[[i for i, _ in pairs]] = "absorbed"
    rows = []
    for pattern, (scores, named) in patterns_of(dictionary, alive).items():
        living = np.flatnonzero(alive)
        right = [(int(i), int(j)) in pairs for i, j in zip(living, named, strict=True)]
        rows.append(pd.DataFrame({"pattern": pattern, "role": role[living], "score": scores, "right": right}))
    table = pd.concat(rows, ignore_index=True)
    return table[table.role != ""]


def planted(seeds: Iterable[int], kind: str) -> pd.DataFrame:
    """Return the rows of some worlds."""
    worlds = [Planted.draw(seed) for seed in seeds]
    return pd.concat([rows_of(*both) for both in zip(worlds, trained(worlds, kind), strict=True)], ignore_index=True)


def calibrated(fitted: pd.DataFrame, heldout: pd.DataFrame) -> pd.DataFrame:
    """Return how each pattern does in held-out worlds at the threshold of the others, one row each.

    Returns
    -------
    DataFrame
        pattern, n (absorbed latents), auroc (absorbed against ordinary and overlapping latents), threshold,
        sensitivity, specificity, overlapping and absorber (share flagged of these), right (absorbers named right, of
        the flagged).
    """
    rows = []
    for pattern, table in heldout.groupby("pattern", sort=False):
        before = fitted[(fitted.pattern == pattern) & fitted.role.isin(["ordinary", "overlapping"])]
        threshold = float(before.score.quantile(1 - LEVEL))
        scores = {role: part.score.to_numpy() for role, part in table.groupby("role")}
        yes, no = scores["absorbed"], np.concatenate([scores["ordinary"], scores["overlapping"]])
        flagged = table[(table.role == "absorbed") & (table.score >= threshold)]
        rows.append(
            {
                "pattern": pattern,
                "n": len(yes),
                "auroc": float((yes[:, None] > no).mean() + (yes[:, None] == no).mean() / 2),
                "threshold": threshold,
                "sensitivity": float((yes >= threshold).mean()),
                "specificity": float((no < threshold).mean()),
                **{role: float((scores[role] >= threshold).mean()) for role in ("overlapping", "absorber")},
                "right": float(flagged.right.mean()) if len(flagged) else np.nan,
            }
        )
    return pd.DataFrame(rows)


def styles_of(measured: Measured, language: Language, held: Sequence[set[str]]) -> dict[str, int]:
    """Return how many latents of styles and sub-styles a testbed's dictionary has, and how many pairs are absorbed."""
    found = {"latents of styles": 0, "latents of sub-styles": 0, "absorbed pairs": 0}

    def holds(name: str) -> np.ndarray:
        return np.array([name in one for one in held])

    for kind, turn in (("answer", "turn:assistant"), ("asked", "turn:user")):
        for style, parts in language.substyles.items():
            parent, children = holds(f"{kind}:{style}"), [holds(f"{kind}:{part.name}") for part in parts]
            alone = parent & ~np.any(children, axis=0)
            found["latents of styles"] += int(measured.latents_of(parent, alone).sum())
            found["latents of sub-styles"] += sum(int(measured.latents_of(one, one).sum()) for one in children)
            found["absorbed pairs"] += len(measured.absorbed_by(parent, children, holds(turn) & ~parent))
    return found


def flagged(dictionary: Dictionary, alive: np.ndarray) -> dict[str, float]:
    """Return the number of living latents, and the share of them that can have been absorbed."""
    scores = find_absorbers(dictionary, alive).scores[alive]
    return {"living latents": len(scores), "share flagged": float((scores >= LEAST_ABSORPTION).mean())}


def of_study(opened: tuple[Plan, Results], subject: str, n_dialogues: int) -> dict[str, float]:
    """Return what a subject's dictionary has: the share of its living latents that is flagged, and known absorption."""
    loaded = open_subject(opened, subject)
    options = opened[0].subjects[subject].testbed
    language = language_of(options) if options else None
    facts = opened[1].subject(subject).read_latents()
    alive = (facts.firing_rate > 0).to_numpy()
    found = flagged(loaded.dictionary, alive)
    if language is None or not language.substyles:
        return found
    dialogues = list(sample_dialogues(np.random.default_rng(0), n_dialogues, language.first_list))
    table, _ = _dialogues_as_rows(loaded, dialogues)
    activation = run_below(loaded.model, loaded.hook, table.tokens, table.mask).activation
    kept = table.mask.bool()
    kept[:, 0] = False
    held = [names for item in dialogues for names in concepts(item, language)]
    return found | styles_of(Measured.of(loaded.dictionary, activation[kept].detach().numpy()), language, held)


def main() -> None:
    """Print a table in Markdown, or what was found in the dictionary of a study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=20, help="half of them set the threshold")
    parser.add_argument("--study", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--subject", nargs="+", default=[])
    parser.add_argument("--dialogues", type=int, default=600)
    parser.add_argument("--sae", type=Path, nargs="+", default=[])
    arguments = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for folder in arguments.sae:
        dictionary = load_dictionary(folder)
        found[str(folder)] = flagged(dictionary, np.ones(dictionary.d_sae, bool))
    if arguments.study:
        opened = open_study(arguments.study, arguments.results)
        found |= {subject: of_study(opened, subject, arguments.dialogues) for subject in arguments.subject}
    if found:
        for name, numbers in found.items():
            print(name, ", ".join(f"{what}: {value:.3g}" for what, value in numbers.items()), sep=": ")
        return
    half = arguments.worlds // 2
    columns = ["dictionary", "pattern", "absorbed latents", "AUROC", "threshold", "sensitivity", "specificity"]
    columns += ["overlapping flagged", "absorbers flagged", "absorber named right"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    fitted = pd.concat([planted(range(half), kind) for kind in PENALTY])
    for kind in PENALTY:
        for row in calibrated(fitted, planted(range(half, 2 * half), kind)).itertuples(index=False):
            numbers = [f"{value:.2f}" for value in row[2:]]
            print("| " + " | ".join([kind, row.pattern, str(row.n), *numbers]) + " |", flush=True)


if __name__ == "__main__":
    main()
