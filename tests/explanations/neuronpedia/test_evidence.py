"""What Neuronpedia shows of latents is looked up once, and decides whether its labels are of this SAE."""

import json
import sqlite3

import numpy as np
import pandas as pd
import pytest

from isaerft.errors import InputError

N = 80
WEIGHTS = {"hfRepoId": "google/gemma-scope-2b-pt-res", "hfFolderId": "layer_20/width_16k/average_l0_71"}


def tokens_of(latent):
    return [f"▁t{latent}_{i}" for i in range(10)]


@pytest.fixture
def lists(subject_dir):
    """Write the tokens that the subject's latents promote."""
    order = np.random.default_rng(0).permutation(N).tolist()
    rows = [
        {"latent_index": latent, "unembedding": "plain", "rank": rank, "token": token, "text": token}
        for latent in order
        for rank, token in enumerate(tokens_of(latent))
    ]
    pd.DataFrame(rows).to_parquet(subject_dir / "logits.parquet")
    return order[:64]


def labelled(serve, shift=0, source=WEIGHTS, lacking=()):
    latents = {n: [(f"c{n}", "gpt", "np_max-act")] for n in range(N) if n not in lacking}
    server = serve(latents)
    examples = [{"tokens": ["a", "▁b"], "maxValueTokenIndex": 1, "values": [0, 1]}]
    server.shown = {n: {"pos_str": tokens_of((n + shift) % N), "activations": examples} for n in range(N)}
    server.source = source
    return server


def test_three_further_requests_prove_the_labels_and_a_rerun_makes_none(serve, ask, lists):
    with labelled(serve) as server:
        found = ask(server, bulk="never")
        assert found.attrs["provenance"] == {"provenance": "proven", "n_compared": 64, "n_recognized": 64}
        asked = [one.asked for one in server.asked("features")]
        assert [len(one) for one in asked] == [40, 40, 40, 24]
        assert sorted(n for one in asked[2:] for n in one) == sorted(lists)
        assert [one.asked for one in server.asked("feature")] == [(lists[0],)]
        n_requests = len(server.seen)
        assert ask(server, bulk="never").attrs == found.attrs
        assert len(server.seen) == n_requests


@pytest.mark.parametrize("shift", [1, -1])
def test_labels_whose_index_is_shifted_by_one_are_refused_unless_they_are_meant(serve, subject_dir, ask, lists, shift):
    with labelled(serve, shift) as server, pytest.raises(InputError, match="of 64 latents compared, 0 promote"):
        ask(server)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (WEIGHTS | {"hfFolderId": "layer_20/width_16k/average_l0_22"}, "average_l0_22"),
        (WEIGHTS | {"hfFolderId": "layer_19/width_16k/average_l0_73"}, "layer_19"),
        ({"saelensRelease": "gemma-scope-2b-pt-mlp-canonical", "saelensSaeId": "layer_20/width_16k/canonical"}, "-mlp"),
    ],
)
def test_what_neuronpedia_says_of_its_source_is_compared_with_the_saes_release(
    serve, subject_dir, ask, lists, source, said
):
    cfg = json.loads((subject_dir / "sae/cfg.json").read_text())
    cfg["metadata"] |= {"release": "gemma-scope-2b-pt-res-canonical", "sae_id": "layer_20/width_16k/canonical"}
    (subject_dir / "sae/cfg.json").write_text(json.dumps(cfg))
    with labelled(serve, source=source) as server, pytest.raises(InputError, match=f"says .*{said}"):
        ask(server)
    (subject_dir / "neuronpedia.sqlite").unlink()
    with labelled(serve) as server:
        assert ask(server).attrs["provenance"]["provenance"] == "proven"


def test_another_source_than_the_saes_own_is_refused(serve, ask, lists):
    with labelled(serve) as server:
        server.layer = "10-gemmascope-res-16k"
        with pytest.raises(InputError, match="the source at Neuronpedia says gemma-2-2b/10-gemmascope-res-16k"):
            ask(server, source_id="gemma-2-2b/10-gemmascope-res-16k")


def test_the_latents_compared_need_not_be_those_that_are_explained(serve, ask, lists):
    with labelled(serve) as server:
        found = ask(server, latents=np.arange(5))
    assert (len(found), found.attrs["provenance"]["n_compared"]) == (5, 64)


def test_a_server_that_fails_stops_nobody_whose_labels_are_stored(serve, ask, lists, subject_dir, caplog):
    logits = (subject_dir / "logits.parquet").rename(subject_dir / "later.parquet")
    with labelled(serve) as server:
        assert ask(server).attrs["provenance"] == {"provenance": "stated", "n_compared": 0, "n_recognized": 0}
    logits.rename(subject_dir / "logits.parquet")
    with labelled(serve) as server:
        server.always = {"feature": "500", "features": "500"}
        found = ask(server, attempts=1)
    assert (len(found), found.attrs["provenance"]["provenance"]) == (N, "stated")
    assert "what its latents do cannot be compared: status 500" in caplog.text


def test_latents_that_neuronpedia_lacks_are_asked_for_once_and_not_compared(serve, ask, lists):
    lacking = lists[:50]
    with labelled(serve, lacking=lacking) as server:
        found = ask(server, d_sae=N)
        assert found.attrs["provenance"] == {"provenance": "stated", "n_compared": 14, "n_recognized": 14}
        n_requests = len(server.seen)
        ask(server, d_sae=N)
        assert len(server.seen) == n_requests


@pytest.mark.parametrize("fault", ["html", "malformed", "shape", "cut", "429"])
def test_hostile_answers_about_latents_prove_nothing(serve, ask, lists, fault, subject_dir):
    with labelled(serve) as server:
        ask(server, bulk="never")
    with sqlite3.connect(subject_dir / "neuronpedia.sqlite") as base:
        base.execute("DELETE FROM shown")
        base.execute("DELETE FROM sources")
    with labelled(serve) as server:
        server.always = {"feature": fault, "features": fault}
        assert ask(server, attempts=1, timeout_seconds=1).attrs["provenance"]["provenance"] == "stated"


def test_a_damaged_row_of_the_store_is_an_error_that_says_what_to_do(serve, ask, lists, subject_dir):
    with labelled(serve) as server:
        ask(server)
        for damage in ("'no json'", "7"):
            with sqlite3.connect(subject_dir / "neuronpedia.sqlite") as base:
                base.execute(f"UPDATE shown SET body = {damage} WHERE latent = {lists[0]}")
            with pytest.raises(InputError, match="delete it"):
                ask(server)
