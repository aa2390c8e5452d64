"""The reference of a study's options, generated from the dataclasses that define them.

Every option's help, type and default are defined in `isaerft.config` only. `python -m isaerft.config` writes
them as config/schema.json (for editors) and docs/config.md (for readers).
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from isaerft.config.calibration import Calibration
from isaerft.config.study import Study
from isaerft.io import write_text

SCHEMA = Path("config/schema.json")
PAGE = Path("docs/config.md")
COMMAND = "python -m isaerft.config"
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "empty"}
_HEAD = f"""# Options of a study

A study is one YAML file. Unknown keys are refused and the nearest valid one is named; everything is checked before the
first rule runs. An editor that reads JSON schemas completes and checks the file with config/schema.json.

Generated from isaerft/config/ by `{COMMAND}`; do not edit by hand.
"""


def write_reference(root: str | Path = ".") -> list[Path]:
    """Write the schema and the page under `root`, the repository, and return their paths."""
    written = {Path(root) / SCHEMA: schema_text(), Path(root) / PAGE: options_page()}
    for path, text in written.items():
        write_text(path, text)
    return list(written)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a study's config, for editors; what is required may be in a file that it includes."""
    schema = TypeAdapter(Study).json_schema()
    required = schema.pop("required")
    return schema | {"required": ["study"], "if": {"not": {"required": ["include"]}}, "then": {"required": required}}


def schema_text() -> str:
    """Return config/schema.json: the JSON schema of a study's config."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def options_page() -> str:
    """Return docs/config.md: one section per group of options, one table row per option."""
    return _HEAD + "".join(_section(owner) for root in (Study, Calibration) for owner in _groups(root))


def _groups(owner: type) -> Iterator[type]:
    """Yield `owner` and, depth first, every options class that its fields hold, each once."""
    found: dict[type, None] = {}

    def visit(group: type) -> None:
        if group not in found:
            found[group] = None
            for field in _fields(group).values():
                for part in _options_in(field.annotation):
                    visit(part)

    visit(owner)
    return iter(found)


def _fields(owner: type) -> dict[str, FieldInfo]:
    """Return the options of a class by name."""
    fields: dict[str, FieldInfo] = vars(owner)["__pydantic_fields__"]
    return fields


def _options_in(annotation: Any) -> Iterator[type]:
    """Yield the options classes that a type names."""
    if hasattr(annotation, "__pydantic_fields__"):
        yield annotation
    for part in get_args(annotation):
        yield from _options_in(part)


def _section(owner: type) -> str:
    """Return the section of one options class."""
    rows = "".join(
        f"| `{name}` | {_cell(_type(field))} | {_cell(_default(field))} | {_cell(_help(field))} |\n"
        for name, field in _fields(owner).items()
    )
    head = "| option | type | default | what it is |\n|---|---|---|---|"
    return f"\n## {owner.__name__}\n{inspect.getdoc(owner)}\n\n{head}\n{rows}"


def _cell(text: str) -> str:
    """Return `text` fit for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", r"\|")


def _help(field: FieldInfo) -> str:
    """Return an option's help; a group of options without its own is helped by its class."""
    groups = list(_options_in(field.annotation))
    return field.description or (groups[0].__doc__ if groups else "") or ""


def _default(field: FieldInfo) -> str:
    """Return an option's default as YAML would write it (JSON is YAML)."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if hasattr(value, "__pydantic_fields__"):
        return "its own defaults"
    return "none" if value is None else f"`{json.dumps(value)}`"


def _type(field: FieldInfo) -> str:
    """Return an option's type and bounds in words."""
    bounds = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in _BOUNDS.items()
        if hasattr(limit, name)
    ]
    if any(getattr(limit, "min_length", None) for limit in field.metadata):
        bounds.append("not empty")
    return ", ".join([_words(field.annotation), *bounds])


def _words(annotation: Any) -> str:
    """Return a type in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part) for part in parts if part is not type(None))
    if origin is Annotated:
        return _words(parts[0])
    if origin is list:
        return f"list of {_words(parts[0])}"
    if origin is dict:
        return f"mapping of names to {_words(parts[1])}"
    return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
