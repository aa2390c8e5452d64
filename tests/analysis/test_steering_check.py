"""steering_check.csv, steering_latents.csv and steering_summary.csv, and the choice of latents to steer"""

import numpy as np
import pandas as pd
import pytest
import yaml

from isaerft import config
from isaerft.analysis import analysis_of, steered_latents, tables_of
from isaerft.analysis.explanation_verdicts import verdicts_of
from isaerft.analysis.steered_latents import choose_latents
from isaerft.cli import main
from isaerft.config import load_plan
from isaerft.errors import InputError
from isaerft.layout import Results
from isaerft.scorers import write_scores
from tests.analysis.small_study import BEHAVIORS, EXPECTED, N, make_study, options_of

W = {"kind": "phrases", "phrases": ["www"]}
NAMES = ("steering_check", "steering_latents", "steering_summary")


def plan_of(metrics=None, **changes):
    """The small study with a steering check, and a metric for the behaviors of `metrics`."""
    metrics = {"a": W} if metrics is None else metrics
    behaviors = {name: {"description": name, "rule": True, "metric": metrics.get(name)} for name in BEHAVIORS}
    return make_study(behaviors=behaviors, **{"steering_check": {"n_latents": 40}} | changes)


def chosen(parts, plan):
    return choose_latents(plan, Results(parts.folder), "toy", plan.study.steering_check)


def write(parts, latents, effects, n_prompts=4, behaviors=("a",), noise=0.0):
    """Write scores in which amplifying moves a latent's answers by its effect on each behavior."""
    rng, rows = np.random.default_rng(0), []
    for latent in latents.to_dict("records"):
        for behavior in behaviors:
            for strength in (1.0, 2.0):
                for prompt in range(n_prompts):
                    effect = effects(latent["latent_index"], behavior) + noise * rng.normal()
                    row = {"behavior": behavior, "strength": strength, "prompt": prompt, "plain": 0.25}
                    rows.append(latent | row | {"amplified": 0.5 + effect / 2, "suppressed": 0.5 - effect / 2})
    path = Results(parts.folder).steering_check("toy").scores
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [*latents.columns, "behavior", "strength", "prompt", "plain", "amplified", "suppressed"]
    pd.DataFrame(rows, columns=columns).astype({"matched_to": "Int64"}).to_parquet(path)


def tables(parts, plan):
    return [parts.table(plan, name) for name in NAMES]


def verdicts(parts, plan):
    analysis = analysis_of(plan, Results(parts.folder))
    found = verdicts_of(plan, analysis.primary_reading("toy"), analysis.changes("toy", "bias"))
    return found.set_index("latent_index").verdict


def test_latents_with_a_verdict_are_steered_and_as_many_others_with_a_claim_like_them(parts):
    plan = plan_of()
    found, verdict = chosen(parts, plan), verdicts(parts, plan)
    claiming = [latent for latent in EXPECTED["a"] if latent in verdict.index]
    supported = [latent for latent in claiming if verdict[latent] == "supported"]
    undecided = [latent for latent in claiming if verdict[latent] in ("untestable", "inconclusive")]
    assert 0 < len(undecided) < len(supported)
    assert found[found.group == "supported"].latent_index.tolist() == supported
    controls = found[found.group == "untested"]
    assert sorted(controls.latent_index) == undecided, "no more than there are, each once"
    assert set(controls.matched_to) < set(supported)
    assert found[found.group == "supported"].matched_to.isna().all()
    assert not found.latent_index.duplicated().any()
    assert found.equals(chosen(parts, plan))


def test_at_most_as_many_latents_are_drawn_as_the_study_says_and_the_seed_decides_which(parts):
    draws = [
        tuple(chosen(parts, plan_of({"a": W, "b": W}, steering_check={"n_latents": 2}, seed=seed)).latent_index)
        for seed in range(6)
    ]
    assert all(len(draw) == 2 + 2 for draw in draws)
    assert len(set(draws)) > 1


def test_controls_are_those_nearest_in_firing_rate(parts, monkeypatch):
    # With one supported latent and candidates enough, the partner is among the 20 nearest of 39.
    plan = plan_of({"a": W}, steering_check={"n_latents": 1})
    for source in ("said", "wrong"):
        everything = {name: range(N) if name == "a" else () for name in BEHAVIORS}
        monkeypatch.setattr("tests.analysis.small_study.EXPECTED", everything)
        parts.judgements("toy", source)
    names = verdicts(parts, plan).index
    fixed = pd.DataFrame({"latent_index": names, "verdict": ["supported" if i == 30 else "untestable" for i in names]})
    monkeypatch.setattr(steered_latents, "verdicts_of", lambda *_: fixed)
    rate = Results(parts.folder).subject("toy").read_latents().firing_rate
    distance = (rate - rate[30]).abs()[[i for i in names if i not in (3, 4, 30)]]
    for seed in range(5):
        found = chosen(parts, plan_of({"a": W}, steering_check={"n_latents": 1}, seed=seed))
        (control,) = found[found.group == "untested"].latent_index
        assert distance[control] <= distance.nsmallest(21).max()
        assert found[found.group == "untested"].matched_to.tolist() == [30]


