"""Verdicts are published and read back equal: as lists at Neuronpedia, in its export format, and as a data set."""

import asyncio
import gzip
import json
import logging

import numpy as np
import pandas as pd
import pytest
import yaml

from isaerft.analysis import table
from isaerft.cli.app import run_here
from isaerft.config import Neuronpedia, Source
from isaerft.errors import InputError
from isaerft.explanations import explain, read_explanations, write_explanations
from isaerft.layout import Results
from isaerft.publish import (
    PUBLISHED,
    dataset_folder,
    export_folder,
    lists_of,
    read_lists,
    read_verdicts,
    send_lists,
    write_folder,
)
from tests.analysis.small_study import make_study, options_of
from tests.servers.hub import TOKEN
from tests.servers.neuronpedia import KEY
from tests.servers.neuronpedia import Neuronpedia as Server

ID = "gemma-2-2b/20-gemmascope-res-16k"
N = 300
MAKERS = ("gpt-4o-mini/oai_token-act-pair", "human", "gpt-4o", "")
HOSTILE = 'says "a": =1+1 | <script>`x`</script>'


@pytest.fixture
def study(tmp_path):
    """Give the results of a study with 150 contradicted latents, 3 supported, 1 absorbed, and others."""
    results = Results(tmp_path / "results")
    names = ["contradicted"] * 150 + ["supported"] * 3 + ["absorbed"] + ["inconclusive"] * 100 + ["untestable"] * 46
    rows = pd.DataFrame({"latent_index": np.arange(N), "verdict": names})
    rows = rows.assign(
        subject="toy", source="said", judge="lexical", n_behaviors=6, score=0.5, pvalue=0.1, expected_score=2.0,
        power=0.9, contradiction_pvalue=0.01, contradiction_power=0.9,
        explanation=[f"concept {latent}" if latent else HOSTILE for latent in range(N)],
        qvalue=np.linspace(0.001, 0.9, N), contradiction_qvalue=np.linspace(0.9, 0.001, N),
        reason=[f"it predicts a rise with a; score 0.{latent}" for latent in range(N)],
    )  # fmt: skip
    verdicts = table("explanation_verdicts")
    verdicts.write(rows[verdicts.column_names], results.table("explanation_verdicts"))
    said = rows[["latent_index", "explanation"]].assign(side="input", url="https://x.org/1")
    said["maker"] = [MAKERS[latent % len(MAKERS)] for latent in range(N)]
    write_explanations(said, results.explanations("toy", "said"))
    facts = {"subject": "toy", "model": "gemma", "release": "r", "sae_id": "i", "hook_name": "h", "d_in": 8}
    facts |= {"d_sae": N, "n_alive": N, "n_dense": 0, "variance_explained": 0.8, "l0": 3.0, "loss_base": 2.0}
    subjects = table("subjects")
    frame = pd.DataFrame([facts | {"loss_spliced": 2.1}]).reindex(columns=subjects.column_names)
    subjects.write(frame, results.table("subjects"))
    write_provenance(results, "unknown")
    return results


def write_provenance(results, provenance):
    explained = table("explained_latents")
    row = {"subject": "toy", "source": "said", "design": "all", "n_asked": N, "n_explained": N, "n_unlabeled": 0}
    row |= {"n_failed": 0, "provenance": provenance, "n_compared": 0, "n_recognized": 0}
    explained.write(pd.DataFrame([row]).reindex(columns=explained.column_names), results.table("explained_latents"))


def verdicts_of(results, source_id=ID):
    return read_verdicts(make_study(), results, "toy", source_id=source_id)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NEURONPEDIA_API_KEY", KEY)
    with Server({latent: [] for latent in range(N)}) as running:
        yield running


def send(server, verdicts, **options):
    ask = Neuronpedia(**(server.options | options))
    return asyncio.run(send_lists(ask, verdicts.at_neuronpedia, lists_of(verdicts)))


def test_verdicts_sent_to_neuronpedia_are_read_back_equal(study, server):
    verdicts = verdicts_of(study)
    sent = send(server, verdicts)
    assert [one.is_new for one in sent] == [True] * 4  # 3 supported, 100 + 50 contradicted, 1 absorbed
    assert [len(one.latents) for one in sent] == [3, 100, 50, 1]
    found = asyncio.run(read_lists(Neuronpedia(**server.options), verdicts.at_neuronpedia, lists_of(verdicts)))
    there = {latent: text for latents in found.values() for latent, text in latents.items()}
    wanted = verdicts.rows[verdicts.rows.verdict.isin(PUBLISHED)].set_index("latent_index")
    assert set(there) == set(wanted.index)
    for latent, text in there.items():
        verdict, _, rest = text.partition(": ")
        assert verdict == wanted.verdict[latent]
        assert rest.endswith(wanted.reason[latent])
        assert wanted.explanation[latent] in rest
        assert wanted.maker[latent] in rest
    first = list(server.lists["l1"]["neurons"])
    assert [int(one["index"]) for one in first][:2] == [149, 148]  # the most certain contradiction first


