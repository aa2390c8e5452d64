"""What tests/faults/fuzz.py found: files that readers met with an exception of another kind are a user's errors."""

import contextlib
import json
import sqlite3
from collections import Counter
from types import SimpleNamespace

import pandas as pd
import pytest

from isaerft.adapters.base import make_adapter
from isaerft.behaviors.elicited import kept_records
from isaerft.behaviors.readers import Row, field_value
from isaerft.config import Elicit, Judge, Llm, plan_from_dict
from isaerft.config.base import read_options
from isaerft.errors import InputError
from isaerft.explanations import read_sample
from isaerft.explanations.contexts import read_contexts
from isaerft.explanations.neuronpedia.records import SourceId
from isaerft.explanations.neuronpedia.store import Store
from isaerft.io import read_json
from isaerft.judges import judge_explanations, read_judgements
from isaerft.judges.file import as_numbers
from isaerft.judges.lexicon import read_word_list
from isaerft.llm import ResponseCache
from isaerft.outside import damage
from isaerft.subjects.dictionary import read_card
from isaerft.table import Column, Table


@pytest.mark.parametrize("text", ["2024-99-99", "!!int :", "a: " + "9" * 5000, "[" * 3000, "!!timestamp x"])
def test_yaml_that_becomes_no_value_is_named(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"study\.yaml is not valid YAML"):
        read_options(path)


LONG = "x" * 5000


@pytest.mark.parametrize(
    "changed",
    [
        {"include": LONG},
        {"replies": LONG, "behaviors": {"a": {"description": "a", "elicit": {"prompts": LONG}}}},
        {"behaviors": {"a": {"description": "a", "path": LONG}}},
        {"sources": {"local": {"kind": "file", "path": LONG}}},
        {"judges": {"lexical": {"kind": "table", "path": LONG}}},
        {"subjects": {"toy": {"gguf": {"file": LONG}, "hook_name": "blocks.0.hook_resid_post"}}},
        {"subjects": {"toy": {"model": "gpt2", "sae_path": LONG, "corpus": {"sample": True}}}},
    ],
)
def test_a_path_longer_than_file_systems_allow_does_not_exist(changed):
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}}},
        "behaviors": {name: {"description": name, "rule": True} for name in ("a", "b")},
        "adapters": {"bias": {}},
        "sources": {"local": {}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
    }
    with pytest.raises(InputError, match=r"x{20}"):
        plan_from_dict(values | changed)


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000, '{"a":' * 100_000])
def test_json_that_becomes_no_value_is_named(tmp_path, text):
    path = tmp_path / "cfg.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"cfg\.json is not valid JSON"):
        read_json(path)


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected", "truncated"])
@pytest.mark.parametrize("value", [None, 3, {"a": 1}, "\ud800"])
def test_replies_of_another_study_are_checked(tmp_path, field, value):
    row = {"id": "a", "prompt": "Ask.", "chosen": "kites", "rejected": "", "truncated": []}
    path = tmp_path / "replies.jsonl"
    path.write_text(json.dumps(row | {field: value}))
    with pytest.raises(InputError, match=rf"replies\.jsonl line 1: {field} "):
        kept_records(path, Elicit(prompts="p"), None, label="b", pairs=True, dropped=Counter())


def test_replies_may_lack_id_and_truncated(tmp_path):
    path = tmp_path / "replies.jsonl"
    path.write_text('{"prompt": "Ask.", "chosen": "kites", "rejected": "none"}')
    records, card = kept_records(path, Elicit(prompts="p"), None, label="b", pairs=True, dropped=Counter())
    assert [record.chosen for record in records] == ["kites"]
    assert card["share_truncated"] == 0


@pytest.mark.parametrize("row", [{"rationale": ["a"]}, {"explanation": {"a": 1}}, {"expected_effect": [1]}])
@pytest.mark.parametrize("kind", ["table", "human"])
def test_a_list_is_no_judgement(tmp_path, kind, row):
    path = tmp_path / "judged.jsonl"
    path.write_text(json.dumps({"explanation": "cats", "behavior": "b", "expected_effect": 1} | row))
    explanations = pd.DataFrame({"latent_index": [0], "explanation": ["cats"], "side": "both", "url": ""})
    with pytest.raises(InputError, match=rf"judged\.jsonl line 1: {next(iter(row))} "):
        judge_explanations("x", Judge(kind=kind, path=str(path)), explanations, {"b": "bees"}, subject_dir=tmp_path)


def test_a_column_that_cannot_be_printed_is_an_unknown_column(tmp_path):
    path = tmp_path / "words.json"
    path.write_text('[{"\\ud800": 1}]')
    explanations = pd.DataFrame({"latent_index": [0], "explanation": ["cats"], "side": "both", "url": ""})
    with pytest.raises(InputError, match=r"unknown column in .*words\.json"):
        judge_explanations(
            "x", Judge(kind="lexicon", path=str(path)), explanations, {"b": "bees"}, subject_dir=tmp_path
        )


