"""mean_difference: by how much each latent is more active in a behavior's completions than in other text."""

from __future__ import annotations

import numpy as np

from isaerft.adapters.contrast import Texts
from isaerft.adapters.steering import Steering
from isaerft.registry import ADAPTERS


@ADAPTERS("mean_difference")
class MeanDifference(Steering):
    """direction = mean activation in the behavior's completions - mean activation in the contrast's."""

    kind = "mean_difference"

    def fitted(self, texts: Texts) -> tuple[np.ndarray, float]:
        """Return the difference of means, (d_sae,) in the activations' units, and the midpoint between them on it."""
        behavior, contrast = texts.mean(True), texts.mean(False)
        direction = behavior - contrast
        return direction, float((behavior + contrast) @ direction / 2)
