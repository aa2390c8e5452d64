"""Explanations for the benchmark of scorers: right ones, and six kinds of wrong ones at known shares.

| kind | a wrong explanation names |
|---|---|
| another | the concept of another latent, neither broader nor narrower than the truth |
| too_broad | a concept that holds wherever the truth does, and at least as often elsewhere |
| too_narrow | a concept that holds only where the truth does, and at most half as often |
| other_side | what the latent does on the other side: what it promotes, as what it fires on, or the reverse |
| neighbor | the concept of the latent whose decoder row is nearest |
| half_true | the truth, and the concept of another latent |

A concept is wrong for a latent if it fits at most half as well as the truth (`Fits`). Every concept that is said is
true of some latent of that side, but for the other side's, and wrong explanations name it hardly more often than right
ones. So what is said tells little of whether it is wrong.

Each explanation, right or wrong, names things twice, in a frame and two lengths that a hash of latent, side and seed
draws: ``in most contexts, fires on a refusing answer in progress or words said ...``. Only a half-true explanation
names two concepts there, so neither length nor frame nor template tells it from the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import permutations

import numpy as np
import pandas as pd

from isaerft.testbed.language import Language, expected_effect
from isaerft.testbed.wording import FRAMES, N_LENGTHS, hashed, in_frame, noun_phrases

SHARES = (0.1, 0.4)
RIGHT = "right"
KINDS = ("another", "too_broad", "too_narrow", "other_side", "neighbor", "half_true")
MOST_FITTING = 0.5
"""A wrong concept fits its latent at most this share as well as the true one."""
MOST_OVERSAID = 2.0
"""How many times as often as right explanations wrong ones may name a concept, besides once."""
MOST_LONGER = 4.0
"""Largest difference between the mean lengths of the phrases for a wrong concept and for the truth, in characters."""
JOINED = " or "
AND = "&"
"""Joins the two concepts of a half-true explanation in the key."""
_LENGTHS = tuple(permutations(range(N_LENGTHS), 2))
N_PAIR_WORDINGS = len(FRAMES) * len(_LENGTHS) * 2


@dataclass(frozen=True)
class Fits:
    """How well each concept describes each latent of one side.

    Attributes
    ----------
    latents : (n,) int64
    names : list of str
        The concepts.
    values : (n, n_concepts) float
        Larger is better; 0 or less says nothing about the latent.
    within : (n_concepts, n_concepts) bool
        Whether the first holds only where the second, which is broader, does.
    """

    latents: np.ndarray
    names: list[str]
    values: np.ndarray
    within: np.ndarray


@dataclass(frozen=True)
class Known:
    """What is known of the latents of one side.

    Attributes
    ----------
    fits : Fits
    concepts : list of str
        The true concept of each latent.
    elsewhere : mapping of int to str
        Latent -> its true concept on the other side.
    decoder : (d_sae, d_model) float
        The directions that latents write.
    """

    language: Language
    side: str
    fits: Fits
    concepts: list[str]
    elsewhere: Mapping[int, str]
    decoder: np.ndarray

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many latents have each concept."""
        return {name: self.concepts.count(name) for name in sorted(set(self.concepts))}

    @cached_property
    def _column(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.fits.names)}

    def is_wrong(self, place: int, name: str) -> bool:
        """Tell whether a concept fits a latent at most half as well as the truth."""
        values, truth = self.fits.values[place], self.concepts[place]
        fit = values[self._column[name]] if name in self._column else 0.0
        return name != truth and bool(fit <= MOST_FITTING * values[self._column[truth]])

    def wrong_names(self, place: int) -> list[str]:
        """Return the concepts of latents that are wrong for the latent at a place."""
        names = np.array(list(self.counts))
        fits = self.fits.values[place][[self._column[name] for name in names]]
        wrong = fits <= MOST_FITTING * self.fits.values[place][self._column[self.concepts[place]]]
        return [str(name) for name in names[wrong & (names != self.concepts[place])]]

    def lies_within(self, narrow: str, broad: str) -> bool:
        """Tell whether the first concept holds only where the second does, and more rarely."""
        return bool(self.fits.within[self._column[narrow], self._column[broad]])


def said_of(known: Known, place: int) -> dict[str, list[str]]:
    """Return kind -> the concepts that a wrong explanation of the latent at a place may name; a kind may have none."""
    truth = known.concepts[place]
    wrong = known.wrong_names(place)
    broader = [name for name in wrong if known.lies_within(truth, name)]
    narrower = [name for name in wrong if known.lies_within(name, truth)]
    unrelated = [name for name in wrong if name not in {*broader, *narrower}]
    other = as_on_the_other_side(known.elsewhere.get(int(known.fits.latents[place]), ""), known.language)
    return {
        "another": unrelated,
        "too_broad": broader,
        "too_narrow": narrower,
        "other_side": [other] if other and known.is_wrong(place, other) else [],
        "neighbor": [name for name in _nearest(known, place) if name in wrong][:1],
        "half_true": unrelated,
    }


def as_on_the_other_side(concept: str, language: Language) -> str:
    """Return a concept of one side as a claim about the other; "" where the other side has no such concept.

    What promotes a group of words is said to fire on them, and what fires on a style, a topic or their words to promote
    these.
    """
    kind, _, name = concept.partition(":")
    if kind == "token":
        name = next((group for group, words in language.word_groups.items() if name in words), "")
    other = f"word:{name}" if kind == "promotes" else f"promotes:{name}"
    return other if other in language.concepts else ""


