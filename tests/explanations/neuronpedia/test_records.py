"""Neuronpedia's JSON: source ids, rows and indices, and the choice among several explanations."""

import pytest

from isaerft.errors import InputError
from isaerft.explanations.neuronpedia.records import (
    Explanation,
    Score,
    SourceId,
    choose,
    explanations_in,
    latent_of,
    page_url,
    parse_source_id,
    side_of,
    source_id_of,
)
from isaerft.http import BadAnswer

SOURCE_ID = SourceId("gpt2-small", "8-res-jb")


def test_the_source_id_is_the_saes_own_unless_the_config_names_one(subject_dir):
    assert source_id_of(None, subject_dir) == ("gemma-2-2b", "20-gemmascope-res-16k")
    assert source_id_of("gpt2-small/8-res-jb", subject_dir) == SOURCE_ID


def test_the_typo_of_saelens_directory_is_corrected(subject_dir):
    (subject_dir / "sae/cfg.json").write_text('{"metadata": {"neuronpedia_id": "pythia-70m-deduped/e-att-sm"}}')
    assert source_id_of(None, subject_dir) == ("pythia-70m-deduped", "e-res-sm")


@pytest.mark.parametrize("card", ["{}", '{"metadata": {}}', '{"metadata": {"neuronpedia_id": null}}', "[]"])
def test_an_sae_without_a_source_id_asks_for_the_option(subject_dir, card):
    (subject_dir / "sae/cfg.json").write_text(card)
    with pytest.raises(InputError, match="source_id"):
        source_id_of(None, subject_dir)


@pytest.mark.parametrize("bad", ["gemma-2-2b", "a/b/c", "../x", "a/..%2f", "a b/c", "a/b?x=1", "a/b\n", "", "/"])
def test_a_source_id_that_could_leave_its_path_is_refused(bad):
    with pytest.raises(InputError, match="model"):
        parse_source_id(bad)


def test_the_page_of_a_latent_stands_beside_the_api():
    for base in ("https://www.neuronpedia.org/api", "https://www.neuronpedia.org/api/", "https://www.neuronpedia.org"):
        assert page_url(SOURCE_ID, 7, base) == "https://www.neuronpedia.org/gpt2-small/8-res-jb/7"


@pytest.mark.parametrize("index", [True, None, 1.0, "-1", "1e3", "", "9" * 19, "٣", [1]])
def test_an_index_that_is_none_is_refused(index):
    with pytest.raises(BadAnswer):
        latent_of({"index": index})


def test_indices_come_as_text_or_numbers():
    assert [latent_of({"index": index}) for index in (12, "12", " 12 ", "0012")] == [12] * 4


def test_explanations_without_text_are_none_and_other_shapes_are_refused():
    rows = [{"description": "  a\n b "}, {"description": ""}, {"description": None}, {}]
    assert explanations_in({"explanations": rows}) == [Explanation("a b", "", "")]
    for bad in ({}, {"explanations": None}, {"explanations": ["text"]}):
        with pytest.raises(BadAnswer):
            explanations_in(bad)


def test_the_stated_order_of_choice():
    said = [
        (1, Explanation("z", "gpt-4o-mini", "oai_token-act-pair")),
        (1, Explanation("y", "human", "")),
        (2, Explanation("b", "x", "np_max-act")),
        (2, Explanation("a", "x", "np_max-act")),
        (2, Explanation("c", "a", "np_max-act-logits")),  # for both sides: after those for the very side
        (3, Explanation("d", "", "np_max-act")),
    ]
    found = choose(said, side="input", prefer=["human"])
    assert list(found["explanation"]) == ["y", "a", "d"]
    assert list(found["side"]) == ["both", "input", "input"]
    assert list(found["maker"]) == ["human", "x/np_max-act", "np_max-act"]
    counts = {"rows": 6, "other_maker": 0, "side_assumed": 0, "other_side": 0, "not_chosen": 3}
    assert found.attrs["counts"] == counts
    outputs = choose(said, side="output", prefer=[])
    assert list(outputs["latent_index"]) == [1, 2]
    assert list(outputs["explanation"]) == ["y", "c"]
    assert list(outputs["side"]) == ["both", "both"]


def test_one_maker_alone_is_taken_and_one_that_explained_nothing_is_named():
    said = [(1, Explanation("a", "new", "np_max-act")), (1, Explanation("b", "old", "np_max-act"))]
    said += [(2, Explanation("c", "old", "np_max-act"))]
    for name, texts in (("new", ["a"]), ("old/np_max-act", ["b", "c"]), ("np_max-act", ["a", "c"])):
        found = choose(said, side="input", prefer=[], maker=name)
        assert list(found["explanation"]) == texts, name
        assert found.attrs["counts"]["other_maker"] == 3 - {"new": 1, "old/np_max-act": 2, "np_max-act": 3}[name]
    with pytest.raises(InputError, match="did you mean 'new/np_max-act'"):
        choose(said, side="input", prefer=[], maker="newer/np_max-act")


@pytest.mark.parametrize(
    ("model", "kind", "side"),
    [
        ("gpt-4o", "python-code", "input"),
        ("", "human", "both"),
        ("gpt-4o", "np_max-act-logits", "both"),
        ("gpt-4o", "np_max-act", "input"),
        ("llama", "unknown", ""),
        ("", "", ""),
    ],
)
def test_each_makers_side_is_known_or_said_to_be_assumed(model, kind, side, caplog):
    said = [(1, Explanation("a", model, kind))]
    assert side_of(said[0][1]) == side
    found = choose(said, side="output", prefer=[])
    assert list(found["side"]) == ({"": ["output"], "both": ["both"], "input": []}[side])
    assert found.attrs["counts"]["side_assumed"] == (side == "")
    assert ("is assumed" in caplog.text) == (side == "")


def test_the_config_says_the_side_of_a_maker_before_its_type_does():
    said = [(1, Explanation("a", "llama", "unknown")), (2, Explanation("b", "gpt", "human"))]
    found = choose(said, side="input", prefer=[], sides={"llama": "output", "gpt/human": "input"})
    assert found[["latent_index", "side"]].to_dict("list") == {"latent_index": [2], "side": ["input"]}
    assert found.attrs["counts"] == {
        "rows": 2, "other_maker": 0, "side_assumed": 0, "other_side": 1, "not_chosen": 0
    }  # fmt: skip


def test_published_scores_are_kept_and_what_is_no_score_is_not():
    good = {"explanationScoreTypeName": "eleuther_fuzz", "explanationScoreModelName": "gpt-4o-mini", "value": 0.75}
    bad = [
        7,
        {},
        good | {"value": True},
        good | {"value": "1"},
        good | {"value": 1e400},
        good | {"value": float("nan")},
    ]
    bad += [good | {"explanationScoreTypeName": ""}]
    row = {"description": "a", "scores": [good, good, good | {"value": 1, "explanationScoreModelName": None}, *bad]}
    (found,) = explanations_in({"explanations": [row]})
    assert found.scores == (Score("eleuther_fuzz", "", 1.0), Score("eleuther_fuzz", "gpt-4o-mini", 0.75))
    assert explanations_in({"explanations": [{"description": "a", "scores": "many"}]}) == [Explanation("a", "", "")]


def test_a_preferred_maker_that_explained_nothing_is_named():
    with pytest.raises(InputError, match="did you mean 'human'"):
        choose([(1, Explanation("a", "human", ""))], side="input", prefer=["humans"])
