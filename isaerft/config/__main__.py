"""Rewrite config/schema.json and docs/config.md: `python -m isaerft.config`, in the root of the repository."""

from __future__ import annotations

import sys

from isaerft.config.reference import write_reference

if __name__ == "__main__":
    sys.stdout.writelines(f"{path}\n" for path in write_reference())
