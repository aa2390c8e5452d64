"""The command line: one verb per rule of the workflow.

$ isaerft train --study config/testbed.yaml --subject testbed --behavior refusal --adapter bias ... --out DIR
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from isaerft import __version__
from isaerft.errors import InputError
from isaerft.verbs import calibration, planning, results, subjects, training  # noqa: F401 - importing them registers their verbs
from isaerft.verbs.base import ARGUMENTS, NAMES, NUMBERS, OPTIONAL, VERBS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return 0, or 2 after a user's error (printed in one line)."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "httpx2", "openai", "huggingface_hub", "datasets", "sentence_transformers", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        VERBS[options.verb][0](options)
    except InputError as error:
        sys.stderr.write(f"isaerft {options.verb}: error: {' '.join(str(error).split())}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="isaerft", description="Find out whether SAE explanations are true.")
    parser.add_argument("--version", action="version", version=f"isaerft {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (_, arguments, help_text) in VERBS.items():
        sub = verbs.add_parser(name, help=help_text.splitlines()[0], description=help_text)
        for argument in arguments:
            if argument == "name":
                sub.add_argument("name", help=ARGUMENTS["name"])
            else:
                needed = f"{name}.{argument}" not in OPTIONAL
                kind = float if argument in NUMBERS else str if argument in NAMES else Path
                sub.add_argument(f"--{argument}", required=needed, type=kind, help=ARGUMENTS[argument])
    return parser
