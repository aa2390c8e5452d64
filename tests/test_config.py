import copy
import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter

from isaerft.config import CONTROLS, Calibration, Subject, differing, load_calibration, load_plan, plan_from_dict
from isaerft.config.base import read_options
from isaerft.config.reference import COMMAND, PAGE, SCHEMA, json_schema, options_page, schema_text, write_reference
from isaerft.errors import InputError
from isaerft.registry import JUDGES, STATISTICS

ROOT = Path(__file__).parents[1]
CALIBRATION = ROOT / "config" / "calibration.yaml"
STUDIES = sorted(set((ROOT / "config").glob("*.yaml")) - {CALIBRATION})
REGENERATE = f"config/schema.json and docs/config.md are not those of isaerft/config/; run `{COMMAND}`"


@pytest.fixture
def values(tmp_path, monkeypatch):
    """A study that is valid, with one subject of each origin and a behavior of each origin."""
    monkeypatch.chdir(tmp_path)
    for name in ["rows.jsonl", "corpus.txt", "x.csv"]:
        Path(name).write_text("{}\n")
    Path("sae").mkdir()
    return {
        "study": "small",
        "subjects": {
            "testbed": {"testbed": {}},
            "trained": {
                "model": "a/b",
                "train_sae": {},
                "hook_name": "blocks.1.hook_resid_post",
                "corpus": {"sample": True},
            },
            "local": {"model": "a/b", "sae_path": "sae", "corpus": {"path": "corpus.txt"}},
            "hub": {"model": "a/b", "release": "r", "sae_id": "s", "corpus": {"dataset": "c/d"}},
        },
        "behaviors": {
            "local": {"description": "a local file", "path": "rows.jsonl"},
            "hub": {"description": "a dataset", "dataset": "a/b", "revision": "abc"},
            "ruled": {"description": "a rule's", "rule": True},
        },
        "adapters": {"bias": {}, "wide": {"kind": "scale"}},
        "sources": {"local": {}, "listed": {"kind": "file", "path": "x.csv", "subjects": ["hub"]}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
        "reference": "wide",
    }


def changed(values, place, value):
    """Return `values` with the option at the dotted `place` set, or removed when `value` is ...."""
    result = copy.deepcopy(values)
    *parents, last = place.split(".")
    node = result
    for part in parents:
        node = node.setdefault(part, {})
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return result


def message(values):
    with pytest.raises(InputError) as caught:
        plan_from_dict(values)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_a_valid_study_is_read_with_every_default(values):
    plan = plan_from_dict(values)
    assert plan.results.root == "results/small"
    assert plan.study.controls == list(CONTROLS)
    assert plan.study.measures == ["parameter", "contribution", "attribution"]
    assert plan.study.primary.statistic == "auroc"
    assert plan.study.adapters["bias"].objective == "sft"
    assert plan.permuted_subjects == {f"{name}-permuted": name for name in values["subjects"]}


def test_a_study_cannot_be_changed_after_the_checks(values):
    plan = plan_from_dict(values)
    with pytest.raises(FrozenInstanceError):
        plan.study.seed = 1


def test_without_the_random_dictionary_no_subject_has_a_twin(values):
    assert plan_from_dict(changed(values, "controls", [])).permuted_subjects == {}


@pytest.mark.parametrize(
    ("place", "nearest"),
    [
        ("sudy", "study"),
        ("n_seed", "n_seeds"),
        ("subjects.hub.hook_nam", "hook_name"),
        ("subjects.testbed.testbed.d_modle", "d_model"),
        ("subjects.trained.train_sae.dsae", "d_sae"),
        ("subjects.local.corpus.token", "tokens"),
        ("behaviors.local.colums", "columns"),
        ("adapters.bias.learning_rat", "learning_rate"),
        ("sources.local.wrong_shar", "wrong_share"),
        ("judges.lexical.expected_shar", "expected_share"),
        ("primary.adaptor", "adapter"),
        ("agreement.n_resample", "n_resamples"),
    ],
)
def test_an_unknown_key_anywhere_names_its_place_and_the_nearest_valid_one(values, place, nearest):
    text = message(changed(values, place, 1))
    parent, _, key = place.rpartition(".")
    assert f"unknown config key in {parent or 'the study'}: '{key}'" in text
    assert f"did you mean '{nearest}'?" in text
    assert nearest in text.split("allowed:")[1]


def test_an_unknown_key_goes_before_the_problems_that_it_causes(values):
    values["primary"]["adaptor"] = values["primary"].pop("adapter")
    assert "did you mean 'adapter'?" in message(values)


@pytest.mark.parametrize("key", ["\x1b[2J", "a\nb", "\ud800", "x" * 10**5])
def test_a_hostile_key_gives_a_short_printable_error(values, key):
    assert len(message(changed(values, key, 1))) < 6000
    assert len(message({**values, "behaviors": {key: {"description": "d", "colums": {}}}})) < 6000


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("n_seeds", "many"),
        ("n_seeds", 0),
        ("n_seeds", 1.5),
        ("seed", None),
        ("record_seconds", "perhaps"),
        ("subjects", {}),
        ("subjects", ["testbed"]),
        ("subjects.testbed", "testbed"),
        ("subjects.hub.dtype", "float8"),
        ("subjects.testbed.testbed.steps", 0),
        ("behaviors", {}),
        ("behaviors.local.description", ""),
        ("behaviors.local.heldout_fraction", 1.0),
        ("behaviors.local.max_rows", 1),
        ("behaviors.local.columns", ["prompt"]),
        ("behaviors.local.format", "xml"),
        ("adapters.bias.learning_rate", 0),
        ("adapters.bias.learning_rate", float("nan")),
        ("adapters.bias.momentum", 1),
        ("adapters.bias.optimizer", "lion"),
        ("sources.local.side", "inside"),
        ("sources.local.wrong_share", 1.1),
        ("judges.lexical.expected_share", 0),
        ("measures", []),
        ("measures", "parameter"),
        ("agreement.n_resamples", 10),
        ("agreement.confidence_level", 95),
    ],
)
def test_a_value_of_the_wrong_kind_or_out_of_range_is_named_with_its_place(values, place, value):
    text = message(changed(values, place, value))
    assert text.startswith(f"config key {place}")
    assert repr(value) in text


