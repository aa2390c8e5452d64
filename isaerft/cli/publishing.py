"""Verbs that bring results to others: verdicts back to label makers, and a leaderboard over finished studies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isaerft.cli.options import ResultsFolder, StudyFile, SubjectName, check_name, open_study, tell
from isaerft.errors import InputError
from isaerft.version import VERSION

if TYPE_CHECKING:
    from isaerft.config import Plan
    from isaerft.layout import Results
    from isaerft.publish import Folder, Verdicts

app = typer.Typer()


@app.command("publish")
def publish(
    what: Annotated[
        Literal["neuronpedia", "export", "dataset", "adapter"],
        typer.Argument(
            help="neuronpedia: lists there, of supported, contradicted and absorbed latents, with the reason. export: "
            "the same explanations as JSONL in Neuronpedia's export format. dataset: all verdicts, for the Hugging "
            "Face hub. adapter: a trained adapter, for the same.",
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
    behavior: Annotated[str | None, typer.Option("--behavior", help="adapter: trained on this behavior.")] = None,
    adapter: Annotated[str | None, typer.Option("--adapter", help="adapter: its name in the config.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="adapter: which replicate.")] = 0,
    send: Annotated[
        bool,
        typer.Option(
            "--send",
            help="neuronpedia: really make the lists; anybody can see them. With --repo: really upload.",
            show_default=False,
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="export, dataset, adapter: really write, into this new folder.")
    ] = None,
    repo: Annotated[
        str | None, typer.Option("--repo", help="dataset, adapter: upload to OWNER/NAME on the Hugging Face hub.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Anybody may see a new repository.", show_default=False)
    ] = False,
    results: ResultsFolder = None,
) -> None:
    """Bring a finished study's results to others. Without --send or --out: a dry run.

    A dry run tells what would be sent or written, and its size. Keys are read from NEURONPEDIA_API_KEY and HF_TOKEN (or
    `hf auth login`), nowhere else.
    """
    uploads = what in ("dataset", "adapter")
    sends = what == "neuronpedia" or repo is not None
    if (
        (send and not sends)
        or (out and (sends or what == "neuronpedia"))
        or ((repo or public) and not (uploads and repo))
    ):
        raise InputError(
            f"publish {what} with {' and '.join(_given(send=send, out=out, repo=repo, public=public))}",
            allowed="--send with neuronpedia, --out with export; with dataset and adapter --out, or --repo and then"
            " --public and --send",
        )
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    if what == "adapter":
        if behavior is None or adapter is None:
            raise InputError("publish adapter without --behavior and --adapter", remedy="give both")
        check_name("behavior", behavior, plan.study.behaviors)
        check_name("adapter", adapter, plan.study.adapters)
        _deliver(_adapter(plan, layout, (subject, behavior, adapter, seed), repo), out, repo, public, send, "model")
        return
    if source is not None:
        check_name("source", source, plan.study.sources)
    if judge is not None:
        check_name("judge", judge, plan.study.judges)
    from isaerft import publish as parts

    verdicts = parts.read_verdicts(plan, layout, subject, source=source, judge=judge, source_id=source_id)
    tell(f"{verdicts.title}: {verdicts.counts()}; provenance of the explanations: {verdicts.provenance}")
    if what == "neuronpedia":
        _publish_lists(plan, verdicts, send)
        return
    folder = parts.export_folder(verdicts) if what == "export" else parts.dataset_folder(verdicts)
    _deliver(folder, out, repo, public, send, "dataset")


def _given(**options: object) -> list[str]:
    return [f"--{name}" for name, value in options.items() if value]


def _publish_lists(plan: Plan, verdicts: Verdicts, send: bool) -> None:
    """Make lists at Neuronpedia, or tell which would be made."""
    from isaerft import publish as parts

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
            tell(f"{sent.url} {how}: {len(sent.latents):,} of {len(sent.wanted.latents):,} latents read back as sent")
            if sent.unknown:
                tell(f"  Neuronpedia does not have {len(sent.unknown):,}: {', '.join(map(str, sent.unknown[:20]))}")


def _adapter(plan: Plan, layout: Results, names: tuple[str, str, str, int], repo: str | None) -> Folder:
    """Return a trained adapter with its card; LoRA in PEFT's format."""
    from isaerft import publish as parts

    place, in_peft = parts.seed_folder(plan, layout, *names), None
    if plan.kind_of(names[2]) == parts.PEFT_KIND:
        from isaerft.adapters.export import peft_files

        subject = plan.study.subjects[names[0]]
        in_peft = peft_files(
            place, subject.model or str(layout.subject(names[0]).model), subject.revision, base=subject.model_name
        )
    return parts.adapter_folder(plan, layout, *names, repo_id=repo or "OWNER/NAME", in_peft=in_peft)


def _deliver(folder: Folder, out: Path | None, repo: str | None, public: bool, send: bool, kind: str) -> None:
    """Write a folder, upload it, or tell what would be written or uploaded."""
    from isaerft import hub
    from isaerft.publish import write_folder

    for name, content in folder.files.items():
        tell(f"  {name}: {_size(len(content))}")
    if out is not None:
        write_folder(folder, out)
        tell(f"wrote {out}, {_size(folder.n_bytes)}; {folder.purpose}.")
        return
    if repo is None:
        tell(f"Dry run: nothing was written. --out FOLDER writes {_size(folder.n_bytes)}; {folder.purpose}.")
        return
    hub.check_repo(repo)
    with TemporaryDirectory() as temporary:
        place = Path(temporary, "upload")
        write_folder(folder, place)
        if send:
            url = hub.upload(place, repo, kind=kind, private=not public, message=f"isaerft {VERSION}")
            tell(f"uploaded {_size(folder.n_bytes)} to {url}")
            return
        hub.check_credentials(place)
        who = "anybody may see it" if public else "private"
        tell(
            f"Dry run: nothing was sent, and no credential was found. --send uploads {len(folder.files)} files, "
            f"{_size(folder.n_bytes)}, to the {kind} {repo}; a new repository is {who}."
        )


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
