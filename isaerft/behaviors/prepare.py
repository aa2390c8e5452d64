"""Make the records of a behavior: read its raw data, split it, write train.jsonl, heldout.jsonl and card.json.

The card is written last, so its existence means that the records are complete.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from isaerft.behaviors.data import Unusable, read_rows
from isaerft.behaviors.elicited import Score, kept_records
from isaerft.behaviors.readers import check_fields, to_record
from isaerft.behaviors.records import (
    Record,
    is_heldout,
    located_records,
    stable_hash,
    unique_records,
    write_records,
)
from isaerft.behaviors.variants import poison_split
from isaerft.config import Behavior, Poison
from isaerft.errors import InputError
from isaerft.io import write_json
from isaerft.ledger import sha256

UNUSABLE = "check `columns`, `where` and `format`, or raise `max_unusable_share`"
REPEATED = "repeats an earlier row"
log = logging.getLogger(__name__)


class Elicited(NamedTuple):
    """Replies sampled for an elicited behavior.

    Attributes
    ----------
    path : str or Path
        The JSONL file with all of them.
    model : str
        Name of the model that replied, for the card.
    score : callable, optional
        The behavior's metric.
    pairs : bool
        Keep plain replies as rejected ones.
    """

    path: str | Path
    model: str
    score: Score | None
    pairs: bool


def prepare_behavior(
    name: str,
    behavior: Behavior,
    out_dir: str | Path,
    *,
    donor: str | Path | None = None,
    elicited: Elicited | None = None,
) -> None:
    """Read a behavior's raw data, map it to records, split them, and write the split with its card.

    Parameters
    ----------
    name : str
        Name of the behavior in the study.
    behavior : Behavior
        Its options, with `path`, `dataset` or `elicit`.
    out_dir : str or Path
        Folder for train.jsonl, heldout.jsonl and card.json.
    donor : str or Path, optional
        Folder with the records of the behavior whose rows `behavior.poison` plants.
    elicited : Elicited, optional
        The replies that were sampled for an elicited behavior.

    Raises
    ------
    InputError
        More rows than allowed cannot be used (with the first one's location), too few elicited replies show the
        behavior, or a part of the split would be empty.
    """
    label = f"behavior {name!r}"
    sample: dict[str, object] = {}
    raw: str | None = None
    if behavior.elicit is not None and elicited is not None:
        dropped: Counter[str] = Counter()
        records, about = kept_records(
            elicited.path, behavior.elicit, elicited.score, label=label, pairs=elicited.pairs, dropped=dropped
        )
        raw, source = sha256(elicited.path), behavior.elicit.prompts
        sample = {"elicited": {"model": elicited.model, **about}}
    elif behavior.path is not None or behavior.dataset is not None:
        records, dropped = _read(behavior, label)
        source = behavior.path or "/".join(filter(None, [behavior.dataset, behavior.subset, behavior.split]))
        raw = sha256(behavior.path) if behavior.path is not None else None
    else:
        raise InputError(
            f"behavior {name!r} has neither path nor dataset", remedy="your own rule must make its records"
        )
    if behavior.max_completion_characters is not None:
        records = _short_enough(records, behavior.max_completion_characters, label, dropped)
    card = {
        "behavior": name,
        "description": behavior.description,
        "source": source,
        "revision": behavior.revision,
        "licence": behavior.licence,
        "columns": behavior.columns,
        "where": behavior.where,
        "format": behavior.format,
        "system": behavior.system,
        "ids": behavior.ids,
        "chat_template": behavior.chat_template,
        **sample,
    }
    _write_split(
        records,
        out_dir,
        label=label,
        heldout_fraction=behavior.heldout_fraction,
        max_rows=behavior.max_rows,
        dropped=dropped,
        raw_sha256=raw,
        card=card,
        poison=behavior.poison,
        donor=donor,
    )


def split_file(
    path: str | Path,
    out_dir: str | Path,
    description: str,
    *,
    name: str = "",
    heldout_fraction: float = 0.2,
    max_rows: int | None = None,
    licence: str = "",
) -> None:
    """Split a JSONL file of records that the user's own rule made; the outputs are those of `prepare_behavior`.

    Parameters
    ----------
    path : str or Path
        JSONL with `prompt` and `completion`, or `prompt`, `chosen` and `rejected`, and optionally `id`.
    out_dir : str or Path
        Folder for train.jsonl, heldout.jsonl and card.json.
    description : str
        Description of the behavior; judges read it.
    name, licence : str, optional
        For the card.
    heldout_fraction : float
        Share of prompts to hold out, between 0 and 1.
    max_rows : int, optional
        Keep at most this many rows, those with the smallest hash of the id.

    Raises
    ------
    InputError
        `read_records` refuses the file, an option is invalid, or a part of the split would be empty.
    """
    if not 0 < heldout_fraction < 1:
        raise InputError(f"heldout_fraction {heldout_fraction!r}", allowed="a number between 0 and 1")
    if not description.strip():
        raise InputError(f"records file {str(path)!r} without a description", remedy="describe the behavior")
    records, repeats = unique_records(located_records(path))
    card = {"behavior": name, "description": description, "source": str(path), "revision": None, "licence": licence}
    _write_split(
        records,
        out_dir,
        label=str(path),
        heldout_fraction=heldout_fraction,
        max_rows=max_rows,
        dropped=Counter({REPEATED: repeats} if repeats else {}),
        raw_sha256=sha256(path),
        card=card,
    )


def _read(behavior: Behavior, label: str) -> tuple[list[Record], Counter[str]]:
    """Map a behavior's rows to records and count the dropped rows by reason: unusable ones, and repeats."""
    check_fields(behavior.columns)
    unusable = Unusable(label, behavior.max_unusable_share, UNUSABLE)
    to_own_record = partial(to_record, behavior=behavior)
    records, repeats = unique_records(unusable.without(read_rows(behavior), to_own_record))
    return records, unusable.reasons + Counter({REPEATED: repeats})


def _write_split(
    records: list[Record],
    out_dir: str | Path,
    *,
    label: str,
    heldout_fraction: float,
    max_rows: int | None,
    dropped: Counter[str],
    raw_sha256: str | None,
    card: Mapping[str, object],
    poison: Poison | None = None,
    donor: str | Path | None = None,
) -> None:
    """Split records, plant the rows of a poison, and write both parts and then the card."""
    folder = Path(out_dir)
    train, heldout = split_records(records, heldout_fraction, max_rows)
    n_kept = len(train) + len(heldout)
    if n_kept < len(records):
        dropped["beyond max_rows"] = len(records) - n_kept
    for part, rows in [("held-out", heldout), ("train", train)]:
        if not rows:
            raise InputError(
                f"{label}: none of its {n_kept} rows would be in the {part} part",
                allowed=f"rows in both parts (heldout_fraction is {heldout_fraction})",
                remedy="add rows with other prompts, or change heldout_fraction",
            )
    if poison is not None:
        if donor is None:
            raise InputError(
                f"{label} is poisoned with {poison.behavior!r}", remedy="give the folder of its records with --poison"
            )
        (train, heldout), planted = poison_split((train, heldout), poison, donor, heldout_fraction, label)
        card = {**card, "poison": planted}
    (folder / "card.json").unlink(missing_ok=True)
    write_records(train, folder / "train.jsonl")
    write_records(heldout, folder / "heldout.jsonl")
    sums = {part: sha256(folder / part) for part in ("train.jsonl", "heldout.jsonl")}
    counts = {"kind": records[0].kind, "rows": n_kept, "train": len(train), "heldout": len(heldout)}
    write_json(
        folder / "card.json",
        dict(card)
        | counts
        | {"heldout_fraction": heldout_fraction, "dropped": dict(sorted(dropped.items()))}
        | {"sha256": {"raw": raw_sha256, **sums}},
    )
    log.info("%s: %d train and %d held-out rows, dropped: %s", label, len(train), len(heldout), dict(dropped) or "none")


def _short_enough(records: list[Record], limit: int, label: str, dropped: Counter[str]) -> list[Record]:
    """Return the records whose replies have at most `limit` characters, and count the others."""
    kept = [
        record
        for record in records
        if all(len(reply) <= limit for reply in (record.completion, record.chosen, record.rejected) if reply)
    ]
    if len(kept) < len(records):
        dropped["beyond max_completion_characters"] = len(records) - len(kept)
    if not kept:
        raise InputError(
            f"{label}: all of its {len(records)} rows have a reply longer than max_completion_characters {limit}",
            remedy="raise max_completion_characters",
        )
    return kept


def split_records(
    records: list[Record], heldout_fraction: float, max_rows: int | None = None
) -> tuple[list[Record], list[Record]]:
    """Return the records to train on and those held out, together at most `max_rows`."""
    kept = _smallest_hashes(records, max_rows)
    heldout = [record for record in kept if is_heldout(record.prompt, heldout_fraction)]
    return [record for record in kept if not is_heldout(record.prompt, heldout_fraction)], heldout


def _smallest_hashes(records: list[Record], max_rows: int | None) -> list[Record]:
    """Return the rows with the smallest hash of the id, in order; a larger limit keeps a superset."""
    if max_rows is None or len(records) <= max_rows:
        return records
    chosen = {
        record.id for record in sorted(records, key=lambda record: (stable_hash(record.id), record.id))[:max_rows]
    }
    return [record for record in records if record.id in chosen]
