"""Put hostile text through every door of a small study, and look for it in everything that the study makes.

$ python tests/faults/hostile.py                    some minutes on one core; needs chromium
$ python tests/faults/hostile.py --seed 1 --keep /tmp/hostile

A small random model gets hostile tokens, corpus, records, explanations, labels, answers of language models,
judgements, prompts, cards, config texts and file names (`tests/faults/hostile_texts.py`). Snakemake runs the whole
study; sheets for readers, names, and errors of servers come after it. Then:

- tables: no cell that a spreadsheet would run, also where it splits lines at semicolons, and explanations as given
- data of the page of latents: no more than one call with JSON, without `<`
- pages (that of latents at several of them), figures and Snakemake's report: opened in a browser whose requests all go
  to a listener; elements, attributes and scripts that text created are found in its DOM, as they are in a page of the
  same text unescaped, or it stops
- logs and errors: no terminal code, invisible character or line that text began
- files: none outside of the study's folder, none that a text's command wrote
"""

import argparse
import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from isaerft.config import plan_from_dict  # noqa: E402
from isaerft.errors import InputError  # noqa: E402
from tests.conftest import make_model, make_tokenizer, perfect_sae, random_sae, write_sae  # noqa: E402
from tests.faults.hostile_texts import Hostile, texts  # noqa: E402
from tests.faults.kills import start, workplace  # noqa: E402
from tests.servers.neuronpedia import Neuronpedia  # noqa: E402
from tests.servers.openai_server import OpenAIServer, judged  # noqa: E402

D_SAE, D_MODEL, STEPS = 320, 32, 60
LATENT_STEP = 16
"""Of the latents, one in so many is opened in its page."""
LONG = 300
"""Longest text that becomes a token, a cell that is compared whole, or a part of a config text."""
KNOWN = re.compile(r"q\d{3}z")
# As in tests/explanations/neuronpedia/test_hostile_labels.py: what no log, table or page may hold; logs may hold tabs.
UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
FORMULA = re.compile(r"[\s\xad\u034f\u180e\u200b-\u200d\u2060-\u2064\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
BROWSER = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=2000",
)  # fmt: skip
# What Snakemake takes for a variable in the name of a file.
VARIABLE = re.compile(r"<[a-z][a-z0-9_]*>|[{}]")


