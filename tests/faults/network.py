"""Ask servers that fail, over a network that fails, and see what is lost, wrong or asked twice.

$ python tests/faults/network.py                       both clients, about 10 minutes
$ python tests/faults/network.py --client llm --fault loris endless
$ python tests/faults/network.py --client neuronpedia --fault mixed --rate 0.5 --items 400

A first run meets the fault in a share of its requests, a second run meets none. "mixed" are the faults of
tests/servers/openai_server.py and tests/servers/neuronpedia.py, the others those of tests/servers/wire.py. Told of
each: items without an answer after the first run, wrong or lost ones after the second, requests of both, items that the
second asked for although they had an answer, and the first run's seconds and peak of memory (with the server's own).
"""

import argparse
import json
import logging
import os
import random
import runpy
import sys
import tempfile
import time
import tracemalloc
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from isaerft.config import Llm, Neuronpedia, Source
from isaerft.errors import InputError
from isaerft.explanations import explain
from isaerft.llm import LanguageModel, Prompt, parsed

SERVERS = Path(__file__).parents[1] / "servers"
OpenAIServer = runpy.run_path(str(SERVERS / "openai_server.py"))["OpenAIServer"]
Pedia = runpy.run_path(str(SERVERS / "neuronpedia.py"))["Neuronpedia"]
WIRE = runpy.run_path(str(SERVERS / "wire.py"))
LLM_FAULTS = (429, 500, 503, "cut", "html", "malformed", "empty", "slow")
MEBIBYTE = 2**20


class Word(BaseModel):
    """The answer of a model."""

    model_config = ConfigDict(extra="forbid")
    word: str


class Run(NamedTuple):
    """A run: answers by item, requests sent, the items they asked for, its error, and whether one went elsewhere."""

    answers: dict[int, str]
    sent: int
    asked: set[int]
    reason: str
    strayed: bool


class Faults(list):
    """What befalls requests without end, for a server that pops its faults."""

    def __init__(self, rate, seed):
        self.rate, self.random = rate, random.Random(seed)

    def __bool__(self):
        return True

    def pop(self, _=0):
        return self.random.choice(LLM_FAULTS) if self.random.random() < self.rate else None


def llm(folder, fault, rate, options):
    """Ask a language model for a word per item; yield each run's answers and requests."""
    prompts = [Prompt("Say a word.", f"number {item}", Word, 20, 7) for item in range(options.items)]
    server = OpenAIServer()
    server.http.handle_error = lambda *_: None  # clients that hang up are part of it
    server.answer = lambda body: {"content": json.dumps({"word": body["messages"][1]["content"]})}
    os.environ["LOOPBACK_KEY"] = server.key
    try:
        for bad in (True, False):
            before = server.received
            server.requests.clear()
            server.faults = Faults(rate, options.seed) if bad and fault == "mixed" else []
            wire = WIRE["Wire"](server.url, fault if bad and fault != "mixed" else "", rate, seed=options.seed)
            with wire:
                model = LanguageModel(
                    "reader",
                    Llm(
                        model="m",
                        base_url=server.url if fault == "mixed" else wire.url,
                        api_key_env="LOOPBACK_KEY",
                        timeout=options.timeout,
                        retries=options.retries,
                    ),
                    cache=folder / "answers.sqlite",
                    study="s",
                )
                reason = ""
                try:
                    model.ask(prompts)
                except InputError as error:
                    reason = str(error)
                known = [model._known(prompt) for prompt in prompts]
                model.cache.close()
                words = {item: parsed(reply, Word) for item, reply in enumerate(known) if reply is not None}
                answers = {item: getattr(word, "word", str(word)) for item, word in words.items()}
                sent = server.received - before if fault == "mixed" else len(wire.seen)
                asked = {int(body["messages"][1]["content"].split()[1]) for body in server.requests}
                yield Run(answers, sent, asked, reason, bool(wire.sink and wire.sink.seen))
    finally:
        server.close()


