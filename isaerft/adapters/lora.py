"""lora: PEFT's LoRA on whole blocks of the model, above the hook, below it, or on both sides.

Above the hook it reads the same residual stream that latent adapters change, trains from the same cache, and changes
no latent: the reference that they are measured against. Below the hook it changes what the SAE reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from isaerft.adapters.outside import OutsideAdapter, with_defaults
from isaerft.errors import InputError, shown, unknown_name
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import Batch
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.rerun import from_cache, rerun
from isaerft.subjects.site import Below, Site, decoder_blocks

ABOVE, BELOW, ALL = "above", "below", "all"
DEFAULTS = {"rank": 8, "where": ABOVE}


@ADAPTERS("lora")
class Lora(OutsideAdapter):
    """W' = W + 2 B A for every linear map W of some blocks (Hu et al. 2021, with alpha = 2 rank); B begins at 0.

    Parameters
    ----------
    blocks : dict of int to nn.Module
        The blocks to change, in place, by their number in the model.
    rank : int
        Rank of B A.
    where : str
        `above` (the block right above the hook), `below` (all blocks below it) or `all` (every block of the model).
    """

    kind = "lora"

    def __init__(self, blocks: dict[int, nn.Module], *, rank: int, where: str) -> None:
        super().__init__()
        self.rank, self.where, self.is_idle = rank, where, False
        self.blocks = nn.ModuleDict({str(number): block for number, block in blocks.items()})

    @classmethod
    @contextmanager
    def on(cls, subject: LoadedSubject, options: dict[str, Any], seed: int) -> Iterator[Lora]:
        """Put LoRA into the subject's model, and take it out again when the block ends.

        Raises
        ------
        InputError
            An option has no such value, or no block lies where LoRA should act.
        """
        chosen = with_defaults(cls.kind, options, DEFAULTS)
        rank, where = chosen["rank"], chosen["where"]
        if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
            raise InputError(f"adapter 'lora': rank = {shown(rank)}", allowed="a whole number of at least 1")
        model = decoder_blocks(subject.model)
        adapter = cls({n: model[n] for n in blocks_at(subject.site, where)}, rank=rank, where=where)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for block in adapter.blocks.values():
                _inject(block, rank)
        try:
            yield adapter.to(subject.model.device)
        finally:
            for block in adapter.blocks.values():
                _remove(block)

    def at_hook(self, subject: LoadedSubject, batch: Batch) -> Below:
        """Return what the model with LoRA makes of a batch's tokens; from the cache where LoRA acts above alone."""
        if self.where == ABOVE:
            return from_cache(subject, batch)
        if not self.is_idle:
            return rerun(subject, batch)
        self._switch(True)
        try:
            return rerun(subject, batch)
        finally:
            self._switch(False)

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Switch LoRA off inside the block, save for what `at_hook` runs."""
        self.is_idle = True
        self._switch(False)
        try:
            yield
        finally:
            self.is_idle = False
            self._switch(True)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return A and B of every linear map, named blocks.{number}.{map}."""
        return {
            f"blocks.{number}.{name}": value
            for number, block in self.blocks.items()
            for name, value in get_peft_model_state_dict(block).items()
        }

    def take(self, weights: dict[str, torch.Tensor]) -> None:
        """Take over A and B of every linear map."""
        if set(weights) != set(self.weights()):
            raise KeyError("LoRA on other blocks or other linear maps")
        for number, block in self.blocks.items():
            prefix = f"blocks.{number}."
            own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            set_peft_model_state_dict(block, own)

    def options(self) -> dict[str, Any]:
        """Return rank and where."""
        return {"rank": self.rank, "where": self.where}

    def _switch(self, on: bool) -> None:
        for part in self.blocks.modules():
            if isinstance(part, BaseTunerLayer):
                part.enable_adapters(on)


def blocks_at(site: Site, where: str) -> list[int]:
    """Return the numbers of the blocks above or below a site, or all; none there is an `InputError`."""
    # Of a block that holds the site inside, one part lies on each side: it is neither.
    above = range(site.n_blocks)[site.n_below + site.inside :][:1]
    numbers = {ABOVE: above, BELOW: range(site.n_below), ALL: range(site.n_blocks)}
    if where not in numbers:
        raise unknown_name("place for LoRA", where, numbers)
    if not numbers[where]:
        others = [name for name, there in numbers.items() if there]
        raise InputError(f"no block lies {where} the SAE's hook for LoRA to change", allowed=", ".join(others))
    return list(numbers[where])


def _inject(block: nn.Module, rank: int) -> None:
    targets = {name: part for name, part in block.named_modules() if isinstance(part, nn.Linear) or _is_conv1d(part)}
    transposed = any(_is_conv1d(part) for part in targets.values())
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), fan_in_fan_out=transposed)
    inject_adapter_in_model(settings, block)


def _remove(block: nn.Module) -> None:
    for name, part in list(block.named_modules()):
        if isinstance(part, BaseTunerLayer):
            owner, _, child = name.rpartition(".")
            setattr(block.get_submodule(owner), child, part.get_base_layer())
    # PEFT keeps its settings on the block too, and would take the next LoRA for a second one.
    if hasattr(block, "peft_config"):
        del block.peft_config


def _is_conv1d(part: nn.Module) -> bool:
    """GPT-2's linear maps are Conv1D modules."""
    return type(part).__name__ == "Conv1D"