@pytest.mark.parametrize("place", ["study", "subjects", "primary", "primary.judge", "behaviors.local.description"])
def test_a_missing_required_option_is_named(values, place):
    text = message(changed(values, place, ...))
    assert text.startswith(f"config key {place}: ")
    assert "required" in text.lower()


@pytest.mark.parametrize("group", ["subjects", "behaviors", "adapters", "sources", "judges"])
@pytest.mark.parametrize("name", ["a/b", "..", "", " ", "-x", "é", "x-permuted", "a.b", "{x}"])
def test_a_name_that_is_no_part_of_a_path_is_refused(values, group, name):
    values[group][name] = next(iter(values[group].values()))
    assert f"{group[:-1]} name {name!r}" in message(values)


@pytest.mark.parametrize("name", ["../elsewhere", "", "/abs"])
def test_a_study_writes_only_under_its_own_folder(values, name):
    assert f"study name {name!r}" in message(changed(values, "study", name))


@pytest.mark.parametrize(
    ("place", "value", "kind", "nearest"),
    [
        ("adapters.biass", {}, "adapter", "bias"),
        ("adapters.bias.kind", "scal", "adapter", "scale"),
        ("adapters.bias.objective", "sfft", "objective", "sft"),
        ("sources.local.kind", "flie", "explanation source", "file"),
        ("judges.lexical.kind", "lexcal", "judge", "lexical"),
        ("measures", ["contribtion"], "measure", "contribution"),
        ("agreement.statistics", ["auroc", "sperman"], "statistic", "spearman"),
        ("controls", ["shufled_explanations"], "control", "shuffled_explanations"),
        ("primary.adapter", "bia", "primary.adapter", "bias"),
        ("primary.measure", "atribution", "primary.measure", "attribution"),
        ("primary.source", "locl", "primary.source", "local"),
        ("primary.judge", "lexicl", "primary.judge", "lexical"),
        ("reference", "wid", "reference", "wide"),
        ("sources.listed.subjects", ["hubb"], "sources.listed.subjects", "hub"),
    ],
)
def test_an_unknown_name_lists_the_valid_ones(values, place, value, kind, nearest):
    text = message(changed(values, place, value))
    assert f"unknown {kind} " in text
    assert f"did you mean {nearest!r}?" in text


def test_the_primary_statistic_must_be_among_the_computed(values):
    assert "primary.statistic 'enrichment'; allowed: auroc, spearman" in message(
        changed(changed(values, "agreement.statistics", ["enrichment"]), "primary.statistic", "enrichment")
    )
    assert "unknown primary.statistic 'mean'" in message(changed(values, "primary.statistic", "mean"))
    assert "unknown primary.statistic 'auroc'" in message(changed(values, "agreement.statistics", ["spearman"]))


