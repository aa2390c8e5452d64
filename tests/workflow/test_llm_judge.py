"""The LLM judge as a rule: what it costs is told first, its key is kept nowhere, and its cache outlives reruns."""

import numpy as np
import pandas as pd
import pytest

from isaerft.explanations import write_explanations

TARGET = "results/small/judgements/hub/local/llm.parquet"
ONLY = ("--cores", "1", "--allowed-rules", "judge", "--", TARGET)


@pytest.fixture
def with_llm(workspace, openai_server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", openai_server.key)
    llms = {"small": {"model": "m", "base_url": openai_server.url}}
    workspace.study_of_hub(judge="llm", judges={"llm": {"llm": "small"}}, llms=llms)
    texts = [f"limericks number {i}" for i in range(5)]
    frame = pd.DataFrame({"latent_index": np.arange(5), "explanation": texts, "side": "input", "url": ""})
    write_explanations(frame, workspace.folder / "results/small/explanations/hub/local.parquet")
    return workspace


@pytest.mark.slow
def test_a_dry_run_tells_the_cost_and_asks_nothing(with_llm, openai_server):
    done = with_llm.snakemake("--dry-run", real=True)
    assert "hub, local, judge llm: 5 requests (0 of 5 cached), about" in done.stderr
    assert openai_server.received == 0


@pytest.mark.slow
def test_the_key_is_in_no_file_and_a_rerun_needs_neither_key_nor_server(with_llm, openai_server, monkeypatch):
    openai_server.faults = [500, None, 429]
    done = with_llm.snakemake(*ONLY, real=True)
    assert done.returncode == 0, done.stderr
    assert openai_server.problems == []
    first = (with_llm.folder / TARGET).read_bytes()
    key = openai_server.key.encode()
    files = [path for path in with_llm.folder.rglob("*") if path.is_file()]
    assert {".snakemake", "logs"} <= {part for path in files for part in path.parts}
    assert [path for path in files if key in path.read_bytes()] == []
    assert openai_server.key not in done.stdout + done.stderr

    received = openai_server.received
    monkeypatch.delenv("OPENAI_API_KEY")
    (with_llm.folder / TARGET).unlink()
    again = with_llm.snakemake("--forcerun", "judge", *ONLY, real=True)
    assert again.returncode == 0, again.stderr
    assert (with_llm.folder / TARGET).read_bytes() == first
    assert openai_server.received == received
    assert "judge llm: 0 requests (5 of 5 cached)" in again.stderr


@pytest.mark.slow
def test_a_failure_keeps_what_was_answered(with_llm, openai_server, monkeypatch):
    study = with_llm.folder / "config/small.yaml"
    capped = study.read_text().replace("base_url:", "max_calls: 3\n    base_url:")
    study.write_text(capped)
    done = with_llm.snakemake(*ONLY, real=True)
    assert done.returncode != 0
    assert "max_calls: 3; all answers so far are kept in results/llm_cache.sqlite" in done.stdout + done.stderr
    study.write_text(capped.replace("max_calls: 3", "max_calls: 5"))
    assert with_llm.snakemake(*ONLY, real=True).returncode == 0
    assert openai_server.received == 5
