r"""lm-evaluation-harness on a model with an adapter: did training on a behavior cost abilities?

$ python -m isaerft.integrations.lm_eval run --model isaerft --tasks hellaswag \
    --model_args pretrained=openai-community/gpt2,sae=gpt2-small-res-jb,sae_id=blocks.8.hook_resid_pre,adapter=FOLDER

Releases of lm_eval after 0.4.13 find the model by its entry point, so `lm_eval run --model isaerft` is enough for them.
Without `adapter` it is the plain model, evaluated in the same way.
"""

from __future__ import annotations

import os
from typing import Any

from isaerft.errors import InputError
from isaerft.subjects.sae import published_sae
from isaerft.training.attach import attach

try:
    from lm_eval.models.huggingface import HFLM
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"{missing}: pip install 'isaerft[lm-eval]'", name=missing.name) from None

NAME = "isaerft"
CLASS = "isaerft.integrations.lm_eval:AdaptedModel"


class AdaptedModel(HFLM):
    """A Hugging Face model with a saved adapter on an SAE's latents, for lm_eval.

    Parameters
    ----------
    pretrained : str
        The base model, as for lm_eval's `hf`.
    adapter : str, optional
        Folder of a saved adapter; none for the plain model.
    sae : str, optional
        Folder of the SAE in SAELens' format (a study keeps its own in subjects/{subject}/sae), or its release.
    sae_id : str, optional
        The SAE's id in a release.
    hook_name, center_writing_weights, fold_value_biases
        As for `isaerft.attach`.
    **options
        Whatever lm_eval's `hf` takes (dtype, device, batch_size, add_bos_token, ...).

    Raises
    ------
    InputError
        Adapter, SAE and model do not belong together, or one of the first two is missing.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        adapter: str | None = None,
        sae: str | None = None,
        sae_id: object = None,
        hook_name: str | None = None,
        center_writing_weights: bool = False,
        fold_value_biases: bool = False,
        **options: Any,
    ) -> None:
        if adapter is not None and sae is None:
            raise InputError("an adapter without its SAE", remedy="add sae=FOLDER, or sae=RELEASE,sae_id=ID")
        super().__init__(pretrained=pretrained, **options)
        if adapter is None or sae is None:
            return
        attach(
            self.model,
            _sae(sae, sae_id),
            str(adapter),
            hook_name=hook_name,
            center_writing_weights=center_writing_weights,
            fold_value_biases=fold_value_biases,
        )


def _sae(sae: str, sae_id: object) -> object:
    """Return a local folder as it is, and an SAE of a release as SAELens loads it."""
    if sae_id is None:
        if not os.path.isdir(sae):
            raise InputError(f"SAE folder {sae!r} does not exist", remedy="check the path, or add sae_id for a release")
        return sae
    return published_sae(sae, str(sae_id))


def main() -> None:
    """Run lm_eval's own command line with this model registered."""
    import lm_eval.models  # noqa: F401  # registers its own models
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=CLASS)
    cli_evaluate()


if __name__ == "__main__":
    main()
