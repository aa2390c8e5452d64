"""Curves of held-out loss against how many directions a linear map may use, in several bases.

A map adds z M W to the residual stream: z is what its directions read, W what they write. With k directions of a basis,
M has k rows and k columns, chosen among all of the basis in training (`isaerft.adapters.sparsity`); with free
directions it is a product of two factors of rank k. All are trained alike, on the same rows for as many steps, and the
learning rate and the step to keep are chosen on validation rows, which are neither trained on nor held out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from isaerft import config
from isaerft.adapters.base import make_adapter
from isaerft.adapters.sparsity import Dense, sparsity
from isaerft.errors import InputError
from isaerft.io import replacing
from isaerft.progress import Progress
from isaerft.subjects.cache import Batch, CachedRows, read_cache
from isaerft.subjects.load import LoadedSubject
from isaerft.training.bases import Basis, basis_of, candidates, gradients
from isaerft.training.loop import Trainee, Training, heldout_losses, train_together

FREE = ("rank_latents", "rank_residual")
"""Families whose directions are learned, so that k is a rank."""
N_EVALUATIONS = 6
ADAM_RATE = 0.1
"""Free directions are factors, which need Adam, and rates shorter by this."""


def write_loss_curves(
    plan: config.Plan, subject: LoadedSubject, behavior: str, cache: str | Path, out: str | Path
) -> None:
    """Train the maps of every family on a behavior, and write their held-out losses (Parquet).

    Raises
    ------
    InputError
        The SAE reads something else than the residual stream, or training diverges.
    """
    if subject.hook.reads != "residual":
        raise InputError(
            f"loss_curves with an SAE at {subject.dictionary.hook_name!r}: its basis is none of the residual stream",
            allowed="SAEs on the residual stream",
        )
    curves = Curves(plan, subject, behavior, read_cache(cache, "train"), read_cache(cache, "heldout"))
    with replacing(out) as temporary:
        pd.DataFrame(list(curves.rows())).to_parquet(temporary, index=False)


class SparseMap(nn.Module):
    """M with a row for each of some directions to read and a column for each of some to write.

    Parameters
    ----------
    reads, writes : (n,) int64
        Directions of the basis that compete.
    """

    def __init__(self, basis: Basis, reads: torch.Tensor, writes: torch.Tensor) -> None:
        super().__init__()
        self.map = make_adapter("mlp", len(reads), {"depth": 0, "bias": False}).to(basis.directions.device)
        self.basis, self.reads, self.writes = basis, reads, writes
        self.written = basis.directions[writes]

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the residual stream of a batch's tokens under the map, (n_tokens, d_model)."""
        numbers = self.map.get_parameter("output")
        added = self.basis.signals(batch, self.reads) @ (numbers @ self.written)
        return batch.residual + added.to(batch.residual.dtype)

    def chosen(self) -> dict[str, list[int]]:
        """Return the directions that the map reads and writes."""
        used = self.map.get_parameter("output").detach() != 0
        return {"reads": self.reads[used.any(1)].tolist(), "writes": self.writes[used.any(0)].tolist()}


class FreeMap(nn.Module):
    """A map of rank k: what it reads starts at random, what it writes at 0."""

    def __init__(self, basis: Basis, k: int, seed: int) -> None:
        super().__init__()
        n, d_model = basis.directions.shape
        start = torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) / n**0.5
        self.basis = basis
        self.down = nn.Parameter(start.to(basis.directions.device))
        self.up = nn.Parameter(basis.directions.new_zeros(k, d_model))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the residual stream of a batch's tokens under the map, (n_tokens, d_model)."""
        return batch.residual + (self.basis.signals(batch) @ self.down @ self.up).to(batch.residual.dtype)


@dataclass(frozen=True)
class Point:
    """One point of a curve: k directions of a family."""

    family: str
    k: int

    @property
    def is_free(self) -> bool:
        """Tell whether the directions are learned."""
        return self.family in FREE


