"""A warm worker: a process that has imported everything once and is forked for each verb.

Importing torch and transformers takes longer than most verbs of a small study. The workflow starts one worker
(`isaerft.cli.worker` as a program) and names its socket in the environment; `isaerft VERB` then asks it for a fork that
runs the verb, with the caller's standard streams and working directory, and waits. Nothing depends on the worker: where
there is none, or it is not ready, serves another environment or other code, or dies, the verb runs in its own process.

A fork shares no state with other verbs, and each begins as a fresh process does: no CUDA, no model, no options. Worker
and caller speak on an abstract socket of Linux, which leaves no file behind, and only if both belong to one user.
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
    # Forks that answer need not be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{os.environ[SOCKET]}")
        listening.listen(64)
        while os.getppid() == parent:
            if not select.select([listening], [], [], _CHECK_SECONDS)[0]:
                continue
            connection, _ = listening.accept()
            own = os.getpid()
            if _user_of(connection) == os.getuid() and os.fork() == 0:
                _die_with(parent=own)
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                try:
                    _answer(connection, run_here, interrupt, partial(_difference, serves, environment))
                except (OSError, struct.error):  # the caller has gone
                    os._exit(0)
            connection.close()


def _answer(
    connection: socket.socket, run: Run, interrupt: Interrupt, difference: Callable[[Request], str]
) -> NoReturn:
    """Run what one connection asks for in a fork of its own, answer with its exit status, and end.

    Raises
    ------
    OSError, struct.error
        The caller has gone.
    """
    with connection:
        message, streams, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
        (length,) = _LENGTH.unpack(message)
        request = json.loads(_received(connection, length))
        if differing := difference(request):
            sys.stderr.write(f"not served: another {differing}\n")
            sys.stderr.flush()
            connection.sendall(b"\n")
            os._exit(0)
        own, verb = os.getpid(), os.fork()
        if verb == 0:
            _die_with(parent=own)
            connection.close()
            signal.signal(signal.SIGINT, interrupt)
            _become(request, streams, run)
        for stream in streams:
            os.close(stream)
        ended = os.pidfd_open(verb)
        # The caller sends nothing more: its end of the connection is readable when it has died.
        waited: list[socket.socket | int] = [connection, ended]
        if connection in select.select(waited, [], [])[0]:
            os.kill(verb, signal.SIGTERM)
        status = os.waitstatus_to_exitcode(os.waitpid(verb, 0)[1])
        connection.sendall(b"%d\n" % (status if status >= 0 else 128 - status))
    os._exit(0)


def _become(request: Request, streams: Sequence[int], run: Run) -> NoReturn:
    """Run a verb as if this process had been started for it, and end."""
    status = 1
    try:
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
        status = run(request["arguments"])
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            for text in (sys.stdout, sys.stderr):
                text.flush()
        finally:  # whatever a full disk refuses, this fork must not go on as the worker
            os._exit(status)


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
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in IMPORTED_LATER:
        importlib.import_module(name)


if __name__ == "__main__":
    serve()