def neuronpedia(folder, fault, rate, options):
    """Look up an explanation per item, half of them in the bulk export; yield each run's answers and requests."""
    latents = {item: [(f"number {item}", "gpt-4o-mini", "oai_token-act-pair")] for item in range(options.items)}
    subject = folder / "subjects/toy"
    (subject / "sae").mkdir(parents=True)
    names = {"hook_name": "blocks.20.hook_resid_post", "neuronpedia_id": "gemma-2-2b/20-gemmascope-res-16k"}
    (subject / "sae/cfg.json").write_text(json.dumps({"d_sae": options.items, "metadata": names}))
    for bad in (True, False):
        here = rate if bad and fault == "mixed" else 0.0
        server = Pedia(
            latents, exported=range(0, options.items, 2), rows_per_batch=8, fault_rate=here, seed=options.seed
        )
        with (
            server,
            WIRE["Wire"](server.url, fault if bad and fault != "mixed" else "", rate, seed=options.seed) as wire,
        ):
            url = server.url if fault == "mixed" else wire.url
            asked = Neuronpedia(
                base_url=f"{url}/api",
                export_url=f"{url}/s3",
                bulk="always",
                requests_per_second=1000,
                concurrency=8,
                backoff_seconds=0.01,
                timeout_seconds=options.timeout / 10,  # ten of them bound a whole answer
                attempts=options.retries + 1,
                batch_size=5,
                max_body_mb=16,
                max_failed_share=1.0,
            )
            reason, answers = "", {}
            try:
                frame = explain(
                    "np",
                    Source(kind="neuronpedia", side="input", neuronpedia=asked),
                    subject_dir=subject,
                    d_sae=options.items,
                )
                answers = dict(zip(frame["latent_index"].tolist(), frame["explanation"].tolist(), strict=True))
            except InputError as error:
                reason = str(error)
            sent = len(server.seen) if fault == "mixed" else len(wire.seen)
            asked_for = {latent for one in server.asked("features", "feature") for latent in one.asked}
            yield Run(answers, sent, asked_for, reason, bool(wire.sink and wire.sink.seen))


CLIENTS = {"llm": llm, "neuronpedia": neuronpedia}


def tried(client, fault, rate, options):
    """Return what both runs under one fault came to."""
    true = {item: f"number {item}" for item in range(options.items)}
    with tempfile.TemporaryDirectory(prefix="network-") as folder:
        runs = CLIENTS[client](Path(folder), fault, rate, options)
        tracemalloc.start()
        started = time.monotonic()
        first = next(runs)
        seconds, peak = time.monotonic() - started, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        second = next(runs)
        runs.close()
    return SimpleNamespace(
        missing=len(true.keys() - first.answers.keys()),
        lost=len(true.keys() - second.answers.keys()),
        wrong=sum(run.answers[item] != true[item] for run in (first, second) for item in run.answers),
        sent=first.sent,
        again=second.sent,
        repeated=len(second.asked & first.answers.keys()),
        seconds=seconds,
        peak=peak,
        reason=first.reason or second.reason,
        strayed=first.strayed,
    )


def main() -> None:
    """Try every client under every fault, and print a line of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--fault", nargs="+", choices=("mixed", *WIRE["FAULTS"]), default=("mixed", *WIRE["FAULTS"]))
    parser.add_argument("--rate", nargs="+", type=float, help="default: 0.05 0.2 0.5 for mixed, 0.5 1 for others")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds of a whole answer; a body drips longer")
    parser.add_argument("--retries", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    for name in ("openai", "isaerft.http", "isaerft.explanations.neuronpedia.source"):
        import_module(name)  # so that no line counts their time and memory
    bad = 0
    print(
        "client       fault      rate  missing lost wrong  requests again repeated  seconds     MiB  said", flush=True
    )
    for client in options.client:
        for fault in options.fault:
            for rate in options.rate or ((0.05, 0.2, 0.5) if fault == "mixed" else (0.5, 1.0)):
                found = tried(client, fault, rate, options)
                # A connection of each of the workers, each of which holds one bounded answer and its copy.
                wrong = found.lost + found.wrong + found.repeated + found.strayed + (found.peak > 512 * MEBIBYTE)
                bad += bool(wrong)
                print(
                    f"{client:<12} {fault:<9} {rate:5.2f} {found.missing:8d} {found.lost:4d} {found.wrong:5d} "
                    f"{found.sent:9d} {found.again:5d} {found.repeated:8d} {found.seconds:8.1f} "
                    f"{found.peak / MEBIBYTE:7.1f}  {'BAD ' if wrong else ''}{found.reason[:90]}",
                    flush=True,
                )
    print(f"{bad} lines in which an answer was lost, wrong or asked twice, or memory was not bounded")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
