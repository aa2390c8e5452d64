"""Verbs that ask readers, people or models, and read their answers; no rule of the workflow calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isaerft.cli.options import ResultsFolder, StudyFile, SubjectName, check_name, open_study, typed_text

app = typer.Typer()


@app.command("annotation-sheet")
def annotation_sheet(
    study: StudyFile,
    subject: SubjectName,
    out: Annotated[Path, typer.Option("--out", help="Folder for sheet.csv, sheet.html and sheet.json.")],
    source: Annotated[
        str | None,
        typer.Option("--source", help="Ask for judgements of this source's explanations.", show_default=False),
    ] = None,
    latents: Annotated[
        str | None,
        typer.Option(
            help="sample (case-control), all, or a data file with a column latent_index.",
            show_default="the sample if there is one, else all",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the order; give each reader another.", show_default="the study's")
    ] = None,
    results: ResultsFolder = None,
) -> None:
    """Make a sheet on which a reader explains latents or, with --source, judges explanations.

    Nothing from training is on it. docs/annotate.md is the guide for readers.
    """
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    if source is not None:
        check_name("source", source, plan.study.sources)
    from isaerft.annotation import chosen_latents, explain_sheet, judge_sheet, write_sheet

    wanted = chosen_latents(plan, layout, subject, latents)
    order = plan.study.seed if seed is None else seed
    if source is None:
        write_sheet(out, *explain_sheet(plan, layout, subject, wanted, seed=order))
    else:
        write_sheet(out, judge_sheet(plan, layout, subject, source, wanted, seed=order))


@app.command("read-annotations")
def read_annotations(
    study: StudyFile,
    subject: SubjectName,
    sheet: Annotated[Path, typer.Option("--sheet", help="Folder of the sheet.")],
    returned: Annotated[Path, typer.Option("--returned", help="CSV file with the answers.")],
    reader: Annotated[str, typer.Option("--reader", help="Name of the reader.")],
    kind: Annotated[str, typer.Option("--kind", help="What the reader is: person or model.")],
    out: Annotated[Path, typer.Option("--out", help="CSV file for a source `file` or a judge `table`.")],
    results: ResultsFolder = None,
) -> None:
    """Turn a returned sheet into the file that a source or a judge reads, with its provenance as JSON beside it."""
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    from isaerft import annotation

    annotation.read_annotations(
        plan, layout, subject, sheet=sheet, returned=returned, reader=typed_text(reader), kind=kind, out=out
    )
