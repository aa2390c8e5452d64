"""Rewrite docs/tables.md: `python -m isaerft.analysis`, in the root of the repository."""

from __future__ import annotations

import sys

from isaerft.analysis.reference import write_reference

if __name__ == "__main__":
    sys.stdout.write(f"{write_reference()}\n")
