"""An SAE or a transcoder as a linear dictionary: encode, decode and compare latents, without sae_lens.

An SAE's folder is in SAELens' own format (cfg.json and sae_weights.safetensors), written by `isaerft.subjects.sae` with
every normalization that is one number for all tokens folded into the weights. A normalization that differs from token
to token (layer_norm, constant_norm_rescale) is undone in the activations, which are therefore in the units of the
hook's activation and not of the normalized one. So for every SAE the reconstruction is activations @ W_dec plus a part
that no latent changes, and a change of the activations reaches the model as change @ decoder: the rows of W_dec, for
the heads of attention through its output projection.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file

from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.io import read_json
from isaerft.outside import loading
from isaerft.subjects.codes import Codes

CARD = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
CHUNK = 2048
TINY = 1e-12
LAYER_NORM_EPSILON = 1e-5
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
ARCHITECTURES = ("standard", "gated", "jumprelu", "topk", "abstopk")
NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale")
FIRST_CURRENT_RELEASE = 6
# Tensors of an architecture beside W_enc, W_dec and b_dec; b_enc alone where nothing is said.
_OWN_TENSORS = {
    "gated": ("b_gate", "r_mag", "b_mag"),
    "jumprelu": ("b_enc", "threshold"),
    "jumprelu_transcoder": ("b_enc", "threshold"),
    "skip_transcoder": ("b_enc", "W_skip"),
    "jumprelu_skip_transcoder": ("b_enc", "threshold", "W_skip"),
}
# Earlier releases than SAELens 6 also write the last one as true or false.
_WORDS = ("architecture", "reshape_activations", "normalize_activations")
_NAMES = ("hook_name", "hook_name_out", "hf_hook_name", "model_name", "neuronpedia_id", "release", "sae_id")
# SAELens calls the MLP's own input hook_mlp_in, which in TransformerLens is the residual stream; the module is clear.
_MLP_IN = re.compile(r"(blocks\.\d+)\.hook_mlp_in")
_MLP_INPUTS = ("pre_feedforward_layernorm.output", "mlp.input")
FINGERPRINT_ROWS = 64
_SAVE_AGAIN = "save it again with SAELens: SAE.load_from_disk(folder).save_model(folder)"
_OTHER = "choose another SAE"
_REASONS = {
    "temporal": ("its activations at a token depend on other tokens", _OTHER),
    "matching_pursuit": ("its activations are found by search, not by an encoder", _OTHER),
    "batchtopk": ("it is a training checkpoint", "save it with save_inference_model, which makes it a jumprelu"),
}


class Gate(NamedTuple):
    """Parameters of a gated SAE, (d_sae,) each."""

    b_gate: torch.Tensor
    r_mag: torch.Tensor
    b_mag: torch.Tensor


@dataclass(frozen=True)
class Dictionary:
    """A linear dictionary of one hook's activation, or of what an MLP makes of it (a transcoder).

    Attributes
    ----------
    W_enc : (d_in, d_sae) float32
    b_enc : (d_sae,) float32
    W_dec : (d_sae, d_out) float32
    b_dec : (d_out,) float32
    threshold : (d_sae,) or None
        Threshold of a JumpReLU SAE.
    gate : Gate or None
        Parameters of a gated SAE.
    k : int or None
        Number of active latents of a TopK SAE.
    apply_b_dec_to_input : bool
        Whether `b_dec` is subtracted before encoding.
    center : bool
        Whether the activation's mean over `d_in` is removed before encoding (centered writing weights).
    hook_name, neuronpedia_id, model_name : str
        Empty if the SAE's metadata have none. `model_name` is the model on which it was trained.
    signed : bool
        AbsTopK: the `k` latents of largest absolute value are active, and may be negative.
    prepend_bos : bool or None
        Whether it was trained on texts that begin with BOS; None if its metadata do not say.
    release, sae_id : str
        Where SAELens' directory has it; empty for any other.
    normalization : str
        What each token is divided by before encoding: `none`, its standard deviation about its mean (`layer_norm`), or
        its norm over sqrt(d_in) (`constant_norm_rescale`).
    hook_name_out : str
        Where a transcoder writes; empty for an SAE, which writes where it reads.
    W_skip : (d_out, d_in) or None
        A skip transcoder's linear path past the latents.
    W_out : (d_out, d_model) or None
        Attention's output projection, if the dictionary reads the heads of a model.
    """

    W_enc: torch.Tensor
    b_enc: torch.Tensor
    W_dec: torch.Tensor
    b_dec: torch.Tensor
    threshold: torch.Tensor | None
    gate: Gate | None
    k: int | None
    apply_b_dec_to_input: bool
    center: bool
    hook_name: str
    neuronpedia_id: str
    model_name: str = ""
    prepend_bos: bool | None = None
    release: str = ""
    sae_id: str = ""
    signed: bool = False
    normalization: str = "none"
    hook_name_out: str = ""
    W_skip: torch.Tensor | None = None
    W_out: torch.Tensor | None = None

    @property
    def d_in(self) -> int:
        """Width of the hook's activation."""
        return self.W_enc.shape[0]

    @property
    def d_out(self) -> int:
        """Width of what the dictionary reconstructs; `d_in` for an SAE."""
        return self.W_dec.shape[1]

    @cached_property
    def decoder(self) -> torch.Tensor:
        """What each latent writes per unit of its activation, (d_sae, d_model) float32."""
        return self.through_projection(self.W_dec)

    def through_projection(self, values: torch.Tensor) -> torch.Tensor:
        """Return changes (n, d_out) of what it reconstructs as changes (n, d_model) of what it writes to."""
        return values if self.W_out is None else values @ self.W_out

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def decoder_norm(self) -> torch.Tensor:
        """Norm of what each latent writes, (d_sae,)."""
        return self.decoder.norm(dim=1)

    def encode_dense(self, activation: torch.Tensor) -> torch.Tensor:
        """Return the latent activations (n_tokens, d_sae) of the hook's activation (n_tokens, d_in)."""
        x, scale, _ = self._normalized(activation)
        active = self._encode(self._centered(x))
        return active if scale is None else active * scale

    def read(self, activation: torch.Tensor) -> torch.Tensor:
        """Return what the rows of `W_enc` weigh of the hook's activation (n_tokens, d_in), (n_tokens, d_in)."""
        return self._centered(self._normalized(activation)[0])

    def encode(self, activation: torch.Tensor) -> Codes:
        """Return the sparse codes of the hook's activation (n_tokens, d_in), without gradient."""
        with torch.no_grad():
            return Codes.concatenate(Codes.from_dense(self.encode_dense(part)) for part in activation.split(CHUNK))

    def reconstruct(self, activation: torch.Tensor) -> torch.Tensor:
        """Return what the dictionary makes of the hook's activation (n_tokens, d_in), (n_tokens, d_out).

        For an SAE a reconstruction of the activation itself, for a transcoder of what the MLP makes of it.
        """
        x, scale, mean = self._normalized(activation)
        fixed = self.b_dec if scale is None else self.b_dec * scale
        decoded = self.encode(activation).combine(self.W_dec) + fixed
        decoded = decoded if self.W_skip is None else decoded + x @ self.W_skip.T
        return decoded if mean is None else decoded + mean

    def _normalized(self, activation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return the activation x as the SAE reads it, with the scale and mean that undo this: x * scale + mean."""
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

    def _centered(self, x: torch.Tensor) -> torch.Tensor:
        """Return a normalized input (n_tokens, d_in) without `b_dec` where the encoder does not see it."""
        return x - self.b_dec if self.apply_b_dec_to_input else x

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activations (n_tokens, d_sae) of what the encoder reads (n_tokens, d_in), in its units."""
        pre = x @ self.W_enc
        if self.gate is not None:
            gate = self.gate
            return torch.relu(pre * gate.r_mag.exp() + gate.b_mag) * (pre + gate.b_gate > 0)
        pre = pre + self.b_enc
        if self.threshold is not None:
            return torch.relu(pre) * (pre > self.threshold)
        if self.k is None:
            return torch.relu(pre)
        top = (pre.abs() if self.signed else pre).topk(self.k, dim=-1).indices
        values = pre.gather(-1, top)
        return torch.zeros_like(pre).scatter(-1, top, values if self.signed else torch.relu(values))

    @property
    def fingerprint(self) -> str:
        """Hex digits that tell the SAE from others: a hash of decoder rows spread over the latents."""
        rows = self.W_dec[:: max(1, self.d_sae // FINGERPRINT_ROWS)].detach().cpu().float().contiguous()
        return hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:16]

    def permuted(self, seed: int) -> Dictionary:
        """Return a random dictionary: the same encoder with the decoder rows permuted.

        Each latent then writes what another latent should, at that latent's norm. An agreement that is as high with
        this dictionary measures nothing.
        """
        order = torch.from_numpy(np.random.default_rng(seed).permutation(self.d_sae)).to(self.W_dec.device)
        return replace(self, W_dec=self.W_dec[order])

    def to(self, device: str | torch.device) -> Dictionary:
        """Return the dictionary with its tensors on `device`."""
        return replace(
            self,
            W_enc=self.W_enc.to(device),
            b_enc=self.b_enc.to(device),
            W_dec=self.W_dec.to(device),
            b_dec=self.b_dec.to(device),
            threshold=None if self.threshold is None else self.threshold.to(device),
            W_skip=None if self.W_skip is None else self.W_skip.to(device),
            W_out=None if self.W_out is None else self.W_out.to(device),
            gate=None if self.gate is None else Gate(*(part.to(device) for part in self.gate)),
        )


def load_dictionary(folder: str | Path, *, center: bool = False) -> Dictionary:
    """Read a dictionary from a folder in SAELens' format.

    Parameters
    ----------
    center : bool
        See `Dictionary.center`.

    Raises
    ------
    InputError
        The folder does not exist, its SAE is not a linear dictionary, its normalization is not folded, its tensors are
        not those of its architecture, a transcoder has an option that only an SAE can have or does not say where it
        writes, or it is in the format of SAELens before 6 (see `isaerft.subjects.sae.read_sae`).
    """
    folder = Path(folder)
    card = read_card(folder)
    if not card.is_current:
        raise InputError(f"SAE in {folder} was saved by SAELens before 6", remedy=_SAVE_AGAIN)
    cfg, metadata = card.options, card.metadata
    architecture = cfg.get("architecture", "standard")
    weights = _read_weights(folder, architecture)
    W_dec = weights["W_dec"]
    for name, tensor, size in (("d_sae", "W_dec", len(W_dec)), ("d_in", "W_enc", len(weights["W_enc"]))):
        if cfg.get(name, size) != size:
            raise InputError(f"{card.path}: {name} is {shown(cfg[name])}", allowed=f"{size}, as {tensor} has")
    if architecture in TRANSCODERS:
        _check_transcoder(card, center)
    # A TopK SAE that ranks activations times decoder norm is an ordinary one once that norm is folded in.
    norm = W_dec.norm(dim=1).clamp_min(TINY) if cfg.get("rescale_acts_by_decoder_norm") else torch.ones(len(W_dec))
    return Dictionary(
        W_enc=weights["W_enc"] * norm,
        b_enc=weights.get("b_enc", torch.zeros(len(W_dec))) * norm,
        W_dec=W_dec / norm[:, None],
        b_dec=weights["b_dec"],
        threshold=weights.get("threshold"),
        gate=Gate(*(weights[name] for name in Gate._fields)) if architecture == "gated" else None,
        k=card.k_of(len(W_dec)) if architecture in ("topk", "abstopk") else None,
        signed=architecture == "abstopk",
        normalization=cfg.get("normalize_activations", "none"),
        apply_b_dec_to_input=bool(cfg.get("apply_b_dec_to_input", True)),
        center=center,
        hook_name=hook_of(metadata),
        hook_name_out=(metadata.get("hook_name_out") or "") if architecture in TRANSCODERS else "",
        W_skip=weights.get("W_skip"),
        neuronpedia_id=metadata.get("neuronpedia_id") or "",
        model_name=metadata.get("model_name") or "",
        prepend_bos=metadata.get("prepend_bos"),
        release=metadata.get("release") or "",
        sae_id=metadata.get("sae_id") or "",
    )


def hook_of(metadata: Mapping[str, Any]) -> str:
    """Return the hook at which a dictionary reads, by the name that `isaerft.subjects.points` has for it."""
    name, module = metadata.get("hook_name") or "", metadata.get("hf_hook_name") or ""
    block = _MLP_IN.fullmatch(name)
    return f"{block[1]}.mlp.hook_in" if block and module.endswith(_MLP_INPUTS) else name


def _check_transcoder(card: SaeCard, center: bool) -> None:
    """Refuse a transcoder with what only an SAE can have: a normalization to undo, or b_dec in its input."""
    said = {
        "center_writing_weights": (center, False),
        "normalize_activations": (card.options.get("normalize_activations", "none"), "none"),
        "apply_b_dec_to_input": (card.options.get("apply_b_dec_to_input"), False),
    }
    for name, (value, allowed) in said.items():
        if value != allowed:
            raise InputError(f"a transcoder with {name} {shown(value)}", allowed=str(allowed).lower(), remedy=_OTHER)
    if not card.metadata.get("hook_name_out"):
        raise InputError(
            f"{card.path}: a transcoder without hook_name_out, so nothing says where it writes",
            remedy='add it to metadata, as "hook_name_out": "blocks.L.hook_mlp_out"',
        )


@dataclass(frozen=True)
class SaeCard:
    """What an SAE's cfg.json says.

    Attributes
    ----------
    path : Path
        The file.
    options : dict
        Its options, of a kind that is supported.
    metadata : dict
        Where the SAE belongs: hook_name, model_name, neuronpedia_id, prepend_bos and others, each possibly missing.
    is_current : bool
        Whether SAELens 6 or later wrote it; earlier releases name and mean some options otherwise.
    """

    path: Path
    options: dict[str, Any]
    metadata: dict[str, Any]
    is_current: bool

    def k_of(self, d_sae: int) -> int:
        """Return the number of active latents of a TopK SAE of `d_sae` latents."""
        k = self.options.get("k")
        if not isinstance(k, int) or not 0 < k <= d_sae:
            raise InputError(f"{self.path}: k is {shown(k)}", allowed=f"an integer from 1 to d_sae, {d_sae}")
        return k


def read_card(folder: str | Path, *, folded: bool = True) -> SaeCard:
    """Read the cfg.json of an SAE's folder.

    Parameters
    ----------
    folded : bool
        Refuse an SAE whose normalization is not folded into its weights; not asked of earlier releases than SAELens 6.

    Raises
    ------
    InputError
        There is none, its entries are not what SAELens writes, or the SAE is not a linear dictionary.
    """
    path = Path(folder) / CARD
    cfg: object = read_json(path)
    metadata = cfg.get("metadata", cfg) if isinstance(cfg, dict) else None
    if not isinstance(cfg, dict) or not isinstance(metadata, dict):
        what = "metadata is" if isinstance(cfg, dict) else "it holds"
        raise InputError(
            f"{path}: {what} {shown(cfg.get('metadata') if isinstance(cfg, dict) else cfg)}",
            allowed="an object, as SAELens writes it",
            remedy=_SAVE_AGAIN,
        )
    version = re.match(r"\d{1,9}", str(cfg.get("sae_lens_version") or metadata.get("sae_lens_version") or ""))
    card = SaeCard(path, cfg, metadata, version is not None and int(version[0]) >= FIRST_CURRENT_RELEASE)
    words = {name: cfg.get(name, "none") for name in _WORDS[: None if card.is_current else -1]}
    for name, value in (words | {name: metadata.get(name) or "" for name in _NAMES}).items():
        if not isinstance(value, str):
            raise InputError(f"{path}: {name} is {shown(value)}", allowed="text", remedy=_SAVE_AGAIN)
    if metadata.get("prepend_bos") not in (None, True, False):
        raise InputError(f"{path}: prepend_bos is {shown(metadata['prepend_bos'])}", allowed="true or false")
    normalization = cfg.get("normalize_activations", "none") if folded and card.is_current else "none"
    architecture, reshaping = cfg.get("architecture", "standard"), cfg.get("reshape_activations", "none")
    check_linear(str(folder), architecture, normalization, reshaping)
    return card


def _read_weights(folder: Path, architecture: str) -> dict[str, torch.Tensor]:
    """Return the tensors of an SAE in float32: exactly those of its architecture, of one size, all finite."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"SAE in {folder} has no {WEIGHTS}", remedy=_SAVE_AGAIN)
    with loading(f"SAE in {folder}", path, remedy=_SAVE_AGAIN):
        weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    names = {"W_enc", "W_dec", "b_dec", *_OWN_TENSORS.get(architecture, ("b_enc",))}
    lacking, unread = sorted(names - weights.keys()), sorted(weights.keys() - names)
    for wrong, problem in ((lacking, "lacks"), (unread, "has tensors that nothing reads:")):
        if wrong:
            raise InputError(
                f"SAE in {folder} ({architecture}) {problem} {', '.join(map(printable, wrong))}",
                allowed=", ".join(sorted(names)),
                remedy="check its architecture; the codes would be those of another SAE",
            )
    shape = tuple(weights["W_dec"].shape)
    d_sae, d_out = shape if len(shape) == 2 else (0, 0)
    d_in = len(weights["W_enc"]) if architecture in TRANSCODERS and weights["W_enc"].dim() else d_out
    shapes = {"W_dec": (d_sae, d_out), "W_enc": (d_in, d_sae), "b_dec": (d_out,), "W_skip": (d_out, d_in)}
    for name, tensor in weights.items():
        wanted = shapes.get(name, (d_sae,))
        if tuple(tensor.shape) != wanted:
            raise InputError(
                f"SAE in {folder}: {name} has the shape {tuple(tensor.shape)}", allowed=str(wanted), remedy=_SAVE_AGAIN
            )
        if not tensor.isfinite().all():
            raise InputError(f"SAE in {folder}: {name} holds numbers that are not finite", remedy=_SAVE_AGAIN)
    return weights


def check_linear(name: str, architecture: str, normalization: str, reshaping: str = "none") -> None:
    """Refuse an SAE that is not a linear dictionary of one hook's activation.

    Parameters
    ----------
    name : str
        Folder or id of the SAE, for errors.
    architecture, normalization, reshaping : str
        As SAELens' cfg.json states them.

    Raises
    ------
    InputError
        The SAE is not supported; the error says why and what to do.
    """
    known = (*ARCHITECTURES, *TRANSCODERS)
    if architecture not in known:
        for part, (reason, remedy) in _REASONS.items():
            if part in architecture:
                raise InputError(
                    f"SAE ({name}) of architecture {shown(architecture)}: {reason}",
                    allowed=", ".join(known),
                    remedy=remedy,
                )
        raise unknown_name(f"SAE architecture ({name})", architecture, known)
    if reshaping not in ("none", "hook_z"):  # hook_z: the heads side by side, as the output projection reads them
        raise InputError(f"SAE ({name}) with reshape_activations {shown(reshaping)}", allowed="none, hook_z")
    if normalization not in NORMALIZATIONS:
        raise InputError(
            f"SAE ({name}) expects activations normalized by {shown(normalization)}, which is not folded in",
            allowed=", ".join(NORMALIZATIONS),
            remedy="set norm_scaling_factor (sqrt(d_in) over the mean norm of its training activations), or fold it"
            " with sae.fold_activation_norm_scaling_factor and save the SAE again",
        )
