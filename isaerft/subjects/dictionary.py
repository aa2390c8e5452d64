"""An SAE as a linear dictionary: what is needed to encode, decode and compare latents, read without sae_lens.

The folder is SAELens' own format (cfg.json + sae_weights.safetensors); `isaerft.subjects.sae` writes it with every
normalisation folded into the weights, so that encoding and decoding are plain affine maps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from isaerft.errors import InputError, unknown_name
from isaerft.files import read_json
from isaerft.subjects.codes import Codes

WEIGHTS = "sae_weights.safetensors"
ARCHITECTURES = ("standard", "gated", "jumprelu", "topk")
CHUNK = 2048
TINY = 1e-12


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
    apply_b_dec_to_input : bool
        Whether `b_dec` is subtracted before encoding.
    center : bool
        Whether the residual stream's mean over `d_in` is removed before encoding (centred writing weights).
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

    @property
    def d_in(self) -> int:
        """Width of the residual stream."""
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def decoder_norm(self) -> torch.Tensor:
        """Norm of each latent's decoder row, (d_sae,)."""
        return self.W_dec.norm(dim=1)

    def encode_dense(self, residual: torch.Tensor) -> torch.Tensor:
        """Return latent activations (n_tokens, d_sae) of a residual stream (n_tokens, d_in)."""
        x = residual.to(self.W_enc.dtype)
        x = x - x.mean(-1, keepdim=True) if self.center else x
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
        top = pre.topk(self.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, top.indices, torch.relu(top.values))

    def encode(self, residual: torch.Tensor) -> Codes:
        """Return the sparse codes of a residual stream (n_tokens, d_in), a chunk of tokens at a time."""
        with torch.no_grad():
            return Codes.concatenate(Codes.from_dense(self.encode_dense(part)) for part in residual.split(CHUNK))

    def decode(self, codes: Codes) -> torch.Tensor:
        """Return the reconstruction (n_tokens, d_in); for a centred SAE without the residual stream's mean."""
        return codes.combine(self.W_dec) + self.b_dec

    def reconstruct(self, residual: torch.Tensor) -> torch.Tensor:
        """Return what the SAE makes of a residual stream (n_tokens, d_in), in its own units."""
        decoded = self.decode(self.encode(residual))
        return decoded + residual.to(decoded.dtype).mean(-1, keepdim=True) if self.center else decoded

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
    architecture = cfg.get("architecture", "standard")
    if architecture not in ARCHITECTURES:
        raise unknown_name("SAE architecture", architecture, ARCHITECTURES)
    if cfg.get("normalize_activations", "none") != "none":
        raise InputError(
            f"SAE in {folder} normalises activations at run time ({cfg['normalize_activations']!r})",
            allowed="none",
            remedy="fold the normalisation into the weights (sae.fold_activation_norm_scaling_factor)",
        )
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
        k=int(cfg["k"]) if architecture == "topk" else None,
        apply_b_dec_to_input=bool(cfg.get("apply_b_dec_to_input", True)),
        center=center,
        hook_name=metadata.get("hook_name") or "",
        neuronpedia_id=metadata.get("neuronpedia_id") or "",
    )
