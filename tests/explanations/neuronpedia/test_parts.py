"""The small parts: identifiers, bounded bodies, pace, the store, the listing, the choice."""

import asyncio
import gzip
import json
import time
from itertools import pairwise

import pytest

from isaerft.errors import InputError
from isaerft.explanations.neuronpedia.client import BadBody, Pace, as_json, as_json_lines, unpacked
from isaerft.explanations.neuronpedia.entries import (
    Place,
    Said,
    chosen,
    index_of,
    page_url,
    parse_place,
    place_of,
    said_in,
)
from isaerft.explanations.neuronpedia.export import Page, parse_page
from isaerft.explanations.neuronpedia.store import Store

PLACE = Place("gpt2-small", "8-res-jb")


def test_the_place_is_the_saes_own_unless_the_config_names_one(subject_dir):
    assert place_of(None, subject_dir) == ("gemma-2-2b", "20-gemmascope-res-16k")
    assert place_of("gpt2-small/8-res-jb", subject_dir) == PLACE


def test_the_typo_of_saelens_directory_is_mended(subject_dir):
    (subject_dir / "sae/cfg.json").write_text('{"metadata": {"neuronpedia_id": "pythia-70m-deduped/e-att-sm"}}')
    assert place_of(None, subject_dir) == ("pythia-70m-deduped", "e-res-sm")


@pytest.mark.parametrize("card", ["{}", '{"metadata": {}}', '{"metadata": {"neuronpedia_id": null}}', "[]"])
def test_an_sae_without_a_place_asks_for_the_option(subject_dir, card):
    (subject_dir / "sae/cfg.json").write_text(card)
    with pytest.raises(InputError, match="source_id"):
        place_of(None, subject_dir)


@pytest.mark.parametrize("bad", ["gemma-2-2b", "a/b/c", "../x", "a/..%2f", "a b/c", "a/b?x=1", "a/b\n", "", "/"])
def test_a_place_that_could_leave_its_path_is_refused(bad):
    with pytest.raises(InputError, match="model"):
        parse_place(bad)


def test_the_page_of_a_latent_stands_beside_the_api():
    for base in ("https://www.neuronpedia.org/api", "https://www.neuronpedia.org/api/", "https://www.neuronpedia.org"):
        assert page_url(PLACE, 7, base) == "https://www.neuronpedia.org/gpt2-small/8-res-jb/7"


def test_gzip_is_taken_off_once_twice_and_in_members():
    packed = gzip.compress(b"a" * 100) + gzip.compress(b"b")
    assert unpacked(b"plain", 10) == b"plain"
    assert unpacked(packed, 101) == b"a" * 100 + b"b"
    assert unpacked(gzip.compress(packed), 101) == b"a" * 100 + b"b"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"x" * 11, "more than 10 bytes"),
        (gzip.compress(b"x" * 10_000_000), "when unpacked"),
        (gzip.compress(b"x" * 10) + gzip.compress(b"y"), "when unpacked"),
        (gzip.compress(b"hello")[:-9], "ends too early"),
        (gzip.compress(b"hello") + b"junk", "damaged"),
    ],
)
def test_a_body_too_large_cut_or_damaged_is_refused(data, reason):
    with pytest.raises(BadBody, match=reason):
        unpacked(data, 10)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000])
def test_what_is_no_json_is_a_bad_body_and_nothing_else(text):
    with pytest.raises(BadBody):
        as_json(text)


