"""The whole source against a real server on loopback: what it asks for, by which route, and what becomes of answers."""

import logging

import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.explanations.neuronpedia import client
from isaerft.explanations.neuronpedia.records import Score, SourceId
from isaerft.explanations.neuronpedia.store import Store

BOT = ("gpt-4o-mini", "oai_token-act-pair")


def world(n, missing=(), unlabeled=()):
    """Return n latents with one explanation each."""
    said = {latent: [(f" concept {latent}", *BOT)] for latent in range(n) if latent not in missing}
    return said | {latent: [] for latent in unlabeled}


def texts(frame):
    return dict(zip(frame["latent_index"], frame["explanation"], strict=True))


def test_the_export_comes_first_then_batches_for_its_gaps_then_single_latents(serve, ask):
    latents = world(300, missing=range(290, 300), unlabeled=[280])
    with serve(latents, exported=range(200), rows_per_batch=64) as server:
        found = ask(server, d_sae=300)
    assert texts(found) == {latent: f"concept {latent}" for latent in range(290) if latent != 280}
    routes = [one.route for one in server.seen]
    assert routes == sorted(routes, key=["listing", "object", "features", "feature"].index)
    assert sorted(i for one in server.asked("features") for i in one.asked) == list(range(200, 300))
    assert sorted(i for one in server.asked("feature") for i in one.asked)[-10:] == list(range(290, 300))
    counts = found.attrs["counts"]
    assert (counts["unlabeled"], counts["failed"]) == (11, 0)
    assert found["url"][3] == f"{server.url}/gemma-2-2b/20-gemmascope-res-16k/3"


def test_every_page_of_the_listing_is_followed_and_what_is_no_batch_is_left_alone(serve, ask):
    with serve(world(100), exported=range(100), rows_per_batch=12, keys_per_page=3) as server:
        found = ask(server, bulk="always")
    assert len(found) == 100
    assert [one.asked for one in server.asked("listing")] == [("",), ("3",), ("6",), ("9",)]
    assert all("batch-" in one.asked[0] and "sub/" not in one.asked[0] for one in server.asked("object"))
    assert not server.asked("features", "feature")


def test_a_rerun_makes_no_request(serve, ask):
    with serve(world(120, missing=[5, 119], unlabeled=[7]), exported=range(50, 100)) as server:
        first = ask(server, d_sae=120)
        n_requests = len(server.seen)
        again = ask(server, d_sae=120)
    assert len(server.seen) == n_requests
    assert again.equals(first)


def test_only_the_latents_asked_for_are_looked_up(serve, ask):
    with serve(world(5000), exported=range(5000), rows_per_batch=100) as server:
        found = ask(server, latents=np.array([4, 77, 4999]))
        assert list(found["latent_index"]) == [4, 77, 4999]
        assert [one.route for one in server.seen] == ["features"]
        ask(server, latents=np.arange(0, 5000, 40))  # 125 of 5000: four requests, where the export has 50 batches
    assert [one.route for one in server.seen] == ["features", "listing", "features", "features", "features", "features"]
    assert sorted(i for one in server.asked("features") for i in one.asked) == sorted(
        {4, 77, 4999, *range(0, 5000, 40)}
    )


@pytest.mark.parametrize("fault", ["429", "500", "502", "cut", "html", "malformed", "shape", "slow"])
def test_no_fault_loses_or_doubles_an_explanation(serve, ask, fault):
    latents = world(200, missing=[199])
    with serve(latents, exported=range(100), rows_per_batch=20, fault_rate=0.4, faults=(fault,), seed=3) as server:
        found = ask(server, batch_size=10, attempts=12, bulk="always")
    assert texts(found) == {latent: f"concept {latent}" for latent in range(199)}
    assert any(one.fault for one in server.seen)


def test_a_hanging_answer_is_given_up_and_asked_for_again(serve, ask):
    with serve(world(3), fault_rate=0.5, faults=("hang",), seed=1) as server:
        found = ask(server, timeout_seconds=0.3, bulk="never", batch_size=1, attempts=10)
    assert len(found) == 3
    assert any(one.fault for one in server.seen)


@pytest.mark.parametrize("route", ["listing", "object", "features"])
@pytest.mark.parametrize("fault", ["403", "500", "html"])
def test_what_a_dead_route_leaves_the_next_one_finds(serve, ask, route, fault):
    with serve(world(60), exported=range(30), rows_per_batch=10, always={route: fault}) as server:
        found = ask(server, attempts=2, bulk="always", batch_size=4)
    assert len(found) == 60


def test_a_refusal_is_not_asked_again(serve, ask):
    with serve(world(8), always={"listing": "403", "features": "400"}) as server:
        ask(server, bulk="always")
    assert len(server.asked("listing", "features")) == 2


