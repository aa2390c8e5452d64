"""Preference pairs, cached and as a padded table."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from isaerft import config
from isaerft.adapters.base import make_adapter
from isaerft.behaviors import Record, training_splits
from isaerft.subjects.blocks import decoder_blocks
from isaerft.subjects.capture import capture_behavior, tokenize
from isaerft.training.pairs import read_pairs


@pytest.fixture(scope="module")
def preferences(records):
    """Twelve pairs whose replies differ in length; the rejected reply is another record's completion."""
    others = records[1:] + records[:1]
    pairs = zip(records, others, strict=True)
    made = [Record(a.id, a.prompt, chosen=a.reply, rejected=b.reply) for a, b in pairs if a.reply != b.reply]
    return made[:12]


@pytest.fixture(scope="module")
def cache(subject, preferences, tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "cache.safetensors"
    splits = {"train": preferences[:8], "heldout": preferences[8:]}
    splits = training_splits(splits, "toy", {"bias": config.Adapter(objective="dpo")})
    capture_behavior(subject, splits, path, max_length=32, batch_size=3)
    return path


@pytest.fixture(scope="module")
def pairs(subject, cache):
    return read_pairs(subject, cache, "train", 3)


@pytest.fixture(scope="module")
def bias(subject):
    adapter = make_adapter("bias", subject.dictionary.d_sae, {})
    with torch.no_grad():
        adapter.bias.copy_(0.6 * torch.randn(48, generator=torch.Generator().manual_seed(3)))
    return adapter.requires_grad_(False)


@pytest.fixture(scope="module")
def plain(subject, preferences, bias):
    """The same pairs as a padded table, and the logits of whole forward passes with and without the adapter."""
    rows = [replace(record, completion=record.chosen, chosen=None, rejected=None) for record in preferences[:8]]
    rows += [record.with_rejected_reply() for record in preferences[:8]]
    tokenized = [tokenize(record, subject.language, 32) for record in rows]
    length = max(len(tokens) for tokens, _ in tokenized)
    ids = torch.tensor([tokens + [0] * (length - len(tokens)) for tokens, _ in tokenized])
    mask = torch.tensor([[1] * len(tokens) + [0] * (length - len(tokens)) for tokens, _ in tokenized])
    completion = mask.clone()
    for row, (_, n_before) in enumerate(tokenized):
        completion[row, :n_before] = 0
    table = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        base = subject.model(**table, use_cache=False).logits
        with through(subject, bias):
            logits = subject.model(**table, use_cache=False).logits
    labels = ids.masked_fill(completion == 0, -100)
    return SimpleNamespace(
        table=table,
        completion=completion,
        labels=labels,
        logits=logits,
        base=base,
        base_log_probability=log_probabilities(base, labels),
        through=through,
    )


@contextmanager
def through(subject, bias, model=None):
    """Add the bias to the output of the block below the site."""
    block = decoder_blocks(model or subject.model)[1]
    handle = block.register_forward_hook(lambda module, arguments, out: out + bias.bias @ subject.dictionary.W_dec)
    try:
        yield
    finally:
        handle.remove()


def log_probabilities(logits, labels):
    """Return each row's summed log-probability by the plainest reading of the words."""
    found = logits[:, :-1].log_softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    return (found * (labels[:, 1:] != -100)).sum(1)