def test_the_mismatched_control_needs_a_second_behavior(values):
    del values["behaviors"]["hub"], values["behaviors"]["ruled"]
    assert "add a second behavior" in message(values)
    assert plan_from_dict(changed(values, "controls", ["shuffled_explanations"]))


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [
        ({}, "names 0 origins"),
        ({"path": "rows.jsonl", "rule": True}, "names 2 origins"),
        ({"path": "rows.jsonl", "dataset": "a/b"}, "names 2 origins"),
        ({"dataset": "a/b"}, "without a revision"),
        ({"dataset": "a/b", "revision": ""}, "without a revision"),
        ({"path": "none.jsonl"}, "file 'none.jsonl' does not exist"),
        ({"path": "sae"}, "file 'sae' does not exist"),
        ({"path": "empty.jsonl"}, "file 'empty.jsonl' is empty"),
    ],
)
def test_a_behavior_has_one_origin_that_is_there(values, behavior, expected):
    Path("empty.jsonl").touch()
    text = message(changed(values, "behaviors.wrong", {"description": "d", **behavior}))
    assert text.startswith("behavior 'wrong'")
    assert expected in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"testbed": {}}, "exactly one of model, gguf, testbed"),
        ({"model": None}, "exactly one of model, gguf, testbed"),
        ({"release": None, "sae_id": None}, "names 0 SAEs"),
        ({"sae_path": "sae"}, "names 2 SAEs"),
        ({"train_sae": {}}, "names 2 SAEs"),
        ({"sae_id": None}, "release and sae_id belong together"),
        ({"release": None, "sae_id": None, "train_sae": {}}, "train_sae without hook_name"),
        ({"release": None, "sae_path": "sae"}, "release and sae_id belong together"),
        ({"release": None, "sae_id": None, "sae_path": "none"}, "sae_path 'none' does not exist"),
        ({"corpus": {}}, "exactly one of path, dataset, sample"),
        ({"corpus": {"sample": True, "path": "corpus.txt"}}, "exactly one of path, dataset, sample"),
        ({"corpus": {"path": "none.txt"}}, "corpus.path 'none.txt' does not exist"),
    ],
)
def test_a_subject_says_what_it_needs_to_be_loaded(values, change, expected):
    values["subjects"]["hub"] |= change
    text = message(values)
    assert "subject 'hub'" in text
    assert expected in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "holds None"),
        (b"- a\n", "holds ['a']"),
        (b"a: [1\n", "is not valid YAML"),
        (b"a: !!python/object/apply:os.system [true]\n", "is not valid YAML"),
        (b"a: \xff\n", "not UTF-8"),
        (b"a: \x00\n", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(tmp_path, content, expected):
    (tmp_path / "study.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_plan(tmp_path / "study.yaml")
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_key_given_twice_is_refused_but_a_mapping_may_take_over_another(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_options(path) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: 2, y: 3}\n")
    with pytest.raises(InputError, match="'y' is given twice"):
        read_options(path)


def test_what_takes_over_another_mapping_can_be_taken_over_itself_from_wherever_it_stands(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("one: {deep: {a: &a {x: 1}, b: &b {<<: *a, x: 2, y: 2}}}\nc: {<<: [*b, *a], y: 3}\n")
    expected = {"one": {"deep": {"a": {"x": 1}, "b": {"x": 2, "y": 2}}}, "c": {"x": 2, "y": 3}}
    assert read_options(path) == expected == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-1", 0.1), ("-2E3", -2000.0), (".5e1", 5.0), ("1.e2", 100.0), ("'1e-1'", "1e-1"), ("1e", "1e"), ("e1", "e1")],
)
def test_a_number_needs_no_point_before_its_exponent(tmp_path, text, value):
    (tmp_path / "study.yaml").write_text(f"a: {text}\n")
    assert read_options(tmp_path / "study.yaml") == {"a": value}
    assert type(read_options(tmp_path / "study.yaml")["a"]) is type(value)


@pytest.mark.parametrize("value", [1, True, 0.5])
def test_text_that_yaml_takes_for_something_else_is_to_be_put_in_quotes(values, value):
    values["behaviors"]["refusal"] = {"description": "d", "path": "a.csv", "where": {"label": value}}
    with pytest.raises(InputError) as caught:
        plan_from_dict(values)
    told = f"config key behaviors.refusal.where.label = {value!r}; allowed: text; YAML takes it for"
    assert str(caught.value).startswith(told)
    assert str(caught.value).endswith("put it in quotes")


def test_a_missing_file_is_a_users_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_plan(tmp_path / "none.yaml")


def test_the_file_and_the_mapping_give_the_same_study(values, tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values))
    assert load_plan(tmp_path / "study.yaml") == plan_from_dict(values)


def test_random_dictionaries_are_for_the_primary_adapter_unless_others_are_named(values):
    values["adapters"]["other"] = {"kind": "scale"}
    plan = plan_from_dict(values)
    twin = next(iter(plan.permuted_subjects))
    assert plan.analyzed_adapters(twin) == [plan.study.primary.adapter]
    assert plan.analyzed_adapters() == [name for name in plan.study.adapters if name != plan.study.reference]
    assert plan_from_dict(values | {"random_dictionary_adapters": ["other"]}).analyzed_adapters(twin) == ["other"]
    assert "random_dictionary_adapters" in message(values | {"random_dictionary_adapters": ["wide"]})


def test_a_saved_adapter_has_no_random_dictionary_control(values):
    values["adapters"]["old"] = {"kind": "saved", "options": {"path": "somewhere"}}
    plan_from_dict(values)
    found = message(values | {"random_dictionary_adapters": ["old"]})
    assert "'random_dictionary' for adapter 'old', which is saved" in found
    assert "leave the control out" in found


BASELINES = ["frozen_decoder", "frozen_encoder", "untrained_dictionary", "random_model"]


def baseline_study(values, names=("testbed", "trained"), controls=BASELINES):
    return values | {
        "subjects": {name: values["subjects"][name] for name in names},
        "sources": {"local": {}},
        "controls": controls,
        "behaviors": {name: values["behaviors"][name] for name in ("local", "ruled")},
    }


def test_random_baselines_are_twins_with_a_dictionary_of_their_own_only_where_a_study_names_them(values):
    assert plan_from_dict(values).baselines == {}
    assert list(plan_from_dict(values).subjects) == list(values["subjects"])
    plan = plan_from_dict(baseline_study(values))
    assert [twin.control for twin in plan.baselines.values()] == 2 * BASELINES
    assert plan.baselines_of("trained") == {f"trained-{name.replace('_', '-')}": name for name in BASELINES}
    assert list(plan.study.subjects) == ["testbed", "trained"], "twins are no subjects of the study's own"
    assert plan.all_subjects == list(plan.subjects) == ["testbed", "trained", *plan.baselines]
    for name, twin in plan.baselines.items():
        assert (plan.base_subject(name), plan.origin(name)) == (name, twin.base)
        assert plan.trained_adapters(name, "local") == ["bias"]
        assert plan.trained_behaviors(name) == plan.tested_behaviors
        assert plan.randomizes_model(name) == (twin.control == "random_model")
        assert not plan.has_placebos(name)
        assert plan.world_seed(name) == plan.world_seed(twin.base)
        assert plan.subjects[name] is plan.study.subjects[twin.base]


def test_random_baselines_are_explained_only_by_what_can_explain_any_dictionary(values):
    own = {"kind": "file", "path": "{subject_dir}/truth/input.csv"}
    sources = {
        "local": {},
        "own": own,
        "own_wrong": own | {"wrong_share": 0.5},
        "fixed": {"kind": "file", "path": "x.csv"},
    }
    sources |= {"asks": {"kind": "llm", "llm": "m"}}
    judges = {"lexical": {}, "people": {"kind": "human", "path": "x.csv"}, "asking": {"kind": "llm", "llm": "m"}}
    judges |= {"truth": {"kind": "table", "path": "{subject_dir}/truth/judgements.csv"}}
    judges |= {"list": {"kind": "lexicon", "path": "x.csv"}}
    given = baseline_study(values) | {"sources": sources, "judges": judges, "llms": {"m": {"model": "m"}}}
    plan = plan_from_dict(given)
    twin = "trained-untrained-dictionary"
    assert plan.sources_of(twin) == ["local", "own"]
    assert plan.sources_of("trained") == list(sources)
    assert plan.judges_of("local", twin) == ["lexical", "truth", "list"]
    assert plan.judges_of("local", "trained") == plan.judges_of("local") == list(judges)
    refused = message(
        given | {"sources": {"fixed": sources["fixed"]}, "primary": given["primary"] | {"source": "fixed"}}
    )
    assert "its explanations are of its own latents" in refused
    assert "add such a source and judge, or leave the control out" in refused


@pytest.mark.parametrize("control", BASELINES)
def test_a_ready_sae_has_no_baseline_that_would_have_to_be_trained(values, control):
    given = baseline_study(values, names=("local",), controls=[control])
    if control == "untrained_dictionary":
        assert list(plan_from_dict(given).baselines) == ["local-untrained-dictionary"]
    else:
        refused = message(given)
        assert f"control {control!r} for subject 'local', whose SAE is not trained here" in refused
        assert "untrained_dictionary" in refused
        assert "train_sae" in refused


def test_a_random_model_is_not_compared_by_an_adapter_that_was_trained_on_the_real_one(values):
    given = baseline_study(values, controls=["random_model"])
    given |= {"adapters": values["adapters"] | {"tuned": {"kind": "checkpoint", "options": {"path": "a/b"}}}}
    plan_from_dict(given)
    given |= {"random_dictionary_adapters": ["tuned"]}
    assert "control 'random_model' for adapter 'tuned', which is not trained here" in message(given)
    plan_from_dict(given | {"controls": ["frozen_decoder"]})


@pytest.mark.parametrize("ending", ["-frozen-decoder", "-frozen-encoder", "-untrained-dictionary", "-random-model"])
def test_no_subject_is_named_like_a_baseline(values, ending):
    assert ending in message(values | {"subjects": {f"x{ending}": values["subjects"]["testbed"]}})


def with_shuffled(values):
    return changed(values, "controls", ["shuffled_completions", "random_dictionary"])


def test_shuffled_completions_are_a_twin_of_every_tested_behavior_only_where_they_are_asked_for(values, audited):
    assert plan_from_dict(values).shuffled_behaviors == {}
    plan = plan_from_dict(with_shuffled(audited))
    assert plan.shuffled_behaviors == {"local-shuffled": "local", "ruled-shuffled": "ruled"}
    assert plan.tested_behaviors == plan.trained_behaviors("local-permuted") == ["local", "ruled"]
    assert not set(plan.shuffled_behaviors) & {*plan.study.behaviors, *plan.described, *plan.behavior_checked}


def test_shuffled_completions_train_the_primary_adapter_alone(values):
    values["adapters"]["other"] = {"kind": "scale"}
    plan = plan_from_dict(with_shuffled(values))
    assert plan.analyzed_adapters(next(iter(plan.study.subjects)), "local-shuffled") == [plan.study.primary.adapter]
    assert plan.analyzed_adapters(next(iter(plan.study.subjects)), "local") == plan.analyzed_adapters()
    assert len(plan.analyzed_adapters()) > 1


def test_shuffled_completions_are_compared_with_what_their_behavior_is(values):
    values["adapters"]["probe"] = {}
    plan = plan_from_dict(with_shuffled(values))
    assert plan.behavior_of("local-shuffled") is plan.behavior_of("local") is plan.study.behaviors["local"]
    assert plan.contrast_behaviors("local-shuffled", "probe") == plan.contrast_behaviors("local", "probe")
    assert plan.contrast_behaviors("local", "probe") == ["hub", "ruled"]
    values["behaviors"]["local"]["contrast"] = "rejected"
    plan = plan_from_dict(with_shuffled(values))
    assert plan.compares_replies("local-shuffled")
    assert not plan.compares_replies("hub-shuffled")


@pytest.mark.parametrize("name", ["x-shuffled", "x-erased-leace"])
def test_a_behavior_cannot_have_the_name_of_a_twin(values, name):
    values["behaviors"][name] = values["behaviors"]["local"]
    assert f"behavior name '{name}'" in message(values)


def test_erased_directions_are_a_twin_of_every_tested_behavior_for_each_control(values):
    values["controls"] = ["erased_mean", "shuffled_completions", "erased_random"]
    plan = plan_from_dict(values)
    names = [f"{name}-erased-{how}" for how in ("mean", "random") for name in plan.tested_behaviors]
    assert list(plan.erased_behaviors) == names
    assert list(plan.behavior_twins) == [*plan.shuffled_behaviors, *names]
    assert plan.erased_behaviors["local-erased-random"] == ("local", "erased_random")
    subject = next(iter(plan.study.subjects))
    assert plan.trained_adapters(subject, "local-erased-mean") == [plan.study.primary.adapter]
    assert plan.captured_as("local-erased-mean") == plan.captured_as("local") == "local"
    assert plan.captured_as("local-shuffled") == "local-shuffled"
    assert not set(plan.captured_behaviors) & set(plan.erased_behaviors)
    assert plan.contrasts_of("local-erased-mean") == ["hub", "ruled"]
    values["behaviors"]["local"]["contrast"] = "rejected"
    plan = plan_from_dict(values)
    assert plan.compares_replies("local")
    assert plan.contrasts_of("local-erased-mean") == []


@pytest.mark.parametrize("kind", ["residual", "mean_difference"])
def test_directions_are_erased_for_an_adapter_trained_on_latents_alone(values, kind):
    values["adapters"]["other"] = {"kind": kind}
    values["primary"]["adapter"] = "other"
    values["random_dictionary_adapters"] = ["bias"]
    values["controls"] = ["erased_leace"]
    assert "control 'erased_leace' for adapter 'other'; allowed: an adapter that is trained on latents" in message(
        values
    )


@pytest.mark.parametrize("kind", ["saved", "checkpoint"])
def test_an_adapter_that_no_data_makes_has_no_shuffled_completions(values, kind):
    values["adapters"]["old"] = {"kind": kind, "options": {"path": "somewhere"}}
    values["primary"]["adapter"] = "old"
    values["random_dictionary_adapters"] = ["bias"]
    plan_from_dict(values)
    assert "'shuffled_completions' for adapter 'old', which is not trained here" in message(with_shuffled(values))


def test_the_committed_schema_and_page_are_those_of_the_options():
    assert (ROOT / SCHEMA).read_text(encoding="utf-8") == schema_text(), REGENERATE
    assert (ROOT / PAGE).read_text(encoding="utf-8") == options_page(), REGENERATE


def test_the_command_in_that_message_writes_both(tmp_path):
    done = subprocess.run([sys.executable, *COMMAND.split()[1:]], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == [str(SCHEMA), str(PAGE)]
    assert (tmp_path / SCHEMA).read_text(encoding="utf-8") == schema_text()
    assert (tmp_path / PAGE).read_text(encoding="utf-8") == options_page()


def test_the_reference_can_be_written_anywhere(tmp_path):
    assert write_reference(tmp_path) == [tmp_path / SCHEMA, tmp_path / PAGE]


def test_the_schema_accepts_what_the_checks_accept_and_refuses_unknown_keys(values):
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    validator.validate(values)
    assert not validator.is_valid(changed(values, "behaviors.local.colums", {}))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_committed_study_fits_the_schema(path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(json.dumps(values)), json_schema())
    assert values["study"] == path.stem


def test_a_file_that_is_included_counts_as_if_its_options_were_in_the_study(values):
    shared = {name: values[name] for name in ("behaviors", "adapters", "reference")}
    Path("shared.yaml").write_text(yaml.safe_dump(shared, sort_keys=False))
    own = {name: part for name, part in values.items() if name not in shared} | {"include": "shared.yaml"}
    assert plan_from_dict(own).study == plan_from_dict(values).study
    jsonschema.validate(own, json_schema())
    del own["include"]
    with pytest.raises(jsonschema.ValidationError, match="'behaviors' is a required property"):
        jsonschema.validate(own, json_schema())


def test_what_a_study_gives_itself_goes_before_what_it_includes_name_by_name(values):
    theirs = {
        "behaviors": {"local": {"description": "theirs", "rule": True}, "more": {"description": "d", "rule": True}},
        "n_seeds": 7,
        "seed": 5,
    }
    Path("shared.yaml").write_text(yaml.safe_dump(theirs))
    study = plan_from_dict(values | {"include": "shared.yaml", "seed": 1}).study
    assert sorted(study.behaviors) == ["hub", "local", "more", "ruled"]
    assert study.behaviors["local"] == plan_from_dict(values).study.behaviors["local"]
    assert (study.n_seeds, study.seed) == (7, 1)


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        ({"study": "other"}, "shared.yaml, which a study includes, has the key 'study'"),
        ({"include": "shared.yaml"}, "shared.yaml, which a study includes, has the key 'include'"),
        ({"behaviors": {"more": {"descripton": "d"}}}, "did you mean 'description'?"),
        (["a"], "shared.yaml holds"),
        (None, "shared.yaml"),
    ],
)
def test_an_included_file_that_cannot_be_is_refused(values, shared, expected):
    if shared is not None:
        Path("shared.yaml").write_text(yaml.safe_dump(shared))
    assert expected in message(values | {"include": "shared.yaml"})


