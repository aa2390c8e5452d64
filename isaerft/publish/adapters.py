"""An adapter of a finished study as a folder for the Hugging Face hub: its two files, and a card."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isaerft.adapters.card import CARD, adapter_card, loading_code
from isaerft.config import Plan, Subject
from isaerft.errors import InputError, unknown_name
from isaerft.io import read_json
from isaerft.layout import ADAPTER_SEED, Results
from isaerft.publish.files import Folder
from isaerft.registry import ADAPTERS

FILES = ("adapter_config.json", "adapter_model.safetensors")
PEFT_KIND = "lora"


def seed_folder(plan: Plan, results: Results, subject: str, behavior: str, adapter: str, seed: int) -> Path:
    """Return the folder of one seed; one that the study did not train, or cannot publish, is an `InputError`."""
    for kind, name, valid in (
        ("subject", subject, plan.study.subjects),
        ("behavior", behavior, plan.study.behaviors),
        ("adapter", adapter, plan.study.adapters),
    ):
        if name not in valid:
            raise unknown_name(kind, name, valid)
    kind = plan.kind_of(adapter)
    if ADAPTERS.facts(kind).on_model and kind != PEFT_KIND:
        raise InputError(
            f"adapter {adapter!r} is a {kind}", allowed=f"adapters on latents, and {PEFT_KIND}, which PEFT can load"
        )
    folder = results.adapter(subject, behavior, adapter) / f"{ADAPTER_SEED}{seed}"
    if not folder.is_dir():
        seeds = sorted(path.name.removeprefix(ADAPTER_SEED) for path in folder.parent.glob(f"{ADAPTER_SEED}*"))
        raise InputError(
            f"{folder} does not exist", allowed=f"seed {', '.join(seeds)}" if seeds else "",
            remedy="" if seeds else "run the study first",
        )  # fmt: skip
    return folder


def adapter_folder(
    plan: Plan,
    results: Results,
    subject: str,
    behavior: str,
    adapter: str,
    seed: int,
    *,
    repo_id: str = "OWNER/NAME",
    in_peft: Mapping[str, bytes] | None = None,
) -> Folder:
    """Return one seed of an adapter with its card.

    Parameters
    ----------
    repo_id : str
        Where it will be, for the code in the card.
    in_peft : dict, optional
        Its files in PEFT's format, for LoRA.
    """
    folder = seed_folder(plan, results, subject, behavior, adapter, seed)
    options, model = plan.study.subjects[subject], _model_of(plan.study.subjects[subject])
    card: dict[str, Any] = read_json(results.behavior(behavior).card)
    (run,) = (run for run in read_json(results.training(subject, behavior, adapter)) if run["seed"] == seed)
    files = dict(in_peft) if in_peft else {name: (folder / name).read_bytes() for name in FILES}
    data = plan.study.behaviors[behavior].dataset
    facts = {
        "Base model": " at ".join(filter(None, [model, options.revision])),
        "Adapter": f"{plan.kind_of(adapter)} {dict(plan.study.adapters[adapter].options) or ''}".strip(),
        **({} if in_peft else {"SAE": " / ".join(_sae_of(options)), "Hook": _hook_of(folder, options)}),
        "Behavior": f"{behavior}: {card['description']}",
        "Objective": run["objective"],
        "Training data": _data_of(card),
        "License of the data": card["licence"],
        "Held-out loss": f"{run['heldout_loss_base']:.4f} before, {run['heldout_loss_adapted']:.4f} after "
        f"(nats per completion token, {card['heldout']:,} rows that were not trained on)",
        "Trained numbers": f"{run['n_parameters']:,}",
        "Study": f"{plan.study.study}, subject {subject}, seed {seed}",
    }
    text = adapter_card(
        f"{behavior}: {adapter} on {model}",
        options.model if _on_hub(options.model) else None,
        facts,
        _peft_code(model, repo_id) if in_peft else _code(options, model, repo_id),
        on_latents=not in_peft,
        dataset=data,
    )
    return Folder(
        {CARD: text.encode("utf-8", "replace"), **files},
        "once you have read its card, upload it with --repo OWNER/NAME --send",
    )


def _on_hub(model: str | None) -> bool:
    return model is not None and not os.path.exists(model)


def _model_of(options: Subject) -> str:
    """Return what the card calls the model: no folder of this machine."""
    return options.model_name if _on_hub(options.model) else f"{Path(options.model_name).name} (a local model)"


def _sae_of(options: Subject) -> tuple[str, ...]:
    if options.release and options.sae_id:
        return options.release, options.sae_id
    return ("trained in the study" if options.sae_path is None else f"{Path(options.sae_path).name} (a local SAE)",)


def _hook_of(folder: Path, options: Subject) -> str:
    said: Any = read_json(folder / FILES[0]).get("sae")
    return str(said["hook_name"]) if isinstance(said, dict) else options.hook_name


def _data_of(card: Mapping[str, Any]) -> str:
    """Return where the rows are from, and how many there are."""
    source = str(card["source"] or "")
    named = Path(source).name if os.path.exists(source) or os.path.isabs(source) else source
    at = f" at {card['revision']}" if card.get("revision") else ""
    planted = ", with planted rows of another behavior" if card.get("poison") else ""
    return f"{named}{at}, {card['train']:,} rows{planted}"


def _code(options: Subject, model: str, repo_id: str) -> str:
    sae = _sae_of(options)
    more = {name: getattr(options, name) for name in ("center_writing_weights", "fold_value_biases")}
    more |= {"hook_name": options.hook_name}
    return loading_code(
        model if _on_hub(options.model) else "FOLDER_OF_THE_MODEL",
        sae if len(sae) == 2 else ("FOLDER_OF_THE_SAE",),
        repo_id,
        more,
    )


def _peft_code(model: str, repo_id: str) -> str:
    lines = ["from peft import PeftModel", "from transformers import AutoModelForCausalLM", ""]
    lines += [f"model = AutoModelForCausalLM.from_pretrained({model!r})"]
    return "\n".join([*lines, f"model = PeftModel.from_pretrained(model, {repo_id!r}).merge_and_unload()"])
