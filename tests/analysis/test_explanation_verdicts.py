"""explanation_verdicts.csv from parts made by hand: one stratum, six behaviors, effects put where they are wanted."""

import numpy as np
import pandas as pd
import pytest

from isaerft import config
from isaerft.analysis import analysis_of
from isaerft.analysis.explanation_verdicts import LEAST_ABSORPTION, TABLE
from isaerft.explanations import write_explanations
from isaerft.judges import write_judgements
from isaerft.layout import Results

N, BEHAVIORS = 300, tuple("abcdef")
RIGHT, OPPOSITE, UNCHANGED, ABSORBED, EVERYTHING, DEAD, UNJUDGED = range(40), 40, 41, 42, 43, 44, 45
NEIGHBOR, NOTHING = 100, 200


def study_of(**changes):
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}}},
        "behaviors": {name: {"description": name, "rule": True} for name in BEHAVIORS},
        "adapters": {"bias": {}},
        "measures": ["contribution"],
        "sources": {"said": {"kind": "local"}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "said", "judge": "lexical"},
        "agreement": {"n_bins": 1},
        "n_seeds": 2,
    }
    return config.plan_from_dict(values | changes)


def predicted():
    """Return predicted effects (6, N)."""
    effects = np.zeros((6, N))
    places = np.array([*RIGHT, OPPOSITE, UNCHANGED, ABSORBED, DEAD, UNJUDGED])
    effects[places % 2, places] = 1
    effects[1 - places % 2, places] = -1
    effects[:, EVERYTHING] = 1
    return effects


def write_parts(folder, *, strength=6.0, still=(), absorption=LEAST_ABSORPTION, **options):
    rng, effects = np.random.default_rng(0), predicted()
    for path in ("subjects/toy", "changes/toy", "explanations/toy", "judgements/toy/said"):
        (folder / path).mkdir(parents=True)
    facts = pd.DataFrame({"latent_index": range(N), "firing_rate": 0.05, "decoder_norm": 1.0, "density": 0.1})
    facts = facts.assign(cluster=range(N), absorber=NEIGHBOR, absorber_cosine=0.7, absorption=0.0)
    facts.loc[DEAD, "firing_rate"] = 0.0
    facts.loc[ABSORBED, "absorption"] = absorption
    facts.to_parquet(folder / "subjects/toy/latents.parquet")
    moved = effects * (np.arange(N) < 40)
    moved[:, NEIGHBOR] = effects[:, ABSORBED]
    moved[2, OPPOSITE] = 1
    changes = rng.normal(size=(6, N)) + strength * moved
    changes[:, [OPPOSITE, UNCHANGED, ABSORBED]] -= 3 * effects[:, [OPPOSITE, UNCHANGED, ABSORBED]]
    for name, change in zip(BEHAVIORS, changes, strict=True):
        change = np.zeros(N) if name in still else change
        rows = [
            pd.DataFrame(
                {"adapter": "bias", "measure": "contribution", "seed": s, "latent_index": range(N), "change": change}
            )
            for s in range(2)
        ]
        pd.concat(rows).to_parquet(folder / f"changes/toy/{name}.parquet")
    frame = pd.DataFrame(
        {"latent_index": range(N), "explanation": [f"latent {i}" for i in range(N)], "side": "input", "url": ""}
    )
    write_explanations(frame, folder / "explanations/toy/said.parquet")
    rows = [
        {"latent_index": i, "behavior": name, "expected_effect": effects[b, i], "expected": effects[b, i] > 0}
        for i in range(N)
        for b, name in enumerate(BEHAVIORS)
        if i != UNJUDGED
    ]
    judged = pd.DataFrame(rows).assign(confidence=np.nan, rationale="")
    write_judgements(judged, folder / "judgements/toy/said/lexical.parquet")
    return analysis_of(study_of(**options), Results(folder)).frame("explanation_verdicts").set_index("latent_index")


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("results"))


def test_every_explanation_has_one_row_that_keeps_the_contract(verdicts):
    TABLE.conform(verdicts.reset_index())
    assert verdicts.index.tolist() == list(range(N))
    assert (verdicts.n_behaviors == 6).all()


