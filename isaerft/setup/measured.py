"""The sizes that decide a study's cost, read from its own files: shapes of its subjects, and rows of its behaviors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from isaerft.behaviors import Record, prompt_text, read_requests
from isaerft.behaviors.detect import understand
from isaerft.behaviors.prepare import split_records
from isaerft.config import Behavior, Plan
from isaerft.setup.estimate import USUAL_D_SAE, USUAL_L0, Rows, Shape
from isaerft.setup.facts import ModelFacts, SaeFacts, model_facts, sae_facts

CHARACTERS_PER_TOKEN = 4.0
# Tokenizers of tiny models have few words.
SMALL_VOCABULARY, SMALL_CHARACTERS_PER_TOKEN = 5_000, 2.0
USUAL_ROWS = Rows(320, 80, 40, 60)


class Sizes(NamedTuple):
    """What is known before a study runs.

    Attributes
    ----------
    shapes : dict
        Subject -> its sizes; without those whose model's files cannot be had.
    latents : dict
        Subject -> latents of its SAE.
    rows : dict
        Behavior -> its rows.
    assumed : list of str
        What is not known and was assumed, in words.
    """

    shapes: dict[str, Shape]
    latents: dict[str, int]
    rows: dict[str, Rows]
    assumed: list[str]


def sizes_of(plan: Plan) -> Sizes:
    """Return the sizes of a study; local data is read, a data set of the hub is not."""
    found = Sizes({}, {}, {}, [])
    smallest = 10**9
    for name, subject in plan.study.subjects.items():
        if subject.testbed is not None:
            continue
        model, sae = model_facts(subject), sae_facts(subject)
        if sae.d_sae is None:
            found.assumed.append(f"subject {name}: the size of its SAE is taken for {USUAL_D_SAE:,} latents")
        found.latents[name] = sae.d_sae or USUAL_D_SAE
        if model is None:
            found.assumed.append(f"subject {name}: its model's config cannot be had, so time and disk lack it")
            continue
        smallest = min(smallest, model.vocabulary)
        found.shapes[name] = shape_of(model, sae)
    for name, behavior in plan.study.behaviors.items():
        rows = rows_of(plan, name, behavior, characters_per_token(smallest))
        if rows is None:
            found.assumed.append(f"behavior {name}: taken for {USUAL_ROWS.n} rows of {USUAL_ROWS.tokens:.0f} tokens")
        found.rows[name] = rows or USUAL_ROWS
    return found


def shape_of(model: ModelFacts, sae: SaeFacts) -> Shape:
    """Return the sizes of a subject; what its SAE's files do not say is assumed."""
    n_below = model.n_blocks // 2 if sae.n_below is None else min(sae.n_below, model.n_blocks)
    return Shape(
        model.n_blocks,
        n_below,
        model.d_model,
        model.vocabulary,
        model.block_parameters,
        sae.d_sae or USUAL_D_SAE,
        sae.l0 or USUAL_L0,
    )


def characters_per_token(vocabulary: int) -> float:
    """Return how many characters a token has, roughly, by the size of the vocabulary."""
    return SMALL_CHARACTERS_PER_TOKEN if vocabulary < SMALL_VOCABULARY else CHARACTERS_PER_TOKEN


def tokens_in(text: str, per_token: float) -> float:
    """Return about how many tokens a text has; scripts beyond ASCII take one for each character."""
    n_ascii = sum(character.isascii() for character in text)
    return n_ascii / per_token + (len(text) - n_ascii)


def rows_of(plan: Plan, name: str, behavior: Behavior, per_token: float) -> Rows | None:
    """Return a behavior's rows; None where only running the study tells."""
    if behavior.elicit is not None:
        n = len(read_requests(behavior.elicit))
        n_heldout = round(n * behavior.heldout_fraction)
        return Rows(n - n_heldout, n_heldout, 20, behavior.elicit.max_new_tokens)
    if behavior.path is None:
        return None
    given = {key: getattr(behavior, key) for key in ("path", "columns", "where", "format", "ids", "system")}
    given["max_unusable_share"] = behavior.max_unusable_share
    records = understand(name, {key: value for key, value in given.items() if value}, detect=False).records
    if behavior.max_completion_characters is not None:
        records = [record for record in records if len(record.reply) <= behavior.max_completion_characters]
    train, heldout = split_records(records, behavior.heldout_fraction, behavior.max_rows)
    return rows_of_records(train, heldout, per_token, plan.study.max_length)


def rows_of_records(train: Sequence[Record], heldout: Sequence[Record], per_token: float, max_length: int) -> Rows:
    """Return the sizes of records, with prompts that lose their beginning beyond `max_length`."""
    both = [*train, *heldout]
    replies = [min(tokens_in(record.reply, per_token), max_length) for record in both]
    prompts = [
        min(tokens_in(prompt_text(record.prompt), per_token), max_length - reply)
        for record, reply in zip(both, replies, strict=True)
    ]
    n = max(1, len(both))
    return Rows(len(train), len(heldout), sum(prompts) / n, sum(replies) / n)
