"""Claims that hold for every adapter on latents."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from isaerft.adapters.base import LatentAdapter, adapted, make_adapter
from isaerft.adapters.saved import load_adapter, save_adapter
from isaerft.errors import InputError
from isaerft.registry import ADAPTERS
from isaerft.subjects.codes import Codes
from isaerft.subjects.dictionary import ARCHITECTURES, load_dictionary
from isaerft.subjects.hooks import hidden_above, residual_stream, unembed
from isaerft.subjects.load import LoadedModel, LoadedSubject
from isaerft.subjects.points import find_hook

PLAIN = {
    "bias": ("bias", {}),
    "scale": ("scale", {}),
    "affine": ("affine", {}),
    "lerp": ("lerp", {"target": 0.5}),
    "low_rank": ("low_rank", {"rank": 3}),
    "linear": ("mlp", {"depth": 0}),
    "mlp": ("mlp", {"depth": 1, "width": 5}),
    "deep": ("mlp", {"depth": 3, "width": 5}),
}


BOUNDED = {
    f"{name}_{bound}": (
        kind,
        options | {"nonnegative": bound == "nonnegative"} | ({"clamp": 0.4} if bound == "clamp" else {}),
    )
    for name, (kind, options) in PLAIN.items()
    for bound in ("nonnegative", "clamp")
}


VARIANTS = PLAIN | BOUNDED


KINDS = [*VARIANTS, "square"]


class Square(LatentAdapter):
    """An adapter of an outside package, which gives `forward` alone."""

    kind = "square"

    def __init__(self, d_sae):
        super().__init__(d_sae)
        self.weight = torch.nn.Parameter(torch.zeros(d_sae))

    def forward(self, activations):
        return activations + self.weight * (activations**2 + 1)


def make(kind, d_sae):
    return Square(d_sae) if kind == "square" else make_adapter(VARIANTS[kind][0], d_sae, VARIANTS[kind][1])


def stirred(adapter, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(0.3 * scale * torch.randn(parameter.shape, generator=generator))
    return adapter


@pytest.fixture
def batch(cached):
    return cached[0].batch(torch.tensor([2, 0, 5]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_is_the_exact_identity(subject, batch, kind):
    adapter = make(kind, subject.dictionary.d_sae)
    dense = batch.codes.dense()
    assert torch.equal(adapter(dense), dense)
    assert torch.equal(adapted(subject, adapter, batch), batch.residual)


@pytest.mark.parametrize("kind", KINDS)
def test_the_residual_stream_moves_by_decode_of_the_new_minus_decode_of_the_old(subject, batch, kind):
    adapter = stirred(make(kind, subject.dictionary.d_sae))
    dense = batch.codes.dense()
    moved = (adapter(dense) - dense) @ subject.dictionary.W_dec
    assert moved.abs().max() > 0.1
    result = adapted(subject, adapter, batch)
    torch.testing.assert_close(result, batch.residual + moved, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_form_of_a_shift_says_what_forward_says(subject, batch, kind):
    adapter = stirred(make(kind, subject.dictionary.d_sae))
    dense, decoder = batch.codes.dense(), subject.dictionary.W_dec
    delta, shift = adapter(dense) - dense, adapter.shift(batch.codes)
    direction = torch.randn(len(dense), decoder.shape[1], generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(shift.residual(decoder), delta @ decoder, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shift.total(), delta.sum(0), atol=1e-5, rtol=1e-5)
    inner = (delta * (direction @ decoder.T)).sum(0)
    torch.testing.assert_close(shift.against(decoder, direction), inner, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences(kind):
    generator = torch.Generator().manual_seed(0)
    dense = torch.relu(torch.randn(6, 8, generator=generator, dtype=torch.float64) - 0.3)
    decoder = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    target = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    adapter = stirred(make(kind, 8).double())
    codes = Codes.from_dense(dense)

    def loss():
        return (adapter.shift(codes).residual(decoder) - target).square().sum()

    parameters = list(adapter.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    assert all(gradient.any() for gradient in gradients)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        for index in list(range(parameter.numel()))[:: max(1, parameter.numel() // 8)]:
            values = []
            for step in (1e-5, -2e-5):
                with torch.no_grad():
                    parameter.view(-1)[index] += step
                    values.append(float(loss()))
            with torch.no_grad():
                parameter.view(-1)[index] += 1e-5
            expected = float(gradient.view(-1)[index])
            assert (values[0] - values[1]) / 2e-5 == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", VARIANTS)
def test_the_first_gradient_is_not_lost_at_the_identity(kind):
    """At its start an adapter with bounds stands on them (f' = f = 0), and training must still get away."""
    dense = torch.tensor([[0.0, 0.3, 0], [0.7, 0, 0]])
    adapter = make(kind, 3)
    (gradient, *_) = torch.autograd.grad(
        adapter.shift(Codes.from_dense(dense)).residual(torch.eye(3)).sum(), adapter.writing_parameters()
    )
    assert gradient.any(0 if gradient.ndim == 2 else -1).any()
    plain = make(kind.split("_nonneg")[0].split("_clamp")[0], 3)
    (expected, *_) = torch.autograd.grad((plain(dense)).sum(), plain.writing_parameters())
    inside = dense.max(0).values < 0.4
    torch.testing.assert_close(gradient[..., inside], expected[..., inside])


@pytest.mark.parametrize("kind", BOUNDED)
def test_bounded_activations_stay_inside_or_where_they_were(kind):
    generator = torch.Generator().manual_seed(2)
    dense = torch.randn(40, 8, generator=generator)
    adapter = stirred(make(kind, 8), scale=3)
    changed = adapter(dense)
    free = make_adapter(
        adapter.kind, 8, {k: v for k, v in VARIANTS[kind][1].items() if k not in ("nonnegative", "clamp")}
    )
    free.load_state_dict(adapter.state_dict())
    if adapter.bounds.nonnegative:
        expected = torch.maximum(free(dense), dense.clamp(max=0))
        assert (changed[dense >= 0] >= 0).all()
    else:
        expected = torch.minimum(torch.maximum(free(dense), dense.clamp(max=-0.4)), dense.clamp(min=0.4))
        assert (changed[dense.abs() <= 0.4].abs() <= 0.4 + 1e-6).all()
    torch.testing.assert_close(changed, expected, atol=1e-5, rtol=1e-5)
    assert (changed != free(dense)).float().mean() > 0.1, "the bounds were never reached"


def test_the_mlp_is_the_network_that_it_says():
    adapter = stirred(make("deep", 6))
    dense = torch.relu(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)))
    state = dense
    for weight, bias in zip(adapter.hidden, adapter.hidden_bias, strict=True):
        state = torch.nn.functional.gelu(state @ weight + bias)
    torch.testing.assert_close(adapter(dense), dense + state @ adapter.output + adapter.output_bias)
    assert [tuple(weight.shape) for weight in adapter.hidden] == [(6, 5), (5, 5), (5, 5)]
    linear = stirred(make("linear", 6))
    assert sum(parameter.numel() for parameter in linear.parameters()) == 6 * 6 + 6
    torch.testing.assert_close(linear(dense), dense + dense @ linear.output + linear.output_bias)


