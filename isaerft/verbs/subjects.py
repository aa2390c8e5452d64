"""Verbs that make a subject: its model, corpus, SAE, facts and, on the testbed, its truth."""

from __future__ import annotations

import argparse

from isaerft import config
from isaerft.errors import InputError
from isaerft.verbs.base import load_subject_of, plan_of, verb


@verb("testbed-model", "study", "subject", "out")
def testbed_model(options: argparse.Namespace) -> None:
    """Train the embedded subject's language model."""
    plan = plan_of(options)
    sizes = plan.study.subjects[options.subject].testbed
    if sizes is None:
        raise InputError(f"subject {options.subject!r} is not a testbed", remedy="give it a `testbed:` section")
    from isaerft.subjects.load import set_up_torch
    from isaerft.testbed.model import train_model

    set_up_torch(plan)
    train_model(sizes, plan.study.seed, options.out)


@verb("corpus", "study", "subject", "dir")
def corpus(options: argparse.Namespace) -> None:
    """Tokenize (or sample) a subject's reference corpus."""
    plan = plan_of(options)
    from isaerft.layout import SubjectFolder
    from isaerft.subjects.corpus import make_corpus, write_corpus
    from isaerft.subjects.load import load_model, set_up_torch

    folder, subject = SubjectFolder(options.dir), plan.study.subjects[options.subject]
    language = load_model(subject, folder, set_up_torch(plan))
    if subject.testbed is not None:
        from isaerft.testbed.model import corpus_rows

        size = {"n_tokens": subject.corpus.tokens, "context_size": subject.corpus.context_size}
        rows = corpus_rows(language, **size, seed=plan.study.seed)
    else:
        rows = make_corpus(subject.corpus, language, plan.study.seed)
    write_corpus(rows, folder.corpus)


@verb("dictionary", "study", "subject", "dir")
def dictionary(options: argparse.Namespace) -> None:
    """Fetch or train a subject's SAE and write it with its normalisation folded in."""
    plan = plan_of(options)
    from isaerft.layout import SubjectFolder
    from isaerft.subjects.corpus import read_corpus
    from isaerft.subjects.load import load_model, set_up_torch
    from isaerft.subjects.sae import fetch_sae, train_sae

    folder, subject = SubjectFolder(options.dir), plan.study.subjects[options.subject]
    language = load_model(subject, folder, set_up_torch(plan))
    if subject.testbed is None and subject.train_sae is None:
        fetch_sae(subject, language, folder.sae)
        return
    hook_name = subject.hook_name
    if subject.testbed is not None:
        from isaerft.testbed.model import hook_name as testbed_hook

        hook_name = testbed_hook(subject.testbed)
    training = subject.train_sae or config.TrainSae()
    rows = read_corpus(folder.corpus)
    train_sae(training, language, rows, hook_name=hook_name, folder=folder.sae, seed=plan.study.seed)


@verb("facts", "study", "subject", "dir")
def facts(options: argparse.Namespace) -> None:
    """Check that model and SAE fit (the gate) and measure every latent on the reference corpus."""
    plan = plan_of(options)
    from isaerft.layout import SubjectFolder
    from isaerft.subjects.corpus import read_corpus
    from isaerft.subjects.gate import describe_subject

    folder = SubjectFolder(options.dir)
    subject = load_subject_of(plan, options)
    describe_subject(plan, options.subject, subject, read_corpus(folder.corpus), folder)


@verb("scored-contexts", "study", "subject", "dir", "out")
def scored_contexts(options: argparse.Namespace) -> None:
    """Lay aside what explanations are scored on: evidence of each latent that no explainer or judge sees."""
    plan = plan_of(options)
    from isaerft.io import replacing
    from isaerft.layout import SubjectFolder
    from isaerft.subjects.contexts import scored_contexts as evidence
    from isaerft.subjects.corpus import read_corpus
    from isaerft.subjects.facts import measure_firing

    subject, rows = load_subject_of(plan, options), read_corpus(SubjectFolder(options.dir).corpus)
    frame = evidence(
        subject,
        rows,
        measure_firing(subject, rows, plan.study.batch_size),
        n_windows=plan.study.scored_windows,
        n_amplified=plan.study.subjects[options.subject].amplified_rows,
        batch_size=plan.study.batch_size,
        seed=plan.study.seed,
    )
    with replacing(options.out) as temporary:
        frame.to_parquet(temporary, index=False)


@verb("truth", "study", "subject", "dir")
def truth(options: argparse.Namespace) -> None:
    """Write down what each latent of the embedded subject truly does, and arms with known shares of it wrong."""
    plan = plan_of(options)
    from isaerft.layout import SubjectFolder
    from isaerft.testbed.truth import write_truth

    behaviors = {name: plan.study.behaviors[name] for name in plan.tested_behaviors}
    styles = {name: part.testbed for name, part in behaviors.items() if part.testbed is not None}
    latents = SubjectFolder(options.dir).read_latents()
    write_truth(load_subject_of(plan, options), latents, styles, options.dir / "truth", plan.study.seed)
