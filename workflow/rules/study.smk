# The study that was asked for, checked as a whole before anything runs.
import os
from pathlib import Path

from isaerft.config import load_plan
from isaerft.errors import InputError


def stop(problem):
    """End with the problem in one line; an exception would print a traceback, too."""
    raise SystemExit(f"error: {' '.join(str(problem).split())}")


def study_file():
    """Return the study's file: --configfile, --config study=NAME, or the testbed."""
    given = dict(workflow.config_settings.config)
    files = workflow.config_settings.configfiles
    for key in sorted(given.keys() - {"study"}):
        stop(
            f"--config {key}={given[key]}; allowed: study=NAME; the options of a study"
            " belong in its file, config/NAME.yaml"
        )
    if len(files) + len(given) > 1:
        stop("more than one study; allowed: --configfile FILE or --config study=NAME")
    if files:
        return os.path.relpath(files[0])
    name = str(given.get("study", "testbed"))
    if name.endswith((".yaml", ".yml")):
        return os.path.relpath(name)
    if not os.path.isfile(f"config/{name}.yaml"):
        found = {path.stem for path in Path("config").glob("*.yaml")} - {"calibration"}
        known = ", ".join(sorted(found))
        stop(f"unknown study {name!r}; allowed: {known or 'none'}, or a .yaml file")
    return f"config/{name}.yaml"


def check_rules():
    """Stop where a file with rules of the user's own is missing."""
    for path in study.rules:
        if not os.path.isfile(path):
            stop(f"{STUDY}: rules: file {path!r} does not exist; check the path")


def check_behaviors():
    """Stop where a behavior is left to the user's own rules and none makes it."""
    for name, behavior in study.behaviors.items():
        card = str(plan.results.behavior(name).card)
        makers = [part.name for part in workflow.rules if part.is_producer(card)]
        if makers == ["behavior"] and behavior.rule:
            stop(
                f"{STUDY}: behavior {name!r} is left to your own rules, but none makes"
                f" {card}; name the .smk file that does under `rules` in the config"
                " (docs/add_a_behavior.md shows how)"
            )


def print_cost():
    """Print what language models will cost before anything runs, in a dry run too."""
    import subprocess

    command = ["isaerft", "cost", "--study", STUDY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout or done.stderr, end="", file=sys.stderr)


STUDY = study_file()
try:
    plan = load_plan(STUDY)
except InputError as error:
    stop(f"{STUDY}: {error}")
study = plan.study
check_rules()
