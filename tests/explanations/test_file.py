"""Explanations from files: every known form, the choice among several, and clear errors."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from isaerft.config import Source
from isaerft.errors import InputError
from isaerft.explanations import explain

REAL = Path(__file__).parents[2] / "data" / "real" / "explanations"
ADDRESS = "https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k"


def neuronpedia(index, description, model="gpt-4o-mini", kind="oai_token-act-pair", layer="20-gemmascope-res-16k"):
    return {
        "modelId": "gemma-2-2b",
        "layer": layer,
        "index": index,
        "description": description,
        "explanationModelName": model,
        "typeName": kind,
        "embedding": "[0.1]",
    }


def written(tmp_path, rows, name="e.jsonl"):
    path = tmp_path / name
    if name.endswith(".csv"):
        pd.DataFrame(rows).to_csv(path, index=False)
    elif name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows) if ".jsonl" in name else json.dumps(rows)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def read(path, d_sae=100, side="input", **options):
    source = Source(kind="file", path=str(path), side=side, options=options)
    return explain("s", source, subject_dir="/nowhere", d_sae=d_sae)


def texts(frame):
    return dict(zip(frame["latent_index"].tolist(), frame["explanation"].tolist(), strict=True))


@pytest.mark.parametrize("name", ["e.jsonl", "e.json", "e.jsonl.gz", "e.json.gz", "e.parquet"])
def test_a_neuronpedia_export_is_read_whatever_its_file_and_index_type(tmp_path, name):
    rows = [neuronpedia("10", " concepts of time"), neuronpedia("7", "letters"), neuronpedia("3", "")]
    if name != "e.parquet":
        rows[1]["index"] = 7
    frame = read(written(tmp_path, rows, name))
    assert texts(frame) == {7: "letters", 10: "concepts of time"}
    assert frame["url"].tolist() == [f"{ADDRESS}/7", f"{ADDRESS}/10"]
    assert frame.attrs["counts"] == {"rows": 3, "empty": 1, "other_side": 0, "not_chosen": 0}


def test_the_older_export_object_is_read(tmp_path):
    path = written(tmp_path, {"explanations": [neuronpedia("1", "a")], "explanationsCount": 1}, "e.json")
    assert texts(read(path)) == {1: "a"}


def test_a_folder_of_batches_is_read_whole(tmp_path):
    written(tmp_path, [neuronpedia("0", "a"), neuronpedia("10", "b")], "batch-0.jsonl.gz")
    written(tmp_path, [neuronpedia("2", "c")], "batch-1.jsonl.gz")
    assert texts(read(tmp_path)) == {0: "a", 2: "c", 10: "b"}


def test_of_several_explanations_the_preferred_one_is_taken_and_the_rest_counted(tmp_path):
    rows = [
        neuronpedia("1", "first"),
        neuronpedia("1", "by a person", None, "human"),
        neuronpedia("1", "by claude", "claude-4-5-haiku", "np_max-act"),
        neuronpedia("2", "only"),
        neuronpedia("3", " ", "claude-4-5-haiku", "np_max-act"),
        neuronpedia("3", "has text"),
    ]
    path = written(tmp_path, rows)
    assert texts(read(path)) == {1: "first", 2: "only", 3: "has text"}
    assert texts(read(path, prefer="human"))[1] == "by a person"
    assert texts(read(path, maker="human")) == {1: "by a person"}
    assert read(path, maker="human")["side"].tolist() == ["both"]
    with pytest.raises(InputError, match="did you mean 'human'"):
        read(path, maker="humans")
    assert texts(read(path, prefer="claude-4-5-haiku, human"))[1] == "by claude"
    frame = read(path, prefer="np_nothing, claude-4-5-haiku/np_max-act")
    assert texts(frame) == {1: "by claude", 2: "only", 3: "has text"}
    assert frame.attrs["counts"] == {"rows": 6, "empty": 1, "other_side": 0, "not_chosen": 2}
    with pytest.raises(InputError, match=r"unknown maker of explanations in `prefer`: 'gpt-5'.*gpt-4o-mini/oai"):
        read(path, prefer="gpt-5")


def test_a_file_of_several_saes_must_be_told_which(tmp_path):
    rows = [neuronpedia("1", "a"), neuronpedia("1", "b", layer="21-gemmascope-res-16k")]
    path = written(tmp_path, rows)
    with pytest.raises(InputError, match=r"explanations of 2 SAEs \(model=gemma-2-2b layer=20-gemmascope-res-16k; "):
        read(path)
    assert texts(read(path, layer="21-gemmascope-res-16k")) == {1: "b"}
    with pytest.raises(InputError, match="did you mean '21-gemmascope-res-16k'"):
        read(path, layer="21-gemmascope-res-16")


def test_axbench_takes_the_index_from_the_address_and_keeps_it(tmp_path):
    frame = read(written(tmp_path, [{"concept_id": 0, "concept": "dates", "ref": f"{ADDRESS}/36"}]))
    assert texts(frame) == {36: "dates"}
    assert frame["url"].tolist() == [f"{ADDRESS}/36"]


def test_feature_circuits_are_filtered_by_component_and_layer(tmp_path):
    rows = [
        {"Component": "Component", "Layer": "", "Feature": "", "Name": "Name", "Annotation": "Annotation"},
        {"Component": "resid", "Layer": 5, "Feature": "30", "Name": "resid_5/30", "Annotation": "verbs"},
        {"Name": "embed/4", "Annotation": "'his'"},
    ]
    path = written(tmp_path, rows)
    assert texts(read(path, component="resid", layer=5)) == {30: "verbs"}
    assert texts(read(path, component="embed")) == {4: "'his'"}
    with pytest.raises(InputError, match="explanations of 2 SAEs"):
        read(path)


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl", "e.parquet", "e.json.gz"])
def test_a_plain_table_is_read_from_every_file_type(tmp_path, name):
    rows = [{"latent_index": 4, "explanation": "four"}, {"latent_index": 2, "explanation": "two"}]
    frame = read(written(tmp_path, rows, name), side="output")
    assert texts(frame) == {2: "two", 4: "four"}
    assert set(frame["side"]) == {"output"}
    assert set(frame["url"]) == {""}


def test_a_sided_table_gives_the_side_that_is_asked_for(tmp_path):
    rows = [
        {"latent_index": 1, "explanation": "fires on sir", "side": "input", "url": "https://a.b/1"},
        {"latent_index": 1, "explanation": "promotes yes", "side": "output", "url": ""},
        {"latent_index": 2, "explanation": "anything polite", "side": "both", "url": ""},
        {"latent_index": 2, "explanation": "fires on madam", "side": "input", "url": ""},
        {"latent_index": 3, "explanation": "promotes no", "side": "output", "url": ""},
    ]
    path = written(tmp_path, rows, "e.csv")
    assert texts(read(path, side="input")) == {1: "fires on sir", 2: "fires on madam"}
    assert texts(read(path, side="output")) == {1: "promotes yes", 2: "anything polite", 3: "promotes no"}
    both = read(path, side="both")
    assert texts(both) == {1: "fires on sir; promotes yes", 2: "anything polite", 3: "promotes no"}
    assert both["side"].tolist() == ["both", "both", "output"]
    assert read(path, side="input").attrs["counts"]["other_side"] == 2


def test_the_path_may_name_the_subjects_own_folder(tmp_path):
    written(tmp_path, [{"latent_index": 4, "explanation": "four"}], "truth.csv")
    source = Source(kind="file", path="{subject_dir}/truth.csv")
    assert texts(explain("truth", source, subject_dir=tmp_path, d_sae=5)) == {4: "four"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"feature": 1, "label": "x"}], r"have the columns feature, label; allowed: Neuronpedia export \("),
        ([{"latent_index": 1, "explanation": "a"}, {"latent_index": 2}], "unknown column in .*line 2: 'explanation'"),
        ([{"latent_index": "x1", "explanation": "a"}], "line 1: latent index 'x1'; allowed: an integer, 0 or more"),
        ([{"latent_index": -1, "explanation": "a"}], "latent index -1"),
        ([{"latent_index": True, "explanation": "a"}], "latent index True"),
        ([{"latent_index": "9" * 5000, "explanation": "a"}], "latent index '999"),
        ([{"latent_index": 100, "explanation": "a"}], "0 to 99: the SAE has 100 latents; these .* another SAE"),
        ([{"latent_index": 1, "explanation": "a", "side": "inner"}], "side 'inner'; allowed: input, output, both"),
        ([{"latent_index": 1, "explanation": ""}], "explains no latent on side 'input'"),
        ([{"latent_index": 1, "explanation": "a", "side": "output"}], "explains no latent on side 'input'"),
        ([{"concept": "a", "ref": "https://a.b/c"}], "ref 'https://a.b/c'; allowed: an address that ends in"),
        ([{"concept": "a", "ref": None}], "ref None"),
        ([{"Name": "resid_5", "Annotation": "a"}], "Name 'resid_5'; allowed: "),
    ],
)
def test_what_cannot_be_read_is_a_bounded_error(tmp_path, rows, message):
    with pytest.raises(InputError, match=message) as caught:
        read(written(tmp_path, rows))
    assert len(str(caught.value)) < 1000


def test_hostile_rows_become_harmless_ones(tmp_path):
    rows = [
        neuronpedia("1", "half \ud800 \x1b[31mred\0", "m\ud800", "t\x1b", layer="20-\ud800"),
        neuronpedia("2", "<b>" + "x" * 1_000_000, "m\ud800", "t\x1b", layer="20-\ud800"),
    ]
    frame = read(written(tmp_path, rows))
    assert frame["explanation"].tolist()[0] == "half red"
    assert frame["explanation"].str.len().max() == 2000
    assert set(frame["url"]) == {""}
    (tmp_path / "two").mkdir()
    frame = read(written(tmp_path / "two", [{"concept": "a", "ref": "javascript:alert('\ud800')/7"}]))
    assert (texts(frame), frame["url"].tolist()) == ({7: "a"}, [""])


def test_options_and_paths_are_checked(tmp_path):
    path = written(tmp_path, [{"latent_index": 1, "explanation": "a"}])
    with pytest.raises(InputError, match=r"unknown option of a file source: 'perfer'.*did you mean 'prefer'"):
        read(path, perfer="x")
    with pytest.raises(InputError, match="unknown component"):
        read(path, component="resid")
    with pytest.raises(InputError, match="without a path"):
        explain("s", Source(kind="file"), subject_dir=tmp_path, d_sae=5)
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "no.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no files"):
        read(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "d_sae", "address"),
    [
        ("concept500_2b_l10_metadata.jsonl", 16384, "gemma-2-2b/10-gemmascope-res-16k"),
        ("concept500_9b_l20_metadata.jsonl", 131072, "gemma-2-9b-it/20-gemmascope-res-131k"),
    ],
)
def test_real_axbench_metadata(name, d_sae, address):
    path = REAL / "axbench" / name
    if not path.is_file():
        pytest.skip(f"real file {path} is absent")
    frame = read(path, d_sae=d_sae)
    assert len(frame) == 500
    assert (frame["url"] == f"https://www.neuronpedia.org/{address}/" + frame["latent_index"].astype(str)).all()
    with pytest.raises(InputError, match="another SAE"):
        read(path, d_sae=1000)


def test_real_feature_circuits_annotations():
    path = REAL / "feature-circuits" / "pythia-70m-deduped.jsonl"
    if not path.is_file():
        pytest.skip(f"real file {path} is absent")
    assert len(read(path, d_sae=32768, component="resid", layer=5)) == 22
    assert len(read(path, d_sae=32768, component="mlp", layer=3)) == 2
    attention = read(path, d_sae=32768, component="attn", layer=5)
    assert (len(attention), attention.attrs["counts"]["not_chosen"]) == (6, 1)
    assert len(read(path, d_sae=32768, component="embed")) == 60


def subject_with(tmp_path, **metadata):
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "cfg.json").write_text(json.dumps({"metadata": metadata}))
    return tmp_path


def read_for(subject_dir, path, **options):
    return explain("s", Source(kind="file", path=str(path), **options), subject_dir=subject_dir, d_sae=100)


@pytest.mark.parametrize(
    ("metadata", "layer", "other"),
    [
        ({"neuronpedia_id": "gemma-2-2b/20-gemmascope-res-16k"}, "20-gemmascope-res-16k", False),
        ({"neuronpedia_id": "gemma-2-2b/20-gemmascope-res-16k"}, "10-gemmascope-res-16k", True),
        ({"neuronpedia_id": "gemma-2-2b/20-gemmascope-res-16k__l0-77"}, "20-gemmascope-res-16k", True),
        ({"neuronpedia_id": "gemma-2-2b-it/20-gemmascope-res-16k"}, "20-gemmascope-res-16k", True),
        ({"hook_name": "blocks.20.hook_resid_post"}, "20-gemmascope-res-16k", False),
        ({"hook_name": "blocks.10.hook_resid_post"}, "20-gemmascope-res-16k", True),
        ({"hook_name": "blocks.10.hook_resid_post"}, "e-res-sm", False),
        ({}, "20-gemmascope-res-16k", False),
    ],
)
def test_explanations_of_another_sae_are_refused_unless_they_are_meant(tmp_path, metadata, layer, other):
    subject_dir = subject_with(tmp_path, **metadata)
    exported = written(tmp_path, [neuronpedia(3, "cats", layer=layer)])
    refs = written(tmp_path, [{"concept": "cats", "ref": f"https://neuronpedia.org/gemma-2-2b/{layer}/3"}], "a.jsonl")
    for path in (exported, refs):
        if other:
            with pytest.raises(InputError, match=rf"of another SAE: the file .*{layer[:2]}.*; allowed: .*other_sae"):
                read_for(subject_dir, path)
        assert texts(read_for(subject_dir, path, other_sae=other)) == {3: "cats"}


def test_the_layer_in_feature_circuits_is_compared_with_the_hook(tmp_path):
    subject_dir = subject_with(tmp_path, hook_name="blocks.3.hook_resid_post")
    rows = [{"Name": "resid_5/7", "Annotation": "cats"}]
    with pytest.raises(InputError, match=r"says layer 5, the subject's SAE says layer 3; allowed: .*blocks\.3\."):
        read_for(subject_dir, written(tmp_path, rows, "f.csv"))
    rows[0]["Name"] = "resid_3/7"
    assert texts(read_for(subject_dir, written(tmp_path, rows, "f.csv"))) == {7: "cats"}
