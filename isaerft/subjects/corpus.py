"""The reference corpus of a subject: token ids on which facts about the latents are measured.

The corpus is tokenized from a file or a hub data set, or sampled from the model itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from isaerft import config
from isaerft.behaviors.data import Unusable, data_rows
from isaerft.behaviors.readers import field_value
from isaerft.behaviors.records import encodable_text
from isaerft.errors import InputError
from isaerft.io import Row, replacing
from isaerft.outside import loading
from isaerft.progress import Progress
from isaerft.subjects.load import LoadedModel

logger = logging.getLogger(__name__)
ROWS_PER_SAMPLE = 64


@dataclass(frozen=True)
class TokenRows:
    """Rows of token ids, padded on the right.

    Attributes
    ----------
    tokens : (n_rows, length) int64
    mask : (n_rows, length) int64
        1 where there is a token, 0 at padding.
    """

    tokens: torch.Tensor
    mask: torch.Tensor

    def batches(self, n: int, description: str = "") -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (tokens, mask) of at most `n` rows each, cut to the longest row."""
        parts = range(0, len(self.tokens), n)
        for start in Progress(parts, desc=description, unit="batch", shown=bool(description)):
            mask = self.mask[start : start + n]
            length = int(mask.sum(1).max())
            yield self.tokens[start : start + n, :length], mask[:, :length]

    def first(self, n: int) -> TokenRows:
        """Return the first `n` rows."""
        return TokenRows(self.tokens[:n], self.mask[:n])


def pad_rows(rows: Iterable[list[int]], padding: int) -> TokenRows:
    """Pad rows of token ids on the right to a common length."""
    kept = [torch.tensor(row, dtype=torch.int64) for row in rows]
    lengths = torch.tensor([len(row) for row in kept])
    tokens = torch.nn.utils.rnn.pad_sequence(kept, batch_first=True, padding_value=padding)
    return TokenRows(tokens, (torch.arange(tokens.shape[1]) < lengths[:, None]).long())


def make_corpus(corpus: config.Corpus, language: LoadedModel, seed: int) -> TokenRows:
    """Return a subject's reference corpus: sampled from the model, or tokenized from a file or hub data set.

    Raises
    ------
    InputError
        The file cannot be read, lacks the column or has no text; or the model cannot be sampled.
    """
    if corpus.sample:
        return sample_rows(language, n_tokens=corpus.tokens, context_size=corpus.context_size, seed=seed)
    unusable = Unusable(
        "the reference corpus", corpus.max_unusable_share, "check corpus.column, or raise corpus.max_unusable_share"
    )
    texts = corpus_texts(corpus, unusable)
    rows = texts_to_rows(texts, language, n_tokens=corpus.tokens, context_size=corpus.context_size)
    unusable.check()
    if unusable.reasons:
        n = unusable.reasons.total()
        logger.warning("the reference corpus leaves out %d rows of %d: %s", n, unusable.n_rows, dict(unusable.reasons))
    return rows


def corpus_texts(corpus: config.Corpus, unusable: Unusable) -> Iterator[str]:
    """Yield the texts of a local file or hub data set; `unusable` counts rows whose text is missing or not text."""

    def text_of(row: Row) -> str:
        value = field_value(row, corpus.column)
        if value is None:
            raise InputError(f"{row.location}: {corpus.column} is missing")
        return encodable_text(value, corpus.column, row.location)

    rows = data_rows(corpus, lines=corpus.column, streaming=True)
    return (text for _, text in unusable.without(rows, text_of))


def texts_to_rows(texts: Iterable[str], language: LoadedModel, *, n_tokens: int, context_size: int) -> TokenRows:
    """Tokenize texts, one row each, until there are `n_tokens` tokens.

    Parameters
    ----------
    n_tokens : int
        Size of the corpus, BOS included; fewer if the texts end before, with a warning.
    context_size : int
        Rows are cut to this many tokens.

    Raises
    ------
    InputError
        No text has a token.
    """
    rows: list[list[int]] = []
    total = 0
    for text in texts:
        if language.bos:
            text = text.removeprefix(language.tokenizer.bos_token)
        body = language.tokenizer(text, add_special_tokens=False)["input_ids"]
        row = [*language.bos, *body][:context_size]
        if len(row) <= len(language.bos):
            continue
        rows.append(row)
        total += len(row)
        if total >= n_tokens:
            break
    if not rows:
        raise InputError("the reference corpus has no text", remedy="check the subject's corpus in the config")
    if total < n_tokens:
        logger.warning("the reference corpus has %d tokens, fewer than the %d requested", total, n_tokens)
    return pad_rows(rows, language.padding)


def sample_rows(language: LoadedModel, *, n_tokens: int, context_size: int, seed: int) -> TokenRows:
    """Sample a corpus from the model itself, from BOS at temperature 1.

    Rows end with EOS or at `context_size`.

    Raises
    ------
    InputError
        The model has no BOS token.
    """
    tokenizer, model = language.tokenizer, language.model
    if tokenizer.bos_token_id is None:
        raise InputError(
            "a corpus cannot be sampled from a model without BOS", remedy="set corpus.path or corpus.dataset"
        )
    torch.manual_seed(seed)
    rows: list[list[int]] = []
    total = 0
    with Progress(total=n_tokens, desc="sampling the corpus", unit="token") as progress, torch.no_grad():
        while total < n_tokens:
            start = torch.full((ROWS_PER_SAMPLE, 1), tokenizer.bos_token_id, device=model.device)
            mask = torch.ones_like(start)
            batch = model.generate(  # type: ignore[operator]
                start,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                max_length=context_size,
                pad_token_id=language.padding,
            )
            for row in batch.tolist():
                # Skip position 0: BOS may be the same token as EOS, as in GPT-2.
                ends = [i for i, token in enumerate(row) if i and token == tokenizer.eos_token_id]
                kept = row[: ends[0] + 1] if ends else row
                kept = kept if language.prepend_bos else kept[1:]
                rows.append(kept)
                total += len(kept)
                progress.update(len(kept))
    return pad_rows(rows, language.padding)


def write_corpus(rows: TokenRows, path: str | Path) -> None:
    """Write token rows as safetensors, atomically."""
    with replacing(path) as temporary:
        save_file({"tokens": rows.tokens.contiguous(), "mask": rows.mask.contiguous()}, temporary)


def read_corpus(path: str | Path) -> TokenRows:
    """Read a corpus that `write_corpus` wrote.

    Raises
    ------
    InputError
        The file does not exist.
    """
    if not Path(path).is_file():
        raise InputError(f"corpus {str(path)!r} does not exist", remedy="run `isaerft corpus` first")
    with loading(f"corpus {str(path)!r}", path, remedy="run `isaerft corpus` again"):
        tensors = load_file(path)
    return TokenRows(tensors["tokens"], tensors["mask"])
