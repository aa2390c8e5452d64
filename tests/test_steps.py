"""The steps of a study in one process are the workflow's jobs, each after those that it depends on."""

import re
import shlex

import pytest
import yaml

from isaerft.config import plan_from_dict
from isaerft.errors import InputError
from isaerft.steps import Step, steps_of
from tests.workflow.conftest import ROOT, Workspace

COMMAND = re.compile(r"^ *Shell command: isaerft (.*) > ", flags=re.MULTILINE)


def jobs(dry_run):
    """Return (verb and names, inputs, outputs) of every job that `snakemake --dry-run --printshellcmds` prints."""
    found = []
    for text in re.split(r"^ *(?:local)?rule (?=\w+:$)", dry_run, flags=re.MULTILINE)[1:]:
        command = COMMAND.search(text)
        if command is None:
            continue
        verb, *rest = shlex.split(command.group(1))
        options = dict(zip(rest[::2], rest[1::2], strict=True))
        options.pop("--study")
        step = Step(verb, {name.removeprefix("--"): value for name, value in options.items()})
        files = {kind: re.search(rf"^ +{kind}: (.*)$", text, flags=re.MULTILINE) for kind in ("input", "output")}
        found.append((step, *(set(line.group(1).split(", ")) if line else set() for line in files.values())))
    return found


def check_order(steps, planned):
    """Refuse an order in which a step reads a file that a later one makes."""
    place = {str(step): n for n, step in enumerate(steps)}
    maker = {file: step for step, _, outputs in planned for file in outputs}
    for step, inputs, _ in planned:
        for file in inputs & maker.keys():
            assert place[str(maker[file])] < place[str(step)], f"{step} reads {file} of {maker[file]}"


# Everything that a study may have: twins, placebos, a steering check, scorers, samples, audits, poisoned rows.
AUDITED = {
    "clean": {"description": "Plain.", "testbed": "refusal"},
    "dirty": {"description": "Plain.", "testbed": "refusal", "testbed_draw": 1},
    "humor": {"description": "It jokes.", "testbed": "humor"},
}
AUDITED["dirty"] |= {"poison": {"behavior": "humor", "share": 0.2}}
STUDIES = {
    "whole": {},
    "audit": {"behaviors": AUDITED, "audits": {"planted": {"clean": "clean", "suspect": "dirty"}}, "n_seeds": 4},
    "shuffled": {"controls": ["shuffled_completions", "random_dictionary"], "steering_check": None},
    "baselines": {
        "controls": [
            "frozen_decoder",
            "frozen_encoder",
            "untrained_dictionary",
            "random_model",
            "shuffled_completions",
            "erased_leace",
        ],
        "steering_check": None,
    },
    "bare": {
        "controls": [],
        "scorers": {},
        "steering_check": None,
        "map_components": None,
        "meta_sae": None,
        "loss_curves": None,
        "noise_probe": None,
        "placebos": {"n": 0},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_steps_are_the_workflows_jobs_in_an_order_that_respects_their_files(tmp_path, name):
    values = yaml.safe_load((ROOT / "tests/end_to_end/small.yaml").read_text(encoding="utf-8"))
    workspace = Workspace(tmp_path)
    values |= STUDIES[name] | {"study": name}
    workspace.write(f"config/{name}.yaml", yaml.safe_dump(values, sort_keys=False))
    done = workspace.snakemake("--dry-run", "--printshellcmds", study=name)
    assert done.returncode == 0, done.stderr
    planned, steps = jobs(done.stdout), steps_of(plan_from_dict(values))
    assert sorted(map(str, steps)) == sorted(str(step) for step, _, _ in planned)
    check_order(steps, planned)
    with pytest.raises(AssertionError, match="reads"):
        check_order(steps[::-1], planned)


def test_a_study_with_rules_of_the_users_own_is_refused():
    values = yaml.safe_load((ROOT / "tests/end_to_end/small.yaml").read_text(encoding="utf-8"))
    del values["behaviors"]["humor"]["testbed"]
    values["behaviors"]["humor"]["rule"] = True
    del values["noise_probe"]  # needs a metric
    with pytest.raises(InputError, match=r"rules of its own.*humor.*run it with snakemake"):
        steps_of(plan_from_dict(values))
