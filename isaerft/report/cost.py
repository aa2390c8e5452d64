"""What a study's language models will cost, before anything is asked: exact where the explanations are there already.

Where they are not, every latent asked for is taken to have an explanation of its own, of middling length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.explanations import read_explanations
from isaerft.explanations.base import latents_asked
from isaerft.explanations.llm import plan as requests_of_source
from isaerft.explanations.llm import plan_unseen
from isaerft.explanations.local import read_contexts
from isaerft.judges.llm import plan as requests_of_judge
from isaerft.layout import SubjectFolder
from isaerft.llm import LanguageModel, RequestPlan, price
from isaerft.scorers import tasks_of
from isaerft.scorers.base import N_LISTS
from isaerft.scorers.matchers import plan as requests_of_scorer
from isaerft.scorers.matchers import plan_unseen as plan_unscored

FILLER_CHARACTERS = 120


@dataclass(frozen=True)
class Cost:
    """What a source, or a judge or scorer of it, takes on a subject; `exact` unless what it reads is to come."""

    subject: str
    source: str
    judge: str | None
    llm: str
    plan: RequestPlan
    exact: bool
    scorer: str | None = None


def costs(plan: config.Plan, results: str | Path) -> Iterator[Cost]:
    """Yield what each source and judge that asks a language model will take, by what stands under `results` now."""
    for subject in plan.study.subjects:
        for source in plan.sources_of(subject):
            path = Path(results) / "explanations" / subject / f"{source}.parquet"
            writer, exact = plan.study.sources[source].llm, path.is_file()
            latents = np.arange(0) if exact and writer is None else _asked(plan, subject, source, Path(results))
            if writer is not None:
                yield Cost(subject, source, None, writer, *_of_source(plan, subject, source, Path(results), latents))
            found = read_explanations(path) if exact else _expected(latents)
            for judge in plan.judges_of(source):
                if plan.study.judges[judge].llm is not None:
                    yield _of_judge(plan, subject, source, judge, found, exact)
            for scorer in plan.scorers_of(source):
                if plan.study.scorers[scorer].llm is not None:
                    yield _of_scorer(plan, subject, source, scorer, found, exact, Path(results))


def _of_judge(plan: config.Plan, subject: str, source: str, judge: str, found: pd.DataFrame, exact: bool) -> Cost:
    behaviors, options = plan.described, plan.study.judges[judge]
    llm = str(options.llm)
    return Cost(
        subject, source, judge, llm, requests_of_judge(found, behaviors, options, LanguageModel.of(plan, llm)), exact
    )


def _of_scorer(
    plan: config.Plan, subject: str, source: str, scorer: str, found: pd.DataFrame, known: bool, results: Path
) -> Cost:
    folder, options = SubjectFolder(results / "subjects" / subject), plan.study.scorers[scorer]
    model = LanguageModel.of(plan, str(options.llm))
    exact = known and folder.scored.is_file() and folder.latents.is_file()
    if exact:
        alive = latents_asked(folder.read_latents(), plan.study.agreement.min_firing_rate)
        scored = found[found["latent_index"].isin(alive)]
        tasks = tasks_of(read_contexts(folder.scored), scored, plan.study.seed, options.n_latents)
        requests = requests_of_scorer(tasks, plan.study.seed, model)
    else:
        n_latents = len(found) if options.n_latents is None else min(len(found), options.n_latents)
        requests = plan_unscored(n_latents, max(2 * plan.study.scored_windows, 1 + N_LISTS), model)
    return Cost(subject, source, None, str(options.llm), requests, exact, scorer)


def _of_source(
    plan: config.Plan, subject: str, source: str, results: Path, latents: np.ndarray
) -> tuple[RequestPlan, bool]:
    """Return what writing a source's explanations takes, and whether that is exact."""
    folder, options = SubjectFolder(results / "subjects" / subject), plan.study.sources[source]
    llm = LanguageModel.of(plan, str(options.llm))
    if not folder.contexts.is_file():
        return plan_unseen(options, len(latents), llm), False
    exact = plan.design_of(source) != "case_control" or (results / "design" / f"{subject}.parquet").is_file()
    if not exact:
        return plan_unseen(options, len(latents), llm), False
    return requests_of_source(options, folder.path, _d_sae(plan.study.subjects[subject], folder), latents, llm), True


