"""The command line: `isaerft VERB`, by the warm worker where the environment names one, else in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return its exit status: 0, or 2 after a user's error, which is printed in one line."""
    from isaerft.cli.worker import run_by_worker

    arguments = sys.argv[1:] if arguments is None else list(arguments)
    status = run_by_worker(arguments)
    if status is None:
        from isaerft.cli.app import run_here

        status = run_here(arguments)
    return status