def test_contradicted_latents_are_a_group_of_their_own_and_absorbed_ones_are_left_out(parts, monkeypatch):
    plan = plan_of()
    said = dict.fromkeys(range(10, 20), "inconclusive") | {10: "supported", 11: "contradicted", 12: "absorbed"}
    latents = verdicts(parts, plan).index
    fixed = pd.DataFrame({"latent_index": latents, "verdict": [said.get(i, "untestable") for i in latents]})
    monkeypatch.setattr(steered_latents, "verdicts_of", lambda *_: fixed)
    found = chosen(parts, plan).set_index("latent_index")
    assert found.group[[10, 11]].tolist() == ["supported", "contradicted"]
    assert 12 not in found.index
    assert (found.group == "untested").sum() == 2
    assert set(found.index) <= set(range(10, 20)), "others claim nothing of a behavior with a metric"


def test_a_subject_that_the_primary_source_does_not_explain_is_not_steered(parts):
    sources = {"said": {"kind": "local", "subjects": ["toy"]}, "wrong": {"kind": "local"}}
    plan = plan_of(subjects={"toy": {"testbed": {}}, "other": {"testbed": {}}}, sources=sources)
    assert plan.steering_checked == ["toy"]
    with pytest.raises(InputError, match="does not explain subject 'other'"):
        choose_latents(plan, Results(parts.folder), "other", config.SteeringCheck())


def test_an_effect_is_the_mean_over_prompts_and_strengths_of_amplified_minus_suppressed(parts):
    plan = plan_of({"a": W, "b": W})
    found = chosen(parts, plan)
    write(parts, found, lambda latent, behavior: latent / 100 if behavior == "a" else 0, behaviors=("a", "b"))
    effects, latents, _ = tables(parts, plan)
    assert len(effects) == 2 * len(found)
    own = effects[effects.behavior == "a"].set_index("latent_index")
    np.testing.assert_allclose(own.effect, own.index / 100)
    np.testing.assert_allclose(own.amplified - own.suppressed, own.effect)
    assert (own.plain == 0.25).all()
    assert (own.n_prompts == 4).all()
    assert (own.claim == [int(i in EXPECTED["a"]) for i in own.index]).all()
    assert (effects[effects.behavior == "b"].effect == 0).all()
    # Only what is claimed counts, in standard deviations of the behavior's scores.
    spread = np.concatenate([0.5 + own.effect / 2, 0.5 - own.effect / 2]).std()
    by_latent = latents.set_index("latent_index")
    for latent in by_latent.index:
        expected = latent / 100 / spread if latent in EXPECTED["a"] else 0
        assert by_latent.effect[latent] == pytest.approx(expected)
        assert by_latent.claim[latent] == ("raises a" if latent in EXPECTED["a"] else "raises b")
        assert by_latent.confirmed[latent] == (latent in EXPECTED["a"])


@pytest.mark.parametrize(("right", "expected"), [("supported", 1.0), ("untested", 0.0)])
def test_the_auroc_says_whether_the_verdict_tells_for_which_latents_steering_does_as_claimed(parts, right, expected):
    plan = plan_of()
    found = chosen(parts, plan)
    group = found.set_index("latent_index").group
    write(parts, found, lambda latent, behavior: 0.4 * (group[latent] == right), noise=0.02)
    _, latents, summary = tables(parts, plan)
    # A noisy null effect may lie above 0 by luck; here none does.
    assert (latents.confirmed == (latents.group == right)).all()
    rows = summary.set_index(["quantity", "of"])
    assert rows.estimate["auroc", "verdict supported"] == expected
    assert rows.estimate["claimed_effect", right] > 1
    assert rows.n_confirmed["claimed_effect", right] == (group == right).sum()
    assert rows.n_latents["claimed_effect", "contradicted"] == 0
    assert np.isnan(rows.estimate["claimed_effect", "contradicted"])


