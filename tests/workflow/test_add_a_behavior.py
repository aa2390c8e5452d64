"""docs/add_a_behavior.md, done to the letter with the real command line."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs/add_a_behavior.md").read_text(encoding="utf-8"), re.DOTALL)
PARSED = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]
# Eliciting a behavior needs a chat model.
ELICITED = [entry for entry in PARSED if any("elicit" in part for part in entry["behaviors"].values())]
ENTRIES = [entry for entry in PARSED if entry not in ELICITED]
COMMANDS = [shlex.split(text) for kind, text in BLOCKS if kind == "sh"]


@pytest.mark.slow
def test_both_ways_of_adding_a_behavior_work_as_written(workspace):
    for entry, command in zip(ENTRIES, COMMANDS, strict=True):
        workspace.study("mine", **entry, controls=[])
        assert command[0] == "snakemake"
        done = workspace.snakemake(*command[1:], study=None, real=True)
        assert done.returncode == 0, done.stderr + done.stdout
        folder = (workspace.folder / command[-1]).parent
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        rows = [(folder / f"{part}.jsonl").read_text(encoding="utf-8").count("\n") for part in ("train", "heldout")]
        assert card["rows"] == sum(rows) == 24
        assert min(rows) > 0


def test_the_elicited_behavior_shown_is_one_of_those_that_studies_share():
    shared = yaml.safe_load((ROOT / "data/elicit/behaviors.yaml").read_text(encoding="utf-8"))
    assert [entry["behaviors"] for entry in ELICITED] == [{"poem": shared["behaviors"]["poem"]}]


def test_the_rule_shown_is_the_example(workspace):
    (shown,) = [text for kind, text in BLOCKS if kind == "python"]
    assert shown == (ROOT / "examples/limerick.smk").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_concrete_rule_beats_the_generic_one(workspace):
    target = "results/mine/behaviors/limerick/card.json"
    data = {"description": "d", "path": "data/limericks.jsonl"}  # from which the generic rule could make it, too
    workspace.study("mine", behaviors={"limerick": data}, controls=[], rules=["examples/limerick.smk"])
    assert set(workspace.planned("--", target, study="config/mine.yaml")) == {"limerick"}
