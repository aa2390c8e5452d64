"""An SAE as a linear dictionary: what is needed to encode, decode and compare latents, read without sae_lens.

The folder is SAELens' own format (cfg.json + sae_weights.safetensors); `isaerft.subjects.sae` writes it with every
normalisation that is one number for all tokens folded into the weights. One that differs from token to token
(layer_norm, constant_norm_rescale) is undone in the activations: they are given in the units of the model's own
activation and not of the normalised one. So every reconstruction is activations @ W_dec plus what no latent changes,
and a change of the activations reaches the model as change @ W_dec, whatever the SAE.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from isaerft.errors import InputError
from isaerft.files import read_json
from isaerft.subjects.codes import Codes
from isaerft.subjects.linear import check_linear

WEIGHTS = "sae_weights.safetensors"
CHUNK = 2048
TINY = 1e-12
LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Dictionary:
    """A linear dictionary.

    Attributes
    ----------
    W_enc : (d_in, d_sae)
    b_enc : (d_sae,)
    W_dec : (d_sae, d_in)
    b_dec : (d_in,)
    threshold : (d_sae,) or None
        JumpReLU's threshold.
    gate : tuple of (d_sae,) or None
        Gated SAEs' (b_gate, r_mag, b_mag).
    k : int or None
        TopK's number of active latents.
    signed : bool
        AbsTopK: the `k` latents of largest absolute value are active, and may be negative.
    normalization : str
        What each token is divided by before encoding: `none`, its standard deviation about its mean (`layer_norm`), or
        its norm over sqrt(d_in) (`constant_norm_rescale`).
    apply_b_dec_to_input : bool
        Whether `b_dec` is subtracted before encoding.
    center : bool
        Whether the activation's mean over `d_in` is removed before encoding (centred writing weights).
    hook_name, neuronpedia_id : str
    """

    W_enc: torch.Tensor
    b_enc: torch.Tensor
    W_dec: torch.Tensor
    b_dec: torch.Tensor
    threshold: torch.Tensor | None
    gate: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None
    k: int | None
    apply_b_dec_to_input: bool
    center: bool
    hook_name: str
    neuronpedia_id: str
    signed: bool = False
    normalization: str = "none"

    @property
    def d_in(self) -> int:
        """Width of the activation that is encoded."""
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def decoder_norm(self) -> torch.Tensor:
        """Norm of each latent's decoder row, (d_sae,)."""
        return self.W_dec.norm(dim=1)

    def encode_dense(self, activation: torch.Tensor) -> torch.Tensor:
        """Return latent activations (n_tokens, d_sae) of the hook's activation (n_tokens, d_in), in its units."""
        x, scale, _ = self._framed(activation)
        active = self._encode(x)
        return active if scale is None else active * scale

    def encode(self, activation: torch.Tensor) -> Codes:
        """Return the sparse codes of the hook's activation (n_tokens, d_in), a chunk of tokens at a time."""
        with torch.no_grad():
            return Codes.concatenate(Codes.from_dense(self.encode_dense(part)) for part in activation.split(CHUNK))

    def reconstruct(self, activation: torch.Tensor) -> torch.Tensor:
        """Return what the SAE makes of the hook's activation (n_tokens, d_in), in its units."""
        _, scale, mean = self._framed(activation)
        fixed = self.b_dec if scale is None else self.b_dec * scale
        decoded = self.encode(activation).combine(self.W_dec) + fixed
        return decoded if mean is None else decoded + mean

    def _framed(self, activation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return the activation as the SAE was trained to read it, and what undoes that: x * scale + mean."""
        x = activation.to(self.W_enc.dtype)
        scale = mean = None
        if self.center or self.normalization == "layer_norm":
            mean = x.mean(-1, keepdim=True)
            x = x - mean
        if self.normalization == "layer_norm":
            scale = x.std(-1, keepdim=True)
            x = x / (scale + LAYER_NORM_EPSILON)
        elif self.normalization == "constant_norm_rescale":
            scale = x.norm(dim=-1, keepdim=True).clamp_min(TINY) / self.d_in**0.5
            x = x / scale
        return x, scale, mean

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n_tokens, d_sae) activations in the units of a normalised input (n_tokens, d_in)."""
        x = x - self.b_dec if self.apply_b_dec_to_input else x
        pre = x @ self.W_enc
        if self.gate is not None:
            b_gate, r_mag, b_mag = self.gate
            return torch.relu(pre * r_mag.exp() + b_mag) * (pre + b_gate > 0)
        pre = pre + self.b_enc
        if self.threshold is not None:
            return torch.relu(pre) * (pre > self.threshold)
        if self.k is None:
            return torch.relu(pre)
        top = (pre.abs() if self.signed else pre).topk(self.k, dim=-1).indices
        values = pre.gather(-1, top)
        return torch.zeros_like(pre).scatter(-1, top, values if self.signed else torch.relu(values))

    def permuted(self, seed: int) -> Dictionary:
        """Return a random dictionary: the same encoder, the decoder rows exchanged at random.

        Each latent then writes what another latent should, at that other's norm; whatever agrees as well with this
        dictionary's explanations measured nothing.
        """
        order = torch.from_numpy(np.random.default_rng(seed).permutation(self.d_sae)).to(self.W_dec.device)
        return replace(self, W_dec=self.W_dec[order])

    def to(self, device: str | torch.device) -> Dictionary:
        """Return the dictionary with its tensors on `device`."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        gate = None if self.gate is None else tuple(part.to(device) for part in self.gate)
        return replace(self, **moved, gate=gate)


def load_dictionary(folder: str | Path, *, center: bool = False) -> Dictionary:
    """Read a dictionary from a folder in SAELens' format.

    Raises
    ------
    InputError
        The folder is not there, its architecture is not a linear dictionary, or its normalisation is not folded.
    """
    folder = Path(folder)
    cfg = read_json(folder / "cfg.json")
    architecture, normalization = cfg.get("architecture", "standard"), cfg.get("normalize_activations", "none")
    check_linear(str(folder), architecture, normalization, cfg.get("reshape_activations", "none"))
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"SAE in {folder} has no {WEIGHTS}", remedy="make the SAE again")
    weights = load_file(folder / WEIGHTS)
    metadata = cfg.get("metadata", cfg)
    W_dec = weights["W_dec"].float()
    # A TopK SAE that ranks activations times decoder norm is, with that norm folded in, an ordinary one.
    norm = W_dec.norm(dim=1).clamp_min(TINY) if cfg.get("rescale_acts_by_decoder_norm") else torch.ones(len(W_dec))
    return Dictionary(
        W_enc=weights["W_enc"].float() * norm,
        b_enc=weights.get("b_enc", torch.zeros(len(W_dec))).float() * norm,
        W_dec=W_dec / norm[:, None],
        b_dec=weights["b_dec"].float(),
        threshold=weights["threshold"].float() if architecture == "jumprelu" else None,
        gate=tuple(weights[name].float() for name in ("b_gate", "r_mag", "b_mag")) if architecture == "gated" else None,
        k=int(cfg["k"]) if architecture in ("topk", "abstopk") else None,
        signed=architecture == "abstopk",
        normalization=normalization,
        apply_b_dec_to_input=bool(cfg.get("apply_b_dec_to_input", True)),
        center=center,
        hook_name=metadata.get("hook_name") or "",
        neuronpedia_id=metadata.get("neuronpedia_id") or "",
    )
