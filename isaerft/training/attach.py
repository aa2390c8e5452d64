"""Attach adapters to a plain Hugging Face model: train, save, and switch them on and off.

>>> attached = attach(model, sae, "scale")                                 # doctest: +SKIP
>>> Trainer(model, TrainingArguments("out"), train_dataset=rows).train()   # doctest: +SKIP
>>> with attached.disabled():                                              # doctest: +SKIP
...     model.generate(**prompt)
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from isaerft.adapters.base import LatentAdapter, make_adapter
from isaerft.adapters.card import CARD, TOLD, adapter_card, loading_code
from isaerft.adapters.hooked import AdapterHook, PassTracker
from isaerft.adapters.saved import CONFIG, open_adapter, save_adapter
from isaerft.errors import InputError, shown, unknown_name
from isaerft.hub import upload
from isaerft.registry import ADAPTERS
from isaerft.subjects.dictionary import Dictionary, load_dictionary
from isaerft.subjects.load import placed
from isaerft.subjects.sae import read_sae, writer_of

ATTRIBUTE = "isaerft"
CHECKPOINT = "model.safetensors"
logger = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def attach(
    model: PreTrainedModel,
    sae: object,
    adapter: object,
    *,
    name: str = "default",
    hook_name: str | None = None,
    center_writing_weights: bool = False,
    fold_value_biases: bool = False,
    bos_token_id: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Attached:
    """Attach an adapter on an SAE's latents to a model's forward pass, in place, and freeze the model.

    Another call on the same model adds to it: the same name at another SAE extends the adapter to several layers, and
    another name adds a further adapter. New adapters are active.

    Parameters
    ----------
    model : PreTrainedModel
        A decoder-only language model.
    sae : sae_lens.SAE, Dictionary, str or Path
        The SAE, or a folder in SAELens' format, also of its earlier releases.
    adapter : str, LatentAdapter or Path
        A registered kind (with its `options`), an adapter, or the folder of a saved one.
    name : str
        Name under which the adapter is switched and saved.
    hook_name : str, optional
        The SAE's hook, as SAELens names it; by default the SAE's own.
    center_writing_weights : bool
        Center the residual stream before the SAE, as SAEs of GPT-2 need.
    fold_value_biases : bool
        Read the heads without the value biases, as SAEs of GPT-2 at attn.hook_z need.
    bos_token_id : int, optional
        Token at the start of a row at which no latent counts as active; by default that of the model's config.
    seed : int
        Draws the adapter's initial parameters that are not 0.

    Returns
    -------
    Attached
        The model's adapters; also available as ``model.isaerft``.

    Raises
    ------
    InputError
        SAE, adapter and model do not fit together, another SAE is attached at the hook, or the name is taken there.
    """
    dictionary = _dictionary_of(sae, hook_name, center_writing_weights)
    dictionary, site = placed(dictionary, model, fold_value_biases=fold_value_biases)
    latent_adapter = _adapter_of(adapter, dictionary, options, seed)
    if not _NAME.fullmatch(name) or hasattr(nn.ModuleDict, name):
        raise InputError(f"adapter name {shown(name)}", allowed="letters, digits, - and _, no method of a ModuleDict")
    attached: Attached = getattr(model, ATTRIBUTE, None) or Attached(model, bos_token_id)
    key = _key_of(dictionary.hook_name)
    hook = attached.hook_at(key) or AdapterHook(dictionary, site, attached.tracker)
    if hook.dictionary.fingerprint != dictionary.fingerprint:
        raise InputError(
            f"another SAE is already attached at {dictionary.hook_name}", remedy="detach it, or attach at another hook"
        )
    if name in hook.adapters:
        raise InputError(
            f"adapter {name!r} is already attached at {dictionary.hook_name}", remedy="give another `name`"
        )
    attached.add(key, hook, name, latent_adapter)
    return attached


class Attached(nn.Module):
    """A model's adapters by name; registered in the model as ``model.isaerft``.

    While they are attached, the model's own parameters are frozen, and ``model.save_pretrained`` (so also a Trainer's
    checkpoints) writes only the adapters.
    """

    model: PreTrainedModel

    def __init__(self, model: PreTrainedModel, bos_token_id: int | None) -> None:
        super().__init__()
        text = model.config.get_text_config()
        object.__setattr__(self, "model", model)
        self.bos_token_id = getattr(text, "bos_token_id", None) if bos_token_id is None else bos_token_id
        self.tracker = PassTracker()
        self.hooks = nn.ModuleDict()
        self._frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._ignored = model._keys_to_ignore_on_save
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        # Trainer does not warn about keys missing from a checkpoint that are never saved.
        model._keys_to_ignore_on_save = set(model.state_dict())
        model.add_module(ATTRIBUTE, self)
        model.save_pretrained = self.save_pretrained  # type: ignore[method-assign,assignment]
        self._handles = self.tracker.track(model, self.bos_token_id)
        self._warned = False
        self._handles.append(model.base_model.register_forward_pre_hook(self._warn_if_frozen))

    @property
    def names(self) -> list[str]:
        """Names of the adapters, in order of attachment."""
        return list(dict.fromkeys(name for hook in self._hooks.values() for name in hook.adapters))

    @property
    def active(self) -> set[str]:
        """Names of the active adapters."""
        return {name for hook in self._hooks.values() for name in hook.active}

    def adapter(self, name: str = "default", hook_name: str | None = None) -> LatentAdapter:
        """Return an adapter; `hook_name` is needed if it has parts at several SAEs."""
        self._check(name)
        found = {key: _adapters_at(hook)[name] for key, hook in self._hooks.items() if name in hook.adapters}
        if hook_name is not None:
            key = _key_of(hook_name)
            if key not in found:
                raise unknown_name(f"hook of adapter {name!r}", hook_name, (_hook_name_of(key) for key in found))
            return found[key]
        if len(found) > 1:
            raise InputError(
                f"adapter {name!r} acts at {len(found)} SAEs",
                remedy=f"give hook_name, one of {', '.join(map(_hook_name_of, found))}",
            )
        return next(iter(found.values()))

    def hook_at(self, key: str) -> AdapterHook | None:
        """Return the hook with this key, or None."""
        return self._hooks.get(key)

    def add(self, key: str, hook: AdapterHook, name: str, adapter: LatentAdapter) -> None:
        """Add an adapter at a hook and activate it."""
        if key not in self.hooks:
            self.hooks[key] = hook
            self._handles += hook.register(self.model)
        hook.adapters[name] = adapter.to(self.model.device).requires_grad_(True)
        hook.active.add(name)

    def set(self, *names: str) -> None:
        """Activate and train exactly these adapters; none without a name."""
        self._activate(names)
        for hook in self._hooks.values():
            for name, adapter in _adapters_at(hook).items():
                adapter.requires_grad_(name in names)

    @contextmanager
    def using(self, *names: str) -> Iterator[None]:
        """Activate exactly these adapters inside the block; which ones are trained does not change."""
        before = self.active
        self._activate(names)
        try:
            yield
        finally:
            self._activate(before)

    def disabled(self) -> AbstractContextManager[None]:
        """Disable all adapters inside the block."""
        return self.using()

    def ref_model(self) -> RefModel:
        """Return the model without its adapters, the `ref_model` of TRL's trainers; it shares all weights."""
        return RefModel(self)

    def save(self, folder: str | Path) -> None:
        """Write every adapter to `folder`/{name}/{hook_name}/, as adapter_config.json and adapter_model.safetensors."""
        for key, hook in self._hooks.items():
            for name, adapter in _adapters_at(hook).items():
                save_adapter(adapter, Path(folder) / name / _hook_name_of(key), hook.dictionary)

    def load(self, folder: str | Path) -> None:
        """Load the parameters of every attached adapter from a folder that `save` wrote.

        Raises
        ------
        InputError
            An adapter is missing there, or is of another SAE, kind or size.
        """
        for key, hook in self._hooks.items():
            for name, adapter in _adapters_at(hook).items():
                read = open_adapter(Path(folder) / name / _hook_name_of(key), hook.dictionary)
                if (read.kind, read.options()) != (adapter.kind, adapter.options()):
                    raise InputError(
                        f"adapter {name!r} in {str(folder)!r} is {read.kind!r} with options {shown(read.options())}",
                        allowed=f"{adapter.kind!r} with options {shown(adapter.options())}, as is attached",
                    )
                adapter.load_state_dict(read.state_dict())

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        *,
        push_to_hub: bool = False,
        **_: Any,
    ) -> None:
        """Write the adapters as `save` does, and again as one file from which a Trainer resumes; no base weights.

        Other options of the model's own `save_pretrained`, which say how to write base weights, have no effect.

        Parameters
        ----------
        is_main_process : bool
            Whether to write: of several processes, only one should.
        state_dict : dict, optional
            State of the whole model, if a Trainer has gathered it.

        Raises
        ------
        InputError
            `push_to_hub` is asked for.
        """
        if push_to_hub:
            raise InputError(
                "save_pretrained with push_to_hub=True of a model with attached adapters",
                remedy="call model.isaerft.push_to_hub(repo_id), which uploads the adapters with a card",
            )
        if not is_main_process:
            return
        self.save(save_directory)
        weights = state_dict if state_dict is not None else self.model.state_dict()
        kept = {key: value.cpu().contiguous() for key, value in weights.items() if key.startswith(f"{ATTRIBUTE}.")}
        save_file(kept, Path(save_directory) / CHECKPOINT, metadata={"format": "pt"})

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        token: str | None = None,
        commit_message: str = "Upload adapters",
        card: Mapping[str, object] | None = None,
    ) -> str:
        """Upload what `save` writes, with a model card, to the Hugging Face hub; return the address.

        Parameters
        ----------
        repo_id : str
            OWNER/NAME; made if it is not there.
        private : bool
            Whether only its owner may see it. A repository that is there and public is then an error.
        token : str, optional
            By default that of the environment (HF_TOKEN) or of `hf auth login`.
        card : dict, optional
            What the card says of behavior, training data, its license and held-out loss (the keys of `TOLD`), and
            further rows of its table.

        Raises
        ------
        InputError
            There is no token, a file holds a credential, or the hub refuses.
        """
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            self.save(folder)
            (folder / CARD).write_text(self._card(repo_id, card or {}), encoding="utf-8")
            return upload(folder, repo_id, private=private, token=token, message=commit_message)

    def _card(self, repo_id: str, told: Mapping[str, object]) -> str:
        model = str(self.model.config.name_or_path)
        is_local = not model or Path(model).exists()
        name = f"{Path(model).name} (a local model)" if is_local else model
        hooks = list(self._hooks.values())
        saes = [(hook.dictionary.release, hook.dictionary.sae_id) for hook in hooks]
        kinds = [
            f"{own} ({adapter.kind}) at {hook.dictionary.hook_name}"
            for hook in hooks
            for own, adapter in _adapters_at(hook).items()
        ]
        facts: dict[str, object] = {"Base model": name, "Adapters": "; ".join(kinds)}
        facts["SAE"] = "; ".join(" / ".join(sae) if all(sae) else "a local SAE" for sae in saes)
        first = hooks[0]
        code = loading_code(
            "FOLDER_OF_THE_MODEL" if is_local else model,
            saes[0] if all(saes[0]) else ("FOLDER_OF_THE_SAE",),
            f"{repo_id}:{next(iter(first.adapters))}/{first.dictionary.hook_name}",
            {"hook_name": first.dictionary.hook_name, "center_writing_weights": first.dictionary.center},
        )
        title = f"{', '.join(self.names)} on {name}"
        return adapter_card(title, None if is_local else model, facts | dict.fromkeys(TOLD, "") | dict(told), code)

    def detach(self) -> None:
        """Remove all adapters and restore the model."""
        for handle in self._handles:
            handle.remove()
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        del self.model.save_pretrained
        self.model._keys_to_ignore_on_save = self._ignored
        delattr(self.model, ATTRIBUTE)

    def _warn_if_frozen(self, *_: object) -> None:
        """Warn once of a training pass in which adapters act, and something frozen keeps all of them from learning."""
        if self._warned or not (self.model.training and torch.is_grad_enabled() and self.active):
            return
        if not any(parameter.requires_grad for parameter in self.parameters()):
            self._warned = True
            logger.warning(
                "the attached adapters (%s) act in this training, but all are frozen and learn nothing. PEFT freezes"
                " what it finds in a model: call model.isaerft.set(%s) after get_peft_model, or attach after it",
                ", ".join(sorted(self.active)),
                ", ".join(map(repr, sorted(self.active))),
            )

    @property
    def _hooks(self) -> dict[str, AdapterHook]:
        return {key: cast("AdapterHook", hook) for key, hook in self.hooks.items()}

    def _activate(self, names: Iterable[str]) -> None:
        names = set(names)
        for name in names:
            self._check(name)
        for hook in self._hooks.values():
            hook.active = names & set(hook.adapters)

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise unknown_name("adapter", name, self.names)


