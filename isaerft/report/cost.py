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
from isaerft.explanations.design import latents_asked
from isaerft.llm import LanguageModel, Plan, price
from isaerft.relevance.llm import plan
from isaerft.report.assemble.inputs import judges_of, sources_of
from isaerft.subjects.paths import SubjectFolder

FILLER_CHARACTERS = 120


@dataclass(frozen=True)
class Cost:
    """What one judge takes on one source of one subject; `exact` unless the explanations are still to come."""

    subject: str
    source: str
    judge: str
    llm: str
    plan: Plan
    exact: bool


def costs(study: config.Study, results: str | Path) -> Iterator[Cost]:
    """Yield what each language-model judge will take, by what stands in the cache and under `results` now."""
    behaviors = {name: part.description for name, part in study.behaviors.items()}
    for subject in study.subjects:
        for source in sources_of(study, subject):
            for judge in judges_of(study, source):
                options = study.judges[judge]
                if options.llm is None:
                    continue
                path = Path(results) / "explanations" / subject / f"{source}.parquet"
                exact = path.is_file()
                found = read_explanations(path) if exact else _expected(study, subject, source, Path(results))
                taken = plan(found, behaviors, options, LanguageModel.of(study, options.llm))
                yield Cost(subject, source, judge, options.llm, taken, exact)


def _expected(study: config.Study, subject: str, source: str, results: Path) -> pd.DataFrame:
    """Return stand-ins for explanations that are still to come: one for each latent asked for, all different."""
    folder, sampled = SubjectFolder(results / "subjects" / subject), study.design_of(source) == "case_control"
    sample = results / "design" / f"{subject}.parquet"
    if folder.latents.is_file() and (sample.is_file() or not sampled):
        least = study.agreement.min_firing_rate
        latents = latents_asked(folder.read_latents(), least, sample if sampled else None)
    else:
        n_latents = _d_sae(study.subjects[subject], folder)
        if sampled:
            n_groups = len(study.behaviors) * len(study.analysed_adapters())
            n_latents = min(n_latents, n_groups * study.design.n_cases * (1 + study.design.controls_per_case))
        latents = np.arange(n_latents)
    texts = [f"(explanation still to come) {latent}".ljust(FILLER_CHARACTERS, ".") for latent in latents]
    return pd.DataFrame({"latent_index": latents, "explanation": texts, "side": "input", "url": ""})


def _d_sae(options: config.Subject, folder: SubjectFolder) -> int:
    """Return the size of the dictionary; 0 where it is not known yet."""
    if folder.card.is_file():
        return int(folder.read_cards()[0]["d_sae"])
    if options.release is None and options.sae_path is None:
        return (options.train_sae or config.TrainSae()).d_sae
    return 0


def cost_lines(study: config.Study, results: str | Path) -> list[str]:
    """Return what to tell a user: one line per judge and source, one per language model."""
    lines, totals = [], {name: Plan() for name in study.llms}
    for cost in costs(study, results):
        totals[cost.llm] += cost.plan
        where = f"{cost.subject}, {cost.source}, judge {cost.judge}"
        if cost.exact:
            lines.append(f"{where}: {_said(cost.plan, study.llms[cost.llm])}")
        elif cost.plan.prompts:
            lines.append(f"{where}: no explanations yet; at most {_said(cost.plan, study.llms[cost.llm])}")
        else:
            lines.append(f"{where}: no explanations yet, and the number of latents is not known")
    for name, total in totals.items():
        lines.append(f"llm {name} ({study.llms[name].model}): {_said(total, study.llms[name])}; {_caps(study, name)}")
    return lines or ["no language model is asked"]


def _said(plan: Plan, llm: config.Llm) -> str:
    said = f"{plan.calls:,} requests ({plan.cached:,} of {plan.prompts:,} cached)"
    if plan.calls:
        said += f", about {plan.prompt_tokens:,} tokens in and {plan.completion_tokens:,} out"
        cost = price(plan, llm)
        said += "" if cost is None else f", price {cost:,.2f}"
    return said


def _caps(study: config.Study, name: str) -> str:
    llm, model = study.llms[name], LanguageModel.of(study, name)
    try:
        calls, tokens = model.cache.used(study.study, name)
    finally:
        model.cache.close()
    return f"used so far {calls:,} of {llm.max_calls:,} requests and {tokens:,} of {llm.max_tokens:,} tokens"
