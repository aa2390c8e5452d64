"""One caption for each figure and page; those of tables stand in `isaerft.analysis`."""

from __future__ import annotations

FIGURES: dict[str, str] = {
    "agreement": (
        "Do the latents that changed most have the explanations that said they should? One row per behavior at the "
        "study's primary combination: the estimate (blue) with its confidence interval, beside each of its controls. "
        "A result is as strong as its distance from the nearest control, not from the chance line alone."
    ),
    "agreement_grid": (
        "Median agreement over behaviors for every source, judge, adapter and measure, each with its controls; the bar "
        "runs from the highest control to the result (grey where the "
        "result is lower), and the shaded row is the primary combination."
    ),
    "dose_response": (
        "Agreement as a known share of explanations is made wrong: a test that measures explanations must fall to "
        "chance as the share rises to 100 %. Thick line: median over behaviors; band: interquartile range; thin lines: "
        "behaviors; dashed: medians of the controls."
    ),
    "specificity": (
        "Changes from training on each behavior (rows), scored by explanations judged for each behavior (columns). "
        "The own column is outlined, the largest value of a row has a dot; explanations that speak of the behavior "
        "put the dot in the outline."
    ),
    "source_comparison": (
        "Whose explanations predict changes best: every source that a judge reads, on the latents that all of them "
        "explain, at the primary adapter and measure, with intervals over behaviors. Open markers are known to be "
        "worse than the judge's best source; the filled ones are not."
    ),
    "most_changed_latents": (
        "The latents that each behavior changed most, with their explanations. Blue: the judge expected the change; "
        "orange: it did not; hatched: the change is not stable over seeds, so nothing follows from it. Bars are "
        "scaled within a behavior. These are examples; the test is the agreement figure."
    ),
    "training": (
        "Held-out loss before (tick) and after (dots, one per seed) training on each behavior, and the share of the "
        "reference adapter's improvement that each adapter reaches. Without a fall in loss nothing is there to explain."
    ),
    "causal_check": (
        "How much of each adapter's fall in held-out loss remains when the latents that changed most are set back to "
        "no change (filled), and when as many others are, alike in firing rate and decoder norm (open, with the range "
        "of the draws). Filled far to the left of open: what the measure ranks first is what training works through."
    ),
    "behavior_check": (
        "The score of the answers to held-out prompts before training (tick) and after (marker, with the interval of "
        "the difference over prompts), and of the data's own replies (diamond). A loss that fell while the behavior "
        "did not move is not yet a trained behavior."
    ),
    "calibration": (
        "Left, how often each test finds agreement where there is none, above the line ours, below it naive ones. "
        "Right, how often it finds an effect, how well wrong explanations are told from right ones, and how often the "
        "intervals hold the truth."
    ),
}

SUMMARY = (
    "The study on one page: the primary result beside its controls, warnings, all figures, and links to the tables."
)

ANSWERS = (
    "A few answers to held-out prompts before and after training, with their scores: examples, to see what the "
    "behavior check counts."
)
