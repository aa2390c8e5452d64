"""The page of single latents: one page, and data files that it loads where it needs them.

The page opens from a disk, where a browser lets no page read files. So each data file is a script that calls one
function with JSON. Its text comes from models and from the web: here `<` and line separators are escaped, and the page
shows text as text alone. The page's content security policy runs its own script, and what that script loads.

- `study.js`: what the study is, and which data files there are
- `0.js`, `1.js`, ...: for each subject what its list of latents shows and searches
- `0-0.js`, `0-1.js`, ...: for each subject everything else, `LATENTS_PER_FILE` latents in each
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from isaerft import analysis
from isaerft.analysis.known_latents import KnownLatents, Prediction, known_latents
from isaerft.config import Plan
from isaerft.io import replacing
from isaerft.layout import Results
from isaerft.report import LATENT_TABLES
from isaerft.report.template import page, policy_hash
from isaerft.report.text import shorten, visible, visible_token, web_address

LATENTS_PER_FILE = 128
MAX_ANSWERS = 3
"""Answers under steering that are shown of a latent."""
MAX_ANSWER, MAX_RATIONALE = 400, 240
N_SEARCHED = 4
"""Promoted tokens, and tokens on which a latent fires, that the list shows and searches."""
N_NEIGHBORS = 6
FACTS = ("firing_rate", "max_activation", "mean_activation", "decoder_norm", "encoder_decoder_cosine")
UNKNOWN = "-"
VERDICTS = {
    "supported": "s",
    "contradicted": "c",
    "absorbed": "a",
    "inconclusive": "i",
    "untestable": "u",
}
HERE = Path(__file__).parent

_BODY = Markup(
    "<noscript><p>This page needs JavaScript to show its data; the tables are in ../tables.</p></noscript>\n"
    '<main id="main"></main>'
)


def write_latent_pages(plan: Plan, results: Results) -> None:
    """Write the page of single latents with its data files, in a folder of its own.

    Raises
    ------
    InputError
        A table or a file of a subject is missing or broken.
    """
    names = [name for name in analysis.tables_of(plan) if name in LATENT_TABLES]
    tables = {name: analysis.table(name).read(results.table(name)) for name in names}
    pages = {"summary": results.summary, **{name: results.page(name) for name in names}}
    here = results.latent_page.parent
    links = {name.replace("_", " "): Path(os.path.relpath(path, here)).as_posix() for name, path in pages.items()}
    known = (known_latents(plan, results, subject) for subject in plan.study.subjects)
    with replacing(results.latents) as temporary:
        temporary.mkdir()
        for name, text in latent_pages(plan, known, tables, links):
            (temporary / name).write_text(text, encoding="utf-8")


def latent_pages(
    plan: Plan, known: Iterable[KnownLatents], tables: Mapping[str, pd.DataFrame], links: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of every file of the page.

    Parameters
    ----------
    plan : Plan
    known : iterable of KnownLatents
        Of each subject.
    tables : mapping of str to DataFrame
        Result tables by name: those of explanation_verdicts, explanation_scores, steering_check and steering_latents
        that the study has.
    links : mapping of str to str
        Title -> relative address of the study's other pages.
    """
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("latents.css", "latents.js"))
    yield "index.html", _page(plan.study.study, style, script)
    subjects = []
    for number, one in enumerate(known):
        own = {name: table[table["subject"] == one.subject] for name, table in tables.items()}
        content = _Content(plan, one, own)
        subjects.append(content.about())
        yield f"{number}.js", _data(f"{number}", content.listed())
        for part, latents in enumerate(_parts(one.latents)):
            yield f"{number}-{part}.js", _data(f"{number}-{part}", content.details(latents))
    about = {
        "study": visible(plan.study.study),
        "behaviors": [
            [visible(name), visible(plan.study.behaviors[name].description)] for name in plan.tested_behaviors
        ],
        "adapter": visible(plan.study.primary.adapter),
        "measure": visible(plan.study.primary.measure),
        "perFile": LATENTS_PER_FILE,
        "verdicts": {letter: name for name, letter in VERDICTS.items()},
        "links": [[visible(title), link] for title, link in links.items()],
        "subjects": subjects,
    }
    yield "study.js", _data("study", about)


