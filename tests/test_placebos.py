"""Placebo trainings, from a study's config to the changes that the analysis reads."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chisquare

from isaerft import config
from isaerft.analysis.placebos import read_placebos
from isaerft.behaviors import Record
from isaerft.errors import InputError
from isaerft.layout import Results
from isaerft.placebos import model_answers, train_placebos
from isaerft.subjects.capture import tokenize
from isaerft.subjects.generate import generate

TEMPLATES = {"a": "auto", "b": "off"}
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
        train, heldout = {"a": records[:10], "b": records[3:13]}, {"a": records[8:], "b": records[8:]}
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
        assert (np.abs(changes).max((1, 2)) > 0).all()
        means = changes.mean(1)
        assert all(not np.allclose(means[one], means[two]) for one, two in ((0, 1), (0, 2), (1, 2)))


def test_the_same_study_gives_the_same_bytes_and_another_seed_other_placebos(make, subject, tmp_path):
    before = {key: value.clone() for key, value in subject.model.state_dict().items()}
    expected = torch.get_rng_state()
    few = {"placebos": {"n": 1}, "n_seeds": 1}
    one, two = make(plan_of(**few), "one"), make(plan_of(**few), "two")
    other = make(plan_of(**few, seed=1), "other")
    files = [Results(tmp_path / name).placebos("toy").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    assert np.array_equal(one["parameter"], two["parameter"])
    assert not np.allclose(one["parameter"], other["parameter"])
    assert torch.equal(torch.get_rng_state(), expected)
    assert all(torch.equal(subject.model.state_dict()[key], value) for key, value in before.items())


def test_more_placebos_keep_those_that_were_there(make):
    few, more = (make(plan_of(placebos={"n": n}, n_seeds=1), str(n)) for n in (1, 2))
    assert np.array_equal(few["contribution"], more["contribution"][:1])


def test_placebos_keep_their_last_step_although_they_learn_nothing_in_common(make):
    changes = make(plan_of(placebos={"n": 8}, n_seeds=1))["parameter"][:, 0]
    lengths = np.linalg.norm(changes, axis=1)
    assert (lengths > 0).all(), "early stopping would keep step 0"
    units = changes / lengths[:, None]
    cosines = (units @ units.T)[np.triu_indices(len(units), 1)]
    assert abs(cosines.mean()) < 0.25


def test_rows_keep_their_prompt_and_get_answers_of_the_model_no_longer_than_their_own(subject, records):
    rows = [tokenize(record, subject.language, 32) for record in records[:8]]
    first, again, other = (answers(subject, rows, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    for row, own in zip(rows, first, strict=True):
        assert own.tokens[: own.n_prompt] == row.tokens[: row.n_prompt]
        assert own.n_prompt < len(own.tokens) <= len(row.tokens)
    ends = subject.language.tokenizer.eos_token_id
    assert any(own.tokens[-1] != ends for own in first), "an answer that was cut gets no EOS"


def test_prompts_go_through_the_chat_template_as_their_behavior_says(subject, chat, records, tmp_path, monkeypatch):
    given = set()

    def seen(language, prompts, **options):
        given.update(language.decode(prompt) for prompt in prompts)
        return generate(language, prompts, **options)

    monkeypatch.setattr("isaerft.placebos.generate", seen)
    behaviors = {name: {"description": name, "rule": True, "chat_template": how} for name, how in TEMPLATES.items()}
    plan = plan_of(behaviors=behaviors, placebos={"n": 1}, n_seeds=1)
    both = {"a": records[:1] * 4, "b": records[1:2] * 4}
    train_placebos(plan, replace(subject, language=chat), both, both, tmp_path / "placebos.parquet")
    assert given <= {"<bos><user>say hello<assistant>", "<bos>tell me about the garden"}
    assert len(given) == 2


def answers(subject, rows, seed=0):
    return model_answers(subject, rows, 100, np.random.default_rng(seed))


def test_answers_have_the_models_own_probabilities(subject):
    row = tokenize(Record("r", "say hello", " x"), subject.language, 32)
    first = row._replace(tokens=row.tokens[: row.n_prompt + 1])
    said = [own.tokens[-1] for own in answers(subject, [first] * 2000)]
    with torch.no_grad():
        logits = subject.model(input_ids=torch.tensor([row.tokens[: row.n_prompt]])).logits[0, -1].float()
    expected = 2000 * logits.double().softmax(-1).numpy()
    often = expected >= 5
    found = np.bincount(said, minlength=len(expected))
    observed = np.append(found[often], found[~often].sum())
    assert chisquare(observed, np.append(expected[often], expected[~often].sum())).pvalue > 1e-3


def test_which_subjects_have_placebos():
    plan = plan_of(controls=["random_dictionary"])
    assert plan.has_placebos("toy")
    assert not plan.has_placebos("toy-permuted")
    assert not plan_of(placebos={"n": 0}).has_placebos("toy")
    assert not plan_of("saved").has_placebos("toy")
    assert plan_of(placebos={}).study.placebos.n == 9
    with pytest.raises(InputError, match="allowed: n"):
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
