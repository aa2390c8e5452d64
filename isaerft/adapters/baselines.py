"""Steering baselines: a direction in the latents that is fitted without training.

They show what training adds to a look at the activations (`MeanDifference`, `Probe`, `Lat`), to a look at the words
(`LogitLens`), to the first gradient alone (`FirstGradient`), and to asking for the behavior (`Prompting`). Where texts
are compared, the unit is the completion: its tokens are not independent observations, and a long reply counts no more
than a short one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse.linalg
import torch
from scipy import sparse

from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.fitting import Fitting, completion_means
from isaerft.adapters.shift import Shift
from isaerft.errors import InputError, shown
from isaerft.subjects.codes import Codes
from isaerft.subjects.hooks import direct_path


class Direction(NamedTuple):
    """A fitted direction.

    Attributes
    ----------
    latents : (d_sae,)
        In units of the baseline's own.
    threshold : float, optional
        A text is classified as the behavior's if its mean activation times the direction exceeds this; by default the
        midpoint between the means of both kinds of text, where there is a contrast.
    """

    latents: np.ndarray | torch.Tensor
    threshold: float | None = None


class Steering(LatentAdapter):
    """f' = f + length * direction at every token; a subclass fits the direction.

    Attributes
    ----------
    direction : (d_sae,) float32
        Fitted direction, in the subclass's units; 0 before.
    length : () float32
        How far activations move along it, found by a search on the training loss.
    threshold : () float32
        A text is classified as the behavior's if its mean activation times the direction exceeds this.
    """

    direction: torch.Tensor
    length: torch.Tensor
    threshold: torch.Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__(d_sae)
        self.register_buffer("direction", torch.zeros(d_sae))
        self.register_buffer("length", torch.zeros(()))
        self.register_buffer("threshold", torch.zeros(()))

    def direction_of(self, fitting: Fitting) -> Direction:
        """Return the direction fitted to what the subclass reads of `fitting`."""
        raise NotImplementedError

    def fit(self, fitting: Fitting) -> None:
        """Set direction and threshold from training rows."""
        direction, threshold = self.direction_of(fitting)
        self.direction.copy_(torch.as_tensor(direction))
        if threshold is None and fitting.contrast:
            center = (fitting.texts.mean(True) + fitting.texts.mean(False)) / 2
            threshold = float(center @ self.direction.cpu().double().numpy())
        self.threshold.fill_(threshold or 0.0)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the activations (..., d_sae) moved along the direction."""
        return activations + self.length * self.direction

    def shift(self, codes: Codes) -> Shift:
        """Return length * direction: every token changes alike."""
        return Shift(codes, constant=self.length * self.direction)

    def latent_parameter(self) -> torch.Tensor:
        """Return the direction, (d_sae,)."""
        return self.direction


class MeanDifference(Steering):
    """direction = mean activation in the behavior's completions - mean activation in the contrast's."""

    kind = "mean_difference"

    def direction_of(self, fitting: Fitting) -> Direction:
        """Return the difference of means, in the activations' units."""
        return Direction(fitting.texts.mean(True) - fitting.texts.mean(False))


REGULARIZATION = 0.01
MAX_ITERATIONS = 2000
TOLERANCE = 1e-6


class Probe(Steering):
    """direction = weights of a logistic probe with an L2 penalty, in log-odds per unit of activation.

    The texts' activations are divided by their root mean square norm before the fit, so that the penalty is comparable
    across SAEs. Latents are not standardized one by one: that would favor those that hardly fire.

    Parameters
    ----------
    regularization : float
        The fit minimizes mean loss + regularization / 2 * ||weights||^2; the behavior's texts and the others weigh
        half each.
    """

    kind = "probe"

    def __init__(self, d_sae: int, *, regularization: float = REGULARIZATION) -> None:
        super().__init__(d_sae)
        if isinstance(regularization, (bool, str)) or not regularization > 0:
            raise InputError(
                f"adapter 'probe': regularization = {shown(regularization)}", allowed="a number greater than 0"
            )
        self.regularization = regularization

    def direction_of(self, fitting: Fitting) -> Direction:
        """Return the weights, and the negative intercept as the threshold."""
        from sklearn.linear_model import LogisticRegression

        texts = fitting.texts
        squares = np.asarray(texts.activations.multiply(texts.activations).sum(axis=1)).ravel()
        scale = float(np.sqrt((squares * texts.weight).sum() / texts.weight.sum())) or 1.0
        # The sample weights sum to 2, and scikit-learn's C multiplies the summed loss.
        model = LogisticRegression(C=1 / (2 * self.regularization), tol=TOLERANCE, max_iter=MAX_ITERATIONS)
        model.fit(texts.activations / scale, texts.is_behavior, sample_weight=texts.weight)
        return Direction(model.coef_[0] / scale, -float(model.intercept_[0]))

    def options(self) -> dict[str, object]:
        """Return the weight of the penalty."""
        return {"regularization": self.regularization}


