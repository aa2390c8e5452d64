"""The linear pullback: what learned weights say of the latents before any threshold is crossed.

An adapter on the residual stream adds d = x M + c at each token, with M = A'B' (rows are tokens). A latent is
f_i = phi((x - b_dec) . e_i + b_i), with e_i its encoder column, so to first order it changes by

    f_i' - f_i = g_i (x M + c) . e_i,

where g_i is 1 where the latent is active and 0 where it is silent (for other activation functions phi', taken by
automatic differentiation). Between latents this is W_dec M W_enc, with b_dec M W_enc + c W_enc at every token. Through
the decoder the same is read as the likeness of what is written to what the latent writes, (x M + c) . d_i.

An adapter on latents needs none of this: f' - f is its own f D U, or f W + b, exactly. LoRA above the hook changes no
latent; below it, d is what arrives at the hook, and only its weights have no place in this formula.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from isaerft.adapters.model import Residual
from isaerft.changes.pullback import PulledBack, load_trained
from isaerft.subjects.cache import CachedRows, bos_mask
from isaerft.subjects.load import LoadedSubject

K_SPANNING = 10
N_RANDOM = 20


def weight_pullback(
    folder: str | Path,
    subject: LoadedSubject,
    heldout: CachedRows,
    rows: torch.Tensor,
    alive: np.ndarray,
    batch_size: int,
) -> pd.DataFrame | None:
    """Return the pullbacks of one trained adapter by latent; None for one that acts on latents, or leaves them alone.

    Returns
    -------
    DataFrame
        latent_index (the living latents); means over held-out tokens but BOS of activations (f' - f), first_order (its
        linear part), encoder (d . e_i, with no regard to whether the latent is active) and decoder (d . d_i / |d_i|);
        weights_encoder and weights_decoder, the norms of M e_i and of M d_i / |d_i| (`residual` alone); and the
        adapter's shares: spanned_decoder, readable_encoder, spanned_by_k, spanned_by_k_random.
    """
    with load_trained(folder, subject, heldout, batch_size) as trained:
        if not isinstance(trained, PulledBack):
            return None
        means = _means(trained, rows)
        if not means["displacement"].any():
            return None
        adapter = trained.adapter
        dictionary = subject.dictionary
        encoder, decoder = dictionary.W_enc.double(), subject.directions().double()
        unit = decoder / decoder.norm(dim=1, keepdim=True).clamp_min(1e-12)
        displacement, nothing = means["displacement"], torch.full((dictionary.d_sae,), torch.nan)
        reads_stream = subject.hook.reads == "residual"
        table = {
            "latent_index": torch.arange(dictionary.d_sae),
            "activations": means["activations"],
            "first_order": means["first_order"],
            "encoder": displacement @ encoder if reads_stream else nothing,
            "decoder": unit @ displacement,
            "weights_encoder": nothing,
            "weights_decoder": nothing,
        }
        shares: dict[str, float] = {}
        if isinstance(adapter, Residual) and adapter.rank:
            matrix = (adapter.down.T @ adapter.up.T).detach().double()
            if reads_stream:
                table["weights_encoder"] = (matrix @ encoder).norm(dim=0)
            table["weights_decoder"] = (matrix @ unit.T).norm(dim=0)
            shares = spanned_shares(matrix, encoder if reads_stream else None, unit, torch.tensor(alive))
    frame = pd.DataFrame({name: np.asarray(column.cpu(), dtype=float) for name, column in table.items()})
    frame = frame.astype({"latent_index": np.int64}).loc[alive]
    return frame.assign(**shares).reset_index(drop=True)


def spanned_shares(
    matrix: torch.Tensor, encoder: torch.Tensor | None, unit: torch.Tensor, alive: torch.Tensor
) -> dict[str, float]:
    """Return shares of a map's squared Frobenius norm.

    Parameters
    ----------
    matrix : (d_model, d_model) float64
        x @ matrix is added.
    encoder : (d_model, d_sae) float64 or None
    unit : (d_sae, d_model) float64
        Decoder rows of length 1.
    alive : (n,) int64

    Returns
    -------
    dict
        spanned_decoder: the part written in the row space of the living latents' decoder; readable_encoder: the part
        that changes any living latent's preactivation; spanned_by_k: the part in the span of the `K_SPANNING` living
        latents that it is written along most; spanned_by_k_random: the same for maps with the same singular values in
        random directions.
    """
    whole = float(matrix.square().sum())
    if whole == 0:
        return {}
    rows = unit[alive]
    found = {"spanned_decoder": _within(matrix, rows) / whole, "spanned_by_k": _by_most(matrix, rows) / whole}
    if encoder is not None:
        found["readable_encoder"] = _within(matrix, encoder[:, alive].T) / whole
    generator = torch.Generator().manual_seed(0)
    values = torch.linalg.svdvals(matrix).cpu()
    drawn = []
    for _ in range(N_RANDOM):
        frame = torch.linalg.qr(torch.randn(len(matrix), len(matrix), generator=generator, dtype=torch.float64))[0]
        drawn.append(_by_most((values[:, None] * frame).to(rows), rows) / whole)
    return found | {"spanned_by_k_random": float(np.mean(drawn))}


def _by_most(matrix: torch.Tensor, rows: torch.Tensor) -> float:
    """Return the squared norm of what a map writes in the span of the rows that it is written along most."""
    most = (matrix @ rows.T).norm(dim=0).topk(min(K_SPANNING, len(rows))).indices
    return _within(matrix, rows[most])


def _within(matrix: torch.Tensor, rows: torch.Tensor) -> float:
    """Return the squared norm of what a map writes in the span of some directions (n, d_model)."""
    _, sizes, basis = torch.linalg.svd(rows, full_matrices=False)
    basis = basis[sizes > 1e-9 * sizes.max()]
    return float((matrix @ basis.T).square().sum())


def _means(trained: PulledBack, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return means over the rows' tokens but BOS: displacement (d_model,), activations and first_order (d_sae,)."""
    subject = trained.subject
    sums: dict[str, torch.Tensor] = {}
    n_tokens = 0
    for chosen in rows.split(trained.batch_size):
        batch = trained.heldout.batch(chosen).to(subject.model.device)
        text = ~bos_mask(subject, batch)
        with torch.no_grad():
            before, after = trained.hook_states(batch)
            moved = (after.activation - before.activation)[text].float()
            parts = {
                "displacement": (after.residual - before.residual)[text].double().sum(0),
                "activations": trained.shift(batch).total().double(),
            }
        found = torch.func.jvp(subject.dictionary.encode_dense, (before.activation[text].float(),), (moved,))
        parts["first_order"] = found[1].double().sum(0)
        sums = {name: sums.get(name, 0.0) + part for name, part in parts.items()}
        n_tokens += int(text.sum())
    return {name: total / n_tokens for name, total in sums.items()}
