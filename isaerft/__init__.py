"""isaerft: find out whether the explanations of a sparse autoencoder's latents are true, by training through them.

>>> attached = isaerft.attach(model, sae, "scale")   # doctest: +SKIP
>>> study = isaerft.validate(model, tokenizer, sae, behaviors=behaviors, explanations=frame)   # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isaerft.version import VERSION as __version__

if TYPE_CHECKING:
    from isaerft.notebook import open_study as open_study
    from isaerft.notebook import validate as validate
    from isaerft.training.attach import attach as attach

__all__ = ["__version__", "attach", "open_study", "validate"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and only then: the package itself loads without torch."""
    if name == "attach":
        from isaerft.training.attach import attach

        return attach
    if name == "open_study":
        from isaerft.notebook.result import open_study

        return open_study
    if name == "validate":
        from isaerft.notebook import validate

        return validate
    raise AttributeError(f"module 'isaerft' has no attribute {name!r}")
