"""Which words the testbed's explanations speak of: the list of the scorer `lexicon`, from the language's own generator.

Each noun phrase of a concept speaks of the words at which the concept holds more often than at others. The weight of a
word is (p - q) / (1 - q): p is the share of its occurrences at which the concept holds, q that of all words. So it is 1
where the word tells the concept for sure, and 0 where it tells nothing. A group of words that a latent promotes is just
its words. A quoted word needs no entry: the scorer knows that it speaks of itself.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from isaerft.testbed.dialogues import concepts, sample_dialogues
from isaerft.testbed.language import Language
from isaerft.testbed.wording import noun_phrases

N_DIALOGUES = 1000
SMALLEST = 0.05
DECIMALS = 3


def phrase_list(language: Language, seed: int) -> pd.DataFrame:
    """Return phrase, word, weight: what each noun phrase of the testbed speaks of; weights below 0.05 are left out."""
    weights = {
        concept: words
        for concept, words in _of_dialogues(language.first_list, seed).items()
        if not concept.startswith("token:")
    }
    groups = language.word_groups
    weights |= {f"promotes:{name}": dict.fromkeys(words, 1.0) for name, words in groups.items()}
    spoken = {phrase: words for concept, words in weights.items() for phrase in noun_phrases(concept)}
    # Content words that an explanation names without quotes speak of themselves.
    content = [word for name, words in groups.items() if name not in ("plain", "function") for word in words]
    spoken |= {word: {word: 1.0} for word in content}
    rows = [
        {"phrase": phrase, "word": word, "weight": round(weight, DECIMALS)}
        for phrase, words in spoken.items()
        for word, weight in words.items()
        if weight >= SMALLEST
    ]
    return pd.DataFrame(rows, columns=["phrase", "word", "weight"])


def _of_dialogues(language: Language, seed: int) -> dict[str, dict[str, float]]:
    """Return the weight of each word for each concept, by the language's dialogues."""
    words: Counter[str] = Counter()
    together: dict[str, Counter[str]] = {}
    for item in sample_dialogues(np.random.default_rng([seed, 7]), N_DIALOGUES, language):
        for word, held in zip(item.words, concepts(item, language), strict=True):
            words[word] += 1
            for concept in held:
                together.setdefault(concept, Counter())[word] += 1
    found = {}
    for concept, counts in sorted(together.items()):
        share = counts.total() / words.total()
        found[concept] = {
            word: (count / words[word] - share) / (1 - share) for word, count in sorted(counts.items()) if share < 1
        }
    return found
