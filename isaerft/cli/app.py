"""The verbs as one program: one typed function per verb, and one verb per rule of the workflow.

$ isaerft train --study config/testbed.yaml --subject testbed --behavior refusal --adapter bias
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

import typer

from isaerft.cli import (
    annotation,
    benchmarking,
    calibration,
    planning,
    publishing,
    results,
    setup,
    steering,
    subjects,
    training,
)
from isaerft.errors import InputError, one_line
from isaerft.io import disk_problem
from isaerft.version import VERSION

# Libraries whose every request or file would be a line of the log.
NOISY = ("httpx", "httpx2", "openai", "huggingface_hub", "datasets", "sentence_transformers", "filelock")
HELP = """Find out whether SAE explanations are true.

`isaerft new` writes the config of a study, `isaerft doctor` checks it. The workflow calls the other verbs: run
`snakemake --cores all` in a clone of the repository for a whole study. Each verb can also be run by hand; it reads and
writes below results/STUDY.
"""

app = typer.Typer(
    name="isaerft", help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False,
)  # fmt: skip
for part in (setup, subjects, training, results, annotation, publishing, benchmarking, steering, planning, calibration):
    app.registered_commands += part.app.registered_commands


class _OneLine(logging.Formatter):
    """A log message, which may quote other people's text, as one line of bounded length with control codes escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"isaerft {VERSION}")
        raise typer.Exit


@app.callback()
def _start(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


@cache
def _command() -> Callable[[Sequence[str]], object]:
    """Return the command line of all verbs, which a worker makes once for all its jobs."""
    return typer.main.get_command(app)


def run_here(arguments: Sequence[str]) -> int:
    """Run one verb in this process; return 0, or 2 after a user's error, which is printed in one line."""
    try:
        _command()(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except InputError as error:
        return _told(arguments, error)
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        return _told(arguments, problem)
    return 0


def _told(arguments: Sequence[str], error: InputError) -> int:
    """Print a user's error in one line; return the exit status."""
    verb = next((argument for argument in arguments if not argument.startswith("-")), "")
    with suppress(OSError):  # a log on the same full disk; the exit status still tells
        sys.stderr.write(f"isaerft {verb}: error: {' '.join(str(error).split())}\n")
        sys.stderr.flush()
    return 2