def test_low_rank_changes_by_a_map_of_its_rank():
    adapter = stirred(make("low_rank", 9))
    change = adapter(torch.eye(9)) - torch.eye(9)
    assert torch.linalg.matrix_rank(change) == 3
    torch.testing.assert_close(change, adapter.down @ adapter.up)


@pytest.mark.parametrize("kind", VARIANTS)
def test_the_latent_parameter_is_0_exactly_where_nothing_is_written(kind):
    adapter = stirred(make(kind, 7))
    with torch.no_grad():
        for parameter in adapter.writing_parameters():
            parameter[..., 2] = 0
    number = adapter.latent_parameter()
    assert number.shape == (7,)
    assert number[2] == 0
    assert (number != 0).sum() == adapter.n_active() == 6
    dense = torch.relu(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)))
    assert torch.equal((adapter(dense) != dense).any(0), number != 0)
    assert not make(kind, 7).latent_parameter().any()


@pytest.mark.parametrize(("kind", "activation"), [("bias", 1), ("scale", 1), ("affine", 1), ("lerp", 0)])
def test_an_elementwise_parameter_is_the_change_at_a_fixed_activation(kind, activation):
    adapter, given = stirred(make(kind, 5)), torch.full((5,), float(activation))
    torch.testing.assert_close(adapter.latent_parameter(), (adapter(given) - given).detach())


@pytest.mark.parametrize("kind", ["low_rank", "mlp", "linear"])
def test_the_parameter_of_a_map_has_the_size_of_what_writes_the_latent_and_the_sign_of_its_change(kind):
    adapter, ones = stirred(make(kind, 5)), torch.ones(5)
    number = adapter.latent_parameter()
    written = torch.cat([parameter.detach().reshape(-1, 5) for parameter in adapter.writing_parameters()])
    torch.testing.assert_close(number.abs(), written.norm(dim=0))
    assert torch.equal(number.sign(), (adapter(ones) - ones).sign().detach())


