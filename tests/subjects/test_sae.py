import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from isaerft import config
from isaerft.config.base import validated
from isaerft.errors import InputError
from isaerft.subjects.corpus import pad_rows
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.hooks import residual_stream
from isaerft.subjects.load import LoadedModel, placed
from isaerft.subjects.sae import corpus_activations, fetch_sae, read_sae, train_sae

ROOT = Path(__file__).parents[2]
DROPPED = ("gemma-2-2b-res-matryoshka-dc", "blocks.12.hook_resid_post")
FETCH = """
import sys
from transformers import LlamaConfig, LlamaForCausalLM
from isaerft import config
from isaerft.subjects.load import LoadedModel
from isaerft.subjects.sae import fetch_sae
from sae_lens import SAE

sizes = dict(hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=14, vocab_size=8)
model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
release, sae_id, out = sys.argv[1:]
assert SAE.from_pretrained(release, sae_id).cfg.metadata.neuronpedia_id is None
subject = config.Subject(model="a/b", release=release, sae_id=sae_id)
fetch_sae(subject, LoadedModel(model, None, True), out)
"""


def test_the_training_tokens_of_an_sae_are_the_residual_stream_without_bos(subject):
    rows = pad_rows([[1, 5, 6, 7], [1, 8]], padding=0)
    activations = corpus_activations(subject.language, rows, "blocks.1.hook_resid_post", batch_size=1)
    residual = residual_stream(subject.model, subject.hook, rows.tokens, rows.mask)
    expected = torch.cat([residual[0, 1:], residual[1, 1:2]])
    torch.testing.assert_close(activations, expected, atol=1e-5, rtol=1e-5)


