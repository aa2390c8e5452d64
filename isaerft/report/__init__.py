"""Figures and pages, made from the result tables and from nothing else.

Every number shown stands in a table, or is a count, median, quantile or extreme of numbers that do. Every result is
shown with its controls. Undefined is a dash, never 0.
"""

from isaerft.report.figures import FIGURES, Figure, figures_of

__all__ = ["FIGURES", "Figure", "figures_of"]