def address(subject: str, latent: object) -> str:
    """Return the part of the page's address that opens a latent."""
    return f"#{quote(subject, safe='')}/{latent}"


def _page(study: str, style: str, script: str) -> str:
    """Return the page, which holds no data."""
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src {policy_hash(style)}; script-src {policy_hash(script)} 'strict-dynamic'"
    )
    return page(f"{visible(study)}: latents", _BODY, script=script, style=style, policy=policy)


def _data(name: str, value: object) -> str:
    """Return a data file: a script that hands over one value."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'latents("{name}",{text})\n'


def _parts(latents: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(latents), LATENTS_PER_FILE):
        yield latents[start : start + LATENTS_PER_FILE]


class _Content:
    """What the page says of one subject's latents."""

    def __init__(self, plan: Plan, known: KnownLatents, tables: Mapping[str, pd.DataFrame]) -> None:
        self.plan, self.known, self.tables = plan, known, tables
        self.sources = list(known.explanations)
        self.said = {name: _said(frame) for name, frame in known.explanations.items()}
        self.contexts = _gathered(known.contexts, ["latent_index"], ["tokens", "activations"])
        self.neighbors = _gathered(known.neighbors, ["latent_index"], ["neighbor", "cosine"])
        self.promoted = _gathered(known.promoted, ["latent_index", "side"], ["token", "value"])
        verdicts = tables.get("explanation_verdicts")
        grouped = () if verdicts is None else verdicts.groupby(["source", "judge"])
        self.verdicts = {pair: rows.set_index("latent_index") for pair, rows in grouped}
        self.reasons = {pair: rows["reason"].to_dict() for pair, rows in self.verdicts.items()}

    def about(self) -> dict[str, Any]:
        """Return what holds for all of them."""
        known, options = self.known, self.plan.study.sources
        sources = [{"name": visible(name), "wrong": options[name].wrong_share or 0} for name in self.sources]
        return {
            "subject": known.subject,
            "n": len(known.facts),
            "nListed": len(known.latents),
            "nAlive": int(np.isfinite(known.rank[0, 0]).sum()),
            "seeds": known.change.shape[1],
            "placebos": known.placebos.n if known.placebos else 0,
            "sources": sources,
            "readings": [[self.sources.index(part.source), visible(part.judge)] for part in known.predictions],
        }

    def listed(self) -> dict[str, Any]:
        """Return the list of latents, column by column."""
        known = self.known
        latents = known.latents
        rank = known.rank.mean(1)[:, latents]
        alive = np.isfinite(rank).all(axis=0)
        first = np.where(alive, np.nan_to_num(rank).argmax(axis=0), -1)
        return {
            "latents": latents.tolist(),
            "rate": rounded(known.facts["firing_rate"].to_numpy()[latents], 3),
            "fires": [self._fires_on(latent) for latent in latents.tolist()],
            "promotes": [
                "\n".join(token.strip() for token in self._tokens(latent, "output")[:N_SEARCHED])
                for latent in latents.tolist()
            ],
            "behavior": first.tolist(),
            "rank": rounded(np.where(alive, rank.max(axis=0), np.nan), 4),
            "texts": [
                [own[latent].text if latent in own else "" for latent in latents.tolist()] for own in self.said.values()
            ],
            "readings": [self._verdicts_of(part, latents) for part in known.predictions],
        }

    def details(self, latents: np.ndarray) -> dict[str, Any]:
        """Return all else that is known of some latents, column by column."""
        known, strings = self.known, _Strings()
        facts = known.facts.loc[latents, list(FACTS)].to_numpy(float)
        change, numbers = known.change[:, :, latents].transpose(2, 0, 1), latents.tolist()
        largest = np.abs(change).max(axis=(1, 2))
        found: dict[str, Any] = {
            "latents": numbers,
            "facts": rounded(facts, 4),
            "contexts": [self._contexts(latent) for latent in numbers],
            "promoted": [self._valued(latent, "output") for latent in numbers],
            "amplified": [self._valued(latent, "amplified") for latent in numbers],
            "change": rounded(change.mean(2), 4),
            "rank": in_parts(known.rank.mean(1)[:, latents].T, 1000),
            # For the eye, so whole numbers will do.
            "largest": rounded(largest, 4),
            "seeds": in_parts(change / np.where(largest > 0, largest, 1)[:, None, None], 1000),
            "seedRanks": in_parts(known.rank[:, :, latents].transpose(2, 0, 1), 100),
            "placebo": self._placebo(latents),
            "effects": [in_parts(part.effect[:, latents].T, 100) for part in known.predictions],
            "expected": [
                [np.flatnonzero(row).tolist() for row in part.expected[:, latents].T] for part in known.predictions
            ],
            "why": [self._why(part, numbers) for part in known.predictions],
            "reasons": [self._reasons(part, numbers, strings) for part in known.predictions],
            "said": [self._about(name, numbers, strings) for name in self.sources],
            "neighbors": [self._neighbors(latent) for latent in numbers],
            "scores": self._scores(latents),
            "steering": {str(latent): part for latent in numbers if (part := self._steering(latent))},
        }
        return found | {"strings": strings.texts}

    def _fires_on(self, latent: int) -> str:
        """Return the strongest tokens of its contexts, each once."""
        strongest = [
            visible_token(tokens[int(np.abs(activations).argmax())]).strip()
            for tokens, activations in self.contexts.get((latent,), ())
        ]
        return "\n".join(list(dict.fromkeys(strongest))[:N_SEARCHED])

    def _tokens(self, latent: int, side: str) -> list[str]:
        return [visible_token(token) for token, _ in self.promoted.get((latent, side), ())]

    def _valued(self, latent: int, side: str) -> list[Any] | None:
        """Return tokens that it promotes, with their values."""
        values = [_number(value, 3) for _, value in self.promoted.get((latent, side), ())]
        return ["\n".join(self._tokens(latent, side)), values] if values else None

    def _contexts(self, latent: int) -> list[Any]:
        """Return the contexts, each as texts, and pairs of a token on which the latent fires and its activation."""
        found = []
        for tokens, activations in self.contexts.get((latent,), ()):
            context: list[Any] = []
            for token, value in zip(tokens, activations.tolist(), strict=True):
                if value:
                    context.append([visible_token(token), _number(value, 4)])
                elif context and isinstance(context[-1], str):
                    context[-1] += visible_token(token)
                else:
                    context.append(visible_token(token))
            found.append(context)
        return found

    def _placebo(self, latents: np.ndarray) -> list[Any] | None:
        """Return low and high of what placebos change, then of their ranks."""
        placebos = self.known.placebos
        if placebos is None:
            return None
        return rounded(np.concatenate([placebos.change, placebos.rank])[:, latents].T, 4)

    def _why(self, part: Prediction, latents: Sequence[int]) -> list[Any]:
        """Return the judge's reasons for what it expects, each as the place of the behavior and a text."""
        if not part.rationale:
            return []
        places = range(len(self.known.behaviors))
        return [
            [
                [place, shorten(part.rationale[latent, place], MAX_RATIONALE)]
                for place in places
                if (latent, place) in part.rationale
            ]
            for latent in latents
        ]

    def _verdicts_of(self, part: Prediction, latents: np.ndarray) -> dict[str, Any] | None:
        """Return letters of the verdicts, scores and q-values; None where there are none."""
        own = self.verdicts.get((part.source, part.judge))
        if own is None:
            return None
        own = own.reindex(latents)
        return {
            "verdicts": "".join(VERDICTS.get(verdict, UNKNOWN) for verdict in own["verdict"].fillna("")),
            "score": rounded(own["score"].to_numpy(float), 6),
            "q": rounded(own["qvalue"].to_numpy(float), 3),
        }

    def _reasons(self, part: Prediction, latents: Sequence[int], strings: _Strings) -> list[int]:
        known = self.reasons.get((part.source, part.judge))
        if known is None:
            return []
        return [strings.place(visible(known[latent])) if latent in known else -1 for latent in latents]

    def _about(self, source: str, latents: Sequence[int], strings: _Strings) -> list[Any]:
        """Return side, maker and address of one source's explanations; None where it has none.

        An address that ends in the latent's index is given up to there.
        """
        found: list[Any] = []
        for latent in latents:
            said = self.said[source].get(latent)
            if said is None:
                found.append(None)
                continue
            start = said.url.removesuffix(f"/{latent}")
            places = [strings.place(text) for text in (said.side, said.maker, start)]
            found.append(places if start != said.url else [*places, 1])
        return found

    def _neighbors(self, latent: int) -> list[Any]:
        pairs = self.neighbors.get((latent,), [])[:N_NEIGHBORS]
        return [number for neighbor, cosine in pairs for number in (neighbor, _number(cosine, 3))]

    def _scores(self, latents: np.ndarray) -> list[Any]:
        """Return the scores of explanations: source, scorer, score, value and floor."""
        if "explanation_scores" not in self.tables:
            return []
        found: dict[int, list[Any]] = {latent: [] for latent in latents.tolist()}
        table = self.tables["explanation_scores"]
        for row in table[table["latent_index"].isin(latents)].itertuples():
            names = [self.sources.index(row.source), visible(row.scorer), visible(row.score)]
            found[row.latent_index].append([*names, *rounded(np.array([row.value, row.floor], float), 3)])
        return list(found.values())

    def _steering(self, latent: int) -> dict[str, Any] | None:
        """Return what steering a latent does to answers; None where it is not steered."""
        answers = self.known.answers.get(latent, [])
        if not answers or "steering_check" not in self.tables:
            return None
        effects, whole = (
            table[table["latent_index"] == latent]
            for table in (self.tables["steering_check"], self.tables["steering_latents"])
        )
        numbers = ["claim", "plain", "amplified", "suppressed", "effect", "ci_low", "ci_high"]
        strongest = max(answer["strength"] for answer in answers)
        shown = [answer for answer in answers if answer["strength"] == strongest][:MAX_ANSWERS]
        return {
            "strength": strongest,
            "effects": [
                [visible(name), *row]
                for name, row in zip(effects["behavior"], rounded(effects[numbers].to_numpy(float), 4), strict=True)
            ],
            "claims": [
                [
                    visible(row.group),
                    visible(row.claim),
                    *rounded(np.array([row.effect, row.ci_low, row.ci_high], float), 4),
                    bool(row.confirmed),
                ]
                for row in whole.itertuples()
            ],
            "answers": [
                [shorten(answer[name], MAX_ANSWER) for name in ("prompt", "suppressed", "plain", "amplified")]
                for answer in shown
            ],
        }


