"""The directory of published SAEs: which weights a source at Neuronpedia explains, by SAELens' list and by our own."""

import subprocess
import sys
from pathlib import Path

import pytest
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from isaerft import config
from isaerft.directory import Directory, Listed, Weights, contradicts, labelled_sources, saes_directory
from isaerft.explanations.neuronpedia.records import parse_source_id

ROOT = Path(__file__).parents[1]
WRONG = {"gemma-2-9b/20-gemmascope-res-131k__l0-10", "gemma-2-9b/20-gemmascope-res-131k__l0-12"}
SOURCES_NOT_AT_SAELENS = {
    "gemma-3-12b-it/24-gemmascope-2-res-16k": "google/gemma-3-12b-it",
    "gemma-3-12b-it/24-gemmascope-2-res-65k": "google/gemma-3-12b-it",
    "gemma-3-27b-it/41-gemmascope-2-res-262k": "google/gemma-3-27b-it",
    "qwen3.5-2b-pt/11-qwenscope-res-32k": "Qwen/Qwen3.5-2B-Base",
    "qwen3.5-9b-pt/15-qwenscope-res-64k": "Qwen/Qwen3.5-9B-Base",
    "qwen3.5-27b/31-qwenscope-res-80k": "Qwen/Qwen3.5-27B",
    "qwen3-1.7b/14-resid-batchtopk-65k__l0-80": "Qwen/Qwen3-1.7B",
    "qwen3-8b/18-resid-batchtopk-65k__l0-80": "Qwen/Qwen3-8B",
    "qwen3-14b/20-resid-batchtopk-65k__l0-80": "Qwen/Qwen3-14B",
    "qwen3-32b/32-resid-batchtopk-65k": "Qwen/Qwen3-32B",
    "olmo-3-1125-32b/32-res-batchtopk-131k": "allenai/Olmo-3-1125-32B",
    "qwen3-1.7b/0-llamascope-2-transcoder-16k-k64": "Qwen/Qwen3-1.7B",
    "qwen3-1.7b/27-llamascope-2-lorsa-16k-k64": "Qwen/Qwen3-1.7B",
}


@pytest.fixture(scope="module")
def directory():
    return saes_directory()


def test_the_directory_is_saelens_own_read_without_torch(directory):
    theirs = get_pretrained_saes_directory()
    expected = {
        Listed(
            release,
            sae_id,
            Weights(entry.repo_id, path),
            source_id=entry.neuronpedia_id[sae_id] or "",
            loader=entry.conversion_func or "",
            model=entry.model,
            is_centered="'center_writing_weights': True" in str(entry.config_overrides),
        )
        for release, entry in theirs.items()
        for sae_id, path in entry.saes_map.items()
    }
    assert set(directory) == expected
    code = "import sys; from isaerft.directory import saes_directory; saes_directory()\n"
    code += "sys.exit(' '.join({'torch', 'sae_lens'} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("release", "sae_id", "expected"),
    [
        ("gemma-scope-2b-pt-res-canonical", "layer_20/width_16k/canonical", "gemma-2-2b/20-gemmascope-res-16k"),
        ("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71", "gemma-2-2b/20-gemmascope-res-16k"),
        ("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_22", None),
        ("gemma-scope-9b-pt-res", "layer_2/width_16k/average_l0_8", None),
        ("gpt2-small-res-jb", "blocks.11.hook_resid_post", "gpt2-small/12-res-jb"),
        ("gemma-2-2b-res-matryoshka-dc", "blocks.3.hook_resid_post", None),
        ("gemma-2-2b-res-matryoshka-dc", "blocks.12.hook_resid_post", "gemma-2-2b/12-res-matryoshka-dc"),
        ("pythia-70m-deduped-res-sm", "blocks.0.hook_resid_pre", "pythia-70m-deduped/e-res-sm"),
        ("gemma-scope-2-270m-it-res", "layer_9_width_65k_l0_medium", "gemma-3-270m-it/9-gemmascope-2-res-65k"),
        ("gemma-scope-2-270m-it-res", "layer_9_width_65k_l0_small", None),
        ("gemma-scope-2-270m-it-res-all", "layer_9_width_16k_l0_small", None),
        ("llama_scope_lxr_8x", "l5r_8x", "llama3.1-8b/5-llamascope-res-32k"),
        ("qwen2.5-7b-instruct-andyrdt", "resid_post_layer_3_trainer_1", "qwen2.5-7b-it/3-resid-post-aa"),
        ("gemma-scope-2-12b-it-res", "layer_24_width_16k_l0_medium", "gemma-3-12b-it/24-gemmascope-2-res-16k"),
        ("gemma-scope-2-12b-it-res", "layer_24_width_16k_l0_small", None),
        (
            "google/gemma-scope-2-27b-it",
            "resid_post/layer_41_width_262k_l0_medium",
            "gemma-3-27b-it/41-gemmascope-2-res-262k",
        ),
        ("qwen-scope-3.5-2b-base-w32k-l50", "layer11", "qwen3.5-2b-pt/11-qwenscope-res-32k"),
        ("qwen-scope-3.5-2b-base-w32k-l100", "layer11", "qwen3.5-2b-pt/11-qwenscope-res-32k"),
        ("qwen-scope-3.5-2b-base-w32k-l100", "layer12", None),
    ],
)
def test_an_sae_of_the_directory_has_the_source_of_its_own_weights(directory, release, sae_id, expected):
    found = directory.source_of(release, sae_id)
    assert (found and "/".join(parse_source_id(found))) == expected


