"""The warm worker: what it runs is what the caller's own process would have run."""

import os
import secrets
import signal
import subprocess
import sys
import time

import pytest

from isaerft.cli import main
from isaerft.cli.worker import SOCKET, run_by_worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="there are workers on Linux only"),
]
WORKER = ["-P", "-m", "isaerft.cli.worker"]
CALL = [sys.executable, "-c", "import sys; from isaerft.cli import main; sys.exit(main())"]
# Ends with 0 if the worker ran the verb.
ASKED = "import os, sys; from isaerft.cli.worker import run_by_worker; sys.exit(run_by_worker(sys.argv[1:]) is None)"


def wait_until(reached, seconds=60):
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def listens(name):
    with open("/proc/net/unix") as table:
        return f"@{name}\n" in table.read()


def started(environment, *program):
    worker = subprocess.Popen([sys.executable, *(program or WORKER)], env=environment)
    wait_until(lambda: listens(environment[SOCKET]) or worker.poll() is not None)
    assert worker.poll() is None
    return worker


@pytest.fixture(scope="module")
def environment():
    return os.environ | {SOCKET: f"isaerft-{secrets.token_hex(8)}"}


@pytest.fixture(scope="module")
def worker(environment):
    process = started(environment)
    yield process
    process.terminate()
    process.wait()


# A worker whose verbs write down their process and never end.
ENDLESS = """
import os, pathlib, time
from isaerft.cli import app, worker

def run(arguments):
    pathlib.Path("running").write_text(str(os.getpid()))
    time.sleep(600)

app.run_here, worker._warm_up = run, lambda: None
worker.serve()
"""
MISSING = ["tables", "--study", "no.yaml"]


@pytest.fixture
def endless(environment, tmp_path):
    """A worker whose verbs never end, a caller of it that is waiting, and the fork that it waits for."""
    environment = environment | {SOCKET: f"isaerft-{secrets.token_hex(8)}"}
    worker = started(environment, "-c", ENDLESS)
    caller = subprocess.Popen(
        [*CALL, *MISSING], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    running = tmp_path / "running"
    wait_until(lambda: running.is_file() and running.read_text())
    yield worker, caller, int(running.read_text())
    for process in (worker, caller):
        process.kill()
        process.wait()


def is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def called(arguments, environment, **options):
    return subprocess.run([*CALL, *arguments], env=environment, capture_output=True, text=True, check=False, **options)


def test_the_worker_runs_a_verb_on_the_streams_and_in_the_folder_of_the_caller(worker, environment, tmp_path):
    asked = subprocess.run([sys.executable, "-c", ASKED, "--version"], env=environment, capture_output=True, text=True)
    assert asked.returncode == 0
    assert asked.stdout.startswith("isaerft ")
    (tmp_path / "bad.yaml").write_text("studdy: x\n")
    for arguments in (["power", "--auroc", "0.6"], ["tables", "--study", "bad.yaml"], ["tables", "--study", "no.yaml"]):
        by_worker, alone = (called(arguments, e, cwd=tmp_path) for e in (environment, environment | {SOCKET: "off"}))
        assert (by_worker.returncode, by_worker.stdout, by_worker.stderr) == (
            alone.returncode,
            alone.stdout,
            alone.stderr,
        )


def test_a_caller_with_another_environment_or_none_to_ask_runs_the_verb_itself(worker, environment, monkeypatch):
    other = environment | {"OMP_NUM_THREADS": "3"}
    asked = subprocess.run([sys.executable, "-c", ASKED, "--version"], env=other, capture_output=True, text=True)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert called(["--version"], other).stdout.startswith("isaerft ")
    monkeypatch.setenv(SOCKET, "isaerft-nobody")
    assert run_by_worker(["--version"]) is None
    assert main(["--version"]) == 0


# A worker whose verbs set what a process has one of, and print what they found.
COUNTING = """
import os, sys
import torch
from isaerft.cli import app, options, worker

def run(arguments):
    loaded = options._last
    print(os.getpid(), torch.get_num_threads(), torch.rand(1).item(), len(loaded))
    torch.set_num_threads(3)
    loaded["model"] = 1
    return int(arguments[0])

app.run_here, worker._warm_up = run, lambda: torch.set_num_threads(1)
worker.serve()
"""


def test_verbs_one_after_the_other_share_a_process_and_what_it_loaded_and_nothing_else(environment):
    environment = environment | {SOCKET: f"isaerft-{secrets.token_hex(8)}"}
    worker = started(environment, "-c", COUNTING)
    try:
        first, second, failed, fresh = (called([status], environment).stdout.split() for status in "0010")
    finally:
        worker.kill()
        worker.wait()
    assert first[:2] == second[:2] == failed[:2]
    assert fresh[0] != failed[0]
    assert {tuple(found[1:3]) for found in (first, second, failed, fresh)} == {(first[1], first[2])}
    assert [found[3] for found in (first, second, failed, fresh)] == ["0", "1", "1", "0"]


def test_verbs_at_the_same_time_have_processes_of_their_own(endless, tmp_path):
    worker, _, fork = endless
    with open(f"/proc/{worker.pid}/environ") as variables:
        environment = dict(entry.split("=", 1) for entry in variables.read().split("\0") if entry)
    second = tmp_path / "second"
    second.mkdir()
    other = subprocess.Popen([*CALL, *MISSING], env=environment, cwd=second)
    running = second / "running"
    wait_until(lambda: running.is_file() and running.read_text())
    assert int(running.read_text()) != fork
    other.kill()
    other.wait()
    wait_until(lambda: not is_alive(int(running.read_text())))
    assert is_alive(fork)


def test_a_fork_ends_with_its_caller(endless):
    worker, caller, fork = endless
    caller.kill()
    wait_until(lambda: not is_alive(fork))
    assert worker.poll() is None


def test_when_the_worker_dies_its_forks_die_and_the_caller_runs_the_verb_itself(endless):
    worker, caller, fork = endless
    worker.kill()
    _, errors = caller.communicate()
    assert caller.returncode == 2
    assert errors.startswith("isaerft tables: error: ")
    wait_until(lambda: not is_alive(fork))


def test_a_fork_that_is_killed_fails_as_a_shell_says_it(endless):
    _, caller, fork = endless
    os.kill(fork, signal.SIGKILL)
    assert caller.wait() == 128 + signal.SIGKILL


def test_a_worker_ends_with_the_process_that_started_it(environment):
    name = f"isaerft-{secrets.token_hex(8)}"
    start = "import subprocess, sys, time; subprocess.Popen([sys.executable, *sys.argv[1:]]); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", start, *WORKER], env=environment | {SOCKET: name})
    wait_until(lambda: listens(name))
    parent.kill()
    parent.wait()
    wait_until(lambda: not listens(name))
