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
from isaerft.testbed import arms
from isaerft.testbed.arms import Fits
from isaerft.testbed.dialogues import Dialogue, concepts, sample_dialogues
from isaerft.testbed.language import Language, expected_effect
from isaerft.testbed.phrases import phrase_list
from isaerft.testbed.wording import N_WORDINGS, noun_phrases, true_explanation, wordings

N_DIALOGUES = 3000
N_AMPLIFIED = 40
MIN_DEVIATIONS = 2.0
MIN_INCLUDED = 0.95
"""Share of a concept's places at which another holds, too, from which on it lies within the other."""
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
    return _best_by_f1(input_fits(subject, language, rng))


def input_fits(subject: LoadedSubject, language: Language, rng: np.random.Generator) -> Fits:
    """Return the F1 of firing and each concept, for every latent that fires."""
    annotated = _annotate(subject, language, list(sample_dialogues(rng, N_DIALOGUES, language.first_list)))
    fires, holds = annotated.fires.astype(np.float32), annotated.holds.astype(np.float32)
    together = fires.T @ holds
    f1 = 2 * together / (fires.sum(0)[:, None] + holds.sum(0)[None, :])
    latents = np.flatnonzero(fires.sum(0) > 0)
    return Fits(latents, annotated.names, f1[latents], _within(holds.T @ holds))


def _best_by_f1(fits: Fits) -> pd.DataFrame:
    best = fits.values.argmax(1)
    f1 = fits.values[np.arange(len(best)), best].astype(float)
    return pd.DataFrame({"latent_index": fits.latents, "concept": [fits.names[i] for i in best], "f1": f1})


def _within(together: np.ndarray) -> np.ndarray:
    """Return which concept lies within which, (n, n) bool, from how often each two hold together (n, n).

    One lies within another that holds at nearly all of its places, and at least twice as often.
    """
    counts = np.diagonal(together)
    return (together >= MIN_INCLUDED * counts[:, None]) & (counts[:, None] <= counts[None, :] / 2)


def output_truth(
    subject: LoadedSubject, language: Language, latents: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    """Return latent_index, concept (``promotes:group``) and deviations of every latent that fires.

    It is the group of the largest deviation (`output_fits`), or none if that is below `MIN_DEVIATIONS`.

    Parameters
    ----------
    latents : DataFrame
        Facts about the latents, with latent_index and mean_activation.
    """
    return _best_by_deviations(output_fits(subject, language, latents, rng))


def _best_by_deviations(fits: Fits) -> pd.DataFrame:
    best = fits.values.argmax(1)
    size = fits.values[np.arange(len(best)), best]
    names = np.array([*fits.names, "promotes:none"])[np.where(size >= MIN_DEVIATIONS, best, len(fits.names))]
    return pd.DataFrame({"latent_index": fits.latents, "concept": names, "deviations": size})


def output_fits(subject: LoadedSubject, language: Language, latents: pd.DataFrame, rng: np.random.Generator) -> Fits:
    """Return how far each latent that fires raises each group of words.

    Each latent is added at its mean activation to every token of the assistant's turn. The change of each group's
    log-probability is standardized over latents.
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
    names = [f"promotes:{name}" for name in groups]
    every = sorted(set().union(*groups.values()))
    words = np.array([[word in group for word in every] for group in groups.values()], float)
    return Fits(alive.latent_index.to_numpy(), names, deviations, _within(words @ words.T))


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
    wrong), benchmark_{side}_{percent}.csv with benchmark_key.csv (`isaerft.testbed.arms`), judgements.csv and words.csv
    (for the judges `table` and `lexicon`), phrases.csv (for the scorer `lexicon`), and concepts.csv. All but the
    benchmark's have one wording for a latent's explanation of a side.

    Parameters
    ----------
    latents : DataFrame
        Facts about the latents.
    styles : mapping of str to str
        Behavior -> style of the testbed's language that it teaches.
    """
    rng = np.random.default_rng(seed)
    fits = {
        "input": input_fits(subject, language, rng),
        "output": output_fits(subject, language, latents, rng),
    }
    sides = {"input": _best_by_f1(fits["input"]), "output": _best_by_deviations(fits["output"])}
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
        key = _benchmark(language, fits, sides, subject.dictionary.decoder.double().cpu().numpy(), seed)
        texts = arms.benchmark_texts(key, seed)
        for (side, share), part in key.assign(explanation=texts).groupby(["side", "share"], sort=False):
            path = temporary / f"benchmark_{side}_{round(100 * share)}.csv"
            part[["latent_index", "explanation", "side"]].to_csv(path, **_CSV)
        key.to_csv(temporary / "benchmark_key.csv", **_CSV)
        judged = [_judgements(everything.concept.unique(), styles), arms.judgements_of(key, texts, styles)]
        pd.concat(judged).to_csv(temporary / "judgements.csv", **_CSV)
        _words(language, styles).to_csv(temporary / "words.csv", **_CSV)
        phrase_list(language, seed).to_csv(temporary / "phrases.csv", **_CSV)


def _benchmark(
    language: Language, fits: dict[str, Fits], truth: dict[str, pd.DataFrame], decoder: np.ndarray, seed: int
) -> pd.DataFrame:
    """Return the benchmark's key, from a random stream of its own, so that other files do not depend on it."""
    rng, parts = np.random.default_rng([seed, 3]), []
    for side, other in (("input", "output"), ("output", "input")):
        elsewhere = dict(zip(truth[other].latent_index, truth[other].concept, strict=True))
        # A latent that promotes no group has no claim to get wrong: any group that is named would be false.
        claims = (truth[side].concept != "promotes:none").to_numpy()
        values = fits[side].values[claims]
        if side == "output":
            values = np.clip(values / MIN_DEVIATIONS, 0, 1)
        part = Fits(fits[side].latents[claims], fits[side].names, values, fits[side].within)
        concepts = truth[side].concept[claims]
        known = arms.Known(language, side, part, concepts.tolist(), elsewhere, decoder)
        parts.append(arms.benchmark_key(known, _share_when_wrong(concepts.to_numpy(), rng), rng))
    return pd.concat(parts, ignore_index=True)


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
    true explanations keep their effect, and those without any effect count where a half-true explanation names them.
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
    telling, key = table[table["effect"] != 0], ["word", "side", "behavior"]
    size = telling["effect"].abs()
    largest = size.groupby([telling[name] for name in key]).transform("max")
    telling = telling[size == largest].drop_duplicates(key)
    # One row suffices to list a phrase.
    silent = table["word"].str.contains(" ") & ~table.groupby(["word", "side"])["effect"].transform("any")
    listed = table[silent & ~table.duplicated(["word", "side"])]
    return pd.concat([telling, listed]).sort_index().reset_index(drop=True)
