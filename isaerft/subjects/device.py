"""The device of a study: whether it is there, and float64 on it."""

from __future__ import annotations

import os

import torch

from isaerft import config
from isaerft.errors import InputError


def set_up_torch(plan: config.Plan) -> str:
    """Set the number of CPU threads of this process and return the device to work on.

    Raises
    ------
    InputError
        The study names a device that is not there.
    """
    torch.set_num_threads(plan.study.threads)
    device = plan.study.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        # Launchers that start several processes on one machine number them in LOCAL_RANK.
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    check_device(device)
    return device


def check_device(device: str) -> None:
    """Raise `InputError` unless a device is there: `cpu`, `cuda`, `cuda:N` or `mps`."""
    there = devices()
    if device not in there:
        raise InputError(
            f"device {device!r} is not there: PyTorch {torch.__version__} sees no such device on this machine",
            allowed=", ".join(there),
            remedy="set `device: auto` or one of these; for a GPU, install a PyTorch that is built for it",
        )


def devices() -> list[str]:
    """Return the devices of this machine that a study may name."""
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = ["cuda", *(f"cuda:{number}" for number in range(n_gpus))] if n_gpus else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def in_float64(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float64, on the CPU if its device (Metal) has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
