# What a result depends on besides its input files: the package's code and the study's
# options. A rule keeps digests of both in its params, so that an edit reruns the rules
# whose verb uses the edited file or option, and no others.
import ast
import hashlib
import re
from functools import cache as cached
from pathlib import Path

import isaerft.config

PACKAGE = Path(isaerft.config.__file__).parents[1]
# Options are digested by their values; names and errors decide nothing in a result.
LEFT_OUT = ("isaerft.config", "isaerft.registry", "isaerft.errors")


@cached
def parsed(name):
    """Return the source and the syntax tree of isaerft.x.y; None for other names."""
    if not name.startswith("isaerft.") or name.startswith(LEFT_OUT):
        return None
    place = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            source = path.read_text(encoding="utf-8")
            return source, ast.parse(source)
    return None


@cached
def origin(package, name):
    """Return where a name comes from, past a package that only hands it on."""
    if parsed(f"{package}.{name}"):
        return f"{package}.{name}"
    for node in parsed(package)[1].body if parsed(package) else []:
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return origin(node.module, alias.name)
    return package


@cached
def imports(tree):
    """Return what code imports of the package, at its top or inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {origin(node.module, alias.name) for alias in node.names}
    return sorted(name for name in found if parsed(name))


@cached
def cli_functions():
    """Return the functions of the command line: "isaerft VERB" and helpers by name."""
    found = {}
    for path in [PACKAGE / "cli.py", *sorted((PACKAGE / "verbs").glob("*.py"))]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                verbs = [
                    f"isaerft {call.args[0].value}" for call in node.decorator_list
                ]
                found |= {name: node.body for name in verbs or [node.name]}
    return found


@cached
def registered():
    """Return the files that register a part, by its name and by REGISTRY.name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        dotted = ".".join(["isaerft", *path.relative_to(PACKAGE).with_suffix("").parts])
        text = path.read_text("utf-8")
        for registry, name in re.findall(r'(?m)^@?([A-Z]+)\("([^"]+)"\)', text):
            found.setdefault(name, []).append(dotted)
            found.setdefault(f"{registry}.{name}", []).append(dotted)
    return found


def used_functions(verb):
    """Return the body of the verb's function and of the helpers that it calls."""
    found, waiting = {}, [f"isaerft {verb}"]
    while waiting:
        name = waiting.pop()
        found[name] = ast.Module(cli_functions()[name], type_ignores=[])
        used = {node.id for node in ast.walk(found[name]) if isinstance(node, ast.Name)}
        waiting += sorted((used & cli_functions().keys()) - found.keys())
    return [found[name] for name in sorted(found)]


@cached
def used_modules(verb, *kinds):
    """Return the files of the package that a verb uses, with these registered parts."""
    found = set()
    waiting = [name for part in used_functions(verb) for name in imports(part)]
    waiting += [name for kind in kinds for name in registered().get(kind, [])]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports(parsed(name)[1])
    return sorted(found)


@cached
def code(verb, *kinds):
    """Return a digest of the code that a verb runs, with these registered parts."""
    functions = [ast.unparse(part) for part in used_functions(verb)]
    return settings(functions, [parsed(name)[0] for name in used_modules(verb, *kinds)])


def settings(*values):
    """Return a digest of the options that a verb reads."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