class _Said(NamedTuple):
    """An explanation as the page shows it."""

    text: str
    side: str
    maker: str
    url: str


def _said(explanations: pd.DataFrame) -> dict[int, _Said]:
    """Return a source's explanations, latent by latent."""
    frame = explanations.reindex(columns=["latent_index", "explanation", "side", "maker", "url"], fill_value="")
    columns = (frame[name].tolist() for name in frame)
    return {
        latent: _Said(visible(text), visible(side), visible(maker), web_address(url))
        for latent, text, side, maker, url in zip(*columns, strict=True)
    }


def _gathered(frame: pd.DataFrame, keys: list[str], columns: list[str]) -> dict[tuple[Any, ...], list[tuple[Any, ...]]]:
    """Return the rows of each combination of keys, in their order, as tuples of the columns."""
    found: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    keyed, values = (zip(*(frame[name].tolist() for name in names), strict=True) for names in (keys, columns))
    for key, row in zip(keyed, values, strict=True):
        found.setdefault(key, []).append(row)
    return found


class _Strings:
    """Texts that recur in a file, each kept once."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    @property
    def texts(self) -> list[str]:
        """The texts in the order of their places."""
        return list(self._places)

    def place(self, text: str) -> int:
        """Return the place of a text."""
        return self._places.setdefault(text, len(self._places))


def rounded(values: np.ndarray, digits: int) -> list[Any]:
    """Return numbers with so many significant digits, as nested lists; undefined ones are None."""
    if values.ndim > 1:
        return [rounded(part, digits) for part in values]
    return [_number(value, digits) for value in values.tolist()]


def in_parts(values: np.ndarray, of: int) -> list[Any]:
    """Return numbers in so many parts of 1, to the nearest, as nested lists; undefined ones are None."""
    if values.ndim > 1:
        return [in_parts(part, of) for part in values]
    return [None if value != value else round(of * value) for value in values.tolist()]


def _number(value: float, digits: int) -> float | int | None:
    if value != value:
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short
