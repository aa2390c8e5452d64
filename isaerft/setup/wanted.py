"""What a user asks for in a new study, and how its words become options: models, origins of data, columns of text."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from isaerft.config import Gguf
from isaerft.config.base import validated
from isaerft.errors import InputError, printable, shown
from isaerft.io import SUFFIXES, read_data_file
from isaerft.ledger import sha256
from isaerft.setup.facts import ModelFacts, SaeFacts, gguf_path
from isaerft.setup.machine import processor_has_bfloat16

DATASET = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)@(?P<revision>[0-9a-f]{7,40})")


class Sizes(NamedTuple):
    """How large a study is.

    `quick` is for a first look: intervals are wide, and a placebo p-value cannot be small.
    """

    rows: int
    steps: int
    seeds: int
    placebos: int
    draws: int
    corpus_tokens: int
    hub_tokens: int
    amplified: int


SIZES: Mapping[str, Sizes] = {
    "quick": Sizes(48, 16, 2, 3, 4, 20_000, 40_000, 2),
    "full": Sizes(400, 96, 3, 9, 20, 200_000, 1_000_000, 8),
}


# From so wide a model on, matrices decide the time, and from so many weights on, memory.
WIDE, LARGE = 256, 500_000_000


@dataclass(frozen=True)
class Wanted:
    """What a user asks for.

    Attributes
    ----------
    name : str
        Name of the study.
    model : str
        Hub id, folder, GGUF file, or PACKAGE/FILE.gguf inside an installed package.
    release, sae_id, sae_path, train_sae : str, optional
        A pretrained SAE, a folder, or the hook at which one is trained.
    behaviors : dict
        Name -> file, or DATASET@COMMIT on the hub.
    descriptions : dict
        Behavior -> what judges read.
    columns, where : dict
        Behavior -> its options of this name.
    explanations : str
        `auto`, `none`, `neuronpedia`, or a file.
    corpus : str
        `auto`, `sample`, a file, or a data set of the hub.
    llm, llm_url : str, optional
        Language model that judges, and its server.
    size : {"quick", "full"}
    device : str
    standard : bool
        Add the fourteen behaviors of data/elicit, as contrasts.
    """

    name: str
    model: str
    behaviors: Mapping[str, str]
    release: str | None = None
    sae_id: str | None = None
    sae_path: str | None = None
    train_sae: str | None = None
    descriptions: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    where: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    explanations: str = "auto"
    corpus: str = "auto"
    llm: str | None = None
    llm_url: str | None = None
    size: Literal["quick", "full"] = "full"
    device: str = "auto"
    standard: bool = False


def model_of(name: str) -> dict[str, Any]:
    """Return the options that name a model."""
    if not name.endswith(".gguf"):
        return {"model": name}
    gguf: dict[str, Any] = {"file": name}
    package, _, file = name.partition("/")
    if not os.path.isfile(name) and file and package.isidentifier() and importlib.util.find_spec(package) is not None:
        gguf = {"package": package, "file": file}
    path = gguf_path(validated(Gguf, gguf))
    if not path.is_file():
        raise InputError(f"GGUF file {shown(name)} does not exist", remedy="give its path, or PACKAGE/FILE.gguf")
    return {"gguf": gguf | {"sha256": sha256(path)}}


def origin_of(name: str, origin: str) -> dict[str, str]:
    """Return the options that say where a behavior's data is: a file, or a data set of the hub."""
    if os.path.isfile(origin):
        return {"path": origin}
    if match := DATASET.fullmatch(origin):
        return {"dataset": match["name"], "revision": match["revision"]}
    raise InputError(
        f"behavior {name!r}: {shown(origin)} does not exist",
        allowed=f"a file ({', '.join(SUFFIXES)}, also .gz), or DATASET@COMMIT on the hub",
        remedy="check the path; a commit pins the data",
    )


def prepend_bos(facts: ModelFacts | None, sae: SaeFacts) -> bool:
    """Return whether texts begin with BOS: as the SAE says, if the tokenizer has one."""
    if facts is not None and facts.has_bos is False:
        return False
    return True if sae.prepend_bos is None else sae.prepend_bos


def quick_dtype(facts: ModelFacts | None, device: str) -> str:
    """Return the number format for a model here: bfloat16 where it is quicker, or where a large model needs it."""
    if device == "cpu" or (device == "auto" and shutil.which("nvidia-smi") is None):
        return "bfloat16" if facts is not None and facts.d_model >= WIDE and processor_has_bfloat16() else "float32"
    return "bfloat16" if facts is None or facts.n_parameters > LARGE else "float32"


def text_column(path: str) -> dict[str, str]:
    """Return the column of a corpus' text, where it is not called `text`."""
    if path.endswith(".txt"):
        return {}
    row = next(iter(read_data_file(path))).values
    if "text" in row:
        return {}
    texts = [column for column, value in row.items() if isinstance(value, str)]
    if len(texts) != 1:
        raise InputError(
            f"corpus {shown(path)}: which column holds the text is not clear: {', '.join(map(printable, row))}",
            remedy="name the column `text`",
        )
    return {"column": texts[0]}
