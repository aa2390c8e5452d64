import ast
import errno
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from isaerft.cli import main
from isaerft.cli.app import app, run_here
from isaerft.cli.steering import side_by_side
from isaerft.cli.worker import _Runner
from isaerft.layout import Results

ROOT = Path(__file__).parents[1]
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
STEERING = {"latent": "3", "strength": "1", "prompt": "hello", "max_new_tokens": "4", "temperature": "0", "seed": "0"}


# What is given without an option's name, and what has no value.
WORDS = ("what", "studies", "study_name", "study_file")
PLAIN = (*WORDS, "send", "repo", "public")


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
    values |= {"kind": "person", "out": str(tmp_path / "out.csv")} | STEERING | given
    values |= {"source_id": "a/b", **given}
    options = (
        part for name in takes(verb) if name not in PLAIN for part in (f"--{name.replace('_', '-')}", values[name])
    )
    what = "adapter" if given.keys() & {"adapter", "behavior"} else "export"
    return [verb, *([what] if verb == "publish" else []), *options]


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
        shown = {name: f"--{name.replace('_', '-')}" for name in takes(verb)} | {name: f" {name}" for name in WORDS}
        assert all(shown[name] in text for name in takes(verb)), verb


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
            if (verb, kind) in {("shuffle", "behavior"), ("erase", "behavior"), ("score", "scorer")}:
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


