"""Adapters on the model's weights: LoRA on whole blocks, and a checkpoint that was fine-tuned elsewhere.

LoRA above the hook reads the same residual stream as latent adapters do, trains from the same cache, and changes no
latent: it is the reference that they are measured against. LoRA below the hook changes what the SAE reads.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from isaerft.adapters.base import check_count
from isaerft.adapters.model import RANK, ModelAdapter, with_defaults
from isaerft.errors import InputError, shown, unknown_name
from isaerft.io import read_json
from isaerft.outside import loading
from isaerft.subjects.blocks import decoder_blocks
from isaerft.subjects.cache import Batch, base_state, rerun_below
from isaerft.subjects.hooks import HookState
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.points import HookPoint

ABOVE, BELOW, ALL = "above", "below", "all"


class Lora(ModelAdapter):
    """W' = W + 2 B A for every linear map W of some blocks (Hu et al. 2021, with alpha = 2 rank); B starts at 0.

    Parameters
    ----------
    blocks : dict of int to nn.Module
        Blocks to change in place, by number in the model.
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
        """Inject LoRA into the subject's model, and remove it when the block ends.

        Raises
        ------
        InputError
            An option or its value is invalid, or no block lies where LoRA should act.
        """
        chosen = with_defaults(cls.kind, options, {"rank": RANK, "where": ABOVE})
        rank, where = check_count(cls.kind, "rank", chosen["rank"], 1), chosen["where"]
        model = decoder_blocks(subject.model)
        adapter = cls({n: model[n] for n in blocks_at(subject.hook, where)}, rank=rank, where=where)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for block in adapter.blocks.values():
                _inject(block, rank)
        try:
            yield adapter.to(subject.model.device)
        finally:
            for block in adapter.blocks.values():
                _remove(block)

    def at_hook(self, subject: LoadedSubject, batch: Batch) -> HookState:
        """Return a batch's tokens at the hook under LoRA; from the cache if LoRA acts only above."""
        if self.where == ABOVE:
            return base_state(subject, batch)
        if not self.is_idle:
            return rerun_below(subject, batch)
        self._enable(True)
        try:
            return rerun_below(subject, batch)
        finally:
            self._enable(False)

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Disable LoRA inside the block, except in `at_hook`."""
        self.is_idle = True
        self._enable(False)
        try:
            yield
        finally:
            self.is_idle = False
            self._enable(True)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return A and B of every linear map, named blocks.{number}.{map}."""
        return {
            f"blocks.{number}.{name}": value
            for number, block in self.blocks.items()
            for name, value in get_peft_model_state_dict(block).items()
        }

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Load A and B of every linear map."""
        if set(weights) != set(self.weights()):
            raise KeyError("LoRA on other blocks or other linear maps")
        for number, block in self.blocks.items():
            prefix = f"blocks.{number}."
            own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            set_peft_model_state_dict(block, own)

    def options(self) -> dict[str, object]:
        """Return rank and where."""
        return {"rank": self.rank, "where": self.where}

    def _enable(self, on: bool) -> None:
        for part in self.blocks.modules():
            if isinstance(part, BaseTunerLayer):
                part.enable_adapters(on)


def blocks_at(hook: HookPoint, where: str) -> list[int]:
    """Return the numbers of the blocks above or below a hook, or of all; no such block is an `InputError`."""
    # A block with the hook inside lies neither above nor below.
    above = range(hook.n_blocks)[hook.n_below + hook.inside :][:1]
    numbers = {ABOVE: above, BELOW: range(hook.n_below), ALL: range(hook.n_blocks)}
    if where not in numbers:
        raise unknown_name("option where of adapter 'lora':", where, numbers)
    if not numbers[where]:
        others = [name for name, there in numbers.items() if there]
        raise InputError(f"no block lies {where} the SAE's hook for LoRA to change", allowed=", ".join(others))
    return list(numbers[where])


def _inject(block: nn.Module, rank: int) -> None:
    targets = {name: part for name, part in block.named_modules() if isinstance(part, nn.Linear) or is_conv1d(part)}
    transposed = any(is_conv1d(part) for part in targets.values())
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), fan_in_fan_out=transposed)
    inject_adapter_in_model(settings, block)


def _remove(block: nn.Module) -> None:
    for name, part in list(block.named_modules()):
        if isinstance(part, BaseTunerLayer):
            owner, _, child = name.rpartition(".")
            setattr(block.get_submodule(owner), child, part.get_base_layer())
    # PEFT keeps its config on the block too, and would take the next LoRA for a second adapter.
    if hasattr(block, "peft_config"):
        del block.peft_config


def is_conv1d(part: nn.Module) -> bool:
    """GPT-2's linear maps are Conv1D modules."""
    return type(part).__name__ == "Conv1D"


PEFT_CONFIG, MODEL_CONFIG = "adapter_config.json", "config.json"
_SAME = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size")
_REMEDY = "give a checkpoint that was fine-tuned from the subject's own model"


