"""Provenance of explanations: by what files say, and by the tokens that latents promote and fire on."""

import json
import logging

import numpy as np
import pandas as pd
import pytest

from isaerft.config import Source, plan_from_dict
from isaerft.errors import InputError
from isaerft.explanations import explain, read_explanations, write_explanations
from isaerft.explanations.provenance import Evidence, Shown, checked_provenance, latents_to_compare, statements_in
from isaerft.provenance import About
from isaerft.registry import SOURCES

D_SAE, N_VOCABULARY, N_OWN, N_LISTED = 96, 5000, 20, 10
OWN_ID = "gemma-2-2b/20-gemmascope-res-16k"
OTHER_ID = "gemma-2-2b/10-gemmascope-res-16k"


def tokens_of(latent, seed=0, n=N_OWN, first=0):
    """Return the tokens that a latent promotes, some of them shared by every latent."""
    rng = np.random.default_rng([seed, latent])
    shared = [f"▁all{i}" for i in range(3)]
    return (shared + [f"▁w{i}" for i in first + rng.permutation(N_VOCABULARY)])[:n]


def shown(latent, *, of=None, seed=0, fires=None):
    """Return what a page lists; `of` another latent, of the dictionary `seed`."""
    promoted = tuple(tokens_of(latent if of is None else of, seed, N_LISTED))
    return Shown(latent, promoted, tuple(tokens_of(latent if fires is None else fires, 7, 5)))


@pytest.fixture
def subject_dir(tmp_path):
    """Give a subject's folder with the lists of all its latents and an SAE that names its source."""
    folder = tmp_path / "subjects/toy"
    (folder / "sae").mkdir(parents=True)
    metadata = {"hook_name": "blocks.20.hook_resid_post", "neuronpedia_id": OWN_ID, "model_name": "gemma-2-2b"}
    (folder / "sae/cfg.json").write_text(json.dumps({"d_sae": D_SAE, "metadata": metadata}))
    rows = [
        {"latent_index": latent, "unembedding": kind, "rank": rank, "token": token, "text": token.strip("▁")}
        for latent in np.random.default_rng(0).permutation(D_SAE).tolist()
        for kind, seed in (("folded", 1), ("plain", 0))
        for rank, token in enumerate(tokens_of(latent, seed))
    ]
    pd.DataFrame(rows).to_parquet(folder / "logits.parquet")
    contexts = [
        {"latent_index": latent, "side": "input", "rank": rank, "token": token, "before": "", "after": "", "value": 1.0}
        for latent in range(D_SAE)
        for rank, token in enumerate(tokens_of(latent, 7, 8))
    ]
    pd.DataFrame(contexts).to_parquet(folder / "contexts.parquet")
    return folder


def check(subject_dir, said=(), listed=(), **options):
    source = Source(kind="file", path="labels.jsonl", **options)
    return checked_provenance("np", source, Evidence(tuple(said), tuple(listed)), 64, subject_dir)


SAYS_OWN = (About("the export", source_id=OWN_ID),)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("said", [(), SAYS_OWN])
def test_latents_that_promote_what_their_pages_list_prove_the_labels(subject_dir, said, seed):
    found = check(subject_dir, said, [shown(latent, seed=seed) for latent in range(64)])
    assert found == {"provenance": "proven", "n_compared": 64, "n_recognized": 64}


