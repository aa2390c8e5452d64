"""The device of a study: whether it is there, float64 on it, and what is slow on a CPU."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from isaerft import config
from isaerft.errors import InputError

WIDE_ATTENTION = "isaerft_sdpa_in_float32"
THREADS_ALONE = 2


def set_up_torch(plan: config.Plan, *, alone: bool = False) -> str:
    """Set the number of CPU threads of this process and return the device to work on.

    Parameters
    ----------
    alone : bool
        Whether all other jobs of a subject wait for this one: if no other dictionary is trained, it then uses the
        cores that they leave idle. The same bytes come out.

    Raises
    ------
    InputError
        The study names a device that is not there.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    alone = alone and len(plan.subjects) == 1
    torch.set_num_threads(max(plan.study.threads, min(THREADS_ALONE, there) if alone else 1))
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


def widen_attention(model: PreTrainedModel) -> None:
    """Compute the attention of a narrow model on a CPU in float32; its weights and the rest keep their dtype.

    PyTorch's attention kernel for CPUs takes three to eight times as long backward in bfloat16 as in float32
    (`benchmarks/cpu_attention.py`), and a third of a training step with it.
    """
    if model.device.type == "cpu" and model.dtype != torch.float32 and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(WIDE_ATTENTION)


def _attention_in_float32(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **options)
    return output.to(query.dtype), None


AttentionInterface.register(WIDE_ATTENTION, _attention_in_float32)
AttentionMaskInterface.register(WIDE_ATTENTION, sdpa_mask)
