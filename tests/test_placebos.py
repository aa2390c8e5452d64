"""Placebo trainings, from a study's config to the changes that the analysis reads."""

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft import config
from isaerft.analysis.placebos import read_placebos
from isaerft.behaviors import Record
from isaerft.changes.behavior import continuations
from isaerft.errors import InputError
from isaerft.layout import Results
from isaerft.placebos import answered_by_model, train_placebos
from isaerft.subjects.capture import capture_tokens, tokenize
from isaerft.training.loop import heldout_loss

MEASURES = ["parameter", "contribution"]


def plan_of(adapter="bias", **changes):
    short = {"steps": 6, "learning_rate": 0.05, "evaluate_every": 1, "batch_size": 4}
    adam = short | {"optimizer": "adam", "learning_rate": 0.01}
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}}},
        "behaviors": {name: {"description": name, "rule": True} for name in ("a", "b")},
        "adapters": {
            "bias": short,
            "preferred": short | {"kind": "bias", "objective": "dpo"},
            "residual": adam | {"options": {"rank": 2}},
            "mean_difference": {},
            "saved": {"options": {"path": "somewhere"}},
        },
        "sources": {"local": {}},
        "judges": {"lexical": {}},
        "measures": MEASURES,
        "primary": {"adapter": adapter, "measure": "contribution", "source": "local", "judge": "lexical"},
        "placebos": {"n": 3},
        "n_seeds": 2,
        "max_length": 32,
        "controls": ["firing_rate_only"],
    }
    return config.plan_from_dict(values | changes)


@pytest.fixture
def make(subject, records, tmp_path):
    """Train placebos of the session's records, given as two behaviors, and return their changes."""

    def run(plan, name="results"):
        train, heldout = [records[:6], records[6:12]], [records[12:14], records[14:]]
        results = Results(tmp_path / name)
        train_placebos(plan, subject, train, heldout, results.placebos("toy"))
        return read_placebos(plan, results, "toy")

    return run


@pytest.mark.parametrize("adapter", ["bias", "preferred", "residual", "mean_difference"])
def test_every_seed_of_every_placebo_is_measured_and_no_two_placebos_are_alike(make, adapter):
    found = make(plan_of(adapter))
    assert list(found) == sorted(MEASURES)
    for changes in found.values():
        assert changes.shape == (3, 2, 48)
        assert (np.abs(changes).max(2) > 0).all()
        means = changes.mean(1)
        assert all(not np.allclose(means[one], means[two]) for one, two in ((0, 1), (0, 2), (1, 2)))


def test_the_same_study_gives_the_same_bytes_and_another_seed_other_placebos(make, subject, tmp_path):
    before = {key: value.clone() for key, value in subject.model.state_dict().items()}
    expected = torch.get_rng_state()
    one, two, other = make(plan_of(), "one"), make(plan_of(), "two"), make(plan_of(seed=1), "other")
    files = [Results(tmp_path / name).placebos("toy").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    assert np.array_equal(one["parameter"], two["parameter"])
    assert not np.allclose(one["parameter"], other["parameter"])
    assert torch.equal(torch.get_rng_state(), expected)
    assert all(torch.equal(subject.model.state_dict()[key], value) for key, value in before.items())


def test_more_placebos_keep_those_that_were_there(make):
    few, more = make(plan_of(placebos={"n": 2}), "few"), make(plan_of(), "more")
    assert np.array_equal(few["contribution"], more["contribution"][:2])


def test_a_random_direction_and_its_opposite_are_equally_likely(make):
    """Nothing is taught, so the changes of many placebos point nowhere in common."""
    changes = make(plan_of(placebos={"n": 24}, n_seeds=1))["contribution"][:, 0]
    units = changes / np.linalg.norm(changes, axis=1, keepdims=True)
    # The mean of n independent unit vectors without a common direction has a norm of about 1 / sqrt(n).
    assert np.linalg.norm(units.mean(0)) < 2 / np.sqrt(len(units))


def test_rows_keep_their_prompt_and_get_samples_of_the_model_no_longer_than_their_own_answer(subject, records):
    rows = [tokenize(record, subject.language, 32) for record in records[:8]]
    answered = answered_by_model(subject, rows, 3, seed=5)
    assert answered == answered_by_model(subject, rows, 3, seed=5)
    assert answered != answered_by_model(subject, rows, 3, seed=6)
    for row, own in zip(rows, answered, strict=True):
        assert own.tokens[: own.n_prompt] == row.tokens[: row.n_prompt]
        assert own.n_prompt < len(own.tokens) <= len(row.tokens)
    ends = subject.language.tokenizer.eos_token_id
    assert any(own.tokens[-1] != ends for own in answered), "an answer that was cut gets no EOS"


def test_answers_have_the_models_own_probabilities(subject):
    """Their mean loss is the model's entropy, up to sampling noise."""
    row = tokenize(Record("r", "say hello", " x"), subject.language, 32)
    first = replace_answers(row, 1)
    answered = answered_by_model(subject, [first] * 400, 100, seed=0)
    batch = capture_tokens(subject, answered)
    loss = heldout_loss(subject, lambda part: part.residual, batch, 100)
    tokens = torch.tensor([row.tokens[: row.n_prompt]])
    with torch.no_grad():
        log_probability = subject.model(input_ids=tokens).logits[0, -1].float().log_softmax(-1)
    probability = log_probability.exp()
    entropy = float(-(probability * log_probability).sum())
    spread = float((probability * (log_probability + entropy).square()).sum()) ** 0.5
    assert abs(loss - entropy) < 4 * spread / 20


def replace_answers(row, n):
    """Return the row with an answer of `n` tokens."""
    return row._replace(tokens=row.tokens[: row.n_prompt + n])


def test_an_answer_ends_with_its_first_eos(subject):
    prompt = tokenize(Record("r", "say hello", " x"), subject.language, 32)
    before = prompt.tokens[: prompt.n_prompt]
    how = {"max_new_tokens": 20, "batch_size": 64, "temperature": 3.0, "seed": 0}
    found = continuations(subject, [before] * 64, **how)
    ends = subject.language.tokenizer.eos_token_id
    assert all(ends not in answer[:-1] for answer in found)
    assert any(answer[-1] == ends and len(answer) < 20 for answer in found)


def test_which_subjects_have_placebos():
    plan = plan_of(controls=["random_dictionary"])
    assert plan.has_placebos("toy")
    assert not plan.has_placebos("toy-permuted")
    assert not plan_of(placebos={"n": 0}).has_placebos("toy")
    assert not plan_of("saved").has_placebos("toy")
    assert plan_of(placebos={}).study.placebos.n == 19
    with pytest.raises(InputError, match="did you mean"):
        plan_of(placebos={"m": 3})


def test_reading_tells_what_is_missing_or_broken_and_is_empty_without_placebos(make, tmp_path):
    results = Results(tmp_path / "results")
    assert read_placebos(plan_of(placebos={"n": 0}), results, "toy") == {}
    with pytest.raises(InputError, match="run `isaerft placebos` first"):
        read_placebos(plan_of(), results, "toy")
    make(plan_of())
    path = results.placebos("toy")
    table = pd.read_parquet(path)
    assert list(table.columns) == ["placebo", "measure", "seed", "latent_index", "change"]
    table.loc[table.measure == "parameter", "change"] = np.nan
    table.to_parquet(path)
    with pytest.raises(InputError, match="parameter holds changes that are not finite"):
        read_placebos(plan_of(), results, "toy")
