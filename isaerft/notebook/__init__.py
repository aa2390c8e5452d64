"""Studies in notebooks: run a whole small one in this process (`isaerft.validate`), and look at finished ones."""

from isaerft.notebook.result import Validation, open_study
from isaerft.notebook.run import run_steps, validate

__all__ = ["Validation", "open_study", "run_steps", "validate"]
