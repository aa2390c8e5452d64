"""Losses of trainings for experiment trackers, which run in a process of their own.

A job appends its losses to a file, and `isaerft.training.trackers` follows the file in another process. So a job never
waits for a tracker but at its very end, and a tracker's threads, faults and random numbers never reach a training.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from isaerft import config
from isaerft.training.processes import rank
from isaerft.version import VERSION

PATIENCE = 60.0
"""Seconds that a finished job waits for its trackers, ..."""
PER_MESSAGE = 0.2
"""... and this many more for every message: some write each to disk by itself."""
# Of a launcher of several processes: a tracker would wait for the others.
_LAUNCHER = ("RANK", "LOCAL_", "WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_")
logger = logging.getLogger(__name__)

Report = Callable[[int, Mapping[str, float]], None]


def unreported(step: int, values: Mapping[str, float]) -> None:
    """Report a step's values to nobody."""


class Run:
    """One training, as trackers see it."""

    def __init__(self, name: str, send: Callable[[dict[str, Any]], None]) -> None:
        self._name, self._send = name, send

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Report values at a step."""
        self._send({"run": self._name, "step": step, "values": dict(values)})

    def end(self, step: int, values: Mapping[str, float]) -> None:
        """Report what came out, and end the run."""
        self.report(step, {f"final/{name}": value for name, value in values.items()})
        self._send({"run": self._name, "end": True})


class Tracked:
    """The trackers of one job; without a file they get nothing."""

    def __init__(self, plan: config.Plan, subject: str, file: TextIO | None) -> None:
        self._plan, self._subject, self._file = plan, subject, file
        self.n_sent = 0

    def run(self, behavior: str, adapter: str, seed: int) -> Run:
        """Begin the run of one training, named after study, subject, behavior, adapter and seed."""
        name = f"{self._plan.study.study}.{self._subject}.{behavior}.{adapter}.seed_{seed}"
        if self._file is not None:
            self._send({"run": name, "config": self._config(behavior, adapter, seed)})
        return Run(name, self._send)

    def _config(self, behavior: str, adapter: str, seed: int) -> dict[str, object]:
        """Return what was asked for, each option under a dotted name."""
        study = self._plan.study
        subject = self._plan.subjects[self._plan.base_subject(self._subject)]
        names = {"study": study.study, "subject": self._subject, "model": subject.model_name}
        names |= {name: getattr(subject, name) or "" for name in ("release", "sae_id", "hook_name")}
        names |= {"behavior": behavior, "adapter": adapter, "isaerft": VERSION}
        seeds = {"seed": seed, "replicate_seed": self._plan.replicate_seed(seed)}
        return names | seeds | dict(_flat(asdict(study.adapters[adapter]), ""))

    def _send(self, message: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(message) + "\n")
            self._file.flush()
            self.n_sent += 1
        except OSError as error:
            logger.warning("trackers get no more of this job (%s)", error)
            self._file = None


def _flat(options: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


@contextmanager
def tracked(plan: config.Plan, subject: str, folder: Path) -> Iterator[Tracked]:
    """Start the study's trackers, if it has any, and give them; of several processes, the first one's alone.

    Parameters
    ----------
    subject : str
        Name in the study of the subject that the job trains on.
    folder : Path
        For trackers that write files.
    """
    options = plan.study.tracking
    if options is None or rank() != 0:
        yield Tracked(plan, subject, None)
        return
    descriptor, path = tempfile.mkstemp(prefix="isaerft-tracking-", suffix=".jsonl")
    with open(descriptor, "w", encoding="utf-8") as file, open(path, "rb") as followed:
        os.unlink(path)
        process = _started([str(folder), options.project or plan.study.study, *options.trackers], followed.fileno())
        job = Tracked(plan, subject, file if process else None)
        try:
            yield job
        finally:
            if process is not None:
                _finish(process, file, PATIENCE + PER_MESSAGE * job.n_sent)


def _started(arguments: list[str], followed: int) -> subprocess.Popen[bytes] | None:
    """Start the process that follows a file; None if the system does not let us."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LAUNCHER)}
    command = [sys.executable, "-P", "-m", "isaerft.training.trackers", str(os.getpid()), *arguments]
    try:
        # Its standard input is no terminal, so a tracker cannot ask for a key and wait; all it says goes to the log.
        return subprocess.Popen(
            command, stdin=followed, stdout=2, env=kept | {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
        )
    except OSError as error:
        logger.warning("no tracker could be started (%s); training goes on without", error)
        return None


def _finish(process: subprocess.Popen[bytes], file: TextIO, patience: float) -> None:
    """Wait a while for trackers to take the rest; whatever happens to them is a warning."""
    try:
        file.write(json.dumps({"done": True}) + "\n")
        file.flush()
    except OSError:
        process.terminate()
    try:
        status = process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        logger.warning("trackers did not finish within %.0f s and were stopped; results are complete", patience)
        return
    if status != 0:
        logger.warning("trackers ended with status %d; results are complete", status)
