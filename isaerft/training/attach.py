"""What a user may give for an SAE and for an adapter, turned into what this package works with.

The model without its adapters, as a model of its own that shares every weight.

Adapters on a plain Hugging Face model: trained, saved and switched on and off in its own forward pass.

>>> attached = attach(model, sae, "scale")                          # doctest: +SKIP
>>> Trainer(model, TrainingArguments("out"), train_dataset=rows).train()   # doctest: +SKIP
>>> with attached.disabled():                                       # doctest: +SKIP
...     model.generate(**prompt)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from isaerft.adapters.base import CONFIG, LatentAdapter, load_adapter, make_adapter, save_adapter
from isaerft.adapters.hooked import Passes, Place
from isaerft.adapters.saved import Saved, open_adapter
from isaerft.errors import InputError, shown, unknown_name
from isaerft.registry import ADAPTERS
from isaerft.subjects.dictionary import Dictionary, load_dictionary
from isaerft.subjects.hooks import find_hook
from isaerft.subjects.load import check_fit


def as_dictionary(sae: object, hook_name: str | None, center_writing_weights: bool) -> Dictionary:
    """Return the dictionary of a `Dictionary`, an SAE of SAELens, or a folder in SAELens' format.

    Raises
    ------
    InputError
        It is none of these, or the SAE is no linear dictionary, or its normalisation is not folded in.
    """
    if isinstance(sae, Dictionary):
        dictionary = replace(sae, center=sae.center or center_writing_weights)
    elif isinstance(sae, str | Path):
        dictionary = load_dictionary(sae, center=center_writing_weights)
    else:
        save = getattr(sae, "save_inference_model", None) or getattr(sae, "save_model", None)
        if save is None:
            raise InputError(
                f"SAE {shown(type(sae).__name__)}",
                allowed="an SAE of sae_lens, a folder in its format, or an isaerft Dictionary",
            )
        with TemporaryDirectory() as folder:
            save(folder)
            dictionary = load_dictionary(folder, center=center_writing_weights)
    dictionary = replace(dictionary, hook_name=hook_name or dictionary.hook_name)
    if not dictionary.hook_name:
        raise InputError("an SAE that does not say where it sits", remedy='give hook_name="blocks.L.hook_resid_post"')
    return dictionary


def as_adapter(adapter: object, dictionary: Dictionary, options: dict[str, Any], seed: int) -> LatentAdapter:
    """Return the adapter of a registered kind with options, a `LatentAdapter`, or a saved one.

    A saved one is a folder in our own format or in the original code's (`isaerft.adapters.saved`).

    Raises
    ------
    InputError
        It is none of these, it does not act on latents, or it is for a dictionary of another size.
    """
    d_sae = dictionary.d_sae
    if isinstance(adapter, str) and adapter in ADAPTERS:
        kind = ADAPTERS[adapter]
        if kind is Saved:
            return Saved.open(options, dictionary)
        if not (isinstance(kind, type) and issubclass(kind, LatentAdapter)):
            raise InputError(
                f"adapter {adapter!r}, which does not act on latents",
                allowed="adapters on latent activations",
                remedy="use PEFT itself for LoRA",
            )
        made = ADAPTERS.facts(adapter).made
        if made != "latents":
            raise InputError(
                f"adapter {adapter!r}, which is not trained but {made}",
                remedy="make it in a study and give the folder that the study wrote",
            )
        return make_adapter(adapter, d_sae, options, seed)
    if options:
        raise InputError(f"options {shown(options)} for an adapter that is already made", allowed="none")
    if isinstance(adapter, LatentAdapter):
        if adapter.d_sae != d_sae:
            raise InputError(f"an adapter for {adapter.d_sae} latents", allowed=f"{d_sae}, as the SAE has")
        return adapter
    if isinstance(adapter, str | Path) and (Path(adapter) / CONFIG).is_file():
        return open_adapter(adapter, dictionary)
    if isinstance(adapter, str) and "/" not in adapter:
        raise unknown_name("adapter", adapter, ADAPTERS)
    raise InputError(
        f"adapter {shown(adapter)}", allowed=f"a registered kind, a LatentAdapter, or a folder with {CONFIG}"
    )


class Reference(nn.Module):
    """Runs a model with its adapters disabled; TRL's `DPOTrainer` takes it as `ref_model`.

    It owns no weights, so that moving it, putting it into evaluation mode or asking for its parameters leaves the
    trained model alone. What it does not have itself is the model's.
    """

    def __init__(self, attached: Attached) -> None:
        super().__init__()
        object.__setattr__(self, "attached", attached)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with its adapters disabled."""
        with self.attached.disabled():
            return self.attached.model(*args, **kwargs)

    @property
    def base_model(self) -> Any:
        """The decoder under the language-model head, with the adapters disabled."""
        return self._decoder

    def _decoder(self, *args: Any, **kwargs: Any) -> Any:
        with self.attached.disabled():
            return self.attached.model.base_model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.attached.model, name)