class Lat(Steering):
    """direction = the first principal component of paired differences, of length 1.

    Linear artificial tomography (Zou et al. 2023, arXiv 2310.01405). Text i of the behavior is paired with text i of
    each group that it is contrasted with, from the start again where a group is smaller; a reply and the rejected one
    of its prompt are a pair. Which text of a pair comes first tells nothing in the paper, so the mean difference is
    not removed. The sign is the one by which more than half of the training pairs have the behavior's text higher.
    """

    kind = "lat"

    def direction_of(self, fitting: Fitting) -> Direction:
        """Return the component, without a unit."""
        return Direction(first_component(fitting.texts.paired_differences()))


def first_component(differences: sparse.csr_array) -> np.ndarray:
    """Return the first right singular vector of differences (n, d), which most of them agree with in sign, (d,).

    It is 0 where there are no differences.
    """
    if not differences.nnz:
        return np.zeros(differences.shape[1])
    if min(differences.shape) > 1:
        # ARPACK starts from a vector of its own, so that the same data give the same bytes.
        start = np.random.default_rng(0).standard_normal(min(differences.shape))
        component = scipy.sparse.linalg.svds(differences, k=1, v0=start)[2][0]
    else:
        component = np.linalg.svd(differences.toarray(), full_matrices=False)[2][0]
    scores = differences @ component
    agreeing = np.sign(scores).sum() or scores.sum()
    return component if agreeing >= 0 else -component


class LogitLens(Steering):
    """direction = how much more each latent promotes the behavior's words than the contrast's, by the direct path.

    What latents write times the mean unembedding of the behavior's completion tokens minus that of the contrast's, read
    through the final normalization (`isaerft.subjects.hooks.direct_path`). It sees no activation and runs no layer:
    where it agrees as well as training, training has told nothing that the words and the weights do not. A constant
    added to every token's unembedding cancels.
    """

    kind = "logit_lens"

    def direction_of(self, fitting: Fitting) -> Direction:
        """Return the difference of mean logits per unit of activation, up to the scale of the final normalization."""
        read = direct_path(fitting.subject.model, fitting.excess_shares)
        return Direction(fitting.subject.directions() @ read)


class FirstGradient(Steering):
    """direction = -dL/db of a `bias` b at b = 0: where the first step of training goes, from all rows at once.

    L is the mean loss over the completion tokens of all training rows that the replicate sees (the objective sft,
    whatever the adapter's objective: of preference pairs, that of the chosen replies). The gradient of the latents is
    what they write times that of the output they write to, summed over tokens.
    """

    kind = "first_gradient"

    def direction_of(self, fitting: Fitting) -> Direction:
        """Return the negative gradient, in nats per completion token and unit of activation."""
        return Direction(fitting.subject.dictionary.decoder @ -fitting.gradient.float())


class Prompting(Steering):
    """direction = what an instruction does: mean activation in the completions with it in the prompt - without it.

    Both means are over the same completions, those of the behavior's training rows, whose tokens do not change: what
    differs is that the model was asked for the behavior. The prompt baseline of AxBench (Wu et al. 2025, arXiv
    2501.17148), read in the latents.
    """

    kind = "prompting"

    def direction_of(self, fitting: Fitting) -> Direction:
        """Return the difference of means, in the activations' units."""
        instructed = completion_means(fitting.instructed_rows).mean(0)
        return Direction(instructed - completion_means(fitting.behavior).mean(0))