def test_a_trained_sae_is_read_back_folded_and_the_same_seed_gives_the_same_bytes(subject, tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = pad_rows(
        torch.cat([torch.ones(40, 1).long(), torch.randint(3, 250, (40, 10), generator=generator)], 1).tolist(),
        padding=0,
    )
    options = config.TrainSae(d_sae=64, tokens=20_000, batch_size=256)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_sae(
            options, subject.language, rows, hook_name="blocks.1.hook_resid_post", folder=tmp_path / name, seed=seed
        )
    dictionary = load_dictionary(tmp_path / "a")
    assert (dictionary.d_in, dictionary.d_sae) == (32, 64)
    assert dictionary.hook_name == "blocks.1.hook_resid_post"
    x = corpus_activations(subject.language, rows, "blocks.1.hook_resid_post")
    left = (x - dictionary.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert left < 0.7
    weights = [(tmp_path / name / "sae_weights.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


@pytest.mark.parametrize("k", [None, 4])
@pytest.mark.parametrize("frozen", ["W_dec", "W_enc"])
def test_a_frozen_matrix_stays_bit_by_bit_as_it_was_initialized_while_the_rest_is_trained(subject, tmp_path, frozen, k):
    generator = torch.Generator().manual_seed(0)
    rows = pad_rows(torch.randint(3, 250, (40, 10), generator=generator).tolist(), padding=0)
    saved = {}
    # One step and eighty begin from the same weights and fold the same norm in.
    for name, tokens, kept in (("short", 1_000, frozen), ("long", 20_000, frozen), ("free", 20_000, None)):
        options = config.TrainSae(d_sae=64, k=k, tokens=tokens, batch_size=250)
        place = {"hook_name": "blocks.1.hook_resid_post", "folder": tmp_path / name}
        train_sae(options, subject.language, rows, **place, seed=0, frozen=kept)
        saved[name] = load_file(tmp_path / name / "sae_weights.safetensors")
    trained = {"W_dec": "W_enc", "W_enc": "W_dec"}[frozen]
    if k is not None and frozen == "W_enc":
        # A TopK SAE is saved with the norms of its decoder, which is trained, folded into the encoder.
        short, long = (torch.nn.functional.normalize(saved[name][frozen], dim=0) for name in ("short", "long"))
        torch.testing.assert_close(short, long, atol=1e-6, rtol=0)
    else:
        assert torch.equal(saved["short"][frozen], saved["long"][frozen])
    assert not torch.equal(saved["short"][trained], saved["long"][trained])
    assert not torch.equal(saved["free"][frozen], saved["long"][frozen])
    # Where training begins, a latent reads what it writes; the activations' norm divides one and multiplies the other.
    torch.manual_seed(0)
    first = torch.nn.functional.normalize(torch.nn.init.kaiming_uniform_(torch.empty(64, 32)))
    own = saved["long"][frozen] if frozen == "W_dec" else saved["long"][frozen].T
    torch.testing.assert_close(torch.nn.functional.normalize(own), first)


def test_a_topk_sae_is_trained_with_the_number_of_active_latents_that_was_asked_for(subject, tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = pad_rows(torch.randint(3, 250, (40, 10), generator=generator).tolist(), padding=0)
    options = config.TrainSae(d_sae=64, k=4, tokens=20_000, batch_size=256)
    train_sae(options, subject.language, rows, hook_name="blocks.1.hook_resid_post", folder=tmp_path / "sae", seed=0)
    dictionary = load_dictionary(tmp_path / "sae")
    x = corpus_activations(subject.language, rows, "blocks.1.hook_resid_post")
    assert dictionary.k == 4
    assert int(dictionary.encode(x).counts().max()) <= 4
    left = (x - dictionary.reconstruct(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert left < 0.9
    with pytest.raises(InputError, match="k below d_sae"):
        validated(config.TrainSae, {"d_sae": 64, "k": 64})


def test_a_ready_sae_is_copied_with_its_hook(subject, tiny, tmp_path):
    source = tiny.write_sae(
        tmp_path / "given", tiny.random_sae(), dtype="float32", device="cpu", reshape_activations="none"
    )
    fetch_sae(config.Subject(model="a/b", sae_path=str(source)), subject.language, tmp_path / "sae")
    read, given = load_dictionary(tmp_path / "sae"), load_dictionary(source)
    assert torch.equal(read.W_enc, given.W_enc)
    assert read.hook_name == "blocks.1.hook_resid_post"
    options = list(json.loads((tmp_path / "sae/cfg.json").read_text()))
    assert options == sorted(options), "SAELens' order is that of a set, and so another one in each process"
    moved = config.Subject(model="a/b", sae_path=str(source), hook_name="blocks.0.hook_resid_post")
    fetch_sae(moved, subject.language, tmp_path / "moved")
    assert load_dictionary(tmp_path / "moved").hook_name == "blocks.0.hook_resid_post"


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"hook_name": None}, "SAE hook ''"),
        ({"hook_name": "blocks.9.hook_resid_post"}, "has 3 blocks"),
        ({"normalize_activations": "expected_average_only_in"}, "activations normalized by 'expected_average_only_in'"),
        ({"normalize_activations": "covariance_whitening"}, "covariance_whitening"),
        ({"reshape_activations": "hook_q"}, "'hook_q'; allowed: none, hook_z"),
        ({"architecture": "temporal"}, "depend on other tokens"),
        ({"architecture": "matching_pursuit"}, "found by search"),
        ({"hook_name": "blocks.1.mlp.hook_in"}, "through the MLP alone"),
        ({"architecture": "batchtopk"}, "save_inference_model"),
    ],
)
def test_an_sae_that_cannot_serve_is_refused_and_nothing_is_left(subject, tiny, tmp_path, cfg, message):
    source = tiny.write_sae(
        tmp_path / "given",
        tiny.random_sae(),
        **({"dtype": "float32", "device": "cpu", "reshape_activations": "none"} | cfg),
    )
    with pytest.raises(InputError, match=message):
        fetch_sae(config.Subject(model="a/b", sae_path=str(source)), subject.language, tmp_path / "out" / "sae")
    assert not (tmp_path / "out").exists()


def test_an_average_norm_that_is_known_is_folded_in(subject, tiny, tmp_path):
    source = tiny.write_sae(
        tmp_path / "given",
        tiny.random_sae(),
        dtype="float32",
        device="cpu",
        reshape_activations="none",
        normalize_activations="expected_average_only_in",
    )
    options = config.Subject(model="a/b", sae_path=str(source), norm_scaling_factor=0.5)
    fetch_sae(options, subject.language, tmp_path / "sae")
    folded = load_dictionary(tmp_path / "sae")
    tiny.write_sae(tmp_path / "plain", tiny.random_sae())
    plain, x = load_dictionary(tmp_path / "plain"), torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded.encode_dense(x), plain.encode_dense(0.5 * x))
    torch.testing.assert_close(folded.reconstruct(x), plain.reconstruct(0.5 * x) / 0.5)


def test_an_average_norm_for_an_sae_that_asks_for_none_is_refused(subject, tiny, tmp_path):
    cfg = {"dtype": "float32", "device": "cpu", "reshape_activations": "none"}
    source = tiny.write_sae(tmp_path / "given", tiny.random_sae(), **cfg)
    options = config.Subject(model="a/b", sae_path=str(source), norm_scaling_factor=0.5)
    with pytest.raises(InputError, match=r"norm_scaling_factor 0\.5.*'none'"):
        fetch_sae(options, subject.language, tmp_path / "sae")


@pytest.mark.parametrize("normalization", ["layer_norm", "constant_norm_rescale"])
def test_a_normalization_by_token_is_kept(subject, tiny, tmp_path, normalization):
    cfg = {"dtype": "float32", "device": "cpu", "reshape_activations": "none"}
    source = tiny.write_sae(tmp_path / "given", tiny.random_sae(), normalize_activations=normalization, **cfg)
    fetch_sae(config.Subject(model="a/b", sae_path=str(source)), subject.language, tmp_path / "sae")
    assert load_dictionary(tmp_path / "sae").normalization == normalization


def test_weights_that_are_not_safetensors_are_refused_and_never_opened(subject, tiny, tmp_path):
    source = tiny.write_sae(tmp_path / "given", tiny.random_sae())
    (source / "sae_weights.safetensors").rename(source / "sae_weights.pt")
    with pytest.raises(InputError, match=r"has no sae_weights\.safetensors"):
        fetch_sae(config.Subject(model="a/b", sae_path=str(source)), subject.language, tmp_path / "sae")


def test_an_unknown_release_is_refused_before_any_network(subject, tmp_path):
    options = config.Subject(model="a/b", release="gpt2-small-res-jbb", sae_id="blocks.1.hook_resid_pre")
    with pytest.raises(InputError, match="cannot be loaded"):
        fetch_sae(options, subject.language, tmp_path / "sae")


def test_only_what_fetches_and_trains_saes_imports_sae_lens():
    import isaerft

    package = Path(isaerft.__file__).parent
    # A statement, at the top or in a function; not code for readers in a text, such as that of a model card.
    statement = re.compile(r"^\s*(import|from) sae_lens\b", re.MULTILINE)
    users = [path for path in package.rglob("*.py") if statement.search(path.read_text(encoding="utf-8"))]
    assert sorted(str(path.relative_to(package)) for path in users) == ["subjects/sae.py", "subjects/sparsity.py"]


@pytest.fixture(scope="module")
def directory():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    return get_pretrained_saes_directory()


@pytest.mark.slow
def test_an_id_that_saelens_drops_reaches_the_subjects_folder(directory, tmp_path):
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    release, sae_id = DROPPED
    entry = directory[release]
    cached = tmp_path / "hub" / f"models--{entry.repo_id.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("0" * 40)
    metadata = SAEMetadata(hook_name=sae_id, model_name="m", prepend_bos=True)
    sae = StandardSAE(StandardSAEConfig(d_in=16, d_sae=32, metadata=metadata))
    sae.save_model(cached / "snapshots" / ("0" * 40) / entry.saes_map[sae_id])
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", FETCH, release, sae_id, str(tmp_path / "sae")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads((tmp_path / "sae/cfg.json").read_text())
    assert card["metadata"]["neuronpedia_id"] == "gemma-2-2b/12-res-matryoshka-dc"


def changed(folder, **changes):
    path = folder / "cfg.json"
    cfg = {name: value for name, value in (json.loads(path.read_text()) | changes).items() if value != "none at all"}
    path.write_text(json.dumps(cfg))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata": {"hook_name": "model.layers.1", "sae_lens_version": "6"}}, "hook_name: blocks.1.hook_resid_post"),
        ({"metadata": {"hook_name": None, "sae_lens_version": "6"}}, "hook_name: blocks.L.hook_resid_post"),
        ({"dtype": "none at all"}, "it lacks 'dtype'"),
        ({"metadata": None}, "metadata is None"),
    ],
)
def test_a_local_sae_that_lacks_something_is_refused_with_what_mends_it(subject, tiny, tmp_path, changes, said):
    source = tiny.write_sae(tmp_path / "given", tiny.random_sae(), dtype="float32", device="cpu")
    changed(source, **changes)
    with pytest.raises(InputError) as caught:
        fetch_sae(config.Subject(model="a/b", sae_path=str(source)), subject.language, tmp_path / "sae")
    assert said in str(caught.value)
    assert "network" not in str(caught.value)


