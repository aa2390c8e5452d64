"""The truth about each latent of the testbed, from the concepts annotated at every token.

On the input side, a latent's concept is the one that best predicts where it fires (F1). On the output side, it is the
group of words whose probability rises most when the latent is amplified and the model runs on. Both are found on
dialogues in the first list of each style's words; the truth never sees a world's paraphrases.

`write_truth` writes it as explanations, sets of explanations with a known share of wrong ones, and judgements, which
studies read like those of any other source or judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from isaerft.io import replacing
from isaerft.progress import Progress
from isaerft.subjects.corpus import TokenRows, pad_rows
from isaerft.subjects.hooks import hidden_above, run_below, unembed
from isaerft.subjects.load import LoadedSubject
from isaerft.testbed.dialogues import Dialogue, concepts, sample_dialogues
from isaerft.testbed.language import Language, expected_effect
from isaerft.testbed.phrases import phrase_list
from isaerft.testbed.wording import N_WORDINGS, noun_phrases, true_explanation, wordings

N_DIALOGUES = 3000
N_AMPLIFIED = 40
MIN_DEVIATIONS = 2.0
BATCH = 100
WRONG_SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
_CSV: dict[str, Any] = {"index": False, "lineterminator": "\n"}


@dataclass(frozen=True)
class _Annotation:
    """Firing and concepts at every token of some dialogues, BOS excluded.

    Attributes
    ----------
    fires : (n_tokens, d_sae) bool
    holds : (n_tokens, n_concepts) bool
    names : list of str
        The concepts.
    """

    fires: np.ndarray
    holds: np.ndarray
    names: list[str]


def input_truth(subject: LoadedSubject, language: Language, rng: np.random.Generator) -> pd.DataFrame:
    """Return latent_index, concept and f1 (how well the concept predicts firing) of every latent that fires."""
    annotated = _annotate(subject, language, list(sample_dialogues(rng, N_DIALOGUES, language.first_list)))
    fires, holds = annotated.fires.astype(np.float32), annotated.holds.astype(np.float32)
    together = fires.T @ holds
    f1 = 2 * together / (fires.sum(0)[:, None] + holds.sum(0)[None, :])
    latents = np.flatnonzero(fires.sum(0) > 0)
    best = f1[latents].argmax(1)
    return pd.DataFrame(
        {"latent_index": latents, "concept": [annotated.names[i] for i in best], "f1": f1[latents, best].astype(float)}
    )


def output_truth(
    subject: LoadedSubject, language: Language, latents: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    """Return latent_index, concept (``promotes:group``) and deviations of every latent that fires.

    Each latent is added at its mean activation to every token of the assistant's turn. The change of each group's
    log-probability is standardized over latents (`deviations`); below `MIN_DEVIATIONS` the latent promotes no group.

    Parameters
    ----------
    latents : DataFrame
        Facts about the latents, with latent_index and mean_activation.
    """
    groups = language.word_groups
    members = _membership(subject, groups)
    table, answer = _dialogues_as_rows(subject, list(sample_dialogues(rng, N_AMPLIFIED, language.first_list)))
    below = run_below(subject.model, subject.hook, table.tokens, table.mask)
    residual = below.residual
    alive = latents.loc[latents.mean_activation.notna(), ["latent_index", "mean_activation"]]
    with torch.no_grad():
        base = _group_log_probability(subject, residual, table.mask, answer, members)
        rows = []
        for latent, activation in Progress(list(alive.itertuples(index=False)), desc="amplifying"):
            push = (activation * subject.dictionary.decoder[int(latent)]).to(residual.dtype)
            pushed = residual + subject.reaching(below.written, push)
            changed = torch.where(answer[..., None], pushed, residual)
            rows.append(_group_log_probability(subject, changed, table.mask, answer, members) - base)
    effect = torch.stack(rows).cpu().double().numpy()
    deviations = (effect - effect.mean(0)) / effect.std(0)
    best = deviations.argmax(1)
    size = deviations[np.arange(len(best)), best]
    names = np.array([*groups, "none"])[np.where(size >= MIN_DEVIATIONS, best, len(groups))]
    return pd.DataFrame(
        {
            "latent_index": alive.latent_index.to_numpy(),
            "concept": [f"promotes:{name}" for name in names],
            "deviations": size,
        }
    )


def _annotate(subject: LoadedSubject, language: Language, dialogues: list[Dialogue]) -> _Annotation:
    held = [names for item in dialogues for names in concepts(item, language)]
    index = {name: i for i, name in enumerate(sorted(set().union(*held)))}
    holds = np.zeros((len(held), len(index)), bool)
    for token, names in enumerate(held):
        holds[token, [index[name] for name in names]] = True
    fires = []
    for start in range(0, len(dialogues), BATCH):
        table, _ = _dialogues_as_rows(subject, dialogues[start : start + BATCH])
        activation = run_below(subject.model, subject.hook, table.tokens, table.mask).activation
        is_text = table.mask.bool()
        is_text[:, 0] = False
        fires.append(subject.dictionary.encode(activation[is_text]).dense().cpu().numpy() > 0)
    return _Annotation(np.concatenate(fires), holds, list(index))


def _dialogues_as_rows(subject: LoadedSubject, dialogues: list[Dialogue]) -> tuple[TokenRows, torch.Tensor]:
    """Return token rows with BOS, and which tokens predict or belong to the answer, (n_rows, length) bool."""
    tokenizer = subject.language.tokenizer
    rows = [tokenizer(f"{item.prompt} {item.completion}")["input_ids"] for item in dialogues]
    padded, device = pad_rows(rows, subject.language.padding), subject.model.device
    n_before = torch.tensor([len(item.prompt.split()) for item in dialogues])
    answer = (torch.arange(padded.tokens.shape[1]) >= n_before[:, None]) & padded.mask.bool()
    return TokenRows(padded.tokens.to(device), padded.mask.to(device)), answer.to(device)


def _membership(subject: LoadedSubject, groups: dict[str, tuple[str, ...]]) -> torch.Tensor:
    """Return the membership of tokens in groups of words, (n_vocabulary, n_groups) float32."""
    members = torch.zeros(len(subject.language.tokenizer), len(groups))
    for column, words in enumerate(groups.values()):
        members[subject.language.tokenizer.convert_tokens_to_ids(list(words)), column] = 1
    return members.to(subject.model.device)


def _group_log_probability(
    subject: LoadedSubject, residual: torch.Tensor, mask: torch.Tensor, answer: torch.Tensor, members: torch.Tensor
) -> torch.Tensor:
    """Return the mean log-probability that the next word of the answer is in each group, (n_groups,)."""
    hidden = hidden_above(subject.model, subject.hook, residual, mask)
    probability = torch.softmax(unembed(subject.model, hidden[answer]).float(), -1) @ members
    return (probability + 1e-6).log().mean(0)


def write_truth(
    subject: LoadedSubject,
    language: Language,
    latents: pd.DataFrame,
    styles: Mapping[str, str],
    folder: str | Path,
    seed: int,
) -> None:
    """Write the truth to a folder, atomically.

    The files are input.csv, output.csv and both.csv (true explanations), {side}_wrong{percent}.csv (some of them
    wrong), judgements.csv and words.csv (for the judges `table` and `lexicon`), phrases.csv (for the scorer `lexicon`),
    and concepts.csv. All have one wording for a latent's explanation of a side.

    Parameters
    ----------
    latents : DataFrame
        Facts about the latents.
    styles : mapping of str to str
        Behavior -> style of the testbed's language that it teaches.
    """
    rng = np.random.default_rng(seed)
    sides = {"input": input_truth(subject, language, rng), "output": output_truth(subject, language, latents, rng)}
    with replacing(folder) as temporary:
        temporary.mkdir()
        for side, truth in sides.items():
            wording = wordings(truth.latent_index, side, seed)
            _explained(truth, truth.concept, wording, side).to_csv(temporary / f"{side}.csv", **_CSV)
            wrong_from = _share_when_wrong(truth.concept.to_numpy(), rng)
            for share in WRONG_SHARES:
                concepts = corrupt(truth.concept.to_numpy(), wrong_from < share, rng)
                arm = temporary / f"{side}_wrong{round(100 * share)}.csv"
                _explained(truth, concepts, wording, side).to_csv(arm, **_CSV)
        everything = pd.concat(truth.assign(side=side) for side, truth in sides.items())
        everything.to_csv(temporary / "concepts.csv", float_format="%.6g", **_CSV)
        both = pd.concat(pd.read_csv(temporary / f"{side}.csv") for side in sides)
        both.to_csv(temporary / "both.csv", **_CSV)
        _judgements(everything.concept.unique(), styles).to_csv(temporary / "judgements.csv", **_CSV)
        _words(language, styles).to_csv(temporary / "words.csv", **_CSV)
        phrase_list(language, seed).to_csv(temporary / "phrases.csv", **_CSV)


def corrupt(concepts: np.ndarray, wrong: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the concepts with those of the `wrong` latents permuted so that none keeps its own.

    If more than half of the wrong latents have the same concept, the rest of these get concepts of other latents at
    random.

    Parameters
    ----------
    concepts : (n,) str
        Concept of each latent.
    wrong : (n,) bool
        Latents whose concept becomes wrong.
    """
    result = concepts.copy()
    latents = np.flatnonzero(wrong)
    mixed = rng.permutation(concepts[latents])
    for i in range(len(latents)):
        if mixed[i] != concepts[latents[i]]:
            continue
        # Swap with a latent such that neither then has its own concept.
        partners = np.flatnonzero((mixed != concepts[latents[i]]) & (concepts[latents] != mixed[i]))
        foreign = concepts[concepts != concepts[latents[i]]]
        if len(partners):
            j = rng.choice(partners)
            mixed[i], mixed[j] = mixed[j], mixed[i]
        elif len(foreign):
            mixed[i] = rng.choice(foreign)
    result[latents] = mixed
    return result


