"""One caption for each figure and table; workflow/report/*.rst holds the same words (a test keeps them together)."""

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

TABLES: dict[str, str] = {
    "subjects": "The subjects: model, SAE and hook, and how well the SAE stands in for the residual stream there.",
    "training": "One row per training run: held-out loss before and after, and the share of the reference reached.",
    "diagnostics": (
        "What adapters that were not trained on the latents come to in the SAE's basis: the share of a pulled-back "
        "change that the dictionary explains, and how well a baseline's direction tells held-out texts apart."
    ),
    "most_changed_latents": "The latents that each behavior changed most, with their explanations and verdicts.",
    "agreement": (
        "How well expected and measured changes agree over latents, for every combination and every control; read no "
        "row without the rows of its controls."
    ),
    "specificity": "Agreement of the changes from each behavior with explanations judged for each behavior.",
    "overall": (
        "Each combination over all behaviors: mean agreement, and specificity, which is how much better a behavior's "
        "changes agree with its own expectations than with those of other behaviors."
    ),
    "source_comparison": (
        "Whose explanations predict changes best, judge by judge, on the latents that all of a judge's sources "
        "explain; the interval of the difference to the best other source says whether they can be told apart."
    ),
    "seeds": (
        "Whether the seeds of each adapter agree on which latents changed, and what agreement comes to seed by seed; "
        "an adapter whose seeds disagree has no ranking of latents to test."
    ),
    "coverage": (
        "How many of the latents that each source was asked for it explains; results speak of the explained ones, and "
        "under the case_control design of a sample."
    ),
    "explanation_verdicts": "One row per explanation: whether its predictions over behaviors held, and why we say so.",
    "causal_check": (
        "What remains of each adapter's fall in held-out loss when its k most changed latents are set back to no "
        "change, beside k others alike in firing rate and decoder norm: 1 means untouched, 0 back to the model itself."
    ),
    "judge_quality": (
        "How far the judges of a source agree, pair by pair, and with a reference (known truth, or people) where "
        "there is one. A judge that errs hides agreement; one that agrees with another is not yet right."
    ),
    "corrected_agreement": (
        "Results beside what they would be if the judge made no mistakes, by its rates of error against a "
        "reference; valid only where the judge's mistakes have nothing to do with how much a latent changed."
    ),
    "explanation_scores": (
        "How well each explanation tells what its latent does from what it doesn't, on evidence that its explainer "
        "never saw; beside it the same items with another latent's explanation."
    ),
    "explanation_quality": (
        "The mean score of each source's explanations beside its floor, what explanations exchanged between latents "
        "reach on the same items: what is not above the floor says nothing of its latent."
    ),
    "agreement_by_quality": (
        "Agreement at the primary adapter and measure among latents whose explanations score low, middle and high. "
        "Thirds can differ in what their explanations speak of, too: read the number expected beside each estimate."
    ),
    "behavior_check": (
        "Answers to held-out prompts before and after training, scored for the behavior; the interval is that of the "
        "difference, over prompts. answers.html shows some of them."
    ),
    "audit": (
        "What a suspect set of data teaches that a clean one does not: the behaviors that it may teach, ranked by how "
        "far the latents that they would raise rose more than under the clean data. q is small only where neither "
        "other rows of one origin nor other explanations would explain it."
    ),
    "audit_latents": (
        "The latents that the suspect data trained most unlike the clean data, with their explanations: what the "
        "difference is about, whether or not anybody thought of it."
    ),
    "calibration": (
        "What was counted where the truth is known: error rates, power and coverage of the tests in simulated worlds, "
        "or how the whole pipeline does with known shares of wrong explanations or of planted poison."
    ),
}

SUMMARY = (
    "The study on one page: the primary result beside its controls, warnings, all figures, and links to the tables."
)

ANSWERS = (
    "A few answers to held-out prompts before and after training, with their scores: examples, to see what the "
    "behavior check counts."
)
