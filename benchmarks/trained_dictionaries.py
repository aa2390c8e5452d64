"""What do the architectures and sparsity costs of `train_sae` make of a world whose truth is known?

    python benchmarks/trained_dictionaries.py config/testbed.yaml testbed standard jumprelu topk batchtopk matryoshka
    python benchmarks/trained_dictionaries.py config/worlds.yaml hierarchy_0 standard standard-weighted --seeds 3

Model and corpus are those of a testbed subject of a study that has been run that far. Prints one row for each
dictionary, measured on dialogues that it was not trained on: L0, variance explained, the share of latents that never
fire (`dead`) and that fire on more than a tenth of the tokens (`dense`), and, over styles, how well the style's own
latent tells that the answer has the style (`f1`). Its own is the latent of the largest F1. `silent_alone` is the
share of tokens of answers in just this style on which it is silent, `silent_within` of answers in a sub-style,
`silent_both` of answers in two styles. What they exceed `silent_alone` by is what narrower latents have taken over:
absorption, or composition. `joint` counts the latents that tell a sub-style, or two styles at once, better than any
one style.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from isaerft import config
from isaerft.cli.options import open_model, open_study
from isaerft.subjects.corpus import pad_rows, read_corpus
from isaerft.subjects.dictionary import Dictionary, load_dictionary
from isaerft.subjects.hooks import run_below
from isaerft.subjects.load import LoadedModel
from isaerft.subjects.points import find_hook
from isaerft.subjects.sae import train_sae
from isaerft.testbed.dialogues import Dialogue, concepts, sample_dialogues
from isaerft.testbed.language import Language, language_of
from isaerft.testbed.model import hook_name

N_DIALOGUES = 2000
DENSE = 0.1
HELD_OUT = 99
"""Seed of the dialogues; those of a world's corpus are drawn from another stream."""


def annotated(
    model: LoadedModel, hook: str, dialogues: list[Dialogue], language: Language
) -> tuple[torch.Tensor, list[set[str]]]:
    """Return the activation (n_tokens, d_in) at every word of dialogues, and the concepts that hold there."""
    rows = [model.tokenizer(f"{item.prompt} {item.completion}")["input_ids"] for item in dialogues]
    table = pad_rows(rows, model.padding)
    kept = []
    for tokens, mask in table.batches(100):
        words = mask.bool()
        words[:, 0] = False
        kept.append(run_below(model.model, find_hook(model.model, hook), tokens, mask).activation[words].float())
    return torch.cat(kept), [held for item in dialogues for held in concepts(item, language)]


def measured(
    dictionary: Dictionary, activation: torch.Tensor, held: list[set[str]], language: Language
) -> dict[str, float]:
    """Return what the module's docstring names, of one dictionary."""
    fires = dictionary.encode(activation).dense().numpy() > 0
    rate = fires.mean(0)
    error = (activation - dictionary.reconstruct(activation)).square().sum()
    found = {
        "l0": float(fires.sum(1).mean()),
        "explained": 1 - float(error / (activation - activation.mean(0)).square().sum()),
        "dead": float((rate == 0).mean()),
        "dense": float((rate > DENSE).mean()),
    }
    styles = [style.name for style in language.styles]
    parts = {name: [part.name for part in language.substyles.get(name, ())] for name in styles}
    states = {name: np.array([f"answer:{name}" in one for one in held]) for name in language.named_styles}
    rows = []
    for name in styles:
        f1 = f1_of(fires, states[name])
        own = fires[:, f1.argmax()]
        within = np.any([states[part] for part in parts[name]], axis=0) if parts[name] else np.zeros(len(held), bool)
        both = np.any([states[other] for other in styles if other != name], axis=0)
        places = {"alone": ~within & ~both, "within": within, "both": both}
        rows.append(
            {"f1": f1.max()} | {f"silent_{place}": 1 - mean(own[states[name] & at]) for place, at in places.items()}
        )
    found |= pd.DataFrame(rows).mean().to_dict()
    singles = np.max([f1_of(fires, states[name]) for name in styles], axis=0)
    joint = [states[part] for own in parts.values() for part in own]
    joint += [
        states[one] & states[other] for i, one in enumerate(styles) for other in styles[i + 1 :] if language.composition
    ]
    if joint:
        found["joint"] = float((np.max([f1_of(fires, state) for state in joint], axis=0) > singles).sum())
    return found


def f1_of(fires: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Return how well each latent's firing (n_tokens, d_sae) tells a state (n_tokens,), (d_sae,)."""
    return 2 * fires[state].sum(0) / np.maximum(fires.sum(0) + state.sum(), 1)


def mean(values: np.ndarray) -> float:
    """Return the mean, NaN of nothing."""
    return float(values.mean()) if len(values) else float("nan")


def options_of(kind: str, arguments: argparse.Namespace) -> config.TrainSae:
    """Return options of a kind: ARCHITECTURE or ARCHITECTURE-COST."""
    architecture, _, cost = kind.partition("-")
    sizes = {"d_sae": arguments.d_sae, "tokens": arguments.tokens, "target_l0": arguments.target_l0}
    return config.TrainSae(**sizes, architecture=architecture, sparsity_cost=cost or "plain")  # type: ignore[arg-type]


def main() -> None:
    """Train and measure dictionaries, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="config of the study")
    parser.add_argument("subject")
    parser.add_argument("kinds", nargs="+", help="ARCHITECTURE or ARCHITECTURE-COST")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--d-sae", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--target-l0", type=float, default=12)
    arguments = parser.parse_args()
    opened = plan, results = open_study(arguments.study, arguments.results)
    options, model = plan.subjects[arguments.subject].testbed, open_model(opened, arguments.subject, alone=True)
    if options is None:
        parser.error(f"{arguments.subject} is not a testbed")
    language, hook = language_of(options), hook_name(options)
    rows = read_corpus(results.subject(arguments.subject).corpus)
    dialogues = list(sample_dialogues(np.random.default_rng(HELD_OUT), N_DIALOGUES, language))
    activation, held = annotated(model, hook, dialogues, language)
    for number, (kind, seed) in enumerate(product(arguments.kinds, range(arguments.seeds))):
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            train_sae(options_of(kind, arguments), model, rows, hook_name=hook, folder=f"{folder}/sae", seed=seed)
            seconds, dictionary = time.process_time() - start, load_dictionary(f"{folder}/sae")
        row = {"subject": arguments.subject, "kind": kind, "seed": seed}
        row |= measured(dictionary, activation, held, language) | {"seconds": seconds}
        print(pd.DataFrame([row]).round(3).to_csv(index=False, header=number == 0), end="", flush=True)


if __name__ == "__main__":
    main()
