import json
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isaerft.errors import InputError
from isaerft.subjects.codes import Codes
from isaerft.subjects.dictionary import TRANSCODERS, hook_of, load_dictionary

VALUES = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 2.5, -1.0])
KINDS = ["standard", "gated", "jumprelu", "topk", "topk-rescaled", "abstopk", "abstopk-rescaled"]
NORMALIZATIONS = ["none", "layer_norm", "constant_norm_rescale"]


@st.composite
def activations(draw, d_sae=None):
    n, d = draw(st.integers(1, 6)), d_sae or draw(st.integers(1, 5))
    return torch.tensor(draw(st.lists(VALUES, min_size=n * d, max_size=n * d))).reshape(n, d)


@given(activations())
def test_sparse_and_dense_say_the_same(dense):
    codes = Codes.from_dense(dense)
    assert torch.equal(codes.dense(), dense)
    assert codes.n_tokens == len(dense)
    assert torch.equal(codes.counts(), (dense != 0).sum(1))
    assert torch.equal(codes.tokens(), dense.nonzero()[:, 0])
    assert len(codes.values) == int((dense != 0).sum())


@given(activations(), st.data())
def test_rows_are_taken_in_the_order_asked_for_also_repeatedly_or_none(dense, data):
    wanted = torch.tensor(data.draw(st.lists(st.integers(0, len(dense) - 1), max_size=8)), dtype=torch.int64)
    assert torch.equal(Codes.from_dense(dense).rows(wanted).dense(), dense[wanted])


@given(st.lists(activations(d_sae=3), min_size=1, max_size=4))
def test_concatenating_joins_token_after_token(parts):
    joined = Codes.concatenate(Codes.from_dense(part) for part in parts)
    assert torch.equal(joined.dense(), torch.cat(parts))


@settings(deadline=None)
@given(activations(), st.integers(1, 4))
def test_combining_is_the_product_with_the_rows(dense, width):
    rows = torch.arange(dense.shape[1] * width).reshape(-1, width).float() - 3
    codes = Codes.from_dense(dense)
    torch.testing.assert_close(codes.combine(rows), dense @ rows)
    doubled = codes.combine(rows, 2 * codes.values)
    torch.testing.assert_close(doubled, 2 * dense @ rows)


@given(activations())
def test_summing_over_tokens_is_the_sum_of_the_columns(dense):
    codes = Codes.from_dense(dense)
    torch.testing.assert_close(codes.sum_over_tokens(), dense.sum(0))
    torch.testing.assert_close(codes.sum_over_tokens(codes.values**2), dense.square().sum(0))


def config_of(kind, **size):
    from sae_lens import AbsTopKSAEConfig, GatedSAEConfig, JumpReLUSAEConfig, StandardSAEConfig, TopKSAEConfig

    return {
        "standard": StandardSAEConfig,
        "gated": GatedSAEConfig,
        "jumprelu": JumpReLUSAEConfig,
        "topk": partial(TopKSAEConfig, k=5, rescale_acts_by_decoder_norm=False),
        "topk-rescaled": partial(TopKSAEConfig, k=5, rescale_acts_by_decoder_norm=True),
        "abstopk": partial(AbsTopKSAEConfig, k=5, rescale_acts_by_decoder_norm=False),
        "abstopk-rescaled": partial(AbsTopKSAEConfig, k=5, rescale_acts_by_decoder_norm=True),
    }[kind](d_in=16, d_sae=40, **size)


