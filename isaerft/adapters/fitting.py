"""What baselines are fitted to: texts' activations, frequencies of tokens, or a gradient of the loss.

A baseline reads what it needs from a `Fitting`, and only that is computed. Everything comes from training rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse

from isaerft.errors import InputError
from isaerft.subjects.cache import Batch, CachedRows, completion_losses
from isaerft.subjects.device import in_float64
from isaerft.subjects.load import LoadedSubject


@dataclass(frozen=True)
class Selection:
    """Selected rows of a cache.

    Attributes
    ----------
    kept : (n_rows,) int64
        Rows of the cache.
    """

    rows: CachedRows
    kept: torch.Tensor

    def batches(self, n: int) -> Iterator[Batch]:
        """Yield the rows in the order of `kept`, `n` at a time."""
        for part in self.kept.split(n):
            yield self.rows.batch(part)

    def completion_tokens(self) -> torch.Tensor:
        """Return the token ids of all completions, (n_completion_tokens,) int64, without reading activations."""
        is_kept = torch.zeros(len(self.rows), dtype=torch.bool).index_fill(0, self.kept, True)
        predicts = self.rows.predicts & torch.repeat_interleave(is_kept, self.rows.starts.diff())
        return self.rows.tokens[predicts.nonzero()[:, 0] + 1]


@dataclass(frozen=True)
class Texts:
    """Mean activations of a behavior's texts and of those it is contrasted with.

    Attributes
    ----------
    activations : (n_texts, d_sae) sparse float64
        Mean activation of each latent over the completion's tokens.
    is_behavior : (n_texts,) bool
    weight : (n_texts,) float
        Sums to 1 over the behavior's texts and to 1 over the others, each group of others weighing the same.
    n_others : tuple of int
        Texts of each group of others.
    """

    activations: sparse.csr_array
    is_behavior: np.ndarray
    weight: np.ndarray
    n_others: tuple[int, ...]

    @staticmethod
    def of(behavior: sparse.csr_array, contrast: Sequence[sparse.csr_array]) -> Texts:
        """Join a behavior's texts with the groups of other texts, if any."""
        groups = [behavior, *contrast]
        group_weights = [1.0, *(1 / len(contrast) for _ in contrast)]
        n_rows = [group.shape[0] for group in groups]
        weight = np.concatenate([np.full(n, total / n) for n, total in zip(n_rows, group_weights, strict=True)])
        stacked = sparse.csr_array(sparse.vstack(groups))
        return Texts(stacked, np.arange(sum(n_rows)) < n_rows[0], weight, tuple(n_rows[1:]))

    def mean(self, is_behavior: bool) -> np.ndarray:
        """Return the weighted mean of the behavior's texts, or of the others, (d_sae,)."""
        chosen = self.is_behavior == is_behavior
        mean: np.ndarray = self.activations[chosen].T @ self.weight[chosen]
        return mean

    def paired_differences(self) -> sparse.csr_array:
        """Return text i of the behavior minus text i of each group of others, (n_pairs, d_sae).

        A group with fewer texts than the behavior starts again.
        """
        own = self.activations[self.is_behavior]
        others = np.split(np.flatnonzero(~self.is_behavior), np.cumsum(self.n_others)[:-1])
        pairs = [own - self.activations[group[np.arange(own.shape[0]) % len(group)]] for group in others]
        return sparse.csr_array(sparse.vstack(pairs))


def completion_means(rows: CachedRows | Selection) -> sparse.csr_array:
    """Return the mean activation of each latent over each completion's tokens, (n_rows, d_sae)."""
    if isinstance(rows, Selection):
        return sparse.csr_array(rows.rows.completion_means[rows.kept.numpy()])
    return rows.completion_means


def token_shares(selection: Selection, n_vocabulary: int) -> torch.Tensor:
    """Return the share of each token among all tokens of the completions, (n_vocabulary,) float64."""
    counts = torch.bincount(selection.completion_tokens(), minlength=n_vocabulary).double()
    return counts / counts.sum()


@dataclass(frozen=True)
class Fitting:
    """What a baseline may be fitted to. Each property is computed when it is first read.

    Attributes
    ----------
    behavior : Selection
        Training rows of the behavior that the replicate sees; of preference pairs, the chosen replies.
    contrast : sequence of Selection
        Training rows of each group of other text; empty for a baseline that is not contrasted.
    batch_size : int
        Rows per forward and backward pass.
    instructed : Selection, optional
        The rows of `behavior` with the instruction that elicited them in the prompt; None for a baseline that is not
        instructed.
    """

    subject: LoadedSubject
    behavior: Selection
    contrast: Sequence[Selection]
    batch_size: int
    instructed: Selection | None = None

    @cached_property
    def texts(self) -> Texts:
        """Mean activations of all texts."""
        return Texts.of(completion_means(self.behavior), [completion_means(group) for group in self.contrast])

    @cached_property
    def excess_shares(self) -> torch.Tensor:
        """Share of each token in the behavior's completions minus that in the contrast's, (n_vocabulary,) float64.

        Groups of the contrast weigh alike. The sum is 0.

        Raises
        ------
        InputError
            There is no contrast.
        """
        if not self.contrast:
            raise InputError(
                "frequencies of tokens without other text to compare them with",
                remedy="register the adapter with contrasted=True, and add a second behavior",
            )
        n_vocabulary = self.subject.language.n_vocabulary
        others = torch.stack([token_shares(group, n_vocabulary) for group in self.contrast])
        return token_shares(self.behavior, n_vocabulary) - others.mean(0)

    @property
    def instructed_rows(self) -> Selection:
        """`instructed`, where there is one.

        Raises
        ------
        InputError
            There is none.
        """
        if self.instructed is None:
            raise InputError(
                "replies under an instruction, of an adapter that is not registered as instructed",
                remedy="register the adapter with instructed=True",
            )
        return self.instructed

    @cached_property
    def gradient(self) -> torch.Tensor:
        """Gradient of the unadapted model's loss with respect to one vector, (d_model,) float64.

        The vector is added at every token to what the dictionary writes to.

        The loss is the mean over all completion tokens of the behavior, that of the objective sft.
        """
        device = self.subject.model.device
        total, n_tokens = in_float64(torch.zeros(self.subject.language.d_model, device=device)), 0
        for batch in self.behavior.batches(self.batch_size):
            moved = batch.to(device)
            push = torch.zeros(self.subject.language.d_model, device=device, requires_grad=True)
            changed = moved.residual + self.subject.reaching(moved.written, push)
            loss = completion_losses(self.subject, moved, changed).sum()
            total += in_float64(torch.autograd.grad(loss, push)[0])
            n_tokens += moved.n_terms
        return total / n_tokens
