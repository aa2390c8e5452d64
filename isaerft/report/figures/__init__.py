"""The figures: captions, the tables that they read, the studies that have them, and where each is drawn.

The workflow asks here at every start, so matplotlib is only imported when a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from isaerft.analysis.replicates import variants_of
from isaerft.config import Plan

if TYPE_CHECKING:
    from isaerft.report.figures.canvas import Drawing
    from isaerft.report.selection import Tables


def always(plan: Plan) -> bool:
    """Tell that every study has a figure."""
    return True


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes
    ----------
    name : str
        Its file is figures/{name}.svg.
    caption : str
        Shown below it, on the summary page and in Snakemake's report.
    tables : tuple of str
        Result tables that it reads.
    draw : str
        "module:function" of this package; the function makes the drawing from the tables.
    when : callable
        Tells whether a study has it.
    """

    name: str
    caption: str
    tables: tuple[str, ...]
    draw: str
    when: Callable[[Plan], bool] = always

    def make(self, tables: Tables) -> Drawing:
        """Return the drawing; a table that it reads and that is missing is an `InputError`."""
        from isaerft.report.figures import canvas
        from isaerft.report.selection import table

        for name in self.tables:
            table(tables, name)
        module, _, function = self.draw.partition(":")
        return canvas.make(getattr(import_module(f"{__name__}.{module}"), function), tables)


FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure(
            "agreement",
            "Do the latents that changed most have the explanations that said they should? One row per behavior, at "
            "the study's primary combination: the result (blue) with its confidence interval, and each of its "
            "controls. A result is as strong as its distance from the highest control, not from chance alone.",
            ("agreement",),
            "agreement:draw_agreement",
        ),
        Figure(
            "agreement_grid",
            "Does the result depend on a choice? Median agreement over behaviors for every source, judge, adapter and"
            " measure, with its controls. The bar runs from the highest control to the result: blue where the result "
            "is higher, gray where it is lower. The yellow row is the primary combination.",
            ("agreement",),
            "agreement:draw_agreement_grid",
        ),
        Figure(
            "dose_response",
            "Does the test measure explanations? Agreement as a known share of them is made wrong: it must fall to "
            "chance as the share rises to 100 %. Thick line: median over behaviors; band: interquartile range; thin "
            "lines: behaviors; dashed: medians of the controls.",
            ("agreement",),
            "dose_response:draw_dose_response",
            when=lambda plan: len(plan.doses) > 1,
        ),
        Figure(
            "specificity",
            "Do changes fit the explanations of their own behavior best? Rows: the behavior trained on; columns: the "
            "behavior that explanations were judged for. The own column is outlined, and a dot marks the largest "
            "value of each row. If explanations are about the behavior, the dot lies in the outline.",
            ("agreement", "specificity"),
            "specificity:draw_specificity",
            when=lambda plan: len(plan.tested_behaviors) > 1,
        ),
        Figure(
            "source_comparison",
            "Whose explanations predict changes best? Every source that a judge reads, on the latents that all of "
            "them explain, at the primary adapter and measure, with intervals over behaviors. Hollow markers are "
            "known to be worse than the judge's best source.",
            ("agreement", "source_comparison"),
            "agreement:draw_source_comparison",
            when=lambda plan: bool(plan.compared_sources),
        ),
        Figure(
            "most_changed_latents",
            "The latents that each behavior changed most, with their explanations. Blue: the judge expected the "
            "change; orange: it did not; hatched: the change is not stable over seeds, so it shows nothing. Bars are "
            "scaled within a behavior. These are examples; the agreement figure is the test.",
            ("agreement", "most_changed_latents"),
            "most_changed_latents:draw_most_changed_latents",
        ),
        Figure(
            "training",
            "Did training work? Held-out loss before (tick) and after training on each behavior, and the share of the"
            " reference adapter's improvement that each adapter reaches. If the loss did not fall, there is no change"
            " to explain. Hollow, where it was taken: the loss on training rows; far below, the adapter overfits.",
            ("training",),
            "training:draw_training",
        ),
        Figure(
            "changes_over_time",
            "Do the expected latents change first? How much of their final change the expected latents (blue) and all "
            "others (gray) have reached at checkpoints of training, and how well the changes so far agree with the "
            "explanations (orange; the dashed line is chance).",
            ("agreement", "changes_over_time"),
            "changes_over_time:draw_changes_over_time",
            when=lambda plan: bool(plan.followed_adapters),
        ),
        Figure(
            "causal_check",
            "Does training work through the latents that changed most? How much of the fall in held-out loss remains "
            "when they are set back to no change (filled), and when random latents of like firing rate and decoder "
            "norm are (hollow, with the range of the draws). Filled far to the left of hollow: yes.",
            ("causal_check",),
            "training:draw_causal_check",
            when=lambda plan: bool(plan.causally_checked),
        ),
        Figure(
            "map_components",
            "What do learned maps do? The component of each map whose removal costs most: how much of the fall in "
            "held-out loss is lost without it (filled, range over seeds) and kept by it alone (hollow); and how alike "
            "what it reads and what it writes are in other seeds, beside random directions (tick).",
            ("map_components",),
            "components:draw_components",
            when=lambda plan: bool(plan.mapped_adapters),
        ),
        Figure(
            "loss_curves",
            "How few directions does training need, and whose? The fall in held-out loss of linear maps with k "
            "directions, as a share of that of the full map of the residual stream, against k and against the numbers "
            "that are trained: means over behaviors, with intervals. Filled: directions chosen from a basis; hollow: "
            "learned freely.",
            ("loss_curves",),
            "loss_curves:draw_loss_curves",
            when=lambda plan: bool(plan.study.curved_behaviors),
        ),
        Figure(
            "behavior_check",
            "Did the behavior move? Scores of answers to held-out prompts before training (tick) and after (filled, "
            "with the interval of the difference over prompts), and of the data's own replies (diamond). The loss can"
            " fall without the behavior moving.",
            ("behavior_check",),
            "training:draw_behavior_check",
            when=lambda plan: bool(plan.behavior_checked),
        ),
        Figure(
            "noise_probe",
            "How do answers respond to noise in the model? Mean score of the answers without noise (level 0) and under "
            "noise of growing size, for the unchanged model (gray) and with each adapter, with intervals over draws. "
            "A score that rises with the noise hints at something that the model holds back.",
            ("noise_probe",),
            "noise_probe:draw_noise_probe",
            when=lambda plan: bool(plan.noise_probed),
        ),
        Figure(
            "steering_check",
            "Does steering do what explanations claim? Latents are amplified and suppressed while the model answers. "
            "Top: how well the verdict, and scores of the explanation itself, tell for which latents answers move as "
            "claimed; 0.5 is chance. Bottom: latents, right of 0 if answers do (interval over prompts).",
            ("steering_latents", "steering_summary"),
            "steering:draw_steering",
            when=lambda plan: bool(plan.steering_checked),
        ),
        Figure(
            "benchmark",
            "Which scores of explanations find the wrong ones? AUROC by what is wrong with them, mean over worlds with "
            "its interval. training: the verdict of this study; gray: the length of explanations, which must be at "
            "chance. An explanation without a score is told apart from none.",
            ("benchmark",),
            "benchmark:draw_benchmark",
            when=lambda plan: bool(plan.benchmark_sources) and len(plan.tested_behaviors) > 1,
        ),
        Figure(
            "reliability",
            "How far would the numbers move if seeds were drawn again? The bar reaches as far as reseeding explains: a "
            "like number outside it is reliably different. Filled: the number, or the mean of its replicates; hollow: "
            "the replicates, or the number without each seed in turn. At the primary combination, all adapters.",
            ("agreement", "reliability"),
            "reliability:draw_reliability",
        ),
        Figure(
            "discriminability",
            "Do the numbers separate variants of one SAE? Share of the variance that lies between variants and not "
            "between subjects of one variant, with its interval: a number whose interval lies right of 0 separates "
            "them. Hollow: it does not. At the primary combination.",
            ("agreement", "discriminability"),
            "reliability:draw_discriminability",
            when=lambda plan: bool(variants_of(plan)),
        ),
        Figure(
            "calibration",
            "Can the numbers be trusted? Left: how often each of our tests finds agreement in worlds where there is "
            "none. Middle: the same of naive tests. Right: how often an effect is found, how well wrong explanations "
            "are told from right ones, and how often intervals hold the truth.",
            ("calibration",),
            "calibration:draw_calibration",
            when=lambda plan: False,  # the calibration study's own
        ),
    )
}
"""Every figure by name, in the order of the summary page."""


def figures_of(plan: Plan) -> list[str]:
    """Return the names of the figures that a study has."""
    return [name for name, figure in FIGURES.items() if figure.when(plan)]
