"""Do latents' changes agree with what their explanations expect? Numbers in, small frozen results out."""

from isaerft.registry import STATISTICS
from isaerft.stats.agreement import agreement_test
from isaerft.stats.attenuation import corrected_auroc, corrected_correlation, predictive_values
from isaerft.stats.case_control import CaseControl, case_control
from isaerft.stats.ceiling import auroc_ceiling
from isaerft.stats.clusters import clusters_of
from isaerft.stats.compared import Compared, compare_means
from isaerft.stats.enrichment import enrichment
from isaerft.stats.exchange import Exchange, exchange_within
from isaerft.stats.intervals import ConfidenceInterval, auroc_interval, mean_interval
from isaerft.stats.joint import agreement_tests
from isaerft.stats.matching import matched_draws
from isaerft.stats.multiple import qvalues
from isaerft.stats.overall import OverallResult, overall_agreement, overall_specificity
from isaerft.stats.paired import PairedMeans, paired_means
from isaerft.stats.pooled import PooledResult, pooled_agreement, pooled_agreements
from isaerft.stats.power import hanley_mcneil_sd, minimum_detectable_correlation, minimum_detectable_effect
from isaerft.stats.question import AgreementResult, exchange_pvalue
from isaerft.stats.raters import agreement_of_judges, rank_agreement
from isaerft.stats.seeds import (
    Reliability,
    disattenuated_auroc,
    mean_rank,
    reliability,
    scaled_ranks,
    stability_pvalue,
)
from isaerft.stats.shares import Share, median_of_draws, remaining_share
from isaerft.stats.signs import sign_agreement
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
    precision_at,
    precision_at_k,
    spearman,
    stratified_auroc,
)
from isaerft.stats.strata import strata_of
from isaerft.stats.verdicts import ProfileMatch, match_profiles, score_elsewhere

__all__ = [
    "STATISTICS",
    "AgreementResult",
    "CaseControl",
    "Compared",
    "ConfidenceInterval",
    "Exchange",
    "OverallResult",
    "PairedMeans",
    "PooledResult",
    "ProfileMatch",
    "Reliability",
    "Share",
    "SpecificityResult",
    "Statistic",
    "agreement_of_judges",
    "agreement_test",
    "agreement_tests",
    "auroc",
    "auroc_ceiling",
    "auroc_interval",
    "case_control",
    "clusters_of",
    "compare_means",
    "contrast_parts",
    "corrected_auroc",
    "corrected_correlation",
    "disattenuated_auroc",
    "enrichment",
    "exchange_pvalue",
    "exchange_within",
    "hanley_mcneil_sd",
    "match_profiles",
    "matched_draws",
    "mean_interval",
    "mean_rank",
    "median_of_draws",
    "minimum_detectable_correlation",
    "minimum_detectable_effect",
    "overall_agreement",
    "overall_specificity",
    "paired_means",
    "pooled_agreement",
    "pooled_agreements",
    "precision_at",
    "precision_at_k",
    "predictive_values",
    "qvalues",
    "rank_agreement",
    "reliability",
    "remaining_share",
    "scaled_ranks",
    "score_elsewhere",
    "sign_agreement",
    "spearman",
    "specificity_matrix",
    "specificity_of",
    "specificity_test",
    "stability_pvalue",
    "strata_of",
    "stratified_auroc",
]
