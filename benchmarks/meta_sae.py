"""Does a meta-SAE say what latents are composed of? Measured where the truth is known, on a testbed subject of a study.

    python benchmarks/meta_sae.py config/worlds.yaml composition_0

Prints how much of a decoder row its parts explain, beside as many random directions; and, in
a world whose answers can have two styles at once, for each latent that tells two styles at once better than any one
style: how often it shares a meta-latent with the own latents of its two styles, and with those of the other styles.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from trained_dictionaries import HELD_OUT, N_DIALOGUES, annotated, f1_of

from isaerft import config
from isaerft.cli.options import open_model, open_study
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.meta import composition
from isaerft.testbed.dialogues import sample_dialogues
from isaerft.testbed.language import language_of
from isaerft.testbed.model import hook_name


def main() -> None:
    """Train meta-SAEs on a subject's decoder rows and on random ones, and print what they explain and share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="config of the study")
    parser.add_argument("subject")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    opened = plan, results = open_study(arguments.study, arguments.results)
    options, model = plan.subjects[arguments.subject].testbed, open_model(opened, arguments.subject, alone=True)
    if options is None:
        parser.error(f"{arguments.subject} is not a testbed")
    language, dictionary = language_of(options), load_dictionary(results.subject(arguments.subject).sae)
    dialogues = list(sample_dialogues(np.random.default_rng(HELD_OUT), N_DIALOGUES, language))
    activation, held = annotated(model, hook_name(options), dialogues, language)
    fires = dictionary.encode(activation).dense().numpy() > 0
    alive = np.flatnonzero(fires.any(0))
    rows = dictionary.decoder[torch.from_numpy(alive)]
    meta = plan.study.meta_sae or config.MetaSae()
    found = composition(rows, meta, arguments.seed)
    drawn = torch.randn(rows.shape, generator=torch.Generator().manual_seed(arguments.seed))
    for name, frame in (("decoder rows", found), ("random directions", composition(drawn, meta, arguments.seed))):
        one = frame.drop_duplicates("latent_index")
        n_parts = frame["meta_latent"].notna().sum() / len(one)
        print(
            f"{name}: {len(one)} of {n_parts:.1f} parts each, which explain {one['explained'].mean():.2f}", flush=True
        )
    if language.composition:
        print(shared_by_pairs(found, fires[:, alive], held, [style.name for style in language.styles]))


def shared_by_pairs(found: pd.DataFrame, fires: np.ndarray, held: list[set[str]], styles: list[str]) -> str:
    """Return how often latents of two styles share a meta-latent with the own latents of these, and of other styles."""
    parts = found.dropna().groupby("latent_index")["meta_latent"].agg(set).to_dict()
    states = {name: np.array([f"answer:{name}" in one for one in held]) for name in styles}
    scores = {name: f1_of(fires, state) for name, state in states.items()}
    pairs = list(combinations(styles, 2))
    joint = np.array([f1_of(fires, states[one] & states[other]) for one, other in pairs])
    telling = np.flatnonzero(joint.max(0) > np.max(list(scores.values()), axis=0))
    own, others = [], []
    for latent in telling:
        for name in styles:
            shared = bool(parts.get(latent, set()) & parts.get(int(scores[name].argmax()), set()))
            (own if name in pairs[joint[:, latent].argmax()] else others).append(shared)
    return (
        f"{len(telling)} latents of two styles share a meta-latent with {np.mean(own):.2f} of the own latents of these"
        f" styles, and with {np.mean(others):.2f} of other styles'"
    )


if __name__ == "__main__":
    main()
