"""Statistics of agreement between changes and expectations: arrays in, small frozen results out.

The names below are imported on first use, so that `import isaerft.stats` is fast and does not import scipy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from isaerft.registry import STATISTICS

if TYPE_CHECKING:
    from isaerft.stats.agreement import AgreementResult, agreement_test, agreement_tests
    from isaerft.stats.ceilings import (
        auroc_ceiling_of_mean,
        auroc_ceiling_of_seed,
        spearman_ceiling_of_mean,
        spearman_ceiling_of_seed,
    )
    from isaerft.stats.checks import NullOptions
    from isaerft.stats.components import Recurrence, recurrence, recurrence_by_chance
    from isaerft.stats.confounds import clusters_of, negative_controls, strata_of
    from isaerft.stats.exchange import Exchange, exchange_within, joined
    from isaerft.stats.families import families_of
    from isaerft.stats.finding import OverWorlds, auroc_of_wrong, mean_of_ranks, over_worlds
    from isaerft.stats.intervals import (
        Compared,
        ConfidenceInterval,
        PairedMeans,
        Share,
        auroc_interval,
        compare_means,
        mean_interval,
        median_of_draws,
        paired_means,
        remaining_share,
    )
    from isaerft.stats.multiple_testing import family_qvalues, qvalues
    from isaerft.stats.noise import (
        Discriminability,
        Margin,
        Noise,
        discriminability,
        factor_among,
        jackknife_sd,
        margin_of_independent,
        margin_of_paired,
        noise_of,
        noise_of_all_seeds,
        reliable_difference,
    )
    from isaerft.stats.nulls import exchange_pvalue
    from isaerft.stats.onset import onsets, share_reached
    from isaerft.stats.overall import OverallResult, overall_agreement, overall_specificity, specificity_estimate
    from isaerft.stats.power import disattenuated_auroc, hanley_mcneil_sd
    from isaerft.stats.raters import (
        Estimate,
        agreement_of_judges,
        attenuation,
        corrected_auroc,
        corrected_correlation,
        error_rates,
        rank_agreement,
    )
    from isaerft.stats.sampling import CaseControl, case_control, matched_draws
    from isaerft.stats.seeds import Reliability, mean_rank, reliability, scaled_ranks, stability_pvalue
    from isaerft.stats.specificity import (
        SpecificityResult,
        contrast_parts,
        specificity_matrix,
        specificity_of,
        specificity_test,
    )
    from isaerft.stats.statistics import (
        Statistic,
        auroc,
        enrichment,
        precision_at,
        precision_at_k,
        sign_agreement,
        spearman,
        stratified_auroc,
    )
    from isaerft.stats.steering import ClaimedEffect, Predictor, claimed_effect, compare_predictors
    from isaerft.stats.tails import Tail, n_carrying, tail_of
    from isaerft.stats.trainings import TrainingsResult, against_others, others_of, placebo_pvalue
    from isaerft.stats.verdicts import ProfileMatch, Verdict, decide, match_profiles, score_elsewhere

_NAMES = {
    "agreement": "AgreementResult agreement_test agreement_tests",
    "ceilings": "auroc_ceiling_of_mean auroc_ceiling_of_seed spearman_ceiling_of_mean spearman_ceiling_of_seed",
    "checks": "NullOptions",
    "components": "Recurrence recurrence recurrence_by_chance",
    "confounds": "clusters_of negative_controls strata_of",
    "exchange": "Exchange exchange_within joined",
    "families": "families_of",
    "finding": "OverWorlds auroc_of_wrong mean_of_ranks over_worlds",
    "intervals": "Compared ConfidenceInterval PairedMeans Share auroc_interval compare_means mean_interval"
    " median_of_draws paired_means remaining_share",
    "multiple_testing": "family_qvalues qvalues",
    "noise": "Discriminability Margin Noise discriminability factor_among jackknife_sd margin_of_independent"
    " margin_of_paired noise_of noise_of_all_seeds reliable_difference",
    "nulls": "exchange_pvalue",
    "onset": "onsets share_reached",
    "overall": "OverallResult overall_agreement overall_specificity specificity_estimate",
    "power": "disattenuated_auroc hanley_mcneil_sd",
    "raters": "Estimate agreement_of_judges attenuation corrected_auroc corrected_correlation error_rates"
    " rank_agreement",
    "sampling": "CaseControl case_control matched_draws",
    "seeds": "Reliability mean_rank reliability scaled_ranks stability_pvalue",
    "specificity": "SpecificityResult contrast_parts specificity_matrix specificity_of specificity_test",
    "statistics": "Statistic auroc enrichment precision_at precision_at_k sign_agreement spearman stratified_auroc",
    "steering": "ClaimedEffect Predictor claimed_effect compare_predictors",
    "tails": "Tail n_carrying tail_of",
    "trainings": "TrainingsResult against_others others_of placebo_pvalue",
    "verdicts": "ProfileMatch Verdict decide match_profiles score_elsewhere",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "STATISTICS",
    "AgreementResult",
    "CaseControl",
    "ClaimedEffect",
    "Compared",
    "ConfidenceInterval",
    "Discriminability",
    "Estimate",
    "Exchange",
    "Margin",
    "Noise",
    "NullOptions",
    "OverWorlds",
    "OverallResult",
    "PairedMeans",
    "Predictor",
    "ProfileMatch",
    "Recurrence",
    "Reliability",
    "Share",
    "SpecificityResult",
    "Statistic",
    "Tail",
    "TrainingsResult",
    "Verdict",
    "against_others",
    "agreement_of_judges",
    "agreement_test",
    "agreement_tests",
    "attenuation",
    "auroc",
    "auroc_ceiling_of_mean",
    "auroc_ceiling_of_seed",
    "auroc_interval",
    "auroc_of_wrong",
    "case_control",
    "claimed_effect",
    "clusters_of",
    "compare_means",
    "compare_predictors",
    "contrast_parts",
    "corrected_auroc",
    "corrected_correlation",
    "decide",
    "disattenuated_auroc",
    "discriminability",
    "enrichment",
    "error_rates",
    "exchange_pvalue",
    "exchange_within",
    "factor_among",
    "families_of",
    "family_qvalues",
    "hanley_mcneil_sd",
    "jackknife_sd",
    "joined",
    "margin_of_independent",
    "margin_of_paired",
    "match_profiles",
    "matched_draws",
    "mean_interval",
    "mean_of_ranks",
    "mean_rank",
    "median_of_draws",
    "n_carrying",
    "negative_controls",
    "noise_of",
    "noise_of_all_seeds",
    "onsets",
    "others_of",
    "over_worlds",
    "overall_agreement",
    "overall_specificity",
    "paired_means",
    "placebo_pvalue",
    "precision_at",
    "precision_at_k",
    "qvalues",
    "rank_agreement",
    "recurrence",
    "recurrence_by_chance",
    "reliability",
    "reliable_difference",
    "remaining_share",
    "scaled_ranks",
    "score_elsewhere",
    "share_reached",
    "sign_agreement",
    "spearman",
    "spearman_ceiling_of_mean",
    "spearman_ceiling_of_seed",
    "specificity_estimate",
    "specificity_matrix",
    "specificity_of",
    "specificity_test",
    "stability_pvalue",
    "strata_of",
    "stratified_auroc",
    "tail_of",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