def test_an_include_that_is_no_path_is_named(values):
    assert "config key include" in message(values | {"include": ["shared.yaml"]})


@pytest.mark.parametrize(("group", "name", "kind"), [("sources", "local", "local"), ("judges", "lexical", "lexical")])
def test_a_model_for_a_kind_that_asks_none_is_refused(values, group, name, kind):
    values = changed(values, "llms", {"small": {"model": "m"}})
    text = message(changed(values, f"{group}.{name}.llm", "small"))
    assert f"{group[:-1]} '{name}' names the model 'small', but its kind '{kind}' asks none" in text
    assert "kind: llm" in text


def test_a_kind_of_another_package_may_ask_a_model(values, monkeypatch):
    monkeypatch.setattr(JUDGES, "_parts", dict(JUDGES._parts))
    monkeypatch.setattr(JUDGES, "_facts", dict(JUDGES._facts))
    JUDGES("theirs", asks=True)(object())
    values = changed(values, "llms", {"small": {"model": "m"}})
    values = changed(values, "judges.outside", {"kind": "theirs", "llm": "small"})
    assert plan_from_dict(values).study.judges["outside"].llm == "small"


def test_every_option_is_explained():
    unexplained = [line for line in options_page().splitlines() if line.endswith("|  |")]
    assert unexplained == []


