"""Verbs that set a study up: write its config, and check it and the machine; no rule of the workflow calls them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from isaerft.cli.options import tell, typed_text
from isaerft.errors import InputError, shown

app = typer.Typer()


@app.command("new")
def new(
    study_name: Annotated[str, typer.Argument(help="Name of the study; its config becomes config/STUDY_NAME.yaml.")],
    model: Annotated[
        str, typer.Option(help="Model: id on the hub, folder, GGUF file, or PACKAGE/FILE.gguf in an installed package.")
    ],
    behavior: Annotated[
        list[str] | None,
        typer.Option(help="[NAME=]FILE with prompts and replies, or NAME=DATASET@COMMIT on the hub; once for each."),
    ] = None,
    release: Annotated[str | None, typer.Option(help="SAELens release of a pretrained SAE ...")] = None,
    sae_id: Annotated[str | None, typer.Option(help="... and its id there.")] = None,
    sae_path: Annotated[str | None, typer.Option(help="Or a folder with an SAE in SAELens' format.")] = None,
    train_sae: Annotated[
        str | None, typer.Option(help="Or a hook at which the study trains one: blocks.15.hook_resid_post.")
    ] = None,
    describe: Annotated[
        list[str] | None, typer.Option(help="NAME=TEXT: what replies of a behavior do; judges read this and no more.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(help="NAME:FIELD=COLUMN, where columns are not found by themselves.")
    ] = None,
    where: Annotated[list[str] | None, typer.Option(help="NAME:COLUMN=VALUE: take only these rows.")] = None,
    explanations: Annotated[
        str, typer.Option(help="auto (Neuronpedia's, where it has this SAE), neuronpedia, none, or a file.")
    ] = "auto",
    corpus: Annotated[
        str,
        typer.Option(help="Text to describe latents on: auto, sample (the model's own), hub, a file, DATASET@COMMIT."),
    ] = "auto",
    standard_behaviors: Annotated[
        bool, typer.Option("--standard-behaviors", help="Add the 14 behaviors of data/elicit as contrasts.")
    ] = False,
    llm: Annotated[str | None, typer.Option(help="Language model that judges explanations.")] = None,
    llm_url: Annotated[str | None, typer.Option(help="Its server, which speaks OpenAI's chat protocol.")] = None,
    size: Annotated[Literal["quick", "full"], typer.Option(help="quick: a first look, with wide intervals.")] = "full",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Write the config of a study, checked, with comments; say what it will cost and what is missing.

    An existing config is never overwritten. Nothing is run; of the hub, only small files are read.
    """
    from isaerft.setup.doctor import of_study
    from isaerft.setup.new import write_config
    from isaerft.setup.wanted import Wanted

    def texts(given: list[str] | None) -> list[str]:
        return [typed_text(text) for text in given or []]

    wanted = Wanted(
        name=study_name,
        model=model,
        behaviors=_mapping(texts(behavior), "behavior"),
        release=release,
        sae_id=sae_id,
        sae_path=sae_path,
        train_sae=train_sae,
        descriptions=_mapping(texts(describe), "describe"),
        columns=_nested(texts(columns), "columns"),
        where=_nested(texts(where), "where"),
        explanations=explanations,
        corpus=corpus,
        llm=llm,
        llm_url=llm_url,
        size=size,
        device=device,
        standard=standard_behaviors,
    )
    written = write_config(wanted)
    tell("\n".join(written.said))
    for finding in of_study(written.plan):
        if finding.level != "OK" or finding.what.startswith("cost"):
            tell(str(finding))
    tell(f"Wrote {written.path}. Look through it, then: isaerft doctor {written.path}")


@app.command("doctor")
def doctor(
    study_file: Annotated[Path | None, typer.Argument(help="Config file of a study to check, too.")] = None,
) -> None:
    """Check this machine, and a study on it: one line each, OK, warning or fault, with what to do.

    Exit status 1 if there is a fault. No token's value is read out or sent.
    """
    from isaerft.setup.doctor import examine

    faults = 0
    for finding in examine(study_file):
        tell(str(finding))
        faults += finding.level == "fault"
    if faults:
        tell(f"{faults} fault{'s' * (faults > 1)}: a study would stop.")
        raise typer.Exit(1)


def _mapping(given: Sequence[str], option: str) -> dict[str, str]:
    """Return NAME=VALUE texts as a mapping; a file alone is named after itself."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals and option == "behavior":
            name, value = re.sub(r"\W+", "_", Path(text.partition("@")[0]).name.partition(".")[0]).strip("_"), text
        elif not equals or not name or not value:
            raise InputError(f"--{option} {shown(text)}", allowed="NAME=VALUE")
        if name in found:
            raise InputError(f"--{option} gives {shown(name)} twice", remedy="give each its own name: NAME=VALUE")
        found[name] = value
    return found


def _nested(given: Sequence[str], option: str) -> dict[str, dict[str, str]]:
    """Return BEHAVIOR:KEY=VALUE texts as nested mappings."""
    found: dict[str, dict[str, str]] = {}
    for text in given:
        behavior, colon, rest = text.partition(":")
        key, equals, value = rest.partition("=")
        if not colon or not equals or not behavior or not key:
            raise InputError(f"--{option} {shown(text)}", allowed="BEHAVIOR:KEY=VALUE")
        found.setdefault(behavior, {})[key] = value
    return found
