from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.saved import save_adapter
from isaerft.changes.causal import (
    MATCHED_RANDOM,
    MOST_CHANGED,
    causal_table,
    check_causes,
    row_losses,
    sets_to_neutralise,
)
from isaerft.changes.pullback import Trained
from isaerft.errors import InputError
from isaerft.subjects.cache import completion_losses, write_cache
from isaerft.training.loop import heldout_loss

OPTIONS = config.CausalCheck(ks=[1, 4], n_draws=6)


@pytest.fixture(scope="module")
def helpful(subject, cached):
    """The latent whose direction lowers the held-out loss most, with the push that does."""
    scores = {}
    for latent in range(1, subject.dictionary.d_sae):
        for push in (-1.0, 1.0):
            scores[latent, push] = float(loss_of(subject, cached[1], bias_of(subject, {latent: push})))
    return min(scores, key=scores.get)


def bias_of(subject, pushes):
    adapter = make_adapter("bias", subject.dictionary.d_sae, {})
    with torch.no_grad():
        for latent, push in pushes.items():
            adapter.bias[latent] = push
    return adapter.requires_grad_(False)


def loss_of(subject, rows, adapter):
    return heldout_loss(subject, lambda batch: adapted(subject, adapter, batch), rows, 3)


def facts_of(subject, first):
    """Facts of all latents, `first` in front, as the ranking by change would have them."""
    d_sae = subject.dictionary.d_sae
    order = [first, *(latent for latent in range(d_sae) if latent != first)]
    rate = 0.1 + 0.01 * np.arange(d_sae)
    return pd.DataFrame({"latent_index": order, "firing_rate": rate, "decoder_norm": 1 + rate})


def test_neutralising_the_one_latent_that_does_everything_loses_everything_and_others_lose_nothing(
    subject, cached, helpful
):
    latent, push = helpful
    trained = [Trained(subject, bias_of(subject, {latent: push * size}), cached[1], 3) for size in (0.8, 1.0)]
    sets = sets_to_neutralise(facts_of(subject, latent), OPTIONS, 2, np.random.default_rng(0))
    table = causal_table(trained, sets, torch.arange(4), OPTIONS.ks, 0.95)
    table = table.set_index(["latents", "k"])
    assert table.loc[MOST_CHANGED].loss_recovered.to_numpy() == pytest.approx([0, 0], abs=1e-6)
    assert table.loc[MATCHED_RANDOM].to_numpy() == pytest.approx(np.ones((2, 3)), abs=1e-6)


def test_latents_that_share_the_work_leave_the_others_share(subject, cached, helpful):
    latent, push = helpful
    other = next(i for i in range(1, subject.dictionary.d_sae) if i != latent)
    adapter = bias_of(subject, {latent: push, other: 0.4})
    base, whole, without = row_losses(Trained(subject, adapter, cached[1], 3), torch.arange(4), [torch.tensor([other])])
    alone = row_losses(Trained(subject, bias_of(subject, {latent: push}), cached[1], 3), torch.arange(4), [])[1]
    assert without == pytest.approx(alone, rel=1e-5)
    assert not np.allclose(whole, alone)
    assert not np.allclose(base, alone)


def test_a_row_carries_the_loss_of_its_own_completion(subject, cached):
    trained = Trained(subject, bias_of(subject, {3: 0.5}), cached[1], 3)
    rows = torch.tensor([0, 2, 3])
    losses = row_losses(trained, rows, [])
    for place, row in enumerate(rows):
        batch = cached[1].batch(row[None])
        moved = adapted(subject, trained.adapter, batch)
        assert losses[0, place] == pytest.approx(
            float(completion_losses(subject, batch, batch.residual).sum()), rel=1e-4
        )
        assert losses[1, place] == pytest.approx(float(completion_losses(subject, batch, moved).sum()), rel=1e-4)


def test_where_training_did_not_lower_the_loss_the_share_is_undefined(subject, cached, helpful):
    latent, push = helpful
    trained = [Trained(subject, bias_of(subject, {latent: 0 * push}), cached[1], 3)]
    sets = sets_to_neutralise(facts_of(subject, latent), OPTIONS, 1, np.random.default_rng(0))
    table = causal_table(trained, sets, torch.arange(4), OPTIONS.ks, 0.95)
    assert len(table) == 4
    assert table[["loss_recovered", "ci_low", "ci_high"]].isna().all(axis=None)