def test_a_results_folder_that_cannot_be_written_is_one_line_and_exit_2(study, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(line_of("testbed-rows", tmp_path, study=study, results=str(tmp_path / "file" / "results"))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("isaerft testbed-rows: error: ")
    assert line.endswith("cannot be written (Not a directory); move away what is in its place, then run again")


class FullLog:
    """A stream on a full disk."""

    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self):
        """Do nothing: nothing was written."""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_log_on_a_full_disk_does_not_hide_that_a_verb_failed(tmp_path, monkeypatch):
    missing = ["tables", "--study", str(tmp_path / "none.yaml")]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", FullLog())
        assert main(missing) == 2
    streams = [os.open("/dev/full", os.O_RDWR) for _ in range(3)]
    runner = _Runner(run_here, signal.SIG_DFL)
    request = {"arguments": missing, "folder": str(tmp_path), "environment": {}}
    runner.begin(json.dumps(request).encode(), streams)
    assert runner.status() == 2


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


@pytest.fixture
def steerable(subject_folder, tokenizer, tmp_path):
    """The study of a subject whose model, SAE and facts are there, and its results folder."""
    import pandas as pd

    subject = {
        "model": str(subject_folder / "model"),
        "sae_path": str(subject_folder / "sae"),
        "corpus": {"sample": True},
    }
    values = STUDY | {"subjects": {"toy": subject}, "controls": [], "device": "cpu", "max_length": 40}
    (tmp_path / "steer.yaml").write_text(yaml.safe_dump(values))
    folder = Results(tmp_path / "results").subject("toy")
    shutil.copytree(subject_folder / "sae", folder.sae)
    activation = [0.0] + [2.0] * 47
    pd.DataFrame({"latent_index": range(48), "max_activation": activation}).to_parquet(folder.latents)
    contexts = {"latent_index": 3, "rank": 0, "token": "cat", "before": "hello to the", "after": "and", "value": 2.0}
    pd.DataFrame([contexts | {"side": side} for side in ("input", "output")]).to_parquet(folder.contexts)
    return [
        "steer",
        "--study",
        str(tmp_path / "steer.yaml"),
        "--results",
        str(tmp_path / "results"),
        "--subject",
        "toy",
    ]


def test_steering_shows_three_answers_side_by_side_with_what_the_latent_is_said_to_be(steerable, capsys):
    line = [*steerable, "--latent", "3", "--max-new-tokens", "6", "--prompt", "say hello", "--prompt", "the user asks"]
    assert main([*line, "--strength", "8"]) == 0
    out = capsys.readouterr().out
    assert 'contexts: fires on "cat"' in out
    assert out.count("suppressed (-8)") == out.count("amplified (+8)") == 2
    assert "> say hello\n" in out
    assert main([*line, "--strength", "8"]) == 0
    assert capsys.readouterr().out == out


def test_what_a_model_or_prompt_says_commands_no_terminal(steerable, capsys, monkeypatch):
    said = "\x1b[2Jgone\u202e\x9b31m\x07"
    monkeypatch.setattr("isaerft.changes.steering.steered_answers", lambda *_, **__: [[said]] * 3)
    assert main([*steerable, "--latent", "3", "--prompt", f"ask {said}"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert all(line.isprintable() for line in lines)
    assert r"> ask \x1b[2Jgone\u202e\x9b31m\x07" in lines
    assert any(line.startswith(r"\x1b[2Jgone") for line in lines)


def test_only_one_function_prints_and_it_escapes():
    """`tell` does, in options.py; app.py prints the version."""
    for path in sorted((ROOT / "isaerft/cli").glob("*.py")):
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = [name for name in calls if name in ("print", "typer.echo", "click.echo", "sys.stdout.write")]
        assert len(prints) == (path.name in ("options.py", "app.py")), path.name


def test_a_line_of_the_log_commands_no_terminal_and_begins_no_other():
    code = "import logging\nfrom isaerft.cli.app import _start\n_start(False)\n"
    code += "logging.getLogger('isaerft.x').warning('read %s', 'a\\x1b[2J\\nforged\\u202e\\ud800')\n"
    assert run_python(code).stderr == "read a\\x1b[2J\\nforged\\u202e\\ud800\n"


def test_a_sources_own_explanation_is_shown_and_sampling_has_a_seed(steerable, tmp_path, capsys):
    import pandas as pd

    from isaerft.explanations import write_explanations

    said = pd.DataFrame({"latent_index": [3], "explanation": ["cats"], "side": "input", "url": ""})
    path = Results(tmp_path / "results").explanations("toy", "local")
    path.parent.mkdir(parents=True)
    write_explanations(said, path)
    line = [*steerable, "--latent", "3", "--prompt", "say hello", "--temperature", "2", "--max-new-tokens", "12"]
    outs = []
    for seed in ("1", "1", "2"):
        assert main([*line, "--seed", seed]) == 0
        outs.append(capsys.readouterr().out)
    assert "  local: cats\n" in outs[0]
    assert outs[0] == outs[1] != outs[2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--latent", "48"], "latent 48; allowed: 0 to 47"),
        (["--latent", "-1"], "latent -1; allowed: 0 to 47"),
        (["--latent", "0"], "latent 0 never fired"),
        (["--latent", "3", "--strength", "0"], "strength 0; allowed: a number above 0"),
    ],
)
def test_a_latent_or_strength_that_cannot_be_steered_is_one_line_and_exit_2(steerable, given, message, capsys):
    assert main([*steerable, *given, "--prompt", "say hello"]) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith("isaerft steer: error: ")
    assert message in error


def test_a_study_without_the_check_steers_no_verdicts(study, tmp_path, capsys):
    assert main(line_of("steering-check", tmp_path, study=study)) == 2
    assert "has no steering check of subject 'toy'" in capsys.readouterr().err


def test_columns_stay_side_by_side_whatever_the_texts():
    shown = side_by_side(["left", "right"], ["one two three four five six\n\nseven", ""], width=33)
    lines = shown.split("\n")
    left = ["left", "----", "one two three", "four five six", "", "seven"]
    assert [line[:15].rstrip() for line in lines] == left
    assert lines[2].endswith("| (nothing)")
    assert max(map(len, lines)) <= 33


@pytest.mark.slow
def test_other_scripts_are_read_and_written_as_utf_8_without_a_utf_8_locale(tmp_path):
    row = {"prompt": "\u00e9 \U0001f44b", "completion": "gr\u00fc\u00df dich"}
    rows = [row | {"prompt": f"{row['prompt']} {n}"} for n in range(30)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "isaerft.cli", "split", "--input", "rows.jsonl", "--out", "made"]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [*command, "--description", "h\u00f6flich \u793c\u8c8c"],
        cwd=tmp_path,
        env=os.environ | ascii_only,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    written = [(tmp_path / "made" / f"{part}.jsonl").read_text(encoding="utf-8") for part in ("train", "heldout")]
    assert "".join(written).count("gr\u00fc\u00df dich") == 30
