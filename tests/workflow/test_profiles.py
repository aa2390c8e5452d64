"""Profiles, and what the workflow asks of a cluster; no cluster is needed."""

import re
from pathlib import Path

import pytest
import yaml
from snakemake.cli import get_argument_parser

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "profiles").glob("*/profile.yaml"))


def parser_of(path):
    """Return Snakemake's own parser with a profile, or skip where the profile's plugin is not installed."""
    parser = get_argument_parser([str(path.parent)])
    (executors,) = [action.choices for action in parser._actions if "--executor" in action.option_strings]
    executor = yaml.safe_load(path.read_text(encoding="utf-8")).get("executor", "local")
    if executor not in executors:
        pytest.skip(f"snakemake-executor-plugin-{executor} is not installed")
    return parser


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_every_line_of_a_profile_is_an_option_of_snakemake_with_a_value_that_it_takes(path, capsys):
    options, unknown = parser_of(path).parse_known_args([])
    assert unknown == [], capsys.readouterr()
    for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        read = getattr(options, key.replace("-", "_"))
        assert read not in (None, False, [], {}, ()), key
        if isinstance(value, int) and not isinstance(value, bool):
            assert str(value) in str(read), key


def test_a_profile_groups_what_rules_group():
    written = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "workflow/rules").glob("*.smk"))
    groups = set(re.findall(r'group:\s+(?:None if ASKING else )?(?:together\()?"(\w+)"', written))
    assert len(groups) == 6
    for path in PROFILES:
        given = yaml.safe_load(path.read_text(encoding="utf-8")).get("group-components", [])
        assert {line.split("=")[0] for line in given} <= groups


@pytest.fixture
def real(workspace):
    """A workspace whose study has a model that is not embedded."""
    workspace.study_of_hub()
    return workspace


def asked(workspace, rule, *options):
    """Return what the first job of a rule asks for, as a dry run prints it."""
    done = workspace.snakemake("--dry-run", *options)
    assert done.returncode == 0, done.stderr
    return re.search(rf"^ *rule {rule}:\n(?:.*\n)*? *resources: (.*)$", done.stdout, re.MULTILINE).group(1)


@pytest.mark.slow
def test_a_job_that_failed_asks_for_more_memory_and_time(real):
    assert "runtime=480, mem_mb=24000" in asked(real, "train")
    assert "runtime=960, mem_mb=48000" in asked(real, "train", "--attempt", "2")


@pytest.mark.slow
def test_jobs_of_embedded_models_ask_for_little(workspace):
    assert "runtime=30, mem_mb=2000" in asked(workspace, "train")


@pytest.mark.slow
def test_what_asks_servers_runs_where_snakemake_runs(real):
    real.write("told.smk", 'print("local:", *sorted(workflow._localrules), file=sys.stderr)\n')
    values = yaml.safe_load((real.folder / "config/small.yaml").read_text(encoding="utf-8")) | {"rules": ["told.smk"]}
    seldom = "local: answers_page calibration figures pages summary"
    asking = {"judges": {"lexical": {}, "llm": {"llm": "m"}}, "llms": {"m": {"model": "m"}}}
    looking_up = {"sources": {"local": {}, "neuronpedia": {}}}
    for changes, expected in (
        ({}, seldom),
        (asking, "local: answers_page calibration explain figures judge pages score summary"),
        (looking_up, "local: answers_page calibration explain figures judge pages score summary"),
    ):
        real.study(**values | changes)
        done = real.snakemake("--dry-run")
        assert done.returncode == 0, done.stderr
        assert expected in done.stderr.splitlines()


TOLD_AT_THE_END = """
import atexit
atexit.register(lambda: print("limit:", workflow.scheduler.job_rate_limiter, file=sys.stderr))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("options", "limit"), [([], "None"), (["--max-jobs-per-timespan=50/1s"], "<snakemake")])
def test_jobs_of_this_machine_start_without_a_limit_per_second_unless_one_is_named(workspace, options, limit):
    workspace.write("told.smk", TOLD_AT_THE_END)
    workspace.study(rules=["told.smk"])
    done = workspace.snakemake("--cores", "1", *options, "--", "results/small/behaviors/limericks/card.json")
    assert done.returncode == 0, done.stderr
    assert f"limit: {limit}" in done.stderr
