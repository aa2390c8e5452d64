"""A behavior's raw data -> train.jsonl, heldout.jsonl and card.json.

The split is fixed by a hash of the normalised prompt: rows with one prompt stay together, and a row never moves when
others are added. The card is written last, so its existence means that the data beside it is whole.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from isaerft.behaviors.readers import UnusableDialogue, read_rows, to_record
from isaerft.behaviors.records import Record, collected, is_heldout, placed_records, stable_hash, write_records
from isaerft.behaviors.variants import plant
from isaerft.config import Behavior, Poison
from isaerft.errors import InputError
from isaerft.io import sha256, write_json

MAX_UNUSABLE_SHARE = 0.05
REPEATED = "repeats an earlier row"
log = logging.getLogger(__name__)


def prepare_behavior(name: str, behavior: Behavior, out_dir: str | Path, *, donor: str | Path | None = None) -> None:
    """Read a behavior's raw data, map it to records, split it, and write the split with its card.

    Parameters
    ----------
    name : str
        Name of the behavior in the study.
    behavior : Behavior
        Its options; `path` or `dataset` is set.
    out_dir : str or Path
        Folder for train.jsonl, heldout.jsonl and card.json.
    donor : str or Path, optional
        Folder with the finished records of the behavior whose rows `behavior.poison` plants.

    Raises
    ------
    InputError
        The data breaks a rule (with row, what is allowed, what to do), or a part of the split would be empty.
    """
    if behavior.path is None and behavior.dataset is None:
        raise InputError(f"behavior {name!r} has neither path nor dataset", remedy="its own rule must make its records")
    place = f"behavior {name!r}"
    records, dropped = _records_of(behavior, place)
    if behavior.path is not None:
        raw, source = sha256(behavior.path), behavior.path
    else:
        raw, source = None, "/".join(filter(None, [behavior.dataset, behavior.subset, behavior.split]))
    if behavior.max_completion_characters is not None:
        records = _without_long(records, behavior.max_completion_characters, place, dropped)
    card = {
        "behavior": name,
        "description": behavior.description,
        "source": source,
        "revision": behavior.revision,
        "licence": behavior.licence,
        "columns": behavior.columns,
        "where": behavior.where,
        "format": behavior.format,
    }
    _write_split(
        records,
        out_dir,
        place=place,
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
    """Split a JSONL file of records that a rule of the user's own made; the outputs are those of `prepare_behavior`.

    Parameters
    ----------
    path : str or Path
        JSONL with `prompt` and `completion`, or `prompt`, `chosen` and `rejected`, and optionally `id`.
    out_dir : str or Path
        Folder for train.jsonl, heldout.jsonl and card.json.
    description : str
        What the behavior is; the judges read it.
    name, licence : str, optional
        For the card.
    heldout_fraction : float
        Share of prompts held out, between 0 and 1.
    max_rows : int, optional
        Keep at most this many rows (those with the smallest id hash).

    Raises
    ------
    InputError
        The file breaks a rule of `read_records`, or a part of the split would be empty.
    """
    if not 0 < heldout_fraction < 1:
        raise InputError(f"heldout_fraction {heldout_fraction!r}", allowed="a number between 0 and 1")
    if not description.strip():
        raise InputError(f"records file {str(path)!r} without a description", remedy="say what the behavior is")
    records, repeats = collected(placed_records(path))
    card = {"behavior": name, "description": description, "source": str(path), "revision": None, "licence": licence}
    _write_split(
        records,
        out_dir,
        place=str(path),
        heldout_fraction=heldout_fraction,
        max_rows=max_rows,
        dropped=Counter({REPEATED: repeats} if repeats else {}),
        raw_sha256=sha256(path),
        card=card,
    )


def _records_of(behavior: Behavior, place: str) -> tuple[list[Record], Counter[str]]:
    """Map a behavior's rows to records and count what was left out, by reason.

    Left out are repetitions (see `collected`) and, up to a small share of the rows, dialogues that cannot be split.
    """
    dropped: Counter[str] = Counter()
    unusable: list[str] = []

    def placed() -> Iterator[tuple[str, Record]]:
        for row in read_rows(behavior):
            try:
                yield row.location, to_record(row, behavior)
            except UnusableDialogue as problem:
                unusable.append(f"{row.location}: {problem}")
                dropped[str(problem)] += 1

    records, repeats = collected(placed())
    n_rows = len(unusable) + len(records) + repeats
    if len(unusable) > MAX_UNUSABLE_SHARE * n_rows:
        raise InputError(
            f"{place}: {len(unusable)} of {n_rows} rows cannot be used; {unusable[0]}",
            allowed=f"a share of {MAX_UNUSABLE_SHARE:.0%}",
            remedy="is `format: hh` right, and are chosen and rejected mapped to whole dialogues?",
        )
    if repeats:
        dropped[REPEATED] = repeats
    return records, dropped


def _write_split(
    records: list[Record],
    out_dir: str | Path,
    *,
    place: str,
    heldout_fraction: float,
    max_rows: int | None,
    dropped: Counter[str],
    raw_sha256: str | None,
    card: dict[str, object],
    poison: Poison | None = None,
    donor: str | Path | None = None,
) -> None:
    """Write the two parts and, when both stand, the card."""
    folder = Path(out_dir)
    kept = _smallest_hashes(records, max_rows)
    if len(kept) < len(records):
        dropped["beyond max_rows"] = len(records) - len(kept)
    heldout = [record for record in kept if is_heldout(record.prompt, heldout_fraction)]
    train = [record for record in kept if not is_heldout(record.prompt, heldout_fraction)]
    for part, rows in [("held-out", heldout), ("train", train)]:
        if not rows:
            raise InputError(
                f"{place}: the {part} part of its {len(kept)} rows would be empty",
                allowed=f"rows in both parts (heldout_fraction is {heldout_fraction})",
                remedy="add rows with other prompts, or change heldout_fraction",
            )
    if poison is not None:
        if donor is None:
            raise InputError(f"{place} is poisoned with {poison.behavior!r}", remedy="say with --poison where it is")
        (train, heldout), card["poison"] = plant((train, heldout), poison, donor, heldout_fraction, place)
    (folder / "card.json").unlink(missing_ok=True)
    write_records(train, folder / "train.jsonl")
    write_records(heldout, folder / "heldout.jsonl")
    sums = {part: sha256(folder / part) for part in ("train.jsonl", "heldout.jsonl")}
    counts = {"kind": kept[0].kind, "rows": len(kept), "train": len(train), "heldout": len(heldout)}
    write_json(
        folder / "card.json",
        card
        | counts
        | {"heldout_fraction": heldout_fraction, "dropped": dict(sorted(dropped.items()))}
        | {"sha256": {"raw": raw_sha256, **sums}},
    )
    log.info(
        "%s: %d train and %d held-out rows, left out: %s", place, len(train), len(heldout), dict(dropped) or "none"
    )


def _without_long(records: list[Record], limit: int, place: str, dropped: Counter[str]) -> list[Record]:
    """Leave out records with a reply of more than `limit` characters, and count them."""
    kept = [
        record
        for record in records
        if all(len(reply) <= limit for reply in (record.completion, record.chosen, record.rejected) if reply)
    ]
    if len(kept) < len(records):
        dropped["beyond max_completion_characters"] = len(records) - len(kept)
    if not kept:
        raise InputError(
            f"{place}: every one of {len(records)} rows is longer than max_completion_characters {limit}",
            remedy="raise max_completion_characters",
        )
    return kept


def _smallest_hashes(records: list[Record], max_rows: int | None) -> list[Record]:
    """Keep the rows with the smallest id hash, in their order, so that a larger limit keeps a superset."""
    if max_rows is None or len(records) <= max_rows:
        return records
    chosen = {
        record.id for record in sorted(records, key=lambda record: (stable_hash(record.id), record.id))[:max_rows]
    }
    return [record for record in records if record.id in chosen]
