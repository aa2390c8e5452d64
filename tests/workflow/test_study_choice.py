"""Choosing a study, and what a mistake prints."""

import subprocess
import sys

import pytest


def problem(done):
    """Return the one line of an error that is printed beside the name of the profile."""
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert done.stdout == ""
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.slow
def test_configfile_means_that_file_and_never_mixes_it_with_the_default_study(workspace):
    behaviors = {"other": {"description": "d", "path": "data/limericks.jsonl"}}
    workspace.study("testbed", behaviors=behaviors, controls=[])
    options = ("--dry-run", "--printshellcmds")
    plan = workspace.snakemake(*options, "--configfile", "config/small.yaml", study=None).stdout
    assert "isaerft testbed-model --study config/small.yaml --subject toy" in plan
    assert "behavior=other" not in plan
    assert "behavior=other" in workspace.snakemake(*options, study=None).stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config", "study=smal"], ["unknown study 'smal'", "small"]),
        (["--config", "n_seeds=5"], ["--config n_seeds=5", "study=NAME", "config/NAME.yaml"]),
        (["--config", "study=small", "--configfile", "config/small.yaml"], ["more than one study"]),
    ],
)
def test_a_wrong_choice_is_refused_in_one_line(workspace, arguments, expected):
    line = problem(workspace.snakemake("--dry-run", *arguments, study=None))
    for text in expected:
        assert text in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n_seed": 5}, ["config/small.yaml", "n_seed", "n_seeds"]),
        ({"rules": ["my.smk"]}, ["'my.smk' does not exist"]),
        ({"behaviors": {"a": {"description": "d", "rule": True}}, "controls": []}, ["'a'", "rules", "a/card.json"]),
    ],
)
def test_a_mistake_in_the_config_is_one_line_before_anything_runs(workspace, changes, expected):
    workspace.study(**changes)
    line = problem(workspace.snakemake("--cores", "1"))
    for text in expected:
        assert text in line


def test_lint_and_format_have_nothing_to_say(workspace):
    workspace.study("testbed")
    done = workspace.snakemake("--lint", study=None)
    assert done.returncode == 0, done.stdout + done.stderr
    command = [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "workflow", "examples"]
    done = subprocess.run(command, cwd=workspace.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
