"""Columns that several result tables share, each defined once."""

from __future__ import annotations

from isaerft.table import Column

SUBJECT = Column(
    "subject", "text", "Name of the subject in the study's config: a model and an SAE at one hook.", role="key"
)
BEHAVIOR = Column("behavior", "text", "Behavior that the model was trained on.", role="key")
ADAPTER = Column("adapter", "text", "Adapter, as named in the study's config.", role="key")
MEASURE = Column("measure", "text", "How a latent's change is measured.", role="key")
SEED = Column("seed", "int", "Replicate of the training.", role="key")
SOURCE = Column("source", "text", "Where the explanations come from.", role="key")
PROVENANCE = Column(
    "provenance",
    "text",
    "Whether the explanations are of this SAE's latents. proven: made from the subject's own contexts, or the latents "
    "promote the tokens that the labels' pages list for them; stated: a name of this SAE comes with them; unknown: "
    "neither, or they say otherwise and were taken all the same (other_sae).",
)
SIDE = Column(
    "side",
    "text",
    "What the explanations describe: what a latent fires on (input), what it promotes (output), or both.",
)
JUDGE = Column("judge", "text", "What predicts an effect from explanation and behavior.", role="key")
LATENT_INDEX = Column("latent_index", "int", "Index of the latent in the SAE.")
EXPLANATION = Column("explanation", "text", "The explanation, as its source gives it.")
FIRING_RATE = Column("firing_rate", "float", "Share of tokens of the reference corpus on which the latent fires.")
URL = Column("url", "text", "Page of the latent at its source.", optional=True)

STATISTIC = Column(
    "statistic",
    "text",
    "auroc: probability that an expected latent changed more than another; spearman: rank correlation; "
    "sign_agreement: share that moved in the expected direction minus the share that moved against it.",
    role="key",
)


def ci_columns(of: str, *, prefix: str = "", optional: bool = True) -> tuple[Column, Column]:
    """Return the two columns of an interval; `of` says which: "the confidence interval over worlds"."""
    ends = (("ci_low", "Lower"), ("ci_high", "Upper"))
    low, high = (Column(prefix + name, "float", f"{end} end of {of}.", optional=optional) for name, end in ends)
    return low, high


CI = ci_columns("the confidence interval")
CI_OVER_BEHAVIORS = ci_columns("the confidence interval over behaviors (Student's t); empty with one behavior")
QVALUE = Column(
    "qvalue", "float", "p-value adjusted for the number of tests in its family (Benjamini-Hochberg).", optional=True
)
FAMILY = Column(
    "family",
    "text",
    "The question that this test is a part of, whose other tests count for its q-value; empty for controls and for "
    "explanations that are wrong on purpose, which are never among the findings.",
    optional=True,
)
QVALUE_OF_FAMILIES = Column(
    "qvalue",
    "float",
    "p-value adjusted for the tests that were looked at. The primary result: those of its family (Benjamini-Hochberg); "
    "q supports a claim on this row. Others: those of the family and the choice among all families (Benjamini and "
    "Bogomolov 2014); q supports a claim that was picked from the whole table.",
    optional=True,
)
QUANTITY = Column(
    "quantity",
    "text",
    "agreement: mean over behaviors of the agreement with their own expectations; specificity: that mean minus the "
    "mean agreement with the expectations of other behaviors.",
    role="key",
)
N_LATENTS = Column("n_latents", "int", "Latents that the statistic is computed over.")
N_EXPECTED = Column("n_expected", "int", "Latents among them that the judge expects to change.", optional=True)
N_SEEDS = Column("n_seeds", "int", "Seeds whose changes were combined.")
PRIMARY = Column("primary", "bool", "Whether the row is the result that the study named as primary before the run.")