def test_latents_whose_look_up_failed_are_counted_or_stop_the_source(serve, ask):
    always = {"listing": "500", "features": "500"}
    with serve(world(20), always=always, fault_rate=0.3, faults=("html",), seed=5) as server:
        with pytest.raises(InputError, match=r"of 20 look-ups at Neuronpedia failed \(last: HTML instead of JSON, 1"):
            ask(server, attempts=1)
        found = ask(server, attempts=1, max_failed_share=0.9)
        failed = found.attrs["counts"]["failed"]
        assert 0 < failed == 20 - len(found)
        server.fault_rate = 0
        assert ask(server, attempts=1).attrs["counts"]["failed"] == 0


def test_an_unknown_source_is_said_to_be_one_before_each_latent_is_asked_for(serve, ask):
    with serve(world(1000)) as server:
        with pytest.raises(InputError, match=r"none of the 1000 latents in gemma-2-2b/99-typo") as caught:
            ask(server, source_id="gemma-2-2b/99-typo")
        assert "source_id" in str(caught.value)
        assert len(server.asked("feature")) == 5
        assert len(ask(server)) == 1000  # under its right name all is found


def test_a_404_that_is_a_page_of_something_in_between_is_no_answer(serve, ask):
    with serve(world(3, missing=[2]), fault_rate=0.5, faults=("html",), seed=4) as server:
        found = ask(server, d_sae=3, bulk="never", attempts=12)
    assert len(found) == 2
    assert server.asked("feature")[-1].fault == ""
    assert len(server.asked("feature")) > 1


def test_a_body_beyond_the_limit_is_never_unpacked_whole(serve, ask):
    with serve(world(4), always={"features": "bomb"}) as server:
        found = ask(server, max_body_mb=1, attempts=1, bulk="never")
    assert len(found) == 4
    assert len(server.asked("feature")) == 4


def test_hostile_text_becomes_one_harmless_line(serve, ask):
    hostile = {
        0: [("\x1b[31mred\x1b[0m\u0000 \u202eevil\r\n", *BOT)],
        1: [("<script>alert(1)</script>", *BOT)],
        2: [("x" * 100_000, *BOT)],
        3: [("   ", *BOT), ("said", "\x1b[2Jmodel" * 9999, "t\u0000")],
        4: [(None, None, None)],
        5: [("\ud83d half", *BOT)],
    }
    with serve(hostile, exported=range(6)) as server:
        found = ask(server, bulk="always")
    said = texts(found)
    assert said[0] == "red evil"
    assert said[1] == "<script>alert(1)</script>"  # data: pages escape it
    assert len(said[2]) <= 2000
    assert said[3] == "said"
    assert 4 not in said
    assert said[5] == "half"


def test_rows_of_another_source_are_not_taken(serve, ask):
    with serve(world(3)) as server:
        server.row = lambda latent, row=server.row: row(latent) | {"layer": "21-gemmascope-res-16k"}
        with pytest.raises(InputError, match="none of the 3 latents"):
            ask(server, attempts=1)


def test_a_source_of_a_wider_sae_is_refused(serve, ask):
    with serve(world(60), exported=range(60)) as server, pytest.raises(InputError, match="belong to another SAE"):
        ask(server, d_sae=40, bulk="always")


def test_the_choice_among_several_explanations_does_not_depend_on_the_route(serve, ask, subject_dir):
    several = {
        0: [("b", "gpt-4o-mini", "np_max-act"), ("a", "gpt-4o-mini", "np_max-act"), ("c", "claude", "np_max-act")],
        1: [("both sides", "claude", "np_max-act-logits"), ("input", "gemini", "np_max-act")],
    }
    with serve(several, exported=[0, 1]) as server:
        bulk = ask(server, bulk="always", prefer=["gpt-4o-mini"])
        (subject_dir / "neuronpedia.sqlite").unlink()
        several[0].reverse()
        single = ask(server, bulk="never", prefer=["gpt-4o-mini"])
    assert texts(bulk) == texts(single) == {0: "a", 1: "input"}


OLD, NEW = ("old", "np_max-act"), ("new", "np_max-act")


@pytest.mark.parametrize("options", [{"maker": "new"}, {"prefer": ["new/np_max-act", "old"]}])
def test_a_stale_export_does_not_hide_a_newer_maker(serve, ask, options):
    said = {latent: [(f"old {latent}", *OLD)] for latent in range(100)}
    newer = {latent: [(f"new {latent}", *NEW)] for latent in range(90)}
    with serve(said, exported=range(100), rows_per_batch=50, newer=newer) as server:
        assert texts(ask(server, bulk="always"))[3] == "old 3"
        n_before = len(server.seen)
        found = ask(server, bulk="always", **options)
        assert [one.route for one in server.seen[n_before:]] == ["features"] * 3
        again = ask(server, bulk="always", **options)
    assert len(server.seen) == n_before + 3
    last = {} if "maker" in options else {latent: f"old {latent}" for latent in range(90, 100)}
    assert texts(found) == texts(again) == {latent: f"new {latent}" for latent in range(90)} | last
    assert set(found["maker"]) == {"new/np_max-act"} | ({"old/np_max-act"} if last else set())
    assert found.attrs["counts"]["failed"] == found.attrs["counts"]["unlabeled"] == 0


