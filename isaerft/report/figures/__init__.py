"""The figures, each with its caption, the tables that it reads, and the condition under which a study has it."""

from __future__ import annotations

from isaerft.config import Plan
from isaerft.report.figures.agreement import AGREEMENT, AGREEMENT_GRID, SOURCE_COMPARISON
from isaerft.report.figures.calibration import CALIBRATION
from isaerft.report.figures.canvas import Figure, save_svg
from isaerft.report.figures.dose_response import DOSE_RESPONSE
from isaerft.report.figures.most_changed_latents import MOST_CHANGED_LATENTS
from isaerft.report.figures.specificity import SPECIFICITY
from isaerft.report.figures.training import BEHAVIOR_CHECK, CAUSAL_CHECK, TRAINING

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        AGREEMENT,
        AGREEMENT_GRID,
        DOSE_RESPONSE,
        SPECIFICITY,
        SOURCE_COMPARISON,
        MOST_CHANGED_LATENTS,
        TRAINING,
        CAUSAL_CHECK,
        BEHAVIOR_CHECK,
        CALIBRATION,
    )
}
"""Every figure by name, in the order of the summary page."""


def figures_of(plan: Plan) -> list[str]:
    """Return the names of the figures that a study has."""
    return [name for name, figure in FIGURES.items() if figure.when(plan)]


__all__ = ["FIGURES", "Figure", "figures_of", "save_svg"]
