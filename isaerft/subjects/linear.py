"""Which of SAELens' SAEs are linear dictionaries of what one hook gives, and why the others are not."""

from __future__ import annotations

from isaerft.errors import InputError, shown, unknown_name

ARCHITECTURES = ("standard", "gated", "jumprelu", "topk", "abstopk")
NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale")
_OTHER = "choose an SAE"
_REASONS = {
    "transcoder": ("it reads at one hook and writes at another", _OTHER),
    "temporal": ("its activations at a token depend on other tokens", _OTHER),
    "matching_pursuit": ("its activations are found by search, not by an encoder", _OTHER),
    "batchtopk": ("it is a training state", "save it with save_inference_model, which makes it a jumprelu"),
}


def check_linear(place: str, architecture: str, normalization: str, reshaping: str = "none") -> None:
    """Refuse an SAE that is no linear dictionary of what one hook of the model gives.

    Parameters
    ----------
    place : str
        Where it comes from, for the message.
    architecture, normalization, reshaping : str
        As SAELens' cfg.json states them.

    Raises
    ------
    InputError
        With the mend, where there is one.
    """
    if architecture not in ARCHITECTURES:
        for part, reason in _REASONS.items():
            if part in architecture:
                raise InputError(
                    f"SAE ({place}) of architecture {shown(architecture)}: {reason[0]}",
                    allowed=", ".join(ARCHITECTURES),
                    remedy=reason[1],
                )
        raise unknown_name(f"SAE architecture ({place})", architecture, ARCHITECTURES)
    if reshaping != "none":
        raise InputError(
            f"SAE ({place}) reads attention heads (reshape_activations {shown(reshaping)})",
            remedy="choose an SAE on the residual stream, or on what attention adds to it (hook_attn_out)",
        )
    if normalization not in NORMALIZATIONS:
        raise InputError(
            f"SAE ({place}) expects activations normalised by {shown(normalization)}, which is not folded into it",
            allowed=", ".join(NORMALIZATIONS),
            remedy="give norm_scaling_factor (sqrt(d_in) over the mean norm of its training activations), or fold it"
            " with sae.fold_activation_norm_scaling_factor and save it again",
        )