@pytest.fixture(scope="module")
def saes(tmp_path_factory):
    """SAEs of SAELens with random weights, saved; (kind, apply, normalization) -> (SAE as SAELens loads it, folder)."""
    from sae_lens import SAE
    from sae_lens.saes.sae import SAEMetadata

    made = {}
    for kind, apply, normalization in product(KINDS, (True, False), NORMALIZATIONS):
        metadata = SAEMetadata(hook_name="blocks.1.hook_resid_post", neuronpedia_id="a/1-b")
        config = config_of(kind, apply_b_dec_to_input=apply, normalize_activations=normalization, metadata=metadata)
        sae = SAE.get_sae_class_for_architecture(config.architecture())(config)
        generator = torch.Generator().manual_seed(len(made))
        for name, value in sae.named_parameters():
            value.data = torch.randn(value.shape, generator=generator) * 0.5
            if name == "threshold":
                value.data = value.data.abs() + 0.1
        folder = tmp_path_factory.mktemp("sae")
        sae.save_model(folder)
        made[kind, apply, normalization] = SAE.load_from_disk(folder), folder
    return made


@pytest.fixture
def residual():
    """Tokens of different means and sizes."""
    generator = torch.Generator().manual_seed(7)
    return 2 * torch.randn(50, 16, generator=generator) + torch.linspace(-3, 3, 50)[:, None]


