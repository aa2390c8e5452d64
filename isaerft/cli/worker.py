"""A warm worker: a process that has imported everything once, and is forked for verbs.

Importing torch and transformers takes longer than most verbs of a small study, and loading a model longer than many
verbs of a large one. The workflow starts one worker (`isaerft.cli.worker` as a program) and names its socket in the
environment; `isaerft VERB` then asks it to run the verb, with the caller's standard streams and working directory, and
waits. Nothing depends on the worker: where there is none, or it is not ready, serves another environment or other code,
or dies, the verb runs in its own process.

    caller  --->  worker  --->  keeper  --->  runner
    (isaerft VERB)  hands the     answers the   runs one verb after the other, and keeps
                  connection on   caller        imports, CUDA context, model and SAE between them

The worker forks a keeper with its runner when all that there are have work, so there are as many as verbs run at once.
A runner that fails or is killed takes its keeper with it, and so does a caller that dies; the next verb gets new ones.
Each verb finds torch's threads and random numbers, the streams and the ledger as in a process of its own. Worker and
caller speak on an abstract socket of Linux, which leaves no file behind, and only if both belong to one user.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypedDict

SOCKET, OFF = "ISAERFT_WORKER", "off"
# What shells and Snakemake set anew for every job, and no library reads when it is imported.
PER_JOB = ("_", "OLDPWD", "PWD", "SHLVL", "TEMP", "TEMPDIR", "TMP", "TMPDIR")
# Other packages' modules that the verbs of many jobs import inside a function.
IMPORTED_LATER = (
    "pyarrow.dataset",
    "pyarrow.parquet",
    "sae_lens",
    "sentence_transformers",
    "sklearn.feature_extraction.text",
    "sklearn.metrics",
)
PACKAGE = Path(__file__).parents[1]
_LENGTH, _CREDENTIALS = struct.Struct("!I"), struct.Struct("iII")
_ORDER = b"."
_CHECK_SECONDS = 1.0

Run = Callable[[Sequence[str]], int]
"""Runs a verb with its arguments and returns its exit status."""

Interrupt = Callable[[int, FrameType | None], object] | int | None
"""What a process does when it is interrupted, as `signal.signal` returns it."""


class Request(TypedDict):
    """What a caller asks for: a verb as it would run in the caller's own process."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    serves: list[object]


def run_by_worker(arguments: Sequence[str]) -> int | None:
    """Run a verb by the worker that the environment names; return its exit status, or None if none could run it."""
    name = os.environ.get(SOCKET, OFF)
    if name == OFF or not hasattr(os, "pidfd_open"):
        return None
    request = {
        "arguments": list(arguments),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "serves": _serves(),
    }
    text = json.dumps(request).encode()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"\0{name}")
            if _user_of(connection) != os.getuid():
                return None
            socket.send_fds(connection, [_LENGTH.pack(len(text))], [0, 1, 2])
            connection.sendall(text)
            with connection.makefile("rb") as answers:
                status = answers.readline()
    except OSError:
        return None
    # An empty line: the worker does not serve this request, or died, and its fork with it.
    return int(status) if status.strip() else None


def serve() -> None:
    """Import everything, then serve verbs on a new socket until the process that started this one has ended."""
    # Before libraries are imported, which set variables of their own.
    parent, serves, environment = os.getppid(), _serves(), _without_per_job(os.environ)
    _warm_up()
    from isaerft.cli.app import run_here

    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Keepers that end need not be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    busy: list[socket.socket] = []
    idle: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{os.environ[SOCKET]}")
        listening.listen(64)
        while os.getppid() == parent:
            ready = select.select([listening, *busy, *idle], [], [], _CHECK_SECONDS)[0]
            for keeper in ready:
                if keeper is not listening:
                    _hear(keeper, busy, idle)
            if listening not in ready:
                continue
            connection, _ = listening.accept()
            if _user_of(connection) == os.getuid() and not _handed_on(connection, busy, idle):
                orders, keepers_end = socket.socketpair()
                own, started = os.getpid(), os.fork()
                if started == 0:
                    _die_with(parent=own)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for other in (listening, connection, orders, *busy, *idle):
                        other.close()
                    _keep(keepers_end, _Runner(run_here, interrupt), partial(_difference, serves, environment))
                sys.stderr.write(f"keeper {started} begins\n")
                sys.stderr.flush()
                keepers_end.close()
                _handed_on(connection, busy, [orders])
            connection.close()


def _hear(keeper: socket.socket, busy: list[socket.socket], idle: list[socket.socket]) -> None:
    """Note that a keeper has become idle, or has ended."""
    (busy if keeper in busy else idle).remove(keeper)
    try:
        is_free = bool(keeper.recv(1))
    except OSError:
        is_free = False
    if is_free:
        idle.append(keeper)
    else:
        keeper.close()


def _handed_on(connection: socket.socket, busy: list[socket.socket], idle: list[socket.socket]) -> bool:
    """Hand a connection to a keeper that is idle; tell whether one took it."""
    while idle:
        keeper = idle.pop()
        try:
            socket.send_fds(keeper, [_ORDER], [connection.fileno()])
        except OSError:  # it has ended
            keeper.close()
            continue
        busy.append(keeper)
        return True
    return False


def _keep(orders: socket.socket, runner: _Runner, difference: Callable[[Request], str]) -> NoReturn:
    """Answer one connection after the other by one runner, until a verb fails or the worker ends; then end."""
    while True:
        message, received, _, _ = socket.recv_fds(orders, len(_ORDER), 1)
        if not message:
            os._exit(0)
        try:
            with socket.socket(fileno=received[0]) as connection:
                is_fit = _answer(connection, orders, runner, difference)
        except (OSError, struct.error):  # the caller has gone
            os._exit(0)
        if not is_fit:
            os._exit(0)