class RefModel(nn.Module):
    """A model with its adapters disabled, for `ref_model` of TRL's `DPOTrainer`.

    It has no weights of its own, so moving it, setting its evaluation mode or listing its parameters does not affect
    the trained model. Other attributes are the model's.
    """

    attached: Attached

    def __init__(self, attached: Attached) -> None:
        super().__init__()
        object.__setattr__(self, "attached", attached)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with its adapters disabled."""
        with self.attached.disabled():
            return self.attached.model(*args, **kwargs)

    @property
    def base_model(self) -> Any:
        """The decoder below the language-model head, with the adapters disabled."""
        return self._decoder

    def _decoder(self, *args: Any, **kwargs: Any) -> Any:
        with self.attached.disabled():
            return self.attached.model.base_model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.attached.model, name)


def _dictionary_of(sae: object, hook_name: str | None, center_writing_weights: bool) -> Dictionary:
    """Return the dictionary of a `Dictionary`, an SAE of SAELens, or a folder in SAELens' format."""
    if isinstance(sae, Dictionary):
        dictionary = replace(sae, center=sae.center or center_writing_weights)
    elif isinstance(sae, str | Path):
        dictionary = read_sae(sae, center=center_writing_weights)
    else:
        save = writer_of(sae)
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
        raise InputError("an SAE without a hook name", remedy='give hook_name="blocks.L.hook_resid_post"')
    return dictionary


