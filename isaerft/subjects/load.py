"""Does running the part above a hook give what the whole model gives? Asked once of every model that is loaded.

Nothing here knows a family of models: a final scale that `unembed` does not know, or a block that does not add what its
parts give, shows as different logits.

Loading a subject: a Hugging Face model with its tokenizer, its SAE, and the place where they meet.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from isaerft import config
from isaerft.errors import InputError
from isaerft.layout import SubjectFolder
from isaerft.subjects.dictionary import Dictionary, load_dictionary
from isaerft.subjects.hooks import Site, find_site, hidden_above, run_below, unembed, writer_of

N_TOKENS = 8
FIRST_TOKEN = 5


def verify_site(model: nn.Module, site: Site) -> None:
    """Compare logits from below and above `site` with the model's own, on a few tokens.

    Where the SAE reads what attention or MLP add, also with that output doubled: the same must come of adding it to
    the residual stream at the injection point.

    Raises
    ------
    InputError
        They differ by more than the number format explains, or are not finite.
    """
    vocabulary = model.config.get_text_config().vocab_size
    tokens = (torch.arange(N_TOKENS, device=model.device)[None] + FIRST_TOKEN) % vocabulary
    mask = torch.ones_like(tokens)
    below = run_below(model, site, tokens, mask)
    given = _whole(model, tokens, mask)
    name = f"{type(model).__name__} in {str(given.dtype).removeprefix('torch.')}"
    if not given.isfinite().all():
        raise InputError(f"{name} gives logits that are not finite", remedy="set dtype: bfloat16 or float32")
    _compare(
        given,
        _logits(model, site, below.residual, mask),
        f"{name}: what lies above the hook does not give the model's own logits",
        "it changes logits after the unembedding, or its blocks read more than the residual stream",
    )
    if site.reads == "residual":
        return
    handle = writer_of(model, site.block, site.reads).register_forward_hook(_doubled)
    try:
        given = _whole(model, tokens, mask)
    finally:
        handle.remove()
    _compare(
        given,
        _logits(model, site, below.residual + below.activation, mask),
        f"{name}: what its {site.reads} gives is not what its blocks add to the residual stream",
        "choose an SAE on the residual stream between blocks",
    )


def _whole(model: nn.Module, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=mask, use_cache=False).logits


def _logits(model: nn.Module, site: Site, residual: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return unembed(model, hidden_above(model, site, residual, mask))


def _doubled(module: nn.Module, args: object, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
    return (2 * output[0], *output[1:]) if isinstance(output, tuple) else 2 * output


def _compare(given: torch.Tensor, found: torch.Tensor, what: str, remedy: str) -> None:
    difference = float((given - found).abs().max())
    allowed = torch.finfo(given.dtype).eps ** 0.5 * float(given.abs().max())
    if not difference <= allowed:
        raise InputError(f"{what} (they differ by {difference:.3g})", allowed=f"{allowed:.3g}", remedy=remedy)


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


def set_up(plan: config.Plan) -> str:
    """Fix the CPU threads of this process and return the device to work on."""
    torch.set_num_threads(plan.study.threads)
    if plan.study.device not in ("auto", "cuda"):
        return plan.study.device
    if plan.study.device == "auto" and not torch.cuda.is_available():
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
