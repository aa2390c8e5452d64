"""The architecture: a floor imports only from floors below it, nothing imports in a circle, and torch stays above."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
structure = runpy.run_path(str(ROOT / "benchmarks/structure.py"))
MODULES = structure["modules"]()
EDGES = structure["graph"]()
# From the ground up. Folders on one floor do not import each other, but for the ground's.
BASE = ("errors", "ledger", "progress", "http", "version", "outside", "directory", "provenance", "credentials", "hub")
GROUND = (*BASE, "io", "registry", "layout", "table", "config", "digest")
FLOORS = [
    GROUND,
    ("stats", "llm", "behaviors"),
    ("explanations", "subjects", "calibration"),
    ("judges", "adapters", "testbed"),
    ("scorers", "changes", "training"),
    ("analysis", "integrations", "planning", "placebos", "steps"),
    ("report", "setup"),
    ("annotation", "publish"),
    ("cli",),
    ("notebook",),
]
FLOOR_OF = {name: level for level, names in enumerate(FLOORS) for name in names}
HEAVY = {"torch", "transformers", "peft", "sae_lens", "transformer_lens", "sentence_transformers", "accelerate"}
WITHOUT_TORCH = [
    *GROUND,
    *(
        "stats",
        "llm",
        "behaviors",
        "explanations",
        "calibration",
        "analysis",
        "planning",
        "report",
        "annotation",
        "publish",
        "setup",
        "steps",
    ),
]
MAX_LINES = 500
home = structure["home"]


def test_every_module_has_a_floor():
    assert {home(name) for name in MODULES} - {"isaerft"} == set(FLOOR_OF)


def test_a_module_imports_only_from_its_own_folder_and_from_floors_below():
    wrong = []
    for name, others in EDGES.items():
        for other in others:
            here, there = home(name), home(other)
            if "isaerft" in (here, there) or here == there:
                continue  # the package itself hands out `attach` when it is asked for
            both_ground = FLOOR_OF[here] == FLOOR_OF[there] == 0
            if FLOOR_OF[there] >= FLOOR_OF[here] and not both_ground:
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_no_floor_imports_the_package_itself():
    assert [name for name, others in EDGES.items() if "isaerft" in others] == []


def test_nothing_imports_in_a_circle():
    assert structure["circles"](EDGES) == []


def test_a_circle_would_be_found():
    assert structure["circles"]({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_below_the_subjects_and_in_analysis_and_report_no_module_imports_torch():
    wrong = []
    for name, path in MODULES.items():
        if home(name) not in WITHOUT_TORCH:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            wrong += [f"{name} imports {module}" for module in names if module.split(".")[0] in HEAVY]
    assert wrong == []


def test_these_floors_load_without_torch_and_the_package_itself_without_anything_heavy():
    names = [name for name in MODULES if home(name) in WITHOUT_TORCH and not name.endswith("__main__")]
    code = "import sys, importlib, isaerft\nlight = not {'torch', 'scipy', 'pandas'} & set(sys.modules)\n"
    code += "for module in sys.argv[1:]: importlib.import_module(module)\n"
    code += "sys.exit(' '.join({'torch', 'sae_lens', 'transformers'} & set(sys.modules)) or int(not light))"
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_the_workflow_reads_at_every_start_imports_neither_scipy_nor_matplotlib():
    code = "import sys, isaerft.analysis, isaerft.report, isaerft.config, isaerft.digest\n"
    code += "sys.exit(' '.join({'torch', 'scipy', 'matplotlib', 'sklearn'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_offers_attach():
    code = "import sys, isaerft; isaerft.attach; sys.exit('torch' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_statistics_know_neither_files_nor_tables():
    ground = {"isaerft.io", "isaerft.table", "isaerft.config", "isaerft.layout"}
    for name in MODULES:
        if home(name) == "stats":
            assert not {other for other in EDGES[name] if any(other.startswith(part) for part in ground)}, name


def test_the_report_knows_neither_statistics_nor_the_files_of_rules():
    below = {"stats", "subjects", "adapters", "training", "changes", "judges", "scorers", "explanations"}
    wrong = [f"{name} imports {other}" for name in MODULES if home(name) == "report" for other in EDGES[name]]
    assert [line for line in wrong if line.split(".")[2].split()[0] in below] == []


def test_the_workflow_imports_only_what_says_what_exists_and_where():
    allowed = {"config", "errors", "ledger", "layout", "digest", "registry", "analysis", "report"}
    for path in [ROOT / "workflow/Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found = {line.split()[1] for line in lines if line.startswith(("from isaerft", "import isaerft"))}
        assert {module.split(".")[1] for module in found} <= allowed, path.name


def test_modules_are_neither_too_long_nor_called_utils():
    long = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: lines for name, lines in long.items() if lines > MAX_LINES} == {}
    assert not [path for path in MODULES.values() if path.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_no_rule_declares_an_environment_of_its_own():
    """Rules run in the environment that runs Snakemake, so `--sdm conda` makes none."""
    for path in sorted((ROOT / "workflow").rglob("*.smk")):
        assert "conda:" not in path.read_text(encoding="utf-8").split(), path.name
