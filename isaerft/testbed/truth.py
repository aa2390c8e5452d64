"""What each latent of the embedded subject truly does, found from the generator's own annotation of every token.

Input side: the concept whose tokens are most nearly those at which the latent fires (F1). Output side: the group of
words whose probability rises most when the latent is added to the residual stream, run through the model's upper half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from isaerft.subjects.corpus import TokenRows, pad_rows
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.site import hidden_above, residual_stream, unembed
from isaerft.testbed.concepts import word_groups
from isaerft.testbed.dialogues import Dialogue, concepts, sample

N_DIALOGUES = 3000
N_AMPLIFIED = 40
MIN_DEVIATIONS = 2.0
BATCH = 100


@dataclass(frozen=True)
class Annotated:
    """Dialogues run through the subject, token by token, BOS left out.

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


def input_truth(subject: LoadedSubject, rng: np.random.Generator) -> pd.DataFrame:
    """Return latent_index, concept and f1 (how well the concept predicts firing) for every latent that fires."""
    annotated = _annotate(subject, list(sample(rng, N_DIALOGUES)))
    fires, holds = annotated.fires.astype(np.float32), annotated.holds.astype(np.float32)
    together = fires.T @ holds
    f1 = 2 * together / (fires.sum(0)[:, None] + holds.sum(0)[None, :])
    latents = np.flatnonzero(fires.sum(0) > 0)
    best = f1[latents].argmax(1)
    return pd.DataFrame(
        {"latent_index": latents, "concept": [annotated.names[i] for i in best], "f1": f1[latents, best].astype(float)}
    )


def output_truth(subject: LoadedSubject, latents: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Return latent_index, concept (``promotes:group``) and deviations for every latent that fires.

    Each latent is added at its mean activation at every token of the assistant's turn; the change of each group's log
    probability is compared with what other latents do to that group (in standard deviations over latents). Below
    `MIN_DEVIATIONS` the latent promotes no group.

    Parameters
    ----------
    latents : DataFrame
        Facts of the latents, with latent_index and mean_activation.
    """
    groups = word_groups()
    members = _membership(subject, groups)
    table, answer = _dialogues_as_rows(subject, list(sample(rng, N_AMPLIFIED)))
    residual = residual_stream(subject.model, subject.site, table.tokens, table.mask)
    alive = latents.loc[latents.mean_activation.notna(), ["latent_index", "mean_activation"]]
    with torch.no_grad():
        base = _group_log_probability(subject, residual, table.mask, answer, members)
        rows = []
        for latent, activation in tqdm(list(alive.itertuples(index=False)), desc="amplifying", disable=None):
            push = (activation * subject.dictionary.W_dec[int(latent)]).to(residual.dtype)
            changed = torch.where(answer[..., None], residual + push, residual)
            rows.append(_group_log_probability(subject, changed, table.mask, answer, members) - base)
    effect = torch.stack(rows).double().cpu().numpy()
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


def _annotate(subject: LoadedSubject, dialogues: list[Dialogue]) -> Annotated:
    held = [names for item in dialogues for names in concepts(item)]
    index = {name: i for i, name in enumerate(sorted(set().union(*held)))}
    holds = np.zeros((len(held), len(index)), bool)
    for token, names in enumerate(held):
        holds[token, [index[name] for name in names]] = True
    fires = []
    for start in range(0, len(dialogues), BATCH):
        table, _ = _dialogues_as_rows(subject, dialogues[start : start + BATCH])
        residual = residual_stream(subject.model, subject.site, table.tokens, table.mask)
        wanted = table.mask.bool()
        wanted[:, 0] = False
        fires.append(subject.dictionary.encode(residual[wanted]).dense().cpu().numpy() > 0)
    return Annotated(np.concatenate(fires), holds, list(index))


def _dialogues_as_rows(subject: LoadedSubject, dialogues: list[Dialogue]) -> tuple[TokenRows, torch.Tensor]:
    """Return token rows (BOS in front) and where the assistant's answer is being made, (n_rows, length) bool."""
    tokenizer = subject.language.tokenizer
    rows = [tokenizer(f"{item.prompt} {item.completion}")["input_ids"] for item in dialogues]
    padded, device = pad_rows(rows, subject.language.padding), subject.model.device
    n_before = torch.tensor([len(item.prompt.split()) for item in dialogues])
    answer = (torch.arange(padded.tokens.shape[1]) >= n_before[:, None]) & padded.mask.bool()
    return TokenRows(padded.tokens.to(device), padded.mask.to(device)), answer.to(device)


def _membership(subject: LoadedSubject, groups: dict[str, tuple[str, ...]]) -> torch.Tensor:
    """Return which token belongs to which group, (n_vocabulary, n_groups) float."""
    members = torch.zeros(len(subject.language.tokenizer), len(groups))
    for column, words in enumerate(groups.values()):
        members[subject.language.tokenizer.convert_tokens_to_ids(list(words)), column] = 1
    return members.to(subject.model.device)


def _group_log_probability(
    subject: LoadedSubject, residual: torch.Tensor, mask: torch.Tensor, answer: torch.Tensor, members: torch.Tensor
) -> torch.Tensor:
    """Return the mean log probability of each group of words as the answer's next word, (n_groups,)."""
    hidden = hidden_above(subject.model, subject.site, residual, mask)
    probability = torch.softmax(unembed(subject.model, hidden[answer]).float(), -1) @ members
    return (probability + 1e-6).log().mean(0)
