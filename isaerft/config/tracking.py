"""Options of experiment trackers, which show how trainings go and decide nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.base import STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Tracking:
    """Experiment trackers that get the losses of every training as it goes. No result depends on them."""

    trackers: list[Literal["wandb", "trackio", "mlflow", "tensorboard"]] = Field(min_length=1)
    """Where losses go. Accounts, servers and keys come from each tracker's own environment variables."""
    project: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Project (MLflow: experiment) that holds the runs; the study's name when not given."""
