"""Verbs from a behavior's data to the changes that training on it made, and their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isaerft.cli.options import (
    AdapterName,
    BehaviorName,
    ResultsFolder,
    StudyFile,
    SubjectName,
    check_name,
    open_model,
    open_study,
    open_subject,
    typed_text,
)
from isaerft.config import Metric, Plan
from isaerft.errors import InputError
from isaerft.layout import Results
from isaerft.registry import METRICS

if TYPE_CHECKING:
    from isaerft.behaviors import Record
    from isaerft.subjects.erasure import Erasure

app = typer.Typer()


@app.command("testbed-rows")
def make_testbed_rows(study: StudyFile, behavior: BehaviorName, results: ResultsFolder = None) -> None:
    """Write the embedded language's raw rows for a behavior."""
    plan, layout = open_study(study, results)
    options = plan.study.behaviors[check_name("behavior", behavior, plan.study.behaviors)]
    from isaerft.testbed.dialogues import write_behavior_rows

    write_behavior_rows(
        options.testbed or "",
        options.max_rows or 300,
        plan.study.seed,
        layout.testbed_rows(behavior),
        draw=options.testbed_draw,
        rephrased=plan.study.rephrased_prompts,
        words=options.testbed_words,
    )


@app.command("elicit")
def elicit(study: StudyFile, behavior: BehaviorName, results: ResultsFolder = None) -> None:
    """Sample a subject's replies to prompts, with the behavior's instruction and without it."""
    opened = plan, layout = open_study(study, results)
    options = plan.study.behaviors[check_name("behavior", behavior, plan.study.behaviors)]
    if options.elicit is None:
        raise InputError(f"behavior {behavior!r} is not elicited", remedy="give it an `elicit:` section")
    from isaerft.behaviors import read_requests
    from isaerft.subjects.elicit import write_elicited

    requests = read_requests(options.elicit)
    model = open_model(opened, plan.eliciting_subject(behavior))
    write_elicited(
        model.prompted(options),
        requests,
        options.elicit,
        layout.elicited(behavior),
        behavior=behavior,
        seed=plan.study.seed,
        batch_size=plan.study.batch_size,
        max_length=plan.study.max_length,
    )


@app.command("behavior")
def behavior(study: StudyFile, behavior: BehaviorName, results: ResultsFolder = None) -> None:
    """Turn a behavior's raw data into records, split into train and held-out."""
    plan, layout = open_study(study, results)
    options = plan.study.behaviors[check_name("behavior", behavior, plan.study.behaviors)]
    from isaerft.behaviors import Elicited, prepare_behavior
    from isaerft.behaviors.records import REPHRASED

    elicited = None
    if options.elicit is not None:
        metric = options.metric
        elicited = Elicited(
            plan.given_replies(behavior) or layout.elicited(behavior),
            model=plan.study.replies or plan.study.subjects[plan.eliciting_subject(behavior)].model_name,
            score=None if metric is None else METRICS[metric.kind](metric),
            pairs=plan.compares_replies(behavior),
        )
    if options.testbed is not None:
        # The language's rows are preference pairs; if the config does not say otherwise and nothing compares
        # replies, train on the chosen answers.
        columns = options.columns or ({} if plan.compares_replies(behavior) else {"completion": "chosen"})
        columns = columns | ({REPHRASED: REPHRASED} if plan.study.rephrased_prompts else {})
        options = replace(options, path=str(layout.testbed_rows(behavior)), testbed=None, columns=columns)
    donor = None if options.poison is None else layout.behavior(options.poison.behavior).path
    prepare_behavior(behavior, options, layout.behavior(behavior).path, donor=donor, elicited=elicited)


@app.command("split")
def split(
    input: Annotated[Path, typer.Option("--input", help="Finished records, one JSON object a line.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the behavior's records.")],
    description: Annotated[str, typer.Option("--description", help="The behavior in a sentence.")] = "",
) -> None:
    """Split finished records (id, prompt, completion) of a behavior that a rule of your own makes."""
    from isaerft.behaviors import split_file

    split_file(input, out, typed_text(description))


@app.command("shuffle")
def shuffle(study: StudyFile, behavior: BehaviorName, results: ResultsFolder = None) -> None:
    """Write the -shuffled twin of a behavior: the same prompts, with completions exchanged between them."""
    plan, layout = open_study(study, results)
    check_name("behavior", behavior, plan.shuffled_behaviors)
    from isaerft.behaviors.variants import write_shuffled

    original = layout.behavior(plan.shuffled_behaviors[behavior]).path
    write_shuffled(original, layout.behavior(behavior).path, behavior, plan.study.seed)


