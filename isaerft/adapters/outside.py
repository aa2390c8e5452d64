"""The base of what is trained outside the SAE's basis: adapters on the residual stream, or on the model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from isaerft.adapters.base import CONFIG, WEIGHTS
from isaerft.errors import InputError, shown
from isaerft.files import read_json, replacing, write_json
from isaerft.subjects.cache import Batch
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.site import Below


class OutsideAdapter(nn.Module):
    """A change of the model that knows nothing of the SAE, the identity when it is made.

    It is pulled back into the SAE's basis afterwards (`isaerft.changes.pullback`), from what it does to the residual
    stream at the hook.

    Attributes
    ----------
    kind : str
        Name in the registry.
    made : str
        How `isaerft.training.run` comes by one: `outside` (trained) or `given` (without training).
    """

    kind: ClassVar[str]
    made: ClassVar[str] = "outside"

    @classmethod
    @contextmanager
    def on(cls, subject: LoadedSubject, options: dict[str, Any], seed: int) -> Iterator[OutsideAdapter]:
        """Give a new adapter of a subject; when the block ends the model is again as it was.

        Parameters
        ----------
        seed : int
            Draws what does not begin at 0.
        """
        raise NotImplementedError

    def at_hook(self, subject: LoadedSubject, batch: Batch) -> Below:
        """Return what a batch's tokens look like at the hook under the adapter, with gradients where they are on."""
        raise NotImplementedError

    def adapted(self, subject: LoadedSubject, batch: Batch) -> torch.Tensor:
        """Return the residual stream of a batch's tokens under the adapter, (n_tokens, d_in)."""
        return self.at_hook(subject, batch).residual

    @contextmanager
    def in_model(self, subject: LoadedSubject) -> Iterator[LoadedSubject]:
        """Give a subject in whose own forward passes the adapter is at work inside the block."""
        yield subject

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors by name."""
        return dict(self.state_dict())

    def take(self, weights: dict[str, torch.Tensor]) -> None:
        """Take over tensors that `weights` returned."""
        self.load_state_dict(weights)

    def options(self) -> dict[str, Any]:
        """Return the options that make this adapter again."""
        return {}

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Have the model above the hook be the base model inside the block; `at_hook` still works."""
        yield


def save_outside(adapter: OutsideAdapter, folder: str | Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors under `folder`, atomically."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        weights = {name: value.detach().cpu().contiguous() for name, value in adapter.weights().items()}
        save_file(weights, temporary / WEIGHTS)
        write_json(temporary / CONFIG, {"kind": adapter.kind, "options": adapter.options()})


def with_defaults(kind: str, options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the options with the defaults filled in; an option that the kind does not have is an `InputError`."""
    for name in options:
        if name not in defaults:
            raise InputError(f"adapter {kind!r} with option {shown(name)}", allowed=", ".join(defaults))
    return defaults | options


@contextmanager
def loaded_outside(cls: type[OutsideAdapter], folder: str | Path, subject: LoadedSubject) -> Iterator[OutsideAdapter]:
    """Give a saved adapter on its subject; when the block ends the model is again as it was.

    Raises
    ------
    InputError
        The tensors do not fit the subject.
    """
    folder = Path(folder)
    options = read_json(folder / CONFIG)["options"]
    with cls.on(subject, options, 0) as adapter:
        try:
            adapter.take(load_file(folder / WEIGHTS))
        except (RuntimeError, KeyError) as error:
            raise InputError(
                f"adapter in {str(folder)!r} does not fit the subject ({' '.join(str(error).split())[:200]})",
                remedy="train it again on this subject",
            ) from None
        yield adapter.requires_grad_(False)
