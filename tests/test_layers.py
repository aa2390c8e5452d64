"""The house of DESIGN 2: a floor imports only from floors below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "isaerft"
FLOORS = [
    ("errors", "files", "registry", "tables", "config"),
    ("stats",),
    ("behaviors",),
    ("llm",),
    ("explanations",),
    ("judgements",),
    ("scoring",),
    ("subjects",),
    ("adapters",),
    ("changes",),
    ("training",),
    ("testbed",),
    ("report",),
    ("verbs",),
    ("cli",),
]
FLOOR_OF = {name: level for level, names in enumerate(FLOORS) for name in names}
TORCH = {"torch", "transformers", "peft", "sae_lens", "transformer_lens", "sentence_transformers", "accelerate"}
MAX_LINES = 250
MODULES = sorted(PACKAGE.rglob("*.py"))
WORKFLOW = [path for path in [ROOT / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))] if path.is_file()]


def imported(source, package=""):
    """Return every module that the code imports, at any depth; relative ones resolved against `package`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, node.module or ""]).strip(".")
            found |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            found |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return found


def package_of(path):
    return ".".join(path.relative_to(ROOT).parent.parts)


def floor(module):
    """Return the floor's name of `isaerft.FLOOR...`, None for what is not ours or the bare package."""
    parts = module.split(".")
    return parts[1] if parts[0] == "isaerft" and len(parts) > 1 and parts[1] != "__version__" else None


def name(path):
    return str(path.relative_to(ROOT))


def own_floor(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_the_parser_sees_imports_of_every_form():
    code = "import a.b\nfrom c import d\ndef f():\n    from .e import g\n    from .. import h\nimport_module('i.j')\n"
    assert imported(code, "isaerft.stats") == {"a.b", "c.d", "isaerft.stats.e.g", "isaerft.h", "i.j"}


def test_every_module_stands_on_a_floor():
    assert {own_floor(path) for path in MODULES} - {"__init__", "__main__"} <= set(FLOOR_OF)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_imports_only_from_its_own_floor_and_those_below(path):
    here = own_floor(path)
    # The package itself hands out what a library user needs, when it is asked for.
    level = FLOOR_OF.get(here, len(FLOORS) if here in ("__main__", "__init__") else -1)
    for module in imported(path.read_text(encoding="utf-8"), package_of(path)):
        there = floor(module)
        if there is not None and there != here:
            both_ground = level == FLOOR_OF[there] == 0
            assert FLOOR_OF[there] < level or both_ground, f"{name(path)} imports {module} from a floor above it"


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if FLOOR_OF.get(own_floor(p), 0) < FLOOR_OF["judgements"] or own_floor(p) == "report"],
    ids=name,
)
def test_below_the_judges_and_in_the_report_no_module_knows_of_torch(path):
    found = {module.split(".")[0] for module in imported(path.read_text(encoding="utf-8"))}
    assert not found & TORCH


@pytest.mark.parametrize(
    "floors", [FLOORS[0], ("stats",), ("behaviors",), ("explanations",), ("judgements",), ("report",)], ids="+".join
)
def test_these_floors_load_without_torch(floors):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if own_floor(path) in floors and path.name != "__main__.py"
    ]
    code = "import sys, importlib\nfor module in sys.argv[1:]: importlib.import_module(module)\n"
    code += "sys.exit(' '.join({'torch', 'sae_lens', 'transformers'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_loads_without_torch_and_still_offers_attach():
    code = "import sys, isaerft; light = not {'torch', 'transformers'} & set(sys.modules); isaerft.attach\n"
    code += "sys.exit(not light or 'torch' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_statistics_know_neither_files_nor_tables():
    for path in (PACKAGE / "stats").rglob("*.py"):
        ours = {floor(module) for module in imported(path.read_text(encoding="utf-8"), package_of(path))}
        assert not ours & {"files", "tables", "config"}, name(path)


@pytest.mark.parametrize("path", WORKFLOW, ids=name)
def test_the_workflow_imports_the_config_at_most(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    statements = [line.strip() for line in lines if line.strip().startswith(("import ", "from "))]
    ours = {floor(module) for line in statements for module in imported(line) if module.startswith("isaerft")}
    assert ours <= {"config", "errors"}, f"{name(path)} imports {ours}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_stays_under_250_lines(path):
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= MAX_LINES, f"{name(path)} has {n_lines} lines; split it by concept"


def test_no_module_is_called_utils():
    assert not [path for path in MODULES if path.stem in {"utils", "util", "helpers", "common", "misc"}]