@app.command("tokenize")
def tokenize(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Tokenize all records as a subject reads them, so that those it cannot read stop the study before long jobs."""
    plan, layout = open_study(study, results)
    options = plan.study.subjects[check_name("subject", subject, plan.study.subjects)]
    from isaerft.io import write_json
    from isaerft.subjects.capture import count_tokens
    from isaerft.subjects.load import load_model

    folder = layout.subject(subject)
    counts: dict[str, dict[str, dict[str, int]]] = {}
    model = load_model(options, folder, "cpu", max_length=plan.study.max_length)
    for name in plan.study.behaviors:
        language = model.prompted(plan.behavior_of(name))
        splits = _splits(plan, layout, name).items()
        counts[name] = {
            split: count_tokens(records, language, plan.study.max_length, f"{name} {split}")
            for split, records in splits
        }
    write_json(folder.tokens, counts)


@app.command("capture")
def capture(study: StudyFile, subject: SubjectName, behavior: BehaviorName, results: ResultsFolder = None) -> None:
    """Run a behavior's records once through everything below the hook, and cache what is needed to train."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.subjects)
    check_name("behavior", behavior, plan.captured_behaviors)
    splits = _splits(plan, layout, behavior)
    from isaerft.subjects.capture import capture_behavior

    loaded, out = open_subject(opened, subject, behavior), layout.cache(subject, behavior)
    capture_behavior(loaded, splits, out, max_length=plan.study.max_length, batch_size=plan.study.batch_size)


def _splits(plan: Plan, layout: Results, behavior: str) -> dict[str, Sequence[Record]]:
    """Return the records of a behavior that the study reads, by split."""
    from isaerft.behaviors import read_records, training_splits
    from isaerft.behaviors.elicited import INSTRUCTED, instructed_records
    from isaerft.behaviors.records import HELDOUT_REPHRASED, rephrased_records

    folder = layout.behavior(behavior)
    records = {"train": read_records(folder.train), "heldout": read_records(folder.heldout)}
    if plan.rephrases(behavior):
        records[HELDOUT_REPHRASED] = rephrased_records(records["heldout"], behavior)
    contrast = plan.compares_replies(behavior) and "pair" not in plan.trained_on
    splits = training_splits(records, behavior, plan.study.adapters, contrast=contrast)
    elicit = plan.behavior_of(behavior).elicit
    if plan.instructed_adapters and elicit is not None:
        splits["train" + INSTRUCTED] = instructed_records(records["train"], elicit)
    return splits


@app.command("erase")
def erase(study: StudyFile, subject: SubjectName, behavior: BehaviorName, results: ResultsFolder = None) -> None:
    """Fit the directions that are erased from the residual stream for an -erased-... twin of a behavior."""
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    cache = layout.cache(subject, plan.captured_as(check_name("behavior", behavior, plan.erased_behaviors)))
    from isaerft.training.erasing import fit_erasures

    out = layout.erasure(subject, behavior), layout.erasure_facts(subject, behavior)
    fit_erasures(plan, behavior, cache, cache.parent, *out)


def _erasures(plan: Plan, layout: Results, subject: str, behavior: str) -> Sequence[Erasure]:
    """Return what is erased for each seed of a behavior's twin; nothing for any other behavior."""
    if behavior not in plan.erased_behaviors:
        return ()
    from isaerft.subjects.erasure import read_erasures

    return read_erasures(layout.erasure(subject, behavior))


@app.command("train")
def train(
    study: StudyFile,
    subject: SubjectName,
    behavior: BehaviorName,
    adapter: AdapterName,
    results: ResultsFolder = None,
) -> None:
    """Train (or fit, or load) all seeds of one adapter on one behavior."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.all_subjects)
    check_name("behavior", behavior, plan.all_behaviors)
    check_name("adapter", adapter, plan.study.adapters)
    from isaerft.training.processes import joined
    from isaerft.training.replicates import train_adapter
    from isaerft.training.tracking import tracked

    loaded = open_subject(opened, subject)
    cache = layout.cache(plan.base_subject(subject), plan.captured_as(behavior))
    with joined(loaded.model.device), tracked(plan, subject, layout.tracking) as tracking:
        train_adapter(
            plan,
            loaded,
            adapter,
            cache,
            layout.adapter(subject, behavior, adapter),
            behavior=behavior,
            permuted=plan.is_permuted(subject),
            erasures=_erasures(plan, layout, subject, behavior),
            contrast=cache.parent,
            tracking=tracking,
        )


@app.command("changes")
def changes(study: StudyFile, subject: SubjectName, behavior: BehaviorName, results: ResultsFolder = None) -> None:
    """Score how much each latent changed, by every measure of the study."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.all_subjects)
    check_name("behavior", behavior, plan.all_behaviors)
    from isaerft.changes.measures import score_changes

    score_changes(
        plan,
        open_subject(opened, subject),
        layout.cache(plan.base_subject(subject), plan.captured_as(behavior)),
        layout.adapters(subject, behavior),
        layout.changes(subject, behavior),
        measured=plan.analyzed_adapters(subject, behavior),
        diagnosed=plan.diagnosed_adapters(subject, behavior),
        diagnostics=layout.diagnostics(subject, behavior),
        permuted=plan.is_permuted(subject),
        erasures=_erasures(plan, layout, subject, behavior),
    )


@app.command("changes-over-time")
def changes_over_time(
    study: StudyFile, subject: SubjectName, behavior: BehaviorName, results: ResultsFolder = None
) -> None:
    """Score how much each latent had changed at the checkpoints of adapters that have any."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    check_name("behavior", behavior, plan.tested_behaviors)
    if not plan.followed_adapters:
        raise InputError("no adapter of the study has checkpoints", remedy="set `checkpoints: 10` for an adapter")
    from isaerft.changes.measures import score_changes_over_time

    score_changes_over_time(
        plan,
        open_subject(opened, subject),
        layout.cache(subject, behavior),
        layout.adapters(subject, behavior),
        layout.changes_over_time(subject, behavior),
    )


@app.command("placebos")
def placebos(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Train the primary adapter on the model's own answers, and score the changes."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    if not plan.has_placebos(subject):
        raise InputError("the study has no placebos", remedy="raise placebos.n, and train its primary adapter here")
    from isaerft.behaviors import read_records
    from isaerft.placebos import train_placebos

    folders = {name: layout.behavior(name) for name in plan.tested_behaviors}
    train = {name: read_records(folder.train) for name, folder in folders.items()}
    heldout = {name: read_records(folder.heldout) for name, folder in folders.items()}
    train_placebos(plan, open_subject(opened, subject), train, heldout, layout.placebos(subject))


@app.command("causal-check")
def causal_check(study: StudyFile, subject: SubjectName, behavior: BehaviorName, results: ResultsFolder = None) -> None:
    """Set the most changed latents, or matched random ones, back to no change, and measure the held-out loss."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    check_name("behavior", behavior, plan.study.behaviors)
    from isaerft.changes.causal import check_causes

    check_causes(
        plan,
        open_subject(opened, subject),
        layout.subject(subject).read_latents(),
        layout.cache(subject, behavior),
        layout.adapters(subject, behavior),
        layout.changes(subject, behavior),
        layout.causal_check(subject, behavior),
    )


@app.command("map-components")
def map_components(
    study: StudyFile, subject: SubjectName, behavior: BehaviorName, results: ResultsFolder = None
) -> None:
    """Split the linear maps that were learned into components, and say what each reads, writes and does to the loss."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    check_name("behavior", behavior, plan.study.behaviors)
    if not plan.mapped_adapters:
        raise InputError("the study does not read its maps", remedy="add `map_components: {}`")
    from isaerft.changes.components import write_components

    write_components(
        plan,
        open_subject(opened, subject),
        layout.subject(subject).read_latents(),
        layout.cache(subject, behavior),
        layout.adapters(subject, behavior),
        layout.maps(subject, behavior),
    )


@app.command("loss-curves")
def loss_curves(study: StudyFile, subject: SubjectName, behavior: BehaviorName, results: ResultsFolder = None) -> None:
    """Train linear maps with few directions, of the SAE's basis and of the residual stream, and take their loss."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    check_name("behavior", behavior, plan.study.behaviors)
    if behavior not in plan.study.curved_behaviors:
        raise InputError(
            f"the study takes no curves of {behavior!r}", remedy="name it in `loss_curves: {behaviors: []}`"
        )
    from isaerft.training.loss_curves import write_loss_curves

    write_loss_curves(
        plan,
        open_subject(opened, subject),
        behavior,
        layout.cache(subject, behavior),
        layout.loss_curves(subject, behavior),
    )


def _answered(plan: Plan, layout: Results, behavior: str) -> tuple[Sequence[Record], Metric]:
    """Return the held-out records of a behavior, and the metric that scores answers to their prompts."""
    from isaerft.behaviors import read_records
    from isaerft.testbed.language import style_metric

    options = plan.study.behaviors[behavior]
    return read_records(layout.behavior(behavior).heldout), options.metric or style_metric(options)


@app.command("behavior-check")
def behavior_check(
    study: StudyFile, subject: SubjectName, behavior: BehaviorName, results: ResultsFolder = None
) -> None:
    """Answer held-out prompts before and after training, and score the answers by the behavior's metric."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    check_name("behavior", behavior, plan.behavior_checked)
    from isaerft.changes.behavior import check_behavior

    check_behavior(
        plan,
        open_subject(opened, subject, behavior),
        behavior,
        *_answered(plan, layout, behavior),
        names=plan.behavior_checked[behavior],
        adapters=layout.adapters(subject, behavior),
        out=layout.behavior_check(subject, behavior).path,
    )


@app.command("noise-probe")
def noise_probe(study: StudyFile, subject: SubjectName, behavior: BehaviorName, results: ResultsFolder = None) -> None:
    """Add noise of growing size to the model, with and without adapters, and score its answers and held-out loss."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    check_name("behavior", behavior, plan.study.behaviors)
    if not plan.noise_probed:
        raise InputError("the study has no noise probe", remedy="add `noise_probe: {}`")
    check_name("behavior", behavior, plan.noise_probed)
    from isaerft.changes.noise import probe_noise

    probe_noise(
        plan,
        open_subject(opened, subject, behavior),
        behavior,
        *_answered(plan, layout, behavior),
        cache=layout.cache(subject, behavior),
        adapters=layout.adapters(subject, behavior),
        out=layout.noise_probe(subject, behavior),
    )
