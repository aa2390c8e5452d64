"""Steering: amplify or suppress one latent while the model answers.

The latent's decoder row, times its largest activation on the reference corpus and a strength, is added to the residual
stream at the hook wherever a token of the answer is predicted: at the last token of the prompt and at every token of
the answer. The prompt itself is read as ever. The unit makes strengths comparable between latents: at 1 the residual
stream moves as far as the latent ever moved it.

Adding a multiple of the largest activation is how AxBench steers with SAEs [1]_. Suppression is the same with a minus
sign, and not setting the latent to 0: on a neutral prompt most latents are silent, so that setting them to 0 changes
nothing. Moving both ways by the same amount also cancels what any push does to an answer, such as making it worse.

References
----------
.. [1] Wu et al. 2025, "AxBench: Steering LLMs? Even Simple Baselines Outperform Sparse Autoencoders", arXiv 2501.17148.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from isaerft.adapters.hooked import AdapterHook, PassTracker
from isaerft.behaviors import Record, prompt_text
from isaerft.errors import InputError
from isaerft.progress import Progress
from isaerft.subjects.contexts import beginnings
from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.facts import Firing
from isaerft.subjects.generate import generate, longest_prompt, prompt_tokens
from isaerft.subjects.load import LoadedModel, LoadedSubject

N_TEXTS, N_NEW_TOKENS, SCORED_STRENGTHS = 6, 12, (1.0, 10.0)
"""Texts that are written while a latent is amplified, for scoring explanations, and tokens of each; and strengths, two
of FADE's (Puri et al. 2025)."""
log = logging.getLogger(__name__)


class Prompt(NamedTuple):
    """A prompt as a reader sees it, and its token ids."""

    text: str
    tokens: list[int]


class Steering(AdapterHook):
    """Adds a vector to each row's residual stream, at the last token of every forward pass.

    While a model generates from its key-value cache, that is the token from which the next one is predicted.

    Parameters
    ----------
    subject : LoadedSubject
    push : (n_rows, d_model) float32
        One vector for each row of the batch.
    """

    def __init__(self, subject: LoadedSubject, push: torch.Tensor) -> None:
        super().__init__(subject.dictionary, subject.hook, PassTracker())
        self._push = push

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        """Return what is added, (n_rows, length, d_model)."""
        shift = self._push.new_zeros(*activation.shape[:-1], self._push.shape[-1])
        shift[:, -1] = self._push
        return shift.to(activation)


def pushes_of(
    subject: LoadedSubject, facts: pd.DataFrame, latents: Iterable[int], strengths: Iterable[float]
) -> torch.Tensor:
    """Return what steering adds to the residual stream, (n_latents * n_strengths, d_model) float32, latent by latent.

    Parameters
    ----------
    subject : LoadedSubject
    facts : DataFrame
        Facts of all latents (latent_index, max_activation).
    latents : iterable of int
    strengths : iterable of float
        Multiples of the latent's largest activation; negative ones suppress.

    Raises
    ------
    InputError
        A latent is not in the dictionary, or never fired on the reference corpus.
    """
    largest = facts.set_index("latent_index")["max_activation"]
    rows = []
    for latent, strength in product(latents, list(strengths)):
        if latent not in largest.index:
            raise InputError(f"latent {latent}", allowed=f"0 to {subject.dictionary.d_sae - 1}")
        if largest[latent] == 0:
            raise InputError(
                f"latent {latent} never fired on the reference corpus, so its strength has no unit",
                remedy="choose a latent with a firing_rate above 0 in latents.parquet",
            )
        rows.append(strength * float(largest[latent]) * subject.dictionary.decoder[latent].float())
    return torch.stack(rows) if rows else subject.dictionary.decoder[:0]