def _share_when_wrong(concepts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each latent the share of wrong explanations from which on its own is wrong, uniform over (0, 1).

    The shares are also uniform within each concept, so that every file has its share of wrong explanations of every
    concept, and nested: an explanation that is wrong at 10 % is wrong at 20 %.
    """
    shares = np.empty(len(concepts))
    for concept in np.unique(concepts):
        latents = np.flatnonzero(concepts == concept)
        shares[latents] = (rng.permutation(len(latents)) + rng.random()) / len(latents)
    return (shares.argsort(kind="stable").argsort() + 0.5) / len(shares)


def _explained(truth: pd.DataFrame, concepts: Iterable[str], wording: list[int], side: str) -> pd.DataFrame:
    """Return explanations that say these concepts of the latents, each in its own wording."""
    texts = [true_explanation(concept, own) for concept, own in zip(concepts, wording, strict=True)]
    return pd.DataFrame({"latent_index": truth.latent_index, "explanation": texts, "side": side})


def _judgements(concepts: Iterable[str], styles: Mapping[str, str]) -> pd.DataFrame:
    """Return the expected effect of each concept on each behavior, in every wording."""
    rows = [
        {"explanation": true_explanation(concept, wording), "behavior": behavior, "expected_effect": effect}
        for concept in concepts
        for behavior, effect in [(name, expected_effect(concept, style)) for name, style in styles.items()]
        for wording in range(N_WORDINGS)
    ]
    return pd.DataFrame(rows)


def _words(language: Language, styles: Mapping[str, str]) -> pd.DataFrame:
    """Return the word list with which the `lexicon` judge finds the truth in any text about the language's words.

    A word that a latent fires on has the effect of its token; a word that it promotes, the effect of its group, or the
    larger one if it is in a sub-style's, too. The noun phrases of the other concepts are entries as a whole, so that
    true explanations keep their effect.
    """
    groups = language.word_groups
    entries = [(word, "input", f"token:{word}") for words in groups.values() for word in words]
    entries += [(word, "output", f"promotes:{group}") for group, words in groups.items() for word in words]
    entries += [
        (phrase, "output" if concept.startswith("promotes:") else "input", concept)
        for concept in language.concepts
        if not concept.startswith("token:")
        for phrase in noun_phrases(concept)
    ]
    rows = [
        {"word": word, "side": side, "behavior": behavior, "effect": expected_effect(concept, style)}
        for word, side, concept in entries
        for behavior, style in styles.items()
    ]
    table = pd.DataFrame(rows)
    table = table[table["effect"] != 0]
    key = ["word", "side", "behavior"]
    size = table["effect"].abs()
    largest = size.groupby([table[name] for name in key]).transform("max")
    return table[size == largest].drop_duplicates(key).reset_index(drop=True)
