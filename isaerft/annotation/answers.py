"""Read an annotated sheet back: from the CSV that a reader returns to the file that a source or a judge reads.

A row needs the columns sheet, latent_index, explanation and done, or sheet, item, behavior, expected and done. Others
are ignored, and the order is free. A blank answer counts only in a row whose `done` is marked (x, 1, yes, true): the
reader found no explanation, or expects no effect.
"""

from __future__ import annotations

import csv
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from isaerft.annotation.files import read_sheet
from isaerft.annotation.sheet import EXPLAIN, JUDGE, Sheet
from isaerft.config import Plan
from isaerft.errors import InputError, printable, shown
from isaerft.explanations import clean_text
from isaerft.io import read_data_file, read_json, replacing, write_json
from isaerft.layout import Results
from isaerft.ledger import sha256
from isaerft.table import MAX_TEXT, neutral_text

KEYS = {EXPLAIN: ("latent_index",), JUDGE: ("item", "behavior")}
ANSWER = {EXPLAIN: "explanation", JUDGE: "expected"}
EFFECTS = (-1.0, -0.5, 0.0, 0.5, 1.0)
DONE = ("x", "1", "yes", "true")
NOT_DONE = ("", "0", "no", "false")
PERSON_OR_MODEL = ("person", "model")
MAX_LISTED = 10
Key = tuple[int, str]
"""A latent and "", or an item and a behavior."""
log = logging.getLogger(__name__)


def read_annotations(
    plan: Plan, results: Results, subject: str, *, sheet: Path, returned: Path, reader: str, kind: str, out: Path
) -> None:
    """Write a reader's answers as the file that a `file` source or a `table` judge reads.

    Beside `out`, a JSON file of the same name says who answered which sheet. Nothing is written unless every row is
    right.

    Parameters
    ----------
    sheet : Path
        Folder of the sheet.
    returned : Path
        The CSV with the answers.
    reader, kind : str
        Name of the reader, and "person" or "model".
    out : Path
        A .csv file.

    Raises
    ------
    InputError
        The sheet is of another study or subject, or of files that have changed since; rows are missing, doubled,
        unknown, blank without a mark or out of range (the error names them); or `out` holds another reader's answers.
    """
    if kind not in PERSON_OR_MODEL:
        raise InputError(f"--kind {shown(kind)}", allowed=", ".join(PERSON_OR_MODEL))
    if not reader.strip():
        raise InputError("a reader without a name", remedy="give --reader")
    asked = read_sheet(sheet)
    _check_origin(asked, plan, results, subject, sheet)
    record = {
        "reader": reader.strip(),
        "kind": kind,
        "task": asked.task,
        "study": asked.study,
        "subject": asked.subject,
        "source": asked.source,
        "sheet": asked.id,
        "seed": asked.seed,
        "protocol": asked.protocol,
        "made_from": asked.made_from,
        "returned_sha256": "",
        "n_answers": 0,
        "n_blank": 0,
    }
    _refuse_other_reader(out, record)
    texts = _answers(asked, returned)
    record |= {
        "returned_sha256": sha256(returned),
        "n_answers": len(texts),
        "n_blank": sum(not text for text in texts.values()),
    }
    with replacing(out) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(_table(asked, texts))
    write_json(out.with_suffix(".json"), record)
    log.info("%s: %d answers by %s, %d of them blank", out, len(texts), reader, record["n_blank"])


def _check_origin(asked: Sheet, plan: Plan, results: Results, subject: str, folder: Path) -> None:
    """Refuse a sheet of another study or subject, or one whose files or descriptions have changed."""
    if (asked.study, asked.subject) != (plan.study.study, subject):
        raise InputError(
            f"the sheet in {folder} is of study {shown(asked.study)}, subject {shown(asked.subject)}",
            allowed=f"study {plan.study.study!r}, subject {subject!r}",
        )
    path = results.subject(subject).contexts if asked.task == EXPLAIN else results.explanations(subject, asked.source)
    if not path.is_file():
        raise InputError(f"{path}, from which the sheet was made, does not exist", remedy="make it again first")
    if {path.name: sha256(path)} != asked.made_from:
        raise InputError(
            f"{path} has changed since the sheet in {folder} was made: the answers are about something else",
            remedy="restore the file, or make a new sheet",
        )
    described = {name: plan.described.get(name) for name in asked.behaviors}
    changed = [name for name, text in asked.behaviors.items() if described[name] != text]
    if changed:
        raise InputError(
            f"the description of {', '.join(changed)} has changed since the sheet in {folder} was made",
            remedy="restore it, or make a new sheet",
        )


