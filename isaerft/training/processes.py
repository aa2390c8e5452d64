"""Data-parallel training: several processes train one adapter, each on its own GPU, through accelerate.

$ torchrun --standalone --nproc-per-node 2 --no-python isaerft train ...   # or: accelerate launch --multi_gpu ...

Every process holds the whole frozen model and the adapter, and takes part of each step's rows and of the held-out
batches. Gradients are averaged, weighted by loss terms, so a step equals that of a single process.
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
    """Join the other processes that a launcher started, if any, inside the block."""
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
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0; process 0 writes the results."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def own_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a step's rows, (n,) int64; it may be empty if there are few rows."""
    return rows.tensor_split(n_processes())[rank()]


def own_batches(batches: Iterable[Item]) -> Iterator[Item]:
    """Yield this process's part of some batches."""
    return islice(batches, rank(), None, n_processes())


def sum_over_processes(*values: float) -> list[float]:
    """Return the sums over all processes."""
    if n_processes() == 1:
        return list(values)
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    total: torch.Tensor = reduce(torch.tensor(values, dtype=torch.float64, device=device), "sum")
    return [float(value) for value in total]


def average_gradients(parameters: Sequence[torch.Tensor], loss: float, n_terms: int) -> float:
    """Turn each process's gradients of a mean over its own terms into those of the mean over all terms.

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
    total, all_terms = sum_over_processes(loss * n_terms, n_terms)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad = reduce(parameter.grad * (n_terms / all_terms), "sum")
    return total / all_terms


@contextmanager
def replacing_once(path: str | Path) -> Iterator[Path]:
    """Give a temporary path as `replacing` does; what processes other than the first write there is discarded."""
    if rank() == 0:
        with replacing(path) as temporary:
            yield temporary
        return
    with TemporaryDirectory() as folder:
        yield Path(folder) / Path(path).name
