"""Files of other people run no code and write nowhere but in the study's folder.

`tests/faults/hostile.py` puts hostile text through a whole study; these are the rules that can be checked at once.
"""

import ast
import json
import os
import re
from pathlib import Path

import pytest
import typer
import yaml

from isaerft import ledger
from isaerft.behaviors import prepare_behavior
from isaerft.cli.app import app, run_here
from isaerft.config import Behavior, load_plan, plan_from_dict
from isaerft.errors import InputError
from isaerft.io import replacing
from tests.faults.fuzz import tried
from tests.faults.readers import Valid

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "isaerft").rglob("*.py"))
WORKFLOW = [ROOT / "workflow/Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]
# Modules that load objects or unpack archives, and calls that run or load what they are given.
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "tarfile", "runpy", "code"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {"system", "popen", "read_pickle", "unsafe_load", "full_load", "extract", "extractall", "unpack_archive"}
FIXED = {"trust_remote_code": False, "allow_pickle": False, "shell": False, "weights_only": True}
SAFE_YAML = {"_StrictLoader", "SafeLoader", "yaml.CSafeLoader"}
SOURCE_OF_CODE = re.compile(r"Auto\w+\.from_pretrained|pipeline|SentenceTransformer")


def unsafe(text):
    """Return what in Python source runs or loads code that comes with data, or unpacks an archive."""
    return [f"{problem} (line {node.lineno})" for node in ast.walk(ast.parse(text)) if (problem := _unsafe(node))]


def _unsafe(node):
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()
        names |= {(node.module or "").split(".")[0]} if isinstance(node, ast.ImportFrom) and not node.level else set()
        return next((f"imports {name}" for name in sorted(names & MODULES)), "")
    if not isinstance(node, ast.Call):
        return ""
    called, given = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
    for name, value in FIXED.items():
        if name in given and ast.unparse(given[name]) != str(value):
            return f"{called}({name}={ast.unparse(given[name])})"
    method = called.rpartition(".")[2]
    if called in CALLS or ("." in called and method in METHODS):
        return called
    if method == "load" and called.startswith("yaml") and ast.unparse(given.get("Loader", node)) not in SAFE_YAML:
        return f"{called} without a safe loader"
    if called == "torch.load" and "weights_only" not in given:
        return f"{called} without weights_only=True"
    if SOURCE_OF_CODE.fullmatch(called) and "trust_remote_code" not in given:
        return f"{called} without trust_remote_code=False"
    return ""


def test_the_package_runs_no_code_of_data_and_unpacks_no_archive():
    assert [f"{path}: {found}" for path in SOURCES for found in unsafe(path.read_text(encoding="utf-8"))] == []


def test_nor_does_the_workflow():
    words = re.compile(
        r"\b(eval|exec|pickle|tarfile|unpack_archive|os\.system|trust_remote_code)\b|shell=True|yaml\.load"
    )
    assert [f"{path}: {found[0]}" for path in WORKFLOW if (found := words.search(path.read_text()))] == []


@pytest.mark.parametrize(
    "text",
    [
        "yaml.load(x)", "import pickle", "from pickle import load", "import tarfile", "torch.load(path)",
        "eval(x)", "exec(x)",
        "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)", "yaml.load(text, yaml.Loader)",
        "yaml.load(text, Loader=yaml.FullLoader)", "subprocess.run(text, shell=True)", "os.system(text)",
        "AutoModelForCausalLM.from_pretrained(name)", "AutoTokenizer.from_pretrained(name, trust_remote_code=True)",
        "pipeline('x', model=name)", "archive.extractall(folder)", "__import__(name)", "pd.read_pickle(path)",
        "shutil.unpack_archive(path)", "load(name, trust_remote_code=options.trust)",
    ],
)  # fmt: skip
def test_unsafe_code_would_be_found(text):
    assert unsafe(text)


@pytest.mark.parametrize(
    "text",
    [
        "model.eval()", "re.compile(x)", "torch.load(path, weights_only=True)", "yaml.load(x, Loader=_StrictLoader)",
        "subprocess.run([x])", "AutoConfig.from_pretrained(name, trust_remote_code=False)", "np.load(path)",
    ],
)  # fmt: skip
def test_safe_code_is_let_be(text):
    assert not unsafe(text)


def test_a_model_that_brings_code_is_refused_without_a_question(tmp_path, monkeypatch):
    from isaerft.config import Subject
    from isaerft.layout import SubjectFolder
    from isaerft.subjects.load import load_model

    def answer(question=""):
        (tmp_path / "asked").write_text(question)
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    folder = tmp_path / "model"
    folder.mkdir()
    names = {"AutoConfig": "made_up.Config", "AutoModelForCausalLM": "made_up.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "made_up", "auto_map": names}))
    (folder / "made_up.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    with pytest.raises(InputError, match="no code of a model's folder is run here"):
        load_model(Subject(model=str(folder)), SubjectFolder(tmp_path), "cpu")
    assert not (tmp_path / "asked").exists()
    assert not (tmp_path / "ran").exists()


def test_the_ledger_is_not_written_through_a_link(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "results/.checksums.jsonl").symlink_to(tmp_path / "outside")
    ledger.keep(tmp_path / "results")
    try:
        with pytest.raises(InputError, match="move away what is in its place"), replacing(tmp_path / "results/a") as a:
            a.write_text("x")
    finally:
        ledger.keep(None)
    assert (tmp_path / "outside").read_text() == "mine"


def study_of(folder, **changes):
    """Return the options of a small study on data in `folder`."""
    (folder / "rows.jsonl").write_text('{"prompt": "p", "completion": "c"}\n')
    behavior = {"description": "d", "path": str(folder / "rows.jsonl")}
    values = {
        "study": "s",
        "subjects": {"toy": {"model": "m", "release": "r", "sae_id": "i", "corpus": {"sample": True}}},
        "behaviors": {"a": behavior, "b": behavior},
        "adapters": {"bias": {}},
        "sources": {"local": {}},
        "judges": {"lexical": {}},
        "scorers": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "local", "judge": "lexical"},
    }
    return values | changes


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "/x", "a/b", "a\\b", "~", "a\nb", "", "$(x)", "{x}", "-x", "x" * 65]
)
def test_names_that_could_lead_out_of_a_folder_are_refused(tmp_path, name):
    values = study_of(tmp_path)
    for kind in ("subjects", "behaviors", "adapters", "sources", "judges", "scorers"):
        with pytest.raises(InputError, match=f"{kind[:-1]} name"):
            plan_from_dict(values | {kind: {**values[kind], name: next(iter(values[kind].values()))}})
    with pytest.raises(InputError, match="study name"):
        plan_from_dict(values | {"study": name})