def scale_of(residual, normalization):
    if normalization == "layer_norm":
        return residual.std(-1, keepdim=True)
    return residual.norm(dim=-1, keepdim=True) / 4 if normalization == "constant_norm_rescale" else 1


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("apply", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_it_encodes_and_reconstructs_as_saelens_does_in_the_units_of_the_model(
    saes, residual, kind, apply, normalization
):
    sae, folder = saes[kind, apply, normalization]
    dictionary = load_dictionary(folder)
    with torch.no_grad():
        activations = sae.encode(residual)
        rebuilt = sae.decode(activations)
    assert 0 < (activations != 0).float().mean() < 0.9
    assert bool((activations < 0).any()) == kind.startswith("abstopk")
    expected = activations * scale_of(residual, normalization)
    torch.testing.assert_close(dictionary.encode_dense(residual), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dictionary.reconstruct(residual), rebuilt, atol=1e-5, rtol=1e-5)
    assert dictionary.hook_name == "blocks.1.hook_resid_post"
    assert dictionary.neuronpedia_id == "a/1-b"


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_latent_scaled_in_saelens_reaches_the_model_as_the_change_of_its_activation_times_its_decoder_row(
    saes, residual, kind, normalization
):
    sae, folder = saes[kind, True, normalization]
    dictionary = load_dictionary(folder)
    factor = torch.linspace(0, 2, 40)
    with torch.no_grad():
        activations = sae.encode(residual)
        before = sae.decode(activations)
        sae.encode(residual)  # SAELens forgets a token's scale with every decode.
        after = sae.decode(activations * factor)
    delta = dictionary.encode_dense(residual) * (factor - 1)
    torch.testing.assert_close(delta @ dictionary.W_dec, after - before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka"])
def test_saes_trained_by_batch_topk_are_read_as_the_jumprelu_that_they_are_saved_as(tmp_path, residual, kind):
    import sae_lens
    from sae_lens import SAE

    if kind == "matryoshka":
        config = sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(d_in=16, d_sae=40, k=5, matryoshka_widths=[10, 40])
        training = sae_lens.MatryoshkaBatchTopKTrainingSAE(config)
    else:
        training = sae_lens.BatchTopKTrainingSAE(sae_lens.BatchTopKTrainingSAEConfig(d_in=16, d_sae=40, k=5))
    generator = torch.Generator().manual_seed(0)
    for value in training.parameters():
        value.data = torch.randn(value.shape, generator=generator)
    training.topk_threshold.fill_(1.5)
    training.save_inference_model(str(tmp_path / "final"))
    sae, dictionary = SAE.load_from_disk(tmp_path / "final"), load_dictionary(tmp_path / "final")
    with torch.no_grad():
        activations = sae.encode(residual)
        torch.testing.assert_close(dictionary.encode_dense(residual), activations, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(dictionary.reconstruct(residual), sae.decode(activations), atol=1e-5, rtol=1e-5)
    assert 0 < (activations > 0).float().mean() < 0.9
    assert dictionary.threshold is not None
    training.save_model(tmp_path / "training")
    with pytest.raises(InputError, match="save_inference_model"):
        load_dictionary(tmp_path / "training")


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_codes_hold_the_dense_activations_over_several_chunks(saes, residual, kind, monkeypatch):
    monkeypatch.setattr("isaerft.subjects.dictionary.CHUNK", 7)
    dictionary = load_dictionary(saes[kind, True, "none"][1])
    torch.testing.assert_close(dictionary.encode(residual).dense(), dictionary.encode_dense(residual))


@pytest.mark.parametrize("kind", KINDS)
def test_a_permuted_dictionary_encodes_alike_and_writes_the_rows_of_others(saes, residual, kind):
    dictionary = load_dictionary(saes[kind, True, "none"][1])
    permuted = dictionary.permuted(3)
    assert torch.equal(permuted.encode_dense(residual), dictionary.encode_dense(residual))
    order = np.random.default_rng(3).permutation(40)
    assert torch.equal(permuted.W_dec, dictionary.W_dec[order])
    assert (order != np.arange(40)).sum() > 30
    assert torch.equal(dictionary.permuted(3).W_dec, permuted.W_dec)
    assert not torch.equal(dictionary.permuted(4).W_dec, permuted.W_dec)


def test_a_centered_dictionary_sees_no_mean_and_gives_it_back(saes, residual):
    folder = saes["standard", True, "none"][1]
    plain, centered = load_dictionary(folder), load_dictionary(folder, center=True)
    mean = residual.mean(-1, keepdim=True)
    shifted = residual + torch.linspace(-3, 3, 50)[:, None]
    expected = plain.encode_dense(residual - mean)
    torch.testing.assert_close(centered.encode_dense(shifted), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        centered.reconstruct(residual), plain.reconstruct(residual - mean) + mean, atol=1e-5, rtol=1e-5
    )


def test_a_latent_without_a_decoder_row_gives_no_nan(tiny, tmp_path):
    weights = tiny.random_sae()
    weights["W_dec"][3] = 0
    folder = tiny.write_sae(tmp_path, weights, architecture="topk", k=4, rescale_acts_by_decoder_norm=True)
    dictionary = load_dictionary(folder)
    assert dictionary.reconstruct(torch.randn(5, tiny.d_model)).isfinite().all()


@pytest.mark.parametrize("norm", ["expected_average_only_in", "covariance_whitening"])
def test_a_normalization_that_is_not_folded_in_is_refused_with_what_would_fold_it(tiny, tmp_path, norm):
    folder = tiny.write_sae(tmp_path, tiny.random_sae(), normalize_activations=norm)
    with pytest.raises(InputError, match=f"'{norm}'.*none, layer_norm, constant_norm_rescale.*fold"):
        load_dictionary(folder)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("temporal", "depend on other tokens"),
        ("matching_pursuit", "found by search"),
        ("matryoshka_batchtopk", "save_inference_model"),
        ("jumpreluu", "did you mean 'jumprelu'"),
    ],
)
def test_an_architecture_that_is_no_linear_dictionary_is_refused_with_the_reason(tiny, tmp_path, architecture, reason):
    folder = tiny.write_sae(tmp_path, tiny.random_sae(), architecture=architecture)
    with pytest.raises(InputError, match=rf"'{architecture}'.*{reason}|'{architecture}'.*standard.*{reason}"):
        load_dictionary(folder)


def test_the_heads_side_by_side_are_the_only_other_shape_that_is_read(tiny, tmp_path):
    load_dictionary(tiny.write_sae(tmp_path, tiny.random_sae(), reshape_activations="hook_z"))
    with pytest.raises(InputError, match=r"'hook_q'; allowed: none, hook_z"):
        load_dictionary(tiny.write_sae(tmp_path, tiny.random_sae(), reshape_activations="hook_q"))


@pytest.mark.parametrize("normalization", ["layer_norm", "constant_norm_rescale"])
def test_a_token_of_zeros_gives_no_nan(saes, normalization):
    dictionary = load_dictionary(saes["standard", True, normalization][1])
    assert dictionary.reconstruct(torch.zeros(2, 16)).isfinite().all()


def test_weights_stay_float32_whatever_the_model_runs_in(tiny, tmp_path):
    stored = {name: value.bfloat16() for name, value in tiny.random_sae().items()}
    dictionary = load_dictionary(tiny.write_sae(tmp_path, stored))
    assert {value.dtype for value in vars(dictionary).values() if isinstance(value, torch.Tensor)} == {torch.float32}
    x = torch.randn(5, tiny.d_model, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert dictionary.encode(x).values.dtype == dictionary.reconstruct(x).dtype == torch.float32
    assert torch.equal(dictionary.reconstruct(x), dictionary.reconstruct(x.float()))


def test_a_folder_without_sae_or_without_weights_is_named(tiny, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_dictionary(tmp_path / "none")
    (tmp_path / "cfg.json").write_text(json.dumps({"architecture": "standard"}))
    with pytest.raises(InputError, match=r"saved by SAELens before 6"):
        load_dictionary(tmp_path)
    folder = tiny.write_sae(tmp_path, tiny.random_sae())
    (folder / "sae_weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no sae_weights\.safetensors"):
        load_dictionary(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scaling_factor": torch.ones(48)}, r"tensors that nothing reads: scaling_factor; allowed: W_dec, W_enc"),
        ({"b_dec": None}, r"\(standard\) lacks b_dec"),
        ({"W_enc": torch.zeros(48, 32)}, r"W_enc has the shape \(48, 32\); allowed: \(32, 48\)"),
        ({"b_dec": torch.zeros(48)}, r"b_dec has the shape \(48,\); allowed: \(32,\)"),
        ({"b_enc": torch.full((48,), torch.nan)}, "b_enc holds numbers that are not finite"),
    ],
)
def test_tensors_that_are_not_those_of_the_architecture_are_named(tiny, tmp_path, change, said):
    weights = {name: value for name, value in (tiny.random_sae() | change).items() if value is not None}
    with pytest.raises(InputError, match=said):
        load_dictionary(tiny.write_sae(tmp_path, weights))


def rewritten(folder, **changes):
    path = folder / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata": None}, "metadata is None; allowed: an object"),
        ({"metadata": ["x"]}, r"metadata is \['x'\]"),
        ({"metadata": {"hook_name": 3, "sae_lens_version": "6.0"}}, "hook_name is 3; allowed: text"),
        ({"metadata": {"prepend_bos": "yes", "sae_lens_version": "6.0"}}, "prepend_bos is 'yes'"),
        ({"architecture": None}, "architecture is None"),
        ({"architecture": "topk", "k": "5"}, "k is '5'; allowed: an integer from 1 to d_sae, 48"),
        ({"architecture": "topk", "k": 49}, "k is 49"),
        ({"d_sae": 64}, "d_sae is 64; allowed: 48, as W_dec has"),
        ({"metadata": {}}, "saved by SAELens before 6; save it again"),
    ],
)
def test_a_card_that_is_not_as_saelens_writes_it_is_refused_in_one_line(tiny, tmp_path, changes, said):
    folder = rewritten(tiny.write_sae(tmp_path, tiny.random_sae()), **changes)
    with pytest.raises(InputError, match=said):
        load_dictionary(folder)


