"""The behavior check: did answers to held-out prompts change, and not only the loss?"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import GenerationConfig

from isaerft import config
from isaerft.adapters.saved import is_model_adapter, load_adapter, load_model_adapter, seed_folders
from isaerft.behaviors import Record
from isaerft.changes.metrics import make_metric
from isaerft.errors import InputError
from isaerft.io import replacing
from isaerft.stats import paired_means
from isaerft.subjects.capture import render_prompt
from isaerft.subjects.load import LoadedModel, LoadedSubject

SCORES, ANSWERS = "scores.parquet", "answers.jsonl"


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
    room = _longest_prompt(plan, subject)
    prompts = [prompt_tokens(record, subject.language, room) for record in chosen]

    def answer(answering: LoadedSubject) -> list[str]:
        return answers(
            answering,
            prompts,
            batch_size=plan.study.batch_size,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            seed=seed,
        )

    before = answer(subject)
    score_before = score(before)
    target = float(np.mean(score([record.completion or record.chosen or "" for record in chosen])))
    table, lines = [], []
    for name in tqdm(names, desc="behavior check", unit="adapter", disable=None):
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
                        "prompt": render_prompt(record, subject.language),
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
        pd.DataFrame(table).to_parquet(temporary / SCORES, index=False)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (temporary / ANSWERS).write_text(text, encoding="utf-8")


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


def _longest_prompt(plan: config.Plan, subject: LoadedSubject) -> int:
    """Return the largest number of prompt tokens that leaves room for an answer."""
    longest = getattr(subject.model.config.get_text_config(), "max_position_embeddings", None)
    if longest is None:
        return plan.study.max_length
    return min(plan.study.max_length, int(longest) - plan.study.behavior_check.max_new_tokens)


def distinct_prompts(records: Sequence[Record], language: LoadedModel, n: int, seed: int) -> list[Record]:
    """Return at most `n` records with different prompts, drawn at random.

    The prompt is the unit of the check: a repeated prompt would get the same answer twice.
    """
    different = list({render_prompt(record, language): record for record in records}.values())
    drawn = np.random.default_rng(seed).permutation(len(different))[:n]
    return [different[number] for number in sorted(drawn)]


def prompt_tokens(record: Record, language: LoadedModel, max_length: int) -> list[int]:
    """Return BOS and the token ids of a record's prompt; a prompt that is too long loses its beginning.

    Parameters
    ----------
    max_length : int
        Largest number of tokens, with BOS.
    """
    encoded = language.tokenizer(render_prompt(record, language), add_special_tokens=False)["input_ids"]
    room = max_length - len(language.bos)
    if room < 1 or not [*language.bos, *encoded]:
        raise InputError(f"record {record.id!r}: no token of its prompt fits", remedy="raise max_length")
    return [*language.bos, *encoded[-room:]]


def answers(
    subject: LoadedSubject,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Return the model's answer to each prompt, without special tokens.

    Parameters
    ----------
    prompts : sequence of list of int
        Token ids of each prompt.
    temperature : float
        0 for greedy decoding, else sampling from the whole vocabulary with `seed`.
    """
    found = continuations(
        subject, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, temperature=temperature, seed=seed
    )
    return subject.language.tokenizer.batch_decode(found, skip_special_tokens=True)


def continuations(
    subject: LoadedSubject,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float,
    seed: int,
) -> list[list[int]]:
    """Return the token ids with which the model goes on after each prompt, up to its EOS; see `answers`."""
    found: list[list[int]] = []
    starts = range(0, len(prompts), batch_size)
    with torch.random.fork_rng(enabled=temperature > 0), torch.no_grad():
        if temperature > 0:
            torch.manual_seed(seed)
        for start in tqdm(starts, desc="answers", unit="batch", disable=None, leave=False):
            found += _continued(subject, prompts[start : start + batch_size], max_new_tokens, temperature)
    return found


def _continued(
    subject: LoadedSubject, prompts: Sequence[list[int]], max_new_tokens: int, temperature: float
) -> list[list[int]]:
    language, model = subject.language, subject.model
    tokens, mask = padded_left(prompts, language.padding)
    # The model's own settings (a repetition penalty, say) would distort the comparison; only its EOS tokens are kept.
    own, ends = model.generation_config, {language.tokenizer.eos_token_id}
    ends |= set(own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id])
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=language.padding,
        eos_token_id=sorted(ends - {None}) or None,
        **sampling,
    )
    try:
        generated = cast("Any", model).generate(input_ids=tokens.to(model.device), attention_mask=mask.to(model.device))
    finally:
        model.generation_config = own
    # After EOS a row is filled with padding, which in some models is a token of the text.
    rows = [row[tokens.shape[1] :] for row in generated.tolist()]
    return [row[: next((place + 1 for place, token in enumerate(row) if token in ends), len(row))] for row in rows]


def padded_left(rows: Sequence[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask, both (n_rows, longest) int64, of rows that end where the answer begins.

    `generate` counts positions from each row's first unmasked token.
    """
    longest = max(len(row) for row in rows)
    tokens = torch.full((len(rows), longest), padding)
    mask = torch.zeros_like(tokens)
    for number, row in enumerate(rows):
        tokens[number, longest - len(row) :] = torch.tensor(row)
        mask[number, longest - len(row) :] = 1
    return tokens, mask