NAMES = {
    "--subject": "toy", "--behavior": "a", "--adapter": "bias", "--source": "local", "--judge": "lexical",
    "--scorer": "lexical",
}  # fmt: skip
VERBS = {name: command.params for name, command in typer.main.get_command(app).commands.items()}
NAMED = [(verb, part.opts[0]) for verb, params in VERBS.items() for part in params if part.opts[0] in NAMES]


def test_every_verb_that_takes_a_name_is_known():
    assert len({verb for verb, _ in NAMED}) > 20


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "\x1b[31m"])
@pytest.mark.parametrize(("verb", "option"), NAMED)
def test_no_verb_takes_a_name_that_leads_out_of_the_studys_folder(tmp_path, monkeypatch, capsys, verb, option, name):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work/s.yaml").write_text(yaml.safe_dump(study_of(tmp_path)))
    before = sorted(tmp_path.rglob("*"))
    arguments = [verb]
    for part in VERBS[verb]:
        if part.required or part.opts[0] == option:
            values = NAMES | {option: name, "--study": "s.yaml", "--latent": "0", "--kind": "person", "what": "export"}
            value = values.get(part.opts[0], "x.csv")
            arguments += [part.opts[0], value] if part.opts[0].startswith("-") else [value]
    assert run_here(arguments) == 2
    assert capsys.readouterr().err.rstrip("\n").isprintable()
    assert sorted(tmp_path.rglob("*")) == before


def test_ids_of_records_name_no_files(tmp_path):
    rows = [f'{{"id": "../../escaped{n}", "prompt": "p{n}", "completion": "/etc/c{n}"}}\n' for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    prepare_behavior("a", Behavior(description="d", path=str(tmp_path / "rows.jsonl")), tmp_path / "out/a")
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"rows.jsonl", *(f"out/a/{name}" for name in ("card.json", "train.jsonl", "heldout.jsonl"))}


def test_a_link_in_the_place_of_a_result_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "result").symlink_to(tmp_path / "outside")
    with replacing(tmp_path / "result") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "outside").read_text() == "mine"
    assert (tmp_path / "result").read_text() == "new"
    assert not (tmp_path / "result").is_symlink()


TRAPS = [
    "study: !!python/object/apply:os.system ['touch ran']",
    "study: !!python/object/new:os.system ['touch ran']",
    "study: !!python/name:os.system",
    "study: !!python/module:trap",
    "x: &a [*a]",
]


@pytest.mark.parametrize("text", [*TRAPS, None])
def test_reading_a_strangers_config_runs_nothing(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("trap.py", "rules.smk"):
        Path(name).write_text("import os\nos.system('touch ran')\n")
    llm = {"model": "$(touch ran)", "base_url": "http://127.0.0.1:9/v1"}
    gguf = {"subjects": {"toy": {"gguf": {"package": "trap", "file": "../trap.py"}, "corpus": {"sample": True},
                                 "release": "r", "sae_id": "`touch ran`"}}}  # fmt: skip
    values = study_of(tmp_path, rules=["rules.smk"], llms={"server": llm}, **gguf)
    data = (text or yaml.safe_dump(values)).encode()
    folder = tmp_path / "given"
    folder.mkdir()
    said = tried(Valid("study.yaml", load_plan, data), data, folder / "study.yaml")
    assert said == ("refused" if text else "accepted")
    assert not (tmp_path / "ran").exists()
    assert os.listdir(folder) == ["study.yaml"]
