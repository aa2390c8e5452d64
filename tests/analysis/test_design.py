"""Drawing a sample of latents from the parts of a study, testing on it, and what explained_latents.csv says of it."""

import numpy as np
import pandas as pd
import pytest

from isaerft import config
from isaerft.analysis import analysis_of, readings, table
from isaerft.analysis.agreement import write_agreement
from isaerft.analysis.design import draw_sample
from isaerft.analysis.explained_latents import makers_of
from isaerft.analysis.readings import confounds_of
from isaerft.errors import InputError
from isaerft.explanations import latents_to_explain, read_sample, write_explanations, write_sample
from isaerft.judges import write_judgements
from isaerft.layout import Results
from isaerft.stats import agreement_test, mean_rank

N, DEAD = 400, (0, 1, 2)
EXPECTED = {"a": np.arange(10, 40), "b": np.arange(40, 70)}


def make_study(**changes):
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}}},
        "behaviors": {name: {"description": name, "rule": True} for name in EXPECTED},
        "adapters": {"bias": {}, "scale": {}},
        "measures": ["parameter", "contribution"],
        "sources": {"said": {"kind": "local"}, "whole": {"kind": "local", "design": "all"}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "said", "judge": "lexical"},
        "agreement": {"n_resamples": 199, "n_bins": 2},
        "design": {"kind": "case_control", "n_cases": 10, "controls_per_case": 2},
        "controls": ["firing_rate_only"],
        "placebos": {"n": 0},
        "n_seeds": 2,
    }
    return config.plan_from_dict(values | changes)


@pytest.fixture
def results(tmp_path):
    """Write facts, changes of both adapters and measures, and a subject's folder."""
    rng = np.random.default_rng(0)
    facts = pd.DataFrame({"latent_index": range(N), "firing_rate": rng.uniform(0.01, 0.2, N)})
    facts.loc[list(DEAD), "firing_rate"] = 0.0
    facts = facts.assign(decoder_norm=rng.uniform(1, 2, N), density=rng.uniform(size=N), cluster=range(N))
    folder = tmp_path / "subjects/toy"
    folder.mkdir(parents=True)
    facts.to_parquet(folder / "latents.parquet")
    for behavior, expected in EXPECTED.items():
        rows = []
        for adapter in ("bias", "scale"):
            for measure in ("parameter", "contribution"):
                shared = rng.normal(size=N)
                shared[expected] += 2
                shared[list(DEAD)] = 99
                for seed in range(2):
                    values = shared + 0.05 * rng.normal(size=N)
                    named = {"adapter": adapter, "measure": measure, "seed": seed, "latent_index": range(N)}
                    rows.append(pd.DataFrame(named | {"change": values}))
        path = tmp_path / "changes/toy" / f"{behavior}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(rows, ignore_index=True).to_parquet(path)
    return tmp_path


def draw(results, plan):
    draw_sample(plan, Results(results), "toy")
    return read_sample(results / "design/toy.parquet")


def explained(results, source, latents, counts=None):
    frame = pd.DataFrame(
        {"latent_index": latents, "explanation": [f"x {i}" for i in latents], "side": "input", "url": ""}
    )
    frame.attrs["counts"] = counts or {}
    write_explanations(frame, results / "explanations/toy" / f"{source}.parquet")
    rows = [
        {
            "latent_index": latent,
            "behavior": behavior,
            "expected_effect": float(latent in expected),
            "expected": latent in expected,
            "confidence": np.nan,
            "rationale": "",
        }
        for latent in latents
        for behavior, expected in EXPECTED.items()
    ]
    write_judgements(pd.DataFrame(rows), results / "judgements/toy" / source / "lexical.parquet")


def test_the_sample_holds_the_most_changed_latents_by_the_primary_measure_and_controls_of_their_strata(results):
    plan = make_study()
    sample = draw(results, plan)
    assert not set(sample.latent_index) & set(DEAD)
    facts = pd.read_parquet(results / "subjects/toy/latents.parquet")
    alive = np.arange(len(DEAD), N)
    strata = dict(zip(alive, confounds_of(plan, facts, alive).strata, strict=True))
    assert [strata[latent] for latent in sample.latent_index] == list(sample.stratum)
    changes = pd.read_parquet(results / "changes/toy/a.parquet").query("adapter == 'bias' & measure == 'contribution'")
    size = changes.assign(change=changes.change.abs()).groupby("latent_index").change.mean()[alive]
    top = set(size.nlargest(10).index)
    cases = sample[sample.role == "case"]
    assert {row.latent_index for row in cases.itertuples() if "a/bias" in row.drawn_for.split(", ")} == top
    controls = sample[sample.role == "control"]
    assert 0 < len(controls) <= 2 * len(cases)
    role = sample.set_index("latent_index")
    assert (role.loc[controls.matched_to, "role"] == "case").all()
    assert list(role.loc[controls.matched_to, "drawn_for"]) == list(controls.drawn_for)


def test_the_sample_has_the_same_bytes_again_and_other_controls_with_another_seed(results):
    one = draw(results, make_study())
    written = (results / "design/toy.parquet").read_bytes()
    draw(results, make_study())
    assert (results / "design/toy.parquet").read_bytes() == written
    other = draw(results, make_study(design={"kind": "case_control", "n_cases": 10, "seed": 5}))
    cases = [set(frame.latent_index[frame.role == "case"]) for frame in (one, other)]
    assert cases[0] == cases[1]
    assert set(one.latent_index) != set(other.latent_index)


def test_nothing_changed_is_said_before_anything_is_asked_for(results):
    for path in (results / "changes/toy").iterdir():
        pd.read_parquet(path).assign(change=0.0).to_parquet(path)
    with pytest.raises(InputError, match="no latent changed more than another in any of 4 groups"):
        draw(results, make_study())


