"""Verbs that steer: one latent by hand, or the steering check of a study."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated

import typer

from isaerft.cli.options import (
    Opened,
    ResultsFolder,
    StudyFile,
    SubjectName,
    check_name,
    open_study,
    open_subject,
    tell,
    typed_text,
)
from isaerft.config import Source, SteeringCheck
from isaerft.errors import InputError

if TYPE_CHECKING:
    from isaerft.behaviors import Record
    from isaerft.subjects.load import LoadedModel

app = typer.Typer()
WIDEST = 160
"""Columns of the terminal that `steer` fills at most."""


@app.command("steer")
def steer(
    study: StudyFile,
    subject: SubjectName,
    latent: Annotated[int, typer.Option(help="Index of the latent.")],
    strength: Annotated[float, typer.Option(help="How far, in units of the latent's largest activation.")] = 1.0,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt; give it again for more. Default: some of the study's.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 40,
    temperature: Annotated[float, typer.Option(min=0, help="0: the most likely token; 1: sampling.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of sampling.")] = 0,
    results: ResultsFolder = None,
) -> None:
    """Show the model's answers with one latent suppressed, left as it is, and amplified, side by side.

    The latent's decoder row, times its largest activation on the reference corpus and the strength, is added to the
    residual stream wherever a token of the answer is predicted, or taken away.
    """
    opened = plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    if strength <= 0:
        raise InputError(
            f"strength {strength:g}", allowed="a number above 0: the latent is moved that far up and that far down"
        )
    facts = layout.subject(subject).read_latents()
    if latent not in facts["latent_index"].to_numpy():
        raise InputError(f"latent {latent}", allowed=f"0 to {len(facts) - 1}, the latents of subject {subject!r}")
    from isaerft.behaviors import Record
    from isaerft.changes.steering import neutral_prompts, pushes_of, steered_answers

    loaded = open_subject(opened, subject)
    if prompt:
        asked = [(loaded.language, Record(str(number), typed_text(text))) for number, text in enumerate(prompt)]
    else:
        asked = list(_asked(opened, loaded.language, plan.study.steering_check or SteeringCheck()))
    prompts = neutral_prompts(
        asked,
        n=len(prompt) if prompt else 3,
        max_length=plan.study.max_length,
        max_new_tokens=max_new_tokens,
        seed=plan.study.seed,
    )
    answers = steered_answers(
        loaded,
        prompts,
        pushes_of(loaded, facts, [latent], [-strength, 0.0, strength]),
        max_new_tokens=max_new_tokens,
        batch_size=plan.study.batch_size,
        temperature=temperature,
        seed=seed,
    )
    tell(f"latent {latent} of {subject}")
    for name, text in _explanations(opened, subject, latent):
        tell(f"  {name}: {text}")
    titles = [f"suppressed (-{strength:g})", "as it is", f"amplified (+{strength:g})"]
    for place, one in enumerate(prompts):
        tell(f"\n> {' '.join(one.text.split())}")
        tell(side_by_side(titles, [said[place] for said in answers]))


def side_by_side(titles: list[str], texts: list[str], width: int | None = None) -> str:
    """Return texts in columns of equal width under their titles; by default as wide as the terminal allows."""
    width = min(WIDEST, shutil.get_terminal_size((120, 24)).columns) if width is None else width
    each = max(12, (width - 3 * (len(texts) - 1)) // len(texts))
    columns = []
    for title, text in zip(titles, texts, strict=True):
        lines = [part for line in text.strip().splitlines() for part in textwrap.wrap(line, each) or [""]]
        columns.append([title, "-" * len(title), *(lines or ["(nothing)"])])
    rows = zip_longest(*columns, fillvalue="")
    return "\n".join(" | ".join(cell.ljust(each) for cell in row).rstrip() for row in rows)


@app.command("steering-check")
def steering_check(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Amplify and suppress latents with a verdict, and untested ones, while the model answers; score the answers."""
    opened = plan, layout = open_study(study, results)
    options = plan.study.steering_check
    check_name("subject", subject, plan.study.subjects)
    if options is None or subject not in plan.steering_checked:
        raise InputError(
            f"the study has no steering check of subject {subject!r}",
            remedy="add a `steering_check:` section to its config, and let the primary source explain the subject",
        )
    from isaerft.analysis.steered_latents import choose_latents
    from isaerft.changes.steering import neutral_prompts
    from isaerft.changes.steering_check import check_steering
    from isaerft.testbed.language import style_metric

    latents = choose_latents(plan, layout, subject, options)
    loaded = open_subject(opened, subject)
    prompts = neutral_prompts(
        _asked(opened, loaded.language, options),
        n=options.n_prompts,
        max_length=plan.study.max_length,
        max_new_tokens=options.max_new_tokens,
        seed=plan.study.seed,
    )
    scored = {name: plan.study.behaviors[name] for name in plan.steering_scored}
    check_steering(
        plan,
        loaded,
        options,
        latents,
        layout.subject(subject).read_latents(),
        prompts,
        {name: part.metric or style_metric(part) for name, part in scored.items()},
        layout.steering_check(subject).path,
    )


def _asked(opened: Opened, language: LoadedModel, options: SteeringCheck) -> Iterator[tuple[LoadedModel, Record]]:
    """Yield the prompts of the options' file, or of held-out records, with the model as it reads them."""
    from isaerft.behaviors import Record, read_prompts, read_records

    plan, layout = opened
    if options.prompts is not None:
        for number, text in enumerate(read_prompts(options.prompts)):
            yield language, Record(str(number), text)
        return
    for name in plan.tested_behaviors:
        asked = language.prompted(plan.behavior_of(name))
        yield from ((asked, record) for record in read_records(layout.behavior(name).heldout))


def _explanations(opened: Opened, subject: str, latent: int) -> Iterator[tuple[str, str]]:
    """Yield the explanations of a latent by every source that has been asked, else what its contexts say."""
    from isaerft.explanations import read_explanations
    from isaerft.explanations.local import from_contexts

    plan, layout = opened
    paths = {name: layout.explanations(subject, name) for name in plan.sources_of(subject)}
    tables = {name: read_explanations(path) for name, path in paths.items() if path.is_file()}
    folder = layout.subject(subject)
    if not tables and folder.contexts.is_file():
        d_sae = len(folder.read_latents())
        tables = {"contexts": from_contexts(Source(side="both"), subject_dir=folder.path, d_sae=d_sae)}
    for name, table in tables.items():
        yield from ((name, text) for text in table.loc[table["latent_index"] == latent, "explanation"])
