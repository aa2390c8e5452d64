"""The base of baselines that need no training: a direction in the latents, fitted to activations, added everywhere."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.contrast import Texts
from isaerft.adapters.shift import Shift
from isaerft.subjects.codes import Codes


class Steering(LatentAdapter):
    """f' = f + length * direction, the same at every token; a subclass fits the direction.

    Attributes
    ----------
    direction : (d_sae,) float32
        What was fitted, in the subclass's units; 0 before.
    length : () float32
        How far the activations are moved along it, found by a search on the training loss.
    threshold : () float32
        A text whose mean activation times the direction lies above it is called the behavior's.
    """

    made: ClassVar[str] = "fitted"

    def __init__(self, d_sae: int) -> None:
        super().__init__(d_sae)
        self.register_buffer("direction", torch.zeros(d_sae))
        self.register_buffer("length", torch.zeros(()))
        self.register_buffer("threshold", torch.zeros(()))

    def fitted(self, texts: Texts) -> tuple[np.ndarray, float]:
        """Return direction (d_sae,) and threshold for some texts."""
        raise NotImplementedError

    def fit(self, texts: Texts) -> None:
        """Set direction and threshold from the training texts."""
        direction, threshold = self.fitted(texts)
        self.direction.copy_(torch.from_numpy(direction))
        self.threshold.fill_(threshold)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the activations (..., d_sae) moved along the direction."""
        return activations + self.length * self.direction

    def shift(self, codes: Codes) -> Shift:
        """Return length * direction: every token changes alike."""
        return Shift(codes, constant=self.length * self.direction)

    def latent_parameter(self) -> torch.Tensor:
        """Return the direction, (d_sae,)."""
        return self.direction
