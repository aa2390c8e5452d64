"""Do latents' changes agree with what their explanations expect? Numbers in, small frozen results out."""

from isaerft.registry import STATISTICS
from isaerft.stats.agreement import agreement_test, agreement_tests
from isaerft.stats.confounds import clusters_of, strata_of
from isaerft.stats.exchange import Exchange, exchange_within
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
from isaerft.stats.multiple import qvalues
from isaerft.stats.overall import (
    OverallResult,
    PooledResult,
    overall_agreement,
    overall_specificity,
    pooled_agreement,
    pooled_agreements,
)
from isaerft.stats.power import (
    auroc_ceiling,
    hanley_mcneil_sd,
    minimum_detectable_correlation,
    minimum_detectable_effect,
)
from isaerft.stats.question import AgreementResult, exchange_pvalue
from isaerft.stats.raters import (
    agreement_of_judges,
    corrected_auroc,
    corrected_correlation,
    predictive_values,
    rank_agreement,
)
from isaerft.stats.sampling import CaseControl, case_control, matched_draws
from isaerft.stats.seeds import (
    Reliability,
    disattenuated_auroc,
    mean_rank,
    reliability,
    scaled_ranks,
    stability_pvalue,
)
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
from isaerft.stats.verdicts import ProfileMatch, Verdict, decide, match_profiles, score_elsewhere

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
    "Verdict",
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
    "decide",
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
