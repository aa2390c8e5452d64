"""The store: what is finished is kept, and it tells what is still to look up."""

import json
import random
import sqlite3

import pytest

from isaerft.errors import InputError
from isaerft.explanations.neuronpedia.api import Page
from isaerft.explanations.neuronpedia.records import Explanation, SourceId
from isaerft.explanations.neuronpedia.store import Store

PAGE = 4096
SOURCE_ID = SourceId("gpt2-small", "8-res-jb")
A, B, C = Explanation("a", "m", "t"), Explanation("b", "", ""), Explanation("c", "", "")


def test_the_store_keeps_what_is_finished_and_where_the_listing_goes_on(tmp_path):
    other = SourceId("gpt2-small", "9-res-jb")
    with Store(tmp_path / "np.sqlite", SOURCE_ID) as store:
        assert store.next_page() == ""
        store.add_page("", Page(["k1", "k2"], "t1"))
        store.add_batch("k1", [(3, A), (3, A), (4, B)])
        store.add_many({5: [], 6: [C]}, {7, 8})
        store.add_one(7, None)
    with Store(tmp_path / "np.sqlite", SOURCE_ID) as store, Store(tmp_path / "np.sqlite", other) as empty:
        assert store.next_page() == "t1"
        store.add_page("t1", Page(["k1"], ""))
        assert store.next_page() is None
        assert store.batches() == {"k1": True, "k2": False}
        assert store.explanations() == [
            (3, A),
            (4, B),
            (6, C),
        ]
        assert store.finished() == {3, 4, 5, 6, 7}
        assert store.skipped() == {8}
        assert store.source_exists()
        assert (empty.explanations(), empty.finished(), empty.source_exists()) == ([], set(), False)


def test_a_file_that_is_no_store_is_named(tmp_path):
    (tmp_path / "np.sqlite").write_text(json.dumps({"not": "a store"}) * 100)
    with pytest.raises(InputError, match=r"np\.sqlite' cannot be used .*delete it: what it held is looked up again"):
        Store(tmp_path / "np.sqlite", SOURCE_ID)


def written(path):
    """Return a store's file in which every table has rows, and some span pages."""
    with Store(path, SOURCE_ID) as store:
        store.add_page("", Page(["k1", "k2"], ""))
        store.add_batch("k1", [(latent, Explanation(f"about {latent} " * 20, "m", "t")) for latent in range(40)])
        store.add_many({50: [A], 51: []}, {52})
        store.add_one(53, None)
    return path.read_bytes()


def content(path):
    with Store(path, SOURCE_ID) as store:
        return store.explanations(), store.finished(), store.skipped(), store.next_page(), store.batches()


def a_bit(data, draw):
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def a_bit_of_a_header(data, draw):
    at = PAGE * draw.randrange(1, len(data) // PAGE) + draw.randrange(8)
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def two_pages(data, draw):
    one, two = sorted(draw.sample(range(1, len(data) // PAGE), 2))
    pages = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
    pages[one], pages[two] = pages[two], pages[one]
    return b"".join(pages)


@pytest.mark.parametrize("damage", [a_bit, a_bit_of_a_header, two_pages])
def test_a_damaged_file_gives_no_other_explanation_and_hides_none(tmp_path, damage):
    path, draw = tmp_path / "np.sqlite", random.Random(0)
    data = written(path)
    true, refused = content(path), 0
    for _ in range(200):
        path.write_bytes(damage(data, draw))
        try:
            assert content(path) == true
        except InputError as error:
            assert "delete it" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE said SET text = 'b' WHERE latent = 50",
        "UPDATE said SET latent = 9 WHERE latent = 50",
        "UPDATE said SET layer = '9-res-jb' WHERE latent = 50",
        "UPDATE asked SET known = 1 WHERE latent = 52",
        "UPDATE pages SET next_token = 't'",
        "UPDATE batches SET n_rows = 1 WHERE key = 'k2'",
        "UPDATE said SET checksum = NULL WHERE latent = 50",
    ],
)
def test_a_row_that_differs_from_its_checksum_is_damage(tmp_path, change):
    path = tmp_path / "np.sqlite"
    written(path)
    with sqlite3.connect(path) as base:
        base.execute(change)
    base.close()
    with pytest.raises(InputError, match=r"a row of \w+ differs from its checksum"):
        Store(path, SOURCE_ID)


def without_checksums(path):
    """Make a store's file that of an older release."""
    with sqlite3.connect(path) as base:
        for table in ("said", "scores", "asked", "pages", "batches", "shown", "sources"):
            base.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
    base.close()


def test_a_file_without_checksums_is_read_and_gets_them(tmp_path):
    path = tmp_path / "np.sqlite"
    written(path)
    true = content(path)
    without_checksums(path)
    assert content(path) == true
    with sqlite3.connect(path) as base:
        base.execute("UPDATE said SET text = 'b' WHERE latent = 50")
    base.close()
    with pytest.raises(InputError, match="differs from its checksum"):
        Store(path, SOURCE_ID)


@pytest.mark.parametrize("is_old", [True, False])
def test_a_file_that_cannot_be_written_is_read(tmp_path, monkeypatch, is_old):
    path = tmp_path / "np.sqlite"
    written(path)
    true = content(path)
    if is_old:
        without_checksums(path)
    connect = sqlite3.connect
    # Not by its mode, which binds no tests that run as root.
    monkeypatch.setattr(sqlite3, "connect", lambda path, **more: connect(f"file:{path}?mode=ro", uri=True, **more))
    assert content(path) == true
