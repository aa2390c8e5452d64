import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from isaerft.cli import main
from isaerft.verbs.base import ARGUMENTS, VERBS

HEAVY = {"torch", "sae_lens", "transformers", "peft", "datasets", "sentence_transformers"}
LIGHT = ("explain", "agreement", "tables", "figure", "pages", "summary", "split", "behavior", "testbed-rows")
STUDY = {
    "study": "small",
    "subjects": {"toy": {"testbed": {}}},
    "behaviors": {name: {"description": name, "testbed": name} for name in ("refusal", "humor")},
    "adapters": {"bias": {}},
    "sources": {"local": {}},
    "judges": {"lexical": {}},
    "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
}


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return str(path)


def arguments_of(verb, **given):
    """Return a command line with every argument of the verb filled in."""
    line = [verb]
    for name in VERBS[verb][1]:
        value = given.get(name, "x")
        line += [value] if name == "name" else [f"--{name}", value]
    return line


def run_python(code, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_says_what_it_does_and_needs(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert " ".join(VERBS[verb][2].split()) in text
    assert all(ARGUMENTS[name] in text for name in VERBS[verb][1])


def test_the_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^ +{verb}\b", text, flags=re.MULTILINE) for verb in VERBS)


@pytest.mark.parametrize("line", [[], ["trian"], ["train"], ["train", "--sudy", "x"]], ids=" ".join)
def test_a_malformed_command_line_exits_with_2(line, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(line)
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


NAMES = {"subject": "toy", "behavior": "humor", "adapter": "bias", "source": "local", "judge": "lexical"}
NAMED = [
    (verb, kind) for verb in sorted(VERBS) if "study" in VERBS[verb][1] for kind in NAMES if kind in VERBS[verb][1]
]
MESSAGES = {
    "subject": ("toyy", "unknown subject 'toyy'; allowed: toy; did you mean 'toy'?"),
    "behavior": ("refusl", "unknown behavior 'refusl'; allowed: humor, refusal; did you mean 'refusal'?"),
    "adapter": ("biass", "unknown adapter 'biass'; allowed: bias; did you mean 'bias'?"),
    "source": ("locl", "unknown source 'locl'; allowed: local; did you mean 'local'?"),
    "judge": ("lexicl", "unknown judge 'lexicl'; allowed: lexical; did you mean 'lexical'?"),
}


@pytest.mark.parametrize(("verb", "kind"), NAMED)
def test_an_unknown_name_is_one_line_with_the_valid_ones_and_exit_2(verb, kind, study, capsys):
    wrong, message = MESSAGES[kind]
    assert main(arguments_of(verb, study=study, **(NAMES | {kind: wrong}))) == 2
    error = capsys.readouterr().err
    if "cache" in VERBS[verb][1]:
        message = message.replace("allowed: toy;", "allowed: toy, toy-permuted;")
    assert error == f"isaerft {verb}: error: {message}\n"


@pytest.mark.parametrize("verb", ["corpus", "dictionary", "facts", "capture", "explain", "agreement"])
def test_a_random_dictionary_twin_is_known_only_where_it_is_trained_and_scored(verb, study, capsys):
    line = arguments_of(verb, study=study, subject="toy-permuted", behavior="humor", adapter="bias", source="local")
    assert main(line) == 2
    assert "unknown subject 'toy-permuted'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(verb for verb in VERBS if {"study", "behavior"} <= set(VERBS[verb][1])))
def test_a_twin_with_shuffled_completions_is_known_only_where_it_is_captured_trained_and_scored(verb, tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | {"controls": ["shuffled_completions"]}))
    line = arguments_of(verb, study=str(path), subject="toy", behavior="humor-shuffled", adapter="biass")
    assert main(line) == 2
    known = "unknown behavior 'humor-shuffled'" not in capsys.readouterr().err
    assert known == (verb in ("capture", "train", "changes"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("study: [", "is not valid YAML"),
        (yaml.safe_dump(STUDY | {"sed": 3}), "did you mean 'seed'?"),
        (yaml.safe_dump(STUDY | {"adapters": {"bias": {}, "lora": {}}}), "add `reference: lora`"),
    ],
)
def test_a_study_that_cannot_be_read_is_one_line_and_exit_2(text, message, tmp_path, capsys):
    path = tmp_path / "study.yaml"
    if text is not None:
        path.write_text(text)
    assert main(arguments_of("tables", study=str(path))) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unknown_figure_is_refused_with_those_there_are(study, tmp_path, capsys):
    assert (
        main(arguments_of("figure", study=study, name="agreemnt", tables=str(tmp_path), out=str(tmp_path / "o"))) == 2
    )
    assert "did you mean 'agreement'?" in capsys.readouterr().err


def test_a_folder_without_tables_makes_no_pages(tmp_path, capsys):
    assert main(["pages", "--tables", str(tmp_path), "--out", str(tmp_path / "pages")]) == 2
    assert "has no tables" in capsys.readouterr().err


def test_the_program_itself_prints_no_traceback_for_bad_input(tmp_path):
    code = "import sys; from isaerft.cli import main; sys.exit(main())"
    done = run_python(code, "tables", "--study", str(tmp_path / "none.yaml"), "--results", "x", "--out", "y")
    assert done.returncode == 2
    assert done.stderr.startswith("isaerft tables: error: file ")
    assert done.stderr.count("\n") == 1


def test_behavior_rows_and_records_come_from_the_command_line(study, tmp_path):
    rows, out = str(tmp_path / "rows.jsonl"), str(tmp_path / "out")
    assert main(arguments_of("testbed-rows", study=study, behavior="humor", out=rows)) == 0
    assert main(arguments_of("behavior", study=study, behavior="humor", input=rows, out=out)) == 0
    assert {path.name for path in Path(out).iterdir()} >= {"train.jsonl", "heldout.jsonl", "card.json"}


def lazy_imports(verb):
    """Return every module that the verb's function imports when it runs."""
    tree = ast.parse(inspect.getsource(VERBS[verb][0]))
    return [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


@pytest.mark.parametrize("verbs", [(), LIGHT], ids=["the command line alone", "light verbs"])
def test_importing_the_command_line_and_the_light_verbs_imports_nothing_heavy(verbs):
    modules = ["isaerft.cli", *(module for verb in verbs for module in lazy_imports(verb))]
    code = "import sys, importlib\nfor module in sys.argv[2:]: importlib.import_module(module)\n"
    code += "sys.exit(' '.join(set(sys.argv[1].split()) & set(sys.modules)) or 0)"
    done = run_python(code, " ".join(HEAVY), *modules)
    assert done.returncode == 0, done.stderr


def test_no_verb_that_neither_loads_nor_trains_an_sae_imports_sae_lens():
    modules = [module for verb in VERBS if verb != "dictionary" for module in lazy_imports(verb)]
    assert "isaerft.training.run" in modules
    code = "import sys, importlib\nfor module in sys.argv[1:]: importlib.import_module(module)\n"
    code += "sys.exit('sae_lens' in sys.modules)"
    done = run_python(code, "isaerft.subjects.load", "isaerft.adapters.weights", *modules)
    assert done.returncode == 0, done.stderr


def test_power_plans_a_study(capsys):
    assert main(["power", "--odds-ratio", "1.9", "--expected-share", "0.15", "--reliability", "0.3"]) == 0
    out = capsys.readouterr().out
    assert "AUROC 0.606" in out
    assert [line.split() for line in out.splitlines() if line.split()[:2] == ["5", "1"]] == [
        ["5", "1", "0.587", "537", "744"]
    ]


@pytest.mark.parametrize("given", [[], ["--auroc", "0.6", "--odds-ratio", "2"], ["--auroc", "1.5"]])
def test_power_refuses_anything_but_one_possible_effect(given, capsys):
    assert main(["power", *given]) == 2
    assert "allowed" in capsys.readouterr().err


def test_a_part_of_the_calibration_study_that_there_is_not_is_refused(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("worlds: [plain]\n")
    line = ["calibrate", "--config", str(tmp_path / "c.yaml"), "--part", "power-1", "--out", str(tmp_path / "o.csv")]
    assert main(line) == 2
    assert "unknown part 'power-1'; allowed: " in capsys.readouterr().err