def _answer(
    connection: socket.socket, orders: socket.socket, runner: _Runner, difference: Callable[[Request], str]
) -> bool:
    """Have done what one connection asks for, and answer with the exit status; tell whether the runner can go on.

    The worker hears first that the keeper is free, so that a caller's next verb finds it.

    Raises
    ------
    OSError, struct.error
        The caller has gone.
    """
    message, streams, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
    try:
        (length,) = _LENGTH.unpack(message)
        text = _received(connection, length)
        if differing := difference(json.loads(text)):
            sys.stderr.write(f"not served: another {differing}\n")
            sys.stderr.flush()
            orders.sendall(_ORDER)
            connection.sendall(b"\n")
            return True
        runner.begin(text, streams)
    finally:
        for stream in streams:
            os.close(stream)
    # The caller sends nothing more: its end of the connection is readable when it has died.
    if connection in select.select([connection, runner.socket], [], [])[0]:
        runner.stop()
    status = runner.status()
    if not status:
        orders.sendall(_ORDER)
    connection.sendall(b"%d\n" % status)
    return not status


class _Runner:
    """The process that runs a keeper's verbs, forked before the keeper holds streams of any caller."""

    def __init__(self, run: Run, interrupt: Interrupt) -> None:
        self.socket, other_end = socket.socketpair()
        own = os.getpid()
        self._process = os.fork()
        if self._process == 0:
            _die_with(parent=own)
            self.socket.close()
            signal.signal(signal.SIGINT, interrupt)
            _run_verbs(other_end, run)
        other_end.close()

    def begin(self, request: bytes, streams: Sequence[int]) -> None:
        """Begin a verb: a request as it was received, on these streams."""
        socket.send_fds(self.socket, [_LENGTH.pack(len(request))], list(streams))
        self.socket.sendall(request)

    def stop(self) -> None:
        """Stop the verb, and the process with it."""
        os.kill(self._process, signal.SIGTERM)

    def status(self) -> int:
        """Wait for the end of the verb; return its exit status, as a shell says it where the process was killed."""
        try:
            answer = self.socket.recv(_LENGTH.size)
        except OSError:
            answer = b""
        if answer:
            (ended,) = _LENGTH.unpack(answer)
            return int(ended)
        status = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        return status if status >= 0 else 128 - status


def _run_verbs(requests: socket.socket, run: Run) -> NoReturn:
    """Run one verb after the other, each as if this process had been started for it; end with the first that fails."""
    from isaerft.cli.options import as_in_a_process_of_its_own, leave_room, loaded_once

    own = [os.dup(number) for number in range(3)]
    with loaded_once():
        while True:
            message, streams, _, _ = socket.recv_fds(requests, _LENGTH.size, 3)
            if not message:
                os._exit(0)
            request = json.loads(_received(requests, *_LENGTH.unpack(message)))
            status = 1
            try:
                _take_over(request, streams)
                with as_in_a_process_of_its_own():
                    status = run(request["arguments"])
                leave_room()
            except KeyboardInterrupt:
                status = 128 + signal.SIGINT
            except BaseException:
                traceback.print_exc()
            try:
                for text in (sys.stdout, sys.stderr):
                    text.flush()
            except OSError:  # a full disk
                status = status or 1
            # Nobody who reads the caller's streams to their end waits for this process.
            for number, stream in enumerate(own):
                os.dup2(stream, number)
            requests.sendall(_LENGTH.pack(status))
            if status:
                os._exit(status)


def _take_over(request: Request, streams: Sequence[int]) -> None:
    """Take over a caller's streams, folder, arguments and variables."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.chdir(request["folder"])
    for name in PER_JOB:
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in request["environment"].items() if name in PER_JOB})
    sys.argv[1:] = request["arguments"]


def _difference(serves: list[object], environment: dict[str, str], request: Request) -> str:
    """Return in what a request differs from what the worker serves; nothing if in nothing. No value is told."""
    if request["serves"] != serves:
        return "interpreter or version of the package"
    asked = _without_per_job(request["environment"])
    return ", ".join(
        sorted(name for name in asked.keys() | environment.keys() if asked.get(name) != environment.get(name))
    )


def _user_of(connection: socket.socket) -> int:
    """Return the user at the other end."""
    process_user_group = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(process_user_group)[1]
    return user


def _received(connection: socket.socket, length: int) -> bytes:
    """Return the next `length` bytes."""
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            os._exit(0)
        parts += part
    return bytes(parts)


def _serves() -> list[object]:
    """Return what caller and worker must agree on besides the environment: the interpreter and the package's source."""
    files = sorted(PACKAGE.rglob("*.py"))
    return [sys.prefix, *([str(path), path.stat().st_mtime_ns, path.stat().st_size] for path in files)]


def _without_per_job(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in PER_JOB}


def _die_with(parent: int) -> None:
    """Be killed when the parent dies."""
    import ctypes

    set_death_signal = 1
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _warm_up() -> None:
    """Import every module of the package, and what verbs import only when they need it."""
    import importlib
    import pkgutil

    for module in pkgutil.walk_packages([str(PACKAGE)], "isaerft."):
        # What other programs load needs packages that they bring.
        if not module.name.endswith("__main__") and not module.name.startswith("isaerft.integrations."):
            importlib.import_module(module.name)
    for name in IMPORTED_LATER:
        importlib.import_module(name)


if __name__ == "__main__":
    serve()
