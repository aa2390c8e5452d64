"""From a behavior's records to what the study's adapters are trained on: completions, or pairs of replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isaerft.behaviors.records import Record
from isaerft.config import Adapter
from isaerft.errors import InputError
from isaerft.registry import UNTRAINED

REJECTED = "_rejected"


def training_splits(
    records: Mapping[str, Sequence[Record]], behavior: str, adapters: Mapping[str, Adapter], *, contrast: bool = False
) -> dict[str, Sequence[Record]]:
    """Return the splits to capture: those given and, where an objective compares replies, their rejected twins.

    Parameters
    ----------
    records : mapping of str to sequence of Record
        Split ("train", "heldout") -> its records.
    contrast : bool
        Whether a baseline compares the behavior's replies with the rejected ones.

    Returns
    -------
    dict of str to sequence of Record
        Split "train_rejected" holds the rejected replies of "train" in the same order, and so on.

    Raises
    ------
    InputError
        An objective or a contrast on pairs has no pairs, or sft was given pairs without being told which reply to take.
    """
    kinds = {record.kind for split in records.values() for record in split}
    trained = {name: part for name, part in adapters.items() if (part.kind or name) not in UNTRAINED}
    for name, adapter in trained.items():
        _check(name, adapter, behavior, kinds)
    if contrast and "sft" in kinds:
        raise InputError(
            f"behavior {behavior!r} with `contrast: rejected`, but its records hold one completion each",
            allowed="records with chosen and rejected",
            remedy=f"map chosen and rejected under `columns` of {behavior!r}, or give it another contrast",
        )
    twins = {}
    if contrast or any(adapter.trained_on == "pair" for adapter in trained.values()):
        twins = {name + REJECTED: [record.rejecting() for record in split] for name, split in records.items()}
    return {**records, **twins}


def _check(name: str, adapter: Adapter, behavior: str, kinds: set[str]) -> None:
    """Refuse an adapter whose objective does not fit the behavior's records."""
    if adapter.trained_on == "pair" and "sft" in kinds:
        raise InputError(
            f"adapter {name!r} with objective {adapter.objective!r} on behavior {behavior!r}, whose records hold one"
            " completion each",
            allowed="records with chosen and rejected",
            remedy=f"map chosen and rejected under `columns` of {behavior!r}, or give {name!r} `objective: sft`",
        )
    if adapter.trained_on == "completion" and "preference" in kinds:
        raise InputError(
            f"adapter {name!r} with objective {adapter.objective!r} on behavior {behavior!r}, whose records are"
            " preference pairs",
            allowed="records with one completion each",
            remedy=(
                f"give {name!r} `sft_on_chosen: true`, or an objective on pairs (dpo, simpo, orpo), or give"
                f" {behavior!r} `columns: {{completion: chosen}}`"
            ),
        )
