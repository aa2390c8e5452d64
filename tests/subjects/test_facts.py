from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft.subjects.corpus import pad_rows
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.facts import WIDTH, latent_facts, measure_firing, nearest_latents
from isaerft.subjects.hooks import residual_stream
from isaerft.subjects.points import find_hook

TEXTS = ["say hello to the cat", "the world is round", "tell me about the garden and the dog", "hello"]


@pytest.fixture(scope="module")
def rows(subject, tokenizer):
    return pad_rows([[1, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in TEXTS], 0)


@pytest.fixture(scope="module")
def by_hand(subject, rows):
    """Activations of every token but BOS, one row of the corpus at a time: list of (n_tokens, d_sae)."""
    parts = []
    for tokens, mask in zip(rows.tokens, rows.mask, strict=True):
        one = tokens[mask.bool()][None]
        residual = residual_stream(subject.model, subject.hook, one, torch.ones_like(one))[0, 1:]
        parts.append(subject.dictionary.encode_dense(residual).numpy())
    return parts


@pytest.fixture(scope="module")
def firing(subject, rows):
    return measure_firing(subject, rows, 3)


def test_firing_is_counted_over_all_tokens_but_bos(subject, firing, by_hand):
    every = np.concatenate(by_hand)
    assert firing.n_tokens == len(every)
    np.testing.assert_array_equal(firing.count, (every > 0).sum(0))
    np.testing.assert_allclose(firing.total, every.sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(firing.maximum, every.max(0), rtol=1e-4)
    assert 0 < (firing.count > 0).mean() < 1


def test_the_facts_are_the_shares_means_and_maxima_by_hand(subject, firing, by_hand):
    every = np.concatenate(by_hand)
    facts = latent_facts(subject, firing, cluster_cosine=0.9)
    assert facts.latent_index.tolist() == list(range(48))
    np.testing.assert_allclose(facts.firing_rate, (every > 0).mean(0))
    fires = (every > 0).any(0)
    assert facts.mean_activation.notna().tolist() == fires.tolist()
    mean = every.sum(0)[fires] / (every > 0).sum(0)[fires]
    np.testing.assert_allclose(facts.mean_activation[fires], mean, rtol=1e-4)
    np.testing.assert_allclose(facts.decoder_norm, subject.dictionary.W_dec.norm(dim=1), rtol=1e-6)


def test_neighbors_and_clusters_are_those_of_the_decoder(subject, firing):
    twins = subject.dictionary.W_dec.clone()
    twins[7] = 3 * twins[2]
    used = replace(subject, dictionary=replace(subject.dictionary, W_dec=twins))
    facts = latent_facts(used, firing, cluster_cosine=0.9)
    near = nearest_latents(used.dictionary)
    assert near.latents[[7, 2], 0].tolist() == [2, 7]
    assert near.cosines[7, 0] == pytest.approx(1, abs=1e-6)
    assert facts.cluster[7] == facts.cluster[2]
    assert facts.cluster.nunique() == 47
    directions = (twins / twins.norm(dim=1, keepdim=True)).numpy()
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -2)
    np.testing.assert_allclose(facts.density, np.sort(cosines, 1)[:, -10:].mean(1), rtol=1e-4, atol=1e-6)
    own = (subject.dictionary.W_enc.T * twins).sum(1) / (subject.dictionary.W_enc.norm(dim=0) * twins.norm(dim=1))
    np.testing.assert_allclose(facts.encoder_decoder_cosine, own, rtol=1e-4, atol=1e-6)


def test_neighbors_do_not_depend_on_the_block_size(subject, firing, monkeypatch):
    whole = latent_facts(subject, firing, cluster_cosine=0.9)
    monkeypatch.setattr("isaerft.subjects.facts.BLOCK", 7)
    pd.testing.assert_frame_equal(latent_facts(subject, firing, cluster_cosine=0.9), whole, rtol=1e-5)


def test_the_top_contexts_are_each_rows_strongest_token(firing, by_hand):
    best = np.array([part.max(0) for part in by_hand])
    for latent in np.flatnonzero(firing.count):
        own = firing.top[firing.top.latent_index == latent]
        strongest = sorted(best[:, latent][best[:, latent] > 0], reverse=True)
        np.testing.assert_allclose(own.value, strongest, rtol=1e-4, atol=1e-5)
        for row, position, value in own[["row", "position", "value"]].itertuples(index=False):
            assert by_hand[int(row)][int(position) - 1, latent] == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_latents_of_two_signs_fire_with_either_and_are_told_by_their_size(tiny, subject, rows, tmp_path):
    folder = tiny.write_sae(tmp_path, tiny.random_sae(), architecture="abstopk", k=6)
    signed = replace(subject, dictionary=load_dictionary(folder))
    every = []
    for tokens, mask in zip(rows.tokens, rows.mask, strict=True):
        one = tokens[mask.bool()][None]
        residual = residual_stream(subject.model, subject.hook, one, torch.ones_like(one))[0, 1:]
        every.append(signed.dictionary.encode_dense(residual).double().numpy())
    dense = np.concatenate(every)
    firing = measure_firing(signed, rows, 3)
    np.testing.assert_array_equal(firing.count, (dense != 0).sum(0))
    largest = dense[np.abs(dense).argmax(0), np.arange(dense.shape[1])]
    assert (largest < 0).any()
    np.testing.assert_allclose(firing.maximum, largest, rtol=1e-4)
    first = firing.top.groupby("latent_index").first()
    np.testing.assert_allclose(first["value"], largest[first.index.astype(int)], rtol=1e-4)


@pytest.mark.parametrize("hook", ["blocks.1.hook_mlp_out", "blocks.1.hook_attn_out"])
def test_firing_inside_a_block_is_that_of_the_hooks_activation(tiny, subject, rows, tmp_path, hook):
    folder = tiny.write_sae(tmp_path, tiny.random_sae(), hook_name=hook)
    inside = replace(subject, dictionary=load_dictionary(folder), hook=find_hook(subject.model, hook))
    block, caught = subject.model.model.layers[1], []
    part = block.mlp if "mlp" in hook else block.self_attn
    handle = part.register_forward_hook(
        lambda _, args, output: caught.append(output[0] if isinstance(output, tuple) else output)
    )
    try:
        with torch.no_grad():
            subject.model(input_ids=rows.tokens, attention_mask=rows.mask)
    finally:
        handle.remove()
    wanted = rows.mask.bool().clone()
    wanted[:, 0] = False
    dense = inside.dictionary.encode_dense(caught[0][wanted])
    firing = measure_firing(inside, rows, 4)
    np.testing.assert_array_equal(firing.count, (dense > 0).sum(0))
    np.testing.assert_allclose(firing.maximum, dense.max(0).values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_the_activations_around_each_top_token_are_those_of_its_row(subject, rows, by_hand, batch_size):
    """In batches of one row, most top tokens come from batches before the last."""
    found = measure_firing(subject, rows, batch_size)
    assert found.nearby.shape == (len(found.top), 2 * WIDTH + 1)
    for (latent, _, row, position), nearby in zip(found.top.itertuples(index=False), found.nearby, strict=True):
        own = np.zeros(len(by_hand[int(row)]) + 1 + 2 * WIDTH)  # BOS has no activation
        own[WIDTH + 1 :][: len(by_hand[int(row)])] = by_hand[int(row)][:, int(latent)]
        np.testing.assert_allclose(nearby, own[int(position) :][: 2 * WIDTH + 1], rtol=1e-4, atol=1e-5)


def test_the_neighbors_of_a_latent_come_in_the_order_of_their_cosines(subject, firing):
    table = nearest_latents(subject.dictionary).table()
    directions = torch.nn.functional.normalize(subject.dictionary.W_dec, dim=1)
    cosines = (directions @ directions.T).numpy()
    for latent, own in table.groupby("latent_index"):
        others = np.delete(np.arange(48), latent)
        expected = others[np.argsort(-cosines[latent, others], kind="stable")][:10]
        assert own["rank"].tolist() == list(range(10))
        assert own.neighbor.tolist() == expected.tolist()
        np.testing.assert_allclose(own.cosine, cosines[latent, expected], rtol=1e-4, atol=1e-6)
