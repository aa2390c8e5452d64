"""A meta-SAE: a small dictionary of the decoder rows of an SAE, which says what each latent is composed of.

Leask et al. 2025, "Sparse Autoencoders Do Not Find Canonical Units of Analysis" (arXiv 2502.04878).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from isaerft import config
from isaerft.errors import InputError
from isaerft.io import replacing
from isaerft.subjects.dictionary import TINY, Dictionary, load_dictionary
from isaerft.subjects.sae import fit_sae

FEWEST = 16
"""Latents below which there is nothing to compose."""


def write_composition(
    dictionary: Dictionary, latents: np.ndarray, options: config.MetaSae, path: str | Path, *, seed: int
) -> None:
    """Train a meta-SAE on latents' decoder rows and write what each is composed of, atomically.

    Parameters
    ----------
    latents : (n,) int
        The latents, those that are alive.
    path : str or Path
        The file, as `composition` returns it.

    Raises
    ------
    InputError
        Fewer latents are alive than `FEWEST`, or the meta-SAE is asked to be as large as what it composes.
    """
    if len(latents) < FEWEST:
        raise InputError(f"meta_sae of a dictionary with {len(latents)} living latents", allowed=f"{FEWEST} or more")
    rows = dictionary.decoder[torch.from_numpy(latents)]
    frame = composition(rows, options, seed)
    frame["latent_index"] = latents[frame["latent_index"]]
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)


def composition(rows: torch.Tensor, options: config.MetaSae, seed: int) -> pd.DataFrame:
    """Return what each decoder row (n, d_model) is composed of by a meta-SAE that is trained on them.

    Rows are scaled to length 1, so that no latent counts for its norm.

    Returns
    -------
    DataFrame
        One row for each meta-latent that is active on a row, the largest first: latent_index (the row), meta_latent,
        weight (the length of its part) and explained (share of the rows' variance about their mean that all its parts
        explain). A row on which none is active has one row without meta_latent.
    """
    n = len(rows)
    d_sae = options.d_sae or max(FEWEST // 2, n // options.rows_per_meta_latent)
    if d_sae >= n:
        raise InputError(f"meta_sae: d_sae {d_sae} of {n} living latents", allowed="fewer than there are latents")
    if options.target_l0 >= d_sae:
        raise InputError(
            f"meta_sae: target_l0 {options.target_l0:g} of {d_sae} meta-latents", allowed="target_l0 below d_sae"
        )
    unit = rows.float() / rows.float().norm(dim=1, keepdim=True).clamp_min(TINY)
    training = config.TrainSae(
        d_sae=d_sae,
        architecture="batchtopk",
        target_l0=options.target_l0,
        tokens=options.steps * options.batch_size,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
    )
    with TemporaryDirectory() as folder:
        fit_sae(training, unit, {}, Path(folder) / "sae", seed=seed)
        meta = load_dictionary(Path(folder) / "sae").to(unit.device)
    weights = (meta.encode(unit).dense() * meta.decoder_norm).double().cpu().numpy()
    off = (unit - unit.mean(0)).square().sum(1)
    explained = (1 - (unit - meta.reconstruct(unit)).square().sum(1) / off.clamp_min(TINY)).double().cpu().numpy()
    parts = [
        {"latent_index": row, "meta_latent": int(part), "weight": weights[row, part], "explained": explained[row]}
        for row in range(n)
        for part in np.argsort(-weights[row], kind="stable")[: int((weights[row] > 0).sum())]
    ]
    lone = [{"latent_index": row, "explained": explained[row]} for row in np.flatnonzero(~(weights > 0).any(1))]
    frame = pd.DataFrame([*parts, *lone], columns=["latent_index", "meta_latent", "weight", "explained"])
    order = frame["latent_index"].argsort(kind="stable")
    return frame.astype({"meta_latent": "Int64"}).iloc[order].reset_index(drop=True)