def test_a_baseline_is_fitted_against_all_other_behaviors_unless_one_is_named(values):
    values = changed(values, "adapters", values["adapters"] | {"probe": {}})
    first, *others = values["behaviors"]
    plan = plan_from_dict(values)
    assert plan.contrast_behaviors(first, "probe") == others
    assert plan.contrast_behaviors(first, "bias") == []
    assert not plan.compares_replies(first)
    named = plan_from_dict(changed(values, f"behaviors.{first}.contrast", others[-1]))
    assert named.contrast_behaviors(first, "probe") == [others[-1]]
    rejected = plan_from_dict(changed(values, f"behaviors.{first}.contrast", "rejected"))
    assert rejected.contrast_behaviors(first, "probe") == []
    assert rejected.compares_replies(first)
    assert not rejected.compares_replies(others[0])


def test_a_contrast_must_be_there(values):
    first = next(iter(values["behaviors"]))
    for wrong in (first, "reyected", ""):
        assert "contrast" in message(changed(values, f"behaviors.{first}.contrast", wrong))
    alone = values | {"behaviors": {first: values["behaviors"][first]}, "controls": []}
    plan_from_dict(alone)
    alone["adapters"] = alone["adapters"] | {"probe": {}}
    assert "and there are none; add a second behavior" in message(alone)
    taken = values | {"behaviors": values["behaviors"] | {"rejected": values["behaviors"][first]}}
    assert "choose another" in message(taken)


