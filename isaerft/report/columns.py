"""What each column of each table means, in one line; the only place that says so."""

from __future__ import annotations

from isaerft.errors import unknown_name
from isaerft.table import columns_of

# A key is a column's name, or 'table.column' where a table's column needs its own words.
MEANINGS: dict[str, str] = {
    "subject": "Name of the subject in the study's config: a model and an SAE at one hook.",
    "model": "Hugging Face id or folder of the language model.",
    "release": "SAELens release that the SAE is from; empty when it was trained here or read from a folder.",
    "sae_id": "Id of the SAE within its release.",
    "hook_name": "Place in the model where the SAE reads and writes the residual stream.",
    "d_in": "Width of the residual stream at the hook.",
    "d_sae": "Number of latents in the SAE's dictionary.",
    "variance_explained": "Share of the residual stream's variance that the SAE reconstructs (1 is perfect).",
    "l0": "Mean number of active latents per token.",
    "n_alive": "Latents that fire often enough on the reference corpus; the others are not tested.",
    "n_dense": "Latents that fire on so many tokens that their explanations say little.",
    "loss_base": "Loss of the model itself on the reference corpus (nats per token).",
    "loss_spliced": "The same loss with the SAE's reconstruction in place of the residual stream (nats per token).",
    "behavior": "The behavior that was trained for.",
    "adapter": "The adapter that was trained, as named in the study's config.",
    "objective": "Training objective (sft, preference, ...).",
    "seed": "Replicate of the training.",
    "n_parameters": "Trained parameters.",
    "steps": "Training steps up to the weights that were kept.",
    "tokens": "Tokens that the loss was taken on during training.",
    "heldout_loss_base": "Held-out loss before training (nats per token of the completion).",
    "heldout_loss_adapted": "Held-out loss after training (nats per token of the completion).",
    "reference": "Adapter that loss_recovered is measured against.",
    "loss_recovered": "Fall of the held-out loss as a share of the reference adapter's fall; 1 equals the reference.",
    "seconds": "Wall-clock time of the run; empty unless the study asks for it.",
    "measure": "How a latent's change is scored.",
    "rank": "Place by size of change within the group; 1 changed most.",
    "latent_index": "Index of the latent in the SAE.",
    "change": "Change of the latent under this measure, over seeds.",
    "pvalue": "Chance of so high an estimate if explanations and changes were unrelated (exchange test).",
    "most_changed_latents.pvalue": "Chance of so high a mean rank if the seeds ranked latents independently.",
    "explanation_verdicts.pvalue": "Chance of so high a score if explanations were exchangeable within strata.",
    "expected_score": "Score that the explanation would have at the average effect of this source's explanations.",
    "power": "Chance that a right explanation with this prediction reaches p < 0.05 here.",
    "contradiction_pvalue": "Chance of so low a score if the effect were at least the average.",
    "contradiction_qvalue": "The same, adjusted over the explanations of this source (Benjamini-Hochberg).",
    "qvalue": "p-value adjusted for the number of tests (Benjamini-Hochberg).",
    "direction": "Whether training pushed the latent up or down, whichever lowers the loss.",
    "firing_rate": "Share of tokens of the reference corpus on which the latent fires.",
    "source": "Where the explanation came from.",
    "explanation": "The explanation under test, as its source gives it.",
    "judge": "What turned explanation and behavior into an expected effect.",
    "expected_effect": "Effect that the judge expects of the latent for this behavior; above 0: expected to change.",
    "verdict": "expected, unexpected, unexplained, not asked (outside the sample), or unstable (seeds disagree).",
    "explanation_verdicts.verdict": (
        "What the behaviors together say of this explanation: supported, contradicted, absorbed (a neighbour changed "
        "in its place), untestable or inconclusive."
    ),
    "url": "Page of the latent at its source.",
    "control": "'none' is the result itself; any other value names the control that stands in its place.",
    "statistic": (
        "auroc: chance that an expected latent changed more than another; spearman: rank correlation; sign_agreement: "
        "share that moved in the expected direction, less the share that moved against it."
    ),
    "estimate": (
        "Value of the statistic over latents (chance: 0.5 for auroc, 0 for spearman, for sign_agreement what its row "
        "with shuffled_explanations says)."
    ),
    "ci_low": "Lower end of the confidence interval.",
    "ci_high": "Upper end of the confidence interval.",
    "n_latents": "Latents in the frozen universe that the statistic runs over.",
    "n_expected": "Latents among them that the judge expects to change.",
    "n_seeds": "Seeds whose changes were combined.",
    "n_resamples": "Exchanges behind the p-value.",
    "noise_ceiling": "Highest estimate to hope for, given how well the seeds agree with each other.",
    "minimum_detectable_effect": "Smallest true value of the statistic that this test would have found.",
    "primary": "Whether this is the one combination that the study named before the run.",
    "reliability_single": "How far one seed's ranking of the latents is what all seeds share (ICC(C,1) of ranks).",
    "reliability": "The same for the mean over all seeds (ICC(C,k)); 1: seeds agree wholly, 0 or less: not at all.",
    "split_half": "The same from the correlation of halves of the seeds, by Spearman and Brown's formula.",
    "seeds.seeds": (
        "agree; disagree: reliability below 0.5, so that the ranking of latents is mostly noise and the adapter should "
        "not be ranked among others; unchanged: a seed kept its untrained adapter."
    ),
    "seeds.estimate": "Agreement of a single seed's changes with the primary expectations, mean over seeds.",
    "seeds.ci_low": "Lower end of the interval over seeds (Student's t): of another training on the same data.",
    "seeds.ci_high": "Upper end of the interval over seeds (Student's t): of another training on the same data.",
    "share_of_ceiling": (
        "How far the estimate is from chance to what a prediction by the other seeds reaches; above 1 where "
        "explanations tell more than they."
    ),
    "trained_on": "Behavior whose training made the changes.",
    "judged_for": "Behavior that the explanations were judged for.",
    "overall.quantity": (
        "agreement: mean over behaviors of the agreement with their own expectations; specificity: that minus the mean "
        "agreement with the expectations of other behaviors."
    ),
    "overall.estimate": "Mean over the behaviors that could be tested.",
    "overall.ci_low": "Lower end of the interval over behaviors (Student's t); empty with one.",
    "overall.ci_high": "Upper end of the interval over behaviors (Student's t); empty with one.",
    "overall.pvalue": (
        "agreement: explanations exchanged for all behaviors at once; specificity: behaviors matched with expectations "
        "at random (every matching, up to 8 behaviors)."
    ),
    "overall.n_behaviors": "Behaviors in the mean: those that expect some latents but not all, and changed some.",
    "leave_one_out_low": "Lowest estimate when one behavior is left out.",
    "leave_one_out_high": "Highest estimate when one behavior is left out.",
    "specificity.estimate": "Agreement of these changes with these explanations, in the study's primary statistic.",
    "design": "all: every latent that is alive was asked for; case_control: the most changed and matched controls.",
    "source_comparison.quantity": (
        "agreement: mean over behaviors of the agreement with their own expectations; specificity: that minus the mean "
        "agreement with the expectations of other behaviors."
    ),
    "source_comparison.rank": "Place among the judge's sources; 1 predicts best, equals share a place.",
    "side": "Side that the explanations speak of: what a latent fires on (input), what it promotes (output), or both.",
    "source_comparison.n_latents": "Latents that all of the judge's sources explain; the comparison is on these alone.",
    "source_comparison.n_behaviors": "Behaviors on which each of the judge's sources could be tested.",
    "source_comparison.n_expected": "Latents that the judge expects to change, mean over behaviors.",
    "source_comparison.estimate": "Mean over these behaviors of the primary statistic.",
    "source_comparison.ci_low": "Lower end of the interval over behaviors (Student's t); empty with one.",
    "source_comparison.ci_high": "Upper end of the interval over behaviors (Student's t); empty with one.",
    "rival": "The best of the judge's other sources.",
    "source_comparison.difference": "Estimate less the rival's: above 0 for the best source alone.",
    "difference_ci_low": (
        "Lower end of its interval, paired over behaviors and wide enough to hold for all pairs of sources at once."
    ),
    "difference_ci_high": "Upper end of the same interval; where it holds 0, neither source is known to be better.",
    "n_asked": "Latents that the source was asked for.",
    "n_explained": "Latents among them that it explains, which are the ones that results speak of.",
    "n_unlabelled": "Latents among them that the source has no explanation for.",
    "n_failed": "Latents among them whose look-up failed, so that nothing is known of their explanation.",
    "coverage": "n_explained as a share of n_asked.",
    "n_behaviors": "Behaviors on which the explanation was tested.",
    "score": (
        "How well predicted effects and changes match over behaviors, studentised against exchanged explanations "
        "(chance: 0)."
    ),
    "reason": "Why the verdict was given.",
    "k": "Number of latents that were set back to what they did before training.",
    "latents": "most_changed: the k that changed most; matched_random: k others alike in firing rate and decoder norm.",
    "causal_check.loss_recovered": (
        "Share of the adapter's fall in held-out loss that remains without these latents' changes: 1 if they had no "
        "part in it, 0 if they had all."
    ),
    "causal_check.ci_low": (
        "Lower end of the interval: over seeds and held-out rows for most_changed, over draws for matched_random."
    ),
    "causal_check.ci_high": (
        "Upper end of the interval: over seeds and held-out rows for most_changed, over draws for matched_random."
    ),
    "against": "Judge that this one is compared with; where it is a reference, what it says counts as right.",
    "judge_quality.statistic": "kappa and mcc: agreement on what is expected, beyond chance; spearman: on the effects.",
    "judge_quality.estimate": "Value of the statistic (no agreement beyond chance: 0 for kappa, mcc and spearman).",
    "judge_quality.n_latents": "Latents with a judgement by both.",
    "n_explanations": "Distinct explanations among them: the unit of the intervals.",
    "n_judgements": "Pairs of latent and behavior that both judged.",
    "corrected": "The estimate without the judge's mistakes; empty where they cannot be taken back.",
    "corrected_agreement.ci_low": "Lower end of the corrected interval; takes the judge's rates as known exactly.",
    "corrected_agreement.ci_high": "Upper end of the corrected interval; takes the judge's rates as known exactly.",
    "sensitivity": "Share of what the reference expects that the judge expects too.",
    "specificity": "Share of what the reference does not expect that the judge does not either.",
    "correlation": "Rank correlation of the judge's expected effects with the reference's.",
    "diagnostics.quantity": (
        "explained_share: share of the squared change of the residual stream that the change of latents reproduces;"
        " heldout_loss_displaced and heldout_loss_pulled_back: held-out loss under the one and under the other;"
        " heldout_auroc and heldout_accuracy: how well a baseline's direction tells held-out completions from its"
        " contrast; steering_strength: norm of what the baseline adds, as a share of the residual stream's."
    ),
    "diagnostics.value": "The measured value: a share, an area under the curve, or a loss in nats per token.",
    "behavior_check.score": "How answers were scored: words, phrases, length, classifier (docs/config.md, Score).",
    "scorer": "What told how well an explanation fits an item, as named in the study's config.",
    "explanation_scores.score": (
        "detection: windows in which the latent fires, among others; fuzzing: the tokens on which it fires, among "
        "others of the same windows; output: the tokens that it makes likelier, among those of other latents."
    ),
    "explanation_quality.score": "detection, fuzzing or output, as in explanation_scores.csv.",
    "agreement_by_quality.score": "The score that latents are grouped by, as in explanation_scores.csv.",
    "n_items": "Items that the explanation was matched with; of windows, half hold.",
    "explanation_scores.value": (
        "Chance that an item that holds fits better than one that does not (no information: 0.5); for answers of yes "
        "and no, balanced accuracy; empty where the scorer gave no answer."
    ),
    "explanation_scores.floor": "The same items with the explanation of another latent, drawn by seed.",
    "explanation_quality.n_explanations": "Explanations scored, one per latent.",
    "explanation_quality.n_failed": "Explanations that the scorer gave no answer on; they are in no mean.",
    "mean": "Mean value over these explanations.",
    "explanation_quality.ci_low": "Lower end of the interval of the mean over latents (Student's t).",
    "explanation_quality.ci_high": "Upper end of the interval of the mean over latents (Student's t).",
    "explanation_quality.floor": "Mean over the same latents with explanations exchanged between them.",
    "quality": (
        "Third of the latents by their explanation's value: low, middle, high. Latents of one value stay together, in "
        "the third that holds their middle rank, so thirds can differ in size and one can be absent."
    ),
    "agreement_by_quality.n_latents": "Latents of this third in the frozen universe.",
    "agreement_by_quality.n_expected": "Pairs of a behavior and a latent of the third that it is expected to change.",
    "agreement_by_quality.n_behaviors": "Behaviors in the mean: those that expect some of these latents but not all.",
    "agreement_by_quality.estimate": (
        "AUROC among the latents of this third, mean over behaviors, whichever share of the latents each expects."
    ),
    "agreement_by_quality.ci_low": "Lower end of the interval over behaviors (Student's t); empty with one.",
    "agreement_by_quality.ci_high": "Upper end of the interval over behaviors (Student's t); empty with one.",
    "n_prompts": "Different held-out prompts that were answered; the unit of the interval.",
    "before": "Mean score of the model's own answers.",
    "after": "Mean score of the answers with the adapter at work.",
    "behavior_check.ci_low": "Lower end of the interval of after less before, over prompts.",
    "behavior_check.ci_high": "Upper end of the interval of after less before, over prompts.",
    "target": "Mean score of the data's own replies to the same prompts: about where imitating them would lead.",
    "behavior_check.n_seeds": "Seeds whose adapters answered; their scores were averaged prompt by prompt.",
    "audit": "The audit, as named in the study's config: a clean and a suspect set of data.",
    "audit.rank": "Place by estimate; 1 is what the suspect data teaches most in excess. Empty where undefined.",
    "audit.behavior": "The candidate: a behavior that the suspect data may teach.",
    "audit.estimate": (
        "How far the latents that this behavior is expected to raise are those that the suspect data raised more than "
        "the clean data did, in the primary statistic, mean over seeds (chance: 0.5 for auroc, 0 for spearman)."
    ),
    "audit.ci_low": "Lower end of the interval, over seeds and over other rows of the same origins.",
    "audit.ci_high": "Upper end of the interval, over seeds and over other rows of the same origins.",
    "audit.pvalue": "The larger of pvalue_rows and pvalue_exchange: both nulls have to fall.",
    "audit.qvalue": "pvalue adjusted over the candidates of this audit, source and judge (Benjamini-Hochberg).",
    "pvalue_rows": (
        "Chance of so high an estimate between two draws of rows from one origin, by the spread over subsamples "
        "(moderated t, one-sided); empty where each seed saw all rows."
    ),
    "pvalue_exchange": "Chance of so high an estimate if explanations were exchangeable within strata.",
    "difference": "Change under the suspect data less change under the clean data, mean over seeds.",
    "expected_for": "The candidates that the judge expects to raise this latent.",
    "audit_latents.rank": "Place by size of the difference.",
    "audit_latents.statistic": "Moderated t of the difference over subsamples of the rows; empty if each saw all.",
    "audit_latents.pvalue": "Two-sided chance of so large a statistic between two draws of rows from one origin.",
    "audit_latents.qvalue": "The same, adjusted over the latents (Benjamini-Hochberg).",
    "quantity": "What was checked against the known truth.",
    "setting": "Under which conditions.",
    "value": "What was found.",
}


def meaning(table: str, column: str) -> str:
    """Return the one-line meaning of a column; an unknown table or column is an `InputError`."""
    if column not in {known.name for known in columns_of(table)}:
        raise unknown_name(f"column of table {table!r}:", column, [known.name for known in columns_of(table)])
    specific = f"{table}.{column}"
    return MEANINGS[specific] if specific in MEANINGS else MEANINGS[column]