def test_agreement_on_a_sample_runs_over_its_explained_latents_within_the_strata_of_the_draw(results, monkeypatch):
    # Every latent has its own text here.
    monkeypatch.setattr(readings, "LATENTS_PER_TEXT", 1)
    plan = make_study()
    sample = draw(results, plan)
    known = [latent for latent in sample.latent_index if latent % 7]
    explained(results, "said", known)
    explained(results, "whole", range(N))
    write_agreement(plan, Results(results), "toy", "bias")
    rows = pd.read_parquet(results / "agreement/toy/bias/agreement.parquet").query(
        "behavior == 'a' & measure == 'contribution' & control == 'none' & statistic == 'auroc'"
    )
    found = rows.set_index("source")
    assert found.n_latents["said"] == len(known)
    assert found.n_latents["whole"] == N - len(DEAD)
    changes = pd.read_parquet(results / "changes/toy/a.parquet").query("adapter == 'bias' & measure == 'contribution'")
    wide = changes.pivot(index="seed", columns="latent_index", values="change")[known].to_numpy()
    expected = agreement_test(
        mean_rank(wide),
        np.isin(known, EXPECTED["a"]),
        statistic="auroc",
        strata=sample.set_index("latent_index").stratum.loc[known].to_numpy(),
        n_resamples=199,
        rng=plan.study.seed,
    )
    assert found.estimate["said"] == pytest.approx(expected.statistic)
    assert found.pvalue_texts["said"] == pytest.approx(expected.pvalue, abs=0.03)


def test_explained_latents_counts_what_was_asked_explained_unlabeled_and_failed(results):
    plan = make_study()
    sample = draw(results, plan)
    explained(results, "said", sample.latent_index[:30], {"failed": 4})
    explained(results, "whole", range(2, 102))  # 2 is dead, and was not asked for
    rows = (
        table("explained_latents")
        .conform(analysis_of(plan, Results(results)).frame("explained_latents"))
        .set_index("source")
    )
    said, whole = rows.loc["said"], rows.loc["whole"]
    assert (said.design, said.n_asked, said.n_explained, said.n_failed) == ("case_control", len(sample), 30, 4)
    assert said.n_unlabeled == len(sample) - 34
    assert said.share_explained == pytest.approx(30 / len(sample), rel=1e-4)
    assert (whole.design, whole.n_asked, whole.n_explained, whole.n_failed) == ("all", N - 3, 99, 0)


def test_provenance_is_that_of_the_explanations_in_every_table_that_has_it(results):
    plan = make_study()
    sample = draw(results, plan)
    explained(results, "said", sample.latent_index)
    explained(results, "whole", range(N))
    path = Results(results).explanations("toy", "said")
    frame = pd.read_parquet(path)
    frame.attrs["provenance"] = {"provenance": "proven", "n_compared": 64, "n_recognized": 61}
    frame.to_parquet(path, index=False)
    for adapter in plan.analyzed_adapters("toy"):
        write_agreement(plan, Results(results), "toy", adapter)
    analysis = analysis_of(plan, Results(results))
    for name in ("agreement", "overall", "explained_latents"):
        found = table(name).conform(analysis.frame(name))[["source", "provenance"]].drop_duplicates()
        assert sorted(map(tuple, found.to_numpy().tolist())) == [("said", "proven"), ("whole", "unknown")]
    counts = analysis.frame("explained_latents").set_index("source")[["n_compared", "n_recognized"]]
    assert counts.to_numpy().tolist() == [[64, 61], [0, 0]]


def test_explained_latents_names_the_makers_the_most_frequent_first():
    frame = pd.DataFrame({"maker": ["b", "a", "b", "", *"cdefg"]})
    assert makers_of(frame) == "b (2); a (1); c (1); d (1); e (1); 3 others (3)"
    assert makers_of(pd.DataFrame({"latent_index": [1]})) is None
    assert makers_of(pd.DataFrame({"maker": ["", ""]})) is None


def test_a_latent_outside_the_sample_is_not_called_unexplained(results):
    plan = make_study(agreement={"n_resamples": 199, "n_bins": 2, "top_k": 30})
    sample = draw(results, plan)
    silent = sample.latent_index[sample.role == "case"].iloc[0]
    explained(results, "said", [latent for latent in sample.latent_index if latent != silent])
    found = analysis_of(plan, Results(results)).frame("most_changed_latents")
    stable = found[found.verdict != "unstable"].set_index("latent_index").verdict
    assert set(stable[~stable.index.isin(sample.latent_index)]) == {"not asked"}
    assert set(stable[stable.index.isin(sample.latent_index) & (stable.index != silent)]) <= {"expected", "unexpected"}
    assert set(stable[stable.index == silent]) == {"unexplained"}


def test_a_source_is_asked_for_the_sample_or_for_what_is_alive(results):
    facts = pd.read_parquet(results / "subjects/toy/latents.parquet")
    assert list(latents_to_explain(facts, 1e-4)) == list(range(3, N))
    sample = draw(results, make_study())
    assert list(latents_to_explain(facts, 1e-4, results / "design/toy.parquet")) == list(sample.latent_index)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"role": "witness"}, "allowed: case, control"),
        ({"latent_index": 7}, "a repeated or negative latent"),
        ({"weight": 1}, "allowed: latent_index, role"),
    ],
)
def test_a_sample_that_breaks_its_form_is_refused(results, edit, message):
    sample = draw(results, make_study())
    with pytest.raises(InputError, match=message):
        write_sample(sample.assign(**edit), results / "bad.parquet")
    with pytest.raises(InputError, match="run the rule `design`"):
        read_sample(results / "none.parquet")
