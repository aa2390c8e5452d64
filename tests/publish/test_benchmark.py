"""The benchmark as a data set, and the verb that compares scores: others get our numbers from the folder alone."""

import json

import pandas as pd
import pytest

from isaerft.analysis import table
from isaerft.analysis.benchmarked import Benchmark
from isaerft.cli import main
from isaerft.errors import InputError
from isaerft.layout import Results
from isaerft.publish import write_folder
from isaerft.publish.benchmark import benchmark_folder, read_benchmark_folder, study_benchmark
from tests.analysis.benchmark_world import NAMES, made, study_of, two_worlds
from tests.analysis.small_study import make_study


@pytest.fixture
def exported(tmp_path):
    """A benchmark, and the folder that it was exported to."""
    benchmark = made()
    folder = tmp_path / "exported"
    write_folder(benchmark_folder(study_of(), Results(tmp_path / "results"), benchmark), folder)
    return benchmark, folder


def test_the_exported_set_loads_with_datasets_and_the_same_aurocs_come_out_of_it(exported, tmp_path):
    from datasets import load_dataset

    benchmark, folder = exported

    def loaded(name):
        return load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache")).to_pandas()

    again = Benchmark(loaded("explanations"), loaded("scores"), "truth", pd.DataFrame())
    pd.testing.assert_frame_equal(again.worlds(), benchmark.worlds())
    # Without a name, the explanations are what is loaded.
    whole = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(whole) == len(benchmark.explanations)


def test_the_folder_read_again_is_the_benchmark(exported):
    benchmark, folder = exported
    again, level = read_benchmark_folder(folder)
    assert level == 0.95
    pd.testing.assert_frame_equal(again.worlds(), benchmark.worlds())


def test_the_version_follows_from_the_files_and_is_in_card_and_manifest(exported, tmp_path):
    benchmark, folder = exported
    manifest = json.loads((folder / "manifest.json").read_text())
    card = (folder / "README.md").read_text()
    assert f"Version {manifest['version']}" in card
    assert "license: mit" in card
    assert {f"{path.name}" for path in folder.glob("*.parquet")} == set(manifest["files"])
    other = benchmark.scores.assign(value=-benchmark.scores["value"])
    changed = Benchmark(benchmark.explanations, other, "truth", benchmark.seconds)
    plan, at = study_of(), Results(tmp_path / "results")
    versions = [
        json.loads(benchmark_folder(plan, at, one).files["manifest.json"])["version"] for one in (benchmark, changed)
    ]
    assert versions[0] == manifest["version"] != versions[1]


def test_a_file_that_the_manifest_does_not_describe_is_refused(exported):
    benchmark, folder = exported
    benchmark.explanations.assign(kind="right")[list(pd.read_parquet(folder / "explanations.parquet"))].to_parquet(
        folder / "explanations.parquet", index=False
    )
    with pytest.raises(InputError, match="is not the file that manifest"):
        read_benchmark_folder(folder)


def test_a_folder_that_is_no_benchmark_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match="not the manifest of a benchmark"):
        read_benchmark_folder(tmp_path)


def test_a_study_without_a_key_has_no_benchmark(tmp_path):
    with pytest.raises(InputError, match="has no benchmark"):
        study_benchmark(make_study(), Results(tmp_path))


def run(capsys, *arguments):
    code = main(["benchmark", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_verb_places_scores_beside_ours_and_writes_the_three_tables(exported, tmp_path, capsys):
    benchmark, folder = exported
    truth = benchmark.explanations.assign(value=(benchmark.explanations["kind"] == "right").astype(float))
    truth[[*NAMES, "value"]].to_csv(tmp_path / "mine.csv", index=False)
    code, out, _ = run(
        capsys, "--dataset", folder, "--scores", tmp_path / "mine.csv", "--name", "oracle", "--out", tmp_path / "tables"
    )
    assert code == 0
    assert "input side, 25% wrong, every explanation" in out
    made_tables = {
        name: table(name).read(tmp_path / f"tables/{name}.csv")
        for name in ("benchmark", "benchmark_worlds", "benchmark_differences")
    }
    rows = made_tables["benchmark"]
    assert (rows[rows["scorer"] == "oracle"]["auroc"] == 1).all()
    assert {"training", "lexical", "oracle", "combined"} == set(rows["scorer"])
    assert (made_tables["benchmark_differences"].query("scorer == 'oracle'")["difference"] < 0).all()
    again, _, error = run(capsys, "--dataset", folder, "--out", tmp_path / "tables")
    assert again == 2
    assert "exists" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither of --study and --dataset"),
        (["--dataset", "x", "--study", "y"], "both of --study and --dataset"),
        (["--dataset", "x", "--export", "y"], "--export with --study alone"),
        (["--dataset", "x", "--name", "y"], "no --scores"),
        (["--dataset", "nowhere"], "nowhere"),
    ],
)
def test_options_that_do_not_fit_are_refused(capsys, arguments, message):
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert message in error


def test_the_benchmark_of_a_study_is_that_of_its_tables(tmp_path):
    parts = two_worlds(tmp_path / "results")
    plan = study_of()
    parts.agreement(plan)
    for name in ("explanation_verdicts", "explanation_scores"):
        table(name).write(parts.table(plan, name), parts.folder / f"tables/{name}.csv")
    at = Results(parts.folder)
    worlds = study_benchmark(plan, at).worlds().reindex(columns=table("benchmark_worlds").column_names)
    pd.testing.assert_frame_equal(table("benchmark_worlds").conform(worlds), parts.table(plan, "benchmark_worlds"))
