"""The linear pullback where it is exact, where it fails, and what a dictionary spans."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from isaerft.adapters.base import make_adapter
from isaerft.adapters.model import Residual
from isaerft.adapters.saved import save_adapter
from isaerft.changes.weight_pullback import spanned_shares, weight_pullback
from isaerft.subjects.capture import capture
from isaerft.subjects.dictionary import load_dictionary

ROWS, N = torch.arange(4), 20


def used(subject, records, tiny, folder, bias):
    """A subject whose SAE has twenty orthonormal latents with this encoder bias, and its held-out rows."""
    frame = torch.linalg.qr(torch.randn(tiny.d_model, tiny.d_model, generator=torch.Generator().manual_seed(0)))[0]
    rows = frame[:N]
    weights = {"W_enc": rows.T, "b_enc": torch.full((N,), bias), "W_dec": rows, "b_dec": torch.zeros(tiny.d_model)}
    found = replace(subject, dictionary=load_dictionary(tiny.write_sae(folder / "sae", weights)))
    return found, capture(found, records[12:], 32, 5), frame


def pulled(subject, heldout, adapter, folder, kind="residual"):
    adapter.kind = kind
    save_adapter(adapter, folder / "adapter")
    return weight_pullback(folder / "adapter", subject, heldout, ROWS, np.arange(N), 3)


def residual(read, write, bias=None):
    adapter = Residual(read.shape[1], rank=len(read), bias=bias is not None)
    with torch.no_grad():
        adapter.down.copy_(read)
        adapter.up.copy_(write.T)
        if bias is not None:
            adapter.bias.copy_(bias)
    return adapter


def test_where_every_latent_is_on_both_pullbacks_are_the_same(subject, records, tiny, tmp_path):
    subject, heldout, frame = used(subject, records, tiny, tmp_path, 1000.0)
    generator = torch.Generator().manual_seed(1)
    read, write = (torch.randn(2, 32, generator=generator) for _ in range(2))
    table = pulled(subject, heldout, residual(0.1 * read, write, frame[3]), tmp_path)
    np.testing.assert_allclose(table.first_order, table.activations, atol=2e-3)
    np.testing.assert_allclose(table.encoder, table.activations, atol=2e-3)
    np.testing.assert_allclose(table.decoder, table.activations, atol=2e-3)
    text = heldout.residual[[row for row in range(len(heldout.tokens)) if row not in heldout.starts.tolist()]]
    expected = ((0.1 * text @ read.T @ write + frame[3]) @ subject.dictionary.W_enc).mean(0)
    np.testing.assert_allclose(table.encoder, expected, rtol=1e-3, atol=1e-3)
    matrix = 0.1 * read.T @ write
    np.testing.assert_allclose(table.weights_encoder, (matrix @ subject.dictionary.W_enc).norm(dim=0), rtol=1e-4)


def test_a_silent_latent_moves_in_activations_and_not_to_first_order(subject, records, tiny, tmp_path):
    """A push across the threshold: the linear part of a silent latent is 0, and the pullback of activations sees it."""
    subject, heldout, frame = used(subject, records, tiny, tmp_path, -1000.0)
    table = pulled(subject, heldout, residual(frame[:0], frame[:0], 1100 * frame[3]), tmp_path)
    assert table.activations.abs().idxmax() == 3
    assert table.activations[3] > 50
    assert table.first_order.tolist() == [0] * N
    assert table.encoder.idxmax() == 3
    assert table.weights_encoder.isna().all(), "a bias alone has no weights"


def test_an_adapter_on_latents_needs_no_pullback_and_one_that_moves_nothing_has_none(subject, records, tiny, tmp_path):
    subject, heldout, frame = used(subject, records, tiny, tmp_path, 1000.0)
    assert pulled(subject, heldout, make_adapter("low_rank", N, {}), tmp_path, "low_rank") is None
    assert pulled(subject, heldout, residual(frame[:1], 0 * frame[:1]), tmp_path / "still") is None


def test_the_dictionary_spans_what_is_written_along_its_latents_and_nothing_else():
    frame = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)).double())[0]
    rows, alive = frame[:20], torch.arange(20)
    inside = frame[:2].T @ frame[5:7]
    outside = frame[:2].T @ frame[30:32]
    half = frame[:1].T @ frame[5:6] + frame[1:2].T @ frame[30:31]
    for matrix, share in ((inside, 1), (outside, 0), (half, 0.5)):
        found = spanned_shares(matrix, frame[:, :20], rows, alive)
        assert found["spanned_decoder"] == pytest.approx(share, abs=1e-9)
        assert found["spanned_by_k"] == pytest.approx(share, abs=1e-9)
    assert spanned_shares(inside, None, rows, alive)["spanned_by_k_random"] < 0.6
    reads = spanned_shares(inside, rows[:3].T, rows, torch.arange(3))
    assert reads["readable_encoder"] == pytest.approx(0, abs=1e-9), "no living latent's encoder reads it"
    assert spanned_shares(0 * inside, None, rows, alive) == {}


def test_few_latents_span_a_map_that_is_sparse_in_the_dictionary_and_not_a_random_one():
    generator = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(300, 40, generator=generator).double(), dim=1)
    sparse = torch.randn(40, 3, generator=generator).double() @ rows[100:103]
    found = spanned_shares(sparse, None, rows, torch.arange(300))
    assert found["spanned_decoder"] == pytest.approx(1)
    assert found["spanned_by_k"] > 0.95
    dense = torch.randn(40, 40, generator=generator).double()
    found = spanned_shares(dense, None, rows, torch.arange(300))
    assert found["spanned_by_k"] == pytest.approx(found["spanned_by_k_random"], abs=0.05)
    assert found["spanned_by_k_random"] > 10 / 40, "the latents are chosen to fit"
