"""Write a study from what a notebook holds (model, SAE, rows, explanations) and run it in this process.

>>> study = validate(                                                      # doctest: +SKIP
...     model, tokenizer, sae,
...     behaviors={"refusal": {"description": "The assistant refuses.", "rows": refusals}, ...},
...     explanations=frame,
... )
>>> study.verdicts                                                         # doctest: +SKIP
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TextIO

import pandas as pd
import yaml
from tqdm.auto import tqdm

from isaerft import ledger
from isaerft.cli.app import app
from isaerft.cli.options import as_in_a_process_of_its_own, loaded_once
from isaerft.config import load_plan, plan_from_dict
from isaerft.config.base import read_options
from isaerft.digest import code, settings
from isaerft.errors import InputError, shown
from isaerft.io import read_json, replacing, write_json, write_text
from isaerft.layout import Results
from isaerft.notebook.result import STUDY, Validation
from isaerft.steps import Step, steps_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SUBJECT = "model"
FINISHED = "finished.json"
ROWS, INPUTS = "rows", "inputs"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
MAX_PATH = 4096

Options = Mapping[str, Any]


def validate(
    model: PreTrainedModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    sae: object = None,
    *,
    behaviors: Mapping[str, Options],
    explanations: pd.DataFrame | Options,
    judge: str | Options = "lexical",
    adapters: Mapping[str, Options] | None = None,
    corpus: Sequence[str] | Options | None = None,
    subject: Options | None = None,
    folder: str | Path | None = None,
    **options: Any,
) -> Validation:
    """Test the explanations of an SAE's latents by training through them; a study of one model and one SAE.

    The same verbs run as in the workflow, one after the other in this process, and make the same tables.

    Parameters
    ----------
    model : PreTrainedModel, str or Path
        A decoder-only language model, which is saved as it is; or its Hugging Face id or folder.
    tokenizer : PreTrainedTokenizerBase, optional
        The tokenizer of a model that is not given by name.
    sae : sae_lens.SAE, str, Path or (str, str)
        The SAE, a folder in SAELens' format, or release and id of a pretrained one.
    behaviors : dict
        Name -> `description`, which the judge reads, and `rows`: a DataFrame or a list of dicts with `prompt` and
        `completion`. In place of `rows`, any option of a behavior in a config (`path`, `dataset`, `metric`, ...).
        Verdicts need several behaviors, each one a contrast to the others.
    explanations : DataFrame or dict
        Columns `latent_index` and `explanation`; or the options of a source in a config (`{"kind": "local"}` needs none
        of yours).
    judge : str or dict
        Which judge reads the explanations: a registered kind, or its options in a config.
    adapters : dict, optional
        Name -> options; the first one gives the primary result. By default a bias.
    corpus : list of str or dict, optional
        Texts on which the latents' facts are measured, or the options of a corpus; sampled from the model by default.
    subject : dict, optional
        Further options of the subject, such as `hook_name` or `center_writing_weights`.
    folder : path, optional
        Where the study is kept; a temporary folder by default. Called in the same way again, an interrupted study goes
        on there.
    **options
        Any other option of a study's config (`n_seeds`, `device`, `llms`, `causal_check`, ...).

    Returns
    -------
    Validation
        Tables, figures, verdicts and latents.

    Raises
    ------
    InputError
        What is given is not allowed, or the folder holds another study.
    """
    temporary = TemporaryDirectory(prefix="isaerft-") if folder is None else None
    place = Path(temporary.name if temporary else str(folder)).absolute()
    if place.is_dir() and any(place.iterdir()) and not (place / STUDY).is_file():
        raise InputError(
            f"folder {str(place)!r} holds other files", allowed="a new or empty folder, or an earlier study"
        )
    inputs = place / INPUTS
    values: dict[str, Any] = {
        "study": place.name if folder else "validation",
        "subjects": {SUBJECT: _subject(model, tokenizer, sae, corpus, dict(subject or {}), inputs)},
        "behaviors": {name: _behavior(name, given, inputs) for name, given in behaviors.items()},
        "adapters": {name: dict(given) for name, given in (adapters or {"bias": {}}).items()},
        "sources": {"explanations": _source(explanations, inputs)},
        "judges": {"judge": {"kind": judge} if isinstance(judge, str) else dict(judge)},
        "llm_cache": str(place / "llm_cache.sqlite"),
    }
    first = next(iter(values["adapters"]), "")
    primary = {"adapter": first, "measure": "contribution", "source": "explanations", "judge": "judge"}
    taken = sorted(values.keys() & options.keys())
    if taken:
        raise InputError(f"option {taken[0]!r} is made from the other arguments", remedy="leave it out")
    values |= {"primary": primary} | options
    plan_from_dict(values)
    write_text(place / STUDY, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    run_steps(place)
    return Validation(place, load_plan(place / STUDY), Results(place / "results"), temporary)


def run_steps(folder: Path) -> None:
    """Run the study in a folder: every verb that has not finished there on the same options, files and code."""
    plan, results = load_plan(folder / STUDY), Results(folder / "results")
    steps = steps_of(plan)
    same, record = _digest(folder, steps), folder / FINISHED
    found = read_json(record) if record.is_file() else {}
    finished: list[str] = found["steps"] if found.get("digest") == same else []
    left = [step for step in steps if str(step) not in finished]
    verbs = {command.name: command.callback for command in app.registered_commands}
    with (
        _library_bars_off(),
        loaded_once(),
        tqdm(left, unit="step", leave=False, file=sys.stderr) as bar,
        redirect_stderr(_WithoutBars(sys.stderr)),
    ):
        for step in bar:
            bar.set_description(str(step))
            with as_in_a_process_of_its_own():
                verbs[step.verb](study=folder / STUDY, results=results.root, **step.names)  # type: ignore[misc]
            finished.append(str(step))
            write_json(record, {"digest": same, "steps": finished})


def _digest(folder: Path, steps: Sequence[Step]) -> str:
    """Return a digest of what the study is made from: its options, every file that they name, and the code."""
    options = read_options(folder / STUDY)
    options.pop("tracking", None)  # no result depends on it
    files = [file for path in named_files(options) for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    known = [(str(file), ledger.sha256(file)) for file in files if file.is_file()]
    return settings(options, known, [code(verb) for verb in sorted({step.verb for step in steps})])


def named_files(options: object) -> Iterator[Path]:
    """Yield the files that a study's options name, and the absolute folders."""
    if isinstance(options, Mapping):
        for value in options.values():
            yield from named_files(value)
    elif isinstance(options, str) and _is_on_disk(options):
        yield Path(options)


