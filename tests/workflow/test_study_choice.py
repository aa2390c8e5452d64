"""Choosing a study, and what a mistake prints."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

from tests.workflow.conftest import ROOT, Workspace


def problem(done):
    """Return the one line of an error that is printed beside the name of the profile."""
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert done.stdout == ""
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.slow
def test_every_rule_runs_under_a_path_with_blanks_quotes_and_umlauts(tmp_path):
    workspace = Workspace(tmp_path / "my work (v2)/ws's Gr\u00fc\u00dfe")
    study = "my st\u00fcdies/small.yaml"
    (workspace.folder / "my st\u00fcdies").mkdir()
    (workspace.folder / "config/small.yaml").rename(workspace.folder / study)
    done = workspace.snakemake("--cores", "2", "--configfile", study, study=None)
    assert done.returncode == 0, done.stderr
    assert (workspace.folder / "results/small/summary.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [("--config", "study=small"), ("--configfile", "config/small.yaml")])
def test_a_job_that_a_cluster_sends_to_another_snakemake_finds_its_study(workspace, chosen):
    # As the executors of queues call it there.
    job = ("--target-jobs", "behavior:behavior=refusal", "--mode", "remote", "--cores", "1", "--nolock", "--force")
    done = workspace.snakemake(*job, *chosen, study=None)
    assert done.returncode == 0, done.stderr
    assert (workspace.folder / "results/small/behaviors/refusal/card.json").is_file()


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
        (["--config", "study=smal"], ["unknown study 'smal', looked for in", "/config;", "small"]),
        (["--config", "n_seeds=5"], ["--config n_seeds=5", "study=NAME", "config/NAME.yaml"]),
        (["--config", "studdy=small"], ["--config studdy=small", "study=NAME"]),
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


@pytest.mark.parametrize("name", ["a<script>b", "{subject}", "a{b", "a\nb", "\x1b[2J"])
def test_a_file_whose_name_snakemake_takes_for_its_own_or_prints_as_it_is_is_refused(workspace, name):
    workspace.write(f"given/{name}.csv", "latent_index,explanation\n0,x\n")
    sources = {"given": {"kind": "file", "path": "given"}}
    primary = {"adapter": "bias", "measure": "contribution", "source": "given", "judge": "lexical"}
    workspace.study(sources=sources, judges={"lexical": {}}, primary=primary, scorers={})
    done = workspace.snakemake("--dry-run", "--quiet", "all")
    assert done.returncode != 0
    assert "rename the file or folder" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.slow
def test_from_elsewhere_a_study_is_looked_for_there_and_then_beside_the_workflow(workspace, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "data").symlink_to(workspace.folder / "data")
    options = ("--dry-run", "--printshellcmds", "--snakefile", str(workspace.folder / "workflow/Snakefile"))
    done = workspace.snakemake(*options, folder=elsewhere)
    relative = os.path.relpath(workspace.folder / "config/small.yaml", elsewhere)
    assert f"isaerft testbed-model --study {relative}" in done.stdout, done.stderr
    (elsewhere / "config").mkdir()
    (elsewhere / "config/small.yaml").write_text((workspace.folder / "config/small.yaml").read_text())
    assert "--study config/small.yaml" in workspace.snakemake(*options, folder=elsewhere).stdout
    line = problem(workspace.snakemake(*options, folder=elsewhere, study="none"))
    assert f"looked for in {elsewhere}/config and {workspace.folder}/config" in line


@pytest.mark.slow
def test_a_module_says_its_study_and_is_never_given_another(workspace, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "data").symlink_to(workspace.folder / "data")
    module = f'module isaerft:\n    snakefile: "{workspace.folder}/workflow/Snakefile"\n'
    (elsewhere / "Snakefile").write_text(module + '    config: {"study": "small"}\nuse rule * from isaerft\n')
    done = workspace.snakemake("--dry-run", "--printshellcmds", folder=elsewhere, study=None)
    assert "config/small.yaml --subject toy" in done.stdout, done.stderr
    (elsewhere / "Snakefile").write_text(module + '    config: {"samples": "a.tsv"}\nuse rule * from isaerft\n')
    line = problem(workspace.snakemake("--dry-run", folder=elsewhere, study=None))
    assert "the module's config names no study" in line


def with_what_verbs_need(workspace, tmp_path_factory):
    """Return another folder with the data, and with what the stand-in reads where it runs."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("data", "outputs.json", "fail.txt", "isaerft"):
        (folder / name).symlink_to(workspace.folder / name)
    return folder


