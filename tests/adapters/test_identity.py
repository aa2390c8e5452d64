"""Every adapter, on every SAE architecture, in every model class: training starts from the model as it is."""

from types import SimpleNamespace

import pytest
import torch

from isaerft.adapters.base import LatentAdapter, adapted, make_adapter
from isaerft.registry import ADAPTERS
from isaerft.subjects.dictionary import ARCHITECTURES, load_dictionary
from isaerft.subjects.hooks import find_hook, hidden_above, residual_stream, unembed

MODELS = ("llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen2", "qwen3", "mistral")
OPTIONS = ({}, {"nonnegative": True, "clamp": 0.1})


def kinds():
    """Every registered adapter on latents."""
    parts = {kind: ADAPTERS[kind] for kind in ADAPTERS}
    return [kind for kind, part in parts.items() if isinstance(part, type) and issubclass(part, LatentAdapter)]


@pytest.fixture(scope="module")
def dictionaries(tiny, tmp_path_factory):
    """One random dictionary of each architecture; each file holds every tensor that one of them reads."""
    made = {}
    for architecture in ARCHITECTURES:
        weights = tiny.random_sae()
        weights |= {"threshold": torch.full((tiny.d_sae,), 0.1), "b_gate": weights["b_enc"].clone()}
        weights |= {"r_mag": torch.full((tiny.d_sae,), 0.2), "b_mag": torch.full((tiny.d_sae,), 0.3)}
        folder = tiny.write_sae(tmp_path_factory.mktemp("sae"), weights, architecture=architecture, k=6)
        made[architecture] = load_dictionary(folder)
    return made


@pytest.fixture(scope="module")
def streams(model_of):
    """Give a model's residual stream and logits at the hook of its second block, computed once."""
    made = {}

    def give(name):
        if name not in made:
            model = model_of(name)
            site = find_hook(model, "blocks.1.hook_resid_post")
            tokens = torch.randint(3, 250, (2, 7), generator=torch.Generator().manual_seed(1))
            mask = torch.ones_like(tokens)
            residual = residual_stream(model, site, tokens, mask)
            with torch.no_grad():
                whole = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
            made[name] = model, site, residual, mask, whole
        return made[name]

    return give


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_new_adapter_is_the_exact_identity(dictionaries, streams, architecture, model_class):
    dictionary, (model, site, residual, mask, whole) = dictionaries[architecture], streams(model_class)
    flat = residual.reshape(-1, dictionary.d_in)
    codes = dictionary.encode(flat)
    batch = SimpleNamespace(residual=flat, codes=codes)
    assert 0 < len(codes.indices) < codes.n_tokens * codes.d_sae
    for kind in kinds():
        # What is fitted to activations rather than trained takes no bounds.
        for options in OPTIONS if ADAPTERS[kind].made == "latents" else OPTIONS[:1]:
            adapter = make_adapter(kind, dictionary.d_sae, options, seed=5)
            with torch.no_grad():
                assert torch.equal(adapter(codes.dense()), codes.dense()), (kind, options)
                assert torch.equal(adapted(dictionary, adapter, batch), flat), (kind, options)
    # The same path gives the model's own logits, and moves as soon as any of the adapters does.
    with torch.no_grad():
        start = adapted(dictionary, make_adapter("bias", dictionary.d_sae, {}), batch)
        logits = unembed(model, hidden_above(model, site, start.view_as(residual), mask))
        torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-5)
        for kind in kinds():
            adapter = make_adapter(kind, dictionary.d_sae, {})
            for parameter in [*adapter.writing_parameters(), *adapter.buffers()]:
                parameter.fill_(0.5)
            assert not torch.equal(adapted(dictionary, adapter, batch), flat), kind
