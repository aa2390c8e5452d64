"""A finished study as a notebook shows it: what `isaerft.validate` returns and `isaerft.open_study` opens."""

from __future__ import annotations

import shutil
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from isaerft import analysis
from isaerft.config import Plan, load_plan
from isaerft.errors import InputError, unknown_name
from isaerft.explanations import read_explanations
from isaerft.explanations.contexts import read_contexts
from isaerft.io import read_parquet
from isaerft.layout import Results
from isaerft.report import FIGURES, figures_of
from isaerft.report.latents import address
from isaerft.report.write import summary_of

STUDY = "study.yaml"


def open_study(config: str | Path, results: str | Path | None = None) -> Validation:
    """Open a finished study to look at it.

    Parameters
    ----------
    config : str or Path
        Its config; or the folder of a study that `validate` kept.
    results : str or Path, optional
        Folder of its results; by default as Snakemake runs it, `results/{study}`.

    Raises
    ------
    InputError
        The config is no study's, or the study is not finished.
    """
    path = Path(config)
    if path.is_dir():
        path, results = path / STUDY, path / "results"
    plan = load_plan(path)
    found = plan.results if results is None else Results(Path(results))
    if not found.summary.is_file():
        raise InputError(
            f"no finished study in {str(found.root)!r}", remedy="run it first, or name the folder of its results"
        )
    root = Path(found.root)
    return Validation(path.parent if root.parent == path.parent else root, plan, found)


class Validation:
    """A finished study.

    Attributes
    ----------
    folder : Path
        Where its files lie; after `validate`: `study.yaml`, which Snakemake takes too, `inputs` and `results`.
    plan : Plan
    results : Results
        The path of every file.
    """

    def __init__(
        self, folder: Path, plan: Plan, results: Results, temporary: TemporaryDirectory[str] | None = None
    ) -> None:
        self.folder, self.plan, self.results, self._temporary = folder, plan, results, temporary

    @property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """The study's tables by name, as docs/tables.md describes them; each is read when it is asked for."""
        return _Tables(self.plan, self.results)

    @property
    def figures(self) -> Mapping[str, Figure]:
        """The study's figures by name, which a notebook shows."""
        return _Figures({name: Figure(name, self.results.figure(name)) for name in figures_of(self.plan)})

    @property
    def verdicts(self) -> pd.DataFrame:
        """The verdict on each explanation: supported, contradicted, absorbed, inconclusive or untestable, and why."""
        return self.tables["explanation_verdicts"]

    def latent(self, index: int) -> Latent:
        """Return what the study knows of one latent.

        Raises
        ------
        InputError
            The dictionary has no such latent.
        """
        subject = next(iter(self.plan.study.subjects))
        folder = self.results.subject(subject)
        facts = folder.read_latents().set_index("latent_index")
        if index not in facts.index:
            raise InputError(f"latent {index}", allowed=f"0 to {len(facts) - 1}")
        frames = [
            read_parquet(path, missing=f"{path} does not exist", remedy="run the study again").assign(behavior=behavior)
            for behavior in self.plan.tested_behaviors
            for path in [self.results.changes(subject, behavior)]
        ]
        changes = pd.concat([frame[frame["latent_index"] == index] for frame in frames])
        by = ["behavior", "adapter", "measure"]
        spread = changes.groupby(by, sort=False, observed=True)["change"].agg(["mean", "std", "count"]).reset_index()
        known = [
            read_explanations(self.results.explanations(subject, source)).assign(source=source)
            for source in self.plan.sources_of(subject)
        ]
        explanations, contexts = (
            frame[frame["latent_index"] == index].drop(columns="latent_index").reset_index(drop=True)
            for frame in (pd.concat(known), read_contexts(folder.contexts))
        )
        return Latent(
            index=index,
            facts=facts.loc[index],
            explanations=explanations,
            contexts=contexts,
            changes=spread.rename(columns={"mean": "change", "std": "sd_over_seeds", "count": "n_seeds"}),
            verdicts=self._verdicts_on(index),
            page=self.results.latent_page.absolute().as_uri() + address(subject, index),
        )

    def to_dir(self, folder: str | Path) -> Path:
        """Copy the study to a new folder, with inputs, results and `study.yaml`; return the folder.

        Raises
        ------
        InputError
            The folder is there already.
        """
        if Path(folder).exists():
            raise InputError(f"folder {str(folder)!r} is there already", allowed="a new folder")
        return Path(shutil.copytree(self.folder, folder))

    def _verdicts_on(self, index: int) -> pd.DataFrame:
        if "explanation_verdicts" not in self.tables:
            return pd.DataFrame()
        table = self.verdicts
        return table[table["latent_index"] == index].reset_index(drop=True)

    def __repr__(self) -> str:
        found = summary_of(self.plan, self.results).verdicts
        return "\n".join(
            [f"Study {self.plan.study.study}", *(f"{one.about}: {one.answer} {one.claim}" for one in found)]
        )

    def _repr_html_(self) -> str:
        """Return the first part of the summary: what was tested, the verdict, controls and cautions."""
        page = summary_of(self.plan, self.results).page
        return f'<iframe srcdoc="{escape(page)}" sandbox style="width: 100%; height: 75em; border: 0"></iframe>'