def test_a_k_beyond_the_universe_is_undefined_and_one_without_enough_others_has_no_draws(subject, cached, helpful):
    latent, push = helpful
    universe = facts_of(subject, latent).head(6)
    options = replace(OPTIONS, ks=[1, 4, 40])
    sets = sets_to_neutralise(universe, options, 1, np.random.default_rng(0))
    trained = [Trained(subject, bias_of(subject, {latent: push}), cached[1], 3)]
    table = causal_table(trained, sets, torch.arange(4), options.ks, 0.95)
    defined = table.set_index(["k", "latents"]).loss_recovered.notna()
    assert defined[1].all()
    assert defined[4].to_dict() == {MOST_CHANGED: True, MATCHED_RANDOM: False}
    assert not defined[40].any()


def test_seeds_take_turns_in_the_draws_and_all_meet_the_most_changed(subject):
    sets = sets_to_neutralise(facts_of(subject, 5), OPTIONS, 4, np.random.default_rng(0))
    draws = [part for part in sets if part.latents == MATCHED_RANDOM and part.k == 4]
    assert [part.seeds for part in draws] == [(0,), (1,), (2,), (3,), (0,), (1,)]
    (chosen,) = [part for part in sets if part.latents == MOST_CHANGED and part.k == 4]
    assert chosen.seeds == (0, 1, 2, 3)
    assert not any(set(part.indices.tolist()) & set(chosen.indices.tolist()) for part in draws)


def plan(**changes):
    return config.plan_from_dict(
        {
            "study": "small",
            "subjects": {"toy": {"testbed": {}}},
            "behaviors": {name: {"description": name, "rule": True} for name in ("a", "b")},
            "adapters": {"bias": {}, "scale": {}, "lora": {}},
            "reference": "lora",
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "contribution", "source": "local", "judge": "lexical"},
            "n_seeds": 2,
            "batch_size": 3,
            "causal_check": {"ks": [1], "n_draws": 4, "max_rows": 3},
        }
        | changes
    )


def test_the_latents_ranked_first_by_the_primary_measure_are_neutralised_in_each_adapter(
    subject, cached, helpful, tmp_path
):
    latent, push = helpful
    write_cache({"heldout": cached[1]}, tmp_path / "cache.safetensors")
    changes = []
    for name in ("bias", "scale"):
        for seed in range(2):
            adapter = make_adapter(name, subject.dictionary.d_sae, {})
            with torch.no_grad():
                next(adapter.parameters())[latent] = push if name == "bias" else 0
            save_adapter(adapter, tmp_path / "adapters" / name / f"seed_{seed}")
            size = np.eye(subject.dictionary.d_sae)[latent]
            for measure, change in (("contribution", -size), ("parameter", np.roll(size, 1))):
                rows = {"adapter": name, "measure": measure, "seed": seed, "latent_index": range(len(size))}
                changes.append(pd.DataFrame(rows | {"change": change}))
    pd.concat(changes).to_parquet(tmp_path / "changes.parquet")
    written = []
    for out in ("a", "b"):
        check_causes(
            plan(),
            subject,
            facts_of(subject, latent).sort_values("latent_index"),
            tmp_path / "cache.safetensors",
            tmp_path / "adapters",
            tmp_path / "changes.parquet",
            tmp_path / out,
        )
        written.append((tmp_path / out).read_bytes())
    assert written[0] == written[1]
    table = pd.read_parquet(tmp_path / "a").set_index(["adapter", "latents"]).loss_recovered
    assert table["bias"].to_dict() == pytest.approx({MOST_CHANGED: 0, MATCHED_RANDOM: 1}, abs=1e-6)
    assert table["scale"].isna().all(), "this scale changed nothing, so nothing can remain"


def test_adapters_are_checked_as_the_config_says():
    assert plan().causally_checked == ["bias", "scale"]
    assert plan(causal_check={"adapters": []}).causally_checked == []
    assert plan(causal_check={"adapters": ["scale"]}).causally_checked == ["scale"]
    with pytest.raises(InputError, match=r"causal_check\.adapters.*lora"):
        plan(causal_check={"adapters": ["lora"]})
