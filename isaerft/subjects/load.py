"""Load a subject: a Hugging Face model with its tokenizer, an SAE, and the hook that joins them.

Every model is checked once when it is loaded (`verify_hook`): running it below and above the hook must give its own
logits. The check assumes no model family. A final scale that `unembed` misses, or a block that does not simply add
the outputs of its parts, makes the logits differ.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from isaerft import config
from isaerft.errors import InputError, shown
from isaerft.layout import SubjectFolder
from isaerft.outside import loading, origin_remedy
from isaerft.subjects.blocks import projection_matrix
from isaerft.subjects.chat import rendered
from isaerft.subjects.device import widen_attention
from isaerft.subjects.dictionary import Dictionary, load_dictionary
from isaerft.subjects.hooks import directions_written, hidden_above, reaching, run_below, unembed, written_by
from isaerft.subjects.points import HookPoint, find_hook

logger = logging.getLogger(__name__)
N_CHECKED_TOKENS = 8
FIRST_CHECKED_TOKEN = 5
# Each takes transformers milliseconds to build, whatever the weights hold; the largest models have about 130.
MAX_BLOCKS = 1000
# OPT's table has two rows more than positions.
MAX_SPARE_POSITIONS = 8


@dataclass(frozen=True)
class LoadedModel:
    """A frozen model with its tokenizer.

    Attributes
    ----------
    model : PreTrainedModel
        In evaluation mode; no parameter requires a gradient.
    prepend_bos : bool
        Whether texts begin with BOS, as in the SAE's training.
    uses_chat_template : bool
        Whether a prompt that is text becomes a user's turn, if the tokenizer has a chat template.
    writes_turns : bool
        Whether it becomes a user's turn in plain words otherwise ("User: ...").
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prepend_bos: bool
    uses_chat_template: bool = True
    writes_turns: bool = False

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.model.config.get_text_config().hidden_size

    @property
    def n_vocabulary(self) -> int:
        """Number of token ids that the model can predict."""
        return self.model.config.get_text_config().vocab_size

    @property
    def bos(self) -> list[int]:
        """Token ids in front of every text: BOS, or none."""
        return [self.tokenizer.bos_token_id] if self.prepend_bos else []

    @property
    def padding(self) -> int:
        """Token id that fills rows up; it is masked, so any id will do."""
        return self.tokenizer.pad_token_id or 0

    def prompted(self, behavior: config.Behavior) -> LoadedModel:
        """Return the model that reads prompts as a behavior's: an elicited one's are turns without a template, too."""
        auto = behavior.chat_template == "auto"
        return replace(self, uses_chat_template=auto, writes_turns=auto and behavior.elicit is not None)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids."""
        return str(self.tokenizer.decode(list(tokens)))

    def text_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Return the tokens of an attention mask (n_rows, length) that are not BOS, (n_rows, length) bool."""
        is_text = mask.bool().clone()
        is_text[:, : len(self.bos)] = False
        return is_text

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of tokens that stand for no text of their own, such as EOS and the end of a turn."""
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset([*self.tokenizer.all_special_ids, *(token for token, text in added if text.special)])

    @cached_property
    def chat_prefix(self) -> list[int]:
        """Token ids with which every chat begins, BOS included: a template's constant system prompt, say."""
        if not self.tokenizer.chat_template:
            return self.bos
        try:
            chats: list[list[dict[str, str]]] = [[{"role": "user", "content": text}] for text in ("1", "A")]
            texts = [rendered(self.tokenizer, chat, "a user's turn") for chat in chats]
        except InputError as error:
            logger.warning("no chat can be recognized by its beginning: %s", error)
            return self.bos
        rows = [[*self.bos, *self.tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
        same = takewhile(lambda pair: pair[0] == pair[1], zip(*rows, strict=False))
        return [token for token, _ in same]

    def n_constant(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return how many tokens at the beginning of each row (n_rows, length) are constant, (n_rows,) int64.

        These are BOS and, in a row that begins as every chat does, the rest of `chat_prefix`. They say nothing about
        the text, so an SAE is neither trained nor described on them.
        """
        prefix = torch.tensor(self.chat_prefix, dtype=tokens.dtype, device=tokens.device)
        n_rows, length = tokens.shape
        constant = torch.full((n_rows,), len(self.bos), device=tokens.device)
        if len(prefix) > len(self.bos) and length > len(prefix):
            constant[(tokens[:, : len(prefix)] == prefix).all(1)] = len(prefix)
        return constant

    def content_mask(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return which tokens of padded rows (n_rows, length) are text and not constant, (n_rows, length) bool."""
        position = torch.arange(tokens.shape[1], device=tokens.device)
        return mask.bool() & (position >= self.n_constant(tokens)[:, None])


@dataclass(frozen=True)
class LoadedSubject:
    """A model, a dictionary of its activations, and the hook at which the dictionary reads."""

    language: LoadedModel
    dictionary: Dictionary
    hook: HookPoint

    @property
    def model(self) -> PreTrainedModel:
        """The frozen model."""
        return self.language.model

    def reaching(self, written: torch.Tensor | None, change: torch.Tensor) -> torch.Tensor:
        """Return what arrives in the residual stream of a change of what the dictionary writes to (`reaching`)."""
        return reaching(self.model, self.hook, written, change)

    def directions(self) -> torch.Tensor:
        """Return the direction of the residual stream that each latent writes, (d_sae, d_model)."""
        return directions_written(self.model, self.hook, self.dictionary.decoder)

    def with_random_dictionary(self, seed: int) -> LoadedSubject:
        """Return the subject with its decoder rows permuted: the control that must fail."""
        return replace(self, dictionary=self.dictionary.permuted(seed))


def load_model(
    subject: config.Subject,
    folder: SubjectFolder,
    device: str,
    *,
    max_length: int | None = None,
    seed: int | None = None,
) -> LoadedModel:
    """Load a subject's model and tokenizer from the hub, a local folder, or the folder that the study made.

    Parameters
    ----------
    max_length : int, optional
        Longest row of a behavior in tokens; checked, like the corpus's `context_size`, against the model's positions.
    seed : int, optional
        Draw the model's weights anew from this seed (`randomize`).

    Raises
    ------
    InputError
        The model cannot be loaded, has fewer positions than rows have tokens, texts should begin with BOS but the
        tokenizer has none, or the tokenizer does not give the character offsets of its tokens.
    """
    name = subject.model or str(folder.model)
    revision = {"revision": subject.revision} if subject.revision else {}
    dtype = getattr(torch, subject.dtype)
    with loading(f"model {name!r}", name, allowed="a Hugging Face id, or a local folder", remedy=origin_remedy(name)):
        # Not left out: transformers would ask at the terminal whether to run the code in a model's folder.
        check_blocks(AutoConfig.from_pretrained(name, trust_remote_code=False, **revision))
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, trust_remote_code=False, **revision)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **revision)
    lengths = {"corpus.context_size": subject.corpus.context_size}
    check_positions(model, lengths if max_length is None else lengths | {"max_length": max_length})
    if subject.prepend_bos and tokenizer.bos_token_id is None:
        raise InputError(
            f"model {name!r} has no BOS token", remedy="set prepend_bos: false if its SAE was trained without BOS"
        )
    if not tokenizer.is_fast:
        raise InputError(
            f"the tokenizer of {name!r} does not give the character offsets of its tokens",
            allowed="fast tokenizers (with a tokenizer.json)",
            remedy="convert it to a fast tokenizer and save that with the model",
        )
    if seed is not None:
        randomize(model, seed)
    with loading(f"model {name!r} on {device}"):
        model.to(device)  # type: ignore[arg-type]
    widen_attention(model)
    return LoadedModel(model.eval().requires_grad_(False), tokenizer, subject.prepend_bos)


def randomize(model: PreTrainedModel, seed: int) -> None:
    """Draw every parameter of a model anew, in place, from a normal distribution with its own mean and deviation.

    So does Heap et al. 2025, "Automated Interpretability Metrics Do Not Distinguish Trained and Random Transformers"
    (arXiv 2501.17727), where embeddings are drawn too. Parameters that share storage (tied embeddings) stay one.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            values = parameter.detach().float()
            drawn = torch.randn(values.shape, generator=generator).to(values.device)
            parameter.copy_(drawn * values.std(unbiased=False) + values.mean())


def check_blocks(stated: PreTrainedConfig) -> None:
    """Raise `InputError` if a model's config states far more blocks than any model has; all of them would be built."""
    for part in (stated, stated.get_text_config()):
        n_blocks = getattr(part, "num_hidden_layers", None)
        if isinstance(n_blocks, int) and n_blocks > MAX_BLOCKS:
            raise InputError(
                f"model {str(stated.name_or_path)!r} has a config of {shown(n_blocks)} blocks",
                allowed=f"up to {MAX_BLOCKS:,}",
                remedy="get the model again: its config is damaged",
            )


def check_positions(model: PreTrainedModel, lengths: Mapping[str, int]) -> None:
    """Compare the lengths of rows, option -> tokens, with the positions that a model's config states.

    A model with a table of positions cannot read beyond it. Rotary and relative positions go on, into lengths on which
    the model was not trained, which is only warned of.

    Raises
    ------
    InputError
        A length is beyond the model's table of positions.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    too_long = {option: length for option, length in lengths.items() if positions and length > positions}
    if not too_long:
        return
    said = ", ".join(f"{option} {length}" for option, length in too_long.items())
    if positions is None or not _has_position_table(model, int(positions)):
        logger.warning("%s: the model was trained on at most %d tokens, as its config states", said, positions)
        return
    raise InputError(
        f"{said}, but the model {str(model.name_or_path)!r} has {positions} positions",
        allowed=f"{' and '.join(too_long)} up to {positions}",
        remedy="lower them in the config, or choose a model with more positions",
    )


def _has_position_table(model: PreTrainedModel, positions: int) -> bool:
    """Tell whether a model looks its positions up: in an embedding that is not the tokens', or a buffer (GPT-J)."""
    tokens = model.get_input_embeddings()
    rows = [part.num_embeddings for part in model.modules() if isinstance(part, nn.Embedding) and part is not tokens]
    rows += [len(buffer) for name, buffer in model.named_buffers() if name.endswith("embed_positions")]
    return any(positions <= n <= positions + MAX_SPARE_POSITIONS for n in rows)


def load_subject(
    subject: config.Subject,
    folder: str | Path,
    device: str,
    *,
    sae: str | Path | None = None,
    max_length: int | None = None,
    seed: int | None = None,
) -> LoadedSubject:
    """Load a subject whose SAE is already in its folder, or in the folder `sae`; see `load_model` for the others.

    Raises
    ------
    InputError
        The model or the SAE cannot be read, or they do not fit together.
    """
    paths = SubjectFolder(Path(folder))
    language = load_model(subject, paths, device, max_length=max_length, seed=seed)
    dictionary = load_dictionary(paths.sae if sae is None else sae, center=subject.center_writing_weights).to(device)
    dictionary, hook = placed(dictionary, language.model, fold_value_biases=subject.fold_value_biases)
    verify_hook(language.model, hook)
    return LoadedSubject(language, dictionary, hook)


def placed(
    dictionary: Dictionary, model: PreTrainedModel, *, fold_value_biases: bool = False
) -> tuple[Dictionary, HookPoint]:
    """Return a dictionary as it writes in a model, and its hook there.

    Parameters
    ----------
    fold_value_biases : bool
        See `isaerft.subjects.points.find_hook`.

    Raises
    ------
    InputError
        The model does not have the hook, or not of this width.
    """
    hook = find_hook(model, dictionary.hook_name, dictionary.hook_name_out, fold_value_biases=fold_value_biases)
    check_fit(model, hook, dictionary.d_in, dictionary.d_out, dictionary.hook_name)
    if hook.reads != "heads":
        return dictionary, hook
    if dictionary.center:
        raise InputError(
            f"center_writing_weights for an SAE at {dictionary.hook_name!r}, which no centering changes",
            remedy="remove it; set fold_value_biases if the SAE was trained on TransformerLens' processed weights",
        )
    matrix = projection_matrix(model, hook.block).to(dictionary.W_dec.device)
    return replace(dictionary, W_out=matrix), hook


def check_fit(model: PreTrainedModel, hook: HookPoint, d_in: int, d_out: int, hook_name: str) -> None:
    """Raise `InputError` if what a dictionary reads or writes does not have the model's width."""
    d_model = model.config.get_text_config().hidden_size
    d_read = len(projection_matrix(model, hook.block)) if hook.reads == "heads" else d_model
    for does, size, wanted in (
        ("reads", d_in, d_read),
        ("writes", d_out, d_read if hook.reads == "heads" else d_model),
    ):
        if size != wanted:
            raise InputError(
                f"the SAE at {hook_name} {does} {size} dimensions, but the model's activations have {wanted}",
                remedy="choose an SAE that was trained on this model",
            )


def verify_hook(model: PreTrainedModel, hook: HookPoint) -> None:
    """Check that running the model below and above a hook gives the model's own logits.

    If the dictionary writes to the output of attention or MLP, that output is also doubled: adding it once more at the
    injection point (`reaching`) must give the same logits.

    Raises
    ------
    InputError
        The logits differ by more than rounding explains, or are not finite.
    """
    vocabulary = model.config.get_text_config().vocab_size
    tokens = (torch.arange(N_CHECKED_TOKENS, device=model.device)[None] + FIRST_CHECKED_TOKEN) % vocabulary
    mask = torch.ones_like(tokens)
    below = run_below(model, hook, tokens, mask)
    expected = _whole_logits(model, tokens, mask)
    name = f"{type(model).__name__} in {str(expected.dtype).removeprefix('torch.')}"
    if not expected.isfinite().all():
        raise InputError(f"{name} gives logits that are not finite", remedy="set dtype: bfloat16 or float32")
    _compare(
        expected,
        _logits_above(model, hook, below.residual, mask),
        f"{name}: running the layers above the hook does not give the model's own logits",
        "the model changes its logits after the unembedding, or its blocks read more than the residual stream",
    )
    if hook.reads == "residual":
        return
    handle = written_by(model, hook).register_forward_hook(_doubled)
    try:
        expected = _whole_logits(model, tokens, mask)
    finally:
        handle.remove()
    _compare(
        expected,
        _logits_above(model, hook, below.residual + reaching(model, hook, below.written, below.written), mask),
        f"{name}: the output of its {hook.writes} is not what its blocks add to the residual stream",
        "choose an SAE on the residual stream between blocks",
    )


def _whole_logits(model: PreTrainedModel, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=mask, use_cache=False).logits


def _logits_above(model: PreTrainedModel, hook: HookPoint, residual: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return unembed(model, hidden_above(model, hook, residual, mask))


def _doubled(module: nn.Module, args: object, output: Any) -> Any:
    return (2 * output[0], *output[1:]) if isinstance(output, tuple) else 2 * output


def _compare(expected: torch.Tensor, found: torch.Tensor, problem: str, remedy: str) -> None:
    difference = float((expected - found).abs().max())
    allowed = torch.finfo(expected.dtype).eps ** 0.5 * float(expected.abs().max())
    if not difference <= allowed:
        raise InputError(f"{problem} (they differ by {difference:.3g})", allowed=f"{allowed:.3g}", remedy=remedy)
