"""The lexical judge: an explanation matches a behavior if they share words and parts of words.

TF-IDF with sublinear term frequency (Manning, Raghavan and Schütze 2008, "Introduction to Information Retrieval", 6.4)
over words, and over 4 to 6 characters within words, so that "refuses" matches "refusal" without a stemmer. The two
cosines are averaged. Only function words are left out: the usual stop word lists include "please" and "cannot", which
some behaviors are about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from isaerft.config import Judge
from isaerft.judges.base import DECIMALS, distinct_texts, judgements, refuse_options, top_share

TOP_WORDS = 3
BLOCK = 8192
_FUNCTION_WORDS = re.compile(
    r"\W+|\b(?:a|an|the|and|or|of|to|in|on|at|by|for|from|with|as|that|which|this|these|those|it|its|is|are|was|were|be|been"
    r"|being|has|have|had|such|than|then|also|into|their|there|when|while|other)\b"
)


def lexical(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path
) -> pd.DataFrame:
    """Judge by shared words; see `isaerft.judges.base.JudgeFunction`.

    The expected effect is the similarity to the behavior's description minus the explanation's mean similarity to all
    behaviors, so that a general explanation matches none of them (with one behavior, the similarity itself). An
    explanation that shares nothing with any behavior gets exactly 0. `expected` is the top `judge.expected_share` of
    the latents per behavior (see `top_share`). The rationale of an expected pair names the shared words of most weight.
    """
    refuse_options(judge, "a lexical")
    texts, position = distinct_texts(explanations)
    descriptions = list(behaviors.values())
    content = [" ".join(_FUNCTION_WORDS.sub(" ", text.lower()).split()) for text in [*texts, *descriptions]]
    words, parts = _weigh_both(content)
    similarity = (_cosines(words.weights, len(texts)) + _cosines(parts.weights, len(texts))) / 2
    effects = centered_over_behaviors(similarity)[position]
    expected = top_share(effects, judge.expected_share)
    rationale = np.full(effects.shape, "", dtype=object)
    for column in range(len(descriptions)):
        rows = np.flatnonzero(expected[:, column])
        rationale[rows, column] = words.shared(position[rows], len(texts) + column)
    return judgements(explanations, behaviors, effects, expected=expected, rationale=rationale)


def centered_over_behaviors(similarity: np.ndarray) -> np.ndarray:
    """Return similarities, (n_texts, n_behaviors), minus each text's mean over behaviors if there are several.

    They are rounded to 6 decimals, so that rounding errors neither make nor break ties, and clipped to [-1, 1].
    """
    if similarity.shape[1] > 1:
        similarity = similarity - similarity.mean(axis=1, keepdims=True)
    return np.asarray(np.clip(np.round(similarity, DECIMALS), -1, 1) + 0.0)


def similarity_of_pairs(texts: list[str], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the mean of both cosines for pairs of texts, (n_pairs,) float64; function words count too.

    Parameters
    ----------
    texts : list of str
        All texts, over which inverse document frequencies are taken.
    first, second : (n_pairs,) int64
        Indices of the texts of each pair.
    """
    words, parts = _weigh_both([text.lower() for text in texts])
    cosines = [_cosines_of_pairs(terms.weights, first, second) for terms in (words, parts)]
    return np.asarray((cosines[0] + cosines[1]) / 2)


class _Weighted:
    """TF-IDF weights of texts, (n_texts, n_terms) sparse with rows of unit length, and the terms."""

    def __init__(self, weights: sparse.csr_matrix, terms: np.ndarray) -> None:
        self.weights, self.terms = weights, terms

    def shared(self, rows: np.ndarray, other: int) -> np.ndarray:
        """Return, for each of `rows`, a text that names the terms it shares with row `other`, by falling weight."""
        target = self.weights[[other]].tocoo()
        products = self.weights[rows][:, target.col].toarray() * target.data
        order = np.argsort(-products, axis=1, kind="stable")[:, :TOP_WORDS]
        names = self.terms[target.col]
        rationale = np.full(len(rows), "shares parts of words", dtype=object)
        for row, best in enumerate(order):
            shared = [f'"{names[term]}"' for term in best if products[row, term] > 0]
            if shared:
                rationale[row] = f"shares {', '.join(shared)}"
        return rationale


def _weigh_both(texts: list[str]) -> tuple[_Weighted, _Weighted]:
    """Return the weights of the words and of the parts of words of texts."""
    words = _weigh(texts, analyzer="word", ngram_range=(1, 1))
    return words, _weigh(texts, analyzer="char_wb", ngram_range=(4, 6))


def _weigh(texts: list[str], *, analyzer: str, ngram_range: tuple[int, int]) -> _Weighted:
    """Return the TF-IDF weights of texts; without columns if no text holds a term."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=analyzer, ngram_range=ngram_range, sublinear_tf=True, strip_accents="unicode")
    analyze = vectorizer.build_analyzer()
    if not any(analyze(text) for text in texts):
        return _Weighted(sparse.csr_matrix((len(texts), 0)), np.array([], dtype=object))
    weights = vectorizer.fit_transform(texts)
    return _Weighted(weights, vectorizer.get_feature_names_out())


def _cosines(weights: sparse.csr_matrix, n_texts: int) -> np.ndarray:
    """Return the cosines of the first `n_texts` rows with the others, (n_texts, n_others)."""
    return np.asarray((weights[:n_texts] @ weights[n_texts:].T).todense())


def _cosines_of_pairs(weights: sparse.csr_matrix, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows, (n_pairs,), one block of pairs at a time."""
    parts = [
        np.asarray(weights[first[start : start + BLOCK]].multiply(weights[second[start : start + BLOCK]]).sum(axis=1))
        for start in range(0, len(first), BLOCK)
    ]
    return np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0)