def _refuse_other_reader(out: Path, record: dict[str, object]) -> None:
    """Refuse to replace a file that is not this reader's answers to this sheet."""
    if out.suffix != ".csv":
        raise InputError(f"--out {str(out)!r}", allowed="a .csv file")
    if not out.exists():
        return
    beside = out.with_suffix(".json")
    found = read_json(beside) if beside.is_file() else {}
    if not isinstance(found, dict) or any(found.get(key) != record[key] for key in ("reader", "sheet")):
        raise InputError(f"{out} exists and is not {record['reader']}'s answers to this sheet", remedy="choose another")


def _answers(asked: Sheet, path: Path) -> dict[Key, str]:
    """Return the answer to every question of a sheet, as text; "" where it was left blank on purpose."""
    needed = ("sheet", *KEYS[asked.task], ANSWER[asked.task], "done")
    questions = list(_questions(asked))
    known = set(questions)
    found: dict[Key, str] = {}
    faults: dict[str, list[str]] = defaultdict(list)
    for row in read_data_file(path):
        missing = [column for column in needed if column not in row.values]
        if missing:
            raise InputError(
                f"{path} lacks the columns {', '.join(missing)}",
                allowed=", ".join(needed),
                remedy="save it as CSV with commas, with its first line",
            )
        place = row.location.removeprefix(f"{path} ")
        values = {column: str(row.values[column] or "").strip() for column in needed}
        key = _key(asked.task, values)
        name = f"{place} ({' '.join(printable(values[column]) for column in KEYS[asked.task])})"
        if values["sheet"] != asked.id:
            faults[f"of another sheet (this is {asked.id})"].append(f"{place} ({printable(values['sheet'])})")
        elif key is None or key not in known:
            faults["about what the sheet does not ask"].append(name)
        elif key in found:
            faults["that answer again"].append(name)
        else:
            found[key], fault = _answer(asked.task, values)
            if fault:
                faults[fault].append(name)
    lacking = [" ".join(map(str, key)).strip() for key in questions if key not in found]
    if lacking:
        faults["missing"] += lacking
    if faults:
        wrong = "; ".join(f"rows {fault}: {_some(places)}" for fault, places in faults.items())
        raise InputError(f"{path} has {wrong}", remedy="correct these rows; nothing was written")
    return {key: found[key] for key in sorted(questions)}


def _questions(asked: Sheet) -> Iterator[Key]:
    """Yield the key of each question, in the sheet's order."""
    if asked.task == EXPLAIN:
        yield from ((latent, "") for latent in asked.latents)
    else:
        yield from ((item, name) for item in range(1, len(asked.explanations) + 1) for name in asked.behaviors)


def _key(task: str, values: dict[str, str]) -> Key | None:
    """Return the key of a row; None if its number is none."""
    number = values[KEYS[task][0]]
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        return None
    return int(number), values["behavior"] if task == JUDGE else ""


def _answer(task: str, values: dict[str, str]) -> tuple[str, str]:
    """Return the answer in a row as text, and what is wrong with it; "" if nothing is."""
    given, done = values[ANSWER[task]], values["done"].lower()
    if done not in DONE + NOT_DONE:
        return "", f"whose done is not one of {', '.join(DONE)} or blank"
    if not given:
        return "", "" if done in DONE else "blank and not marked as done"
    if task == EXPLAIN:
        text = neutral_text(clean_text(given))
        if len(" ".join(given.split())) > MAX_TEXT:
            return "", f"with more than {MAX_TEXT} characters"
        return text, "" if text else "without a readable character"
    try:
        effect = float(given)
    except ValueError:
        effect = math.nan
    allowed = ", ".join(f"{value:g}" for value in EFFECTS)
    return (f"{effect:g}", "") if effect in EFFECTS else ("", f"with an effect that is not one of {allowed}")


def _table(asked: Sheet, texts: dict[Key, str]) -> Iterator[list[str]]:
    """Yield the lines of the file that a source or a judge reads, sorted by latent or by text."""
    if asked.task == EXPLAIN:
        yield ["latent_index", "explanation"]
        yield from ([str(latent), text] for (latent, _), text in texts.items())
    else:
        yield ["behavior", "explanation", "expected_effect"]
        rows = ([name, neutral_text(asked.explanations[item - 1]), text or "0"] for (item, name), text in texts.items())
        yield from sorted(rows, key=lambda row: (row[1], row[0]))


def _some(places: Sequence[str]) -> str:
    """Return the first of some places as text."""
    return ", ".join(places[:MAX_LISTED]) + (f", ... ({len(places)} in all)" if len(places) > MAX_LISTED else "")