def test_html_is_told_apart_and_one_bad_line_spoils_a_batch():
    with pytest.raises(BadBody, match="HTML"):
        as_json(b"\n <html>")
    assert as_json_lines(b'{"a": 1}\n\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]
    with pytest.raises(BadBody):
        as_json_lines(b'{"a": 1}\n{"a"')


@pytest.mark.parametrize("index", [True, None, 1.0, "-1", "1e3", "", "9" * 19, "٣", [1]])
def test_an_index_that_is_none_is_refused(index):
    with pytest.raises(BadBody):
        index_of({"index": index})


def test_indices_come_as_text_or_numbers():
    assert [index_of({"index": index}) for index in (12, "12", " 12 ", "0012")] == [12] * 4


def test_explanations_without_text_are_none_and_other_shapes_are_refused():
    rows = [{"description": "  a\n b "}, {"description": ""}, {"description": None}, {}]
    assert said_in({"explanations": rows}) == [Said("a b", "", "")]
    for bad in ({}, {"explanations": None}, {"explanations": ["text"]}):
        with pytest.raises(BadBody):
            said_in(bad)


def test_requests_start_no_sooner_than_the_rate_allows_and_not_in_a_pause():
    async def starts():
        pace, times = Pace(100), []

        async def one():
            await pace.wait()
            times.append(time.monotonic())
            if len(times) == 10:
                pace.pause(0.2)

        await asyncio.gather(*(one() for _ in range(20)))
        return times

    times = asyncio.run(starts())
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= 0.0099
    assert max(gaps) >= 0.199
    assert len([gap for gap in gaps if gap >= 0.199]) == 1


def test_a_listing_gives_its_batches_alone_and_says_where_it_goes_on():
    folder = "v1/gpt2-small/8-res-jb/explanations/"
    keys = ["batch-0.jsonl.gz", "batch-1.jsonl", "batch-x.jsonl.gz", "sub/batch-2.jsonl.gz", "../batch-3.jsonl.gz"]
    contents = "".join(f"<Contents><Key>{folder}{key}</Key></Contents>" for key in keys)
    tail = "<IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;1</NextContinuationToken>"
    body = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{contents}{tail}</ListBucketResult>'
    assert parse_page(body.encode(), PLACE) == ([folder + key for key in keys[:2]], "t&1")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"<html><body/></html>",
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><ListBucketResult>&a;</ListBucketResult>',
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<ListBucketResult>",
    ],
)
def test_what_is_no_listing_is_refused(body):
    with pytest.raises(BadBody):
        parse_page(body, PLACE)


def test_the_store_keeps_what_is_finished_and_where_the_listing_goes_on(tmp_path):
    other = Place("gpt2-small", "9-res-jb")
    with Store(tmp_path / "np.sqlite", PLACE) as store:
        assert store.unlisted_from() == ""
        store.add_page("", Page(["k1", "k2"], "t1"))
        store.add_batch("k1", [(3, Said("a", "m", "t")), (3, Said("a", "m", "t")), (4, Said("b", "", ""))])
        store.add_many({5: [], 6: [Said("c", "", "")]}, {7, 8})
        store.add_one(7, None)
    with Store(tmp_path / "np.sqlite", PLACE) as store, Store(tmp_path / "np.sqlite", other) as empty:
        assert store.unlisted_from() == "t1"
        store.add_page("t1", Page(["k1"], ""))
        assert store.unlisted_from() is None
        assert store.batches() == {"k1": True, "k2": False}
        assert store.said() == [(3, Said("a", "m", "t")), (4, Said("b", "", "")), (6, Said("c", "", ""))]
        assert store.finished() == {3, 4, 5, 6, 7}
        assert store.left_out() == {8}
        assert store.exists_there()
        assert (empty.said(), empty.finished(), empty.exists_there()) == ([], set(), False)


def test_a_file_that_is_no_store_is_named(tmp_path):
    (tmp_path / "np.sqlite").write_text(json.dumps({"not": "a store"}) * 100)
    with pytest.raises(InputError, match=r"np\.sqlite' is not a store"):
        Store(tmp_path / "np.sqlite", PLACE)


def test_the_stated_order_of_choice():
    said = [
        (1, Said("z", "gpt-4o-mini", "oai_token-act-pair")),
        (1, Said("y", "human", "")),
        (2, Said("b", "x", "np_max-act")),
        (2, Said("a", "x", "np_max-act")),
        (2, Said("c", "a", "np_max-act-logits")),  # for both sides: after those for the very side
        (3, Said("d", "", "np_max-act")),
    ]
    found = chosen(said, side="input", prefer=["human"])
    assert list(found["explanation"]) == ["y", "a", "d"]
    assert list(found["side"]) == ["input"] * 3
    assert found.attrs["counts"] == {"rows": 6, "other_side": 0, "not_chosen": 3}
    outputs = chosen(said, side="output", prefer=[])
    assert outputs.to_dict("list") == {"latent_index": [1, 2], "explanation": ["y", "c"], "side": ["output", "both"]}


def test_a_preferred_maker_that_explained_nothing_is_named():
    with pytest.raises(InputError, match="did you mean 'human'"):
        chosen([(1, Said("a", "human", ""))], side="input", prefer=["humans"])