def test_steering_against_the_claim_does_not_confirm_it(parts):
    plan = plan_of()
    found = chosen(parts, plan)
    write(parts, found, lambda latent, behavior: -0.4)
    _, latents, summary = tables(parts, plan)
    assert not latents.confirmed.any()
    assert (latents.effect < 0).all()
    assert np.isnan(summary.set_index("of").estimate["verdict supported"]), "no latent of the other kind"


def test_detection_and_output_scores_are_compared_with_the_verdict_on_the_same_latents(parts):
    plan = plan_of(scorers={"lexical": {"sources": ["said"]}})
    found = chosen(parts, plan)
    group = found.set_index("latent_index").group
    write(parts, found, lambda latent, behavior: 0.4 * (group[latent] == "supported"))
    index, flag = found.latent_index.to_numpy(), (group == "supported").to_numpy(float)
    values = {"detection": 0.5 + 0.4 * flag, "output": 0.9 - 0.4 * flag}
    scores = [
        pd.DataFrame({"score": name, "latent_index": index, "n_items": 6, "value": v}) for name, v in values.items()
    ]
    path = Results(parts.folder).scores("toy", "said", "lexical")
    path.parent.mkdir(parents=True)
    write_scores(pd.concat(scores, ignore_index=True).assign(floor=0.5), path)
    rows = tables(parts, plan)[2].set_index("of")
    assert rows.estimate[["verdict supported", "detection (lexical)", "output (lexical)"]].tolist() == [1, 1, 0]
    assert rows.difference["output (lexical)"] == -1
    assert rows.difference_high["output (lexical)"] < 0
    assert rows.difference["detection (lexical)"] == 0
    assert "verdict score" in rows.index


def run_check(parts, subject_folder, sae, tiny, n_latents=40):
    """Run the verb on a model with this SAE at its top, and return the plan that it read."""
    folder = Results(parts.folder).subject("toy")
    tiny.write_sae(folder.sae, sae, hook_name="blocks.2.hook_resid_post")
    prompts = parts.folder / "prompts.txt"
    prompts.write_text("say hello\nthe user asks\ntell me about the garden\n")
    subject = {"model": str(subject_folder / "model"), "sae_path": str(folder.sae), "corpus": {"sample": True}}
    scored = {"a": {"description": "a", "rule": True, "metric": W}}
    steered = {"n_latents": n_latents, "strengths": [100], "prompts": str(prompts), "max_new_tokens": 5}
    options = options_of(
        subjects={"toy": subject},
        behaviors={name: {"description": name, "rule": True} for name in BEHAVIORS} | scored,
        steering_check=steered,
        device="cpu",
    )
    study = parts.folder / "study.yaml"
    study.write_text(yaml.safe_dump(options))
    assert main(["steering-check", "--study", str(study), "--results", str(parts.folder), "--subject", "toy"]) == 0
    return load_plan(study)


@pytest.mark.parametrize(("right", "expected"), [("supported", 1.0), ("untested", 0.0)])
def test_latents_that_write_a_behaviors_phrase_are_found_by_steering_the_model(
    parts, tiny, subject_folder, model_of, tokenizer, right, expected
):
    """The whole check on a real forward pass: latents of one group write w, all others something else."""
    writers = chosen(parts, plan_of()).query("group == @right").latent_index.tolist()
    sae = tiny.random_sae(d_sae=N)
    direction = model_of("llama").get_output_embeddings().weight[tokenizer.convert_tokens_to_ids("w")]
    sae["W_dec"][writers] = direction / direction.norm()
    effects, latents, summary = tables(parts, run_check(parts, subject_folder, sae, tiny))
    by_latent = effects.set_index("latent_index")
    assert (by_latent.amplified[writers] == 1).all()
    assert (by_latent.suppressed[writers] == 0).all()
    assert sorted(latents[latents.confirmed].latent_index) == sorted(writers)
    assert summary.set_index("of").estimate["verdict supported"] == expected
    assert Results(parts.folder).steering_check("toy").answers.read_text().count("wwwww") == 3 * len(writers)


def test_a_study_without_verdicts_runs_to_empty_tables(parts, tiny, subject_folder, monkeypatch):
    latents = verdicts(parts, plan_of()).index
    fixed = pd.DataFrame({"latent_index": latents, "verdict": "untestable"})
    monkeypatch.setattr(steered_latents, "verdicts_of", lambda *_: fixed)
    plan = run_check(parts, subject_folder, tiny.random_sae(d_sae=N), tiny)
    assert chosen(parts, plan).empty
    assert [len(table) for table in tables(parts, plan)] == [0, 0, 0]


def test_a_study_without_the_check_has_none_of_its_tables():
    assert not set(NAMES) & set(tables_of(make_study()))
    assert set(NAMES) <= set(tables_of(plan_of()))
