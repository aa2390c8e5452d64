"""checkpoint: a model that was fine-tuned elsewhere, analysed like an adapter but never trained here."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from isaerft.adapters.outside import OutsideAdapter
from isaerft.errors import InputError, shown
from isaerft.files import read_json
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import Batch
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.rerun import rerun
from isaerft.subjects.site import Below

PEFT_CONFIG, MODEL_CONFIG = "adapter_config.json", "config.json"
_SAME = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size")
_REMEDY = "give a checkpoint that was fine-tuned from the subject's own model"


@ADAPTERS("checkpoint")
class Checkpoint(OutsideAdapter):
    """Another set of weights of the subject's model, from a Hugging Face folder or a PEFT folder.

    Weights are read from safetensors, or from torch files with weights_only; nothing in the folder is executed.

    Parameters
    ----------
    model : PreTrainedModel
        The fine-tuned model, whole and frozen.
    path : str
        Where it came from.
    """

    kind, made = "checkpoint", "given"

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
        yield cls(model.to(subject.model.device).eval().requires_grad_(False), path)

    def subject_of(self, base: LoadedSubject) -> LoadedSubject:
        """Return the base subject with the fine-tuned model in the place of its own."""
        return replace(base, language=replace(base.language, model=self.model))

    def at_hook(self, subject: LoadedSubject, batch: Batch) -> Below:
        """Return what the fine-tuned model makes of a batch's tokens at the hook."""
        return rerun(self.subject_of(subject), batch)

    @contextmanager
    def in_model(self, subject: LoadedSubject) -> Iterator[LoadedSubject]:
        """Give the subject with the fine-tuned model."""
        yield self.subject_of(subject)

    def n_changed(self, base: PreTrainedModel) -> int:
        """Return the number of entries of the weight tensors that differ from the base model's."""
        own = dict(self.model.named_parameters())
        return sum(
            value.numel() for name, value in base.named_parameters() if name in own and not _equal(value, own[name])
        )

    def weights(self) -> dict[str, torch.Tensor]:
        """Return nothing: the weights stay where they are."""
        return {}

    def take(self, weights: dict[str, torch.Tensor]) -> None:
        """Take nothing."""

    def options(self) -> dict[str, Any]:
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
    try:
        return load(subject, folder)
    except InputError:
        raise
    # What a broken folder raises depends on the library that reads it (pickle errors, missing keys, wrong sizes).
    except Exception as error:
        raise InputError(
            f"checkpoint {path!r} cannot be loaded ({' '.join(str(error).split())[:300]})", remedy=_REMEDY
        ) from None


def _load_whole(subject: LoadedSubject, folder: Path) -> PreTrainedModel:
    base = subject.model.config.get_text_config()
    config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    for name in _SAME:
        own, wanted = getattr(config, name, None), getattr(base, name, None)
        if own != wanted:
            raise InputError(f"checkpoint {str(folder)!r} has {name} {own}", allowed=str(wanted), remedy=_REMEDY)
    model, found = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=subject.model.dtype,
        attn_implementation=subject.model.config._attn_implementation,
        output_loading_info=True,
        local_files_only=True,
        weights_only=True,
    )
    if found["missing_keys"] or found["mismatched_keys"]:
        lacking = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
        raise InputError(f"checkpoint {str(folder)!r} lacks weights of the model: {shown(lacking)}", remedy=_REMEDY)
    if model.get_input_embeddings().num_embeddings < len(subject.language.tokenizer):
        raise InputError(f"checkpoint {str(folder)!r} has fewer tokens than the subject's tokenizer", remedy=_REMEDY)
    return model


def _load_peft(subject: LoadedSubject, folder: Path) -> PreTrainedModel:
    from peft import PeftModel

    kind = read_json(folder / PEFT_CONFIG).get("peft_type")
    model = PeftModel.from_pretrained(copy.deepcopy(subject.model), folder, local_files_only=True)
    if not hasattr(model.base_model, "merge_and_unload"):
        raise InputError(
            f"checkpoint {str(folder)!r} is a PEFT adapter of type {shown(kind)}",
            allowed="types that merge into the weights (LORA, IA3, LOHA, LOKR, OFT, ...)",
        )
    return model.merge_and_unload()


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one.device))
