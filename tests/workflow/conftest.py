import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from isaerft.analysis import tables_of
from isaerft.config import plan_from_dict
from isaerft.errors import InputError
from isaerft.report import figures_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PARTS = ("workflow", "profiles", "examples", "data/limericks.jsonl", "isaerft", "environment.yml")


HUB = {"model": "a/b", "release": "r", "sae_id": "s", "corpus": {"sample": True}}


class Workspace:
    """A copy of the workflow and the package in a folder of its own, where a stand-in makes every verb's outputs."""

    def __init__(self, folder):
        self.folder, self.outputs = folder, {}
        for name in PARTS:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            options = {"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy(source, folder / name, **options)
        self.write("fail.txt", "")
        self.write("bin/isaerft", f'#!/bin/sh\nexec "{sys.executable}" -S -E "{HERE / "fake_isaerft.py"}" "$@"\n')
        (folder / "bin/isaerft").chmod(0o755)
        self.study()

    def write(self, path, text):
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text, encoding="utf-8")

    def study(self, name="small", **changes):
        """Write config/{name}.yaml: the test's study with these top-level sections replaced."""
        values = yaml.safe_load((HERE / "study.yaml").read_text(encoding="utf-8")) | {"study": name} | changes
        self.write(f"config/{name}.yaml", yaml.safe_dump(values, sort_keys=False))
        with contextlib.chdir(self.folder), contextlib.suppress(InputError):
            plan = plan_from_dict(values)
            self.outputs[name] = {"tables": tables_of(plan), "figures": figures_of(plan)}
        self.write("outputs.json", json.dumps(self.outputs))
        return values

    def study_of_hub(self, subject=HUB, judge="lexical", **changes):
        """Write the study with one model that is not embedded, `hub`, one behavior, one source and one judge."""
        values = self.study()
        return self.study(
            subjects={"hub": subject},
            behaviors={"limericks": values["behaviors"]["limericks"]},
            sources={"local": {}},
            primary=values["primary"] | {"source": "local", "judge": judge},
            **{"judges": {judge: {}}, "controls": []} | changes,
        )

    def snakemake(self, *arguments, study="small", real=False, folder=None, **environment):
        """Run Snakemake here or in a folder; `real` runs the package's own command line in place of the stand-in."""
        chosen = ["--config", f"study={study}"] if study else []
        command = [sys.executable, "-m", "snakemake", *chosen, *arguments]
        path = os.pathsep.join([*([] if real else [str(self.folder / "bin")]), str(Path(sys.executable).parent)])
        own = {"PATH": os.pathsep.join([path, os.environ["PATH"]]), "PYTHONPATH": str(self.folder)}
        own["ISAERFT_WORKER"] = "off"
        return subprocess.run(
            command,
            cwd=folder or self.folder,
            env=os.environ | own | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def planned(self, *arguments, **options):
        """Return how many jobs of each rule a dry run plans."""
        done = self.snakemake("--dry-run", *arguments, **options)
        assert done.returncode == 0, done.stderr
        self.plan = done.stdout
        table = re.search(r"^-+ +-+\n(.*?)^total ", done.stdout, flags=re.MULTILINE | re.DOTALL)
        rows = [line.split() for line in table.group(1).splitlines()] if table else []
        return {name: int(count) for name, count in rows}

    def inputs(self, rule, target):
        """Return the inputs of the last job of a rule that a dry run plans for a target."""
        done = self.snakemake("--dry-run", "--", target)
        assert done.returncode == 0, done.stderr
        jobs = re.split(r"^ *(?:local)?rule (?=\w+:$)", done.stdout, flags=re.MULTILINE)
        (found,) = [job for job in jobs if job.startswith(f"{rule}:") and target in job.partition("log:")[0]]
        return re.search(r"input: (.*?)$", found, flags=re.MULTILINE).group(1)

    def calls(self):
        """Return the command lines that the stand-in was called with."""
        return [line.split("\t") for line in (self.folder / "calls.txt").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A workspace in which the small study has run; tests must leave it as they found it."""
    workspace = Workspace(tmp_path_factory.mktemp("finished"))
    done = workspace.snakemake("--cores", "2")
    assert done.returncode == 0, done.stderr
    workspace.log = done.stderr
    return workspace