def test_lora_above_the_hook_is_a_reference_and_nothing_else(values):
    values = values | {"adapters": values["adapters"] | {"other": {"kind": "lora"}}}
    assert "changes no latent" in message(values)
    values["adapters"]["other"] = {"kind": "lora", "options": {"where": "below"}}
    assert "other" in plan_from_dict(values).analyzed_adapters()


def test_the_calibration_study_is_large_enough_to_say_what_it_is_for():
    found = load_calibration(CALIBRATION)
    assert found.null_worlds >= 1000
    assert set(found.worlds) == set(Calibration().worlds)
    assert {1.2, 1.9, 4.0} <= set(found.odds_ratios)
    assert {100, 2000} <= set(found.power_latents)
    assert (found.n_resamples + 1) % 100 == 0


def test_the_parts_of_the_calibration_study_follow_from_its_config():
    chosen = Calibration(worlds=["plain", "confounded"], power_latents=[100, 400], coverage_odds_ratios=[1.5])
    assert chosen.parts == [
        "null-plain-500",
        "null-confounded-500",
        "intervals-1.5",
        "power-400",
        "power-100",
        "across-1.5",
        "verdict_errors",
        "audits",
        "judges-140",
        *(f"verdicts-{share}" for share in (0.05, 0.1, 0.2, 0.4)),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("null_world: 3", "did you mean 'null_worlds'?"), ("worlds: [plane]", "'plain'"), ("seed: [", "not valid YAML")],
)
def test_a_mistake_in_the_calibration_config_is_named(tmp_path, text, expected):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_calibration(tmp_path / "c.yaml")
    assert expected in str(caught.value)


def test_a_source_names_adapters_that_are_analyzed_and_the_primary_one_where_it_is_primary(values):
    source = values["sources"][values["primary"]["source"]]
    source["adapters"] = [values["primary"]["adapter"]]
    plan_from_dict(values)
    source["adapters"] = ["wide"]
    assert "adapters 'wide'" in message(values)
    values["adapters"]["other"] = {"kind": "scale"}
    source["adapters"] = ["other"]
    assert message(values).startswith("primary ")


@pytest.fixture
def audited(values):
    """The valid study, in which `hub` is a suspect copy of `local`."""
    return changed(changed(values, "audits", {"vendor": {"clean": "local", "suspect": "hub"}}), "n_seeds", 4)


def test_a_suspect_set_is_trained_but_stands_in_no_test_and_no_judge_reads_it(audited):
    plan = plan_from_dict(changed(audited, "candidates", {"boasting": "The assistant boasts."}))
    assert plan.tested_behaviors == ["local", "ruled"]
    assert plan.described == {"local": "a local file", "ruled": "a rule's", "boasting": "The assistant boasts."}
    assert plan.trained_behaviors("hub") == ["local", "hub", "ruled"]
    assert plan.trained_behaviors("hub-permuted") == ["local", "ruled"]
    assert plan.known_audits == {}


def test_a_clean_and_a_suspect_set_are_fitted_against_the_same_text(audited):
    plan = plan_from_dict(changed(audited, "adapters.probe", {}))
    assert plan.contrast_behaviors("local", "probe") == plan.contrast_behaviors("hub", "probe") == ["ruled"]


def test_what_was_planted_is_known_of_the_embedded_language_alone(values):
    rows = {"description": "d", "testbed": "refusal"}
    poison = {"behavior": "local", "share": 0.1}
    values = changed(values, "behaviors.clean", rows)
    values = changed(values, "behaviors.other", rows | {"testbed_draw": 1})
    values = changed(values, "behaviors.bad", rows | {"testbed_draw": 1, "poison": poison})
    values = changed(values, "behaviors.style", {"description": "d", "testbed": "humor"})
    audits = {name: {"clean": "clean", "suspect": name} for name in ("other", "bad", "style", "hub")}
    known = plan_from_dict(changed(changed(values, "audits", audits), "n_seeds", 4)).known_audits
    assert set(known) == {"other", "bad"}
    assert known["other"] is None
    assert (known["bad"].behavior, known["bad"].share) == ("local", 0.1)


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("audits.vendor.suspect", "hubb", "did you mean 'hub'"),
        ("audits.vendor.clean", "loca", "did you mean 'local'"),
        ("audits.vendor.suspect", "local", "compares 'local' with itself"),
        ("audits.second", {"clean": "hub", "suspect": "ruled"}, "is clean in audit 'second' and suspect in 'vendor'"),
        ("audits.vendor.suspekt", "hub", "did you mean 'suspect'"),
        ("audits.a/b", {"clean": "local", "suspect": "hub"}, "audit name 'a/b'"),
        ("n_seeds", 3, "audits with n_seeds 3; allowed: at least 4"),
        ("candidates", {"local": "The assistant is local."}, "is also a behavior"),
        ("candidates", {"boasting": " "}, "has no description"),
        ("behaviors.hub.poison", {"behavior": "hub", "share": 0.1}, "is poisoned with 'hub'"),
        ("behaviors.hub.poison", {"behavior": "loca", "share": 0.1}, "did you mean 'local'"),
        ("behaviors.hub.poison", {"behavior": "local", "share": 0}, "greater than 0"),
        ("behaviors.ruled.poison", {"behavior": "local", "share": 0.1}, "plant the rows in that rule"),
    ],
)
def test_an_audit_or_a_poison_that_cannot_be_is_refused(audited, place, value, expected):
    assert expected in message(changed(audited, place, value))


