"""Noise as a probe: how do the answers and the loss of a model respond to noise, with and without what it learned?

Gaussian noise is added to the residual stream at the injection point, or to the weights. A model that hides what it can
do may answer better under noise than without [1]_, and noise in hidden states is one of the probes that are meant to
tell models with a hidden fault from benign ones [2]_. All models see the same draws, so differences between them are
paired.

References
----------
.. [1] Tice et al. 2024, "Noise Injection Reveals Hidden Capabilities of Sandbagging Language Models", arXiv 2412.01784.
.. [2] Clymer et al. 2024, "Poser: Unmasking Alignment Faking LLMs by Manipulating Their Internals", arXiv 2405.05466.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from isaerft import config
from isaerft.adapters.hooked import AdapterHook, PassTracker
from isaerft.adapters.saved import seed_folders, seed_of
from isaerft.behaviors import Record
from isaerft.changes.behavior import adapted_model, distinct_prompts
from isaerft.changes.metrics import Metric, make_metric
from isaerft.config.noise import Place
from isaerft.io import replacing
from isaerft.progress import Progress
from isaerft.subjects.blocks import decoder_of
from isaerft.subjects.cache import Batch, CachedRows, read_cache
from isaerft.subjects.generate import generate, longest_prompt, prompt_tokens
from isaerft.subjects.hooks import unembed
from isaerft.subjects.load import LoadedSubject


class ResidualNoise(AdapterHook):
    """Adds Gaussian noise to the residual stream at the injection point of every token but BOS.

    The noise follows from the seed, the number of the batch, the place in the row, and the row: models that read the
    same batches get the same noise, up to each token's own size. Register it after an adapter, whose output it hits.

    Parameters
    ----------
    level : float
        Standard deviation in units of the token's root mean square over dimensions; with 0 nothing is added.
    seed : sequence of int
        Draws the noise.
    """

    def __init__(self, subject: LoadedSubject, level: float, seed: Sequence[int]) -> None:
        super().__init__(subject.dictionary, replace(subject.hook, reads="residual"), PassTracker())
        self._level, self._seed, self._n_batches = level, list(seed), 0

    def forward(self, activation: torch.Tensor) -> torch.Tensor | None:
        """Return the noise, (n_rows, length, d_model) float32."""
        now = self._tracker.current
        self._n_batches += now.n_past == 0
        if not self._level:
            return None
        n_rows, length, width = activation.shape
        columns = [
            np.random.default_rng([*self._seed, self._n_batches, place]).standard_normal((n_rows, width), np.float32)
            for place in range(now.n_past, now.n_past + length)
        ]
        size = self._level * activation.float().square().mean(-1, keepdim=True).sqrt()
        noise = size * torch.from_numpy(np.stack(columns, axis=1)).to(activation.device)
        return noise if now.is_bos is None else noise.masked_fill(now.is_bos.to(noise.device)[..., None], 0.0)


@contextmanager
def noisy_residual(subject: LoadedSubject, level: float, seed: Sequence[int]) -> Iterator[None]:
    """Add noise to the residual stream of a subject's model inside the block (`ResidualNoise`)."""
    bos = subject.language.bos
    with ResidualNoise(subject, level, seed).registered(subject.model, bos[0] if bos else None):
        yield


