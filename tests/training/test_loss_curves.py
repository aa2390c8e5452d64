"""Curves of loss against directions, where it is known how many directions there are, and whose."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from isaerft.config import plan_from_dict
from isaerft.errors import InputError
from isaerft.subjects.cache import CachedRows, completion_losses, write_cache
from isaerft.subjects.hooks import hidden_above, residual_stream, unembed
from isaerft.training.bases import basis_of, candidates, gradients
from isaerft.training.loss_curves import Curves, write_loss_curves

PROMPT, COMPLETION = 4, 12
K, RANK = 3, 2


def plan_with(**options):
    """A study that takes curves."""
    values = {
        "study": "curves",
        "subjects": {"toy": {"model": "a/b", "hook_name": "blocks.1.x", "train_sae": {}, "corpus": {"sample": True}}},
        "behaviors": {"planted": {"description": "Planted.", "rule": True}},
        "adapters": {"bias": {}},
        "sources": {"local": {}},
        "judges": {"lexical": {}},
        "controls": [],
        "primary": {"adapter": "bias", "measure": "contribution", "source": "local", "judge": "lexical"},
        "batch_size": 100,
        "loss_curves": options,
    }
    return plan_from_dict(values)


def written_by(subject, change, n_rows, seed):
    """Rows of random prompts and completions that the model writes while `change` is added to its residual stream."""
    generator = torch.Generator().manual_seed(seed)
    n_vocabulary, dictionary = subject.language.n_vocabulary, subject.dictionary
    tokens = torch.randint(3, n_vocabulary, (n_rows, PROMPT), generator=generator)

    def stream(tokens):
        residual = residual_stream(subject.model, subject.hook, tokens, torch.ones_like(tokens))
        return residual, residual.flatten(0, 1)

    with torch.no_grad():
        for _ in range(COMPLETION):
            residual, flat = stream(tokens)
            moved = residual + change(flat, dictionary.encode_dense(flat)).view_as(residual)
            hidden = hidden_above(subject.model, subject.hook, moved, torch.ones_like(tokens))
            chosen = torch.multinomial(unembed(subject.model, hidden[:, -1]).softmax(-1), 1, generator=generator)
            tokens = torch.cat([tokens, chosen], 1)
        _, flat = stream(tokens)
    length = PROMPT + COMPLETION
    position = torch.arange(length).repeat(n_rows)
    return CachedRows(
        residual=flat,
        codes=dictionary.encode(flat),
        tokens=tokens.flatten(),
        predicts=(position >= PROMPT - 1) & (position < length - 1),
        starts=torch.arange(0, n_rows * length + 1, length),
    )


@pytest.fixture(scope="module")
def open_text(subject):
    """The toy subject, as a model whose rows have no BOS."""
    return replace(subject, language=replace(subject.language, prepend_bos=False))


@pytest.fixture(scope="module")
def planted(open_text):
    """Numbers of a map between few latents, and of a map of low rank, that move the stream about as far."""
    generator = torch.Generator().manual_seed(3)
    probe = written_by(open_text, lambda x, f: torch.zeros_like(x), 100, 9)
    fired = torch.bincount(probe.codes.indices, minlength=probe.codes.d_sae)
    reads, writes = fired.topk(K).indices, fired.topk(2 * K).indices[K:]
    sizes = probe.codes.dense()[:, reads].square().mean(0).sqrt()
    spread = probe.residual.std() * probe.residual.shape[1] ** 0.5
    norms = open_text.dictionary.W_dec[writes].norm(dim=1)
    # Each latent read drives one latent written, so no fewer than K of either will do.
    sparse = torch.eye(K) * spread / sizes[:, None] / norms
    d = probe.residual.shape[1]
    low = torch.randn(d, RANK, generator=generator) @ torch.randn(RANK, d, generator=generator)
    low *= spread * 1.5 / (probe.residual @ low).norm(dim=1).mean()
    return reads, writes, sparse, low


@pytest.fixture(scope="module")
def curves(open_text, planted):
    """Curves of (a map between K latents, a dense map of rank RANK)."""
    reads, writes, sparse, low = planted
    dictionary = open_text.dictionary
    few = {"families": ["latents", "principal"], "ks": [K - 1, K, 2 * K]}
    ranks = {"families": ["latents", "principal", "rank_residual"], "ks": [RANK - 1, RANK]}
    found = []
    for change, options in (
        (lambda x, f: f[:, reads] @ sparse @ dictionary.W_dec[writes], few),
        (lambda x, f: x @ low, ranks),
    ):
        rows = written_by(open_text, change, 400, 1), written_by(open_text, change, 150, 2)
        plan = plan_with(**options, n_seeds=1, learning_rates=[0.5], steps=60)
        found.append(list(Curves(plan, open_text, "planted", *rows).rows()))
    return found


def recovered(rows):
    """(family, k) -> the share of the full map's fall in loss."""
    losses = {(row["family"], row["k"]): row["heldout_loss"] for row in rows}
    base, full = rows[0]["heldout_loss_base"], losses["rank_residual", 32]
    return {point: (base - loss) / (base - full) for point, loss in losses.items()}


@pytest.mark.slow
def test_the_curve_of_latents_bends_where_the_planted_map_has_that_many(curves, planted):
    share = recovered(curves[0])
    assert share["latents", K] > 0.85
    assert share["latents", K - 1] < share["latents", K] - 0.1
    assert share["latents", 2 * K] - share["latents", K] < 0.1
    assert share["principal", K] < share["latents", K] - 0.2
    (found,) = (row for row in curves[0] if (row["family"], row["k"]) == ("latents", K))
    reads, writes = (set(part.tolist()) for part in planted[:2])
    assert (set(found["reads"]), set(found["writes"])) == (reads, writes)


