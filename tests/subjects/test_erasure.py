"""Directions erased from cached rows, and from what latents write."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from isaerft.adapters.base import adapted, make_adapter
from isaerft.errors import InputError
from isaerft.stats.erasure import Eraser
from isaerft.subjects.erasure import read_erasures, write_erasures
from isaerft.training.erasing import erasure_of


@pytest.fixture
def erasure(subject):
    rng = np.random.default_rng(0)
    read, write = rng.standard_normal((2, subject.language.d_model))
    return erasure_of(Eraser(rng.standard_normal(len(read)), read[:, None] / (read @ write), write[None]))


def test_text_loses_the_direction_bos_stays_and_the_codes_are_those_of_what_is_left(subject, cached, erasure):
    rows = cached[0]
    found = erasure.on_rows(subject, rows)
    is_bos = torch.zeros(len(rows.tokens), dtype=torch.bool)
    is_bos[rows.starts[:-1]] = True
    assert torch.equal(found.residual[is_bos], rows.residual[is_bos])
    left = (found.residual[~is_bos] - erasure.center) @ erasure.read
    assert float(((rows.residual[~is_bos] - erasure.center) @ erasure.read).abs().max()) > 0.1
    torch.testing.assert_close(left, torch.zeros_like(left), atol=1e-4, rtol=0)
    dense = found.codes.dense()
    torch.testing.assert_close(dense[~is_bos], subject.dictionary.encode_dense(found.residual[~is_bos]))
    assert not dense[is_bos].any()
    for name in ("tokens", "predicts", "starts"):
        assert getattr(found, name) is getattr(rows, name)


@pytest.mark.parametrize("kind", ["bias", "affine", "low_rank"])
def test_no_adapter_on_latents_writes_the_direction_back(subject, cached, erasure, kind):
    adapter = make_adapter(kind, subject.dictionary.d_sae, {})
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    batch = erasure.on_rows(subject, cached[0]).batch(torch.arange(4))
    adapter.requires_grad_(False)
    change = adapted(erasure.on_subject(subject), adapter, batch) - batch.residual
    assert float(change.abs().max()) > 0.1
    along = change @ erasure.read
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-3 * float(change.abs().max()), rtol=0)
    assert float(((adapted(subject, adapter, batch) - batch.residual) @ erasure.read).abs().max()) > 0.1


def test_an_sae_off_the_residual_stream_is_refused(subject, erasure):
    with pytest.raises(InputError, match="allowed: SAEs on the residual stream"):
        erasure.on_subject(replace(subject, hook=replace(subject.hook, reads="mlp")))


def test_the_erasure_of_every_seed_is_read_as_it_was_written(erasure, tmp_path):
    other = replace(erasure, read=torch.zeros(len(erasure.center), 0), write=torch.zeros(0, len(erasure.center)))
    write_erasures([erasure, other], tmp_path / "x.safetensors")
    found = read_erasures(tmp_path / "x.safetensors")
    for one, same in zip(found, (erasure, other), strict=True):
        assert all(torch.equal(getattr(one, name), getattr(same, name)) for name in ("center", "read", "write"))
    with pytest.raises(InputError, match="run `isaerft erase` first"):
        read_erasures(tmp_path / "none.safetensors")
