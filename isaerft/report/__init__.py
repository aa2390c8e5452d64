"""Figures and pages, made from the result tables; the page of latents also from what `analysis` gathers of each latent.

Every number shown is in a table, or is a count, median, quantile or extreme of numbers that do. Every result is
shown with its controls. Undefined is a dash, never 0.
"""

from isaerft.report.figures import FIGURES, Figure, figures_of

__all__ = ["ANSWERS_CAPTION", "FIGURES", "LATENT_TABLES", "SUMMARY_CAPTION", "Figure", "figures_of"]

ANSWERS_CAPTION = (
    "A few answers to held-out prompts before and after training, with their scores: examples of what the behavior "
    "check counts."
)
SUMMARY_CAPTION = (
    "The study on one page: the primary result with its controls, cautions, all figures, and links to the tables."
)
LATENT_TABLES = ("explanation_verdicts", "explanation_scores", "steering_check", "steering_latents")
"""The tables that the page of single latents reads, where a study has them."""
