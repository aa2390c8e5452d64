"""The store: what is finished is kept, and it tells what is still to look up."""

import json

import pytest

from isaerft.errors import InputError
from isaerft.explanations.neuronpedia.api import Page
from isaerft.explanations.neuronpedia.records import Explanation, SourceId
from isaerft.explanations.neuronpedia.store import Store

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
