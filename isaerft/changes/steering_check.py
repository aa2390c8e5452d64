"""The steering check: amplify and suppress latents while the model answers, and score what it says by each metric."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import pandas as pd
import torch

from isaerft import config
from isaerft.changes.metrics import make_metric
from isaerft.changes.steering import Prompt, pushes_of, steered_answers
from isaerft.io import replacing
from isaerft.layout import AnswersFolder
from isaerft.subjects.load import LoadedSubject

log = logging.getLogger(__name__)


def check_steering(
    plan: config.Plan,
    subject: LoadedSubject,
    options: config.SteeringCheck,
    latents: pd.DataFrame,
    facts: pd.DataFrame,
    prompts: Sequence[Prompt],
    metrics: Mapping[str, config.Metric],
    out: str | Path,
) -> None:
    """Amplify and suppress latents while the model answers, score the answers, and write the folder `out`.

    It holds scores.parquet (the columns of `latents`, then behavior, strength, prompt, plain, amplified, suppressed)
    and answers.jsonl (latent_index, strength, prompt, plain, amplified, suppressed).

    Parameters
    ----------
    plan : Plan
    subject : LoadedSubject
    options : SteeringCheck
    latents : DataFrame
        latent_index, and what else is to be kept of each latent that is steered.
    facts : DataFrame
        Facts of all latents.
    prompts : sequence of Prompt
    metrics : mapping of str to Metric
        Each behavior's metric.
    out : path
    """
    chosen, strengths = latents["latent_index"].tolist(), options.strengths
    pushes = pushes_of(subject, facts, chosen, [sign * strength for strength in strengths for sign in (1, -1)])
    log.info(
        "steering %d latents at %d strengths, both ways: %d answers of at most %d tokens",
        len(chosen), len(strengths), (len(pushes) + 1) * len(prompts), options.max_new_tokens,
    )  # fmt: skip
    if not chosen:
        log.warning("no explanation is supported or contradicted, so no latent is steered")
    said = steered_answers(
        subject,
        prompts,
        torch.cat([pushes.new_zeros(1, pushes.shape[1]), pushes]),
        max_new_tokens=options.max_new_tokens,
        batch_size=plan.study.batch_size,
        temperature=options.temperature,
        seed=plan.study.seed,
    )
    texts = [text for answers in said for text in answers]
    # Latent by latent, strength by strength, up and down.
    shape = len(chosen), len(strengths), 2, len(prompts)
    parts = []
    for behavior, metric in metrics.items():
        scores = make_metric(metric)(texts)
        plain, steered = scores[: len(prompts)], scores[len(prompts) :].reshape(shape)
        for (place, latent), (level, strength) in product(enumerate(latents.to_dict("records")), enumerate(strengths)):
            up, down = steered[place, level]
            own = pd.DataFrame({"prompt": range(len(prompts)), "plain": plain, "amplified": up, "suppressed": down})
            parts.append(own.assign(behavior=behavior, strength=strength, **latent))
    columns = [*latents.columns, "behavior", "strength", "prompt", "plain", "amplified", "suppressed"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    with replacing(out) as temporary:
        temporary.mkdir()
        table[columns].to_parquet(AnswersFolder(temporary).scores, index=False)
        lines = _lines(chosen, strengths, prompts, said)
        AnswersFolder(temporary).answers.write_text("".join(lines), encoding="utf-8")


def _lines(
    latents: Sequence[int], strengths: Sequence[float], prompts: Sequence[Prompt], said: Sequence[Sequence[str]]
) -> list[str]:
    """Return the lines of answers.jsonl; `said` holds the plain answers, then those of each push."""
    plain, *steered = said
    lines = []
    for place, (latent, strength) in enumerate(product(latents, strengths)):
        for prompt, *answers in zip(prompts, plain, *steered[2 * place : 2 * place + 2], strict=True):
            texts = dict(zip(("plain", "amplified", "suppressed"), answers, strict=True))
            line = {"latent_index": latent, "strength": strength, "prompt": prompt.text, **texts}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return lines
