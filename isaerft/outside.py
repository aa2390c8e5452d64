"""The boundary to outside loaders: whatever they raise becomes one `InputError`, with a remedy that fits its cause.

What transformers, tokenizers, safetensors, sae_lens, torch, gguf and the hub's client raise is open-ended: a damaged
file alone is a SafetensorError, an OSError, a KeyError or a bare Exception. So no list of types is kept. The block
holds nothing but the outside call, so that faults of our own keep their traceback:

>>> with loading("model 'my-model'", "my-model", remedy="check the id"):    # doctest: +SKIP
...     model = AutoModelForCausalLM.from_pretrained("my-model")
isaerft.errors.InputError: model 'my-model' cannot be loaded (my-model/model.safetensors is a git-lfs pointer, not the
file itself); run `git lfs pull` in its repository, or download the file from the hub
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from isaerft.errors import InputError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_REMEDY = "run `git lfs pull` in its repository, or download the file from the hub"
AGAIN = "download or copy the file again"
MAX_REASON = 300
MAX_FILES = 500
MAX_HEADER = 100_000_000
_TORCH_FILES = (".pt", ".pth", ".bin")
_FILES = (*_TORCH_FILES, ".safetensors", ".gguf", ".json", ".model")
_LENGTH_BYTES = 8

_NO_CONNECTION = re.compile(
    r"OfflineModeIsEnabled|LocalEntryNotFoundError|Connect(ion)?(Error|Timeout)|ReadTimeout|TimeoutError|gaierror"
    r"|SSLError|couldn't connect"
)
# What the names of the error's classes, or the messages, say; the first that is found counts.
_REMEDIES = (
    (r"GatedRepoError|gated repo", "accept its license on huggingface.co, and set HF_TOKEN"),
    (r"RevisionNotFoundError|not a valid git identifier", "check the revision"),
    (
        r"RepositoryNotFoundError|DatasetNotFoundError|HFValidationError|not a valid model identifier",
        "check the id, or the path of the folder; for a private repository set HF_TOKEN",
    ),
    (
        r"untagged enum",
        "its tokenizer.json is of another release of the package tokenizers: install a newer one (pip install -U"
        " tokenizers transformers), or save the tokenizer again with the installed one",
    ),
    (
        r"trust_remote_code|custom code",
        "no code of a model's folder is run here: choose a model that transformers itself implements",
    ),
    (r"does not recognize this architecture", "install a newer transformers, or choose another model"),
    (
        r"have sentencepiece or tiktoken installed",
        "save its tokenizer with a tokenizer.json, or run: pip install sentencepiece tiktoken",
    ),
    (r"MemoryError|[Oo]ut of memory|allocate memory", "free memory, or choose a smaller model or number format"),
    (r"No space left on device", "free disk space"),
    (r"PermissionError", "give this user the right to read it"),
    (
        r"required (positional|keyword-only) argument|unexpected keyword argument",
        "it was saved by another release of its library, or by hand: save it again with the installed one",
    ),
)
_PACKAGE = re.compile(r"pip install (?:-U |--upgrade )?['\"`]?([A-Za-z0-9][\w.-]*)|requires the (\w[\w.-]*) library")


class Cause(NamedTuple):
    """Why something could not be loaded, and what to do about it ("" where that is unknown)."""

    reason: str
    remedy: str = ""


@contextmanager
def loading(what: str, path: str | Path | None = None, *, allowed: str = "", remedy: str = "") -> Iterator[None]:
    """Turn whatever an outside loader raises in the block into one `InputError`.

    Parameters
    ----------
    what : str
        What is loaded, as the error names it: "model 'my-model'".
    path : str or Path, optional
        Its file or folder; where there is one, damaged files in it are named.
    allowed, remedy : str
        What is allowed, and what to do, where the cause itself does not tell.

    Raises
    ------
    InputError
        The block raised; the original error is its `__cause__`.
    """
    try:
        yield
    except (InputError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic in a Rust extension is not an Exception
        cause = (None if path is None else damage(path)) or _cause_of(error)
        raise InputError(
            f"{what} cannot be loaded ({cause.reason})",
            allowed="" if cause.remedy else allowed,
            remedy=cause.remedy or remedy,
        ) from error


def origin_remedy(name: str | Path) -> str:
    """Return what to do about a model, named by its hub id or folder, that cannot be loaded for an unknown reason."""
    if os.path.exists(name):
        return "check that the folder is complete; if another release wrote it, save it again with the installed one"
    return "check the id, the network and HF_TOKEN"


def damage(path: str | Path) -> Cause | None:
    """Return what is wrong with a file, or with the first damaged file of a folder; None if nothing is found.

    Found are git-lfs pointers, empty and cut files, and files of another format than their names say.
    """
    root = Path(path)
    try:
        inside = (file for pattern in ("*", "*/*") for file in root.glob(pattern)) if root.is_dir() else iter([root])
        files = [file for file in islice(inside, MAX_FILES) if file.is_file() and not file.name.startswith(".")]
        found = (_damage_of(file) for file in sorted(files) if file == root or file.suffix in _FILES)
        return next(filter(None, found), None)
    except OSError:  # what cannot be looked at is not blamed; the loader's own error stands
        return None


def lfs_pointer(file: str | Path) -> Cause | None:
    """Return what is wrong with a file that is a git-lfs pointer; None for any other file."""
    with open(file, "rb") as stream:
        is_pointer = stream.read(len(LFS_POINTER)) == LFS_POINTER
    return Cause(f"{file} is a git-lfs pointer, not the file itself", LFS_REMEDY) if is_pointer else None


def _damage_of(file: Path) -> Cause | None:
    if found := lfs_pointer(file):
        return found
    size = file.stat().st_size
    if size == 0:
        return Cause(f"{file} is empty", AGAIN)
    if file.suffix == ".safetensors":
        return _damaged_safetensors(file, size)
    with open(file, "rb") as stream:
        head = stream.read(_LENGTH_BYTES)
    if file.suffix in _TORCH_FILES and head.startswith(b"PK") and not _is_zip(file):
        return Cause(f"{file} is cut: it has no end", AGAIN)
    if file.suffix == ".gguf" and not head.startswith(b"GGUF"):
        return Cause(f"{file} is not a GGUF file", AGAIN)
    if file.suffix == ".json":
        try:
            json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            return Cause(f"{file} is not valid JSON: {error}", AGAIN)
    return None


def _is_zip(file: Path) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # a directory that contradicts itself
        return False


def _damaged_safetensors(file: Path, size: int) -> Cause | None:
    """Compare a safetensors file's size with its header (https://github.com/huggingface/safetensors#format)."""
    with open(file, "rb") as stream:
        n_header = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        text = stream.read(min(n_header, MAX_HEADER))
    if n_header > MAX_HEADER or not text.lstrip().startswith(b"{"):
        return Cause(f"{file} is not a safetensors file", AGAIN)
    try:
        entries = [part for name, part in json.loads(text).items() if name != "__metadata__"]
        wanted = _LENGTH_BYTES + n_header + max((int(part["data_offsets"][1]) for part in entries), default=0)
    except Exception:  # anything may stand in a header
        wanted = _LENGTH_BYTES + n_header
        if wanted <= size:
            return Cause(f"{file} is not a safetensors file", AGAIN)
    return Cause(f"{file} is cut: it has {size} of {wanted} bytes", AGAIN) if size < wanted else None


def _cause_of(error: BaseException) -> Cause:
    """Return the cause that an error and those behind it tell."""
    chain = _chain(error)
    reason = (" ".join(str(error).split()) or type(error).__name__)[:MAX_REASON]
    names = {kind.__name__ for one in chain for kind in type(one).__mro__}
    said = "\n".join([*sorted(names), *map(str, chain)])
    if "ImportError" in names:
        missing = next((one.name for one in chain if isinstance(one, ModuleNotFoundError)), None)
        named = _PACKAGE.search(said)
        package = missing or (named and (named[1] or named[2]))
        return Cause(reason, f"run: pip install {package}" if package else "install the package that it needs")
    if isinstance(error, KeyError):
        return Cause(f"it lacks {reason}", "add it, or save it again with the installed release of its library")
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, said):
            return Cause(reason, remedy)
    if _NO_CONNECTION.search(said):
        offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name, "0") != "0"]
        remedy = f"{offline[0]} is set: unset it, or download this before" if offline else "check the network"
        return Cause(reason, f"{remedy}; check the id, too")
    return Cause(reason)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and those that it was raised from."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    return chain
