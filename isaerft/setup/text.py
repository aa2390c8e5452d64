"""YAML for people: options one to a line, with comments between them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from isaerft.errors import one_line, printable

WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines with escapes, so that it stays in its place."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)


_Dumper.add_representer(str, _text)


def comment(text: str) -> str:
    """Return text as comment lines; lines that begin with blanks are kept as they are."""
    lines: list[str] = []
    for paragraph in map(one_line, text.split("\n")):
        wrapped = textwrap.wrap(paragraph, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
        lines += wrapped if paragraph.strip() and not paragraph.startswith(" ") else [paragraph]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def part(values: Mapping[str, Any], indent: int = 0) -> str:
    """Return options as YAML: one line for each, in which small mappings and lists stand whole."""
    texts = [
        yaml.dump(
            {key: value},
            Dumper=_Dumper,
            default_flow_style=None if isinstance(value, dict | list) else False,
            sort_keys=False,
            allow_unicode=True,
            width=WIDTH - indent,
        )
        for key, value in values.items()
    ]
    return textwrap.indent("".join(texts).rstrip(), " " * indent)


def quoted(label: str) -> str:
    """Return a value as YAML needs it in a line: in quotes where blanks would be lost."""
    return printable(label) if label == label.strip() else f"'{printable(label)}'"