def steered_answers(
    subject: LoadedSubject,
    prompts: Sequence[Prompt],
    pushes: torch.Tensor,
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[str]]:
    """Return the answer to each prompt under each push.

    Parameters
    ----------
    subject : LoadedSubject
    prompts : sequence of Prompt
    pushes : (n_pushes, d_model) float32
        See `pushes_of`; zeros leave the model as it is.
    max_new_tokens : int
    batch_size : int
        Answers that are generated together, at least one per prompt.
    temperature : float
        0: the most likely token. Otherwise every push draws the same random numbers, so answers differ by it alone.
    seed : int

    Returns
    -------
    list of n_pushes lists of n_prompts str
    """
    # The random numbers of a row depend on its place in the batch.
    at_once = max(1, batch_size // len(prompts)) if temperature == 0 else 1
    found: list[list[str]] = []
    for chunk in Progress(pushes.split(at_once), desc="steering", unit="batch"):
        rows = [prompt.tokens for prompt in prompts] * len(chunk)
        hook = Steering(subject, chunk.repeat_interleave(len(prompts), dim=0))
        with hook.registered(subject.model, bos=None):
            replies = generate(
                subject.language,
                rows,
                max_new_tokens=max_new_tokens,
                batch_size=len(rows),
                temperature=temperature,
                seed=seed,
                description="answers",
            )
        texts = [reply.text for reply in replies]
        found += [texts[start : start + len(prompts)] for start in range(0, len(texts), len(prompts))]
    return found


def steered_contexts(subject: LoadedSubject, rows: TokenRows, firing: Firing, *, batch_size: int) -> pd.DataFrame:
    """Return what the model writes while each latent is amplified, and as it is.

    Parameters
    ----------
    subject : LoadedSubject
    rows : TokenRows
        The reference corpus; its rows' beginnings are continued, greedily.
    firing : Firing
        Firing on that corpus.
    batch_size : int
        Rows of the corpus per forward pass; these texts are short, so four times as many are written together.

    Returns
    -------
    DataFrame
        latent_index, side ("steered" or "unsteered", the same texts for every latent), rank (from 0), before (the
        beginning), token (empty), after (what the model writes), value (strength, in largest activations; or 0).
    """
    tokens, mask, _ = beginnings(rows, N_TEXTS, subject.language)
    asked = [row[: int(length)].tolist() for row, length in zip(tokens, mask.sum(1), strict=True)]
    prompts = [Prompt(subject.language.decode(row), row) for row in asked]
    alive = np.flatnonzero(firing.count > 0)
    largest = torch.from_numpy(firing.maximum[alive]).float()[:, None]
    pushes = largest.to(subject.dictionary.decoder.device) * subject.dictionary.decoder[alive].float()
    strengths = (0.0, *SCORED_STRENGTHS)
    plain, *steered = steered_answers(
        subject,
        prompts,
        torch.cat([pushes.new_zeros(1, pushes.shape[1]), *(strength * pushes for strength in SCORED_STRENGTHS)]),
        max_new_tokens=N_NEW_TOKENS,
        batch_size=4 * batch_size,
    )
    records = []
    for place, latent in enumerate(alive.tolist()):
        texts = [plain, *steered[place :: len(alive)]]
        for level, strength in enumerate(strengths):
            first = max(0, level - 1) * len(prompts)
            records += [
                (latent, "steered" if strength else "unsteered", first + number, prompt.text, text, strength)
                for number, (prompt, text) in enumerate(zip(prompts, texts[level], strict=True))
            ]
    columns = ["latent_index", "side", "rank", "before", "after", "value"]
    return pd.DataFrame(records, columns=columns).assign(token="")


def neutral_prompts(
    asked: Iterable[tuple[LoadedModel, Record]], *, n: int, max_length: int, max_new_tokens: int, seed: int
) -> list[Prompt]:
    """Return at most `n` different prompts, drawn at random.

    Parameters
    ----------
    asked : iterable of (LoadedModel, Record)
        Records with the model as it reads their prompts: through its chat template, or not.
    n : int
    max_length, max_new_tokens : int
        Longest prompt and answer together, and longest answer, in tokens.
    seed : int

    Raises
    ------
    InputError
        There is no prompt.
    """
    found: dict[tuple[int, ...], Prompt] = {}
    for language, record in asked:
        tokens = prompt_tokens(record, language, longest_prompt(language, max_length, max_new_tokens))
        found.setdefault(tuple(tokens), Prompt(prompt_text(record.prompt), tokens))
    if not found:
        raise InputError("no prompts to steer on", remedy="check steering_check.prompts, or the behaviors' records")
    different = list(found.values())
    return [different[place] for place in sorted(np.random.default_rng(seed).permutation(len(different))[:n])]
