"""The examples of the library run, from the first line to the last, on what they begin with by themselves."""

import runpy
import sys
from pathlib import Path

import pytest

from isaerft.adapters.saved import load_adapter

EXAMPLES = Path(__file__).parents[1] / "examples" / "library"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "start.py")
PAGE = (Path(__file__).parents[1] / "docs" / "library.md").read_text(encoding="utf-8")


def run(script, monkeypatch, capsys, out, *arguments):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", [script, "--out", str(out), *arguments])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs_and_is_documented(script, monkeypatch, capsys, tmp_path):
    if script in ("sft_trainer.py", "dpo_trainer.py"):
        pytest.importorskip("trl")
    printed = run(script, monkeypatch, capsys, tmp_path, *(["--steps", "8"] if "trainer" in script else []))
    assert f"examples/library/{script}" in PAGE
    (saved, *_) = sorted(tmp_path.rglob("adapter_config.json"))
    assert any(parameter.any() for parameter in load_adapter(saved.parent, 128).parameters())
    if "trainer" in script:
        before, after = next(line for line in printed.splitlines() if "->" in line).split()[-3::2]
        assert float(after) < float(before)
    else:
        steered, plain = (line.split(":", 1)[1].strip() for line in printed.splitlines()[:2])
        assert steered != plain


def test_an_example_takes_a_model_and_an_sae_of_the_users_own(monkeypatch, capsys, subject_folder, tmp_path):
    model, sae = str(subject_folder / "model"), str(subject_folder / "sae")
    printed = run("trainer.py", monkeypatch, capsys, tmp_path, "--model", model, "--sae", sae, "--steps", "4")
    assert "loss" in printed
    assert load_adapter(next(tmp_path.rglob("adapter_config.json")).parent, 48).scale.any()