PLANTED = {
    "index + 1": [shown(latent, of=latent + 1) for latent in range(64)],
    "index - 1": [shown(latent, of=latent - 1) for latent in range(1, 64)],
    "another SAE": [shown(latent, seed=5) for latent in range(64)],
    "exchanged": [shown(latent, of=(latent * 37) % 64) for latent in range(64)],
    "twenty latents, index + 1": [shown(latent, of=latent + 1) for latent in range(20)],
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("said", [(), SAYS_OWN])
def test_labels_of_other_latents_are_refused_whatever_they_say_unless_they_are_meant(subject_dir, caplog, kind, said):
    with pytest.raises(InputError, match=r"of another SAE: of \d+ latents compared, [0-4] promote .*other_sae: true"):
        check(subject_dir, said, PLANTED[kind])
    found = check(subject_dir, said, PLANTED[kind], other_sae=True)
    assert found["provenance"] == "unknown"
    assert "64 explanations are taken although they are of another SAE" in caplog.text


def test_labels_of_which_a_part_is_of_other_latents_are_not_proven(subject_dir, caplog):
    listed = [shown(latent, of=latent + (latent >= 40)) for latent in range(64)]
    found = check(subject_dir, SAYS_OWN, listed)
    assert found == {"provenance": "stated", "n_compared": 64, "n_recognized": 40}
    assert "64 explanations are of this SAE: both name Neuronpedia's" in caplog.text
    assert "40 of 64 latents were recognized" in caplog.text


def test_latents_that_fire_elsewhere_withhold_the_proof(subject_dir, caplog):
    listed = [shown(latent, fires=(latent + 1) % 64) for latent in range(64)]
    assert check(subject_dir, SAYS_OWN, listed)["provenance"] == "stated"
    assert "but not by the tokens on which they fire" in caplog.text
    silent = [one._replace(fires_on=()) for one in listed]
    assert check(subject_dir, SAYS_OWN, silent)["provenance"] == "proven"


def test_names_alone_are_stated_and_nothing_at_all_is_unknown_with_a_warning_and_counts(subject_dir, caplog):
    assert check(subject_dir, SAYS_OWN)["provenance"] == "stated"
    few = [shown(latent) for latent in range(19)]
    assert check(subject_dir, (), few) == {"provenance": "unknown", "n_compared": 19, "n_recognized": 19}
    assert "64 explanations are of this SAE: they name no SAE that could be compared" in caplog.text
    assert "promoted tokens of 19 latents could be compared (20 are needed)" in caplog.text


def test_tokens_of_another_tokenizer_compare_nothing(subject_dir):
    listed = [Shown(latent, tuple(f"Ġother{latent}{i}" for i in range(10))) for latent in range(64)]
    assert check(subject_dir, SAYS_OWN, listed) == {"provenance": "stated", "n_compared": 0, "n_recognized": 0}


def test_marks_of_whitespace_and_the_form_of_tokens_make_no_difference(subject_dir):
    listed = [
        one._replace(promoted=tuple(token.replace("▁", mark) for token in one.promoted))
        for mark, one in zip([" ", "Ġ", "▁", ""] * 16, map(shown, range(64)), strict=True)
    ]
    assert check(subject_dir, (), listed)["n_recognized"] == 64


def test_a_name_that_contradicts_is_refused_though_the_latents_do_the_same(subject_dir, caplog):
    right = [shown(latent) for latent in range(64)]
    for said in (OTHER_ID, "gemma-2-2b-it/20-gemmascope-res-16k", "gemma-2-2b/20-gemmascope-res-65k"):
        with pytest.raises(InputError, match=rf"another SAE: the export says {said}, the subject's SAE says"):
            check(subject_dir, [About("the export", source_id=said)], right)
        found = check(subject_dir, [About("the export", source_id=said)], right, other_sae=True)
        assert found == {"provenance": "unknown", "n_compared": 64, "n_recognized": 64}


def test_what_is_made_from_the_subjects_own_contexts_is_proven(subject_dir):
    (subject_dir / "truth").mkdir()
    (subject_dir / "truth/t.csv").write_text("latent_index,explanation\n3,cats\n")
    made = Source(kind="file", path="{subject_dir}/truth/t.csv")
    for name, source in (("local", Source()), ("t", made)):
        found = explain(name, source, subject_dir=subject_dir, d_sae=D_SAE)
        assert found.attrs["provenance"] == {"provenance": "proven", "n_compared": 0, "n_recognized": 0}
    assert {name for name in SOURCES if SOURCES.facts(name).own_contexts} == {"local", "llm"}


def export(tmp_path, shift=0):
    """Write an export of explanations, and one of features whose labels are `shift` latents off."""
    ids = {"modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k"}
    labels = [ids | {"index": str(latent), "description": f"cats {latent}"} for latent in range(D_SAE)]
    features = tmp_path / "features"
    features.mkdir()
    rows = []
    for latent in range(D_SAE - 1):
        promoted = tokens_of(latent + shift, 0, N_LISTED)
        examples = [{"tokens": ["a", token], "maxValueTokenIndex": 1} for token in tokens_of(latent, 7, 5)]
        rows.append(ids | {"index": latent, "pos_str": promoted, "activations": examples})
    rows += [{"modelId": "other", "layer": "1-x", "index": 1, "pos_str": ["a"]}, ids | {"index": "no number"}]
    for start in (0, 50):
        lines = "\n".join(json.dumps(row) for row in rows[start : start + 50])
        (features / f"batch-{start}.jsonl").write_text(lines)
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, labels)))
    return Source(kind="file", path=str(tmp_path / "labels.jsonl"), features=str(features))


def test_an_export_with_the_rows_of_its_latents_is_proven_or_refused(subject_dir, tmp_path):
    found = explain("np", export(tmp_path), subject_dir=subject_dir, d_sae=D_SAE)
    assert found.attrs["provenance"] == {"provenance": "proven", "n_compared": 64, "n_recognized": 64}
    write_explanations(found, tmp_path / "e.parquet")
    assert read_explanations(tmp_path / "e.parquet").attrs["provenance"]["provenance"] == "proven"


def test_an_export_whose_rows_are_shifted_by_one_is_refused(subject_dir, tmp_path):
    with pytest.raises(InputError, match=r"of 64 latents compared, [01] promote"):
        explain("np", export(tmp_path, shift=1), subject_dir=subject_dir, d_sae=D_SAE)


def test_rows_of_latents_of_another_source_are_an_error(subject_dir, tmp_path):
    source = export(tmp_path)
    (tmp_path / "other.jsonl").write_text('{"modelId": "m", "layer": "1-x", "index": 1, "pos_str": ["a"]}')
    other = Source(kind="file", path=source.path, features=str(tmp_path / "other.jsonl"))
    with pytest.raises(InputError, match="holds no latents of gemma-2-2b/20-gemmascope-res-16k"):
        explain("np", other, subject_dir=subject_dir, d_sae=D_SAE)


