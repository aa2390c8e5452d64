"""The behavior check: did answers to held-out prompts change, and not only the loss?"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.adapters.saved import is_model_adapter, load_adapter, load_model_adapter, seed_folders
from isaerft.behaviors import Record, prompt_text
from isaerft.changes.metrics import make_metric
from isaerft.io import replacing
from isaerft.layout import AnswersFolder
from isaerft.progress import Progress
from isaerft.stats import paired_means
from isaerft.subjects.chat import render_prompt
from isaerft.subjects.generate import generate, longest_prompt, prompt_tokens
from isaerft.subjects.load import LoadedModel, LoadedSubject


def check_behavior(
    plan: config.Plan,
    subject: LoadedSubject,
    behavior: str,
    records: Sequence[Record],
    metric: config.Metric,
    *,
    names: Sequence[str],
    adapters: str | Path,
    out: str | Path,
) -> None:
    """Answer held-out prompts without and with each adapter, score the answers, and write the folder `out`.

    It holds scores.parquet (one row per adapter: score, n_prompts, before, after, ci_low, ci_high, target, n_seeds) and
    answers.jsonl (adapter, seed, prompt, before, after, score_before, score_after).

    Parameters
    ----------
    behavior : str
        Name of the behavior; each has its own random stream.
    records : sequence of Record
        The behavior's held-out records.
    metric : Metric
        Scores an answer, higher where it shows more of the behavior.
    names : sequence of str
        Adapters, under `adapters`/{adapter}/seed_{k}.
    """
    options, score = plan.study.behavior_check, make_metric(metric)
    # With a stream in common, the luck of one draw would affect all behaviors.
    seed = zlib.crc32(f"{plan.study.seed} {behavior}".encode())
    chosen = distinct_prompts(records, subject.language, options.n_prompts, seed)
    room = longest_prompt(subject.language, plan.study.max_length, options.max_new_tokens)
    prompts = [prompt_tokens(record, subject.language, room) for record in chosen]

    def answer(answering: LoadedSubject) -> list[str]:
        replies = generate(
            answering.language,
            prompts,
            batch_size=plan.study.batch_size,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            seed=seed,
            description="answers",
        )
        return [reply.text for reply in replies]

    before = answer(subject)
    score_before = score(before)
    target = float(np.mean(score([record.completion or record.chosen or "" for record in chosen])))
    table, lines = [], []
    for name in Progress(names, desc="behavior check", unit="adapter"):
        scores_after = []
        folders = seed_folders(Path(adapters) / name)[: options.n_seeds]
        for replicate, folder in enumerate(folders):
            with adapted_model(folder, subject) as changed:
                after = answer(changed)
            scores = score(after)
            scores_after.append(scores)
            for number, record in enumerate(chosen):
                lines.append(
                    {
                        "adapter": name,
                        "seed": replicate,
                        "prompt": prompt_text(record.prompt),
                        "before": before[number],
                        "after": after[number],
                        "score_before": float(score_before[number]),
                        "score_after": float(scores[number]),
                    }
                )
        means = paired_means(
            score_before, np.mean(scores_after, axis=0), confidence_level=plan.study.agreement.confidence_level
        )
        table.append(
            {
                "adapter": name,
                "score": metric.kind,
                "n_prompts": len(chosen),
                "before": means.before,
                "after": means.after,
                "ci_low": means.confidence_interval.low,
                "ci_high": means.confidence_interval.high,
                "target": target,
                "n_seeds": len(folders),
            }
        )
    with replacing(out) as temporary:
        temporary.mkdir()
        pd.DataFrame(table).to_parquet(AnswersFolder(temporary).scores, index=False)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        AnswersFolder(temporary).answers.write_text(text, encoding="utf-8")


@contextmanager
def adapted_model(folder: str | Path, subject: LoadedSubject) -> Iterator[LoadedSubject]:
    """Give the subject with the adapter saved in `folder` acting in its model's own forward passes."""
    if is_model_adapter(folder):
        with load_model_adapter(folder, subject) as model_adapter, model_adapter.in_model(subject) as changed:
            yield changed
    else:
        adapter = load_adapter(folder, subject.dictionary.d_sae).to(subject.model.device)
        with adapter.in_model(subject) as changed:
            yield changed


def distinct_prompts(records: Sequence[Record], language: LoadedModel, n: int, seed: int) -> list[Record]:
    """Return at most `n` records with different prompts, drawn at random.

    The prompt is the unit of the check: a repeated prompt would get the same answer twice.
    """
    different = list({render_prompt(record, language): record for record in records}.values())
    drawn = np.random.default_rng(seed).permutation(len(different))[:n]
    return [different[number] for number in sorted(drawn)]