def test_lists_that_are_there_are_not_made_twice_and_an_interrupted_run_goes_on(study, server):
    verdicts = verdicts_of(study)
    server.always = {"list/get": "403"}
    with pytest.raises(InputError, match="403"):
        send(server, verdicts)
    server.always = {}
    assert [one.is_new for one in send(server, verdicts)] == [False] * 4
    assert len(server.lists) == 4
    del server.lists["l2"]
    assert [one.is_new for one in send(server, verdicts)] == [False, False, True, False]


@pytest.mark.parametrize("fault", ["500", "cut", "html"])
def test_a_list_whose_answer_was_lost_is_not_made_twice(study, server, fault):
    verdicts = verdicts_of(study)
    server.always = {"list/new-with-features": fault}
    with pytest.raises(InputError, match="lists that are there are not made twice"):
        send(server, verdicts)
    assert len(server.asked("list/new-with-features")) == 1
    server.always = {}
    send(server, verdicts)
    assert len({one["name"] for one in server.lists.values()}) == len(server.lists) == 4


def test_a_list_of_an_earlier_run_is_left_alone_and_named(study, server):
    verdicts = verdicts_of(study)
    send(server, verdicts)
    before = json.dumps(server.lists)
    path = study.table("explanation_verdicts")
    path.write_text(path.read_text(encoding="utf-8").replace(",inconclusive,", ",supported,", 1), encoding="utf-8")
    with pytest.raises(InputError, match=rf"earlier run: {server.url}/list/l0; delete it there"):
        send(server, verdicts_of(study))
    assert json.dumps(server.lists) == before


def test_a_list_that_was_edited_or_holds_part_of_other_verdicts_is_not_taken_for_ours(study, server):
    verdicts = verdicts_of(study)
    send(server, verdicts)
    kept = server.lists["l0"]["neurons"][0]["description"]
    server.lists["l0"]["neurons"][0]["description"] = "edited by hand"
    with pytest.raises(InputError, match="holds other verdicts"):
        send(server, verdicts)
    # Of the verdicts of an earlier run Neuronpedia had only those that are also in this one.
    server.lists["l0"]["neurons"][0]["description"] = kept
    del server.lists["l0"]["neurons"][2]
    verdict_table, path = table("explanation_verdicts"), study.table("explanation_verdicts")
    frame = verdict_table.read(path)
    frame.loc[frame.latent_index.isin([152, 250]), "verdict"] = ["inconclusive", "supported"]
    verdict_table.write(frame, path)
    with pytest.raises(InputError, match="holds other verdicts"):
        send(server, verdicts_of(study))


def test_latents_that_neuronpedia_does_not_have_are_named(study, server):
    del server.latents[151]
    sent = send(server, verdicts_of(study))
    assert [one.unknown for one in sent] == [[151], [], [], []]