def _is_on_disk(text: str) -> bool:
    if len(text) >= MAX_PATH or "\0" in text:
        return False
    return os.path.isfile(text) or (os.path.isabs(text) and os.path.isdir(text))


class _WithoutBars(io.TextIOBase):
    """Pass on what is written to a stream, but for bars: they return to the beginning of a line, or move the cursor."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`, unless it is a part of a bar."""
        if text.strip() and not re.search(r"\r|\x1b\[A", text):
            self._stream.write(text if text.endswith("\n") else f"{text}\n")
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


@contextmanager
def _library_bars_off() -> Iterator[None]:
    """Keep libraries from showing bars: each would leave lines in the notebook below the study's own."""
    import datasets
    from transformers.utils import logging as bars

    of_models, of_data = bars.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    bars.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if of_models:
            bars.enable_progress_bar()
        if of_data:
            datasets.enable_progress_bars()


def _subject(
    model: PreTrainedModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | None,
    sae: object,
    corpus: Sequence[str] | Options | None,
    options: dict[str, Any],
    inputs: Path,
) -> dict[str, Any]:
    """Return the options of the subject; what is not on disk yet is written to `inputs`."""
    from isaerft.subjects.sae import writer_of

    if isinstance(model, str | Path):
        options["model"] = _absolute(model)
    else:
        if tokenizer is None:
            raise InputError("a model without a tokenizer", remedy="give both, or the model's id or folder")
        with replacing(inputs / "model") as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        options |= {"model": str(inputs / "model"), "dtype": str(model.dtype).removeprefix("torch.")}
    if isinstance(sae, tuple) and len(sae) == 2:
        options["release"], options["sae_id"] = sae
    elif isinstance(sae, str | Path):
        options["sae_path"] = _absolute(sae)
    elif (write := writer_of(sae)) is not None:
        with replacing(inputs / "sae") as temporary:
            write(temporary)
        options["sae_path"] = str(inputs / "sae")
    elif "train_sae" not in options:
        raise InputError(
            f"SAE {shown(type(sae).__name__)}",
            allowed="an SAE of sae_lens, a folder in its format, or (release, sae_id)",
        )
    if corpus is None:
        options["corpus"] = {"sample": True}
    elif isinstance(corpus, Mapping):
        options["corpus"] = dict(corpus)
    else:
        _write_rows([{"text": text} for text in corpus], inputs / "corpus.jsonl", "corpus")
        options["corpus"] = {"path": str(inputs / "corpus.jsonl")}
    return options


def _behavior(name: str, given: Options, inputs: Path) -> dict[str, Any]:
    """Return the options of a behavior; rows are written to `inputs`."""
    options = dict(given)
    if ROWS in options:
        if not NAME.fullmatch(name):
            raise InputError(f"behavior name {shown(name)}", allowed="letters, digits, _ and -")
        path = inputs / "behaviors" / f"{name}.jsonl"
        _write_rows(options.pop(ROWS), path, f"behavior {name!r}")
        options["path"] = str(path)
    return options


def _source(given: pd.DataFrame | Options, inputs: Path) -> dict[str, Any]:
    """Return the options of the source of explanations; a table is written to `inputs`."""
    if isinstance(given, pd.DataFrame):
        _write_rows(given, inputs / "explanations.jsonl", "explanations")
        return {"kind": "file", "path": str(inputs / "explanations.jsonl")}
    return dict(given)


def _write_rows(rows: pd.DataFrame | Sequence[Options], path: Path, what: str) -> None:
    """Write a table, or a list of dicts, as JSON lines."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if frame.empty:
        raise InputError(f"{what}: no rows", allowed="a DataFrame, or a list of dicts, with at least one row")
    with replacing(path) as temporary:
        frame.to_json(temporary, orient="records", lines=True, force_ascii=False)


def _absolute(path: str | Path) -> str:
    """Return the absolute path of what is on disk; the id of a model on the hub as it is."""
    return os.path.abspath(path) if os.path.exists(path) else str(path)
