from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft import config
from isaerft.errors import InputError
from isaerft.subjects.meta import composition

N_PARTS, WIDTH = 12, 32


def composed(seed=0):
    """Decoder rows (n, WIDTH), each the sum of two of N_PARTS parts; which two, (n, 2)."""
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((N_PARTS, WIDTH))
    parts /= np.linalg.norm(parts, axis=1, keepdims=True)
    pairs = np.array(list(combinations(range(N_PARTS), 2)) * 3)
    rows = parts[pairs].sum(1) + 0.02 * rng.standard_normal((len(pairs), WIDTH))
    return torch.from_numpy(rows * rng.uniform(0.1, 3, (len(pairs), 1))), pairs


@pytest.mark.slow
def test_planted_parts_are_found_and_latents_that_share_one_share_its_meta_latent():
    rows, pairs = composed()
    frame = composition(rows, config.MetaSae(d_sae=N_PARTS, target_l0=2, steps=1500, batch_size=128), seed=0)
    found = frame.dropna().groupby("latent_index")["meta_latent"].agg(set)
    alike, other = [], []
    for i, j in combinations(range(0, len(pairs), 3), 2):
        shared = bool(found.get(i, set()) & found.get(j, set()))
        (alike if set(pairs[i]) & set(pairs[j]) else other).append(shared)
    assert np.mean(alike) > 0.85
    assert np.mean(other) < 0.15
    assert frame.drop_duplicates("latent_index")["explained"].mean() > 0.8


def test_every_latent_has_its_rows_largest_part_first_whatever_its_norm():
    rows, _ = composed()
    options = config.MetaSae(target_l0=2, steps=30, batch_size=64)
    frame = composition(rows, options, seed=0)
    assert sorted(set(frame["latent_index"])) == list(range(len(rows)))
    assert frame["latent_index"].is_monotonic_increasing
    assert all(part["weight"].dropna().is_monotonic_decreasing for _, part in frame.groupby("latent_index"))
    assert frame.groupby("latent_index")["explained"].nunique().eq(1).all()
    pd.testing.assert_frame_equal(composition(5 * rows, options, seed=0).round(4), frame.round(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"d_sae": 400}, "fewer than there are latents"), ({"d_sae": 4}, "target_l0 below d_sae")],
)
def test_a_meta_sae_that_composes_nothing_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        composition(composed()[0], config.MetaSae(**options), seed=0)
