"""The model without its adapters, as a model of its own that shares every weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from isaerft.training.attach import Attached


class Reference(nn.Module):
    """Runs a model with its adapters disabled; TRL's `DPOTrainer` takes it as `ref_model`.

    It owns no weights, so that moving it, putting it into evaluation mode or asking for its parameters leaves the
    trained model alone. What it does not have itself is the model's.
    """

    def __init__(self, attached: Attached) -> None:
        super().__init__()
        object.__setattr__(self, "attached", attached)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with its adapters disabled."""
        with self.attached.disabled():
            return self.attached.model(*args, **kwargs)

    @property
    def base_model(self) -> Any:
        """The decoder under the language-model head, with the adapters disabled."""
        return self._decoder

    def _decoder(self, *args: Any, **kwargs: Any) -> Any:
        with self.attached.disabled():
            return self.attached.model.base_model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.attached.model, name)
