"""The tables about steering: does amplifying a latent do what its explanation claims, and does the verdict tell?

steering_check.csv holds the effect of each steered latent on each behavior, steering_latents.csv whether it is as the
explanation claims, and steering_summary.csv how well verdicts and scores tell for which latents it is. They share a
module because the last two are made from the first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import CI, EXPLANATION, JUDGE, LATENT_INDEX, SOURCE, SUBJECT, ci_columns
from isaerft.analysis.steered_latents import GROUPS, SUPPORTED, claims_of
from isaerft.config import Plan
from isaerft.io import read_parquet
from isaerft.table import Column


def steering_check(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each steered latent and behavior with a metric."""
    parts = [_effects(analysis, subject) for subject in analysis.plan.steering_checked]
    return pd.concat(parts, ignore_index=True)


def steering_latents(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each steered latent."""
    table = analysis.frame("steering_check")
    parts = [_confirmed(analysis, subject, table[table["subject"] == subject]) for subject in table["subject"].unique()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def steering_summary(analysis: Analysis) -> pd.DataFrame:
    """Return the mean effect of each group, and the AUROC of each predictor."""
    rows = []
    for subject, latents in analysis.frame("steering_latents").groupby("subject", sort=False):
        rows += [{"subject": subject} | row for row in [*_groups(analysis, latents), *_predictors(analysis, latents)]]
    return pd.DataFrame(rows)


def _scores(analysis: Analysis, subject: str) -> pd.DataFrame:
    """Return the scores that the steering check of a subject wrote, mean over strengths: one row per latent,
    behavior and prompt.
    """
    path = analysis.results.steering_check(subject).scores
    table = read_parquet(path, missing=f"{path} does not exist", remedy="run the rule `steering_check`")
    keys = ["latent_index", "behavior", "prompt"]
    means = table.groupby(keys, sort=False)[["plain", "amplified", "suppressed"]].mean().reset_index()
    return means.merge(table[["latent_index", "group", "matched_to"]].drop_duplicates(), on="latent_index")


def _effects(analysis: Analysis, subject: str) -> pd.DataFrame:
    reading, plan = analysis.primary_reading(subject), analysis.plan
    scores = _scores(analysis, subject)
    if reading is None or scores.empty:
        return pd.DataFrame()
    behaviors, level = plan.steering_scored, plan.study.agreement.confidence_level
    claims = pd.DataFrame(claims_of(reading, behaviors).T, index=reading.latents, columns=behaviors)
    said = reading.explained.explanations.set_index("latent_index")["explanation"]
    rows = []
    for (latent, behavior), own in scores.groupby(["latent_index", "behavior"], sort=False):
        difference = (own["amplified"] - own["suppressed"]).to_numpy(float)
        low, high = stats.mean_interval(difference, level)
        rows.append(
            reading.names
            | {
                "latent_index": latent,
                "explanation": said[latent],
                "group": own["group"].iloc[0],
                "matched_to": own["matched_to"].iloc[0],
                "behavior": behavior,
                "claim": claims.loc[latent, behavior],
                "n_prompts": len(own),
                "plain": own["plain"].mean(),
                "amplified": own["amplified"].mean(),
                "suppressed": own["suppressed"].mean(),
                "effect": difference.mean(),
                "ci_low": low,
                "ci_high": high,
            }
        )
    return pd.DataFrame(rows)


def _confirmed(analysis: Analysis, subject: str, effects: pd.DataFrame) -> pd.DataFrame:
    """Return whether each latent of a subject does what its explanation claims."""
    scores, behaviors = _scores(analysis, subject), analysis.plan.steering_scored
    claims = effects.pivot(index="behavior", columns="latent_index", values="claim").loc[behaviors]
    wide = {
        side: scores.pivot(index=["latent_index", "behavior"], columns="prompt", values=side)
        for side in ("amplified", "suppressed")
    }
    both = pd.concat(wide.values(), axis=1)
    scale = np.array([both.xs(name, level="behavior").to_numpy(float).std() for name in behaviors])
    rows = []
    for latent in effects[[column.name for column in _LATENT_COLUMNS]].drop_duplicates().to_dict("records"):
        index, own = latent["latent_index"], claims[latent["latent_index"]].to_numpy(int)
        found = stats.claimed_effect(
            wide["amplified"].loc[index].loc[behaviors],
            wide["suppressed"].loc[index].loc[behaviors],
            own,
            scale=scale,
            confidence_level=analysis.plan.study.agreement.confidence_level,
        )
        low, high = found.confidence_interval
        said = {1: "raises", -1: "lowers"}
        claim = "; ".join(f"{said[sign]} {name}" for name, sign in zip(behaviors, own, strict=True) if sign)
        rows.append(latent | {"claim": claim, "effect": found.estimate, "ci_low": low, "ci_high": high})
    table = pd.DataFrame(rows)
    return table.assign(confirmed=table["ci_low"] > 0)


def _groups(analysis: Analysis, latents: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield the mean effect of each group of latents."""
    for group in GROUPS:
        own = latents[latents["group"] == group]
        values = own["effect"].to_numpy(float)
        low, high = stats.mean_interval(values, analysis.plan.study.agreement.confidence_level)
        yield {
            "quantity": "claimed_effect",
            "of": group,
            "n_latents": len(own),
            "n_confirmed": int(own["confirmed"].sum()),
            "estimate": values.mean() if len(values) else np.nan,
            "ci_low": low,
            "ci_high": high,
        }


def _predictors(analysis: Analysis, latents: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield how well verdict and scores tell for which latents steering does what is claimed."""
    found = stats.compare_predictors(
        latents["confirmed"].to_numpy(bool),
        _scores_of(analysis, latents),
        confidence_level=analysis.plan.study.agreement.confidence_level,
        rng=analysis.plan.study.seed,
    )
    for name, predictor in found.items():
        yield {
            "quantity": "auroc",
            "of": name,
            "n_latents": predictor.n_latents,
            "n_confirmed": predictor.n_positive,
            "estimate": predictor.auroc,
            "ci_low": predictor.confidence_interval.low,
            "ci_high": predictor.confidence_interval.high,
            "difference": predictor.difference,
            "difference_low": predictor.difference_interval.low,
            "difference_high": predictor.difference_interval.high,
        }


def _scores_of(analysis: Analysis, latents: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return what could tell, by name: the verdict, its score, and the scores of the explanations themselves."""
    names, index = latents[["subject", "source", "judge"]].iloc[0], latents["latent_index"]
    verdicts = analysis.frame("explanation_verdicts")
    own = verdicts[(verdicts[names.index] == names).all(axis=1)].set_index("latent_index")
    found = {
        "verdict supported": (latents["group"] == SUPPORTED).to_numpy(float),
        "verdict score": own["score"].reindex(index).to_numpy(float),
    }
    if analysis.plan.scorers_of(str(names["source"])):
        scores = analysis.frame("explanation_scores")
        scores = scores[(scores["subject"] == names["subject"]) & (scores["source"] == names["source"])]
        for (scorer, score), rows in scores.groupby(["scorer", "score"], sort=False):
            found[f"{score} ({scorer})"] = rows.set_index("latent_index")["value"].reindex(index).to_numpy(float)
    return found


def _has_check(plan: Plan) -> bool:
    return bool(plan.steering_checked)


_CONDITION = "studies with a steering check"
_GROUP = Column(
    "group",
    "text",
    "supported or contradicted: the verdict on the explanation; untested: a control without either verdict.",
)
_MATCHED_TO = Column(
    "matched_to",
    "int",
    "For a control, the latent with a verdict that it resembles in firing rate and decoder norm.",
    optional=True,
)

_LATENT_COLUMNS = (SUBJECT, SOURCE, JUDGE, LATENT_INDEX, EXPLANATION, _GROUP, _MATCHED_TO)

EFFECTS = ResultTable(
    name="steering_check",
    order=320,
    caption=(
        "What amplifying and suppressing single latents does to answers, scored by each behavior's metric, beside what "
        "the latents' explanations claim."
    ),
    columns=(
        *_LATENT_COLUMNS,
        Column("behavior", "text", "Behavior whose metric scores the answers."),
        Column(
            "claim",
            "int",
            "What the explanation claims, as the judge reads it: 1 that amplifying raises the score, -1 that it lowers "
            "it, 0 nothing.",
        ),
        Column("n_prompts", "int", "Prompts that were answered; the unit of the interval."),
        Column("plain", "float", "Mean score of the answers without steering."),
        Column("amplified", "float", "Mean score with the latent amplified, over prompts and strengths."),
        Column("suppressed", "float", "Mean score with it suppressed by as much."),
        Column("effect", "float", "amplified minus suppressed, in the metric's unit."),
        *ci_columns("the interval of the effect over prompts (Student's t)"),
    ),
    when=_has_check,
    condition=_CONDITION,
    make=steering_check,
)

LATENTS = ResultTable(
    name="steering_latents",
    order=321,
    caption="Whether steering has the effect that each latent's explanation claims, over all behaviors that it names.",
    columns=(
        *_LATENT_COLUMNS,
        Column("claim", "text", "What amplifying the latent does to behaviors, as the judge reads the explanation."),
        Column(
            "effect",
            "float",
            "Mean over these behaviors of the effect in the claimed direction, in standard deviations of the scores of "
            "all steered answers.",
        ),
        *ci_columns("its interval over prompts (Student's t)"),
        Column("confirmed", "bool", "Whether the interval lies above 0: steering has the claimed effect."),
    ),
    when=_has_check,
    condition=_CONDITION,
    make=steering_latents,
)

SUMMARY = ResultTable(
    name="steering_summary",
    order=322,
    caption=(
        "How well the verdict tells for which latents steering has the claimed effect, beside the scores of the "
        "explanations themselves."
    ),
    columns=(
        SUBJECT,
        Column(
            "quantity",
            "text",
            "claimed_effect: mean effect in the claimed direction over a group's latents, in standard deviations; "
            "auroc: probability that a latent whose claim steering confirms scores higher than another (chance: 0.5).",
            role="key",
        ),
        Column(
            "of",
            "text",
            "The group of latents (supported, contradicted, untested), or what could tell: verdict supported (yes or "
            "no), verdict score (explanation_verdicts.csv), or a score of the explanation (scorer in brackets).",
            role="key",
        ),
        Column("n_latents", "int", "Latents in the group, or with such a score."),
        Column("n_confirmed", "int", "Those of them whose claim steering confirms."),
        Column(
            "estimate",
            "float",
            "Value of the quantity; empty without latents of both kinds.",
            optional=True,
            role="estimate",
        ),
        *CI,
        Column("difference", "float", "AUROC less that of `verdict supported` on the same latents.", optional=True),
        Column(
            "difference_low",
            "float",
            "Lower end of the difference's interval (paired bootstrap over latents).",
            optional=True,
        ),
        Column(
            "difference_high",
            "float",
            "Upper end of the difference's interval (paired bootstrap over latents).",
            optional=True,
        ),
    ),
    when=_has_check,
    condition=_CONDITION,
    make=steering_summary,
)

TABLES = [EFFECTS, LATENTS, SUMMARY]