class Curves:
    """The curves of one behavior.

    Parameters
    ----------
    train, heldout : CachedRows
        Rows of the behavior; validation rows are taken from `train`.
    """

    def __init__(
        self, plan: config.Plan, subject: LoadedSubject, behavior: str, train: CachedRows, heldout: CachedRows
    ) -> None:
        self.options = plan.study.loss_curves or config.LossCurves()
        self.plan, self.subject, self.behavior, self.heldout = plan, subject, behavior, heldout
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(plan.study.seed))
        n = max(1, round(self.options.validation_fraction * len(train)))
        if n >= len(train):
            raise InputError(
                f"loss_curves with {len(train)} training rows, none of which is left beside {n} for validation",
                remedy="add rows, or lower loss_curves.validation_fraction",
            )
        self.validation, self.train = train.chosen(order[:n].sort().values), train.chosen(order[n:].sort().values)
        self.seeds = [plan.replicate_seed(seed) for seed in range(self.options.n_seeds)]

    def points(self) -> list[Point]:
        """Return the points of all curves; those of free directions end at a map of full rank."""
        d_model, d_sae = self.subject.language.d_model, self.subject.dictionary.d_sae
        found = []
        for family in dict.fromkeys((*self.options.families, "rank_residual")):
            n = d_sae if family.endswith("latents") and family not in FREE else d_model
            ks = {k for k in self.options.ks if k < n} if family in self.options.families else set()
            found += [Point(family, k) for k in sorted(ks | ({d_model} if family in FREE else set()))]
        return found

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield one row for each point and seed."""
        batch_size = self.plan.study.batch_size
        gradient = gradients(self.subject, self.train, batch_size)
        (base,) = heldout_losses(self.subject, [lambda batch: batch.residual], self.heldout, batch_size)
        places: dict[str, list[tuple[Basis, tuple[torch.Tensor, torch.Tensor]]]] = {}
        for point in Progress(self.points(), desc=f"loss curves of {self.behavior}", unit="point"):
            if point.family not in places:
                places = {point.family: []}
                for seed in self.seeds:
                    basis = basis_of(point.family, self.subject, self.train, seed, batch_size)
                    compete = candidates(
                        self.subject, basis, self.train, gradient, batch_size, self.options.n_candidates
                    )
                    places[point.family].append((basis, compete))
            best = self._trained(point, places[point.family])
            losses = heldout_losses(self.subject, [module for module, _, _ in best], self.heldout, batch_size)
            for seed, (loss, (module, training, rate)) in enumerate(zip(losses, best, strict=True)):
                row = {"family": point.family, "k": point.k, "seed": seed, "learning_rate": rate}
                row |= {"n_parameters": self._n_parameters(point, module), "best_step": training.best_step}
                row |= {"validation_loss": training.heldout_loss_adapted}
                row |= {"heldout_loss_base": base, "heldout_loss": loss}
                yield row | (module.chosen() if isinstance(module, SparseMap) else {"reads": [], "writes": []})

    def _trained(
        self, point: Point, places: Sequence[tuple[Basis, tuple[torch.Tensor, torch.Tensor]]]
    ) -> list[tuple[nn.Module, Training, float]]:
        """Return each seed's map of a point at the learning rate with the lowest validation loss."""
        best: list[tuple[nn.Module, Training, float]] = []
        for rate in self.options.learning_rates:
            options = self._training(point, rate)
            trainees = [
                self._trainee(point, options, basis, *compete, seed)
                for seed, (basis, compete) in zip(self.seeds, places, strict=True)
            ]
            trainings = train_together(
                self.subject, trainees, self.train, self.validation, options, batch_size=self.plan.study.batch_size
            )
            found = [(trainee.module, own, rate) for trainee, own in zip(trainees, trainings, strict=True)]
            best = best or found
            best = [min(pair, key=lambda one: one[1].heldout_loss_adapted) for pair in zip(best, found, strict=True)]
        return best

    def _training(self, point: Point, rate: float) -> config.Adapter:
        target = min(point.k, self.options.n_candidates)
        return config.Adapter(
            optimizer="adam" if point.is_free else "sgd",
            learning_rate=rate * ADAM_RATE if point.is_free else rate,
            steps=self.options.steps,
            batch_size=self.options.batch_size,
            evaluate_every=max(1, self.options.steps // N_EVALUATIONS),
            patience=self.options.steps,
            sparsity=None if point.is_free else config.Sparsity(target=target, read_target=target),
        )

    def _trainee(
        self,
        point: Point,
        options: config.Adapter,
        basis: Basis,
        reads: torch.Tensor,
        writes: torch.Tensor,
        seed: int,
    ) -> Trainee:
        description = f"{self.behavior} {point.family} {point.k}"
        if point.is_free:
            free = FreeMap(basis, point.k, seed)
            return Trainee(free, free, seed, description)
        chosen = SparseMap(basis, reads, writes)
        few = options.sparsity if point.k < len(reads) else None
        follow = sparsity(chosen.map, few, options.steps, seed) if few else Dense()
        return Trainee(chosen, chosen, seed, description, follow)

    def _n_parameters(self, point: Point, module: nn.Module) -> int:
        """Return how many numbers are trained: k x k, or both factors without directions that read nothing."""
        if isinstance(module, FreeMap):
            return point.k * (int(module.basis.scale.count_nonzero()) + module.up.shape[1])
        return point.k**2
