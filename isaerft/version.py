"""The installed version of the package, from its metadata."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the version, "unknown" where the package runs without being installed."""
    try:
        return metadata.version("isaerft")
    except metadata.PackageNotFoundError:
        return "unknown"