def test_2859_saes_of_saelens_have_a_source_and_eight_more_by_our_own_list(directory):
    found = [directory.source_of(listed.release, listed.sae_id) for listed in directory]
    by_saelens = [source_id for source_id in found if source_id and directory.is_listed_by_saelens(source_id)]
    assert len(by_saelens) >= 2859
    assert sum(source_id in SOURCES_NOT_AT_SAELENS for source_id in found) == 8


def test_the_saes_of_the_studies_are_in_the_directory_and_have_labels(directory, monkeypatch):
    monkeypatch.chdir(ROOT)
    studies = [config.load_plan(path).study for path in Path("config").glob("*.yaml") if "release:" in path.read_text()]
    subjects = [part for study in studies for part in study.subjects.values()]
    assert len(subjects) == 10
    for part in subjects:
        assert directory.is_listed_by_saelens(directory.source_of(part.release, part.sae_id))


def test_an_id_of_another_sae_is_not_taken_from_the_metadata_either(directory):
    path = "layer_2/width_16k/average_l0_8"
    wrong = "gemma-2-9b/20-gemmascope-res-131k__l0-10"
    assert directory.source_of("gemma-scope-9b-pt-res", path, wrong) is None
    assert directory.source_of("somebody/their-saes", "x", "a/1-b") == "a/1-b"


def test_of_all_ids_in_the_directory_only_those_of_other_saes_are_refused(directory):
    known = [(listed.source_id, listed.weights.path) for listed in directory if listed.source_id]
    assert len(known) > 2000
    assert {source_id for source_id, path in known if contradicts(source_id, path)} <= WRONG
    assert not any(directory.owners(source_id) for source_id in WRONG)


@pytest.mark.parametrize(
    ("source_id", "path", "wrong"),
    [
        ("m/20-gemmascope-res-16k", "layer_20/width_16k/average_l0_71", False),
        ("m/20-gemmascope-res-16k__l0-71", "layer_20/width_16k/average_l0_71", False),
        ("m/2-gemmascope-res-16k", "layer_20/width_16k/average_l0_71", True),
        ("m/20-gemmascope-res-65k", "layer_20/width_16k/average_l0_71", True),
        ("m/20-gemmascope-res-16k__l0-7", "layer_20/width_16k/average_l0_71", True),
        ("m/21-gemmascope-2-res-16k", "resid_post/layer_20_width_16k_l0_medium", True),
        ("m/12-qwenscope-res-32k", "layer11.sae.pt", True),
        ("m/11-qwenscope-res-32k", "layer11.sae.pt", False),
        ("m/e-res-sm", "e-res-sm", False),
    ],
)
def test_layer_width_and_sparsity_must_be_those_of_the_weights(source_id, path, wrong):
    assert contradicts(source_id, path) is wrong


def test_our_own_list_holds_67_sources_with_their_models_and_none_that_saelens_lists(directory):
    assert len(directory.labelled) == 67
    assert {source_id: directory.model_of(source_id) for source_id in SOURCES_NOT_AT_SAELENS} == SOURCES_NOT_AT_SAELENS
    assert not any(map(directory.is_listed_by_saelens, directory.labelled))
    for source_id, entry in directory.labelled.items():
        assert set(entry) <= {"model", "saes", "layers"}
        parse_source_id(source_id)
        named = [directory.weights_of(*sae) for sae in entry.get("saes", ())]
        assert None not in named
        assert not any(contradicts(source_id, weights.path) for weights in named)


def test_an_entry_with_layers_stands_for_each_of_them():
    entries = labelled_sources({"m/{layer}-x": {"model": "a/M", "layers": 2}, "m/7-y": {"model": "a/M"}})
    assert list(entries) == ["m/0-x", "m/1-x", "m/7-y"]
    assert Directory({}, entries).model_of("m/1-x") == "a/M"
