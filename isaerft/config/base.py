"""Read options strictly: no duplicate YAML keys, no unknown keys, one line for each error."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from isaerft.errors import InputError, shown, unknown_name
from isaerft.io import read_text

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
_UNKNOWN_KEY = {"unexpected_keyword_argument", "extra_forbidden"}
Options = TypeVar("Options")


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, with two differences.

    A key given twice is refused: the first of the two would be lost silently. A number needs no point before its
    exponent (1e-3), as in YAML 1.2: PyYAML takes it for text.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping whose own keys differ; what it takes over from others (`<<`) is not joined to it yet."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for (_, key), count in Counter(keys).items():
            if count > 1:
                raise InputError(f"config key {shown(key)} is given twice (line {node.start_mark.line + 1})")
        return node


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_options(path: str | Path) -> dict[str, Any]:
    """Return the options in a YAML file.

    Raises
    ------
    InputError
        The file is missing, is not YAML, gives a key twice, or holds no mapping.
    """
    text = read_text(path)
    try:
        values = yaml.load(text, Loader=_StrictLoader)
    except InputError:
        raise
    except Exception as error:  # PyYAML raises whatever int() or date() does, or the depth of the file
        raise InputError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise InputError(
            f"{path} holds {shown(values)}", allowed="a mapping of options", remedy="see config/testbed.yaml"
        )
    return values


def with_included(values: dict[str, Any]) -> dict[str, Any]:
    """Return a study's options with those of the file that its `include` names.

    Mappings of both (behaviors, adapters, ...) are joined key by key; for a key that both give, the study's own counts.

    Raises
    ------
    InputError
        The file cannot be read, or names a study or another file.
    """
    path = values.get("include")
    if not isinstance(path, str):
        return values
    included = read_options(path)
    for key in ("study", "include"):
        if key in included:
            raise InputError(
                f"{path}, which a study includes, has the key {key!r}",
                allowed="parts that studies share",
                remedy=f"remove `{key}:` from it",
            )
    joined = included | values
    for key, part in included.items():
        if isinstance(part, dict) and isinstance(joined[key], dict):
            joined[key] = part | joined[key]
    del joined["include"]
    return joined


def validated(kind: type[Options], values: dict[str, Any]) -> Options:
    """Return plain values as options of a class; the first problem, unknown keys before others, is an `InputError`."""
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        raise _worst_problem(error, adapter, values) from None


def _worst_problem(error: ValidationError, adapter: TypeAdapter[Any], values: dict[str, Any]) -> InputError:
    """Return one of pydantic's problems as an error: an unknown key first, since it causes others."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] not in _UNKNOWN_KEY)
    problem = problems[0]
    location = _location(problem["loc"], values, missing=problem["type"] == "missing")
    if problem["type"] in _UNKNOWN_KEY:
        owner = _options_at(adapter.json_schema(), location[:-1])
        where = ".".join(location[:-1]) or "the study"
        return unknown_name(f"config key in {where}:", location[-1], owner)
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        # Raised by a validator of ours; one of a nested class or field does not know where it is in the study.
        given = f"{'.'.join(location)} {cause.problem}".strip()
        return InputError(given, allowed=cause.allowed, remedy=cause.remedy)
    given = "" if problem["type"] == "missing" else f" = {shown(problem['input'])}"
    if problem["type"] == "string_type" and isinstance(problem["input"], bool | int | float):
        remedy = "YAML takes it for a number or a truth value: put it in quotes"
        return InputError(f"config key {'.'.join(location)}{given}", allowed="text", remedy=remedy)
    return InputError(f"config key {'.'.join(location)}{given}: {problem['msg']}", remedy="see docs/config.md")


def _location(parts: Sequence[int | str], values: object, *, missing: bool) -> list[str]:
    """Return the keys that lead to a problem, without pydantic's names of the types that it tried there."""
    location: list[str] = []
    for part in parts:
        if not ((isinstance(values, dict) and part in values) or (isinstance(values, list) and isinstance(part, int))):
            break
        values = cast("Any", values)[part]
        location.append(str(part))
    return [*location, str(parts[-1])] if missing else location


def _options_at(schema: dict[str, Any], location: list[str]) -> Iterable[str]:
    """Return the valid keys of the options class at a place such as ['behaviors', 'refusal']."""
    node: dict[str, Any] = schema
    for part in location:
        node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
        for choice in [node, *node.get("anyOf", [])]:
            if "$ref" in choice:
                node = schema["$defs"][choice["$ref"].rsplit("/", 1)[-1]]
    return node.get("properties", {})
