"""Hostile labels on the whole way: server, command line, tables, pages, figures, and every log on it."""

import csv
import json
import os
import re
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml

from isaerft.analysis import table
from isaerft.table import MAX_TEXT

N, BOT = 60, ("gpt-4o-mini", "oai_token-act-pair")
MEGABYTES = 3_000_000
LABELS = [
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "\x1b[2J\x1b]8;;http://evil.example\x07click\x1b]8;;\x07 \x9b31mred \x9d0;title\x9cend",
    "cut]]></text><script>alert(3)</script><!-- & $\\frac{$ &lt;b&gt;",
    "y" * MEGABYTES,
    "evil \u202etxt.exe \u2066 \x00nul\x07 \ud83d half",
    '=HYPERLINK("http://evil.example","click")',
    "+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "\uff1d1+1",
    "\t\r\n =1+1",
    "\u200b\ufeff=1+1",
    'a","b\r\n=1+1',
    "{{ 7*7 }} {% for x in y %} ${8*8}",
    "javascript:alert(4)",
    "plain\U000e0073\U000e0061\U000e0079 yes",
]
FORMULA = re.compile(r"[=+\-@\uff1d\uff0b\uff0d\uff20\t\r]")
UNSAFE = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


@pytest.fixture
def results(subject_dir, tmp_path):
    """Write what stands before the explanations: a subject, and changes that are largest where labels are hostile."""
    rng = np.random.default_rng(0)
    facts = pd.DataFrame({"latent_index": range(N), "firing_rate": rng.uniform(0.01, 0.2, N)})
    facts = facts.assign(absorber=0, absorber_cosine=0.3, absorption=0.0, encoder_decoder_cosine=0.7)
    facts.assign(decoder_norm=1.0, density=0.5, cluster=range(N)).to_parquet(subject_dir / "latents.parquet")
    card = {
        "subject": "toy",
        "model": "m",
        "release": None,
        "sae_id": None,
        "sae_model": None,
        "hook_name": "blocks.1",
        "d_in": 8,
    }
    card |= {"d_sae": N, "variance_explained": 0.8, "l0": 3.0, "n_alive": N, "n_dense": 0}
    (subject_dir / "subject.json").write_text(json.dumps([card | {"loss_base": 2.0, "loss_spliced": 2.1}]))
    size = np.where(np.arange(N) < len(LABELS), 100.0 - np.arange(N), 0.0)
    row = {"n_parameters": N, "objective": "sft", "steps": 9, "tokens": 99}
    row |= {"heldout_loss_base": 3.0, "heldout_loss_adapted": 2.0}
    for behavior in ("a", "b"):
        parts = [
            pd.DataFrame({"seed": seed, "latent_index": range(N), "change": size + 0.01 * rng.normal(size=N)})
            for seed in range(4)
        ]
        path = tmp_path / "changes/toy" / f"{behavior}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(parts, ignore_index=True).assign(adapter="bias", measure="contribution").to_parquet(path)
        path.with_suffix(".json").write_text("[]")
        folder = tmp_path / "adapters/toy" / behavior / "bias"
        folder.mkdir(parents=True)
        (folder / "training.json").write_text(json.dumps([row | {"seed": seed} for seed in range(4)]))
    return tmp_path


def write_study(folder, server, **options):
    rows = folder / "rows.jsonl"
    rows.write_text('{"prompt": "p", "completion": "c"}\n')
    values = {
        "study": "s",
        "subjects": {"toy": {"model": "m", "release": "r", "sae_id": "i", "corpus": {"sample": True}}},
        "behaviors": {name: {"description": f"alerts and {name}", "path": str(rows)} for name in "ab"},
        "adapters": {"bias": {}},
        "measures": ["contribution"],
        "sources": {"np": {"kind": "neuronpedia", "neuronpedia": server.options | {"bulk": "always"} | options}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "np", "judge": "lexical"},
        "agreement": {"n_resamples": 99, "n_bins": 1, "top_k": 30},
        "controls": ["firing_rate_only"],
        "causal_check": {"adapters": []},
        "placebos": {"n": 0},
        "n_seeds": 4,
    }
    (folder / "s.yaml").write_text(yaml.safe_dump(values))


