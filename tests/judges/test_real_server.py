"""The LLM judge against a server program of other people's making, which serves a model that talks nonsense."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest

from isaerft.config import Judge, Llm
from isaerft.errors import InputError
from isaerft.judges import judge_explanations
from isaerft.judges.llm import _questions
from isaerft.llm import Failure, LanguageModel, parsed

PROGRAM = shutil.which("transformers", path=str(Path(sys.executable).parent))
MISSING = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
EXPLAINED = pd.DataFrame(
    {"latent_index": range(3), "explanation": ["cats", "dogs", "the weather"], "side": "input", "url": ""}
)
BEHAVIORS = {"refusal": "The assistant refuses.", "humor": "The assistant jokes."}
JUDGE = Judge(kind="llm", llm="tiny")
PATIENCE = 120


@pytest.fixture
def served(tmp_path, tokenizer, model_of, tiny):
    """`transformers serve` on loopback with a random Llama; give its address and the model's name."""
    model_of("llama").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(tiny.chat_template)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = str(tmp_path / "model")
    command = [PROGRAM, "serve", name, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with open(tmp_path / "server.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < give_up, "the server does not come up"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", name
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="the program `transformers` is not installed")
@pytest.mark.skipif(bool(MISSING), reason=f"`transformers serve` needs {MISSING}: pip install fastapi uvicorn")
def test_a_models_nonsense_is_counted_as_failures_and_never_becomes_a_judgement(served, tmp_path):
    url, name = served
    options = Llm(model=name, base_url=url, api_key_env=None, answer_tokens=24, concurrency=1, retries=0)
    llm = LanguageModel("tiny", options, cache=tmp_path / "cache.sqlite", study="s")
    with pytest.raises(InputError, match=r"judged none of 3 explanations; failures: \{"):
        judge_explanations("tiny", JUDGE, EXPLAINED, BEHAVIORS, subject_dir=tmp_path, llm=llm)

    prompts = _questions(EXPLAINED, BEHAVIORS, JUDGE, 0)[2]
    offline = Llm(model=name, base_url="http://127.0.0.1:9/v1", api_key_env=None, answer_tokens=24)
    replies = LanguageModel("tiny", offline, cache=tmp_path / "cache.sqlite", study="s").ask(prompts)
    assert len(replies) == 3
    assert all(isinstance(parsed(reply, prompts[0].form), Failure) for reply in replies)
    assert any(reply.content.strip() for reply in replies), "the model said nothing at all"
    assert all(reply.prompt_tokens > 100 for reply in replies)
