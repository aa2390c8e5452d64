"""With the cache shipped, the verbs give the same bytes with neither key nor server; a rerun sends nothing."""

import json
import shutil

import pandas as pd
import pytest

from isaerft.cli import main
from isaerft.explanations.local import CONTEXT_COLUMNS

D_SAE = 6
OUTPUTS = ("explained.parquet", "judged.parquet")


def answer(body):
    """Explain a latent by its evidence, or judge an explanation promoted."""
    system, user = (message["content"] for message in body["messages"])
    marker, text = user.split("--- begin ")[1].split(" ---\n", 1)
    if "latent_id" in system:
        return {"content": json.dumps({"latent_id": marker, "explanation": f"tells jokes {text[:60]}"})}
    told = {"rationale": "jokes", "effect": "promoted", "strength": "strong", "confidence": 0.5}
    names = [name for name in ("behavior_1", "behavior_2") if name in user]
    return {"content": json.dumps({"explanation_id": marker} | dict.fromkeys(names, told))}


@pytest.fixture
def plan(openai_server, tmp_path):
    """A folder with a study and what is known of its subject's latents."""
    openai_server.answer = answer
    folder = tmp_path / "authors"
    (folder / "toy").mkdir(parents=True)
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}, "train_sae": {"d_sae": D_SAE}}},
        "behaviors": {
            name: {"description": f"The assistant has {name}.", "testbed": name} for name in ("humor", "alarm")
        },
        "adapters": {"bias": {}},
        "controls": [],
        "sources": {"writer": {"kind": "llm", "llm": "m", "side": "both"}},
        "judges": {"reader": {"kind": "llm", "llm": "m"}},
        "primary": {"adapter": "bias", "measure": "attribution", "source": "writer", "judge": "reader"},
        "llms": {"m": {"model": "m", "base_url": openai_server.url, "retries": 0}},
        "llm_cache": "answers.sqlite",
    }
    (folder / "study.yaml").write_text(json.dumps(values))
    (folder / "toy/subject.json").write_text(json.dumps([{"d_sae": D_SAE}]))
    pd.DataFrame({"latent_index": range(D_SAE), "firing_rate": 0.1}).to_parquet(folder / "toy/latents.parquet")
    rows = [
        (latent, side, 0, f"word{latent}", "a", "b", 1.0) for latent in range(D_SAE) for side in ("input", "output")
    ]
    pd.DataFrame(rows, columns=list(CONTEXT_COLUMNS)).to_parquet(folder / "toy/contexts.parquet")
    return folder


def run(folder, monkeypatch):
    """Explain and judge in a folder; return the bytes of what came out."""
    monkeypatch.chdir(folder)
    same = ["--study", "study.yaml", "--subject", "toy", "--source", "writer", "--dir", "toy"]
    assert main(["explain", *same, "--out", OUTPUTS[0]]) == 0
    assert main(["judge", *same, "--judge", "reader", "--explanations", OUTPUTS[0], "--out", OUTPUTS[1]]) == 0
    return [(folder / name).read_bytes() for name in OUTPUTS]


def test_with_the_cache_shipped_no_key_and_no_server_is_needed(plan, openai_server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", openai_server.key)
    first = run(plan, monkeypatch)
    assert openai_server.problems == []
    assert openai_server.received == 2 * D_SAE
    judged = pd.read_parquet(plan / OUTPUTS[1])
    assert len(judged) == 2 * D_SAE
    assert (judged["expected_effect"] > 0).all()

    assert run(plan, monkeypatch) == first
    assert openai_server.received == 2 * D_SAE

    monkeypatch.delenv("OPENAI_API_KEY")
    openai_server.close()
    readers = tmp_path / "readers"
    readers.mkdir()
    for name in ("study.yaml", "answers.sqlite", "toy"):
        copy = shutil.copytree if (plan / name).is_dir() else shutil.copy
        copy(plan / name, readers / name)
    assert run(readers, monkeypatch) == first

    (readers / "answers.sqlite").unlink()
    for name in OUTPUTS:
        (readers / name).unlink()
    monkeypatch.chdir(readers)
    same = ["--study", "study.yaml", "--subject", "toy", "--source", "writer", "--dir", "toy"]
    assert main(["explain", *same, "--out", OUTPUTS[0]]) != 0, "without the cache nothing can be explained"
