"""The verb of the benchmark of explanation scorers: compare scores, place somebody's own among them, export it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isaerft.cli.options import ResultsFolder, open_study, tell
from isaerft.errors import InputError

app = typer.Typer()


@app.command("benchmark")
def benchmark(
    study: Annotated[
        Path | None, typer.Option("--study", help="Config file of a finished study whose sources have keys.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="Exported benchmark, in place of a study.", show_default="none")
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            "--scores",
            help="CSV with your scores: subject, latent_index, value, and source or side, share. Larger fits better.",
            show_default="only ours are compared",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What your scorer is called.", show_default="the file's name")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="New folder for the three tables.")] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="New folder for the benchmark as a data set, with a card.")
    ] = None,
    results: ResultsFolder = None,
) -> None:
    """Compare scores of explanations by how well they find wrong ones, and place your own among them."""
    if (study is None) == (dataset is None):
        raise InputError(
            f"benchmark with {'both' if study else 'neither'} of --study and --dataset", allowed="one of the two"
        )
    if name is not None and scores is None:
        raise InputError("benchmark with --name and no --scores", remedy="give the scores")
    if export is not None and (study is None or scores is not None or out is not None):
        raise InputError("benchmark with --export and another option", allowed="--export with --study alone")
    from isaerft.publish import benchmark as parts

    if study is None:
        found, level = parts.read_benchmark_folder(Path(str(dataset)))
    else:
        plan, layout = open_study(study, results)
        found, level = parts.study_benchmark(plan, layout), plan.study.agreement.confidence_level
        if export is not None:
            from isaerft.publish import write_folder

            folder = parts.benchmark_folder(plan, layout, found)
            write_folder(folder, export)
            tell(f"wrote {export}: {', '.join(folder.files)}; {folder.purpose}.")
            return
    from isaerft.analysis.benchmark import benchmark_tables, shown_as_text
    from isaerft.analysis.benchmarked import given_scores

    if scores is not None:
        found = found.scored_by(given_scores(found, scores), name or scores.stem)
    tables = benchmark_tables(found, level)
    tell(shown_as_text({table.name: frame for table, frame in tables}["benchmark"]))
    if out is not None:
        if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
            raise InputError(f"{str(out)!r} exists", allowed="a new or empty folder", remedy="name another one")
        for table, frame in tables:
            table.write(frame, out / f"{table.name}.csv")
        tell(f"wrote {', '.join(f'{table.name}.csv' for table, _ in tables)} to {out}")
