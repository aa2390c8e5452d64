"""Plan a study: the requests that its language models will get, and the latents that it needs.

Nothing is sent, and no key is needed. The cost is exact once the texts that a part reads exist. Before that, it is an
upper estimate: every latent to be explained gets a different text of typical length.

Sources, judges and scorers that ask a language model (registered with `asks=True`) are planned by their own method
`requests`, which returns the prompts of a call (see `isaerft.explanations.base.AskingSource`,
`isaerft.judges.base.AskingJudge` and `isaerft.scorers.base.AskingScorer`). A part without it cannot be planned, and is
listed as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from isaerft.config import Llm, Plan, Scorer, Subject, TrainSae
from isaerft.errors import InputError, printable
from isaerft.explanations import AskingSource, latents_to_explain, read_explanations, sample_path
from isaerft.explanations.contexts import read_contexts
from isaerft.judges import AskingJudge
from isaerft.layout import Results, SubjectFolder
from isaerft.llm import LanguageModel, Prompt, RequestPlan
from isaerft.registry import JUDGES, SCORERS, SOURCES
from isaerft.scorers import AskingScorer, Task, questions_of, tasks_of
from isaerft.scorers.base import exchange_explanations
from isaerft.scorers.tasks import stand_in_tasks
from isaerft.stats.power import Design, auroc_of_odds_ratio, latents_needed, observed_auroc, odds_ratio_of_auroc

TYPICAL_EXPLANATION = 120
SEEDS, BEHAVIORS, POWERS = (1, 3, 5, 10), (4, 8, 16, 32), (0.8, 0.9)


@dataclass(frozen=True)
class Cost:
    """What one part will ask about one source's explanations of one subject.

    Attributes
    ----------
    subject, source : str
        Names in the study.
    part : {"source", "judge", "scorer"}
        What asks.
    name : str
        The part's name in the study.
    llm : str
        The language model that it asks.
    requests : RequestPlan or None
        What it takes; None if the part cannot be planned.
    exact : bool
        False if the part reads texts that do not exist yet; `requests` is then an upper estimate.
    """

    subject: str
    source: str
    part: Literal["source", "judge", "scorer"]
    name: str
    llm: str
    requests: RequestPlan | None
    exact: bool


def costs(plan: Plan, results: Results) -> Iterator[Cost]:
    """Yield the cost of each source, judge and scorer that asks a language model, given the files under `results`."""
    for subject in plan.study.subjects:
        for source in plan.sources_of(subject):
            planner = _Planner(plan, results, subject, source)
            if plan.study.sources[source].llm is not None:
                yield planner.source()
            for judge in plan.judges_of(source):
                if plan.study.judges[judge].llm is not None:
                    yield planner.judge(judge)
            for scorer in plan.scorers_of(source):
                if plan.study.scorers[scorer].llm is not None:
                    yield planner.scorer(scorer)


def cost_lines(plan: Plan, results: Results) -> list[str]:
    """Return the cost as text: one line per asking part and source, and one per language model."""
    lines, totals = [], {name: RequestPlan() for name in plan.study.llms}
    unplanned = dict.fromkeys(totals, 0)
    for cost in costs(plan, results):
        asks = "explaining" if cost.part == "source" else f"{cost.part} {cost.name}"
        missing = "explanations" if cost.part == "judge" else "evidence"
        if cost.requests is None:
            unplanned[cost.llm] += 1
            text = f"cannot be planned: its {cost.part} cannot list its requests in advance"
        else:
            totals[cost.llm] += cost.requests
            text = _requests_text(cost.requests, plan.study.llms[cost.llm])
            if not cost.exact:
                known = f"at most {text}" if cost.requests.prompts else "the number of latents is unknown"
                text = f"no {missing} yet; {known}"
        lines.append(f"{cost.subject}, {cost.source}, {asks}: {text}")
    for name, total in totals.items():
        llm = plan.study.llms[name]
        besides = f", plus {unplanned[name]} that cannot be planned" if unplanned[name] else ""
        lines.append(
            f"llm {name} ({printable(llm.model)}): {_requests_text(total, llm)}{besides}; {_used_text(plan, name)}"
        )
    return lines or ["no language model is asked"]


def power_lines(
    *,
    auroc: float | None = None,
    odds_ratio: float | None = None,
    expected_share: float = 0.1,
    reliability: float = 0.5,
    design_effect: float = 1.0,
    alpha: float = 0.05,
) -> list[str]:
    """Return a table of the labeled latents that a test of specificity needs, by seeds, behaviors and power.

    Parameters
    ----------
    auroc, odds_ratio : float
        The effect to detect, without seed noise; exactly one of them.
    expected_share : float
        Share of latents that a judge calls expected.
    reliability : float
        Reliability of the changes of a single seed, in (0, 1].
    design_effect : float
        Factor by which latents that move together raise the variance.
    alpha : float
        One-sided level of the test.

    Raises
    ------
    InputError
        Not exactly one effect is given, or a value is out of range.
    """
    if auroc is None and odds_ratio is not None:
        auroc = auroc_of_odds_ratio(odds_ratio)
    elif auroc is None or odds_ratio is not None:
        raise InputError("no effect, or more than one", allowed="one of --auroc and --odds-ratio")
    design = Design(
        n_latents=1, expected_share=expected_share, seed_reliability=reliability, design_effect=design_effect
    )
    lines = [
        f"AUROC {auroc:.3f} (odds ratio {odds_ratio_of_auroc(auroc):.2f}), {expected_share:g} of the latents expected,"
        f" one seed's reliability {reliability:g}, one-sided level {alpha:g}",
        "labeled latents needed for specificity:",
        f"{'seeds':>6} {'behaviors':>10} {'AUROC seen':>11}" + "".join(f" {f'{p:.0%} power':>11}" for p in POWERS),
    ]
    for n_seeds in SEEDS:
        for n_behaviors in BEHAVIORS:
            sized = replace(design, n_seeds=n_seeds, n_behaviors=n_behaviors)
            needed = [latents_needed(auroc, sized, power=level, alpha=alpha) for level in POWERS]
            seen = observed_auroc(auroc, sized.reliability)
            lines.append(
                f"{n_seeds:>6} {n_behaviors:>10} {seen:>11.3f}" + "".join(f" {n or 'none':>11}" for n in needed)
            )
    return lines


class _Planner:
    """Plans the parts that read or write one source's explanations of one subject."""

    def __init__(self, plan: Plan, results: Results, subject: str, source: str) -> None:
        self._plan, self._subject, self._source = plan, subject, source
        self._folder = results.subject(subject)
        self._sample = sample_path(plan, results.root, subject, source)
        path = results.explanations(subject, source)
        self._explained = path.is_file()
        self._explanations = read_explanations(path) if self._explained else _stand_ins(self._latents())

    def source(self) -> Cost:
        options = self._plan.study.sources[self._source]
        part, llm = SOURCES[options.kind or self._source], self._model(options.llm)
        exact = self._latents_are_known() and self._folder.contexts.is_file()
        prompts = None
        if isinstance(part, AskingSource):
            prompts = part.requests(
                options,
                subject_dir=self._folder.path if exact else None,
                d_sae=self._d_sae(),
                latents=self._latents(),
                llm=llm,
            )
        return self._cost("source", self._source, llm, prompts, exact)

    def judge(self, name: str) -> Cost:
        options = self._plan.study.judges[name]
        part, llm = JUDGES[options.kind or name], self._model(options.llm)
        prompts = None
        if isinstance(part, AskingJudge):
            behaviors = self._plan.described
            prompts = part.requests(self._explanations, behaviors, options, subject_dir=self._folder.path, llm=llm)
        return self._cost("judge", name, llm, prompts, self._explained)

    def scorer(self, name: str) -> Cost:
        options = self._plan.study.scorers[name]
        part, llm = SCORERS[options.kind or name], self._model(options.llm)
        exact = self._explained and self._folder.scored.is_file() and self._folder.latents.is_file()
        prompts = None
        if isinstance(part, AskingScorer):
            tasks = self._tasks(options) if exact else self._stand_in_tasks(options)
            exchanged = filter(None, exchange_explanations(tasks, self._plan.study.seed))
            prompts = part.requests([*tasks, *exchanged], options, llm=llm)
        return self._cost("scorer", name, llm, prompts, exact)

    def _cost(
        self,
        part: Literal["source", "judge", "scorer"],
        name: str,
        llm: LanguageModel,
        prompts: Sequence[Prompt] | None,
        exact: bool,
    ) -> Cost:
        requests = None if prompts is None else llm.plan(prompts)
        return Cost(self._subject, self._source, part, name, llm.name, requests, exact)

    def _model(self, name: str | None) -> LanguageModel:
        return LanguageModel.of(self._plan, str(name))

    def _tasks(self, options: Scorer) -> list[Task]:
        alive = latents_to_explain(self._folder.read_latents(), self._plan.study.agreement.min_firing_rate)
        scored = self._explanations[self._explanations["latent_index"].isin(alive)]
        asked = questions_of(options.scores)
        return tasks_of(read_contexts(self._folder.scored), scored, asked, self._plan.study.seed, options.n_latents)

    def _stand_in_tasks(self, options: Scorer) -> list[Task]:
        n_explained = len(self._explanations)
        n_latents = n_explained if options.n_latents is None else min(n_explained, options.n_latents)
        return stand_in_tasks(questions_of(options.scores), n_latents, self._plan.study.scored_windows)

    def _latents_are_known(self) -> bool:
        return self._folder.latents.is_file() and (self._sample is None or self._sample.is_file())

    def _latents(self) -> np.ndarray:
        """Return the latents to explain, (n,) int64; before they are known, as many as there can be."""
        if self._latents_are_known():
            minimum = self._plan.study.agreement.min_firing_rate
            return latents_to_explain(self._folder.read_latents(), minimum, self._sample)
        n_latents = self._d_sae()
        if self._sample is not None:
            design = self._plan.study.design
            n_groups = len(self._plan.tested_behaviors) * len(self._plan.analyzed_adapters())
            n_latents = min(n_latents, n_groups * design.n_cases * (1 + design.controls_per_case))
        return np.arange(n_latents)

    def _d_sae(self) -> int:
        return _d_sae(self._plan.study.subjects[self._subject], self._folder)


