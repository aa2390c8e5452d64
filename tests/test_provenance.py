"""Statements about SAEs: planted mismatches are contradicted, and no source that SAELens lists is."""

import re
from dataclasses import replace

import pytest
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from isaerft.directory import Directory, Weights, saes_directory
from isaerft.provenance import About, compare, same_model

NOTHING = Directory({}, {})
WIDTHS = {"4k": 4096, "16k": 16384, "32k": 32768, "65k": 65536, "128k": 131072, "131k": 131072, "262k": 262144,
          "1m": 1048576}  # fmt: skip


@pytest.fixture(scope="module")
def directory():
    return saes_directory()


def width_in(text):
    found = re.findall(r"(?:^|[-_/])(\d+[km])(?=[-_/]|$)", text)
    return WIDTHS.get(found[-1]) if found else None


def hook_of(listed):
    """Return the hook of an SAE whose id tells it, as its loader in SAELens writes it."""
    found = re.search(r"blocks\.\d+\.(attn\.)?hook_[a-z_]+[a-z]", listed.sae_id)
    if found:
        return found[0]
    layer = re.search(r"layer_(\d+)", listed.weights.path)
    if layer is None or not listed.release.startswith("gemma-scope"):
        return ""
    at = {"att": "attn.hook_z", "mlp": "hook_mlp_out", "transcoders": "ln2.hook_normalized"}
    place = next((hook for part, hook in at.items() if f"-{part}" in listed.release), "hook_resid_post")
    return f"blocks.{layer[1]}.{place}"


def sae(directory, release, sae_id):
    """Return what the SAE of a subject says."""
    listed = next(one for one in directory if (one.release, one.sae_id) == (release, sae_id))
    model = get_pretrained_saes_directory()[release].model
    names = {"source_id": directory.source_of(release, sae_id) or "", "weights": listed.weights, "model": model}
    return About("the SAE", hook_name=hook_of(listed), d_sae=width_in(sae_id), **names)


def labels(directory, release, sae_id):
    """Return what the labels of an SAE say in each of the ways in which they come."""
    listed = next(one for one in directory if (one.release, one.sae_id) == (release, sae_id))
    model, _, layer = directory.source_of(release, sae_id).partition("/")
    return {
        "export": About("the export", source_id=f"{model}/{layer}"),
        "repository": About("Neuronpedia", weights=listed.weights),
        "release": About("Neuronpedia", weights=directory.weights_of(release, sae_id)),
    }


LABELLED = {
    "gemma-scope": ("gemma-scope-2b-pt-res-canonical", "layer_20/width_16k/canonical"),
    "gemma-scope-2": ("gemma-scope-2-4b-it-res", "layer_17_width_16k_l0_medium"),
    "gpt2": ("gpt2-small-res-jb", "blocks.8.hook_resid_pre"),
    "llama-scope": ("llama_scope_lxr_8x", "l15r_8x"),
    "andyrdt": ("llama-3.1-8b-instruct-andyrdt", "resid_post_layer_11_trainer_1"),
}
MISMATCHES = {
    "other L0": [
        ("gemma-scope", "gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_22"),
        ("gemma-scope", "gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_139"),
        ("gemma-scope-2", "gemma-scope-2-4b-it-res", "layer_17_width_16k_l0_small"),
        ("gemma-scope-2", "gemma-scope-2-4b-it-res", "layer_17_width_16k_l0_big"),
    ],
    "layer": [
        ("gemma-scope", "gemma-scope-2b-pt-res-canonical", "layer_19/width_16k/canonical"),
        ("gemma-scope", "gemma-scope-2b-pt-res-canonical", "layer_2/width_16k/canonical"),
        ("gemma-scope-2", "gemma-scope-2-4b-it-res", "layer_22_width_16k_l0_medium"),
        ("gpt2", "gpt2-small-res-jb", "blocks.9.hook_resid_pre"),
        ("llama-scope", "llama_scope_lxr_8x", "l16r_8x"),
        ("andyrdt", "llama-3.1-8b-instruct-andyrdt", "resid_post_layer_15_trainer_1"),
    ],
    "width": [
        ("gemma-scope", "gemma-scope-2b-pt-res-canonical", "layer_20/width_65k/canonical"),
        ("gemma-scope-2", "gemma-scope-2-4b-it-res", "layer_17_width_65k_l0_medium"),
        ("llama-scope", "llama_scope_lxr_32x", "l15r_32x"),
    ],
    "pt for it": [("gemma-scope-2", "gemma-scope-2-4b-pt-res", "layer_17_width_16k_l0_medium")],
    "res-all for res": [
        ("gemma-scope-2", "gemma-scope-2-4b-it-res-all", "layer_17_width_16k_l0_small"),
        ("gemma-scope-2", "gemma-scope-2-4b-it-res-all", "layer_17_width_16k_l0_big"),
    ],
    "place": [
        ("gemma-scope", "gemma-scope-2b-pt-mlp-canonical", "layer_20/width_16k/canonical"),
        ("gemma-scope-2", "gemma-scope-2-4b-it-att", "layer_17_width_16k_l0_small"),
        ("gpt2", "gpt2-small-resid-post-v5-32k", "blocks.8.hook_resid_post"),
        ("llama-scope", "llama_scope_lxm_8x", "l15m_8x"),
    ],
    "another maker": [("gemma-scope", "gemma-2-2b-res-matryoshka-dc", "blocks.20.hook_resid_post")],
}
PLANTED = [(kind, *case) for kind, cases in MISMATCHES.items() for case in cases]


