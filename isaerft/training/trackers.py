"""The process in which experiment trackers run: it follows a job's losses on standard input, through accelerate.

$ python -m isaerft.training.trackers JOB FOLDER PROJECT TRACKER ... < FILE

JOB is the number of the process whose losses these are. A tracker that fails is left out from then on.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from isaerft.credentials import hidden
from isaerft.errors import one_line

POLL = 0.2
ATTEMPTS = 2
"""To begin a run: of two jobs that make one experiment at the same time, the second is refused."""
# Only what was reported: no console, code, repository, hardware or host.
WANDB = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
}
TRACKIO = {"private": True, "embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
logger = logging.getLogger(__name__)


def followed(stream: IO[bytes], job: int) -> Iterator[dict[str, Any]]:
    """Yield the messages of a file that is still being written, until it says that it is done or its job is gone."""
    line = b""
    while True:
        line += stream.readline()
        if line.endswith(b"\n"):
            message, line = json.loads(line), b""
            if "done" in message:
                return
            yield message
        elif os.getppid() != job:
            return
        else:
            time.sleep(POLL)


def log_runs(messages: Iterator[dict[str, Any]], trackers: Trackers) -> None:
    """Log runs one after the other: trackers know one current run, so what others report meanwhile waits."""
    waiting: dict[str, list[dict[str, Any]]] = {}

    def forward() -> None:
        while waiting:
            name, reported = next(iter(waiting.items()))
            while reported:
                message = reported.pop(0)
                if "end" in message:
                    del waiting[name]
                    trackers.finish()
                    break
                if "config" in message:
                    trackers.begin(name, message["config"])
                else:
                    trackers.log(message["values"], message["step"])
            else:
                return

    for message in messages:
        waiting.setdefault(message["run"], []).append(message)
        forward()
    for reported in waiting.values():
        reported.append({"end": True})
    forward()


class Trackers:
    """Those trackers of a job that have not failed, each an `Accelerator` of its own."""

    def __init__(self, names: list[str], project: str, folder: Path) -> None:
        self._project, self._folder = project, folder
        self._working = list(names)
        self._current: dict[str, Any] = {}

    def begin(self, run: str, config: dict[str, Any]) -> None:
        """Begin a run."""
        for name in list(self._working):
            for attempt in range(ATTEMPTS):
                try:
                    self._current[name] = self._started(name, run, config)
                    break
                except Exception as error:
                    if attempt + 1 == ATTEMPTS or isinstance(error, ModuleNotFoundError):
                        self._leave_out(name, error)
                        break
                    time.sleep(1 + os.getpid() % 100 / 100)

    def log(self, values: dict[str, float], step: int) -> None:
        """Log values of the current run."""
        self._each(lambda accelerator: accelerator.log(values, step=step))

    def finish(self) -> None:
        """End the current run."""
        self._each(lambda accelerator: accelerator.end_training())
        self._current = {}

    def _each(self, do: Callable[[Any], object]) -> None:
        for name, accelerator in list(self._current.items()):
            try:
                do(accelerator)
            except Exception as error:
                self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        self._working.remove(name)
        accelerator = self._current.pop(name, None)
        if accelerator is not None:
            with suppress(Exception):
                accelerator.end_training()
        reason = one_line(hidden(f"{type(error).__name__}: {error}"))
        logger.warning("tracker %s failed and gets no more of this job (%s); training goes on", name, reason)

    def _started(self, name: str, run: str, config: dict[str, Any]) -> Any:
        from accelerate import Accelerator
        from accelerate.tracking import get_available_trackers

        if name not in map(str, get_available_trackers()):
            raise ModuleNotFoundError(f"not installed: pip install 'isaerft[{name}]'")
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        project: str = self._project
        options: dict[str, Any] = {
            "wandb": {"name": run},
            "trackio": TRACKIO | {"name": run},
            "mlflow": {"run_name": run},
        }
        if name == "wandb":
            options["wandb"] |= {"settings": WANDB} | ({} if "WANDB_DIR" in os.environ else {"dir": str(self._folder)})
        if name == "mlflow":
            os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder.absolute()}/mlflow.db")
        if name == "tensorboard":
            project = f"{project}/{run}"  # its only name is the folder's
        accelerator = Accelerator(log_with=name, project_dir=folder, cpu=True)
        accelerator.init_trackers(project, config=config, init_kwargs=options)
        return accelerator


def main(job: str, folder: str, project: str, *names: str) -> None:
    """Follow standard input."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    log_runs(followed(sys.stdin.buffer, int(job)), Trackers(list(names), project, Path(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