def test_where_the_api_cannot_be_asked_for_the_newer_maker_the_latents_count_as_failed(serve, ask):
    said = {latent: [(f"old {latent}", *OLD)] for latent in range(20)}
    options = {"bulk": "always", "attempts": 1, "prefer": ["new", "old"]}
    with serve(said, exported=range(20), always={"features": "500", "feature": "500"}) as server:
        with pytest.raises(InputError, match="20 of 20 look-ups at Neuronpedia failed"):
            ask(server, **options)
        found = ask(server, max_failed_share=1, **options)
    assert len(found) == found.attrs["counts"]["failed"] == 20
    assert found.attrs["counts"]["unlabeled"] == 0


def test_published_scores_are_looked_up_latent_by_latent_when_asked_for_and_kept(serve, ask, subject_dir):
    score = {"explanationScoreTypeName": "eleuther_fuzz", "explanationScoreModelName": "gpt", "value": 0.75}
    with serve(world(6), exported=range(6), scores={" concept 2": [score]}) as server:
        plain = ask(server, bulk="never")  # an answer about many latents, which has no scores
        assert not server.asked("feature")
        scored = ask(server, scores=True)
        assert len(server.asked("feature")) == 6
        ask(server, scores=True)
        assert len(server.asked("feature")) == 6
    assert texts(scored) == texts(plain)
    with Store(subject_dir / "neuronpedia.sqlite", SourceId("gemma-2-2b", "20-gemmascope-res-16k")) as store:
        known = store.explanations()
    assert [(latent, one.scores) for latent, one in known if one.scores] == [
        (2, (Score("eleuther_fuzz", "gpt", 0.75),))
    ]


def test_the_hourly_limit_is_never_passed_and_once_reached_is_waited_for(serve, ask, monkeypatch, subject_dir):
    # Pauses are longer than the server's window, and fewer requests are under way than are left: speed plays no part.
    monkeypatch.setattr(client, "MAX_PAUSE", 0.4)
    monkeypatch.setattr(client, "FEW_LEFT", 9)
    options = {"batch_size": 1, "bulk": "never", "attempts": 2, "requests_per_second": 1000}
    with serve(world(60), limit=20, window=0.3) as server:
        assert len(ask(server, **options)) == 60
        assert server.sent["beyond the limit"] == 0  # the header of each answer says how many are left
    (subject_dir / "neuronpedia.sqlite").unlink()
    monkeypatch.setattr(client, "FEW_LEFT", 0)  # as if others at this address had used it up meanwhile
    with serve(world(30), limit=20, window=3) as server:
        assert len(ask(server, **options)) == 30
        assert server.sent["beyond the limit"] > 0


def test_the_key_goes_to_the_api_alone_and_is_kept_nowhere(serve, ask, subject_dir, monkeypatch, caplog, capfd):
    key = "sk-np-very-secret-0123"
    monkeypatch.setenv("NEURONPEDIA_API_KEY", key)
    caplog.set_level(logging.DEBUG, logger="isaerft")
    latents = world(30) | {3: [("echo {headers}", *BOT)]}
    with serve(latents, exported=range(10), fault_rate=0.3, seed=2, echo_headers=True, faults=("429", "cut")) as server:
        found = ask(server, bulk="always", attempts=12)
        server.always = {"features": "401", "feature": "401"}
        with pytest.raises(InputError) as caught:
            ask(server, d_sae=31)
    assert {one.headers.get("x-api-key") for one in server.asked("features", "feature")} == {key}
    assert {one.headers.get("x-api-key") for one in server.asked("listing", "object")} == {None}
    assert len(found) == 30
    shown = "".join([str(caught.value), caplog.text, *capfd.readouterr(), *found["explanation"]])
    files = b"".join(path.read_bytes() for path in subject_dir.parent.rglob("*") if path.is_file())
    assert key not in shown
    assert key.encode() not in files


def test_an_answer_that_quotes_the_key_is_kept_without_it(serve, ask, monkeypatch, subject_dir):
    monkeypatch.setenv("NEURONPEDIA_API_KEY", "sk-np-very-secret-0123")
    with serve({0: [("echo {headers}", *BOT)]}, echo_headers=True) as server:
        found = ask(server)
    assert "[key]" in found["explanation"][0]
    assert b"very-secret" not in (subject_dir / "neuronpedia.sqlite").read_bytes()


def test_a_key_with_a_line_break_is_refused_without_being_shown(serve, ask, monkeypatch):
    monkeypatch.setenv("NEURONPEDIA_API_KEY", "sk-secret\nX-Other: 1")
    with serve(world(2)) as server, pytest.raises(InputError, match="NEURONPEDIA_API_KEY") as caught:
        ask(server)
    assert "sk-secret" not in str(caught.value)
