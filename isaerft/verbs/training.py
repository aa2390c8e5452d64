"""Verbs from a behavior's data to the changes that training on it made."""

from __future__ import annotations

import argparse

from isaerft import config
from isaerft.verbs.base import load_subject_of, plan_of, verb


@verb("testbed-rows", "study", "behavior", "out")
def testbed_rows(options: argparse.Namespace) -> None:
    """Write the embedded language's raw rows for a behavior."""
    plan = plan_of(options)
    from isaerft.testbed.dialogues import write_behavior_rows

    behavior = plan.study.behaviors[options.behavior]
    n_rows = behavior.max_rows or 300
    write_behavior_rows(behavior.testbed or "", n_rows, plan.study.seed, options.out, draw=behavior.testbed_draw)


@verb("behavior", "study", "behavior", "input", "poison", "out")
def behavior(options: argparse.Namespace) -> None:
    """Turn a behavior's raw data into records, split into train and held-out."""
    from dataclasses import replace

    from isaerft.behaviors import prepare_behavior

    plan = plan_of(options)
    chosen = plan.study.behaviors[options.behavior]
    if chosen.testbed is not None:
        # The language's rows are preference pairs; without a word in the config, and where nothing compares
        # replies, train on the chosen answers.
        columns = chosen.columns or ({} if plan.compares_replies(options.behavior) else {"completion": "chosen"})
        chosen = replace(chosen, path=str(options.input), testbed=None, columns=columns)
    prepare_behavior(options.behavior, chosen, options.out, donor=options.poison)


@verb("split", "input", "description", "out")
def split(options: argparse.Namespace) -> None:
    """Split a file of finished records (id, prompt, completion) for a behavior made by your own rule."""
    from isaerft.behaviors import split_file

    split_file(options.input, options.out, options.description or "")


@verb("shuffle", "study", "behavior", "records", "out")
def shuffle(options: argparse.Namespace) -> None:
    """Write the records of a behavior's twin: the same prompts, with completions exchanged between them."""
    plan = plan_of(options)
    from isaerft.behaviors.variants import write_shuffled

    write_shuffled(options.records, options.out, f"{options.behavior}{config.SHUFFLED}", plan.study.seed)


@verb("capture", "study", "subject", "behavior", "dir", "records", "out")
def capture(options: argparse.Namespace) -> None:
    """Run a behavior's records once through everything below the hook."""
    plan = plan_of(options)
    from isaerft.behaviors import read_records, training_splits

    records = {split: read_records(options.records / f"{split}.jsonl") for split in ("train", "heldout")}
    contrast = plan.compares_replies(options.behavior) and "pair" not in plan.trained_on
    splits = training_splits(records, options.behavior, plan.study.adapters, contrast=contrast)
    from isaerft.subjects.capture import capture_behavior

    subject = load_subject_of(plan, options)
    capture_behavior(subject, splits, options.out, max_length=plan.study.max_length, batch_size=plan.study.batch_size)


@verb("train", "study", "subject", "behavior", "adapter", "dir", "cache", "contrast", "out")
def train(options: argparse.Namespace) -> None:
    """Train (or fit, or take as given) all seeds of one adapter on one behavior."""
    plan = plan_of(options)
    from isaerft.training.processes import joined
    from isaerft.training.run import run_adapter

    subject = load_subject_of(plan, options)
    with joined(subject.model.device):
        run_adapter(
            plan,
            subject,
            options.adapter,
            options.cache,
            options.out,
            behavior=options.behavior,
            permuted=options.subject in plan.permuted_subjects,
            contrast=options.contrast,
        )


@verb("changes", "study", "subject", "behavior", "dir", "cache", "adapters", "out")
def changes(options: argparse.Namespace) -> None:
    """Score how much each latent changed, by every measure of the study."""
    plan = plan_of(options)
    from isaerft.changes.run import score_changes

    permuted = options.subject in plan.permuted_subjects
    subject = load_subject_of(plan, options)
    names = plan.analysed_adapters(options.subject, options.behavior)
    score_changes(plan, subject, options.cache, options.adapters, options.out, names=names, permuted=permuted)


@verb("causal-check", "study", "subject", "behavior", "dir", "cache", "adapters", "changes", "out")
def causal_check(options: argparse.Namespace) -> None:
    """Set the most changed latents back to no change, and matched random ones, and take the held-out loss."""
    plan = plan_of(options)
    from isaerft.changes.causal import check_causes
    from isaerft.layout import SubjectFolder

    facts = SubjectFolder(options.dir).read_latents()
    changes = options.changes / options.subject / f"{options.behavior}.parquet"
    check_causes(plan, load_subject_of(plan, options), facts, options.cache, options.adapters, changes, options.out)


@verb("behavior-check", "study", "subject", "behavior", "dir", "records", "adapters", "out")
def behavior_check(options: argparse.Namespace) -> None:
    """Answer held-out prompts before and after training, and score the answers."""
    plan = plan_of(options)
    from isaerft.behaviors import read_records
    from isaerft.changes.behavior import check_behavior

    behavior = plan.study.behaviors[options.behavior]
    score = behavior.metric
    if score is None:
        from isaerft.testbed.language import STYLES

        words = {style.name: list(style.words) for style in STYLES}
        score = config.Metric(kind="words", words=words[behavior.testbed or ""])
    check_behavior(
        plan,
        load_subject_of(plan, options),
        options.behavior,
        plan.behavior_checked[options.behavior],
        score,
        read_records(options.records / "heldout.jsonl"),
        options.adapters,
        options.out,
    )