def test_weights_of_git_lfs_are_named(subject, tiny, tmp_path):
    source = tiny.write_sae(tmp_path / "given", tiny.random_sae(), dtype="float32", device="cpu")
    (source / "sae_weights.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"sae_weights\.safetensors is a git-lfs pointer"):
        fetch_sae(config.Subject(model="a/b", sae_path=str(source)), subject.language, tmp_path / "sae")


def early(tiny, folder, weights, **cfg):
    """Write an SAE as SAELens 2 to 5 did: options and metadata in one object, and without a version of 6."""
    tiny.write_sae(folder, weights)
    old = {"d_in": 32, "d_sae": 48, "dtype": "float32", "device": "cpu", "normalize_activations": "none"}
    old |= {"hook_name": "blocks.1.hook_resid_post", "model_name": "llama", "prepend_bos": False} | cfg
    (folder / "cfg.json").write_text(json.dumps(old))
    return folder


def test_a_folder_of_an_earlier_saelens_is_read_as_saelens_reads_it(tiny, tmp_path):
    topk = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}, "normalize_activations": False}
    folder = early(tiny, tmp_path, tiny.random_sae() | {"scaling_factor": torch.ones(48)}, **topk)
    dictionary = read_sae(folder)
    assert (dictionary.k, dictionary.hook_name, dictionary.model_name) == (5, "blocks.1.hook_resid_post", "llama")
    assert dictionary.prepend_bos is False
    x = torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    assert int(dictionary.encode(x).counts().max()) <= 5
    with pytest.raises(InputError, match="saved by SAELens before 6"):
        load_dictionary(folder)


