"""What a study costs before it is run: jobs, computing, requests and disk.

This is the cost model of docs/scale.md; benchmarks/study_cost.py writes that page's predictions with it. Numbers are
upper bounds or near them: early stopping, for one, saves some.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from isaerft.config import Adapter, Plan
from isaerft.registry import ADAPTERS
from isaerft.steps import steps_of

# Achieved FLOP/s on one GPU: a small model in float32 on one that others shared, and a step of Gemma 2 2B's shape in
# bfloat16 on one to itself (docs/scale.md has the commands).
GPU_SLOW, GPU_FAST = 3e12, 54e12
# On one CPU core in float32, in a training step (docs/scale.md has the command).
CPU_CORE = 6e10
# A block at one position of a batch takes so long on a GPU while text is sampled, whatever the batch.
GPU_SAMPLING_SECONDS = 1e-3
# A job of a study on one machine, forked from the worker, and one on a cluster, which imports everything.
START_SECONDS, COLD_START_SECONDS = 3.0, 15.0
# Files of an export at Neuronpedia, and latents of a request for what they lack.
EXPORT_FILES, LATENTS_PER_REQUEST = 20, 40
# What nothing says: a dictionary as large as most published ones, with as many active latents per token.
USUAL_D_SAE, USUAL_L0 = 16_384, 64
AMPLIFIED_TOKENS, MEASURE_PASSES = 14, {"attribution": 16.0}
ADAM_FLOP_PER_WEIGHT = 12
NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CODE_BYTES, CHANGE_BYTES, LORA_BYTES = 8, 16, 700_000
# Linear maps of a block, as most models have them; a lora changes each.
LORA_MAPS = 7


class Shape(NamedTuple):
    """The sizes of a model and an SAE that decide the cost.

    Attributes
    ----------
    n_below : int
        Blocks below the injection point; training runs only those above.
    block_parameters, vocabulary : int
        Weights of a block, and rows of the unembedding.
    """

    n_blocks: int
    n_below: int
    d_model: int
    vocabulary: int
    block_parameters: int
    d_sae: int
    l0: float = USUAL_L0

    @property
    def head(self) -> int:
        """Weights of the unembedding."""
        return self.d_model * self.vocabulary

    @property
    def above(self) -> int:
        """Weights of the blocks above the injection point."""
        return max(0, self.n_blocks - self.n_below) * self.block_parameters

    @property
    def whole(self) -> int:
        """Weights of all blocks."""
        return self.n_blocks * self.block_parameters


class Rows(NamedTuple):
    """Rows of a behavior, and the mean tokens of one."""

    train: int
    heldout: int
    prompt: float
    completion: float

    @property
    def n(self) -> int:
        """All rows."""
        return self.train + self.heldout

    @property
    def tokens(self) -> float:
        """Tokens of a row."""
        return self.prompt + self.completion


@dataclass
class Estimate:
    """What a study costs.

    Attributes
    ----------
    jobs : Counter
        Verb -> jobs.
    flop : dict
        What is computed -> floating-point operations: training, placebos, checks, reading (of the corpus and of
        rows), sampling, dictionary.
    positions : float
        Blocks times positions of batches while text is sampled, one after the other.
    requests : Counter
        Whom is asked -> requests at most; language models are planned by `isaerft.planning`.
    disk : dict
        What is stored -> bytes.
    """

    jobs: Counter[str] = field(default_factory=Counter)
    flop: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    positions: float = 0.0
    requests: Counter[str] = field(default_factory=Counter)
    disk: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def total_disk(self) -> float:
        """Bytes of all that is stored."""
        return sum(self.disk.values())

    @property
    def starts(self) -> int:
        """Jobs that load a model."""
        light = (
            "behavior",
            "explain",
            "judge",
            "embed-windows",
            "score",
            "agreement",
            "tables",
            "figures",
            "pages",
            "summary",
            "design",
        )
        return sum(n for verb, n in self.jobs.items() if verb not in light)

    def gpu_minutes(self, rate: float) -> float:
        """Return the minutes of one GPU at so many FLOP/s."""
        computed = sum(flop for what, flop in self.flop.items() if what != "sampling") / rate
        return (computed + self.positions * GPU_SAMPLING_SECONDS + self.starts * START_SECONDS) / 60

    def cpu_minutes(self, cores: int) -> float:
        """Return the minutes of so many CPU cores."""
        return (sum(self.flop.values()) / CPU_CORE + self.jobs.total() * START_SECONDS) / cores / 60


def training_flop(adapter: Adapter, shape: Shape, rows: Rows) -> float:
    """Return the operations of one training of one seed, early stopping aside.

    4 for each token and weight above the hook in a step (forward, and backward through the activations), 2 in an
    evaluation; weights of the unembedding count for tokens of completions alone.
    """
    per_row = rows.tokens * shape.above + rows.completion * shape.head
    n_evaluations = adapter.steps // adapter.evaluate_every + 1
    n_rows = min(adapter.batch_size, max(1, round(rows.train * adapter.subsample)))
    return (4 * adapter.steps * n_rows + 2 * n_evaluations * rows.heldout) * per_row


def estimate(
    plan: Plan, shapes: Mapping[str, Shape], rows: Mapping[str, Rows], latents: Mapping[str, int] | None = None
) -> Estimate:
    """Return what a study costs.

    Parameters
    ----------
    shapes : mapping
        Subject -> its sizes; embedded subjects, which take minutes, are left out.
    rows : mapping
        Behavior -> its rows.
    latents : mapping, optional
        Subject -> its latents, also of subjects whose other sizes are not known.
    """
    found = Estimate(jobs=Counter(step.verb for step in steps_of(plan)))
    models = {plan.study.subjects[name].model_settings: name for name in shapes}
    for name in models.values():
        n_bytes = NUMBER_BYTES[plan.study.subjects[name].dtype]
        found.disk["models and SAEs"] += (shapes[name].whole + shapes[name].head) * n_bytes
    for subject, shape in shapes.items():
        for name in (subject, *plan.baselines_of(subject)):
            _subject(found, plan, name, shape)
        _trainings(found, plan, subject, shape, rows)
        _checks(found, plan, subject, shape, rows)
    for subject, d_sae in (latents or {name: shape.d_sae for name, shape in shapes.items()}).items():
        _requests(found, plan, subject, d_sae)
    return found


def _subject(found: Estimate, plan: Plan, name: str, shape: Shape) -> None:
    """Corpus, dictionary and facts; a random baseline shares the corpus."""
    options = plan.subjects[name]
    tokens = options.corpus.tokens
    if options.corpus.sample and name in plan.study.subjects:
        _sample(found, plan, shape, tokens / options.corpus.context_size, options.corpus.context_size)
    coding = 2 * 2 * shape.d_model * shape.d_sae
    if options.train_sae is not None:
        found.flop["dictionary"] += options.train_sae.tokens * (ADAM_FLOP_PER_WEIGHT * shape.d_model * shape.d_sae)
        found.flop["reading"] += 2 * tokens * shape.whole
    # Once as it is, once with the SAE spliced in.
    found.flop["reading"] += tokens * (2 * 2 * (shape.whole + shape.head) + coding)
    amplified = shape.d_sae * options.amplified_rows
    found.flop["reading"] += 2 * amplified * (AMPLIFIED_TOKENS * shape.above + shape.head)
    # What comes from elsewhere is kept twice: as it came, and with its normalization folded in.
    copies = 1 if options.train_sae is not None else 2
    found.disk["models and SAEs"] += copies * 2 * shape.d_model * shape.d_sae * 4


def _trainings(found: Estimate, plan: Plan, subject: str, shape: Shape, rows: Mapping[str, Rows]) -> None:
    """Caches, trainings of the subject and its random-dictionary twins, changes and placebos."""
    study = plan.study
    bytes_per_token = shape.d_model * NUMBER_BYTES[study.subjects[subject].dtype] + CODE_BYTES * shape.l0
    for behavior, part in rows.items():
        n_caches = 1 + len(plan.baselines_of(subject)) * (behavior in plan.tested_behaviors)
        found.flop["reading"] += n_caches * 2 * part.n * part.tokens * shape.whole
        found.disk["caches"] += n_caches * part.n * part.tokens * bytes_per_token
    twins = [twin for twin, base in plan.permuted_subjects.items() if base == subject]
    for name in (subject, *twins, *plan.baselines_of(subject)):
        own = name in study.subjects
        for behavior in [*plan.trained_behaviors(name), *(plan.behavior_twins if own else [])]:
            part = rows[plan.base_behavior(behavior)]
            for adapter in plan.trained_adapters(name, behavior):
                n_seeds, facts = plan.n_seeds_of(adapter), ADAPTERS.facts(plan.kind_of(adapter))
                if facts.trained:
                    found.flop["training"] += n_seeds * training_flop(study.adapters[adapter], shape, part)
                size = LORA_BYTES if facts.on_model else 4 * shape.d_sae
                found.disk["adapters"] += n_seeds * size
            for adapter in plan.analyzed_adapters(name, behavior):
                found.flop["checks"] += plan.n_seeds_of(adapter) * _changes_flop(plan, shape, part)
                found.disk["changes"] += CHANGE_BYTES * shape.d_sae * plan.n_seeds_of(adapter) * len(study.measures)
    if plan.has_placebos(subject):
        usual = _usual(rows)
        primary, n_seeds = study.adapters[study.primary.adapter], plan.n_seeds_of(study.primary.adapter)
        one = training_flop(primary, shape, usual) + _changes_flop(plan, shape, usual)
        found.flop["placebos"] += study.placebos.n * n_seeds * one
        for _ in range(study.placebos.n):
            _sample(found, plan, shape, usual.n, usual.completion)


def _checks(found: Estimate, plan: Plan, subject: str, shape: Shape, rows: Mapping[str, Rows]) -> None:
    """Causal check, map components, loss curves, behavior check, noise probe and steering check."""
    study = plan.study
    for behavior, part in rows.items():
        options, n_rows = study.causal_check, min(part.heldout, study.causal_check.max_rows)
        for adapter in plan.causally_checked:
            passes = plan.n_seeds_of(adapter) * (2 + len(options.ks)) + len(options.ks) * options.n_draws
            found.flop["checks"] += passes * n_rows * 2 * (part.tokens * shape.above + part.completion * shape.head)
        if study.map_components is not None:
            n_rows = min(part.heldout, study.map_components.max_rows)
            for adapter in plan.mapped_adapters:
                n_maps = LORA_MAPS if plan.kind_of(adapter) == "lora" else 1
                passes = plan.n_seeds_of(adapter) * (2 + 2 * study.map_components.n_components * n_maps)
                found.flop["checks"] += passes * n_rows * 2 * (part.tokens * shape.above + part.completion * shape.head)
        if study.loss_curves is not None and behavior in study.curved_behaviors:
            curves = study.loss_curves
            one = Adapter(steps=curves.steps, batch_size=curves.batch_size, evaluate_every=max(1, curves.steps // 6))
            n_points = len(curves.families) * len(curves.ks) * len(curves.learning_rates) * curves.n_seeds
            found.flop["checks"] += n_points * training_flop(one, shape, part)
        if behavior in plan.behavior_checked:
            n_answers = 1 + study.behavior_check.n_seeds * len(plan.behavior_checked[behavior])
            for _ in range(n_answers):
                _sample(found, plan, shape, study.behavior_check.n_prompts, study.behavior_check.max_new_tokens)
        if study.noise_probe is not None and behavior in plan.noise_probed:
            probed = study.noise_probe
            n_models = 1 + study.behavior_check.n_seeds * len(plan.noise_probed[behavior])
            n_answers = n_models * (1 + len(probed.places) * len(probed.levels) * probed.n_draws)
            n_rows = min(part.heldout, probed.max_rows)
            found.flop["checks"] += n_answers * n_rows * 2 * (part.tokens * shape.whole + part.completion * shape.head)
            for _ in range(n_answers):
                _sample(found, plan, shape, study.behavior_check.n_prompts, study.behavior_check.max_new_tokens)
    if subject in plan.steering_checked and study.steering_check is not None:
        steered = study.steering_check
        n_answers = 4 * steered.n_latents * 2 * len(steered.strengths) * steered.n_prompts
        _sample(found, plan, shape, n_answers, steered.max_new_tokens)


def _requests(found: Estimate, plan: Plan, subject: str, d_sae: int) -> None:
    """Count requests as if every latent were asked for, and had an explanation of its own."""
    study, asked = plan.study, d_sae
    if study.design.kind == "case_control":
        groups = len(plan.tested_behaviors) * len(plan.analyzed_adapters())
        asked = min(d_sae, groups * study.design.n_cases * (1 + study.design.controls_per_case))
    for source in plan.sources_of(subject):
        options = study.sources[source]
        if (options.kind or source) == "neuronpedia":
            found.requests["Neuronpedia"] += EXPORT_FILES + ceil(asked / LATENTS_PER_REQUEST)
        llms = [options.llm, *(study.judges[judge].llm for judge in plan.judges_of(source))]
        for llm in filter(None, llms):
            found.requests[f"the language model {llm}"] += asked


def _changes_flop(plan: Plan, shape: Shape, rows: Rows) -> float:
    per_pass = 2 * rows.heldout * (rows.tokens * shape.above + rows.completion * shape.head)
    return per_pass * sum(MEASURE_PASSES.get(measure, 1.0) for measure in plan.study.measures)


def _sample(found: Estimate, plan: Plan, shape: Shape, n_texts: float, length: float) -> None:
    found.flop["sampling"] += 2 * n_texts * length * (shape.whole + shape.head)
    found.positions += ceil(n_texts / (4 * plan.study.batch_size)) * length * shape.n_blocks


def _usual(rows: Mapping[str, Rows]) -> Rows:
    """Return the rows of a middling behavior, as those of a placebo are."""
    columns = [sorted(column) for column in zip(*rows.values(), strict=True)]
    return Rows(*(column[len(column) // 2] for column in columns))


def cost_lines(found: Estimate, *, cores: int) -> list[str]:
    """Return the cost as text: a line for requests and, if any model's sizes are known, for time and disk."""
    slow, fast = found.gpu_minutes(GPU_SLOW), found.gpu_minutes(GPU_FAST)
    asked = [f"at most {n:,} to {whom}" for whom, n in found.requests.items()]
    parts = [f"{what} {size(n)}" for what, n in sorted(found.disk.items(), key=lambda item: -item[1])]
    on_cpu = f"{_minutes(found.cpu_minutes(cores))} on {cores} CPU core{'s' * (cores > 1)}"
    on_gpu = " to ".join(dict.fromkeys([_minutes(fast), _minutes(slow)]))
    lines = [
        f"time: {on_gpu} on one GPU, or about {on_cpu}, in {found.jobs.total():,} jobs",
        f"disk: about {size(found.total_disk)} ({', '.join(parts)})",
    ]
    return [f"requests: {', '.join(asked) or 'none'}", *(lines if found.disk else [])]


def _minutes(minutes: float) -> str:
    if minutes < 1.5:
        return "1 minute"
    return f"{minutes:,.0f} minutes" if minutes < 90 else f"{minutes / 60:,.0f} hours"


def size(n_bytes: float) -> str:
    """Return a number of bytes for people."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.3g} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"
