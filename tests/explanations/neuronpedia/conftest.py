import importlib.util
import json
from pathlib import Path

import pytest

from isaerft import explanations
from isaerft.config import Neuronpedia, Source

SERVER = Path(__file__).parents[2] / "servers/neuronpedia.py"
MODEL, LAYER = "gemma-2-2b", "20-gemmascope-res-16k"


@pytest.fixture(scope="session")
def serve():
    """Give the test's server (tests/servers/neuronpedia.py)."""
    spec = importlib.util.spec_from_file_location("neuronpedia_server", SERVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Neuronpedia


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("NEURONPEDIA_API_KEY", raising=False)


@pytest.fixture
def subject_dir(tmp_path):
    """Give a subject's folder whose SAE names its source."""
    folder = tmp_path / "subjects/toy"
    (folder / "sae").mkdir(parents=True)
    metadata = {"hook_name": "blocks.20.hook_resid_post", "neuronpedia_id": f"{MODEL}/{LAYER}"}
    (folder / "sae/cfg.json").write_text(json.dumps({"d_sae": 8, "metadata": metadata}))
    return folder


@pytest.fixture
def ask(subject_dir):
    """Run the source against a server; options of the source and of Neuronpedia by name."""

    def run(server, *, d_sae=None, latents=None, side="input", **options):
        source = Source(kind="neuronpedia", side=side, neuronpedia=Neuronpedia(**(server.options | options)))
        size = d_sae or max(server.latents, default=0) + 1
        return explanations.explain("np", source, subject_dir=subject_dir, d_sae=size, latents=latents)

    return run
