"""Reading a trained adapter of any kind as something that every measure can score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isaerft.adapters.base import CONFIG, SEED, OutsideAdapter, load_adapter, loaded_outside
from isaerft.changes.generate import acting
from isaerft.changes.measures import Trained
from isaerft.changes.pullback import PulledBack
from isaerft.errors import InputError
from isaerft.io import read_json
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import CachedRows
from isaerft.subjects.load import LoadedSubject


@contextmanager
def loaded(folder: str | Path, subject: LoadedSubject, heldout: CachedRows, batch_size: int) -> Iterator[Trained]:
    """Give the adapter saved in `folder` on its subject; when the block ends the model is again as it was."""
    kind = ADAPTERS[read_json(Path(folder) / CONFIG)["kind"]]
    if isinstance(kind, type) and issubclass(kind, OutsideAdapter):
        with loaded_outside(kind, folder, subject) as adapter, adapter.idle():
            yield PulledBack(subject, adapter, heldout, batch_size)
    else:
        adapter = load_adapter(folder, subject.dictionary.d_sae).to(subject.model.device)
        yield Trained(subject, adapter.requires_grad_(False), heldout, batch_size)


@contextmanager
def at_work(folder: str | Path, subject: LoadedSubject) -> Iterator[LoadedSubject]:
    """Give the subject with the adapter saved in `folder` at work in its model's own forward passes."""
    kind = ADAPTERS[read_json(Path(folder) / CONFIG)["kind"]]
    if isinstance(kind, type) and issubclass(kind, OutsideAdapter):
        with loaded_outside(kind, folder, subject) as adapter, adapter.in_model(subject) as changed:
            yield changed
    else:
        with acting(subject, load_adapter(folder, subject.dictionary.d_sae).to(subject.model.device)):
            yield subject


def seed_folders(folder: Path) -> list[Path]:
    """Return seed_0, seed_1, ...: as many as training made (a checkpoint is there only once)."""
    folders = sorted(folder.glob(f"{SEED}*"), key=lambda path: int(path.name.removeprefix(SEED)))
    if not folders:
        raise InputError(f"no trained adapter in {str(folder)!r}", remedy="run `isaerft train` first")
    return folders
