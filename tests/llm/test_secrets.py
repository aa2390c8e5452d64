"""A key in the environment: a server that repeats it brings it into no file, log or message."""

import json
import logging

import pandas as pd
import pytest

from isaerft.cli import main
from isaerft.explanations import write_explanations

JUDGEMENTS = "judgements/toy/local/reader.parquet"


@pytest.fixture
def judge(openai_server, tmp_path, monkeypatch):
    """Judge three explanations in a folder, asking a loopback server; return the exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", openai_server.key)
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}, "train_sae": {"d_sae": 6}}},
        "behaviors": {"humor": {"description": "The assistant jokes.", "testbed": "humor"}},
        "adapters": {"bias": {}},
        "controls": [],
        "sources": {"local": {}},
        "judges": {"reader": {"kind": "llm", "llm": "m"}},
        "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "reader"},
        "llms": {"m": {"model": "m", "base_url": openai_server.url, "retries": 0}},
        "llm_cache": "answers.sqlite",
    }
    (tmp_path / "study.yaml").write_text(json.dumps(values))
    texts = ["jokes and puns", "words of alarm", "the end of a line"]
    frame = pd.DataFrame({"latent_index": range(3), "explanation": texts, "side": "input", "url": ""})
    write_explanations(frame, tmp_path / "explanations/toy/local.parquet")
    options = ["--study", "study.yaml", "--subject", "toy", "--source", "local", "--results", "."]
    return lambda: main(["judge", *options, "--judge", "reader"])


def echoes(key):
    """Return bodies in which a careless server repeats the header of a request."""
    header = f"Authorization: Bearer {key}"
    return [
        header,
        {"error": {"message": f"unknown {header}", "param": key, "code": key}},
        {"error": {"message": "x" * 285 + header}},
        {"error": key},
        {"message": header},
        {"detail": [{"loc": ["header", header], "msg": f"seed and schema of {key}", "input": header}]},
        {"headers": {"Authorization": f"Bearer {key}"}},
    ]


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("status", [200, 401, *(pytest.param(s, marks=pytest.mark.slow) for s in (400, 500))])
def test_a_key_that_a_server_repeats_is_in_no_file_no_log_and_no_message(
    judge, openai_server, tmp_path, caplog, capsys, status, number
):
    caplog.set_level(logging.DEBUG)
    told = (status, echoes(openai_server.key)[number])
    openai_server.refuses = lambda body: told
    assert judge() == 2
    openai_server.refuses = None
    openai_server.check = lambda body, raw: []
    openai_server.answer = lambda body: {"content": openai_server.key, "finish_reason": openai_server.key}
    assert judge() == 2, "no answer at all"
    openai_server.answer = None
    assert judge() == 0
    said = "".join(capsys.readouterr()) + caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"answers.sqlite", "reader.parquet"}
    # A part of a key is as bad: half of it is searched for.
    for part in (openai_server.key[:14], openai_server.key[14:]):
        assert part not in said
        assert [path for path in files if part.encode() in path.read_bytes()] == []