def _d_sae(subject: Subject, folder: SubjectFolder) -> int:
    """Return the size of the dictionary; 0 if it is not known yet."""
    if folder.card.is_file():
        return int(folder.read_cards()[0]["d_sae"])
    if subject.release is None and subject.sae_path is None:
        return (subject.train_sae or TrainSae()).d_sae
    return 0


def _stand_ins(latents: np.ndarray) -> pd.DataFrame:
    """Return a different text of typical length for each latent that has no explanation yet."""
    texts = [f"(explanation still to come) {latent}".ljust(TYPICAL_EXPLANATION, ".") for latent in latents]
    return pd.DataFrame({"latent_index": latents, "explanation": texts, "side": "input", "url": ""})


def _requests_text(requests: RequestPlan, llm: Llm) -> str:
    text = f"{requests.calls:,} requests ({requests.cached:,} of {requests.prompts:,} cached)"
    if requests.calls:
        text += f", about {requests.prompt_tokens:,} tokens in and {requests.completion_tokens:,} out"
        price = requests.price(llm)
        text += "" if price is None else f", price {price:,.2f}"
    return text


def _used_text(plan: Plan, name: str) -> str:
    llm, model = plan.study.llms[name], LanguageModel.of(plan, name)
    try:
        calls, tokens = model.cache.used(plan.study.study, name)
    finally:
        model.cache.close()
    return f"used so far {calls:,} of {llm.max_calls:,} requests and {tokens:,} of {llm.max_tokens:,} tokens"
