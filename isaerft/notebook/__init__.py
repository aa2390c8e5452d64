"""A whole small study in one process, for notebooks: `isaerft.validate`."""

from isaerft.notebook.result import Validation
from isaerft.notebook.run import validate

__all__ = ["Validation", "validate"]