@pytest.mark.parametrize(
    ("column", "value"), [("latent_index", None), ("latent_index", "x"), ("expected_effect", "x"), ("confidence", [1])]
)
def test_judgements_of_other_types_name_the_column(tmp_path, column, value):
    row = {"latent_index": 1, "behavior": "b", "expected_effect": 0.5, "expected": True, "confidence": 0.5}
    path = tmp_path / "judgements.parquet"
    pd.DataFrame([row | {"rationale": "", column: value}]).to_parquet(path)
    with pytest.raises(InputError, match=f"column {column} is not"):
        read_judgements(path)


@pytest.mark.parametrize(("column", "value"), [("latent_index", None), ("stratum", "x"), ("matched_to", [1])])
def test_samples_of_other_types_name_the_column(tmp_path, column, value):
    row = {"latent_index": 1, "role": "case", "stratum": 0, "matched_to": 1, "drawn_for": "b/a"}
    path = tmp_path / "sample.parquet"
    pd.DataFrame([row | {column: value}]).to_parquet(path)
    with pytest.raises(InputError, match=f"column {column} is not"):
        read_sample(path)


def test_a_sample_with_a_missing_role_is_refused(tmp_path):
    row = {"latent_index": 1, "role": "case", "stratum": 0, "matched_to": 1, "drawn_for": "b/a"}
    path = tmp_path / "sample.parquet"
    pd.DataFrame([row, row | {"latent_index": 2, "role": None}, row | {"latent_index": 3, "role": "x"}]).to_parquet(
        path
    )
    with pytest.raises(InputError, match="has the roles"):
        read_sample(path)


@pytest.mark.parametrize("text", ["n\n.2", "n\n1e400", "n\n" + "9" * 30, "n\n\u00b2", "n,m\n1,2,3,4\n1"])
def test_numbers_of_another_kind_are_no_table(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="table"):
        Table("t", "x", (Column("n", "int", "x"),)).read(path)


@pytest.mark.parametrize("cells", [("x", "cats", "gpt", "t"), (1, b"cats", "gpt", "t"), (1, "cats", 2.5, "t")])
def test_look_ups_of_other_types_are_damage(tmp_path, cells):
    path = tmp_path / "look_ups.sqlite"
    with Store(path, SourceId("m", "l")):
        pass
    base = sqlite3.connect(path)
    base.execute("ALTER TABLE said DROP COLUMN checksum")
    base.execute("INSERT INTO said VALUES ('m', 'l', ?, ?, CAST(? AS BLOB), ?)", cells)
    base.commit()
    base.close()
    with pytest.raises(InputError, match=r"look-ups .* cannot be used"), Store(path, SourceId("m", "l")) as store:
        store.explanations()


def break_a_name(path, quoted):
    """Change the first byte of a name in a table's or index's definition, which SQLite quotes when it finds no such."""
    data = path.read_bytes()
    at = data.index(quoted)
    path.write_bytes(data[:at] + b"\xe4" + data[at + 1 :])


def test_a_file_of_look_ups_whose_definition_is_no_text_is_damage(tmp_path):
    path = tmp_path / "look_ups.sqlite"
    with Store(path, SourceId("m", "l")):
        pass
    break_a_name(path, b"latent, text")
    with pytest.raises(InputError, match=r"look-ups .* cannot be used"):
        Store(path, SourceId("m", "l"))


def test_a_cache_whose_definition_is_no_text_is_damage(tmp_path):
    from isaerft.llm import Reply

    path = tmp_path / "cache.sqlite"
    cache = ResponseCache(path)
    cache.put({"model": "m"}, Reply("x"))
    cache.close()
    break_a_name(path, b"study, llm)")
    with pytest.raises(InputError, match=r"the LLM cache .* cannot be used"):
        ResponseCache(path).get({"model": "m"})


@pytest.mark.parametrize("tokens", [float("inf"), "many", 0.5])
def test_an_account_that_is_no_number_is_damage(tmp_path, tokens):
    path, llm = tmp_path / "cache.sqlite", Llm(base_url="http://127.0.0.1:1/v1", model="m")
    cache = ResponseCache(path)
    cache.take("s", "m", llm, 10)
    cache.close()
    base = sqlite3.connect(path)
    base.execute("UPDATE used SET tokens = ?", (tokens,))
    base.commit()
    base.close()
    with pytest.raises(InputError, match=r"the LLM cache .* cannot be used"):
        ResponseCache(path).used("s", "m")


def test_a_length_that_is_not_finite_is_damage(tmp_path):
    from isaerft.llm import Reply

    path = tmp_path / "cache.sqlite"
    cache = ResponseCache(path)
    cache.put({"model": "m"}, Reply("x", completion_tokens=3))
    cache.close()
    base = sqlite3.connect(path)
    base.execute("UPDATE responses SET completion_tokens = ?", (float("inf"),))
    base.commit()
    base.close()
    with pytest.raises(InputError, match=r"the LLM cache .* cannot be used"):
        ResponseCache(path).mean_completion_tokens("m")


