from dataclasses import replace

import numpy as np
import pytest
import torch

from isaerft.subjects.facts import Firing
from isaerft.subjects.hooks import final_norm
from isaerft.subjects.logits import N_TOKENS, logit_table


def fired(d_sae, silent=()):
    count = np.ones(d_sae)
    count[list(silent)] = 0
    return Firing(10, count, count, count, top=None, nearby=None)


def expected(subject, latent, gain):
    unembedding = subject.model.get_output_embeddings().weight.float() * gain
    logits = subject.dictionary.decoder[latent] @ unembedding.T
    ids = logits.topk(N_TOKENS).indices.tolist()
    return [subject.language.tokenizer.convert_ids_to_tokens(one) for one in ids]


def test_the_lists_are_those_of_the_whole_vocabulary_with_and_without_the_final_gain(subject, monkeypatch):
    monkeypatch.setattr("isaerft.subjects.logits.TOKENS_PER_BLOCK", 37)
    gain = torch.linspace(0.2, 3, subject.dictionary.d_in)
    old = final_norm(subject.model).weight.data.clone()
    final_norm(subject.model).weight.data = gain
    try:
        table = logit_table(subject, fired(subject.dictionary.d_sae, silent=[0]), seed=0)
    finally:
        final_norm(subject.model).weight.data = old
    assert set(table["latent_index"]) == set(range(1, subject.dictionary.d_sae))
    for (latent, kind), rows in table.groupby(["latent_index", "unembedding"]):
        assert rows["token"].tolist() == expected(subject, latent, gain if kind == "folded" else 1)
        assert rows["rank"].tolist() == list(range(N_TOKENS))
    plain, folded = (table[table["unembedding"] == kind]["token"].tolist() for kind in ("plain", "folded"))
    assert plain != folded


def test_an_sae_on_attention_heads_promotes_tokens_through_their_output_projection(subject):
    projection = torch.randn(24, subject.dictionary.d_in, generator=torch.Generator().manual_seed(0))
    heads = replace(subject.dictionary, W_dec=subject.dictionary.W_dec[:, :24], W_out=projection)
    on_heads = replace(subject, dictionary=heads)
    table = logit_table(on_heads, fired(heads.d_sae), seed=0)
    for latent, rows in table[table["unembedding"] == "plain"].groupby("latent_index"):
        assert rows["token"].tolist() == expected(on_heads, latent, 1)


def test_latents_are_a_sample_drawn_by_seed_in_random_order(subject, monkeypatch):
    monkeypatch.setattr("isaerft.subjects.logits.N_LATENTS", 10)
    firing = fired(subject.dictionary.d_sae)
    order = {seed: list(dict.fromkeys(logit_table(subject, firing, seed=seed)["latent_index"])) for seed in (0, 1)}
    assert all(len(latents) == 10 and latents != sorted(latents) for latents in order.values())
    assert order[0] != order[1]
    assert order[0] == list(dict.fromkeys(logit_table(subject, firing, seed=0)["latent_index"]))


@pytest.mark.parametrize("silent", [range(48)])
def test_without_a_latent_that_fires_the_table_is_empty(subject, silent):
    table = logit_table(subject, fired(subject.dictionary.d_sae, silent), seed=0)
    assert list(table.columns) == ["latent_index", "unembedding", "rank", "token", "text"]
    assert table.empty
