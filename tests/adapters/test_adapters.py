import pytest
import torch
from safetensors.torch import load_file

from isaerft.adapters.base import LatentAdapter, adapted, load_adapter, make_adapter, save_adapter
from isaerft.adapters.shift import Shift
from isaerft.errors import InputError
from isaerft.subjects.codes import Codes

KINDS = ["bias", "scale", "square"]


class Square(LatentAdapter):
    """An adapter of an outside package, which gives `forward` alone."""

    kind = "square"

    def __init__(self, d_sae):
        super().__init__(d_sae)
        self.weight = torch.nn.Parameter(torch.zeros(d_sae))

    def forward(self, activations):
        return activations + self.weight * (activations**2 + 1)


def make(kind, d_sae):
    return Square(d_sae) if kind == "square" else make_adapter(kind, d_sae, {})


def stirred(adapter, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return adapter


@pytest.fixture
def batch(cached):
    return cached[0].batch(torch.tensor([2, 0, 5]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_is_the_exact_identity(subject, batch, kind):
    adapter = make(kind, subject.dictionary.d_sae)
    dense = batch.codes.dense()
    assert torch.equal(adapter(dense), dense)
    assert torch.equal(adapted(subject.dictionary, adapter, batch), batch.residual)


@pytest.mark.parametrize("kind", KINDS)
def test_the_residual_stream_moves_by_decode_of_the_new_minus_decode_of_the_old(subject, batch, kind):
    adapter = stirred(make(kind, subject.dictionary.d_sae))
    dense = batch.codes.dense()
    moved = (adapter(dense) - dense) @ subject.dictionary.W_dec
    assert moved.abs().max() > 0.1
    result = adapted(subject.dictionary, adapter, batch)
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


def test_the_parts_of_a_shift_add_up():
    codes = Codes.from_dense(torch.tensor([[1.0, 0, 2], [0, 0, 3]]))
    decoder = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    constant, entries, dense = torch.tensor([1.0, 0, 0]), torch.tensor([10.0, 20, 30]), torch.full((2, 3), 0.5)
    shift = Shift(codes, constant, entries, dense)
    delta = dense + constant + torch.tensor([[10.0, 0, 20], [0, 0, 30]])
    assert torch.equal(shift.total(), delta.sum(0))
    assert torch.equal(shift.residual(decoder), delta @ decoder)
    direction = torch.tensor([[1.0, 2], [3, 4]])
    assert torch.equal(shift.against(decoder, direction), (delta * (direction @ decoder.T)).sum(0))


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

    (parameter,) = adapter.parameters()
    (gradient,) = torch.autograd.grad(loss(), parameter)
    for index in range(8):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter[index] += step
                values.append(float(loss()))
                parameter[index] -= step
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(float(gradient[index]), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", ["bias", "scale"])
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
    assert torch.equal(load_file(tmp_path / "seed_0" / "adapter_model.safetensors")[kind], adapter.latent_parameter())


def test_an_adapter_for_another_dictionary_is_refused_with_both_sizes(tmp_path):
    save_adapter(make("bias", 9), tmp_path / "seed_0")
    with pytest.raises(InputError, match=r"is for 9 latents; allowed: 10"):
        load_adapter(tmp_path / "seed_0", 10)


def test_a_folder_without_an_adapter_and_a_lora_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_adapter(tmp_path / "none", 9)
    (tmp_path / "adapter_config.json").write_text('{"kind": "lora", "rank": 8}')
    with pytest.raises(InputError, match="is a LoRA"):
        load_adapter(tmp_path, 9)


def test_an_unknown_adapter_or_option_is_refused_by_name():
    with pytest.raises(InputError, match=r"unknown adapter 'biass'.*did you mean 'bias'"):
        make_adapter("biass", 4, {})
    with pytest.raises(InputError, match=r"'bias' with options \{'rank': 3\}"):
        make_adapter("bias", 4, {"rank": 3})