@pytest.mark.parametrize("kind", ["low_rank", "mlp"])
def test_seeds_draw_different_starts_and_the_same_seed_the_same(kind):
    first, same, other = (make_adapter(kind, 6, {}, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_saved_adapter_comes_back_with_its_numbers(kind, tmp_path):
    adapter = stirred(make(kind, 9))
    save_adapter(adapter, tmp_path / "seed_0")
    assert {path.name for path in (tmp_path / "seed_0").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    read = load_adapter(tmp_path / "seed_0", 9)
    assert type(read) is type(adapter)
    assert torch.equal(read.latent_parameter(), adapter.latent_parameter())
    assert (read.kind, read.options()) == (adapter.kind, adapter.options())
    dense = torch.relu(torch.randn(5, 9, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(read(dense), adapter(dense))
    stored = load_file(tmp_path / "seed_0" / "adapter_model.safetensors")
    assert {name: tuple(value.shape) for name, value in stored.items()} == {
        name: tuple(value.shape) for name, value in adapter.named_parameters()
    }


def test_an_unknown_adapter_or_option_is_refused_by_name():
    with pytest.raises(InputError, match=r"unknown adapter 'biass'.*did you mean 'bias'"):
        make_adapter("biass", 4, {})
    with pytest.raises(InputError, match=r"'bias' with options \{'rank': 3\}"):
        make_adapter("bias", 4, {"rank": 3})


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("low_rank", {"rank": 0}, r"'low_rank': rank = 0; allowed: a whole number from 1 to 8"),
        ("low_rank", {"rank": True}, r"rank = True"),
        ("mlp", {"depth": -1}, r"'mlp': depth = -1; allowed: a whole number from 0 to 64"),
        ("mlp", {"width": 2.5}, r"'mlp': width = 2\.5"),
        ("lerp", {"target": "high"}, r"'lerp': target = 'high'; allowed: a number"),
        ("bias", {"clamp": -1.0}, r"clamp = -1\.0; allowed: a number above 0"),
        ("bias", {"clamp": True}, r"clamp = True; allowed: a number above 0"),
        ("scale", {"nonnegative": "yes"}, r"nonnegative = 'yes'; allowed: true, false"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_what_does(kind, options, message):
    with pytest.raises(InputError, match=message):
        make_adapter(kind, 4, options)


MODELS = ("llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen2", "qwen3", "mistral")


OPTIONS = ({}, {"nonnegative": True, "clamp": 0.1})


def kinds():
    """Every registered adapter on latents."""
    parts = {kind: ADAPTERS[kind] for kind in ADAPTERS}
    return [kind for kind, part in parts.items() if isinstance(part, type) and issubclass(part, LatentAdapter)]


@pytest.fixture(scope="module")
def dictionaries(tiny, tmp_path_factory):
    """One random dictionary of each architecture."""
    made = {}
    for architecture in ARCHITECTURES:
        weights = tiny.random_sae()
        if architecture == "jumprelu":
            weights["threshold"] = torch.full((tiny.d_sae,), 0.1)
        if architecture == "gated":
            weights["b_gate"] = weights.pop("b_enc")
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
    batch = SimpleNamespace(residual=flat, codes=codes, written=None)
    used = LoadedSubject(LoadedModel(model, None, False), dictionary, site)
    assert 0 < len(codes.indices) < codes.n_tokens * codes.d_sae
    for kind in kinds():
        # What is fitted to activations rather than trained takes no bounds.
        for options in OPTIONS if ADAPTERS.facts(kind).made == "latents" else OPTIONS[:1]:
            adapter = make_adapter(kind, dictionary.d_sae, options, seed=5)
            with torch.no_grad():
                assert torch.equal(adapter(codes.dense()), codes.dense()), (kind, options)
                assert torch.equal(adapted(used, adapter, batch), flat), (kind, options)
    # The same path gives the model's own logits, and moves as soon as any of the adapters does.
    with torch.no_grad():
        start = adapted(used, make_adapter("bias", dictionary.d_sae, {}), batch)
        logits = unembed(model, hidden_above(model, site, start.view_as(residual), mask))
        torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-5)
        for kind in kinds():
            adapter = make_adapter(kind, dictionary.d_sae, {})
            for parameter in [*adapter.writing_parameters(), *adapter.buffers()]:
                parameter.fill_(0.5)
            assert not torch.equal(adapted(used, adapter, batch), flat), kind