ATTRIBUTE = "isaerft"
CHECKPOINT = "model.safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def attach(
    model: PreTrainedModel,
    sae: object,
    adapter: object,
    *,
    name: str = "default",
    hook_name: str | None = None,
    center_writing_weights: bool = False,
    bos_token_id: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Attached:
    """Put an adapter on the latents of an SAE into the forward pass of a model, in place, and freeze the model.

    A second call on the same model adds another adapter: under the same name at another SAE it is one adapter with
    parts at several layers, under another name a further adapter. What is added is active.

    Parameters
    ----------
    model : PreTrainedModel
        A decoder-only language model.
    sae : sae_lens.SAE, Dictionary, str or Path
        The SAE, or its folder in SAELens' format.
    adapter : str, LatentAdapter or Path
        A registered kind (with its `options`), an adapter, or the folder of a saved one.
    name : str
        By which the adapter is switched on and off and saved.
    hook_name : str, optional
        Where the SAE sits, in SAELens' words; by default the SAE says so.
    center_writing_weights : bool
        Centre the residual stream before the SAE, as GPT-2's SAEs want it.
    bos_token_id : int, optional
        Where a row begins with this token, no latent counts as active there; by default the model config's.
    seed : int
        Draws the adapter's parameters that do not begin at 0.

    Returns
    -------
    Attached
        The adapters of the model; also ``model.isaerft``.

    Raises
    ------
    InputError
        SAE, adapter and model do not fit each other, or the name is taken at this SAE.
    """
    dictionary = as_dictionary(sae, hook_name, center_writing_weights)
    check_fit(model.config.get_text_config().hidden_size, dictionary.d_in, dictionary.hook_name)
    site = find_hook(model, dictionary.hook_name)
    made = as_adapter(adapter, dictionary, options, seed)
    if not _NAME.fullmatch(name) or hasattr(nn.ModuleDict, name):
        raise InputError(f"adapter name {shown(name)}", allowed="letters, digits, - and _, no method of a ModuleDict")
    attached = getattr(model, ATTRIBUTE, None) or Attached(model, bos_token_id)
    key = dictionary.hook_name.replace(".", "-")
    place = attached.places[key] if key in attached.places else Place(dictionary, site, attached.passes)
    if name in place.adapters:
        raise InputError(
            f"adapter {name!r} is already attached at {dictionary.hook_name}", remedy="give another `name`"
        )
    attached.put(key, place, name, made)
    return attached