def _adapter_of(adapter: object, dictionary: Dictionary, options: dict[str, Any], seed: int) -> LatentAdapter:
    """Return the adapter of a registered kind with options, a `LatentAdapter`, or a saved one (`open_adapter`)."""
    d_sae = dictionary.d_sae
    if isinstance(adapter, str) and adapter in ADAPTERS:
        made = ADAPTERS.facts(adapter).made
        if made == "latents":
            return make_adapter(adapter, d_sae, options, seed)
        if made == "saved":
            opened: LatentAdapter = ADAPTERS[adapter].open(options, dictionary)
            return opened
        if made == "fitted":
            raise InputError(
                f"adapter {adapter!r}, which is not trained but fitted", remedy="fit it in a study and give its folder"
            )
        raise InputError(
            f"adapter {adapter!r}, which does not act on latents",
            allowed="adapters on latent activations",
            remedy="use PEFT itself for LoRA",
        )
    if options:
        raise InputError(f"options {shown(options)} for an existing adapter", allowed="none")
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


def _adapters_at(hook: AdapterHook) -> dict[str, LatentAdapter]:
    return {name: cast("LatentAdapter", adapter) for name, adapter in hook.adapters.items()}


def _key_of(hook_name: str) -> str:
    """Return the hook's name in a ModuleDict, whose keys have no dots."""
    return hook_name.replace(".", "-")


def _hook_name_of(key: str) -> str:
    return key.replace("-", ".")