class Checkpoint(ModelAdapter):
    """A fine-tuned version of the subject's model, from a Hugging Face or PEFT folder; it is never trained here.

    Weights are read from safetensors, or from torch files with weights_only, so nothing in the folder is executed.

    Parameters
    ----------
    model : PreTrainedModel
        The whole fine-tuned model, frozen.
    path : str
        Where it came from.
    """

    kind = "checkpoint"

    def __init__(self, model: PreTrainedModel, path: str) -> None:
        super().__init__()
        self.model, self.path = model, path

    @classmethod
    @contextmanager
    def on(cls, subject: LoadedSubject, options: dict[str, Any], seed: int) -> Iterator[Checkpoint]:
        """Load the checkpoint at `options["path"]`; the subject's own model is left alone.

        Raises
        ------
        InputError
            There is no such folder, its weights cannot be read, or they are of another model.
        """
        path = options.get("path")
        if not isinstance(path, str) or set(options) != {"path"}:
            raise InputError(f"adapter 'checkpoint' with options {shown(options)}", allowed="path, and nothing else")
        model = load_checkpoint(subject, path)
        cast("nn.Module", model).to(subject.model.device)
        yield cls(model.eval().requires_grad_(False), path)

    def subject_of(self, base: LoadedSubject) -> LoadedSubject:
        """Return the base subject with the fine-tuned model in place of its own."""
        return replace(base, language=replace(base.language, model=self.model))

    def at_hook(self, subject: LoadedSubject, batch: Batch) -> HookState:
        """Return a batch's tokens at the hook of the fine-tuned model."""
        return rerun_below(self.subject_of(subject), batch)

    @contextmanager
    def in_model(self, subject: LoadedSubject) -> Iterator[LoadedSubject]:
        """Give the subject with the fine-tuned model."""
        yield self.subject_of(subject)

    def n_changed(self, base: PreTrainedModel) -> int:
        """Return the number of entries of all weight tensors that differ from the base model's."""
        own = dict(self.model.named_parameters())
        return sum(
            value.numel() for name, value in base.named_parameters() if name in own and not _equal(value, own[name])
        )

    def weights(self) -> dict[str, torch.Tensor]:
        """Return nothing: the weights stay in the checkpoint."""
        return {}

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Load nothing."""

    def options(self) -> dict[str, object]:
        """Return the path."""
        return {"path": self.path}


def load_checkpoint(subject: LoadedSubject, path: str) -> PreTrainedModel:
    """Load fine-tuned weights of a subject's model from a local folder.

    Raises
    ------
    InputError
        There is no such folder, its weights cannot be read, or they are of another model.
    """
    folder = Path(path)
    if (folder / PEFT_CONFIG).is_file():
        load = _load_peft
    elif (folder / MODEL_CONFIG).is_file():
        load = _load_whole
    else:
        raise InputError(
            f"checkpoint {path!r} is not a model",
            allowed=f"a local folder with {MODEL_CONFIG} (Hugging Face) or {PEFT_CONFIG} (PEFT)",
            remedy="check the adapter's option `path`",
        )
    return load(subject, folder)


def _loading(folder: Path) -> AbstractContextManager[None]:
    return loading(f"checkpoint {str(folder)!r}", folder, remedy=_REMEDY)


def _load_whole(subject: LoadedSubject, folder: Path) -> PreTrainedModel:
    base = subject.model.config.get_text_config()
    with _loading(folder):
        whole = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = whole.get_text_config()
    for name in _SAME:
        own, wanted = getattr(config, name, None), getattr(base, name, None)
        if own != wanted:
            raise InputError(f"checkpoint {str(folder)!r} has {name} {own}", allowed=str(wanted), remedy=_REMEDY)
    with _loading(folder):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=subject.model.dtype,
            attn_implementation=subject.model.config._attn_implementation,
            output_loading_info=True,
            local_files_only=True,
            weights_only=True,
            trust_remote_code=False,
        )
    model: PreTrainedModel = loaded[0]
    found: dict[str, Any] = loaded[1]
    if found["missing_keys"] or found["mismatched_keys"]:
        lacking = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
        raise InputError(f"checkpoint {str(folder)!r} lacks weights of the model: {shown(lacking)}", remedy=_REMEDY)
    embeddings: Any = model.get_input_embeddings()
    if embeddings.num_embeddings < len(subject.language.tokenizer):
        raise InputError(f"checkpoint {str(folder)!r} has fewer tokens than the subject's tokenizer", remedy=_REMEDY)
    return model


def _load_peft(subject: LoadedSubject, folder: Path) -> PreTrainedModel:
    from peft import PeftModel

    peft_config: Any = read_json(folder / PEFT_CONFIG)
    base = copy.deepcopy(subject.model)
    with _loading(folder):
        model = PeftModel.from_pretrained(base, folder, local_files_only=True)
    if not hasattr(model.base_model, "merge_and_unload"):
        raise InputError(
            f"checkpoint {str(folder)!r} is a PEFT adapter of type {shown(peft_config.get('peft_type'))}",
            allowed="types that merge into the weights (LORA, IA3, LOHA, LOKR, OFT, ...)",
        )
    with _loading(folder):
        merged: PreTrainedModel = model.merge_and_unload()
    return merged


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one.device))
