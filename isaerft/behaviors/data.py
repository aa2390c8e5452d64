"""Read rows of data, from a local file or the Hugging Face hub, and leave out the few that cannot be used.

Nobody can correct a published data set at a pinned revision, so a small share of bad rows is left out and counted. More
of them are an error, since then the options are wrong rather than the data:

>>> unusable = Unusable("behavior 'refusal'", allowed_share=0.05)
>>> rows = (Row(f"row {n}", {"n": n}) for n in range(40))
>>> def positive(row):
...     if row.values["n"] <= 0:
...         raise InputError(f"{row.location}: n is not positive")
...     return row.values["n"]
>>> len(list(unusable.without(rows, positive))), dict(unusable.reasons)
(39, {'n is not positive': 1})
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from isaerft.config import Behavior, Corpus
from isaerft.errors import InputError, printable, shown
from isaerft.io import Row, column_value, read_data_file, read_text

MAX_VALUES_SHOWN = 10
MAX_REASONS = 20
OTHER_REASON = "cannot be used for another reason"
# From so many rows on, the share of bad ones counts before all rows are read: a hub data set may be huge.
ENOUGH_ROWS = 1000
Value = TypeVar("Value")


@dataclass
class Unusable:
    """Rows that are left out because they cannot be used.

    Attributes
    ----------
    label : str
        Whose rows they are, for errors.
    allowed_share : float
        Largest share of the rows that may be left out.
    remedy : str
        What to do where it is larger, for errors.
    n_rows : int
        Rows read so far.
    reasons : Counter
        Number of rows left out, by reason.
    first : InputError or None
        Why the first of them was.
    """

    label: str
    allowed_share: float
    remedy: str = ""
    n_rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: InputError | None = None

    def without(self, rows: Iterable[Row], read: Callable[[Row], Value]) -> Iterator[tuple[str, Value]]:
        """Yield the location of each row that can be used, and what `read` makes of it; count the others.

        Raises
        ------
        InputError
            More rows than allowed cannot be used: `read` raises `InputError` for them.
        """
        for row in rows:
            self.n_rows += 1
            try:
                value = read(row)
            except InputError as error:
                self._count(row.location, error)
                continue
            yield row.location, value
        self.check()

    def check(self) -> None:
        """Raise `InputError` if more rows than allowed cannot be used; where none can, the first row's own error."""
        n = self.reasons.total()
        if self.first is None or n <= self.allowed_share * self.n_rows:
            return
        if n == self.n_rows:
            raise self.first
        raise InputError(
            f"{self.label}: {n} of {self.n_rows} rows cannot be used, the first is {self.first.problem}",
            allowed=f"at most {self.allowed_share:.0%} of the rows",
            remedy=self.remedy,
        )

    def _count(self, location: str, error: InputError) -> None:
        self.first = self.first or error
        reason = error.problem.replace(f" in {location}", "").replace(location, "").strip(": ")
        is_new = reason not in self.reasons and len(self.reasons) >= MAX_REASONS
        self.reasons[OTHER_REASON if is_new else reason] += 1
        if self.n_rows >= ENOUGH_ROWS:
            self.check()


def data_rows(options: Behavior | Corpus, *, lines: str = "", streaming: bool = False) -> Iterator[Row]:
    """Yield the rows of a local file, or of a data set on the hub.

    Parameters
    ----------
    options : Behavior or Corpus
        Their `path` or `dataset` names the data.
    lines : str, optional
        Read a .txt file, too: each line that is not blank is a row with this one column.
    streaming : bool
        Fetch a hub data set row by row, as far as it is read.

    Raises
    ------
    InputError
        The data cannot be read.
    """
    if options.path is None:
        return _hub_rows(options, streaming)
    return file_rows(options.path, lines=lines)


def file_rows(path: str, *, lines: str = "") -> Iterator[Row]:
    """Yield the rows of a local file; see `data_rows`."""
    if not lines or not path.endswith(".txt"):
        return read_data_file(path)
    numbered = enumerate(read_text(path).splitlines(), 1)
    return (Row(f"{path} line {number}", {lines: line}) for number, line in numbered if line.strip())


def read_rows(behavior: Behavior, *, streaming: bool = False) -> Iterator[Row]:
    """Yield the raw rows of a behavior that pass its `where` filter; see `data_rows` for `streaming`.

    Raises
    ------
    InputError
        The data cannot be read, a filter's column is missing, or no row passes.
    """
    seen: dict[str, Counter[str]] = {column: Counter() for column in behavior.where}
    kept = 0
    for row in data_rows(behavior, streaming=streaming):
        passes = True
        for column, wanted in behavior.where.items():
            value = _filter_text(column_value(row, column))
            if value in seen[column] or len(seen[column]) < MAX_VALUES_SHOWN:
                seen[column][value] += 1
            passes &= value in ([wanted] if isinstance(wanted, str) else wanted)
        if passes:
            kept += 1
            yield row
    if not kept:
        origin = behavior.path or behavior.dataset
        if not behavior.where:
            raise InputError(f"dataset {origin!r} is empty: it has no rows", remedy="check its subset and split")
        found = "; ".join(f"{column} is one of {', '.join(map(printable, values))}" for column, values in seen.items())
        raise InputError(f"where {shown(behavior.where)} matches no row of {origin!r}", allowed=found)


def _filter_text(value: object) -> str:
    """Return a value as the text that `where` compares; booleans as in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _hub_rows(options: Behavior | Corpus, streaming: bool) -> Iterator[Row]:
    """Yield the rows of a Hugging Face data set at its revision."""
    import datasets

    try:
        data = datasets.load_dataset(
            options.dataset,
            options.subset,
            data_dir=options.data_dir if isinstance(options, Behavior) else None,
            split=options.split,
            revision=options.revision,
            streaming=streaming,
        )
        for number, values in enumerate(data, 1):
            yield Row(f"{options.dataset} row {number}", dict(values))
    except Exception as error:  # the library raises many unrelated types when data cannot be loaded
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"dataset {options.dataset!r} (subset {options.subset!r}, split {options.split!r}, revision "
            f"{options.revision!r}) cannot be loaded: {type(error).__name__}: {reason}",
            remedy=_remedy(reason),
        ) from error


def _remedy(reason: str) -> str:
    """Return what to do about an error of the library `datasets`."""
    remedies = {
        "scripts are no longer supported": "give the revision `refs/convert/parquet` where the hub has one, or download"
        " the data and give a local `path`",
        "trust_remote_code": "no code of a data set is run; download the data and give a local `path`",
        "split": "correct `split`",
        "BuilderConfig": "correct `subset`",
        "Config name": "correct `subset`",
        "offline": "the hub is switched off: unset HF_HUB_OFFLINE and HF_DATASETS_OFFLINE, or give a local `path`",
        "gated": "accept the data set's terms on the hub and set HF_TOKEN, or give a local `path`",
    }
    fitting = (remedy for part, remedy in remedies.items() if part.casefold() in reason.casefold())
    return next(fitting, "check the names and the network, or give a local `path`")
