"""parameter: the adapter's own trained number for each latent."""

from __future__ import annotations

import torch

from isaerft.changes.base import Trained
from isaerft.registry import MEASURES


@MEASURES("parameter")
def parameter(trained: Trained) -> torch.Tensor:
    """Return the trained parameter, (d_sae,), in the adapter's own units.

    The naive reading. It ignores how far a latent reaches the residual stream and whether it fires at all.
    """
    return trained.latent_parameter()
