"""Reading a file of options strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from isaerft.errors import InputError, shown
from isaerft.io import read_text


def read_options(path: str | Path) -> dict[str, Any]:
    """Return the options in a YAML file."""
    try:
        values = yaml.load(read_text(path), Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise InputError(
            f"{path} holds {shown(values)}", allowed="a mapping of options", remedy="see config/testbed.yaml"
        )
    return values


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, but a key that stands twice is refused: the first of two would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys differ."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise InputError(f"config key {shown(key)} stands twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)