class Listener:
    """A proxy that answers nothing, and notes the marks of the requests that it gets."""

    def __init__(self) -> None:
        self.marks: list[str] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            connection, _ = self.socket.accept()
            with connection:
                connection.settimeout(1)
                try:
                    asked = connection.recv(4096).decode("latin-1")
                    self.marks += KNOWN.findall(asked)
                    connection.sendall(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                except OSError:
                    pass


class Seen(HTMLParser):
    """What a browser made of a page: its tags, what text created in it, and the marks in its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.created: list[str] = []
        self.text = ""
        self.scripts = self.ran = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.scripts += tag == "script"
        for name, value in attrs:
            self.ran += name == "data-ran"
            # Where the pages put text: a cell's key of sorting, a title, the description of a figure, an address.
            is_text = name in ("data-v", "alt", "title", "content") or (name == "href" and _is_web(value))
            if KNOWN.search(tag + name) or name.startswith("on") or (KNOWN.search(value or "") and not is_text):
                self.created.append(f"<{tag} {name}={(value or '')[:60]!r}>")

    def handle_comment(self, data: str) -> None:
        self.created += [f"<!--{data[:60]!r}-->"] * bool(KNOWN.search(data))

    def handle_data(self, data: str) -> None:
        self.text += data


def _is_web(value: str | None) -> bool:
    return bool(re.match(r"https?://", value or ""))


class Study:
    """The folder of a study with hostile text behind every door."""

    def __init__(self, base: Path, seed: int) -> None:
        self.base, self.away, self.given = base, base / "away", base / "given"
        for folder in (self.away, self.given, base / "home", base / "tmp"):
            folder.mkdir(parents=True)
        self.random, self.texts = Random(seed), texts(str(self.away), seed)
        self.short = [one for one in self.texts if len(one.text) <= LONG]
        # What the formats of files and configs can hold at all.
        self.plain = [one for one in self.short if _is_storable(one.text)]
        names = dict.fromkeys(filter(None, map(_file_name, self.plain)))
        self.refused_names = [name for name in names if VARIABLE.search(name) or not name.isprintable()]
        self.file_names = [name for name in names if name not in self.refused_names]
        self.doors: Counter[str] = Counter()

    def through(self, door: str, given: list[Hostile]) -> list[str]:
        """Count the texts that go through a door, and return them."""
        self.doors[door] += len(given)
        return [one.text for one in given]

    def joined(self, door: str) -> str:
        """Return all texts that a config can hold as one; the first is a formula."""
        self.doors[door] += len(self.plain)
        return "=1+1 " + " ".join(one.text for one in self.plain)

    def named(self, suffix: str) -> Path:
        """Return the path of a file with a hostile name."""
        self.doors["file names"] += 1
        return self.given / (self.random.choice(self.file_names) + suffix)

    def make(self, llm: OpenAIServer, labels: Neuronpedia) -> dict[str, Any]:
        """Write all files that the study reads, and return its options."""
        model, sae = self.named(" model"), self.named(" sae")
        self._model(model, sae)
        judged_path, explained = self.named(".jsonl"), self.given / "explanations"
        self._explanations(explained)
        texts_of = [one for one in self.texts if one.kind != "large"]
        reasons = enumerate(self.through("rationales of a file", texts_of))
        rows = [{"latent_index": n, "behavior": "first", "label": "promoted", "rationale": text} for n, text in reasons]
        _write_rows(judged_path, rows)
        corpus = self.named(".jsonl")
        _write_rows(corpus, [{"text": f"{text} say hello to the cat"} for text in self.through("corpus", self.texts)])
        asked = self.named(".jsonl")
        _write_rows(asked, [{"prompt": text} for text in self.through("prompts of the steering check", self.plain)])
        toy = {
            "model": str(model), "sae_path": str(sae), "group": self.joined("config: group"),
            "corpus": {"path": str(corpus), "tokens": 6000, "context_size": 24, "max_unusable_share": 0.9},
            "min_variance_explained": -1e9, "max_loss_increase": 1e9, "amplified_rows": 2,
        }  # fmt: skip
        server = {"base_url": llm.url, "api_key_env": None, "retries": 0, "concurrency": 4}
        return {
            "study": "hostile",
            "subjects": {"toy": toy},
            "behaviors": {name: self._behavior(name) for name in ("first", "second")},
            "adapters": {"bias": {"learning_rate": 0.1, "steps": 4, "evaluate_every": 2}},
            "measures": ["contribution"],
            "sources": {
                "given": {"kind": "file", "path": str(explained), "side": "both"},
                "labels": {"kind": "neuronpedia", "neuronpedia": labels.options | {"bulk": "always"}, "side": "both"},
                "asked": {"kind": "llm", "llm": "server", "side": "both", "judges": ["lexical"]},
                "contexts": {"kind": "local", "side": "both", "judges": ["lexical", "server"]},
            },
            "judges": {"lexical": {}, "server": {"kind": "llm", "llm": "server"},
                       "table": {"path": str(judged_path), "reference": True}},
            "scorers": {"server": {"kind": "llm", "llm": "server", "n_latents": 20}, "lexical": {"n_latents": 40}},
            "llms": {"server": server | {"model": self.joined("config: model of an LLM")[:2000]}},
            "primary": {"adapter": "bias", "measure": "contribution", "source": "given", "judge": "lexical"},
            "agreement": {"n_resamples": 99, "n_bins": 1, "top_k": D_SAE},
            "controls": ["shuffled_explanations", "explanation_length"],
            "causal_check": {"adapters": []},
            "behavior_check": {"n_prompts": 24, "max_new_tokens": 6, "shown": 24},
            "steering_check": {"n_latents": 2, "n_prompts": 4, "max_new_tokens": 4, "prompts": str(asked)},
            "placebos": {"n": 0}, "n_seeds": 4, "max_length": 48, "device": "cpu", "scored_windows": 2,
        }  # fmt: skip

    def _model(self, model: Path, sae: Path) -> None:
        """Write a model that says hostile tokens, and an SAE, with hostile cards."""
        tokenizer = make_tokenizer()
        tokenizer.add_tokens(self.through("tokens", self.plain))
        made = make_model("llama", len(tokenizer))
        _train(made, tokenizer, [f"{one.text} say hello to the cat" for one in self.plain])
        made.save_pretrained(model)
        tokenizer.save_pretrained(model)
        card = self.joined("model card")
        for name, keys in (("config.json", ("_name_or_path", "task")), ("tokenizer_config.json", ("name_or_path",))):
            values = json.loads((model / name).read_text())
            (model / name).write_text(json.dumps(values | dict.fromkeys(keys, card)))
        (model / "README.md").write_text(f"---\nlicense: {card}\n---\n{card}", encoding="utf-8")
        about = {"neuronpedia_id": "gemma-2-2b/20-gemmascope-res-16k", "dataset_path": self.joined("SAE card")}
        hook = {"hook_name": "blocks.1.hook_resid_post", "sae_lens_version": "6.54.12"}
        about |= {"model_name": about["dataset_path"]}
        write_sae(sae, _sae(), metadata=about | hook, dtype="float32", device="cpu")

    def _explanations(self, folder: Path) -> None:
        """Write explanations and their addresses, in files of hostile names, a few in each."""
        folder.mkdir()
        self.explained = dict(enumerate(self.texts))
        given, names = self.through("explanations", self.texts), cycle(self.file_names)
        self.doors["addresses of explanations"] += len(given)
        self.doors["file names"] += len(self.file_names)
        for number, text in enumerate(given):
            row = {"latent_index": number, "explanation": text, "side": "both", "url": text[:400]}
            _write_rows(folder / f"{next(names)}.jsonl", [row], mode="a")

    def _behavior(self, name: str) -> dict[str, Any]:
        path = self.named(".jsonl")
        ids = self.through("record ids", self.texts)
        prompts, replies = (self.through(door, self.texts) for door in ("prompts of records", "completions of records"))
        rows = zip(ids, prompts, [*replies[7:], *replies[:7]], strict=True)
        _write_rows(path, [{"id": one, "prompt": asked, "completion": said} for one, asked, said in rows])
        return {
            "description": self.joined("config: description"), "path": str(path), "max_unusable_share": 0.99,
            "max_completion_characters": LONG, "licence": self.joined("config: licence"),
            "family": self.joined("config: family")[:200] + name,
            "metric": {"kind": "phrases", "phrases": self.through("config: phrases of a metric", self.plain)},
        }  # fmt: skip

    def labels(self) -> dict[int, list[tuple[str, str, str]]]:
        """Return labels for Neuronpedia: description, model and type of each maker."""
        given = self.through("labels", self.texts)
        makers = self.through("makers of labels", self.texts)
        found = {number: [(text, maker, maker)] for number, (text, maker) in enumerate(zip(given, makers, strict=True))}
        return found | {number: [("said", "bot", "bot")] for number in range(len(found), D_SAE)}

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer as a hostile language model: in the form that was asked for, or with a text in its place."""
        self._turn = getattr(self, "_turn", -1) + 1
        one = self.texts[self._turn % len(self.texts)]
        text = one.text[:20_000]
        self.doors["answers of a language model"] += 1
        if self._turn % 9 == 4:
            return self.random.choice([{"content": text}, {"refusal": text}, {"content": text, "finish_reason": text}])
        form = body["response_format"]["json_schema"]
        marker = re.search(r"--- begin (\w+) ---", body["messages"][-1]["content"]).group(1)
        if "explanation" in form["schema"]["properties"]:
            return {"content": json.dumps({"latent_id": marker, "explanation": text})}
        if "block_id" in form["schema"]["properties"]:
            items = [name for name in form["schema"]["properties"] if name != "block_id"]
            return {"content": json.dumps({"block_id": marker} | {name: n % 2 == 0 for n, name in enumerate(items)})}
        effects = json.loads(judged(body)["content"])
        for value in effects.values():
            if isinstance(value, dict):
                value["rationale"] = text
        return {"content": json.dumps(effects)}


def _train(model: Any, tokenizer: Any, lines: list[str]) -> None:
    """Let a model learn some lines by heart, so that it is better than counting tokens."""
    import torch

    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    rows = [tokenizer(line)["input_ids"][:32] for line in lines]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(tokens, labels=tokens.masked_fill(tokens == 0, -100)).loss.backward()
        optimizer.step()


def _sae() -> dict[str, Any]:
    """Return an SAE that leaves the activations as they are, with further latents that hardly matter."""
    import torch

    exact, further = perfect_sae(D_MODEL), random_sae(D_MODEL, D_SAE - 2 * D_MODEL)
    further["W_dec"] *= 1e-3
    joined = {name: torch.cat([exact[name], further[name]], dim) for name, dim in (("W_enc", 1), ("W_dec", 0))}
    return joined | {"b_enc": torch.cat([exact["b_enc"], further["b_enc"]]), "b_dec": exact["b_dec"]}


def _is_storable(text: str) -> bool:
    """Tell whether text has no NUL and no half of a surrogate pair."""
    return "\0" not in text and not re.search("[\ud800-\udfff]", text)


def _file_name(one: Hostile) -> str:
    """Return a text as the name of a file: without what no file system takes, and not hidden."""
    return one.text.replace("/", "").encode()[:180].decode("utf-8", "ignore").lstrip(".")


def _write_rows(path: Path, rows: list[dict[str, Any]], mode: str = "w") -> None:
    with path.open(mode, encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


class Findings:
    """What went wrong, and how much was looked at."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.executed = self.escaped = 0
        self.artefacts: Counter[str] = Counter()
        self.marks: dict[str, set[str]] = {}

    def add(self, where: Path | str, what: str, *found: object) -> None:
        """Note one thing that went wrong, on a line that is safe to print."""
        self.lines.append(f"{where}: {what} {' '.join(ascii(one)[:200] for one in found)}")

    def saw(self, kind: str, text: str) -> None:
        """Note an artefact that was looked at, and the marks in its text."""
        self.artefacts[kind] += 1
        self.marks.setdefault(kind, set()).update(KNOWN.findall(text))


def check_table(path: Path, found: Findings) -> None:
    """Find cells that a spreadsheet would run, by commas or where its own separator is another."""
    raw = path.read_bytes().decode().removeprefix("\ufeff")
    found.saw("CSV tables", raw)
    if hidden := UNSAFE.search(raw):
        found.add(path, "holds", hidden[0])
    rows = list(csv.reader(raw.splitlines(keepends=True)))
    cells = [cell for row in rows for cell in row]
    cells += [part.lstrip('" ') for line in raw.splitlines() for part in re.split("[;\t]", line)[1:]]
    for cell in cells:
        if FORMULA.match(cell) and not NUMBER.fullmatch(cell):
            found.add(path, "a spreadsheet would run", cell)
    if any(len(row) != len(rows[0]) for row in rows):
        found.add(path, "has rows of other lengths than its header")


def check_explanations(path: Path, given: dict[int, Hostile], found: Findings) -> None:
    """Find explanations in a table that are not what was given, less what was taken out."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    told = {int(row["latent_index"]): row["explanation"] for row in rows if row["explanation"]}
    for latent, text in told.items():
        if latent not in given:
            found.add(path, "explains a latent that has no explanation", latent)
            continue
        left = iter(given[latent].text)
        # Only the end of a long text, and the sign that makes a formula text, may be new.
        if not all(letter in left for letter in text.removesuffix("...") if letter.isalnum()):
            found.add(path, "changes the words of", given[latent].text[:80], text[:80])
    if len(told) < 0.9 * len(given):
        found.add(path, "holds few of the explanations:", len(told))


def check_log(path: Path, found: Findings) -> None:
    """Find codes for terminals, invisible characters and lines that text began."""
    lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    # The progress of other libraries returns to the beginning of its line.
    text = "\n".join(line.replace("\r", "") if "it/s]" in line else line for line in lines)
    found.saw("logs", text)
    if hidden := UNSAFE.search(text):
        found.add(path, "holds", text[max(0, hidden.start() - 80) : hidden.end() + 40])
    if forged := re.search(r"^\s*forged.*", text, re.MULTILINE):
        found.add(path, "has a line that text began:", forged[0])


def check_figure(path: Path, found: Findings) -> None:
    """Find what text created in an SVG file."""
    raw = path.read_bytes().decode()
    if hidden := UNSAFE.search(raw):
        found.add(path, "holds", hidden[0])
    root = ET.fromstring(raw)
    found.saw("figures", "".join(root.itertext()))
    for part in root.iter():
        if part.tag.rpartition("}")[2] in ("script", "foreignObject", "image", "a", "animate", "iframe"):
            found.add(path, "has an element", part.tag)
        for name, value in part.attrib.items():
            if KNOWN.search(name + value) or name.startswith("on"):
                found.add(path, "has an attribute", name, value)


def check_data(path: Path, found: Findings) -> None:
    """Find what is more than one call with JSON in a data file of the page of latents."""
    raw = path.read_bytes().decode()
    if hidden := UNSAFE.search(raw):
        found.add(path, "holds", hidden[0])
    call = re.fullmatch(r'latents\("([0-9a-z-]+)",([^<\u2028\u2029\n]*)\)\n', raw)
    if call is None or call[1] != path.stem:
        found.add(path, "is no call of ours:", raw[:80])
        return
    found.saw("data files", json.dumps(json.loads(call[2]), ensure_ascii=False))


def check_page(path: Path, dom: str, tags: set[str], found: Findings) -> None:
    """Find what text created in a page as a browser sees it."""
    raw = path.read_bytes().decode()
    if hidden := UNSAFE.search(raw):
        found.add(path, "holds", hidden[0])
    seen = Seen(dom)
    found.saw("pages", seen.text)
    found.executed += seen.ran
    for what, parts in (("text created", seen.created), ("has elements", sorted(seen.tags - tags))):
        if parts:
            found.add(path, what, *parts[:3])
    if seen.ran or seen.scripts > raw.count("<script>") or raw.count("<script>") > 1:
        found.add(path, "runs scripts of text:", seen.ran, seen.scripts)
    if "Content-Security-Policy" not in raw:
        found.add(path, "has no content security policy")


def check_report(path: Path, dom: str, found: Findings) -> None:
    """Find what text created in Snakemake's report, whose own scripts and elements are not ours."""
    seen = Seen(dom)
    found.saw("reports", seen.text)
    found.executed += seen.ran
    if seen.ran or seen.created:
        found.add(path, "text created", *seen.created[:3])


def template_tags() -> set[str]:
    """Return the elements that our own templates write, and those that a browser adds."""
    # The leaderboard is no page of a study; tests/report/test_leaderboard.py has its hostile names.
    pages = [path for path in (ROOT / "isaerft/report").glob("*.py") if path.name != "leaderboard.py"]
    sources = [*pages, ROOT / "isaerft/annotation/page.py"]
    written = {tag for path in sources for tag in re.findall(r"<([a-z][a-z0-9]*)", path.read_text(encoding="utf-8"))}
    # The page of latents makes its elements by a script.
    script = (ROOT / "isaerft/report/latents.js").read_text(encoding="utf-8")
    return written | set(re.findall(r'make\("([a-z][a-z0-9]*)"', script))


def opened(path: Path, port: int, profile: Path, fragment: str = "") -> str:
    """Return the DOM that a browser makes of a file, with every request sent to a port of this machine."""
    proxy = (f"--proxy-server=http://127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>")
    command = [*BROWSER, *proxy, f"--user-data-dir={profile}", "--dump-dom", path.as_uri() + fragment]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    if done.returncode or not done.stdout:
        raise SystemExit(f"{BROWSER[0]} cannot open {path}: {done.stderr[-300:].decode(errors='replace')}")
    return done.stdout.decode()


def check_browser(study: Study, listener: Listener) -> None:
    """Stop unless what the pages are searched for is found in a page of unescaped text."""
    page = study.base / "control.html"
    parts = [one.text for one in study.short if one.text.startswith(("<img", '"><img', "<svg onload", "<x-"))]
    page.write_text("<!doctype html><meta charset=utf-8>" + "\n".join(parts), encoding="utf-8")
    seen = Seen(opened(page, listener.port, study.base / "tmp/profile"))
    if not (seen.ran and seen.created and listener.marks):
        raise SystemExit(f"the browser runs nothing in a page of unescaped text: {seen.ran}, {len(listener.marks)}")
    listener.marks.clear()


def files_of(base: Path) -> dict[Path, tuple[int, int]]:
    """Return size and time of all files that no part of the study should write."""
    free = [base / "work/results", base / "work/.snakemake", base / "home", base / "tmp"]
    free += [base / "control.html", base / "report.html", base / "work/config/refused.yaml"]
    free += [base / "given/answers.csv", base / "given/refused"]
    found = {}
    for folder, _, names in os.walk(base):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            if not any(path == one or one in path.parents for one in free) and path.suffix not in (".log", ".pyc"):
                facts = path.lstat()
                found[path] = (facts.st_size, facts.st_mtime_ns) if not path.is_dir() else (0, 0)
    return found


def check_files(study: Study, before: dict[Path, tuple[int, int]], found: Findings) -> None:
    """Find files outside of the study's folder, and names that text made anywhere."""
    away = [path for path, facts in files_of(study.base).items() if before.get(path) != facts]
    results = study.base / "work/results"
    away += [path for path in results.iterdir() if path.name not in ("hostile", "llm_cache.sqlite")]
    ours = (results, study.base / "work/.snakemake", study.base / "home", study.base / "tmp")
    away += [path for folder in ours for path in folder.rglob("*") if KNOWN.search(path.name)]
    for folder in ("/", "/tmp", "/etc", str(Path.home()), str(ROOT), str(study.base.parent)):
        away += [Path(folder, name) for name in os.listdir(folder) if KNOWN.search(name)]
    found.executed += sum(study.away in path.parents for path in away)
    found.escaped += len(away)
    for path in away:
        found.add("files", "outside of the study's folder:", str(path))
    for path in sorted((study.base / "work/.snakemake/metadata").rglob("*")):
        if path.is_file():
            found.saw("Snakemake metadata", path.read_text(encoding="utf-8"))
            json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def servers(study: Study) -> Iterator[tuple[OpenAIServer, Neuronpedia]]:
    """Give a language model and a Neuronpedia whose answers are hostile."""
    llm = OpenAIServer(key="")
    llm.answer = study.answer
    try:
        with Neuronpedia(study.labels(), exported=range(0, D_SAE, 2), rows_per_batch=64) as labels:
            yield llm, labels
    finally:
        llm.close()


def run_study(study: Study, options: argparse.Namespace, found: Findings) -> None:
    """Run the whole study, then what no rule runs, each with its output in a log."""
    home = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "home/.cache", "MPLCONFIGDIR": "home/.matplotlib"}
    os.environ.update({name: str(study.base / folder) for name, folder in home.items()})
    with servers(study) as (llm, labels):
        values = study.make(llm, labels)
        config = study.base / "hostile.yaml"
        config.write_text(yaml.safe_dump(values), encoding="utf-8")
        work = workplace(study.base / "work", config)
        before = files_of(study.base)
        run = ("--cores", options.cores, "--config", "study=hostile")
        if start(work, study.base / "study.log", *run).wait():
            raise SystemExit(f"the study failed; see {study.base / 'study.log'} and keep it with --keep")
        if start(work, study.base / "report.log", *run, "--report", str(study.base / "report.html")).wait():
            raise SystemExit(f"there is no report; see {study.base / 'report.log'}")
        after_the_study(study, llm, values)
    check_files(study, before, found)


def after_the_study(study: Study, llm: OpenAIServer, values: dict[str, Any]) -> None:
    """Make sheets, read one back with hostile answers, steer, and meet what must be refused."""
    work, config = study.base / "work", "config/hostile.yaml"
    about = ("--study", config, "--subject", "toy")
    sheets = work / "results/hostile/sheets"
    verb(study, 0, "annotation-sheet", *about, "--out", str(sheets / "explain"))
    verb(study, 0, "annotation-sheet", *about, "--out", str(sheets / "judge"), "--source", "given")
    with (sheets / "explain/sheet.csv").open(newline="", encoding="utf-8-sig") as stream:
        asked = [(row["sheet"], row["latent_index"]) for row in csv.DictReader(stream)]
    said = cycle(study.through("answers of a reader", [one for one in study.plain if one.kind != "unicode"]))
    with (study.given / "answers.csv").open("w", newline="", encoding="utf-8") as stream:
        lines = [(*key, text, "x") for key, text in zip(asked, said, strict=False)]
        csv.writer(stream).writerows([("sheet", "latent_index", "explanation", "done"), *lines])
    answers = ("--sheet", str(sheets / "explain"), "--returned", str(study.given / "answers.csv"), "--kind", "person")
    reader = ("--reader", study.joined("names of readers"), "--out", str(sheets / "read.csv"))
    verb(study, 0, "read-annotations", *about, *answers, *reader)
    prompts = [f"--prompt={text}" for text in study.through("prompts to steer", study.plain[:40])]
    verb(study, 0, "steer", *about, "--latent", "1", "--max-new-tokens", "12", "--temperature", "1", *prompts)
    verb(study, 0, "verify", "--study", config)

    refusal = study.joined("errors of a server")
    llm.refuses = lambda body: (400, {"error": {"message": refusal}})
    other = values | {"llms": {"server": values["llms"]["server"] | {"model": "other"}}}
    folder = study.given / "refused"
    folder.mkdir()
    for name in study.refused_names:
        (folder / f"{name}.jsonl").write_text('{"latent_index": 0, "explanation": "x"}\n', encoding="utf-8")
    other["sources"] = values["sources"] | {"given": values["sources"]["given"] | {"path": str(folder)}}
    (work / "config/refused.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    if not start(work, study.base / "refused.log", "--dry-run", "--config", "study=refused").wait():
        raise SystemExit("Snakemake takes names of files that hold its variables")
    verb(study, 2, "explain", "--study", "config/refused.yaml", "--subject", "toy", "--source", "asked")
    for door, given in (("names of parts", study.texts), ("names of files", study.refused_names)):
        study.doors[door] += len(given)
    refused_names(study, values)


def verb(study: Study, status: int, *arguments: str) -> None:
    """Run one verb as a user would, its output in a log; it must end with this status."""
    with (study.base / f"{arguments[0]}.log").open("ab") as log:
        command = [sys.executable, "-m", "isaerft.cli", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=study.base / "work", env=environment, stdout=log, stderr=log, check=False)
    if done.returncode != status:
        raise SystemExit(f"{arguments[0]} ended with {done.returncode}; see {log.name}")


def refused_names(study: Study, values: dict[str, Any]) -> None:
    """Give every part of the study every text as its name, and write the errors to a log."""
    with (study.base / "names.log").open("w", encoding="utf-8", errors="surrogateescape") as log:
        for kind in ("study", "subjects", "behaviors", "adapters", "sources", "judges", "scorers", "llms"):
            for one in study.texts:
                named = {one.text: next(iter(values[kind].values()))} if kind != "study" else one.text
                try:
                    plan_from_dict(values | {kind: named})
                except InputError as error:
                    log.write(f"{error}\n")
                else:
                    raise SystemExit(f"the name {one.text[:80]!r} of {kind} is taken")


def main() -> None:
    """Run the study, look at everything that it made, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of which text goes where")
    parser.add_argument("--cores", default="1")
    parser.add_argument("--keep", type=Path, help="folder to work in, which is kept; default: a temporary one")
    options = parser.parse_args()
    if shutil.which(BROWSER[0]) is None:
        raise SystemExit(f"{BROWSER[0]} is not on the PATH; install it to open the pages")
    base = (options.keep or Path(tempfile.mkdtemp(prefix="hostile-"))).absolute()
    study, found, listener = Study(base, options.seed), Findings(), Listener()
    run_study(study, options, found)
    results, tags = base / "work/results/hostile", template_tags()
    check_browser(study, listener)
    for path in sorted((base / "work/results").rglob("*.csv")):
        check_table(path, found)
    check_explanations(results / "tables/most_changed_latents.csv", study.explained, found)
    for path in sorted([*base.glob("*.log"), *(results / "logs").rglob("*.log"), *base.glob("work/.snakemake/log/*")]):
        check_log(path, found)
    for path in sorted(results.rglob("*.svg")):
        check_figure(path, found)
        found.executed += Seen(opened(path, listener.port, base / "tmp/profile")).ran
    for path in sorted(results.rglob("*.html")):
        check_page(path, opened(path, listener.port, base / "tmp/profile"), tags, found)
    for path in sorted((results / "latents").glob("*.js")):
        check_data(path, found)
    for latent in range(0, D_SAE, LATENT_STEP):
        page = results / "latents/index.html"
        check_page(page, opened(page, listener.port, base / "tmp/profile", f"#toy/{latent}"), tags, found)
    check_report(base / "report.html", opened(base / "report.html", listener.port, base / "tmp/profile"), found)
    print_row(study, found, listener)
    if not options.keep:
        shutil.rmtree(base)
    sys.exit(bool(found.lines or found.executed or found.escaped or listener.marks))


def print_row(study: Study, found: Findings, listener: Listener) -> None:
    """Print what was found, what was looked at, and the row of docs/reliability.md."""
    for kind in ("CSV tables", "pages", "data files", "figures", "logs"):
        if not found.marks.get(kind):
            found.add(kind, "hold none of the texts, so nothing was tested")
    for line in found.lines:
        print(line)
    for door, count in study.doors.items():
        print(f"{count:6} texts through {door}")
    for kind, count in found.artefacts.items():
        print(f"{count:6} {kind}, with {len(found.marks[kind])} of the texts")
    print("strings, doors, artefacts, executed, requests, escaped")
    numbers = (len(study.texts), len(study.doors), found.artefacts.total(), found.executed, len(listener.marks))
    print(*numbers, found.escaped, sep=", ")


if __name__ == "__main__":
    main()
