"""The figures by name, and the tables that each one reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from isaerft.report.figures.agreement import agreement
from isaerft.report.figures.agreement_grid import agreement_grid
from isaerft.report.figures.behavior_check import behavior_check
from isaerft.report.figures.calibration import calibration
from isaerft.report.figures.canvas import save_svg
from isaerft.report.figures.causal_check import causal_check
from isaerft.report.figures.dose_response import Doses, dose_response
from isaerft.report.figures.most_changed_latents import most_changed_latents
from isaerft.report.figures.source_comparison import source_comparison
from isaerft.report.figures.specificity import specificity
from isaerft.report.figures.training import training


@dataclass(frozen=True)
class FigureKind:
    """A figure function and the names of the tables that it reads."""

    build: Callable[..., Figure]
    tables: tuple[str, ...]
    wants_doses: bool = False


FIGURES: dict[str, FigureKind] = {
    "agreement": FigureKind(agreement, ("agreement",)),
    "agreement_grid": FigureKind(agreement_grid, ("agreement",), wants_doses=True),
    "dose_response": FigureKind(dose_response, ("agreement",), wants_doses=True),
    "specificity": FigureKind(specificity, ("agreement", "specificity")),
    "source_comparison": FigureKind(source_comparison, ("agreement", "source_comparison")),
    "most_changed_latents": FigureKind(most_changed_latents, ("agreement", "most_changed_latents")),
    "training": FigureKind(training, ("training",)),
    "causal_check": FigureKind(causal_check, ("causal_check",)),
    "behavior_check": FigureKind(behavior_check, ("behavior_check",)),
    "calibration": FigureKind(calibration, ("calibration",)),
}

__all__ = [
    "FIGURES",
    "Doses",
    "FigureKind",
    "agreement",
    "agreement_grid",
    "behavior_check",
    "calibration",
    "causal_check",
    "dose_response",
    "most_changed_latents",
    "save_svg",
    "source_comparison",
    "specificity",
    "training",
]