def test_right_explanations_are_supported_and_the_reason_names_the_behavior(verdicts):
    right = verdicts.loc[list(RIGHT)]
    assert (right.verdict == "supported").mean() > 0.9
    assert right.reason[1].startswith("it predicts a rise with b and a fall with a and its latent changed so; score ")
    assert (right.qvalue[right.verdict == "supported"] < 0.05).all()
    assert not (verdicts.verdict.drop(list(RIGHT)) == "supported").any()


def test_what_did_not_change_is_contradicted_and_what_changed_elsewhere_is_said_so(verdicts):
    assert verdicts.verdict[[OPPOSITE, UNCHANGED]].tolist() == ["contradicted", "contradicted"]
    assert "its latent changed with c, of which it predicts none" in verdicts.reason[OPPOSITE]
    assert "its latent did not change so" in verdicts.reason[UNCHANGED]
    assert (verdicts.contradiction_qvalue[[OPPOSITE, UNCHANGED]] < 0.05).all()


def test_an_absorber_that_changed_in_its_place_is_named(verdicts):
    assert verdicts.verdict[ABSORBED] == "absorbed"
    assert f"latent {NEIGHBOR} writes much the same (decoder cosine 0.70)" in verdicts.reason[ABSORBED]
    assert "changed so in its place" in verdicts.reason[ABSORBED]
    # The absorber of all others changed like that, too, but their scores are below the threshold.
    assert (verdicts.verdict == "absorbed").sum() == 1


def test_without_a_high_score_what_another_latent_did_is_no_excuse(tmp_path):
    verdicts = write_parts(tmp_path, absorption=LEAST_ABSORPTION - 0.01)
    assert verdicts.verdict[ABSORBED] == "contradicted"
    assert write_parts(tmp_path / "none", absorption=np.nan).verdict[ABSORBED] == "contradicted"


def test_what_cannot_be_tested_is_called_that_with_empty_numbers(verdicts):
    reasons = {
        EVERYTHING: "the same for each of the 6 behaviors",
        NOTHING: "nothing for each of the 6 behaviors",
        DEAD: "fires on 0 of the reference corpus",
        UNJUDGED: "not judged for every behavior",
    }
    for latent, words in reasons.items():
        assert verdicts.verdict[latent] == "untestable"
        assert words in verdicts.reason[latent]
        assert pd.isna(verdicts.score[latent])


def test_weak_training_leaves_explanations_untestable_for_lack_of_power(tmp_path):
    verdicts = write_parts(tmp_path, strength=0.7)
    weak = verdicts.loc[list(RIGHT)]
    assert (weak.verdict == "untestable").mean() > 0.5
    assert weak.reason[weak.verdict == "untestable"].str.contains("no power").all()


def test_a_behavior_that_changed_nothing_is_left_out_and_with_few_left_nothing_is_tested(tmp_path):
    verdicts = write_parts(tmp_path / "five", still=("c",))
    assert (verdicts.n_behaviors == 5).all()
    assert verdicts.verdict[1] == "supported"
    verdicts = write_parts(tmp_path / "two", still=tuple("cdef"))
    assert set(verdicts.verdict) == {"untestable"}
    assert "too few behaviors" in verdicts.reason[1]
    verdicts = write_parts(tmp_path / "one", still=tuple("bcdef"))
    assert (verdicts.n_behaviors == 0).all()
    assert set(verdicts.verdict) == {"untestable"}


def test_behaviors_of_a_declared_family_count_as_one(tmp_path):
    behaviors = {
        name: {"description": name, "rule": True, "family": name if name < "c" else "other"} for name in "abcdef"
    }
    apart, joined = write_parts(tmp_path / "apart"), write_parts(tmp_path / "joined", behaviors=behaviors)
    assert (joined.n_behaviors == 6).all()
    assert joined.score[1] != pytest.approx(apart.score[1])
    behaviors = {name: values | {"family": str(name < "c")} for name, values in behaviors.items()}
    assert "variants of each other" in write_parts(tmp_path / "two", behaviors=behaviors).reason[1]
