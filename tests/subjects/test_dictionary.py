import json

import numpy as np
import pytest
import torch

from isaerft.errors import InputError
from isaerft.subjects.codes import Codes
from isaerft.subjects.dictionary import load_dictionary

KINDS = ["standard", "gated", "jumprelu", "topk", "topk-rescaled"]


@pytest.fixture(scope="module")
def saes(tmp_path_factory):
    """SAEs of SAELens with random weights, saved; name -> (SAE as SAELens loads it, folder)."""
    from sae_lens import SAE, GatedSAEConfig, JumpReLUSAEConfig, StandardSAEConfig, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    made = {}
    for kind in KINDS:
        for apply in (True, False):
            size = {"d_in": 16, "d_sae": 40, "apply_b_dec_to_input": apply}
            size["metadata"] = SAEMetadata(hook_name="blocks.1.hook_resid_post", neuronpedia_id="a/1-b")
            config = {
                "standard": lambda s: StandardSAEConfig(**s),
                "gated": lambda s: GatedSAEConfig(**s),
                "jumprelu": lambda s: JumpReLUSAEConfig(**s),
                "topk": lambda s: TopKSAEConfig(k=5, rescale_acts_by_decoder_norm=False, **s),
                "topk-rescaled": lambda s: TopKSAEConfig(k=5, rescale_acts_by_decoder_norm=True, **s),
            }[kind](size)
            sae = SAE.get_sae_class_for_architecture(config.architecture())(config)
            generator = torch.Generator().manual_seed(len(made))
            for name, value in sae.named_parameters():
                value.data = torch.randn(value.shape, generator=generator) * 0.5
                if name == "threshold":
                    value.data = value.data.abs() + 0.1
            folder = tmp_path_factory.mktemp("sae")
            sae.save_model(folder)
            made[kind, apply] = SAE.load_from_disk(folder), folder
    return made


@pytest.fixture
def residual():
    return 2 * torch.randn(50, 16, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("apply", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_it_encodes_and_decodes_as_saelens_does(saes, residual, kind, apply):
    sae, folder = saes[kind, apply]
    dictionary = load_dictionary(folder)
    with torch.no_grad():
        activations = sae.encode(residual)
        rebuilt = sae.decode(activations)
    assert 0 < (activations > 0).float().mean() < 0.9
    torch.testing.assert_close(dictionary.encode_dense(residual), activations, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dictionary.decode(Codes.from_dense(activations)), rebuilt, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dictionary.reconstruct(residual), rebuilt, atol=1e-5, rtol=1e-5)
    assert dictionary.hook_name == "blocks.1.hook_resid_post"
    assert dictionary.neuronpedia_id == "a/1-b"


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_codes_hold_the_dense_activations_over_several_chunks(saes, residual, kind, monkeypatch):
    monkeypatch.setattr("isaerft.subjects.dictionary.CHUNK", 7)
    dictionary = load_dictionary(saes[kind, True][1])
    torch.testing.assert_close(dictionary.encode(residual).dense(), dictionary.encode_dense(residual))


@pytest.mark.parametrize("kind", KINDS)
def test_a_permuted_dictionary_encodes_alike_and_writes_the_rows_of_others(saes, residual, kind):
    dictionary = load_dictionary(saes[kind, True][1])
    permuted = dictionary.permuted(3)
    assert torch.equal(permuted.encode_dense(residual), dictionary.encode_dense(residual))
    order = np.random.default_rng(3).permutation(40)
    assert torch.equal(permuted.W_dec, dictionary.W_dec[order])
    assert (order != np.arange(40)).sum() > 30
    assert torch.equal(dictionary.permuted(3).W_dec, permuted.W_dec)
    assert not torch.equal(dictionary.permuted(4).W_dec, permuted.W_dec)


def test_a_centred_dictionary_sees_no_mean_and_gives_it_back(saes, residual):
    folder = saes["standard", True][1]
    plain, centred = load_dictionary(folder), load_dictionary(folder, center=True)
    mean = residual.mean(-1, keepdim=True)
    shifted = residual + torch.linspace(-3, 3, 50)[:, None]
    expected = plain.encode_dense(residual - mean)
    torch.testing.assert_close(centred.encode_dense(shifted), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        centred.reconstruct(residual), plain.reconstruct(residual - mean) + mean, atol=1e-5, rtol=1e-5
    )


def test_a_latent_without_a_decoder_row_gives_no_nan(tiny, tmp_path):
    weights = tiny.random_sae()
    weights["W_dec"][3] = 0
    folder = tiny.write_sae(tmp_path, weights, architecture="topk", k=4, rescale_acts_by_decoder_norm=True)
    dictionary = load_dictionary(folder)
    assert dictionary.reconstruct(torch.randn(5, tiny.d_model)).isfinite().all()


@pytest.mark.parametrize("norm", ["expected_average_only_in", "layer_norm", "constant_norm_rescale"])
def test_a_normalisation_that_is_not_folded_in_is_refused(tiny, tmp_path, norm):
    folder = tiny.write_sae(tmp_path, tiny.random_sae(), normalize_activations=norm)
    with pytest.raises(InputError, match=f"{norm}.*fold"):
        load_dictionary(folder)


@pytest.mark.parametrize("architecture", ["temporal", "matching_pursuit", "transcoder", "jumpreluu"])
def test_an_architecture_that_is_no_linear_dictionary_is_refused_with_those_that_are(tiny, tmp_path, architecture):
    folder = tiny.write_sae(tmp_path, tiny.random_sae(), architecture=architecture)
    with pytest.raises(InputError, match=rf"'{architecture}'; allowed: gated, jumprelu, standard, topk"):
        load_dictionary(folder)


def test_a_folder_without_sae_or_without_weights_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_dictionary(tmp_path / "none")
    (tmp_path / "cfg.json").write_text(json.dumps({"architecture": "standard"}))
    with pytest.raises(InputError, match=r"has no sae_weights\.safetensors"):
        load_dictionary(tmp_path)
