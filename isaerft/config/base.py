"""Read options strictly: no duplicate YAML keys, no unknown keys, one line for each error."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from isaerft.errors import InputError, shown, unknown_name
from isaerft.io import read_text

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
_UNKNOWN_KEY = {"unexpected_keyword_argument", "extra_forbidden"}
MERGE = "tag:yaml.org,2002:merge"
Options = TypeVar("Options")


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, but a key given twice is refused: the first of the two would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys differ, apart from those that it takes over from others (`<<`)."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != MERGE]
        for key in keys:
            if keys.count(key) > 1:
                raise InputError(f"config key {shown(key)} is given twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def read_options(path: str | Path) -> dict[str, Any]:
    """Return the options in a YAML file.

    Raises
    ------
    InputError
        The file is missing, is not YAML, gives a key twice, or holds no mapping.
    """
    try:
        values = yaml.load(read_text(path), Loader=_UniqueKeys)
    except yaml.YAMLError as error:
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
        raise _worst_problem(error, adapter.json_schema()) from None


def _worst_problem(error: ValidationError, schema: dict[str, Any]) -> InputError:
    """Return one of pydantic's problems as an error: an unknown key first, since it causes others."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] not in _UNKNOWN_KEY)
    problem = problems[0]
    location = [str(part) for part in problem["loc"]]
    if problem["type"] in _UNKNOWN_KEY:
        owner = _options_at(schema, location[:-1])
        where = ".".join(location[:-1]) or "the study"
        return unknown_name(f"config key in {where}:", location[-1], owner)
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        # Raised by a validator of ours; one of a nested class or field does not know where it is in the study.
        given = f"{'.'.join(location)} {cause.problem}".strip()
        return InputError(given, allowed=cause.allowed, remedy=cause.remedy)
    given = "" if problem["type"] == "missing" else f" = {shown(problem['input'])}"
    return InputError(f"config key {'.'.join(location)}{given}: {problem['msg']}", remedy="see docs/config.md")


def _options_at(schema: dict[str, Any], location: list[str]) -> Iterable[str]:
    """Return the valid keys of the options class at a place such as ['behaviors', 'refusal']."""
    node: dict[str, Any] = schema
    for part in location:
        node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
        for choice in [node, *node.get("anyOf", [])]:
            if "$ref" in choice:
                node = schema["$defs"][choice["$ref"].rsplit("/", 1)[-1]]
    return node.get("properties", {})