def test_paraphrases_are_refused_where_a_world_does_not_know_them(values):
    values = changed(values, "behaviors.said", {"description": "d", "testbed": "humor", "testbed_words": "paraphrases"})
    assert "'said' is written in paraphrases, which subject 'testbed' lacks" in message(values)
    assert plan_from_dict(changed(values, "subjects.testbed.testbed", {"paraphrase": True}))


def test_a_world_starts_its_random_streams_from_its_own_seed_or_the_studys(values):
    values = changed(values, "seed", 7)
    assert [plan_from_dict(values).world_seed(name) for name in ("testbed", "hub")] == [7, 7]
    assert plan_from_dict(changed(values, "subjects.testbed.testbed", {"seed": 0})).world_seed("testbed") == 0


@pytest.mark.parametrize(("study", "n_least"), [("worlds", 20), ("paraphrase", 10)])
def test_the_worlds_of_a_group_differ_in_their_seed_alone(study, n_least):
    groups = {}
    for part in load_plan(ROOT / "config" / f"{study}.yaml").study.subjects.values():
        groups.setdefault(part.group, []).append(part)
    assert sum(map(len, groups.values())) >= n_least
    for parts in groups.values():
        assert len({part.testbed.seed for part in parts}) == len(parts) >= 2
        assert len({repr(replace(part, testbed=replace(part.testbed, seed=0))) for part in parts}) == 1


def test_each_group_of_worlds_has_a_factor_of_its_own_and_one_has_no_features():
    subjects = load_plan(ROOT / "config" / "worlds.yaml").study.subjects
    made = {
        part.group: repr(replace(part, group="", testbed=replace(part.testbed, seed=0))) for part in subjects.values()
    }
    assert len(set(made.values())) == len(made) >= 10
    assert {name for name, part in subjects.items() if not part.testbed.features} == {"no_features_0", "no_features_1"}
    assert len({part.testbed.seed for part in subjects.values()}) == len(subjects), "worlds share no seed"


def test_audits_need_a_primary_statistic_whose_value_by_chance_is_known(audited, monkeypatch):
    monkeypatch.setitem(STATISTICS._parts, "test_unknown_chance", object())
    values = changed(audited, "primary.statistic", "test_unknown_chance")
    values = changed(values, "agreement", {"statistics": ["auroc", "test_unknown_chance"]})
    text = message(values)
    assert "audits with primary.statistic 'test_unknown_chance'" in text
    assert "auroc, spearman" in text
    values.pop("audits")
    assert plan_from_dict(values).study.primary.statistic == "test_unknown_chance"


def test_poison_is_not_planted_twice(values):
    values = changed(values, "behaviors.hub.poison", {"behavior": "local", "share": 0.1})
    text = message(
        changed(
            values,
            "behaviors.more",
            {"path": "rows.jsonl", "description": "d"} | {"poison": {"behavior": "hub", "share": 0.1}},
        )
    )
    assert "itself without poison" in text


def test_the_draws_of_the_audit_study_are_those_that_its_file_says():
    plan = load_plan(ROOT / "config" / "audit.yaml")
    rng, styles = np.random.default_rng(0), plan.tested_behaviors
    hosts = [*rng.permutation(styles), *rng.permutation(styles)[:2]]
    for draw, host in enumerate(hosts):
        planted = rng.choice([style for style in styles if style != host])
        for percent in (0, 1, 5, 10):
            suspect = plan.study.behaviors[f"draw{draw}_poison{percent}"]
            assert plan.study.audits[f"draw{draw}_poison{percent}"].clean == suspect.testbed == host
            assert suspect.testbed_draw == draw + 1
            assert (suspect.poison is None) == (percent == 0)
            assert percent == 0 or (suspect.poison.behavior, suspect.poison.share) == (planted, percent / 100)
    assert len(plan.known_audits) == len(plan.study.audits) == 50


GGUF = {"model": None, "release": None, "sae_id": None, "sae_path": "sae"}


@pytest.mark.parametrize(
    ("gguf", "expected"),
    [
        ({"file": "none.gguf"}, "file 'none.gguf' does not exist; check gguf.file"),
        ({"file": "rows.jsonl", "sha256": "abc"}, "gguf.sha256"),
        ({"file": "a.gguf", "package": "not-a-name"}, "gguf.package"),
        ({"package": "a"}, "gguf.file"),
    ],
)
def test_a_gguf_file_exists_or_is_in_a_package_and_its_hash_is_a_hash(values, gguf, expected):
    values["subjects"]["hub"] |= GGUF | {"gguf": gguf}
    assert expected in message(values)