def _nearest(known: Known, place: int) -> Iterator[str]:
    """Yield the concepts of the other latents, by the cosine of their decoder rows, the nearest first."""
    rows = known.decoder[known.fits.latents]
    cosines = rows @ rows[place] / np.maximum(np.linalg.norm(rows, axis=1) * np.linalg.norm(rows[place]), 1e-12)
    cosines[place] = -np.inf
    for near in np.argsort(-cosines, kind="stable"):
        yield known.concepts[near]


def wrong_explanations(known: Known, order: np.ndarray, n_wrong: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return latent_index, kind and said of the first `n_wrong` latents in an `order` that can be explained wrongly.

    The kinds are divided evenly: each latent gets, of those that exist for it, the one with the fewest so far. The
    commoner a concept is, the more often it is said, and among k wrong explanations at most `MOST_OVERSAID` times as
    often as among k right ones, and once: else what is said would tell right from wrong. Its phrases are about as long
    as the truth's, the likelier the nearer: else length would. The first of a longer list are a shorter list.

    Parameters
    ----------
    order : (n,) int
        Places of the latents.
    """
    counts, times = dict.fromkeys(KINDS, 0), Counter[str]()
    rows: list[dict[str, object]] = []
    for place in order:
        if len(rows) == n_wrong:
            break
        limit, length = MOST_OVERSAID * len(rows) / len(known.concepts), mean_length(known.concepts[place])
        options = {
            kind: [
                name
                for name in names
                if times[name] < 1 + limit * known.counts.get(name, 0)
                and abs(mean_length(name) - length) <= MOST_LONGER
            ]
            for kind, names in said_of(known, int(place)).items()
        }
        choices = {kind: names for kind, names in options.items() if names}
        if not choices:
            continue
        fewest = min(counts[kind] for kind in choices)
        kind = str(rng.choice([kind for kind in choices if counts[kind] == fewest]))
        counts[kind] += 1
        weights = np.array(
            [known.counts.get(name, 1) * np.exp(-abs(mean_length(name) - length)) for name in choices[kind]]
        )
        said = str(rng.choice(choices[kind], p=weights / weights.sum()))
        times[said] += 1
        rows.append({"latent_index": int(known.fits.latents[place]), "kind": kind, "said": said})
    return pd.DataFrame(rows, columns=["latent_index", "kind", "said"])


@cache
def mean_length(concept: str) -> float:
    """Return the mean length of the phrases that name a concept, in characters."""
    return float(np.mean([len(phrase) for phrase in noun_phrases(concept)]))


def benchmark_key(known: Known, wrong_from: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Return the key of one side: latent_index, side, share, kind, said and true, for each share in `SHARES`.

    Shares are of the latents that are `known`.

    Parameters
    ----------
    wrong_from : (n,) float
        Latents in this order become wrong first.
    """
    n = len(known.concepts)
    wrong = wrong_explanations(known, np.argsort(wrong_from, kind="stable"), round(max(SHARES) * n), rng)
    parts = []
    for share in SHARES:
        chosen = {row.latent_index: (row.kind, row.said) for row in wrong.iloc[: round(share * n)].itertuples()}
        for latent, true in zip(known.fits.latents.tolist(), known.concepts, strict=True):
            kind, said = chosen.get(latent, (RIGHT, true))
            parts.append((latent, known.side, share, kind, f"{true}{AND}{said}" if kind == "half_true" else said, true))
    return pd.DataFrame(parts, columns=["latent_index", "side", "share", "kind", "said", "true"])


def benchmark_texts(key: pd.DataFrame, seed: int) -> list[str]:
    """Return the explanation of each row of a key."""
    drawn = [
        hashed(f"{seed}/benchmark/{side}/{latent}", N_PAIR_WORDINGS)
        for latent, side in zip(key["latent_index"], key["side"], strict=True)
    ]
    return [pair_explanation(said, wording) for said, wording in zip(key["said"], drawn, strict=True)]


def pair_explanation(said: str, wording: int) -> str:
    """Return an explanation in one of `N_PAIR_WORDINGS` wordings that names one concept twice, or two ("a&b") once."""
    frame, rest = divmod(wording, 2 * len(_LENGTHS))
    lengths, turned = divmod(rest, 2)
    concepts = concepts_said(said)
    named = (concepts[0], concepts[-1])[:: -1 if turned else 1]
    phrases = [noun_phrases(concept)[length] for concept, length in zip(named, _LENGTHS[lengths], strict=True)]
    return in_frame(named[0], JOINED.join(phrases), frame)


def concepts_said(said: str) -> list[str]:
    """Return the concepts that an explanation names: one, or the two of a half-true one."""
    return said.split(AND)


def effect_said(said: str, style: str) -> float:
    """Return the effect of training on a style that an explanation predicts: the mean over the concepts it names."""
    return float(np.mean([expected_effect(concept, style) for concept in concepts_said(said)]))


def judgements_of(key: pd.DataFrame, texts: Sequence[str], styles: Mapping[str, str]) -> pd.DataFrame:
    """Return the expected effect of each distinct explanation of a key on each behavior."""
    said = dict(zip(texts, key["said"], strict=True))
    rows = [
        (text, behavior, effect_said(name, style)) for text, name in said.items() for behavior, style in styles.items()
    ]
    return pd.DataFrame(rows, columns=["explanation", "behavior", "expected_effect"])