@pytest.mark.parametrize(("kind", "labelled", "release", "sae_id"), PLANTED, ids=lambda part: part.replace("/", " "))
def test_labels_of_another_sae_are_contradicted_however_they_say_whose_they_are(
    directory, kind, labelled, release, sae_id
):
    own = sae(directory, release, sae_id)
    for said in labels(directory, *LABELLED[labelled]).values():
        assert compare(said, own, directory).contradicted
        assert not compare(said, own, directory).agreed


def test_every_kind_of_mismatch_is_planted_and_the_right_labels_of_each_are_taken(directory):
    assert {kind: len(cases) for kind, cases in MISMATCHES.items()} == {
        "other L0": 4, "layer": 6, "width": 3, "pt for it": 1, "res-all for res": 2, "place": 4, "another maker": 1,
    }  # fmt: skip
    for release, sae_id in LABELLED.values():
        for said in labels(directory, release, sae_id).values():
            found = compare(said, sae(directory, release, sae_id), directory)
            assert (bool(found.agreed), found.contradicted) == (True, ())


def test_none_of_the_sources_that_saelens_lists_is_refused_by_mistake(directory):
    models = {release: entry.model for release, entry in get_pretrained_saes_directory().items()}
    checked = 0
    for listed in directory:
        source_id = directory.source_of(listed.release, listed.sae_id)
        if not source_id or not directory.is_listed_by_saelens(source_id):
            continue
        names = {"model": models[listed.release], "hook_name": hook_of(listed), "d_sae": width_in(source_id)}
        own = About("the SAE", source_id=source_id, weights=listed.weights, **names)
        alone = replace(own, source_id="")
        nameless = replace(own, weights=None)
        said = [
            About("the export", source_id=source_id),
            About("Neuronpedia", weights=listed.weights),
            About("Neuronpedia", weights=directory.weights_of(listed.release, listed.sae_id)),
            About("Neuronpedia", **names),
        ]
        for one in said:
            for ours in (own, alone, nameless):
                assert compare(one, ours, directory).contradicted == (), (listed, one, ours)
            assert compare(one, own, directory).agreed or one is said[3]
        checked += 1
    assert checked >= 2859


