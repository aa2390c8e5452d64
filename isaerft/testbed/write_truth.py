"""Writing the truth down as any other source: files of explanations, arms with known shares wrong, judgements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.files import replacing
from isaerft.subjects.load import LoadedSubject
from isaerft.testbed.concepts import all_concepts, expected_effect, in_english, word_groups
from isaerft.testbed.truth import input_truth, output_truth

WRONG_SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def write_truth(
    subject: LoadedSubject, latents: pd.DataFrame, styles: Mapping[str, str], folder: str | Path, seed: int
) -> None:
    """Write the truth under `folder`, atomically.

    input.csv, output.csv, both.csv (the two together), {side}_wrong{percent}.csv, judgements.csv, words.csv,
    concepts.csv.

    Parameters
    ----------
    latents : DataFrame
        Facts of the latents.
    styles : mapping of str to str
        Behavior -> style of the embedded language that it teaches.
    """
    rng = np.random.default_rng(seed)
    sides = {"input": input_truth(subject, rng), "output": output_truth(subject, latents, rng)}
    with replacing(folder) as temporary:
        temporary.mkdir()
        for side, truth in sides.items():
            _write_explanations(truth.latent_index, truth.concept, side, temporary / f"{side}.csv")
            when_wrong = _order_of_corruption(truth.concept.to_numpy(), rng)
            for share in WRONG_SHARES:
                concepts = corrupted(truth.concept.to_numpy(), when_wrong < share, rng)
                _write_explanations(
                    truth.latent_index, concepts, side, temporary / f"{side}_wrong{round(100 * share)}.csv"
                )
        everything = pd.concat(truth.assign(side=side) for side, truth in sides.items())
        everything.to_csv(temporary / "concepts.csv", index=False, float_format="%.6g", lineterminator="\n")
        both = pd.concat(pd.read_csv(temporary / f"{side}.csv") for side in sides)
        both.to_csv(temporary / "both.csv", index=False, lineterminator="\n")
        _judgements(all_concepts(), styles).to_csv(temporary / "judgements.csv", index=False, lineterminator="\n")
        _words(all_concepts(), styles).to_csv(temporary / "words.csv", index=False, lineterminator="\n")


def corrupted(concepts: np.ndarray, wrong: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the concepts with those of the `wrong` latents exchanged among themselves, none keeping its own.

    Where one concept holds the majority of them, what is left of it takes concepts of other latents at random.

    Parameters
    ----------
    concepts : (n,) str
    wrong : (n,) bool
    """
    result = concepts.copy()
    places = np.flatnonzero(wrong)
    mixed = rng.permutation(concepts[places])
    for i in range(len(places)):
        if mixed[i] != concepts[places[i]]:
            continue
        # Swap with a place for which both concepts are then foreign.
        partners = np.flatnonzero((mixed != concepts[places[i]]) & (concepts[places] != mixed[i]))
        foreign = concepts[concepts != concepts[places[i]]]
        if len(partners):
            j = rng.choice(partners)
            mixed[i], mixed[j] = mixed[j], mixed[i]
        elif len(foreign):
            mixed[i] = rng.choice(foreign)
    result[places] = mixed
    return result


def _order_of_corruption(concepts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each latent the share at which its explanation goes wrong, evenly spread over (0, 1).

    Evenly within each concept too, so that every arm holds its share of wrong explanations for every concept, and
    nested, so that what is wrong at 10 % is wrong at 20 %.
    """
    shares = np.empty(len(concepts))
    for concept in np.unique(concepts):
        places = np.flatnonzero(concepts == concept)
        shares[places] = (rng.permutation(len(places)) + rng.random()) / len(places)
    return (shares.argsort(kind="stable").argsort() + 0.5) / len(shares)


def _write_explanations(latents: pd.Series, concepts: np.ndarray | pd.Series, side: str, path: Path) -> None:
    table = pd.DataFrame({"latent_index": latents, "explanation": [in_english(c) for c in concepts], "side": side})
    table.to_csv(path, index=False, lineterminator="\n")


def _judgements(concepts: Iterable[str], styles: Mapping[str, str]) -> pd.DataFrame:
    rows = [
        {"explanation": in_english(concept), "behavior": behavior, "expected_effect": expected_effect(concept, style)}
        for concept in concepts
        for behavior, style in styles.items()
    ]
    return pd.DataFrame(rows)


def _words(concepts: Iterable[str], styles: Mapping[str, str]) -> pd.DataFrame:
    """Return the word list by which the `lexicon` judge reads the truth in any text about the language's words.

    A word that a latent fires on is its token's concept, one that it promotes its group's. The sentences of the other
    concepts are entries as they stand, so that true explanations keep their effect.
    """
    groups = word_groups()
    named = [(word, "input", f"token:{word}") for words in groups.values() for word in words]
    named += [(word, "output", f"promotes:{group}") for group, words in groups.items() for word in words]
    sentences = [concept for concept in concepts if not concept.startswith("token:")]
    named += [
        (in_english(concept), "output" if concept.startswith("promotes:") else "input", concept)
        for concept in sentences
    ]
    rows = [
        {"word": word, "side": side, "behavior": behavior, "effect": expected_effect(concept, style)}
        for word, side, concept in named
        for behavior, style in styles.items()
    ]
    table = pd.DataFrame(rows)
    return table[table["effect"] != 0].reset_index(drop=True)
