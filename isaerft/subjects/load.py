"""Loading a subject: a Hugging Face model with its tokenizer, its SAE, and the place where they meet."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from isaerft import config
from isaerft.errors import InputError
from isaerft.subjects.dictionary import Dictionary, load_dictionary
from isaerft.subjects.paths import SubjectFolder
from isaerft.subjects.site import Site, find_site
from isaerft.subjects.verify import verify_site


@dataclass(frozen=True)
class LoadedModel:
    """A frozen model with its tokenizer.

    Attributes
    ----------
    model : PreTrainedModel
        In evaluation mode, no parameter requires a gradient.
    prepend_bos : bool
        Whether texts begin with BOS, as the SAE was trained.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prepend_bos: bool

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.model.config.get_text_config().hidden_size

    @property
    def bos(self) -> list[int]:
        """Token ids put in front of every text: BOS, or nothing."""
        return [self.tokenizer.bos_token_id] if self.prepend_bos else []

    @property
    def padding(self) -> int:
        """Token id used to fill rows; it is masked, so any id will do."""
        return self.tokenizer.pad_token_id or 0


@dataclass(frozen=True)
class LoadedSubject:
    """A model and a dictionary that fit each other."""

    language: LoadedModel
    dictionary: Dictionary
    site: Site

    @property
    def model(self) -> PreTrainedModel:
        """The frozen model."""
        return self.language.model

    def with_random_dictionary(self, seed: int) -> LoadedSubject:
        """Return the subject with its decoder rows exchanged at random: the control that must fail."""
        return replace(self, dictionary=self.dictionary.permuted(seed))


def set_up(study: config.Study) -> str:
    """Fix the CPU threads of this process and return the device to work on."""
    torch.set_num_threads(study.threads)
    if study.device not in ("auto", "cuda"):
        return study.device
    if study.device == "auto" and not torch.cuda.is_available():
        return "cpu"
    # A launcher of several processes on one machine says which of them this is.
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"


def load_model(subject: config.Subject, folder: SubjectFolder, device: str) -> LoadedModel:
    """Load a subject's model and tokenizer from the hub, a local folder, or the testbed's own folder.

    Raises
    ------
    InputError
        The model cannot be loaded, it should begin texts with BOS and has none, or its tokenizer cannot say which
        characters a token stands for.
    """
    place = str(folder.model) if subject.testbed is not None else subject.model
    revision = {"revision": subject.revision} if subject.revision else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(place, dtype=getattr(torch, subject.dtype), **revision)
        tokenizer = AutoTokenizer.from_pretrained(place, **revision)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {place!r} cannot be loaded ({' '.join(str(error).split())[:200]})",
            allowed="a Hugging Face id, or a local folder",
            remedy="check the id, the network and HF_TOKEN",
        ) from None
    if subject.prepend_bos and tokenizer.bos_token_id is None:
        raise InputError(
            f"model {place!r} has no BOS token", remedy="set prepend_bos: false, if its SAE was trained so"
        )
    if not tokenizer.is_fast:
        raise InputError(
            f"the tokenizer of {place!r} does not tell which characters a token stands for",
            allowed="fast tokenizers (with a tokenizer.json)",
            remedy="convert it, and keep the converted one beside the model",
        )
    model.to(device).eval().requires_grad_(False)
    return LoadedModel(model, tokenizer, subject.prepend_bos)


def load_subject(subject: config.Subject, folder: str | Path, device: str) -> LoadedSubject:
    """Load a subject whose SAE is already in its folder.

    Raises
    ------
    InputError
        The model or the SAE cannot be read, or they do not fit each other.
    """
    paths = SubjectFolder(Path(folder))
    language = load_model(subject, paths, device)
    dictionary = load_dictionary(paths.sae, center=subject.center_writing_weights).to(device)
    site = find_site(language.model, dictionary.hook_name)
    check_fit(language.d_model, dictionary.d_in, dictionary.hook_name)
    verify_site(language.model, site)
    return LoadedSubject(language, dictionary, site)


def check_fit(d_model: int, d_in: int, hook_name: str) -> None:
    """Refuse an SAE whose width is not the model's."""
    if d_in != d_model:
        raise InputError(
            f"the SAE at {hook_name} reads {d_in} dimensions, but the model's residual stream has {d_model}",
            remedy="choose an SAE that was trained on this model",
        )
