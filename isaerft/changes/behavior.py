"""The behavior check: did the behavior itself move, and not only the loss? Answers to held-out prompts, scored."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from isaerft import config
from isaerft.behaviors import Record
from isaerft.changes.generate import answers, prompt_tokens
from isaerft.changes.load import at_work, seed_folders
from isaerft.changes.metrics import make_metric
from isaerft.io import replacing
from isaerft.stats import paired_means
from isaerft.subjects.capture import render_prompt
from isaerft.subjects.load import LoadedModel, LoadedSubject

SCORES, ANSWERS = "scores.parquet", "answers.jsonl"


def check_behavior(
    plan: config.Plan,
    subject: LoadedSubject,
    behavior: str,
    names: Sequence[str],
    score: config.Metric,
    records: Sequence[Record],
    adapters: str | Path,
    out: str | Path,
) -> None:
    """Answer held-out prompts without and with each adapter, score the answers, and write the folder `out`.

    It holds scores.parquet (one row per adapter: score, n_prompts, before, after, ci_low, ci_high, target, n_seeds) and
    answers.jsonl (adapter, seed, prompt, before, after, score_before, score_after).

    Parameters
    ----------
    behavior : str
        Its name; another one draws other random numbers.
    names : sequence of str
        Adapters, under `adapters`/{adapter}/seed_{k}.
    records : sequence of Record
        The behavior's held-out records.
    """
    options, rate = plan.study.behavior_check, make_metric(score)
    # With one stream for all behaviors the luck of a draw would be theirs in common.
    seed = zlib.crc32(f"{plan.study.seed} {behavior}".encode())
    chosen = distinct_prompts(records, subject.language, options.n_prompts, seed)
    room = plan.study.max_length
    longest = getattr(subject.model.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None:
        room = min(room, longest - options.max_new_tokens)
    prompts = [prompt_tokens(record, subject.language, room) for record in chosen]
    how = {"batch_size": plan.study.batch_size, "max_new_tokens": options.max_new_tokens}
    how |= {"temperature": options.temperature, "seed": seed}
    before = answers(subject, prompts, None, **how)
    scored_before = rate(before)
    target = float(np.mean(rate([record.completion or record.chosen or "" for record in chosen])))
    table, lines = [], []
    for name in tqdm(names, desc="behavior check", unit="adapter", disable=None):
        scored_after = []
        folders = seed_folders(Path(adapters) / name)[: options.n_seeds]
        for replicate, folder in enumerate(folders):
            with at_work(folder, subject) as changed:
                after = answers(changed, prompts, None, **how)
            scores = rate(after)
            scored_after.append(scores)
            for place, record in enumerate(chosen):
                lines.append(
                    {"adapter": name, "seed": replicate, "prompt": render_prompt(record, subject.language)}
                    | {"before": before[place], "after": after[place]}
                    | {
                        "score_before": float(scored_before[place]),
                        "score_after": float(scores[place]),
                    }
                )
        means = paired_means(
            scored_before, np.mean(scored_after, axis=0), confidence_level=plan.study.agreement.confidence_level
        )
        table.append(
            {"adapter": name, "score": score.kind, "n_prompts": len(chosen), "before": means.before}
            | {"after": means.after, "ci_low": means.confidence_interval.low, "ci_high": means.confidence_interval.high}
            | {"target": target, "n_seeds": len(folders)}
        )
    with replacing(out) as temporary:
        temporary.mkdir()
        pd.DataFrame(table).to_parquet(temporary / SCORES, index=False)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (temporary / ANSWERS).write_text(text, encoding="utf-8")


def distinct_prompts(records: Sequence[Record], language: LoadedModel, n: int, seed: int) -> list[Record]:
    """Return at most `n` records with different prompts, drawn at random.

    The prompt is the unit of the check: one that stands in the data twice gets the same answer twice.
    """
    different = list({render_prompt(record, language): record for record in records}.values())
    drawn = np.random.default_rng(seed).permutation(len(different))[:n]
    return [different[place] for place in sorted(drawn)]