def run(folder, words):
    """Run one verb as a rule does; return its exit code and its log."""
    call = [sys.executable, "-c", "import sys; from isaerft.cli import main; sys.exit(main())", *words.split()]
    done = subprocess.run(call, cwd=folder, env=os.environ.copy(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode()


class Seen(HTMLParser):
    """What a browser would make of a page: elements, attributes, and text outside scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.mark.slow
def test_hostile_labels_are_harmless_in_the_store_the_tables_the_pages_the_figure_and_the_logs(
    serve, results, subject_dir
):
    latents = {latent: [(f"concept {latent}", *BOT)] for latent in range(N)}
    latents |= {latent: [(label, *BOT)] for latent, label in enumerate(LABELS)}
    latents[20] = [("said", "\x1b[31mmodel\x00" * 999, "=type")]
    with serve(latents, exported=range(0, N, 2), rows_per_batch=8) as server:
        write_study(results, server)
        study = "--study s.yaml --results ."
        verbs = [
            f"explain {study} --subject toy --source np",
            f"judge {study} --subject toy --source np --judge lexical",
            f"agreement {study} --subject toy --adapter bias",
            *(f"{verb} {study}" for verb in ("tables", "pages", "figures", "summary")),
        ]
        log = ""
        for verb in verbs:
            code, said = run(results, verb)
            assert code == 0, said
            log += said
        write_study(results, server, prefer=["nobody"])
        code, said = run(results, verbs[0])
        assert (code, "nobody" in said) == (2, True)
        log += said
    assert not UNSAFE.search(log)
    assert len(log) < 20_000

    with sqlite3.connect(subject_dir / "neuronpedia.sqlite") as base:
        kept = [text for row in base.execute("SELECT text, maker_model, maker_type FROM said") for text in row]
    assert len(kept) == 3 * N
    assert not any(UNSAFE.search(text) or "\n" in text or len(text) > MAX_TEXT for text in kept)

    with open(results / "tables/most_changed_latents.csv", newline="", encoding="utf-8") as stream:
        raw = stream.read()
    header, *rows = csv.reader(raw.splitlines())
    assert header == [column.name for column in table("most_changed_latents").columns]
    assert len(rows) == 2 * 30
    text = [column.kind == "text" for column in table("most_changed_latents").columns]
    cells = [cell for row in rows for cell, is_text in zip(row, text, strict=True) if is_text]
    assert not [cell for cell in cells if FORMULA.match(cell.lstrip())]
    assert max(map(len, cells)) <= MAX_TEXT
    for path in results.rglob("*.csv"):
        assert not UNSAFE.search(path.read_bytes().decode()), path
    explained = {int(row[header.index("latent_index")]): row[header.index("explanation")] for row in rows}
    assert set(range(len(LABELS))) <= set(explained)
    assert explained[0] == LABELS[0]  # markup stays what it was said to be: pages escape it
    assert explained[1] == "click red end"
    assert explained[5] == "'" + LABELS[5]
    assert explained[10] == explained[11] == "'=1+1"
    assert explained[12] == 'a","b =1+1'

    for path, n_scripts in ((results / "pages/most_changed_latents.html", 1), (results / "summary.html", 0)):
        page = path.read_bytes().decode()
        seen = Seen(page)
        assert not UNSAFE.search(page)
        assert len(page) < 2_000_000
        assert seen.tags.count("script") == n_scripts
        assert not [name for name, _ in seen.attributes if name.startswith("on")]
        assert not [value for name, value in seen.attributes if name in ("href", "src") and "script:" in (value or "")]
    seen = Seen((results / "pages/most_changed_latents.html").read_text())
    assert LABELS[0] in seen.text
    assert LABELS[13] in seen.text
    assert "img" not in seen.tags

    svg = (results / "figures/most_changed_latents.svg").read_bytes().decode()
    root = ET.fromstring(svg)
    assert not UNSAFE.search(svg)
    assert not [part for part in root.iter() if part.tag.endswith(("script", "foreignObject", "image"))]
    drawn = "".join(root.itertext())
    assert "<script>alert(1)" in drawn
    assert "$\\frac{$" in drawn
