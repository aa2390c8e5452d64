import ast
import inspect
import os
import re
import subprocess
import sys

import pytest
import yaml

from isaerft.cli import app, main

VERBS = {command.name: command.callback for command in app.registered_commands}
HEAVY = {"torch", "sae_lens", "transformers", "peft", "datasets", "sentence_transformers"}
LIGHT = ("explain", "agreement", "tables", "figures", "pages", "summary", "split", "behavior", "testbed-rows")
STUDY = {
    "study": "small",
    "subjects": {"toy": {"testbed": {}}},
    "behaviors": {name: {"description": name, "testbed": name} for name in ("refusal", "humor")},
    "adapters": {"bias": {}},
    "sources": {"local": {}},
    "judges": {"lexical": {}},
    "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
    "controls": ["random_dictionary", "shuffled_completions"],
}
NAMES = {"subject": "toy", "behavior": "humor", "adapter": "bias", "source": "local", "judge": "lexical"}


def takes(verb):
    """Return the names of a verb's options."""
    return list(inspect.signature(VERBS[verb]).parameters)


def with_names(*kinds):
    return [verb for verb in sorted(VERBS) if {"study", *kinds} <= set(takes(verb))]


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return str(path)


def line_of(verb, tmp_path, **given):
    """Return a command line with every required option of the verb filled in."""
    values = NAMES | {"scorer": "none", "results": str(tmp_path / "results"), "draws": "20"}
    values |= {"latents": "all", "seed": "0", "sheet": "sheet", "returned": "answers.csv", "reader": "ann"}
    values |= {"kind": "person", "out": str(tmp_path / "out.csv")} | given
    return [verb, *(part for name in takes(verb) for part in (f"--{name}", values[name]))]


def run_python(code, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_every_verb_says_what_it_does_and_needs_and_the_help_lists_it(capsys):
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for verb, function in VERBS.items():
        assert re.search(rf"^ +{verb}\b", listed, flags=re.MULTILINE), verb
        assert main([verb, "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert " ".join(inspect.getdoc(function).split()) in text
        assert all(f"--{name.replace('_', '-')}" in text for name in takes(verb)), verb


def test_the_version_is_that_of_the_installed_package(capsys):
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"isaerft {version('isaerft')}\n"


@pytest.mark.parametrize("line", [["trian"], ["train"], ["train", "--sudy", "x"]], ids=" ".join)
def test_a_malformed_command_line_exits_with_2_and_no_traceback(line, capsys):
    assert main(line) == 2
    error = capsys.readouterr().err
    assert "Usage" in error
    assert "Traceback" not in error


def test_an_unknown_name_is_one_line_with_the_valid_ones_and_exit_2(study, tmp_path, capsys):
    wrong = {"subject": "toyy", "behavior": "humr", "adapter": "biass", "source": "locl", "judge": "lexicl"}
    for kind, name in wrong.items():
        for verb in with_names(kind):
            if (verb, kind) in {("shuffle", "behavior"), ("score", "scorer")}:
                continue
            assert main(line_of(verb, tmp_path, study=study, **{kind: name})) == 2
            error = capsys.readouterr().err
            assert re.match(rf"isaerft {verb}: error: unknown {kind} '{name}'; allowed: .*; did you mean", error), error
            assert error.count("\n") == 1


def test_a_random_dictionary_twin_is_known_only_where_it_is_trained_and_scored(study, tmp_path, capsys):
    for verb in with_names("subject"):
        line = line_of(verb, tmp_path, study=study, subject="toy-permuted", adapter="biass", behavior="humr")
        assert main(line) == 2
        known = "unknown subject 'toy-permuted'" not in capsys.readouterr().err
        assert known == (verb in ("train", "changes")), verb


def test_a_twin_with_shuffled_completions_is_known_only_where_it_is_captured_trained_and_scored(
    study, tmp_path, capsys
):
    for verb in with_names("behavior"):
        line = line_of(verb, tmp_path, study=study, behavior="humor-shuffled", adapter="biass")
        assert main(line) == 2
        known = "unknown behavior 'humor-shuffled'" not in capsys.readouterr().err
        assert known == (verb in ("shuffle", "capture", "train", "changes")), verb


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
    assert main(["tables", "--study", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_study_without_tables_makes_no_pages_and_no_figures(study, tmp_path, capsys):
    for verb in ("pages", "figures", "summary"):
        assert main(line_of(verb, tmp_path, study=study)) == 2
        assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_the_program_itself_prints_no_traceback_for_bad_input(tmp_path):
    code = "import sys; from isaerft.cli import main; sys.exit(main())"
    done = run_python(code, "tables", "--study", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert done.stderr.startswith("isaerft tables: error: file ")
    assert done.stderr.count("\n") == 1


def test_rows_and_records_of_a_behavior_lie_where_the_layout_says(study, tmp_path):
    for verb in ("testbed-rows", "behavior", "shuffle"):
        name = "humor-shuffled" if verb == "shuffle" else "humor"
        assert main(line_of(verb, tmp_path, study=study, behavior=name)) == 0
    for name in ("humor", "humor-shuffled"):
        folder = tmp_path / "results/behaviors" / name
        assert {path.name for path in folder.iterdir()} >= {"train.jsonl", "heldout.jsonl", "card.json"}


def lazy_imports(verb):
    """Return every module that the verb's function imports when it runs."""
    tree = ast.parse(inspect.getsource(VERBS[verb]))
    return [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


def test_importing_the_command_line_and_the_light_verbs_imports_nothing_heavy():
    code = "import sys, importlib\nfor module in sys.argv[2:]: importlib.import_module(module)\n"
    code += "sys.exit(' '.join(set(sys.argv[1].split()) & set(sys.modules)) or 0)"
    modules = ["isaerft.cli", *(module for verb in LIGHT for module in lazy_imports(verb))]
    done = run_python(code, " ".join(HEAVY), *modules)
    assert done.returncode == 0, done.stderr
    done = run_python(code, "scipy matplotlib pandas", "isaerft.cli")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_no_verb_that_neither_loads_nor_trains_an_sae_imports_sae_lens():
    modules = [module for verb in VERBS if verb != "dictionary" for module in lazy_imports(verb)]
    assert "isaerft.training.replicates" in modules
    code = "import sys, importlib\nfor module in sys.argv[1:]: importlib.import_module(module)\n"
    code += "sys.exit('sae_lens' in sys.modules)"
    done = run_python(code, "isaerft.subjects.load", "isaerft.adapters.weights", *modules)
    assert done.returncode == 0, done.stderr


def test_power_plans_a_study(capsys):
    assert main(["power", "--odds-ratio", "1.9", "--expected-share", "0.15", "--reliability", "0.3"]) == 0
    out = capsys.readouterr().out
    assert "AUROC 0.606" in out
    assert ["3", "8", "0.580", "117", "164"] in [line.split() for line in out.splitlines()]


@pytest.mark.parametrize("given", [[], ["--auroc", "0.6", "--odds-ratio", "2"], ["--auroc", "1.5"]])
def test_power_refuses_anything_but_one_possible_effect(given, capsys):
    assert main(["power", *given]) == 2
    assert "allowed" in capsys.readouterr().err


def test_a_part_of_the_calibration_study_that_there_is_not_is_refused(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("worlds: [plain]\n")
    assert main(["calibration-part", "--config", str(tmp_path / "c.yaml"), "--part", "power-1"]) == 2
    assert "unknown part 'power-1'; allowed: " in capsys.readouterr().err