def test_a_card_that_is_no_object_is_refused(tiny, tmp_path):
    folder = tiny.write_sae(tmp_path, tiny.random_sae())
    (folder / "cfg.json").write_text("[]")
    with pytest.raises(InputError, match=r"it holds \[\]"):
        load_dictionary(folder)


def test_two_saes_of_one_size_have_two_fingerprints(tiny, tmp_path):
    one = load_dictionary(tiny.write_sae(tmp_path / "1", tiny.random_sae()))
    assert one.fingerprint == load_dictionary(tiny.write_sae(tmp_path / "2", tiny.random_sae())).fingerprint
    assert one.fingerprint != load_dictionary(tiny.write_sae(tmp_path / "3", tiny.random_sae(seed=1))).fingerprint


TRANSCODER = {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}


@pytest.mark.parametrize("kind", TRANSCODERS)
def test_a_transcoder_encodes_and_reconstructs_as_saelens_does(tmp_path, residual, kind):
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    sae_class, config_class = get_sae_class(kind)
    metadata = SAEMetadata(**TRANSCODER)
    sae = sae_class(config_class(d_in=16, d_out=12, d_sae=40, apply_b_dec_to_input=False, metadata=metadata))
    generator = torch.Generator().manual_seed(3)
    for name, value in sae.named_parameters():
        value.data = torch.randn(value.shape, generator=generator) * 0.5
        if name == "threshold":
            value.data = value.data.abs() + 0.1
    sae.save_model(tmp_path)
    dictionary = load_dictionary(tmp_path)
    assert (dictionary.hook_name, dictionary.hook_name_out) == tuple(TRANSCODER.values())
    assert (dictionary.d_in, dictionary.d_out, dictionary.d_sae) == (16, 12, 40)
    with torch.no_grad():
        activations = sae.encode(residual)
        assert 0 < (activations != 0).float().mean() < 0.9
        torch.testing.assert_close(dictionary.encode(residual).dense(), activations, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(dictionary.reconstruct(residual), sae(residual), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata": {"hook_name": "blocks.1.mlp.hook_in"}}, "without hook_name_out, so nothing says where it writes"),
        ({"apply_b_dec_to_input": True}, "a transcoder with apply_b_dec_to_input True; allowed: false"),
        ({"normalize_activations": "layer_norm"}, "a transcoder with normalize_activations 'layer_norm'"),
        ({"d_in": 99}, "d_in is 99; allowed: 32, as W_enc has"),
        ({"architecture": "skip_transcoder"}, "lacks W_skip"),
    ],
)
def test_a_transcoder_with_what_only_an_sae_can_have_is_refused(tiny, tmp_path, changes, said):
    cfg = {"architecture": "transcoder", "apply_b_dec_to_input": False, "metadata": TRANSCODER} | changes
    cfg["metadata"] = {"sae_lens_version": "6.54.12"} | cfg["metadata"]
    with pytest.raises(InputError, match=said):
        load_dictionary(tiny.write_sae(tmp_path, tiny.random_sae(), **cfg))


def test_centering_a_transcoder_is_refused(tiny, tmp_path):
    cfg = {"architecture": "transcoder", "apply_b_dec_to_input": False}
    cfg["metadata"] = TRANSCODER | {"sae_lens_version": "6.54.12"}
    with pytest.raises(InputError, match="a transcoder with center_writing_weights True"):
        load_dictionary(tiny.write_sae(tmp_path, tiny.random_sae(), **cfg), center=True)


@pytest.mark.parametrize(
    ("hook", "module", "expected"),
    [
        ("blocks.7.hook_mlp_in", "model.layers.7.pre_feedforward_layernorm.output", "blocks.7.mlp.hook_in"),
        ("blocks.7.hook_mlp_in", "", "blocks.7.hook_mlp_in"),
        ("blocks.7.hook_resid_post", "model.layers.7.output", "blocks.7.hook_resid_post"),
        ("blocks.7.attn.hook_z", "model.layers.7.self_attn.o_proj.input", "blocks.7.attn.hook_z"),
        (None, None, ""),
    ],
)
def test_an_ambiguous_hook_is_told_by_the_module_that_the_metadata_name(hook, module, expected):
    assert hook_of({"hook_name": hook, "hf_hook_name": module}) == expected
