"""What an annotation sheet asks: which latents or explanations, in which order, and what a reader sees of them.

A sheet has one of two tasks. `explain` shows the contexts and promoted tokens of each latent and asks for an
explanation; `judge` shows each distinct explanation and asks for the effect of training on each behavior. Nothing from
training is on a sheet, and its order depends on the seed and on which latents it is about alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from isaerft.config import Plan
from isaerft.errors import InputError
from isaerft.explanations import latents_to_explain, read_explanations, read_sample
from isaerft.explanations.base import clean_text
from isaerft.explanations.contexts import Context, clean_token, grouped, read_contexts, without_marks
from isaerft.explanations.file import latent_index
from isaerft.io import read_data_file
from isaerft.layout import Results
from isaerft.ledger import sha256

PROTOCOL = 1
"""Version of the protocol in docs/annotate.md; raise it when what readers see or are asked changes."""
EXPLAIN, JUDGE = "explain", "judge"
SIDES = ("input", "output", "amplified")
"""Sides of contexts.parquet that readers see; what is held out for scoring is none of them."""
MAX_AROUND = 200
MAX_LISTED = 10


class Excerpt(NamedTuple):
    """A context as shown: the token, the text around it, and its strength, from 1 to 10 (the latent's strongest)."""

    before: str
    token: str
    after: str
    strength: int


@dataclass(frozen=True)
class Evidence:
    """What a reader sees of one latent.

    Attributes
    ----------
    contexts : list of Excerpt
        Tokens on which it fires most, the strongest first, each text once.
    promoted, amplified : list of str
        Tokens that it promotes directly, and those that become likelier when it is amplified.
    """

    contexts: list[Excerpt] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)
    amplified: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sheet:
    """What a sheet asks, in its order.

    Attributes
    ----------
    task : {"explain", "judge"}
    study, subject : str
    source : str
        The source whose explanations are judged; "" on a sheet that asks for explanations.
    seed : int
        Seed of the order.
    made_from : dict of str to str
        Name of each file that the sheet was made from -> its SHA-256.
    latents : list of int
        The latents to explain; empty on a sheet that asks for judgements.
    explanations : list of str
        The texts to judge, in place of latents. Item 1 is the first.
    behaviors : dict of str to str
        Name of each behavior to judge for -> its description.
    protocol : int
    """

    task: str
    study: str
    subject: str
    source: str
    seed: int
    made_from: dict[str, str]
    latents: list[int] = field(default_factory=list)
    explanations: list[str] = field(default_factory=list)
    behaviors: dict[str, str] = field(default_factory=dict)
    protocol: int = PROTOCOL

    @cached_property
    def id(self) -> str:
        """A digest of everything that the sheet asks; every row of its CSV carries it."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


def chosen_latents(plan: Plan, results: Results, subject: str, wanted: str | None = None) -> np.ndarray:
    """Return the latents of a sheet, (n,) int64 ascending.

    Parameters
    ----------
    wanted : str, optional
        "sample", the case-control sample; "all", every live latent; or a data file with a column latent_index. By
        default the sample, if it has been drawn or a source of the study explains it, and else all.

    Raises
    ------
    InputError
        The sample has not been drawn, or the file names a latent twice or one that is not alive.
    """
    facts = results.subject(subject).read_latents()
    alive = latents_to_explain(facts, plan.study.agreement.min_firing_rate)
    if wanted is None:
        is_sampled = results.design(subject).is_file() or plan.samples(plan.sources_of(subject))
        wanted = "sample" if is_sampled else "all"
    if wanted == "all":
        return alive
    if wanted == "sample":
        return np.sort(read_sample(results.design(subject))["latent_index"].to_numpy(np.int64))
    listed: dict[int, str] = {}
    for row in read_data_file(wanted):
        if "latent_index" not in row.values:
            raise InputError(f"{row.location} has no column latent_index", remedy="add a header line")
        latent = latent_index(row.values["latent_index"], row.location)
        if latent in listed:
            raise InputError(f"{row.location} lists latent {latent} again", remedy="list each latent once")
        listed[latent] = row.location
    dead = sorted(set(listed) - set(alive.tolist()))
    if dead:
        raise InputError(
            f"{wanted} lists {len(dead)} latents that are not alive in {subject!r}: {_some(dead)}",
            allowed=f"{len(alive)} latents that fire at least at agreement.min_firing_rate",
        )
    return np.array(sorted(listed), dtype=np.int64)


def explain_sheet(
    plan: Plan, results: Results, subject: str, latents: np.ndarray, *, seed: int
) -> tuple[Sheet, list[Evidence]]:
    """Return a sheet that asks for the explanations of latents, and the evidence about each, in its order.

    Raises
    ------
    InputError
        There are no contexts, or none of one of the latents.
    """
    path = results.subject(subject).contexts
    found = _evidence(path)
    if not len(latents):
        raise InputError(f"no latent of {subject!r} is alive", remedy="lower agreement.min_firing_rate")
    unknown = sorted(set(latents.tolist()) - set(found))
    if unknown:
        raise InputError(f"{path} has no contexts of {len(unknown)} latents: {_some(unknown)}", remedy="leave them out")
    order = [int(latent) for latent in np.random.default_rng(seed).permutation(np.sort(latents))]
    sheet = Sheet(EXPLAIN, plan.study.study, subject, "", seed, {path.name: sha256(path)}, latents=order)
    return sheet, [found[latent] for latent in order]


def judge_sheet(plan: Plan, results: Results, subject: str, source: str, latents: np.ndarray, *, seed: int) -> Sheet:
    """Return a sheet that asks what each distinct explanation of a source leads one to expect of each behavior.

    Raises
    ------
    InputError
        The source has not explained anything yet, or none of the latents.
    """
    path = results.explanations(subject, source)
    found = read_explanations(path)
    texts = sorted(set(found.loc[found["latent_index"].isin(latents), "explanation"]))
    if not texts:
        raise InputError(f"{path} explains none of the {len(latents)} latents", remedy="choose other --latents")
    rng = np.random.default_rng(seed)
    names = list(plan.described)
    return Sheet(
        JUDGE,
        plan.study.study,
        subject,
        source,
        seed,
        {path.name: sha256(path)},
        explanations=[texts[at] for at in rng.permutation(len(texts))],
        behaviors={names[at]: plan.described[names[at]] for at in rng.permutation(len(names))},
    )


def _evidence(path: Path) -> dict[int, Evidence]:
    """Return what contexts.parquet says of each latent."""
    found: dict[int, Evidence] = {}
    contexts = read_contexts(path)
    for latent, side, group in grouped(contexts[contexts["side"].isin(SIDES)]):
        one = found.setdefault(latent, Evidence())
        if side == "input":
            strongest = max(abs(context.value) for context in group) or 1.0
            distinct: dict[tuple[str, ...], Excerpt] = {}
            for excerpt in filter(None, (_excerpt(context, strongest) for context in group)):
                distinct.setdefault((excerpt.before, excerpt.token, excerpt.after), excerpt)
            one.contexts.extend(distinct.values())
        else:
            tokens = one.promoted if side == "output" else one.amplified
            tokens.extend(dict.fromkeys(filter(None, (clean_token(context.token) for context in group))))
    return found


def _excerpt(context: Context, strongest: float) -> Excerpt | None:
    """Return a context as shown; spaces at the token's ends tell a whole word from a part of one."""
    before, raw, after = (without_marks(text) for text in (context.before, context.token, context.after))
    token = clean_token(context.token)
    if not token:
        return None
    left = " " if before[-1:].isspace() or raw[:1].isspace() else ""
    right = " " if after[:1].isspace() or raw[-1:].isspace() else ""
    strength = max(1, round(10 * abs(context.value) / strongest))
    return Excerpt(clean_text(before)[-MAX_AROUND:] + left, token, right + clean_text(after)[:MAX_AROUND], strength)


def _some(latents: Sequence[int]) -> str:
    """Return the first of some latents as text."""
    return ", ".join(map(str, latents[:MAX_LISTED])) + (", ..." if len(latents) > MAX_LISTED else "")
