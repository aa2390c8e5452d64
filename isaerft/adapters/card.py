"""The card of an adapter that is published: what it is, how to load it, and what nobody claims of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from isaerft.hub import escaped
from isaerft.version import VERSION

CARD = "README.md"
NOT_STATED = "not stated"
TOLD = ("Behavior", "Training data", "License of the data", "Held-out loss")
"""Rows of a card that only whoever trained the adapter can fill in."""
_BODY = """# {title}

{kind}

| what | |
|---|---|
{facts}

## Load it

```python
{load}
```

## Not claimed

- **Behavior.** A lower loss on held-out rows says that replies like those of the training data became likelier. How the
  model behaves elsewhere was not measured here.
- **Capability.** Whether the model lost abilities was not measured here. Compare it with its base model, for instance
  with lm-evaluation-harness: `isaerft.integrations.lm_eval` loads both.
- **Safety.** Nothing was tested. Training on a behavior can undo a model's refusals or teach harm, whatever the aim.
- **Explanations.** That latents changed does not make their explanations true; isaerft's tables say what was tested.
- **License.** The base model's license{licences} may bind this adapter, too. Its publisher states what holds.

Made by isaerft {version}.
"""
_ON_LATENTS = (
    "It changes the latents f of a sparse autoencoder (SAE) inside the model's forward pass: x becomes x + decode(f') -"
    " decode(f) at the SAE's hook. The model's own weights stay as they are, and without the SAE it means nothing."
)
_ON_WEIGHTS = "It changes the model's weights (LoRA, in PEFT's format), and merges into them exactly. It needs no SAE."


def adapter_card(
    title: str,
    base_model: str | None,
    facts: Mapping[str, object],
    load: str,
    *,
    on_latents: bool = True,
    dataset: str | None = None,
) -> str:
    """Return a model card in Markdown.

    Parameters
    ----------
    base_model : str, optional
        Its id on the hub, if it has one.
    facts : dict
        Rows of the card's table; an empty value is shown as not stated.
    load : str
        Python code.
    dataset : str, optional
        Id on the hub of the data that it was trained on.
    """
    header: dict[str, object] = {"library_name": "isaerft" if on_latents else "peft"}
    header |= {"base_model": base_model} if base_model else {}
    header |= {"datasets": [dataset]} if dataset else {}
    header["tags"] = ["isaerft", "sparse-autoencoder" if on_latents else "lora", "interpretability"]
    rows = "\n".join(f"| {escaped(name)} | {escaped(value) or NOT_STATED} |" for name, value in facts.items())
    body = _BODY.format(
        title=escaped(title),
        kind=_ON_LATENTS if on_latents else _ON_WEIGHTS,
        facts=rows,
        load=load.replace("```", "'''"),
        licences=", the SAE's and the data's" if on_latents else " and the data's",
        version=VERSION,
    )
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=False)}---\n\n{body}"


def loading_code(base_model: str, sae: Sequence[str], adapter: str, options: Mapping[str, object]) -> str:
    """Return the lines that load an adapter on latents.

    Parameters
    ----------
    sae : sequence of str
        Release and id of a pretrained SAE, or the one folder of another.
    adapter : str
        Repository or folder, with the folder of the adapter inside it after a colon.
    options : dict
        Further arguments of `isaerft.attach`; those that are false are left out.
    """
    given = "".join(f", {name}={value!r}" for name, value in options.items() if value)
    repository, _, inside = adapter.partition(":")
    place = f"snapshot_download({repository!r})" + (f" + {'/' + inside!r}" if inside else "")
    loaded = f"SAE.from_pretrained({', '.join(map(repr, sae))})" if len(sae) == 2 else repr("".join(sae))
    imports = ["import isaerft", "from huggingface_hub import snapshot_download"]
    imports += ["from sae_lens import SAE"] if len(sae) == 2 else []
    return "\n".join(
        [
            *imports,
            "from transformers import AutoModelForCausalLM",
            "",
            f"model = AutoModelForCausalLM.from_pretrained({base_model!r})",
            f"sae = {loaded}",
            f"attached = isaerft.attach(model, sae, {place}{given})",
        ]
    )