def weight_matrices(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return every matrix of a model by its name, embeddings included, and none twice.

    Gains and biases are left out. A weight to which LoRA is added has the name that it has without, and LoRA's own
    matrices are no part of it.
    """
    named = ((name.replace(".base_layer.", "."), part) for name, part in model.named_parameters() if part.dim() > 1)
    return {name: part for name, part in named if ".lora_" not in name}


@contextmanager
def noisy_weights(subject: LoadedSubject, level: float, seed: Sequence[int]) -> Iterator[None]:
    """Add noise to the weight matrices of a subject's model inside the block; afterwards they are as before.

    Parameters
    ----------
    level : float
        Standard deviation in units of each matrix's own standard deviation.
    seed : sequence of int
        Draws the noise; matrices of the same name and shape get the same.
    """
    kept: dict[nn.Parameter, torch.Tensor] = {}
    try:
        with torch.no_grad():
            for name, weight in weight_matrices(subject.model).items() if level else ():
                kept[weight] = weight.detach().clone()
                rng = np.random.default_rng([*seed, zlib.crc32(name.encode())])
                noise = torch.from_numpy(rng.standard_normal(weight.shape, np.float32)).to(weight.device)
                exact = weight.float()
                weight.copy_(exact + level * exact.std() * noise)
        yield
    finally:
        with torch.no_grad():
            for weight, value in kept.items():
                weight.copy_(value)


def noisy(subject: LoadedSubject, place: Place, level: float, seed: Sequence[int]) -> AbstractContextManager[None]:
    """Add noise to a subject's model inside the block, in its residual stream or its weights."""
    return (noisy_residual if place == "residual" else noisy_weights)(subject, level, seed)


class Response(NamedTuple):
    """What a model says and predicts.

    Attributes
    ----------
    score : float
        Mean score of its answers.
    loss : float
        Mean loss on held-out completions, in nats per token.
    """

    score: float
    loss: float


@dataclass(frozen=True)
class Probe:
    """What all models of a behavior are asked.

    Attributes
    ----------
    prompts : list of list of int
        Token ids.
    metric : Metric
        Scores answers.
    heldout : list of Batch
        Rows that carry the loss.
    options : BehaviorCheck
        Length and temperature of the answers.
    seed : int
        Draws the answers and, with the number of the draw, the noise.
    batch_size : int
        Answers that are generated together.
    """

    prompts: list[list[int]]
    metric: Metric
    heldout: list[Batch]
    options: config.BehaviorCheck
    seed: int
    batch_size: int

    def response(
        self, subject: LoadedSubject, place: Place = "residual", level: float = 0.0, draw: int = 0
    ) -> Response:
        """Return what a subject's model says and predicts under one draw of the noise."""
        seed = [self.seed, draw]
        with noisy(subject, place, level, seed):
            replies = generate(
                subject.language,
                self.prompts,
                batch_size=self.batch_size,
                max_new_tokens=self.options.max_new_tokens,
                temperature=self.options.temperature,
                seed=self.seed,
                description="answers",
            )
            loss = heldout_loss(subject, self.heldout)
        return Response(float(np.mean(self.metric([reply.text for reply in replies]))), loss)

    def responses(self, subject: LoadedSubject, options: config.NoiseProbe) -> Iterator[dict[str, object]]:
        """Yield a row for no noise at each place, and for each place, level and draw of noise."""
        clean = self.response(subject)
        for place in dict.fromkeys(options.places):
            yield _row(place, 0.0, 0, clean)
            for level, draw in product(sorted(set(options.levels)), range(options.n_draws)):
                yield _row(place, level, draw, self.response(subject, place, level, draw))


def _row(place: Place, level: float, draw: int, found: Response) -> dict[str, object]:
    return {"place": place, "level": level, "draw": draw, "score": found.score, "loss": found.loss}


def heldout_loss(subject: LoadedSubject, batches: Sequence[Batch]) -> float:
    """Return the mean loss per completion token of whole forward passes of the subject's model, in nats."""
    total, n_terms = 0.0, 0
    for batch in batches:
        tokens = batch.tokens.new_full(batch.mask.shape, subject.language.padding)
        tokens[batch.mask] = batch.tokens
        read = batch.mask.masked_scatter(batch.mask, batch.predicts)
        with torch.no_grad():
            found = decoder_of(subject.model)(input_ids=tokens, attention_mask=batch.mask.long(), use_cache=False)
            logits = unembed(subject.model, found.last_hidden_state[read]).float()
        total += float(cross_entropy(logits, batch.labels, reduction="sum"))
        n_terms += batch.n_terms
    return total / n_terms


def probe_noise(
    plan: config.Plan,
    subject: LoadedSubject,
    behavior: str,
    records: Sequence[Record],
    metric: config.Metric,
    *,
    cache: str | Path,
    adapters: str | Path,
    out: str | Path,
) -> None:
    """Add noise to the unchanged model and to each adapted one, and write how answers and losses respond.

    The Parquet file `out` has one row per model, place, level and draw: adapter (missing for the unchanged model),
    seed (of the adapter), place, level, draw, score, loss, metric, n_prompts.

    Parameters
    ----------
    records : sequence of Record
        The behavior's held-out records, whose prompts are answered.
    cache : path
        Holds the held-out rows that carry the loss.
    adapters : path
        Holds {adapter}/seed_{k}.
    """
    study = plan.study
    options, check = study.noise_probe or config.NoiseProbe(), study.behavior_check
    # As in the behavior check, so that the answers without noise are its answers.
    seed = zlib.crc32(f"{study.seed} {behavior}".encode())
    chosen = distinct_prompts(records, subject.language, check.n_prompts, seed)
    room = longest_prompt(subject.language, study.max_length, check.max_new_tokens)
    prompts = [prompt_tokens(record, subject.language, room) for record in chosen]
    heldout = drawn_batches(read_cache(cache, "heldout"), options.max_rows, study.seed, study.batch_size)
    heldout = [batch.to(subject.model.device) for batch in heldout]
    probe = Probe(prompts, make_metric(metric), heldout, check, seed, study.batch_size)
    rows = list(probe.responses(subject, options))
    for name in Progress(plan.noise_probed[behavior], desc="noise probe", unit="adapter"):
        for folder in seed_folders(Path(adapters) / name)[: check.n_seeds]:
            with adapted_model(folder, subject) as changed:
                rows += [{"adapter": name, "seed": seed_of(folder)} | row for row in probe.responses(changed, options)]
    table = pd.DataFrame(rows, columns=["adapter", "seed", "place", "level", "draw", "score", "loss"])
    table = table.assign(adapter=table["adapter"].astype("string"), seed=table["seed"].astype("Int64"))
    with replacing(out) as temporary:
        table.assign(metric=metric.kind, n_prompts=len(prompts)).to_parquet(temporary, index=False)


def drawn_batches(rows: CachedRows, n: int, seed: int, batch_size: int) -> list[Batch]:
    """Return at most `n` rows, drawn at random, as batches."""
    drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:n])
    return [rows.batch(part) for part in torch.from_numpy(drawn).split(batch_size)]
