"""False verdicts are counted, in worlds that are what they say."""

import numpy as np
import pytest

from isaerft.calibration import run_part, verdicts
from isaerft.calibration.verdicts import N_SPEAKING, VERDICT_WORLDS, VerdictWorld, draw_told
from isaerft.config import Calibration


def drawn(n_behaviors=8, **changes):
    return draw_told(VerdictWorld(n_behaviors=n_behaviors, **changes), np.random.default_rng(0))


def values(monkeypatch, *names, n_worlds=20):
    """Return (world, quantity) -> value for some of the worlds."""
    monkeypatch.setattr(verdicts, "VERDICT_WORLDS", {name: VERDICT_WORLDS[name] for name in names})
    rows = run_part("verdict_errors", Calibration(verdict_worlds=n_worlds))
    return {(row.setting.split("; ")[0].removeprefix("world="), row.quantity): row.value for row in rows}


def test_speaking_latents_are_as_noisy_as_asked_for():
    told = drawn(400, noisier=2.0)
    assert told.changes[:, :N_SPEAKING].std() == pytest.approx(2, rel=0.03)
    assert told.changes[:, N_SPEAKING:].std() == pytest.approx(1, rel=0.03)


def test_what_is_shared_is_shared():
    told = drawn(80, together=0.3)
    one, other = np.array([(i, i + 80) for i in range(40)]).T
    alike = [np.corrcoef(told.changes[:, i], told.changes[:, j])[0, 1] for i, j in zip(one, other, strict=True)]
    assert np.mean(alike) == pytest.approx(0.3, abs=0.05)
    behaviors = np.corrcoef(drawn(alike=0.8).changes)
    assert behaviors[0, 1] == pytest.approx(0.8, abs=0.05)
    assert abs(behaviors[0, 2]) < 0.15
    assert np.corrcoef(drawn(lasting=0.7).changes)[0, 5] == pytest.approx(0.7, abs=0.07)


def test_right_explanations_name_behaviors_with_an_effect_and_exchanged_ones_others():
    told = drawn(effect=4.0, wrong=0.2)
    change = np.array([told.changes[told.said[:, i] > 0, i].mean() for i in range(N_SPEAKING)])
    wrong = told.is_wrong[:N_SPEAKING]
    assert 0.1 < wrong.mean() <= 0.2
    assert change[~wrong].mean() == pytest.approx(4, abs=0.4)
    assert change[wrong].mean() == pytest.approx(0, abs=0.7)


def test_effects_vary_as_much_as_asked_for():
    told = drawn(effect=100.0, wrong=0.0, effect_spread=0.5)
    change = np.log([told.changes[told.said[:, i] > 0, i].mean() for i in range(N_SPEAKING)])
    assert change.std() == pytest.approx(0.5, abs=0.1)


def test_noisier_latents_are_not_supported_for_their_noise(monkeypatch):
    found = values(monkeypatch, "null", "null_noisier_2", n_worlds=40)
    assert found["null", "any_wrong_supported"] < 0.16
    assert found["null_noisier_2", "any_wrong_supported"] < 0.16


def test_right_explanations_of_unequal_effect_are_not_contradicted(monkeypatch):
    found = values(monkeypatch, "right_spread_1.1", "right_spread_0.8_precise")
    for name in ("right_spread_1.1", "right_spread_0.8_precise"):
        assert found[name, "contradicted_fdr"] < 0.16
        assert found[name, "right_supported"] > 0.4


def test_what_is_found_is_counted(monkeypatch):
    found = values(monkeypatch, "wrong_0.1_precise", n_worlds=10)
    assert found["wrong_0.1_precise", "right_supported"] > 0.95
    assert found["wrong_0.1_precise", "wrong_contradicted"] > 0.3
    assert found["wrong_0.1_precise", "supported_fdr"] < 0.05


def test_a_share_of_false_verdicts_is_of_those_of_its_name(monkeypatch):
    told = drawn(wrong=0.5, effect=4.0)
    wrong = told.is_wrong[:N_SPEAKING]
    names = np.where(np.arange(N_SPEAKING) < 30, "supported", "contradicted")
    calls = iter(names)
    monkeypatch.setattr(verdicts, "decide", lambda *_: type("", (), {"name": next(calls)}))
    found = verdicts.errors_of(told)
    assert found["supported_fdr"] == pytest.approx(wrong[:30].mean())
    assert found["contradicted_fdr"] == pytest.approx((~wrong[30:]).mean())
    assert found["right_supported"] == pytest.approx((~wrong[:30]).sum() / (~wrong).sum())
    assert found["any_wrong_supported"] == 1
