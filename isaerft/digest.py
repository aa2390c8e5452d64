"""Digests of the code and options behind a result, so that an edit reruns the jobs that it can change.

Snakemake compares a rule's params with those of the last run. Each rule keeps two digests there: of the source that
its verb runs, `code`, and of the options that it reads, `settings`.

The rule for code is coarse on purpose: the verb's own function, and every module that it imports, at any depth,
wherever the import statement is, with the styles and scripts of pages that lie beside these modules. A registered part
adds the module that defines it; one from another package adds every Python file of that package. A name imported from a
package's ``__init__`` counts as imported from where it is defined.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from isaerft.errors import InputError
from isaerft.registry import Registry

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.name
VERBS = PACKAGE / "cli"
PAGE_FILES = (".css", ".js")


class Part(NamedTuple):
    """A registered part that a verb uses."""

    registry: Registry[Any]
    name: str


class _Module(NamedTuple):
    source: str
    tree: ast.Module


def settings(*values: object) -> str:
    """Return a digest of options, by their representation."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


@cache
def code(verb: str, *parts: Part, packages: tuple[str, ...] = ()) -> str:
    """Return a digest of the source that a verb of the command line runs.

    Parameters
    ----------
    verb : str
        As on the command line ("causal-check").
    parts : Part
        Registered parts that the verb uses by name.
    packages : tuple of str
        Packages of which the verb uses every module ("isaerft.analysis").
    """
    functions = [ast.unparse(function) for function in _functions_of(verb)]
    outside = [source for part in parts for source in _outside_sources(part.registry.module_of(part.name))]
    modules = modules_of(verb, *parts, packages=packages)
    beside = [path.read_text(encoding="utf-8") for path in _files_beside(modules)]
    return settings(functions, [_module(name).source for name in modules], outside, *beside)


@cache
def modules_of(verb: str, *parts: Part, packages: tuple[str, ...] = ()) -> list[str]:
    """Return the modules of this package that a verb imports, at any depth, with these parts."""
    waiting = [name for function in _functions_of(verb) for name in _imports(function)]
    for part in parts:
        module = part.registry.module_of(part.name)
        waiting += [module] if _is_ours(module) else []
        for source in _outside_sources(module):
            waiting += _imports(ast.parse(source))
    for package in packages:
        folder = PACKAGE.joinpath(*package.split(".")[1:])
        waiting += [_name_of(path) for path in folder.rglob("*.py")]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(_module(name).tree)
    # The packages around a module run too, but only their own lines: what they re-export counts where it is used.
    around = {".".join(name.split(".")[:depth]) for name in found for depth in range(1, name.count(".") + 1)}
    return sorted(found | around)


def _files_beside(modules: list[str]) -> list[Path]:
    """Return the styles and scripts of pages in the folders of these modules."""
    folders = {path.parent for name in modules if (path := _file_of(name))}
    return sorted(path for folder in folders for path in folder.iterdir() if path.suffix in PAGE_FILES)


def _is_ours(module: str) -> bool:
    return module == ROOT or module.startswith(f"{ROOT}.")


def _name_of(path: Path) -> str:
    """Return the dotted name of one of our files."""
    parts = [ROOT, *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _file_of(name: str) -> Path | None:
    """Return the file of a dotted name of this package; None where it is no module."""
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


@cache
def _module(name: str) -> _Module:
    path = _file_of(name)
    if path is None:
        raise KeyError(name)
    source = path.read_text(encoding="utf-8")
    return _Module(source, ast.parse(source))


@cache
def _origin(package: str, name: str) -> str:
    """Return the module that ``from package import name`` uses, past packages that only re-export it."""
    if _file_of(f"{package}.{name}"):
        return f"{package}.{name}"
    path = _file_of(package)
    if path is None or path.name != "__init__.py":
        return package
    for node in ast.walk(_module(package).tree):
        if isinstance(node, ast.ImportFrom) and node.module and _is_ours(node.module) and node.module != package:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _origin(node.module, alias.name)
    return package


@cache
def _imports(tree: ast.AST) -> tuple[str, ...]:
    """Return what code imports of this package, at its top or inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if _is_ours(alias.name)}
        elif isinstance(node, ast.ImportFrom) and node.module and _is_ours(node.module):
            found |= {_origin(node.module, alias.name) for alias in node.names}
    return tuple(sorted(found))


@cache
def _commands() -> dict[str, tuple[ast.stmt, dict[str, ast.stmt]]]:
    """Return verb -> (its function, every top-level statement of its file by the name that it defines)."""
    found = {}
    for path in sorted(VERBS.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named: dict[str, ast.stmt] = {}
        for node in tree.body:
            named |= dict.fromkeys(_defined(node), node)
        for node in tree.body:
            for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
                if isinstance(decorator, ast.Call) and decorator.args and isinstance(decorator.args[0], ast.Constant):
                    found[str(decorator.args[0].value)] = (node, named)
    return found


def _defined(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a top-level statement defines or imports."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)


def _functions_of(verb: str) -> list[ast.stmt]:
    """Return the verb's function and everything it uses that its file defines or imports, at any depth."""
    if verb not in _commands():
        raise InputError(f"verb {verb!r}", allowed=", ".join(sorted(_commands())))
    function, named = _commands()[verb]
    found: dict[int, ast.stmt] = {}
    waiting = [function]
    while waiting:
        node = waiting.pop()
        if node.lineno not in found:
            found[node.lineno] = node
            names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            waiting += [named[name] for name in sorted(names & named.keys())]
    return [found[line] for line in sorted(found)]


@cache
def _outside_sources(module: str) -> tuple[str, ...]:
    """Return the source of every Python file of the package that a module belongs to; none for one of ours."""
    if _is_ours(module):
        return ()
    spec = importlib.util.find_spec(module.split(".")[0])
    if spec is None or spec.origin is None:
        return ()
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    return tuple(path.read_text(encoding="utf-8") for path in files)
