# The study that was asked for, checked as a whole before anything runs.
import os
import shutil
import sys
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path

from isaerft.config import Study, load_plan
from isaerft.errors import InputError
from isaerft.ledger import damaged


def stop(problem):
    """End with the problem in one line; an exception would print a traceback, too."""
    raise SystemExit(f"error: {' '.join(str(problem).split())}")


def study_file():
    """Return the study's file: --configfile, --config study=NAME, a module's config, or the testbed."""
    if not workflow.modifier.is_main_snakefile():
        if "study" not in config:
            stop(
                "the module's config names no study; allowed:"
                ' config: {"study": NAME} or {"study": "path/to/file.yaml"}'
            )
        return file_of(config["study"])
    given = dict(workflow.config_settings.config)
    files = workflow.config_settings.configfiles
    others = sorted(given.keys() - {"study"})
    for key in others:
        near = get_close_matches(key, ["study", *OPTIONS], 1, 0.8)
        if near:
            stop(
                f"--config {key}={given[key]}; allowed: study=NAME; the options of a study"
                " belong in its file, config/NAME.yaml"
            )
    if others and workflow.is_main_process:
        print(f"ignored: --config {', '.join(others)}", file=sys.stderr)
    if files and "study" in given:
        stop("more than one study; allowed: --configfile FILE or --config study=NAME")
    if len(files) > 1:
        stop("more than one study; allowed: one --configfile")
    if files:
        return os.path.relpath(files[0])
    return file_of(given.get("study", "testbed"))


def file_of(study):
    """Return the file of a study by name, here or of the workflow's own, or a file as it is."""
    if str(study).endswith((".yaml", ".yml")):
        return os.path.relpath(str(study))
    own = Path(str(workflow.current_basedir), "..", "..", "config").resolve()
    folders = list(dict.fromkeys([Path("config").resolve(), own]))
    found = [path for folder in folders for path in sorted(folder.glob("*.yaml"))]
    # Snakemake reads 007 as a number, so a name that is not text is compared as Snakemake would read it.
    alike = [path for path in found if path.stem == str(study)]
    if not isinstance(study, str):
        alike += [path for path in found if as_number(path.stem) == study]
    if not alike:
        known = ", ".join(sorted({path.stem for path in found} - {"calibration"}))
        looked = " and ".join(map(str, folders))
        stop(
            f"unknown study {str(study)!r}, looked for in {looked};"
            f" allowed: {known or 'none'}, or a .yaml file"
        )
    return os.path.relpath(alike[0])


def as_number(text):
    """Return the number that a text stands for, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def study_path(wildcards, input):
    """Return the study's file. Snakemake compares no param that is made from the input: a moved file reruns nothing."""
    return STUDY


def find_command():
    """Make sure that rules find `isaerft`: on the PATH, or else beside the Python that runs Snakemake."""
    if shutil.which("isaerft"):
        return
    beside = os.path.dirname(sys.executable)
    if not shutil.which("isaerft", path=beside):
        stop(
            f"the rules call `isaerft`, which is neither on the PATH nor in {beside};"
            " activate the environment in which it is installed"
        )
    os.environ.update(PATH=os.pathsep.join([os.getenv("PATH", ""), beside]))


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


def check_files():
    """Stop where a finished file has another size than it was written with, as after a power loss."""
    found = damaged(plan.results.root, contents=False)
    if found:
        stop(
            f"{found[0].why}{f', and {len(found) - 1} more like it' if len(found) > 1 else ''};"
            f" remove what is damaged with `isaerft verify --study {STUDY}`, then run again"
        )


OPTIONS = [option.name for option in fields(Study)]
find_command()
STUDY = study_file()
try:
    plan = load_plan(STUDY)
except InputError as error:
    stop(f"{STUDY}: {error}")
study = plan.study
check_rules()
if workflow.is_main_process:
    # Not where a job of its own reads this, while others write.
    check_files()