def test_without_a_name_in_common_model_layer_place_and_width_are_compared():
    own = About("the SAE", model="google/gemma-2-2b", hook_name="blocks.20.hook_resid_post", d_sae=16384)
    for said, expected in {
        "gemma-2-2b/20-gemmascope-res-16k": (),
        "gemma-2-2b-it/20-gemmascope-res-16k": ("model gemma-2-2b-it", "model google/gemma-2-2b"),
        "gemma-2-2b/19-gemmascope-res-16k": ("layer 19", "layer 20"),
        "gemma-2-2b/20-gemmascope-mlp-16k": ("the MLP", "the residual stream"),
        "gemma-2-2b/20-gemmascope-res-65k": ("65k latents", "16,384 latents"),
    }.items():
        found = compare(About("the export", source_id=said), own, NOTHING)
        sentences = (f"the export says {expected[0]}, the SAE says {expected[1]}",) if expected else ()
        assert (found.agreed, found.contradicted) == ((), sentences)


def test_a_repository_that_nobody_lists_contradicts_nothing_but_another_path_in_ones_own_does(directory):
    own = sae(directory, *LABELLED["gemma-scope"])
    copy = About("a row", weights=Weights("somebody/copies", "l20"))
    assert compare(copy, own, directory) == compare(About("a row"), own, directory)
    file = own.weights._replace(path=f"{own.weights.path}/params.npz")
    assert compare(About("a row", weights=file), own, directory).agreed
    other = own.weights._replace(path="layer_20/width_16k/average_l0_9999")
    assert compare(About("a row", weights=other), own, directory).contradicted


@pytest.mark.parametrize(
    ("release", "sae_id", "refused"),
    [
        ("gemma-scope-2-12b-it-res", "layer_24_width_16k_l0_medium", False),
        ("gemma-scope-2-12b-it-res", "layer_24_width_16k_l0_small", True),
        ("gemma-scope-2-12b-pt-res", "layer_24_width_16k_l0_medium", True),
        ("gemma-scope-2-12b-it-res-all", "layer_24_width_16k_l0_small", True),
    ],
)
def test_our_own_list_contradicts_and_confirms_nothing(directory, release, sae_id, refused):
    said = About("the export", source_id="gemma-3-12b-it/24-gemmascope-2-res-16k")
    found = compare(said, sae(directory, release, sae_id), directory)
    assert (found.agreed, bool(found.contradicted)) == ((), refused)


def test_every_source_of_our_own_list_is_compared_with_the_sae_that_uses_it(directory):
    for source_id, entry in directory.labelled.items():
        said = About("the source at Neuronpedia", source_id=source_id)
        layer, width = re.search(r"/(\d+)-", source_id)[1], width_in(source_id.partition("__")[0].partition("-k64")[0])
        place = {"transcoder": "ln2.hook_normalized", "lorsa": "attn.hook_z"}
        hook = next((hook for word, hook in place.items() if word in source_id), "hook_resid_post")
        own = About("the SAE", model=entry["model"], hook_name=f"blocks.{layer}.{hook}")
        assert compare(said, own, directory).contradicted == (), source_id
        assert compare(said, replace(own, hook_name=f"blocks.{int(layer) + 1}.{hook}"), directory).contradicted
        assert compare(said, replace(own, model=entry["model"] + "-Instruct-v2"), directory).contradicted
        if width:
            assert compare(said, replace(own, d_sae=2 * width), directory).contradicted


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1-8b-it", True),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3-8b-it", True),
        ("openai-community/gpt2", "gpt2-small", True),
        ("google/gemma-3-4b-pt", "gemma-3-4b", True),
        ("google/gemma-3-4b-pt", "gemma-3-4b-it", False),
        ("google/gemma-3-4b-it", "gemma-3-4b", False),
        ("google/gemma-3-4b", "gemma-3-12b", False),
        ("Qwen/Qwen3-8B", "qwen3-8b", True),
        ("Qwen/Qwen3-8B-Base", "qwen3-8b", False),
        ("Qwen/Qwen3.5-2B-Base", "qwen3.5-2b-pt", True),
        ("gemma-2-2b", "gemma-3-2b", False),
    ],
)
def test_models_are_told_apart_by_name_base_from_chat(one, other, same):
    assert same_model(one, other) is same_model(other, one) is same
