"""The package: every public name is there, and importing it is fast."""

import ast
import doctest
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from isaerft import stats

SOURCE = Path(stats.__file__)


def test_importing_the_package_does_not_import_scipy_and_a_name_does():
    code = "import sys, isaerft.stats as s; assert 'scipy' not in sys.modules; s.auroc; assert 'scipy' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_imported_from_where_type_checkers_see_it():
    (guard,) = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in guard.body for alias in node.names}
    assert sorted([*seen, "STATISTICS"]) == sorted(stats.__all__)
    for name, module in seen.items():
        assert getattr(stats, name) is getattr(import_module(module), name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'auroq'"):
        stats.auroq  # noqa: B018


def test_examples_in_docstrings_are_true():
    for module in iter_modules([str(SOURCE.parent)]):
        found = doctest.testmod(import_module(f"isaerft.stats.{module.name}"))
        assert not found.failed, module.name
