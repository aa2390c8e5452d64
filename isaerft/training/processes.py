"""Several processes that train one adapter together, on a GPU each, through accelerate.

$ torchrun --standalone --nproc-per-node 2 --no-python isaerft train ...   # or: accelerate launch --multi_gpu ...

Every process holds the whole frozen model and adapter and takes its share of each step's rows and of the held-out
batches. Gradients are added up weighted by their loss terms, so a step is the one that a single process takes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import distributed

from isaerft.io import replacing

Item = TypeVar("Item")


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Work together with the other processes that a launcher has started, if it has started any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    state = PartialState(cpu=device.type == "cpu")
    try:
        if not state.is_main_process:
            logging.getLogger("isaerft").setLevel(logging.WARNING)
        yield
    finally:
        state.destroy_process_group()


def n_processes() -> int:
    """Return how many processes work together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def number() -> int:
    """Return which of them this is, counted from 0; process 0 writes what is made."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def share(rows: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a step's rows, (n,) int64; empty where there are fewer rows than processes."""
    return rows.tensor_split(n_processes())[number()]


def every_nth(items: Iterable[Item]) -> Iterator[Item]:
    """Yield this process's part of some batches."""
    return islice(items, number(), None, n_processes())


def summed(*values: float) -> list[float]:
    """Return the sums over all processes."""
    if n_processes() == 1:
        return list(values)
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    return reduce(torch.tensor(values, dtype=torch.float64, device=device), "sum").tolist()


def add_up(parameters: Sequence[torch.Tensor], loss: float, n_terms: int) -> float:
    """Make each process's gradients, of a mean over its own terms, those of the mean over all terms.

    Parameters
    ----------
    parameters : sequence of torch.Tensor
        Their gradients are changed in place.
    loss : float
        Mean over this process's terms.

    Returns
    -------
    float
        The mean loss over all terms.
    """
    if n_processes() == 1:
        return loss
    total, all_terms = summed(loss * n_terms, n_terms)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad = reduce(parameter.grad * (n_terms / all_terms), "sum")
    return total / all_terms


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path as `replacing` does; what other processes than the first write there is thrown away."""
    if number() == 0:
        with replacing(path) as temporary:
            yield temporary
        return
    with TemporaryDirectory() as folder:
        yield Path(folder) / Path(path).name