@pytest.mark.slow
def test_a_module_runs_to_the_end_in_a_folder_of_its_own(workspace, tmp_path_factory):
    elsewhere = with_what_verbs_need(workspace, tmp_path_factory)
    (elsewhere / "Snakefile").write_text(
        f'module isaerft:\n    snakefile: "{workspace.folder}/workflow/Snakefile"\n'
        '    config: {"study": "small"}\nuse rule * from isaerft as isaerft_*\n'
        "rule mine:\n    default_target: True\n    input: rules.isaerft_all.input\n"
        '    output: "mine.txt"\n    shell: "touch {output}"\n'
    )
    done = workspace.snakemake("--cores", "2", folder=elsewhere, study=None)
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "results/small/summary.html").is_file()
    assert (elsewhere / "mine.txt").is_file()
    assert not (workspace.folder / "results").exists()


@pytest.mark.slow
def test_with_a_directory_results_are_written_there(workspace, tmp_path_factory):
    elsewhere = with_what_verbs_need(workspace, tmp_path_factory)
    done = workspace.snakemake("--cores", "2", "--directory", str(elsewhere))
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "results/small/summary.html").is_file()
    assert not (workspace.folder / "results").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("snakedeploy") is None, reason="snakedeploy is not installed")
def test_what_snakedeploy_writes_runs_and_takes_its_study_from_its_own_config(workspace, tmp_path_factory):
    source, project = workspace.folder, tmp_path_factory.mktemp("deployed") / "project"
    shutil.copy(ROOT / "config/config.yml", source / "config")
    command = ["snakedeploy", "deploy-workflow", str(source), str(project), "--tag", "v0.1.0", "--name", "isaerft"]
    subprocess.run(command, capture_output=True, text=True, check=True)
    snakefile = project / "workflow/Snakefile"
    # For a repository on the web this would be its address; for a folder snakedeploy names the file as if it were here.
    text = snakefile.read_text(encoding="utf-8")
    assert '"workflow/Snakefile"' in text
    snakefile.write_text(text.replace('"workflow/Snakefile"', f'"{source}/workflow/Snakefile"'), encoding="utf-8")
    (project / "data").symlink_to(source / "data")
    line = problem(workspace.snakemake("--dry-run", folder=project, study=None))
    assert "unknown study 'testbed'" in line
    (project / "config/config.yml").write_text("study: small\n", encoding="utf-8")
    done = workspace.snakemake("--dry-run", "--printshellcmds", folder=project, study=None)
    assert "isaerft testbed-model --study config/small.yaml --subject toy" in done.stdout, done.stderr
    workspace.study("other")
    shutil.copy(source / "config/other.yaml", project / "config")
    done = workspace.snakemake("--dry-run", "--printshellcmds", folder=project, study="other")
    assert "--study config/other.yaml" in done.stdout, done.stderr


@pytest.mark.slow
def test_what_a_site_profile_configures_for_other_workflows_is_left_alone(workspace):
    done = workspace.snakemake("--dry-run", "--config", "scratch=/tmp", "study=small", study=None)
    assert done.returncode == 0, done.stderr
    assert "ignored: --config scratch" in done.stderr


@pytest.mark.slow
def test_a_name_that_snakemake_reads_as_a_number_is_found(workspace):
    workspace.study("007")
    done = workspace.snakemake("--dry-run", "--printshellcmds", study="007")
    assert "--study config/007.yaml" in done.stdout, done.stderr


@pytest.mark.slow
def test_without_isaerft_on_the_path_the_one_beside_python_is_run(workspace):
    workspace.study(**{"llms": {"m": {"model": "m"}}})
    done = workspace.snakemake("--dry-run", PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr


def test_without_isaerft_anywhere_one_line_says_what_to_do(workspace, monkeypatch):
    python = workspace.folder / "elsewhere/python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    packages = os.pathsep.join([str(workspace.folder), sysconfig.get_path("purelib")])
    monkeypatch.setattr(sys, "executable", str(python))
    line = problem(workspace.snakemake("--dry-run", PATH="/usr/bin:/bin", PYTHONPATH=packages))
    assert "the rules call `isaerft`, which is neither on the PATH nor in" in line
    assert "activate the environment" in line


@pytest.mark.slow
def test_lint_and_format_have_nothing_to_say(workspace):
    workspace.study("testbed")
    done = workspace.snakemake("--lint", study=None)
    lints = re.findall(r"^    \* (.+):$", done.stderr, re.MULTILINE)
    # The rules run in the environment that runs Snakemake, whose packages are locked; none declares one of its own.
    assert set(lints) == {"Specify a conda environment or container for each rule."}, done.stderr
    command = [sys.executable, "-m", "snakefmt", "--check", "workflow", "examples"]
    done = subprocess.run(command, cwd=workspace.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