def test_without_a_key_or_with_a_wrong_one_nothing_is_made_and_no_key_is_shown(study, server, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    verdicts = verdicts_of(study)
    monkeypatch.setenv("NEURONPEDIA_API_KEY", "sk-np-a-wrong-key")
    with pytest.raises(InputError, match="401") as caught:
        send(server, verdicts)
    assert "wrong-key" not in str(caught.value) + caplog.text
    monkeypatch.delenv("NEURONPEDIA_API_KEY")
    n_before = len(server.seen)
    with pytest.raises(InputError, match="the environment holds no NEURONPEDIA_API_KEY"):
        send(server, verdicts)
    assert len(server.seen) == n_before
    assert server.lists == {}


def test_an_export_is_read_back_as_a_source_with_the_verdict_in_its_notes(study, tmp_path):
    verdicts = verdicts_of(study)
    folder = export_folder(verdicts)
    write_folder(folder, tmp_path / "out")
    explanations = tmp_path / "out/v1" / ID / "explanations"
    source = Source(kind="file", path=str(explanations))
    found = explain("export", source, subject_dir=tmp_path, d_sae=N).set_index("latent_index")
    wanted = verdicts.rows[verdicts.rows.verdict.isin(PUBLISHED)].set_index("latent_index")
    assert found.explanation.to_dict() == wanted.explanation.to_dict()
    assert found.maker.to_dict() == wanted.maker.to_dict()
    lines = [
        json.loads(line) for line in gzip.decompress((explanations / "batch-0.jsonl.gz").read_bytes()).splitlines()
    ]
    assert {tuple(line) for line in lines} == {tuple(lines[0])}  # its importer takes the columns from the first row
    assert {int(line["index"]): line["notes"].partition(":")[0] for line in lines} == wanted.verdict.to_dict()
    assert len({line["id"] for line in lines}) == len(lines) == 154
    assert [lines[latent]["typeName"] for latent in range(4)] == ["oai_token-act-pair", "human", None, None]
    assert [lines[latent]["explanationModelName"] for latent in range(4)] == ["gpt-4o-mini", None, "gpt-4o", None]
    assert export_folder(verdicts_of(study)) == folder


def test_a_data_set_has_every_verdict_and_a_card_that_says_what_they_are(study, tmp_path):
    verdicts = verdicts_of(study, source_id=None)
    write_folder(dataset_folder(verdicts), tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out/verdicts.parquet")
    pd.testing.assert_frame_equal(frame, verdicts.rows.reset_index(drop=True), check_dtype=False)
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---")[1])
    assert header["configs"][0]["data_files"] == "verdicts.parquet"
    assert "| contradicted | 150 |" in card
    assert all(f"| {name} |" in card for name in frame)
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["verdict"][:] == frame.verdict.tolist()
    with pytest.raises(InputError, match="exists"):
        write_folder(dataset_folder(verdicts), tmp_path / "out")


def test_what_cannot_be_published_says_why(study):
    plan = make_study()
    with pytest.raises(InputError, match="wrong on purpose"):
        read_verdicts(plan, study, "toy", source="wrong")
    with pytest.raises(InputError, match=r"no verdicts on 'said' of 'toy' read by 'other'.*toy / said / lexical"):
        read_verdicts(plan, study, "toy", judge="other")
    with pytest.raises(InputError, match="--source-id MODEL/SOURCE"):
        export_folder(verdicts_of(study, None))


def test_verdicts_on_explanations_of_unknown_provenance_are_not_published_unless_somebody_vouches(study):
    metadata = {"d_sae": N, "metadata": {"neuronpedia_id": ID}}
    path = study.subject("toy").sae / "cfg.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(metadata), encoding="utf-8")
    with pytest.raises(InputError, match=f"if you vouch for it, add --source-id {ID}"):
        export_folder(verdicts_of(study, None))
    assert export_folder(verdicts_of(study)).files
    for provenance in ("stated", "proven"):
        write_provenance(study, provenance)
        assert export_folder(verdicts_of(study, None)).files
    assert (
        "- Provenance of the explanations: `proven`" in dataset_folder(verdicts_of(study)).files["README.md"].decode()
    )


def test_by_default_nothing_is_sent_or_written_and_the_size_is_told(study, server, tmp_path, capsys):
    config = tmp_path / "study.yaml"
    sources = options_of()["sources"] | {"said": {"kind": "neuronpedia", "neuronpedia": server.options}}
    config.write_text(yaml.safe_dump(options_of(sources=sources)))
    same = ["--study", str(config), "--results", str(study.root), "--subject", "toy", "--source-id", ID]
    assert run_here(["publish", "neuronpedia", *same]) == 0
    told = capsys.readouterr().out
    assert "contradicted (1 of 2): 100 latents, " in told
    assert "Dry run: nothing was sent." in told
    assert server.seen == []
    for what in ("export", "dataset"):
        assert run_here(["publish", what, *same]) == 0
        assert "Dry run: nothing was written." in capsys.readouterr().out
        assert run_here(["publish", what, *same, "--out", str(tmp_path / what)]) == 0
        assert (tmp_path / what).is_dir()
        assert run_here(["publish", what, *same, "--send"]) == 2
    capsys.readouterr()
    assert run_here(["publish", "neuronpedia", *same, "--send"]) == 0
    told = capsys.readouterr()
    assert f"{server.url}/list/l1 made: 100 of 100 latents read back as sent" in told.out
    assert KEY not in told.out + told.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert len(read_explanations(study.explanations("toy", "said"))) == N


def test_a_data_set_goes_to_the_hub_when_asked_private_and_without_keys(study, hub, tmp_path, capsys):
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(options_of()))
    command = ["publish", "dataset", "--study", str(config), "--results", str(study.root), "--subject", "toy"]
    assert run_here([*command, "--repo", "me/verdicts"]) == 0
    told = capsys.readouterr().out
    assert "verdicts.parquet: " in told
    assert "--send uploads 2 files" in told
    assert "to the dataset me/verdicts; a new repository is private" in told
    assert hub.seen == []
    assert run_here([*command, "--repo", "me/verdicts", "--send"]) == 0
    assert f"{hub.url}/datasets/me/verdicts" in capsys.readouterr().out
    private, files = hub.repos["datasets/me/verdicts"]
    assert private
    folder = dataset_folder(read_verdicts(make_study(), study, "toy"))
    assert files == folder.files
    assert "<script" not in files["README.md"].decode()
    verdict_table, path = table("explanation_verdicts"), study.table("explanation_verdicts")
    frame = verdict_table.read(path)
    frame.loc[3, "explanation"] = f"the token {TOKEN}"
    verdict_table.write(frame, path)
    before = json.dumps(sorted(hub.seen))
    assert run_here([*command, "--repo", "me/verdicts", "--send"]) == 2
    told = capsys.readouterr().err
    assert "'verdicts.parquet' holds the value of HF_TOKEN, a Hugging Face token: nothing was sent" in told
    assert TOKEN not in told
    assert json.dumps(sorted(hub.seen)) == before
