"""The real workflow on the real package: every rule runs, and the same config and seed give the same bytes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from isaerft import analysis
from isaerft.config import CONTROLS

ROOT = Path(__file__).parents[2]
TABLES = [
    "subjects",
    "training",
    "diagnostics",
    "map_components",
    "weight_pullback",
    "latent_composition",
    "loss_curves",
    "basis_advantage",
    "most_changed_latents",
    "agreement",
    "specificity",
    "overall",
    "explanation_verdicts",
    "explained_latents",
    "source_comparison",
    "causal_check",
    "noise_probe",
    "changes_over_time",
    "onset",
    "change_shape",
    "explanation_scores",
    "explanation_quality",
    "agreement_by_quality",
    "benchmark_worlds",
    "benchmark",
    "benchmark_differences",
    "reliability",
    "claims",
]
PARTS = ["workflow", "profiles", "environment.yml"]


def run_study(
    folder, *targets, config=ROOT / "tests/end_to_end/small.yaml", site=None, options=("--cores", "2"), **variables
):
    """Copy the workflow into `folder` and run a small study there; `site` is a folder of installed packages."""
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    (folder / "isaerft").symlink_to(ROOT / "isaerft")
    (folder / "config").mkdir()
    shutil.copy(config, folder / "config")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    paths = [str(path) for path in (site, ROOT) if path is not None]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-m", "snakemake", *options, "--config", f"study={config.stem}", "--", *targets]
    done = subprocess.run(command, cwd=folder, env=environment | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder / "results" / config.stem


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_study(tmp_path_factory.mktemp("first"))


@pytest.mark.slow
def test_every_table_is_made_and_keeps_its_contract(results):
    for name in TABLES:
        assert len(analysis.table(name).read(results / f"tables/{name}.csv")), name
    # Two behaviors may give no verdicts, and so nothing to steer.
    for name in ("steering_check", "steering_latents", "steering_summary"):
        analysis.table(name).read(results / f"tables/{name}.csv")


@pytest.mark.slow
def test_every_result_has_its_controls_beside_it(results):
    agreement = pd.read_csv(results / "tables/agreement.csv")
    primary = agreement[agreement.primary]
    assert list(primary.behavior) == ["refusal", "humor"]
    same = agreement[
        (agreement.adapter == "bias")
        & (agreement.measure == "contribution")
        & (agreement.source == "local_output")
        & (agreement.judge == "lexical")
        & (agreement.statistic == "auroc")
    ]
    assert set(same.control) == {"none", *CONTROLS}


@pytest.mark.slow
def test_a_source_of_the_case_control_design_speaks_of_the_sample_that_was_drawn(results):
    sample = pd.read_parquet(results / "design/tiny.parquet")
    assert set(sample.role) == {"case", "control"}
    explained = pd.read_parquet(results / "explanations/tiny/local_sampled.parquet")
    assert set(explained.latent_index) <= set(sample.latent_index)
    counts = pd.read_csv(results / "tables/explained_latents.csv").set_index("source")
    assert counts.design["local_output"] == "all"
    assert counts.n_asked["local_sampled"] == len(sample) < counts.n_asked["local_output"]
    agreement = pd.read_csv(results / "tables/agreement.csv")
    n_latents = agreement[agreement.source == "local_sampled"].n_latents
    assert set(n_latents) == {len(explained)}


@pytest.mark.slow
def test_what_is_not_trained_on_latents_stands_beside_the_rest_and_says_how_far_to_read_it(results):
    found = pd.read_csv(results / "tables/diagnostics.csv")
    for adapter, quantity in (
        ("residual", "explained_share"),
        ("probe", "heldout_auroc"),
        ("probe", "rephrased_auroc"),
    ):
        values = found[(found.adapter == adapter) & (found.quantity == quantity)].value
        assert len(values) == 2 * 2, "two behaviors, two seeds"
        assert values.le(1).all()
    agreement = pd.read_csv(results / "tables/agreement.csv")
    assert set(agreement.adapter) == {"bias", "residual", "probe"}
    training = pd.read_csv(results / "tables/training.csv")
    reference = training[training.adapter == "lora"].groupby("behavior").loss_recovered.mean()
    assert reference.to_numpy() == pytest.approx(1, abs=1e-4)
    assert training.train_loss_adapted.notna().all()
    over_time = pd.read_csv(results / "tables/changes_over_time.csv")
    assert set(over_time.step.dropna()) <= {1, 3, 10}
    assert over_time[over_time.step.isna()].rank_correlation.to_numpy() == pytest.approx(1)


@pytest.mark.slow
def test_figures_pages_and_summary_are_made(results):
    for name in (
        "agreement",
        "agreement_grid",
        "dose_response",
        "specificity",
        "source_comparison",
        "most_changed_latents",
        "training",
        "causal_check",
        "changes_over_time",
        "steering_check",
        "benchmark",
        "reliability",
        "map_components",
        "loss_curves",
        "noise_probe",
    ):
        assert (results / f"figures/{name}.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")
    for name in TABLES:
        assert "<table" in (results / f"pages/{name}.html").read_text(encoding="utf-8")
    assert (results / "summary.html").stat().st_size > 1000
    for name in ("index.html", "study.js", "0.js", "0-0.js"):
        assert (results / "latents" / name).stat().st_size > 100, name


@pytest.mark.slow
def test_a_second_run_from_scratch_gives_the_same_bytes(results, tmp_path):
    """The second without the warm worker, which served the first."""
    assert re.fullmatch(r"(keeper \d+ begins\n)+", (results / "logs/worker.log").read_text())
    again = run_study(tmp_path, "results/small/tables/agreement.csv", ISAERFT_WORKER="off")
    assert not (again / "logs/worker.log").exists()
    for name in TABLES:
        path = f"tables/{name}.csv"
        assert (again / path).read_bytes() == (results / path).read_bytes(), name


@pytest.mark.slow
def test_files_that_a_power_loss_cut_are_found_before_anything_is_planned_and_made_again(results):
    folder = results.parents[1]
    unnoted = {"logs", "benchmarks"}
    files = [path.relative_to(results) for path in results.rglob("*") if path.is_file()]
    noted = (results / ".checksums.jsonl").read_text()
    for file in files:
        if file.parts[0] not in unnoted and not file.name.startswith("."):
            assert any(f'"path": "{part.as_posix()}"' in noted for part in (file, *file.parents)), file
    victims = [
        results / "tables/training.csv",
        results / "changes/tiny/humor.parquet",
        next((results / "adapters/tiny/humor/bias").rglob("*.safetensors")),
    ]
    before = {path: path.read_bytes() for path in victims}
    for path in victims:
        path.write_bytes(before[path][: len(before[path]) // 2])
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def run(*command):
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True
        )

    refused = run("snakemake", "--cores", "2", "--config", "study=small")
    assert refused.returncode != 0
    assert "were written, and 2 more like it; remove what is damaged with `isaerft verify --study" in refused.stderr
    done = run("isaerft.cli", "verify", "--study", "config/small.yaml")
    assert done.stdout.count("removed ") == 3
    assert run("snakemake", "--cores", "2", "--config", "study=small").returncode == 0
    assert {path: path.read_bytes() for path in victims} == before


@pytest.mark.slow
def test_a_study_made_of_another_packages_parts_alone_runs_to_the_end(tmp_path):
    """One part of every kind, registered by an installed package: nothing here knows their names."""
    site, given = tmp_path / "site", ROOT / "tests/end_to_end/outside"
    info = site / "their_package-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(given / "their_package.py", site)
    shutil.copy(given / "entry_points.txt", info)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    folder = tmp_path / "study"
    folder.mkdir()
    results = run_study(folder, config=given / "outside.yaml", site=site)
    tables = {name: pd.read_csv(results / f"tables/{name}.csv") for name in ("agreement", "overall", "training")}
    primary = tables["agreement"][tables["agreement"].primary]
    assert set(primary.statistic) == {"their_gap"}
    assert primary.estimate.between(-1, 1).all()
    pooled = tables["agreement"][tables["agreement"].control == "mismatched_behavior"]
    assert pooled.estimate.isna().all(), "a statistic that is not pooled has no pooled controls"
    assert set(tables["training"].objective) == {"their_margin", "none"}
    assert (tables["overall"].statistic == "their_gap").all()
    check = pd.read_csv(results / "tables/behavior_check.csv")
    assert set(check.score) == {"their_metric"}
    assert len(pd.read_csv(results / "tables/explanation_scores.csv"))
    page = (results / "summary.html").read_text(encoding="utf-8")
    assert "Rank gap" in page