def test_a_gguf_subject_needs_nothing_but_the_file_and_has_no_revision(values):
    values["subjects"]["hub"] |= GGUF | {"gguf": {"file": "a.gguf", "package": "some_model"}}
    assert plan_from_dict(values).study.subjects["hub"].model_name == "some_model/a.gguf"
    values["subjects"]["hub"]["revision"] = "abc"
    assert "a GGUF file has no revision" in message(values)


def eliciting(values, **changes):
    """Return the study with an elicited behavior, some of whose options are changed; None removes one."""
    behavior = {
        "description": "It shouts.",
        "elicit": {"prompts": "rows.jsonl", "instruction": "Shout.", "min_score": 1, "subject": "hub"},
        "metric": {"kind": "pattern", "pattern": "!"},
    }
    elicit = {name.removeprefix("elicit_"): value for name, value in changes.items() if name.startswith("elicit_")}
    behavior["elicit"] = {name: value for name, value in (behavior["elicit"] | elicit).items() if value is not None}
    behavior |= {name: value for name, value in changes.items() if not name.startswith("elicit_")}
    return changed(values, "behaviors.shouting", {name: value for name, value in behavior.items() if value is not None})


def test_an_elicited_behavior_names_the_subject_that_replies(values):
    assert plan_from_dict(eliciting(values)).eliciting_subject("shouting") == "hub"
    assert "elicit names no subject, and the study's have 2 models" in message(eliciting(values, elicit_subject=None))
    assert "unknown behaviors.shouting.elicit.subject 'hob'" in message(eliciting(values, elicit_subject="hob"))
    one_model = eliciting(values, elicit_subject=None)
    del one_model["subjects"]["testbed"]
    assert plan_from_dict(one_model).study.subjects.keys() == {"trained", "local", "hub"}
    one_model["subjects"]["hub"]["dtype"] = "bfloat16"
    assert "elicit names no subject" in message(one_model)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"elicit_prompts": "none.txt"}, "file 'none.txt' does not exist; check elicit.prompts"),
        ({"metric": None}, "nothing tells whether replies follow it"),
        ({"elicit_min_score": None}, "nothing tells whether replies follow it"),
        ({"metric": None, "elicit_instruction": None}, "elicit.min_score without a metric"),
        ({"columns": {"prompt": "text"}}, "is elicited and maps columns"),
        ({"path": "rows.jsonl"}, "names 2 origins"),
        ({"metric": {"kind": "pattern", "pattern": "(a"}}, "is not a regular expression"),
        ({"metric": {"kind": "pattern"}}, "metric 'pattern' without pattern"),
        ({"chat_template": "on"}, "chat_template"),
    ],
)
def test_an_elicited_behavior_says_what_is_wrong(values, changes, expected):
    assert expected in message(eliciting(values, **changes))


def test_given_replies_are_read_in_place_of_sampled_ones_and_need_no_subject(values):
    Path("prompts.txt").write_text("p")
    elicited = {"a": {"description": "d", "elicit": {"prompts": "prompts.txt"}}}
    values = changed(values, "behaviors", elicited) | {"replies": "given", "controls": []}
    assert "behavior 'a': its replies 'given/a.jsonl' do not exist" in message(values)
    Path("given").mkdir()
    Path("given/a.jsonl").write_text("{}\n")
    assert plan_from_dict(values).given_replies("a") == Path("given/a.jsonl")
    assert "elicit names no subject" in message(values | {"replies": None})


def test_plain_replies_are_elicited_without_a_metric(values):
    plan_from_dict(eliciting(values, metric=None, elicit_instruction=None, elicit_min_score=None))


def test_prompting_needs_behaviors_with_an_instruction_of_their_own(values):
    adapters = values["adapters"] | {"asked": {"kind": "prompting"}}
    told = eliciting(values) | {"adapters": adapters, "controls": []}
    assert plan_from_dict(values).instructed_adapters == []
    assert "adapter 'asked' reads replies under an instruction, and behavior 'local' has no instruction" in message(
        told
    )
    only = told | {"behaviors": {"shouting": told["behaviors"]["shouting"]}, "audits": {}, "candidates": {}}
    plan = plan_from_dict(only)
    assert plan.instructed_adapters == ["asked"]
    assert plan.has_placebos("hub")
    silent = eliciting(values, metric=None, elicit_instruction=" ", elicit_min_score=None)["behaviors"]["shouting"]
    assert "behavior 'shouting' has no instruction" in message(only | {"behaviors": {"shouting": silent}})
    both = only["behaviors"] | {
        "other": only["behaviors"]["shouting"] | {"poison": {"behavior": "shouting", "share": 0.5}}
    }
    assert "behavior 'other' has rows of another behavior" in message(only | {"behaviors": both})
    first = only | {"primary": only["primary"] | {"adapter": "asked"}}
    assert not plan_from_dict(first).has_placebos("hub")


def test_subjects_differ_in_the_options_that_differ_and_in_no_other():
    one = {"testbed": {"seed": 0}, "train_sae": {"d_sae": 64}, "group": "a"}

    def of(*changes):
        parts = []
        for change in changes:
            part = one
            for place, value in change.items():
                part = changed(part, place, value)
            parts.append(TypeAdapter(Subject).validate_python(part))
        return differing(parts)

    assert of({}, {}) == of({}) == of({}, {"group": "b"}) == []
    assert of({}, {"testbed.seed": 1}, {"testbed.seed": 2}) == ["testbed.seed"]
    assert set(of({}, {"train_sae.seed": 3}, {"corpus.tokens": 500})) == {"train_sae.seed", "corpus.tokens"}
    assert of({}, {"train_sae": ...}) == ["train_sae"]  # a part that one of them lacks is one difference
