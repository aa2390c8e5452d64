"""The testbed's language as a world of latents whose explanations are known: contexts, explanations, and its list."""

import numpy as np
import pandas as pd
import pytest

from isaerft.explanations.contexts import BY_TOKEN, COLUMNS, read_contexts
from isaerft.testbed.dialogues import concepts, sample_dialogues
from isaerft.testbed.language import DEFAULT
from isaerft.testbed.phrases import phrase_list
from isaerft.testbed.wording import true_explanation

REACH, N_WINDOWS = 8, 6
NAMES = [f"{kind}:{style.name}" for style in DEFAULT.styles for kind in ("answer", "word")]
NAMES += [f"{kind}:{topic.name}" for topic in DEFAULT.topics for kind in ("topic", "word")]


class LanguageWorld:
    """Latents that fire exactly where a concept holds, the more the rarer the word, and promote the concept's words."""

    def __init__(self, folder):
        self.folder, self.concepts = folder, NAMES
        phrase_list(DEFAULT, 0).to_csv(folder / "phrases.csv", index=False)
        rows = [row for latent, concept in enumerate(NAMES) for row in self._contexts(latent, concept)]
        pd.DataFrame(rows, columns=[*COLUMNS, *BY_TOKEN]).to_parquet(folder / "scored.parquet")
        self.contexts = read_contexts(folder / "scored.parquet")

    def explained(self, shift=0):
        """Return explanations; with a shift, each latent's is that of another one."""
        texts = [true_explanation(NAMES[(latent + shift) % len(NAMES)], latent % 24) for latent in range(len(NAMES))]
        return pd.DataFrame({"latent_index": range(len(NAMES)), "explanation": texts, "side": "input", "url": ""})

    def _contexts(self, latent, concept):
        rng = np.random.default_rng(latent)
        found = {"heldout": [], "silent": []}
        for item in sample_dialogues(rng, 400, DEFAULT):
            held = [concept in names for names in concepts(item, DEFAULT)]
            at = int(rng.choice(np.flatnonzero(held) if any(held) else len(held)))
            start, end = max(0, at - REACH), min(len(held), at + REACH + 1)
            values = [float(h) * rng.uniform(0.5, 1.5) for h in held[start:end]]
            words = [f" {word}" for word in item.words[start:end]]
            found["heldout" if any(held) else "silent"].append((at - start, words, values))
        for side, windows in found.items():
            for rank, (at, words, values) in enumerate(windows[:N_WINDOWS]):
                yield _row(latent, side, rank, words, at, values)
                quiet = [place for place, value in enumerate(values) if not value]
                if side == "heldout" and quiet:
                    yield _row(latent, "unmarked", rank, words, int(rng.choice(quiet)))
        own = DEFAULT.word_groups[concept.split(":")[1]]
        plain = DEFAULT.word_groups["plain"]
        for rank, word in enumerate(rng.permutation(own)[:6]):
            yield _row(latent, "amplified_heldout", rank, [f" {word}"], 0)
        for rank in range(N_WINDOWS):
            said = {"steered": [*rng.choice(own, 3), *rng.choice(plain, 5)], "unsteered": rng.choice(plain, 8)}
            for side, words in said.items():
                yield _row(latent, side, rank, ["", f" {' '.join(words)}"], 0) | {"value": float(side == "steered")}


def _row(latent, side, rank, words, at, values=None):
    fields = (latent, side, rank, words[at], "".join(words[:at]), "".join(words[at + 1 :]), 0.0)
    shown = dict(zip(COLUMNS, fields, strict=True))
    if values is None:
        return shown
    return shown | {"value": values[at], "tokens": words, "activations": values}


@pytest.fixture(scope="session")
def language_world(tmp_path_factory):
    return LanguageWorld(tmp_path_factory.mktemp("language"))