def test_the_rows_of_latents_say_of_which_sae_a_table_is_and_must_exist(subject_dir, tmp_path):
    source = export(tmp_path)
    (tmp_path / "mine.csv").write_text("latent_index,explanation\n3,cats\n")
    mine = Source(kind="file", path=str(tmp_path / "mine.csv"), features=source.features)
    assert explain("np", mine, subject_dir=subject_dir, d_sae=D_SAE).attrs["provenance"]["provenance"] == "proven"
    study = {"study": "s", "sources": {"np": {"kind": "file", "path": source.path, "features": "no/such"}}}
    study |= {"subjects": {"toy": {"model": "m", "release": "r", "sae_id": "i", "corpus": {"sample": True}}}}
    study |= {"behaviors": {name: {"description": name, "rule": True} for name in "ab"}, "adapters": {"bias": {}}}
    study |= {"judges": {"lexical": {}}, "controls": ["firing_rate_only"]}
    study |= {"primary": {"adapter": "bias", "measure": "contribution", "source": "np", "judge": "lexical"}}
    with pytest.raises(InputError, match="source 'np': 'no/such' does not exist"):
        plan_from_dict(study)


def test_a_table_of_ones_own_says_nothing_and_is_taken_with_a_warning(subject_dir, tmp_path, caplog):
    (tmp_path / "mine.csv").write_text("latent_index,explanation\n3,cats\n4,dogs\n")
    found = explain("mine", Source(kind="file", path=str(tmp_path / "mine.csv")), subject_dir=subject_dir, d_sae=D_SAE)
    assert found.attrs["provenance"]["provenance"] == "unknown"
    assert "it is not proven that its 2 explanations are of this SAE" in caplog.text


def test_the_model_is_the_subjects_where_the_sae_names_none(subject_dir):
    cfg = {"metadata": {"hook_name": "blocks.20.hook_resid_post"}}
    (subject_dir / "sae/cfg.json").write_text(json.dumps(cfg))
    (subject_dir / "subject.json").write_text(json.dumps([{"model": "google/gemma-2-2b-it"}]))
    with pytest.raises(InputError, match="says model gemma-2-2b, the subject's SAE says model google/gemma-2-2b-it"):
        check(subject_dir, SAYS_OWN)
    assert check(subject_dir, [About("x", source_id="gemma-2-2b-it/20-s")])["provenance"] == "unknown"
    (subject_dir / "subject.json").write_text(json.dumps([{"model": "/models/gemma"}]))
    assert check(subject_dir, SAYS_OWN)["provenance"] == "unknown"


def test_a_subject_without_lists_compares_no_latents(subject_dir):
    assert len(latents_to_compare(subject_dir)) == 64
    assert latents_to_compare(subject_dir) != sorted(latents_to_compare(subject_dir))
    (subject_dir / "logits.parquet").unlink()
    assert latents_to_compare(subject_dir) == []
    assert check(subject_dir, SAYS_OWN, PLANTED["index + 1"])["provenance"] == "stated"


@pytest.mark.parametrize(
    ("source", "n"),
    [
        ({"hfRepoId": "google/gemma-scope-2b-pt-res", "hfFolderId": "layer_20/width_16k/average_l0_71"}, 1),
        ({"saelensRelease": "gemma-scope-2b-pt-res-canonical", "saelensSaeId": "layer_20/width_16k/canonical"}, 1),
        ({"saelensConfig": {"d_sae": 16384, "hook_name": "blocks.20.hook_resid_post", "model_name": "gemma-2-2b"}}, 1),
        ({"saelensRelease": "renamed", "saelensSaeId": "x"}, 0),
        ({"hfRepoId": None, "hfFolderId": ["x"], "saelensConfig": "no"}, 0),
        ({"saelensConfig": {"d_sae": True, "hook_name": 3}}, 0),
        (None, 0),
        ([], 0),
    ],
)
def test_what_neuronpedia_says_of_a_source_is_read_and_what_is_malformed_says_nothing(caplog, subject_dir, source, n):
    said = statements_in({"source": source})
    assert len(said) == n
    metadata = {"release": "gemma-scope-2b-pt-res-canonical", "sae_id": "layer_20/width_16k/canonical"}
    cfg = {"d_sae": 16384, "metadata": metadata | {"hook_name": "blocks.20.hook_resid_post"}}
    (subject_dir / "sae/cfg.json").write_text(json.dumps(cfg))
    names = any(one.weights for one in said)
    assert check(subject_dir, said)["provenance"] == ("stated" if names else "unknown")
    cfg["metadata"] |= {"sae_id": "layer_19/width_16k/canonical", "hook_name": "blocks.19.hook_resid_post"}
    (subject_dir / "sae/cfg.json").write_text(json.dumps(cfg))
    if said:
        with pytest.raises(InputError, match="another SAE: Neuronpedia"):
            check(subject_dir, said)


def test_the_log_says_where_nothing_can_be_compared(subject_dir, caplog):
    with caplog.at_level(logging.WARNING):
        check(subject_dir, ())
    (record,) = caplog.records
    assert record.getMessage().startswith("source 'np': it is not proven")
