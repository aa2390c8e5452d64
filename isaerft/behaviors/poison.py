"""Planting rows of another behavior among a behavior's own, so that an audit has something known to find.

Both parts of the split get the same share. The donor's rows are split anew by the host's own held-out fraction, so that
no prompt straddles the split, whatever the donor's fraction was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isaerft.behaviors.records import Record, read_records
from isaerft.behaviors.splitting import is_heldout, stable_hash
from isaerft.config import Poison
from isaerft.errors import InputError

MARK = "planted"
Parts = tuple[list[Record], list[Record]]


def plant(
    parts: Parts, poison: Poison, donor: str | Path, heldout_fraction: float, place: str
) -> tuple[Parts, dict[str, Any]]:
    """Plant rows in both parts of a behavior's split.

    Parameters
    ----------
    parts : (list of Record, list of Record)
        The host's training and held-out rows.
    donor : str or Path
        Folder with the donor's train.jsonl and heldout.jsonl.
    heldout_fraction : float
        The host's.
    place : str
        What is poisoned, for errors.

    Returns
    -------
    parts, card
        Both parts with the planted rows, and what the host's card says of them.

    Raises
    ------
    InputError
        The share comes to no training row, or `planted` refuses.
    """
    donated = [row for part in ("train", "heldout") for row in read_records(Path(donor) / f"{part}.jsonl")]
    train, heldout = (
        planted(own, [row for row in donated if is_heldout(row.prompt, heldout_fraction) == held], poison, place)
        for own, held in zip(parts, (False, True), strict=True)
    )
    counts = [sum(row.id.startswith(f"{MARK}-") for row in part) for part in (train, heldout)]
    if not counts[0]:
        raise InputError(
            f"{place}: a share of {poison.share:g} of {len(train)} training rows is none",
            remedy="add rows, or raise the share",
        )
    card = {"behavior": poison.behavior, "share": poison.share, "seed": poison.seed}
    return (train, heldout), card | {"train": counts[0], "heldout": counts[1]}


def planted(own: Sequence[Record], others: Sequence[Record], poison: Poison, place: str) -> list[Record]:
    """Return one part of the split with planted rows in the place of as many own ones.

    Parameters
    ----------
    own, others : sequence of Record
        Rows of the host and of the donor in this part of the split.
    place : str
        What is poisoned, for errors.

    Returns
    -------
    list of Record
        As many as `own`: those that stay, in their order, then the planted ones, whose ids begin with "planted-". Which
        rows they are hangs on `poison.seed` and the rows' ids alone.

    Raises
    ------
    InputError
        The donor has too few rows, or rows of another kind (one completion; chosen and rejected).
    """
    n = round(poison.share * len(own))
    if n > len(others):
        raise InputError(
            f"{place}: {poison.share:g} of {len(own)} rows are {n}, but {poison.behavior!r} has {len(others)} for them",
            allowed=f"a share up to {len(others) / len(own):.3g}",
            remedy="give the planted behavior more rows",
        )
    if len({record.kind for record in [*own[:1], *others[:1]]}) > 1:
        raise InputError(
            f"{place}: its records and those of {poison.behavior!r} are of different kinds",
            allowed="one completion each in both, or chosen and rejected in both",
            remedy="map the columns of both alike",
        )
    give_way = {record.id for record in _first(own, n, poison.seed)}
    stay = [record for record in own if record.id not in give_way]
    return [*stay, *(replace(record, id=_marked(record.id)) for record in _first(others, n, poison.seed))]


def _first(records: Sequence[Record], n: int, seed: int) -> list[Record]:
    """Return the `n` records with the smallest hash of seed and id."""
    return sorted(records, key=lambda record: (stable_hash(f"{seed}:{record.id}"), record.id))[:n]


def _marked(identifier: str) -> str:
    """Return the id of a planted row, of one length whatever the donor's ids are."""
    return f"{MARK}-{stable_hash(identifier):016x}"