class Attached(nn.Module):
    """The adapters of a model, by name; registered in the model as ``model.isaerft``.

    While they are attached, the model's own parameters are frozen, and ``model.save_pretrained`` (and so a Trainer's
    checkpoints) holds the adapters alone.
    """

    def __init__(self, model: PreTrainedModel, bos_token_id: int | None) -> None:
        super().__init__()
        text = model.config.get_text_config()
        object.__setattr__(self, "model", model)
        self.bos_token_id = getattr(text, "bos_token_id", None) if bos_token_id is None else bos_token_id
        self.passes = Passes()
        self.places = nn.ModuleDict()
        self._frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._ignored = model._keys_to_ignore_on_save
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        # Trainer restores a checkpoint without complaint when the keys it lacks are those that are never saved.
        model._keys_to_ignore_on_save = set(model.state_dict())
        model.add_module(ATTRIBUTE, self)
        model.save_pretrained = self.save_pretrained
        self._handles = self.passes.follow(model, self.bos_token_id)

    @property
    def names(self) -> list[str]:
        """Names of the adapters, in the order in which they were attached."""
        return list(dict.fromkeys(name for place in self.places.values() for name in place.adapters))

    @property
    def active(self) -> set[str]:
        """Names of the adapters that act."""
        return {name for place in self.places.values() for name in place.active}

    def adapter(self, name: str = "default", hook_name: str | None = None) -> LatentAdapter:
        """Return one adapter; the hook is needed where a name has parts at several SAEs."""
        self._check(name)
        found = {key: place.adapters[name] for key, place in self.places.items() if name in place.adapters}
        if hook_name is not None:
            key = hook_name.replace(".", "-")
            if key not in found:
                raise unknown_name(f"hook of adapter {name!r}", hook_name, (k.replace("-", ".") for k in found))
            return found[key]
        if len(found) > 1:
            raise InputError(
                f"adapter {name!r} acts at {len(found)} SAEs",
                remedy=f"give hook_name, one of {', '.join(key.replace('-', '.') for key in found)}",
            )
        return next(iter(found.values()))

    def put(self, key: str, place: Place, name: str, adapter: LatentAdapter) -> None:
        """Take in an adapter at a place and let it act."""
        if key not in self.places:
            self.places[key] = place
            self._handles += place.hook(self.model)
        place.adapters[name] = adapter.to(self.model.device).requires_grad_(True)
        place.active.add(name)

    def set(self, *names: str) -> None:
        """Let exactly these adapters act and train; without a name none."""
        self._act(names)
        for place in self.places.values():
            for name, adapter in place.adapters.items():
                adapter.requires_grad_(name in names)

    @contextmanager
    def using(self, *names: str) -> Iterator[None]:
        """Let exactly these adapters act for a while; what trains is left as it is."""
        before = self.active
        self._act(names)
        try:
            yield
        finally:
            self._act(before)

    def disabled(self) -> Any:
        """Run the model without its adapters for a while, as a context."""
        return self.using()

    def reference(self) -> Reference:
        """Return the model without its adapters, as TRL's trainers take for `ref_model`; it shares all weights."""
        return Reference(self)

    def save(self, folder: str | Path) -> None:
        """Write every adapter to `folder`/{name}/{hook_name}/, as adapter_config.json and adapter_model.safetensors."""
        for key, place in self.places.items():
            for name, adapter in place.adapters.items():
                save_adapter(adapter, Path(folder) / name / key.replace("-", "."))

    def load(self, folder: str | Path) -> None:
        """Read the parameters of every attached adapter from what `save` wrote.

        Raises
        ------
        InputError
            One is not there, or is of another kind or size.
        """
        for key, place in self.places.items():
            for name, adapter in place.adapters.items():
                read = load_adapter(Path(folder) / name / key.replace("-", "."), adapter.d_sae)
                if (read.kind, read.options()) != (adapter.kind, adapter.options()):
                    raise InputError(
                        f"adapter {name!r} in {str(folder)!r} is {read.kind!r} with options {shown(read.options())}",
                        allowed=f"{adapter.kind!r} with options {shown(adapter.options())}, as is attached",
                    )
                adapter.load_state_dict(read.state_dict())

    def save_pretrained(self, folder: str | Path, state_dict: dict[str, torch.Tensor] | None = None, **_: Any) -> None:
        """Write the adapters (see `save`), and once more as one file from which a Trainer resumes; no base weights.

        Parameters
        ----------
        state_dict : dict, optional
            The whole model's, where a Trainer has gathered it.
        """
        self.save(folder)
        weights = state_dict if state_dict is not None else self.model.state_dict()
        kept = {key: value.cpu().contiguous() for key, value in weights.items() if key.startswith(f"{ATTRIBUTE}.")}
        save_file(kept, Path(folder) / CHECKPOINT, metadata={"format": "pt"})

    def detach(self) -> None:
        """Take all adapters out again and leave the model as it was found."""
        for handle in self._handles:
            handle.remove()
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        del self.model.save_pretrained
        self.model._keys_to_ignore_on_save = self._ignored
        delattr(self.model, ATTRIBUTE)

    def _act(self, names: Any) -> None:
        for name in names:
            self._check(name)
        for place in self.places.values():
            place.active = set(names) & set(place.adapters)

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise unknown_name("adapter", name, self.names)
