"""Verbs that bring results to others: verdicts back to label makers, and a leaderboard over finished studies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer

from isaerft.cli.options import ResultsFolder, StudyFile, SubjectName, check_name, open_study, tell
from isaerft.errors import InputError

app = typer.Typer()


@app.command("publish")
def publish(
    what: Annotated[
        Literal["neuronpedia", "export", "dataset"],
        typer.Argument(
            help="neuronpedia: lists there, of supported, contradicted and absorbed latents, with the reason. export: "
            "the same explanations as JSONL in Neuronpedia's export format. dataset: all verdicts, for the Hugging "
            "Face hub.",
        ),
    ],
    study: StudyFile,
    subject: SubjectName,
    source: Annotated[
        str | None, typer.Option("--source", help="Whose explanations.", show_default="of the primary result")
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", help="As read by this judge.", show_default="of the primary result")
    ] = None,
    source_id: Annotated[
        str | None,
        typer.Option(help="MODEL/SOURCE of the SAE at Neuronpedia.", show_default="as the study's files say"),
    ] = None,
    send: Annotated[
        bool,
        typer.Option("--send", help="neuronpedia: really make the lists; anybody can see them.", show_default=False),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="export, dataset: really write, into this new folder.")
    ] = None,
    results: ResultsFolder = None,
) -> None:
    """Bring a finished study's verdicts back to where its explanations came from. Without --send or --out: a dry run.

    A dry run tells what would be sent or written, and its size. The key is read from NEURONPEDIA_API_KEY, nowhere else.
    """
    if (send and what != "neuronpedia") or (out is not None and what == "neuronpedia"):
        raise InputError(
            f"publish {what} with {'--send' if send else '--out'}",
            allowed="--send with neuronpedia, --out with export and dataset",
        )
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    if source is not None:
        check_name("source", source, plan.study.sources)
    if judge is not None:
        check_name("judge", judge, plan.study.judges)
    from isaerft import publish as parts

    verdicts = parts.read_verdicts(plan, layout, subject, source=source, judge=judge, source_id=source_id)
    tell(f"{verdicts.title}: {verdicts.counts()}; provenance of the explanations: {verdicts.provenance}")
    if what == "neuronpedia":
        lists, dictionary = parts.lists_of(verdicts), verdicts.at_neuronpedia
        for one in lists:
            tell(f"  {one.name}: {len(one.latents):,} latents, {_size(one.n_bytes(dictionary))}")
        if not lists:
            tell("No verdict is supported, contradicted or absorbed: there is nothing to send.")
        elif not send:
            total = _size(sum(one.n_bytes(dictionary) for one in lists))
            latent, said = next(iter(lists[0].latents.items()))
            tell(f"  first latent: {latent}, {said}")
            tell(
                f"Dry run: nothing was sent. --send makes these lists of {'/'.join(dictionary)}: {total}, "
                f"{2 * len(lists) + 2:,} requests. Anybody can see them."
            )
        else:
            options = plan.study.sources[verdicts.source].neuronpedia
            for sent in asyncio.run(parts.send_lists(options, dictionary, lists)):
                how = "made" if sent.is_new else "was there"
                tell(
                    f"{sent.url} {how}: {len(sent.latents):,} of {len(sent.wanted.latents):,} latents read back as sent"
                )
                if sent.unknown:
                    tell(f"  Neuronpedia does not have {len(sent.unknown):,}: {', '.join(map(str, sent.unknown[:20]))}")
        return
    folder = parts.export_folder(verdicts) if what == "export" else parts.dataset_folder(verdicts)
    for name, content in folder.files.items():
        tell(f"  {name}: {_size(len(content))}")
    if out is None:
        tell(f"Dry run: nothing was written. --out FOLDER writes {_size(folder.n_bytes)}; {folder.purpose}.")
    else:
        parts.write_folder(folder, out)
        tell(f"wrote {out}, {_size(folder.n_bytes)}; {folder.purpose}.")


def _size(n_bytes: int) -> str:
    return f"{n_bytes:,} bytes" if n_bytes < 10_000 else f"{n_bytes / 1000:,.0f} kB"


@app.command("leaderboard")
def leaderboard(
    studies: Annotated[list[Path], typer.Argument(metavar="studies", help="Results folders of finished studies.")],
    out: Annotated[Path, typer.Option("--out", help="Page; the same as CSV is written beside it.")],
) -> None:
    """Rank SAEs and label makers over finished studies, from their tables alone, on one self-contained page."""
    from isaerft import analysis
    from isaerft.analysis.leaderboard import LEADERBOARD, leaderboard
    from isaerft.io import write_text
    from isaerft.report.leaderboard import leaderboard_page

    if out.suffix != ".html":
        raise InputError(f"--out {str(out)!r}", allowed="a file that ends in .html")
    frame = leaderboard(dict(analysis.TABLES), studies)
    LEADERBOARD.write(frame, out.with_suffix(".csv"))
    frame = LEADERBOARD.read(out.with_suffix(".csv"))
    write_text(out, leaderboard_page(frame))
    tell(f"wrote {out} and {out.with_suffix('.csv')}: {len(frame):,} results of {len(studies):,} studies")
