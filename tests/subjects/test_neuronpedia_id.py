"""Which source at Neuronpedia explains an SAE: held against SAELens' own directory, and through its own loader."""

import json
import os
import subprocess
import sys

import pytest

from isaerft.explanations.neuronpedia.records import parse_source_id
from isaerft.subjects.sae import contradicts, neuronpedia_id_of

DROPPED = ("gemma-2-2b-res-matryoshka-dc", "blocks.12.hook_resid_post")
FETCH = """
import sys
from transformers import LlamaConfig, LlamaForCausalLM
from isaerft import config
from isaerft.subjects.load import LoadedModel
from isaerft.subjects.sae import fetch_sae
from sae_lens import SAE

sizes = dict(hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=14, vocab_size=8)
model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
release, sae_id, out = sys.argv[1:]
assert SAE.from_pretrained(release, sae_id).cfg.metadata.neuronpedia_id is None
subject = config.Subject(model="a/b", release=release, sae_id=sae_id)
fetch_sae(subject, LoadedModel(model, None, True), out)
"""


@pytest.fixture(scope="module")
def directory():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    return get_pretrained_saes_directory()


@pytest.mark.parametrize(
    ("release", "sae_id", "expected"),
    [
        ("gemma-scope-2b-pt-res-canonical", "layer_20/width_16k/canonical", "gemma-2-2b/20-gemmascope-res-16k"),
        ("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71", "gemma-2-2b/20-gemmascope-res-16k"),
        ("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_22", None),
        ("gemma-scope-9b-pt-res", "layer_2/width_16k/average_l0_8", None),
        ("gpt2-small-res-jb", "blocks.11.hook_resid_post", "gpt2-small/12-res-jb"),
        ("gemma-2-2b-res-matryoshka-dc", "blocks.3.hook_resid_post", None),
        (*DROPPED, "gemma-2-2b/12-res-matryoshka-dc"),
        ("pythia-70m-deduped-res-sm", "blocks.0.hook_resid_pre", "pythia-70m-deduped/e-res-sm"),
    ],
)
def test_an_sae_of_the_directory_has_the_source_of_its_own_weights(directory, release, sae_id, expected):
    found = neuronpedia_id_of(directory, release, sae_id, None)
    assert (found and "/".join(parse_source_id(found))) == expected


def test_an_id_of_another_sae_is_not_taken_from_the_metadata_either(directory):
    path = "layer_2/width_16k/average_l0_8"
    wrong = "gemma-2-9b/20-gemmascope-res-131k__l0-10"
    assert neuronpedia_id_of(directory, "gemma-scope-9b-pt-res", path, wrong) is None
    assert neuronpedia_id_of(directory, "somebody/their-saes", "x", "a/1-b") == "a/1-b"


def test_of_all_ids_in_the_directory_only_those_of_other_saes_are_refused(directory):
    known = [
        (found, entry.saes_map[name])
        for entry in directory.values()
        for name, found in entry.neuronpedia_id.items()
        if found
    ]
    assert len(known) > 2000
    refused = {found for found, path in known if contradicts(found, path)}
    assert refused <= {"gemma-2-9b/20-gemmascope-res-131k__l0-10", "gemma-2-9b/20-gemmascope-res-131k__l0-12"}


@pytest.mark.parametrize(
    ("source_id", "path", "wrong"),
    [
        ("m/20-gemmascope-res-16k", "layer_20/width_16k/average_l0_71", False),
        ("m/20-gemmascope-res-16k__l0-71", "layer_20/width_16k/average_l0_71", False),
        ("m/2-gemmascope-res-16k", "layer_20/width_16k/average_l0_71", True),
        ("m/20-gemmascope-res-65k", "layer_20/width_16k/average_l0_71", True),
        ("m/20-gemmascope-res-16k__l0-7", "layer_20/width_16k/average_l0_71", True),
        ("m/e-res-sm", "e-res-sm", False),
    ],
)
def test_layer_width_and_sparsity_must_be_those_of_the_weights(source_id, path, wrong):
    assert contradicts(source_id, path) is wrong


def test_an_id_that_saelens_drops_reaches_the_subjects_folder(directory, tmp_path):
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    release, sae_id = DROPPED
    entry = directory[release]
    cached = tmp_path / "hub" / f"models--{entry.repo_id.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("0" * 40)
    metadata = SAEMetadata(hook_name=sae_id, model_name="m", prepend_bos=True)
    sae = StandardSAE(StandardSAEConfig(d_in=16, d_sae=32, metadata=metadata))
    sae.save_model(cached / "snapshots" / ("0" * 40) / entry.saes_map[sae_id])
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", FETCH, release, sae_id, str(tmp_path / "sae")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads((tmp_path / "sae/cfg.json").read_text())
    assert card["metadata"]["neuronpedia_id"] == "gemma-2-2b/12-res-matryoshka-dc"