def test_a_parquet_file_whose_text_is_not_utf8_is_refused(tmp_path):
    row = {"latent_index": 1, "side": "input", "rank": 0, "token": "toktok", "before": "", "after": "", "value": 1.0}
    path = tmp_path / "contexts.parquet"
    pd.DataFrame([row]).to_parquet(path, compression=None, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"toktok", b"tok\xfftk"))
    with pytest.raises(InputError, match=r"contexts\.parquet .*UTF8"):
        read_contexts(path)


@pytest.mark.parametrize(("column", "value"), [("content", b"x"), ("completion_tokens", "many")])
def test_replies_in_the_cache_of_other_types_are_damage(tmp_path, column, value):
    from isaerft.llm import Reply

    llm, path = Llm(base_url="http://127.0.0.1:1/v1", model="m"), tmp_path / "cache.sqlite"
    request = {"model": llm.model, "messages": []}
    cache = ResponseCache(path)
    cache.put(request, Reply("x"))
    cache.close()
    base = sqlite3.connect(path)
    base.execute(f"UPDATE responses SET {column} = ?", (value,))
    base.commit()
    base.close()
    with pytest.raises(InputError, match=r"the LLM cache .* cannot be used"):
        ResponseCache(path).get(request)


@pytest.mark.parametrize("manifest", ["", None, [], {"block_names": 3}, {"block_names": [None]}])
def test_a_manifest_without_names_is_refused(tmp_path, manifest):
    from isaerft.adapters.saved import open_adapter

    (tmp_path / "blocks_manifest.json").write_text(json.dumps(manifest))
    dictionary = SimpleNamespace(hook_name="blocks.1.hook_resid_post", release="", sae_id="", d_sae=6)
    with pytest.raises(InputError, match=r"blocks_manifest\.json holds"):
        open_adapter(tmp_path, dictionary)


def test_a_judgement_of_a_latent_too_large_for_any_integer_is_refused(tmp_path):
    column = pd.Series([0, 10**400], index=["line 1", "line 2"], name="latent_index", dtype=object)
    with pytest.raises(InputError, match=r"line 2: latent_index 1000000"):
        as_numbers(column, 0, 100, whole=True)


def test_a_label_that_cannot_be_encoded_is_an_unknown_label(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"latent_index": 0, "behavior": "refusal", "label": "\\ud800"}')
    explanations = pd.DataFrame({"latent_index": [0], "explanation": ["cats"]})
    judge = Judge(kind="human", path=str(path))
    with pytest.raises(InputError, match=r"label in .*: .*ud800"):
        judge_explanations("human", judge, explanations, {"refusal": "refuses"}, subject_dir=tmp_path)


def test_a_version_of_five_thousand_digits_is_some_version(tmp_path):
    (tmp_path / "cfg.json").write_text(
        json.dumps({"metadata": {"sae_lens_version": "9" * 5000}, "d_in": 4, "d_sae": 6})
    )
    with contextlib.suppress(InputError):
        read_card(tmp_path)


def test_a_zip_that_contradicts_itself_is_cut(tmp_path):
    path = tmp_path / "scale.pt"
    end64 = b"PK\x06\x07" + b"\x00" * 4 + (1726).to_bytes(8, "little") + b"\x01]\x00\x00"
    path.write_bytes(b"PK" + end64 + b"PK\x05\x06\x00\x00\x00\x00\x07\x00\x07\x00F\x02\x00\x00x\x04\x00\x00\x00\x00")
    assert "is cut" in damage(path).reason


@pytest.mark.parametrize("options", [{"kind": "low_rank", "rank": 9**9}, {"kind": "mlp", "width": 9**9}])
def test_an_adapter_that_asks_for_more_than_memory_holds_is_refused(options):
    with pytest.raises(InputError, match="387420489"):
        make_adapter(options.pop("kind"), 6, options)


def test_a_word_that_cannot_be_encoded_is_escaped(tmp_path):
    path = tmp_path / "words.json"
    path.write_text('[{"word": "\\ud800", "side": "input", "behavior": "refusal", "effect": 0.5}]')
    read_word_list(path, {"refusal": "refuses"})


def test_bytes_in_a_template_are_no_text():
    row = Row("row 1", {"topic": b"\xff"})
    with pytest.raises(InputError, match="row 1: topic in a template"):
        field_value(row, "Write about {topic}.")


@pytest.mark.parametrize("n_blocks", [1001, 2**31, 2**63 - 1])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_model_of_absurdly_many_blocks_is_refused_before_they_are_built(tmp_path, architecture, n_blocks):
    from isaerft.config import Subject
    from isaerft.layout import SubjectFolder
    from isaerft.subjects.load import load_model
    from tests.conftest import make_model, make_tokenizer

    tokenizer = make_tokenizer()
    make_model(architecture, len(tokenizer), n_layers=1).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())
    name = "n_layer" if "n_layer" in stated else "num_hidden_layers"
    (tmp_path / "config.json").write_text(json.dumps(stated | {name: n_blocks}))
    with pytest.raises(InputError, match=f"has a config of {n_blocks} blocks; allowed: up to 1,000"):
        load_model(Subject(model=str(tmp_path), sae_path="sae"), SubjectFolder(tmp_path), "cpu")
