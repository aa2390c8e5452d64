"""Verbs that make a subject: its model, corpus, SAE, facts and, on the testbed, its truth."""

from __future__ import annotations

import typer

from isaerft.cli.options import (
    ResultsFolder,
    StudyFile,
    SubjectName,
    check_name,
    open_model,
    open_study,
    open_subject,
)
from isaerft.config import FROZEN, UNTRAINED, TrainSae
from isaerft.errors import InputError

app = typer.Typer()


@app.command("testbed-model")
def train_testbed_model(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Train the language model of an embedded subject."""
    plan, layout = open_study(study, results)
    options = plan.subjects[check_name("subject", subject, plan.subjects)].testbed
    if options is None:
        raise InputError(f"subject {subject!r} is not a testbed", remedy="give it a `testbed:` section")
    from isaerft.subjects.device import set_up_torch
    from isaerft.testbed.model import train_model

    set_up_torch(plan, alone=True)
    train_model(options, plan.world_seed(subject), layout.subject(subject).model)


@app.command("gguf-model")
def convert_gguf(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Convert a subject's GGUF file to a Hugging Face folder."""
    plan, layout = open_study(study, results)
    options = plan.study.subjects[check_name("subject", subject, plan.study.subjects)].gguf
    if options is None:
        raise InputError(f"subject {subject!r} has no GGUF file", remedy="give it a `gguf:` section")
    from isaerft.subjects.gguf import convert

    convert(options, layout.subject(subject).model)


@app.command("corpus")
def corpus(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Tokenize a subject's reference corpus, or sample it from the model."""
    opened = plan, layout = open_study(study, results)
    options = plan.study.subjects[check_name("subject", subject, plan.study.subjects)]
    from isaerft.subjects.corpus import make_corpus, write_corpus

    folder, model = layout.subject(subject), open_model(opened, subject)
    if options.testbed is not None:
        from isaerft.testbed.language import language_of
        from isaerft.testbed.model import corpus_rows

        rows = corpus_rows(
            model,
            language_of(options.testbed),
            n_tokens=options.corpus.tokens,
            context_size=options.corpus.context_size,
            seed=plan.world_seed(subject),
        )
    elif options.corpus.prompts is not None:
        from isaerft.behaviors import read_prompts
        from isaerft.subjects.generate import sample_chats

        rows = sample_chats(
            model,
            read_prompts(options.corpus.prompts),
            n_tokens=options.corpus.tokens,
            context_size=options.corpus.context_size,
            batch_size=plan.study.batch_size,
            seed=plan.study.seed,
        )
    else:
        rows = make_corpus(options.corpus, model, plan.study.seed)
    write_corpus(rows, folder.corpus)


@app.command("dictionary")
def dictionary(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Fetch or train a subject's SAE, and write it with its normalization folded in."""
    opened = plan, layout = open_study(study, results)
    options = plan.subjects[check_name("subject", subject, plan.subjects)]
    from isaerft.subjects.corpus import read_corpus
    from isaerft.subjects.sae import fetch_sae, train_sae

    folder, base = layout.subject(subject), layout.subject(plan.origin(subject))
    control = plan.baselines_of(plan.origin(subject)).get(subject, "")
    if control == UNTRAINED:
        from isaerft.subjects.untrained import write_untrained_sae

        loaded, rows = open_subject(opened, plan.origin(subject)), read_corpus(base.corpus)
        write_untrained_sae(loaded, rows, base.sae, folder.sae, seed=plan.world_seed(subject))
        return
    model = open_model(opened, subject, alone=True)
    if options.testbed is None and options.train_sae is None:
        fetch_sae(options, model, folder.sae)
        return
    hook_name = options.hook_name
    if options.testbed is not None:
        from isaerft.testbed.model import hook_name as testbed_hook

        hook_name = testbed_hook(options.testbed)
    rows = read_corpus(base.corpus)
    training = options.train_sae or TrainSae()
    seed = plan.world_seed(subject) if training.seed is None else training.seed
    frozen = FROZEN.get(control)
    train_sae(training, model, rows, hook_name=hook_name, folder=folder.sae, seed=seed, frozen=frozen)


@app.command("facts")
def facts(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Check that model and SAE fit (the gate), and measure every latent on the reference corpus."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.subjects)
    from isaerft.subjects.corpus import read_corpus
    from isaerft.subjects.gate import describe_subject

    rows = read_corpus(layout.subject(plan.origin(subject)).corpus)
    describe_subject(plan, subject, open_subject(opened, subject), rows, layout.subject(subject))


@app.command("meta-sae")
def meta_sae(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Train a dictionary of a subject's decoder rows, and write what each latent is composed of."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    if plan.study.meta_sae is None:
        raise InputError("the study has no meta-SAE", remedy="add `meta_sae: {}`")
    from isaerft.subjects.meta import write_composition

    loaded, folder = open_subject(opened, subject), layout.subject(subject)
    facts = folder.read_latents()
    alive = facts.latent_index[facts.firing_rate >= plan.study.agreement.min_firing_rate].to_numpy()
    seed = plan.world_seed(subject)
    write_composition(loaded.dictionary, alive, plan.study.meta_sae, folder.composition, seed=seed)


@app.command("scored-contexts")
def scored_contexts(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Hold out contexts for scoring explanations; no explainer or judge sees them."""
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    from isaerft.io import replacing
    from isaerft.subjects.contexts import heldout_contexts
    from isaerft.subjects.corpus import read_corpus
    from isaerft.subjects.facts import measure_firing

    folder, loaded = layout.subject(subject), open_subject(opened, subject)
    rows = read_corpus(folder.corpus)
    firing = measure_firing(loaded, rows, plan.study.batch_size)
    frame = heldout_contexts(
        loaded,
        rows,
        firing,
        n_windows=plan.study.scored_windows,
        n_amplified=plan.study.subjects[subject].amplified_rows,
        batch_size=plan.study.batch_size,
        seed=plan.study.seed,
    )
    if plan.scores_steered_texts:
        import pandas as pd

        from isaerft.changes.steering import steered_contexts

        written = steered_contexts(loaded, rows, firing, batch_size=plan.study.batch_size)
        frame = pd.concat([frame, written], ignore_index=True)
    with replacing(folder.scored) as temporary:
        frame.to_parquet(temporary, index=False)


@app.command("truth")
def truth(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Write what each latent of an embedded subject truly does, and arms with known shares of it wrong."""
    opened = plan, layout = open_study(study, results)
    options = plan.subjects[check_name("subject", subject, plan.subjects)].testbed
    if options is None:
        raise InputError(f"subject {subject!r} is not a testbed", remedy="give it a `testbed:` section")
    from isaerft.testbed.language import language_of
    from isaerft.testbed.truth import write_truth

    behaviors = {name: plan.study.behaviors[name] for name in plan.tested_behaviors}
    styles = {name: part.testbed for name, part in behaviors.items() if part.testbed is not None}
    folder, seed = layout.subject(subject), plan.world_seed(subject)
    loaded, language = open_subject(opened, subject), language_of(options)
    write_truth(loaded, language, folder.read_latents(), styles, folder.truth, seed)