def test_what_an_earlier_saelens_left_unfolded_is_refused(tiny, tmp_path):
    scaled = tiny.random_sae() | {"scaling_factor": torch.full((48,), 2.0)}
    with pytest.raises(InputError, match=r"cannot be loaded .*[Ss]caling"):
        read_sae(early(tiny, tmp_path / "a", scaled))
    unfolded = early(tiny, tmp_path / "b", tiny.random_sae(), normalize_activations="expected_average_only_in")
    with pytest.raises(InputError, match="which is not folded in"):
        read_sae(unfolded)


@pytest.mark.parametrize("kind", ["heads", "jumprelu_skip_transcoder"])
def test_a_dictionary_that_writes_elsewhere_is_copied_with_both_hooks(model_of, tokenizer, tiny, tmp_path, kind):
    language = LoadedModel(model_of("gemma2_wide"), tokenizer, True)
    cfg = {"dtype": "float32", "device": "cpu"}
    metadata = {"sae_lens_version": "6.54.12", "hook_name": "blocks.1.attn.hook_z"}
    weights = tiny.random_sae(48)
    if kind != "heads":
        weights = tiny.random_sae() | {"W_skip": torch.eye(32), "threshold": torch.full((48,), 0.1)}
        cfg |= {"architecture": kind, "d_out": 32, "apply_b_dec_to_input": False}
        module = "model.layers.1.pre_feedforward_layernorm.output"
        metadata |= {
            "hook_name": "blocks.1.hook_mlp_in",
            "hf_hook_name": module,
            "hook_name_out": "blocks.1.hook_mlp_out",
        }
    source = tiny.write_sae(tmp_path / "given", weights, **cfg, metadata=metadata)
    fetch_sae(config.Subject(model="a/b", sae_path=str(source)), language, tmp_path / "sae")
    dictionary, hook = placed(load_dictionary(tmp_path / "sae"), language.model)
    assert hook.reads == ("heads" if kind == "heads" else "mlp_input")
    assert dictionary.decoder.shape == (48, 32)
    assert torch.equal(dictionary.W_dec, weights["W_dec"])
    narrow = LoadedModel(model_of("gemma2"), tokenizer, True)
    if kind == "heads":
        with pytest.raises(InputError, match=r"reads 48 dimensions, but the model's activations have 32"):
            fetch_sae(config.Subject(model="a/b", sae_path=str(source)), narrow, tmp_path / "other")


@pytest.mark.parametrize(
    ("release", "sae_id", "said"),
    [
        ("mntss-gemma-2-2b-2.5m-clt-as-per-layer", "layer_0", "write to every later layer"),
        ("temporal-sae-gemma-2-2b", "blocks.12.hook_resid_post", "depend on other tokens"),
    ],
)
def test_what_is_no_dictionary_of_one_layer_is_refused_before_any_download(subject, tmp_path, release, sae_id, said):
    options = config.Subject(model="a/b", release=release, sae_id=sae_id)
    with pytest.raises(InputError, match=said):
        fetch_sae(options, subject.language, tmp_path / "sae")
    assert not (tmp_path / "sae").exists()


@pytest.mark.slow
def test_nearly_every_labelled_dictionary_of_saelens_can_be_a_subject():
    judged = runpy.run_path(str(ROOT / "benchmarks/labelled_dictionaries.py"))["judge_all"]()
    assert len(judged) > 2800
    usable = [one for one in judged if not one.reason]
    assert len(usable) >= 0.95 * len(judged)
    heads = [one for one in usable if one.kind.reads == "attn.hook_z"]
    transcoders = [one for one in usable if one.kind.writes]
    assert (len(heads), len(transcoders)) >= (284, 340)
    assert {one.release.split("-")[0] for one in judged if one.reason} == {"mntss", "temporal"}
    others = len(usable) - len(heads) - len(transcoders)
    counts = (
        f"{len(judged):,}",
        f"{len(usable):,}",
        f"{others:,} SAEs",
        f"{len(heads)} on",
        f"{len(transcoders)} transcoders",
    )
    said = (ROOT / "docs/supported.md").read_text(encoding="utf-8")
    assert [count for count in counts if count not in said] == [], "say what benchmarks/labelled_dictionaries.py says"
