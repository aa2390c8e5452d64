"""A real SLURM of one node runs the workflow: what is killed is submitted again, and the results are the same bytes."""

import os
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cluster import slurm
from tests.end_to_end.test_small_study import run_study

# The executor asks for the state of jobs every 40 seconds, and asks a data base that is not set up here.
QUICK = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5", "--slurm-no-account")
PROFILE = ("--workflow-profile", "profiles/slurm", "--cores", "4", *QUICK)
# Made anew by every run: what it took, and what it said.
UNLIKE = {"benchmarks", "logs"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(slurm.missing()), reason=f"not installed: {', '.join(slurm.missing())} (packages slurm-wlm and munge)"
    ),
    pytest.mark.skipif(
        find_spec("snakemake_executor_plugin_slurm") is None, reason="snakemake-executor-plugin-slurm is not installed"
    ),
]


class Cluster:
    """A running SLURM, and its jobs."""

    def __init__(self, folder):
        self.finished = threading.Event()
        self.folder, self.path = folder, f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def call(self, command, *arguments):
        done = subprocess.run(
            [self.folder / "bin" / command, *arguments], capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def jobs(self):
        """Return state, restarts and rule or group of every job so far, by number."""
        lines = self.call("squeue", "--states=all", "--noheader", "--Format=JobID:|,State:|,RestartCnt:|,Comment:200")
        rows = [[cell.strip() for cell in line.split("|")] for line in lines.splitlines()]
        return {number: (state, int(restarts), comment) for number, state, restarts, comment in rows}

    def when_running(self, rule, act):
        """Do something to the first job of a rule or group that runs, and return its number."""
        while not self.finished.wait(0.5):
            for number, (state, _, comment) in self.jobs().items():
                if state == "RUNNING" and comment.startswith(f"rule_{rule}"):
                    time.sleep(5)
                    self.call(*act, number)
                    return number
        raise LookupError(f"no job of {rule} was seen to run")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    slurm.start(folder, cpus=4, memory=64_000)
    yield Cluster(folder)
    slurm.stop(folder)


def files(results):
    """Return the contents of all files of a study that do not tell of the run itself."""
    paths = [path.relative_to(results) for path in results.rglob("*") if path.is_file()]
    return {
        str(path): (results / path).read_bytes() for path in paths if path.parts[0] not in UNLIKE | {".checksums.jsonl"}
    }


def test_a_study_with_a_killed_and_a_requeued_job_has_the_bytes_of_one_on_this_machine(cluster, tmp_path):
    hit = {}

    def strike():
        hit["requeued"] = cluster.when_running("world", ("scontrol", "requeue"))
        hit["killed"] = cluster.when_running("training", ("scancel",))

    striker = threading.Thread(target=strike)
    striker.start()
    (tmp_path / "cluster").mkdir()
    try:
        results = run_study(tmp_path / "cluster", options=PROFILE, PATH=cluster.path)
    finally:
        cluster.finished.set()
        striker.join(10)
    jobs = cluster.jobs()
    assert jobs[hit["requeued"]][:2] == ("COMPLETED", 1)
    assert jobs[hit["killed"]][0] == "CANCELLED"
    others = [state for number, (state, *_) in jobs.items() if number != hit["killed"]]
    assert set(others) == {"COMPLETED"}
    assert len(jobs) <= 20, "the jobs of the study, most of which take a second, are submitted together"
    (tmp_path / "here").mkdir()
    here, there = files(run_study(tmp_path / "here")), files(results)
    assert set(here) == set(there)
    assert [name for name in here if here[name] != there[name]] == []


def test_a_job_gets_the_processors_memory_and_gpus_that_its_rule_states(cluster, tmp_path):
    (tmp_path / "Snakefile").write_text(
        'rule one:\n    output: "one.txt"\n    threads: 2\n    resources: gpu=1, mem_mb=300, runtime=7\n'
        '    shell: "scontrol show job $SLURM_JOB_ID > {output}"\n'
    )
    command = [sys.executable, "-m", "snakemake", "--executor", "slurm", "--jobs", "1", *QUICK]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PATH": cluster.path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "one.txt").read_text()
    for fact in ("NumCPUs=2", "TimeLimit=00:07:00", "mem=300M", "gres:gpu:1" if "gres:gpu" in told else "gpu=1"):
        assert fact in told, told