@dataclass(frozen=True, repr=False)
class Figure:
    """A figure of a study.

    Attributes
    ----------
    name : str
    path : Path
        Its SVG file.
    """

    name: str
    path: Path

    def __repr__(self) -> str:
        return f"Figure {self.name!r}"

    def _repr_html_(self) -> str:
        """Return the picture on white paper; an image cannot run scripts."""
        data = b64encode(self.path.read_bytes()).decode("ascii")
        style = "background: #fff; max-width: 100%"
        return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(self.name)}" style="{style}">'


@dataclass(frozen=True)
class Latent:
    """What a study knows of one latent.

    Attributes
    ----------
    index : int
    facts : Series
        Firing rate, decoder norm and the like.
    explanations : DataFrame
        `source`, `explanation` and `side`.
    contexts : DataFrame
        Where it fires, and which tokens it promotes.
    changes : DataFrame
        By behavior, adapter and measure: the mean change over seeds, its standard deviation, and the number of seeds.
    verdicts : DataFrame
        Rows of explanation_verdicts.csv.
    page : str
        Address of the study's page of single latents, opened at this one.
    """

    index: int
    facts: pd.Series
    explanations: pd.DataFrame
    contexts: pd.DataFrame
    changes: pd.DataFrame
    verdicts: pd.DataFrame
    page: str

    def _repr_html_(self) -> str:
        parts = {
            "Explanations": self.explanations,
            "Verdicts": self.verdicts,
            "Changes": self.changes,
            "Contexts": self.contexts,
            "Facts": self.facts.to_frame().T,
        }
        shown = [
            f"<h4>{escape(title)}</h4>{frame.to_html(index=False)}" for title, frame in parts.items() if len(frame)
        ]
        return f'<h3>Latent {self.index}</h3><p><a href="{escape(self.page)}">Its page</a></p>' + "".join(shown)


class _Figures(dict[str, Figure]):
    """Figures by name; a notebook shows each below its caption, closed until it is clicked."""

    def _repr_html_(self) -> str:
        return "".join(
            f"<details><summary><b>{escape(name)}</b> {escape(FIGURES[name].caption)}</summary>"
            f"{figure._repr_html_()}</details>"
            for name, figure in self.items()
        )


class _Tables(Mapping[str, pd.DataFrame]):
    """Tables by name, read from their files."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self._names, self._results = analysis.tables_of(plan), results

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._names:
            raise unknown_name("table", name, self._names)
        return analysis.table(name).read(self._results.table(name))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {analysis.table(name).caption}" for name in self)

    def _repr_html_(self) -> str:
        rows = "".join(f"<dt><b>{name}</b></dt><dd>{escape(analysis.table(name).caption)}</dd>" for name in self)
        return f"<dl>{rows}</dl>"
