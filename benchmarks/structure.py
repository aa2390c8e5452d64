"""Print the structure of the package: modules, lines, floors, and import circles.

    python benchmarks/structure.py
    python benchmarks/structure.py --write docs/architecture.md   # write the floors and the file tree into the page

A floor stands above every floor that it imports, at any depth and wherever the import stands.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "isaerft"


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return the package's modules by dotted name."""
    files = sorted((root / PACKAGE).rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(source: str, known: Mapping[str, Path]) -> set[str]:
    """Return the modules of the package that code imports, at any depth; type-checking imports count too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] == PACKAGE:
                found.add(name if name in known else name.rpartition(".")[0])
    return found & known.keys()


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Return module -> the modules that it imports."""
    known = modules(root)
    return {name: imports(path.read_text(encoding="utf-8"), known) - {name} for name, path in known.items()}


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other in a loop (Tarjan 1972, SIAM J. Comput. 1:146)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(edges[name]):
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            group = []
            while not group or group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return found


def home(module: str) -> str:
    """Return the folder (or file) of the package that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else PACKAGE


def floors(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the folders of the package from the ground up, each above all that it imports."""
    between: dict[str, set[str]] = {}
    for name, others in edges.items():
        if home(name) != PACKAGE:
            between.setdefault(home(name), set()).update(home(other) for other in others)
    between = {name: {other for other in others if other in between} - {name} for name, others in between.items()}

    def level(name: str, above: tuple[str, ...] = ()) -> int:
        if name in above:
            raise SystemExit(f"folders import each other: {' -> '.join([*above, name])}")
        return 1 + max((level(other, (*above, name)) for other in between[name]), default=0)

    levels = {name: level(name) for name in between}
    return [sorted(n for n, floor in levels.items() if floor == height) for height in sorted(set(levels.values()))]


def report(root: Path = ROOT) -> Iterator[str]:
    """Yield the lines that are printed."""
    known, edges = modules(root), graph(root)
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in known.items()}
    yield f"{len(known)} modules, {sum(lines.values())} lines, mean {sum(lines.values()) / len(lines):.0f}"
    found = circles(edges)
    yield f"{len(found)} import circles" + "".join(f"\n  {' <-> '.join(group)}" for group in found)
    stack = floors(edges)
    yield f"{len(stack)} floors, the ground last:"
    for floor in reversed(stack):
        sizes = (f"{name} ({sum(n for m, n in lines.items() if home(m) == name)})" for name in floor)
        yield f"  {', '.join(sizes)}"


def headline(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def page_blocks(root: Path = ROOT) -> dict[str, str]:
    """Return what docs/architecture.md shows of the code, by block: the floors, and the file tree."""
    known = modules(root)
    stack = [", ".join(floor) for floor in reversed(floors(graph(root)))]
    packages: dict[Path, list[str]] = {}
    for path in known.values():
        lines = packages.setdefault(path.parent, [])
        where = path.relative_to(root).as_posix()
        if path.name == "__init__.py":
            lines.insert(0, f"**`{where.removesuffix('__init__.py')}`** {headline(path)}\n")
        else:
            lines.append(f"- `{where}` {headline(path)}")
    tree = ["\n".join(lines) for _, lines in sorted(packages.items())]
    return {"floors": "\n".join(["```", *stack, "```"]), "tree": "\n\n".join(tree)}


def main() -> None:
    """Print the structure, and write it into a page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put floors and file tree between the page's marks")
    options = parser.parse_args()
    if options.write:
        from page import write_block

        for name, text in page_blocks().items():
            write_block(options.write, name, text)
    sys.stdout.writelines(f"{line}\n" for line in report())


if __name__ == "__main__":
    main()