def _asked(plan: config.Plan, subject: str, source: str, results: Path) -> np.ndarray:
    """Return the latents that a source will be asked for, (n,); where they are not known, as many as there can be."""
    folder, sampled = SubjectFolder(results / "subjects" / subject), plan.design_of(source) == "case_control"
    sample = results / "design" / f"{subject}.parquet"
    if folder.latents.is_file() and (sample.is_file() or not sampled):
        least = plan.study.agreement.min_firing_rate
        return latents_asked(folder.read_latents(), least, sample if sampled else None)
    n_latents = _d_sae(plan.study.subjects[subject], folder)
    if sampled:
        n_groups = len(plan.tested_behaviors) * len(plan.analysed_adapters())
        n_latents = min(n_latents, n_groups * plan.study.design.n_cases * (1 + plan.study.design.controls_per_case))
    return np.arange(n_latents)


def _expected(latents: np.ndarray) -> pd.DataFrame:
    """Return stand-ins for explanations that are still to come: one for each latent asked for, all different."""
    texts = [f"(explanation still to come) {latent}".ljust(FILLER_CHARACTERS, ".") for latent in latents]
    return pd.DataFrame({"latent_index": latents, "explanation": texts, "side": "input", "url": ""})


def _d_sae(options: config.Subject, folder: SubjectFolder) -> int:
    """Return the size of the dictionary; 0 where it is not known yet."""
    if folder.card.is_file():
        return int(folder.read_cards()[0]["d_sae"])
    if options.release is None and options.sae_path is None:
        return (options.train_sae or config.TrainSae()).d_sae
    return 0


def cost_lines(plan: config.Plan, results: str | Path) -> list[str]:
    """Return what to tell a user: one line per judge and source, one per language model."""
    lines, totals = [], {name: RequestPlan() for name in plan.study.llms}
    for cost in costs(plan, results):
        totals[cost.llm] += cost.plan
        reads = "explanations" if cost.judge else "evidence"
        asks = f"judge {cost.judge}" if cost.judge else f"scorer {cost.scorer}" if cost.scorer else "explaining"
        where = f"{cost.subject}, {cost.source}, {asks}"
        if cost.exact:
            lines.append(f"{where}: {_said(cost.plan, plan.study.llms[cost.llm])}")
        elif cost.plan.prompts:
            lines.append(f"{where}: no {reads} yet; at most {_said(cost.plan, plan.study.llms[cost.llm])}")
        else:
            lines.append(f"{where}: no {reads} yet, and the number of latents is not known")
    for name, total in totals.items():
        lines.append(
            f"llm {name} ({plan.study.llms[name].model}): {_said(total, plan.study.llms[name])}; {_caps(plan, name)}"
        )
    return lines or ["no language model is asked"]


def _said(plan: RequestPlan, llm: config.Llm) -> str:
    said = f"{plan.calls:,} requests ({plan.cached:,} of {plan.prompts:,} cached)"
    if plan.calls:
        said += f", about {plan.prompt_tokens:,} tokens in and {plan.completion_tokens:,} out"
        cost = price(plan, llm)
        said += "" if cost is None else f", price {cost:,.2f}"
    return said


def _caps(plan: config.Plan, name: str) -> str:
    llm, model = plan.study.llms[name], LanguageModel.of(plan, name)
    try:
        calls, tokens = model.cache.used(plan.study.study, name)
    finally:
        model.cache.close()
    return f"used so far {calls:,} of {llm.max_calls:,} requests and {tokens:,} of {llm.max_tokens:,} tokens"
