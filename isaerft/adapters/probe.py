"""probe: a logistic regression that tells a behavior's completions from other text by their latents."""

from __future__ import annotations

from typing import Any

import numpy as np

from isaerft.adapters.contrast import Texts
from isaerft.adapters.steering import Steering
from isaerft.errors import InputError, shown
from isaerft.registry import ADAPTERS

REGULARIZATION = 0.01
MAX_ITERATIONS = 2000
TOLERANCE = 1e-6


@ADAPTERS("probe")
class Probe(Steering):
    """direction = weights of a logistic probe with an L2 penalty, in log-odds per unit of activation.

    The texts' activations are divided by their root mean square norm before the fit, so that the penalty means the same
    for every SAE. Latents are not standardised one by one: that would hand the direction to those that hardly fire.

    Parameters
    ----------
    regularization : float
        The fit minimises mean loss + regularization / 2 * ||weights||^2, each of the two kinds weighing half.
    """

    kind = "probe"

    def __init__(self, d_sae: int, *, regularization: float = REGULARIZATION) -> None:
        super().__init__(d_sae)
        if isinstance(regularization, (bool, str)) or not regularization > 0:
            raise InputError(
                f"adapter 'probe': regularization = {shown(regularization)}", allowed="a number greater than 0"
            )
        self.regularization = regularization

    def fitted(self, texts: Texts) -> tuple[np.ndarray, float]:
        """Return the weights, (d_sae,), and minus the intercept."""
        from sklearn.linear_model import LogisticRegression

        squares = np.asarray(texts.activations.multiply(texts.activations).sum(axis=1)).ravel()
        scale = float(np.sqrt((squares * texts.weight).sum() / texts.weight.sum())) or 1.0
        # The weights add up to 2, one for each kind; scikit-learn's C multiplies the summed loss.
        model = LogisticRegression(C=1 / (2 * self.regularization), tol=TOLERANCE, max_iter=MAX_ITERATIONS)
        model.fit(texts.activations / scale, texts.is_behavior, sample_weight=texts.weight)
        return model.coef_[0] / scale, -float(model.intercept_[0])

    def options(self) -> dict[str, Any]:
        """Return the penalty's weight."""
        return {"regularization": self.regularization}