@pytest.mark.slow
def test_the_curve_of_ranks_bends_at_the_rank_of_a_dense_planted_map(curves):
    share = recovered(curves[1])
    assert share["rank_residual", RANK] > 0.85
    assert share["rank_residual", RANK - 1] < share["rank_residual", RANK] - 0.1
    assert share["latents", RANK] < share["rank_residual", RANK] - 0.2
    assert share["principal", RANK] < share["rank_residual", RANK] - 0.2


def test_every_basis_reads_with_one_size_and_writes_with_another(open_text, cached):
    for family in ("latents", "random_latents", "principal", "random"):
        basis = basis_of(family, open_text, cached[0], 0, 5)
        read = torch.cat([basis.signals(batch)[batch.predicts] for batch in cached[0].batches(5)])
        live = basis.scale > 0
        torch.testing.assert_close(read[:, live].square().mean(0), torch.ones(int(live.sum())))
        assert not read[:, ~live].any()
        torch.testing.assert_close(basis.directions.norm(dim=1), torch.ones(len(basis.directions)))
        if family == "principal":
            covariance = read.T @ read / len(read)
            torch.testing.assert_close(covariance, torch.eye(len(live)), atol=1e-3, rtol=0)


def test_random_bases_differ_by_seed_and_an_untrained_dictionary_fires_about_as_often(open_text, cached):
    for family in ("random", "random_latents"):
        one, other = (basis_of(family, open_text, cached[0], seed, 5).directions for seed in (0, 1))
        assert not torch.allclose(one, other)
    batch = cached[0].batch(torch.arange(12))
    rates = [
        (basis_of(family, open_text, cached[0], 0, 5).signals(batch)[batch.predicts] > 0).float().mean()
        for family in ("latents", "random_latents")
    ]
    assert float(rates[1]) == pytest.approx(float(rates[0]), abs=0.1)


def test_candidates_are_where_the_first_gradient_of_the_map_is_largest(open_text, cached):
    rows = cached[0]
    basis = basis_of("latents", open_text, rows, 0, 5)
    gradient = gradients(open_text, rows, 5)
    numbers = torch.zeros(len(basis.scale), len(basis.scale), requires_grad=True)
    batch = rows.batch(torch.arange(len(rows)))
    moved = batch.residual + basis.signals(batch) @ numbers @ basis.directions
    (expected,) = torch.autograd.grad(completion_losses(open_text, batch, moved).sum(), numbers)
    reads, writes = candidates(open_text, basis, rows, gradient, 5, 6)
    assert reads.tolist() == sorted(expected.norm(dim=1).topk(6).indices.tolist())
    assert writes.tolist() == sorted(expected.norm(dim=0).topk(6).indices.tolist())


def test_a_point_counts_what_it_trains_and_names_what_it_chose(open_text, cached):
    plan = plan_with(ks=[2], n_seeds=2, learning_rates=[0.3], steps=4, batch_size=6, n_candidates=8)
    rows = list(Curves(plan, open_text, "planted", *cached).rows())
    assert len(rows) == 2 * (6 + 2)
    by_point = {(row["family"], row["k"]): row for row in rows}
    n_live = int((basis_of("latents", open_text, cached[0], 0, 5).scale > 0).sum())
    assert by_point["principal", 2]["n_parameters"] == by_point["latents", 2]["n_parameters"] == 4
    assert by_point["rank_residual", 2]["n_parameters"] == 2 * (32 + 32)
    assert by_point["rank_latents", 2]["n_parameters"] <= 2 * (n_live + 32)
    for row in rows:
        most = 0 if row["family"].startswith("rank") else 2
        assert len(row["reads"]) <= most
        assert len(row["writes"]) <= most
    again = list(Curves(plan, open_text, "planted", *cached).rows())
    assert again == rows, "the same seed gives the same numbers"


def test_validation_rows_are_neither_trained_on_nor_held_out(open_text, cached):
    def texts(rows):
        return sorted(rows.batch(torch.tensor([row])).tokens.tolist() for row in range(len(rows)))

    curves = Curves(plan_with(validation_fraction=0.25), open_text, "planted", *cached)
    assert (len(curves.train), len(curves.validation)) == (9, 3)
    assert sorted(texts(curves.train) + texts(curves.validation)) == texts(cached[0])
    assert texts(curves.heldout) == texts(cached[1])


def test_an_sae_elsewhere_than_on_the_residual_stream_is_refused(subject, tmp_path):
    elsewhere = replace(subject, hook=replace(subject.hook, reads="heads"))
    with pytest.raises(InputError, match="allowed: SAEs on the residual stream"):
        write_loss_curves(plan_with(), elsewhere, "planted", tmp_path / "cache", tmp_path / "out")


def test_curves_are_written_as_a_table(open_text, cached, tmp_path):
    write_cache({"train": cached[0], "heldout": cached[1]}, tmp_path / "cache")
    plan = plan_with(ks=[1], families=["latents"], n_seeds=1, learning_rates=[0.3], steps=2, batch_size=6)
    write_loss_curves(plan, open_text, "planted", tmp_path / "cache", tmp_path / "out.parquet")
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert list(zip(table.family, table.k, strict=True)) == [("latents", 1), ("rank_residual", 32)]
    assert (table.heldout_loss_base == table.heldout_loss_base[0]).all()
