"""What explanations are scored on: unseen by explainers, and as it claims to be, token by token."""

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft.subjects.contexts import POOL, WIDTH, amplified_tokens, context_table, rows_amplified_on, scored_contexts
from isaerft.subjects.corpus import TokenRows, pad_rows
from isaerft.subjects.facts import measure_firing
from isaerft.subjects.hooks import residual_stream

N_ROWS, N_WINDOWS = 36, 5


@pytest.fixture(scope="module")
def rows(tokenizer):
    """Rows of plain letters and merged words, 1 to 30 tokens after BOS; no two windows alike."""
    plain = [i for i in range(3, len(tokenizer)) if tokenizer.decode([i]).strip().isalpha()]
    rng = np.random.default_rng(0)
    return pad_rows([[1, *rng.choice(plain, 1 + n % 30).tolist()] for n in range(N_ROWS)], 0)


@pytest.fixture(scope="module")
def firing(subject, rows):
    return measure_firing(subject, rows, 16)


@pytest.fixture(scope="module")
def scored(subject, rows, firing):
    return evidence(subject, rows, firing)


@pytest.fixture(scope="module")
def dense(subject, rows):
    """Activations of every row's tokens but BOS, by hand: list of (n_tokens, d_sae)."""
    parts = []
    for tokens, mask in zip(rows.tokens, rows.mask, strict=True):
        one = tokens[mask.bool()][None]
        residual = residual_stream(subject.model, subject.hook, one, torch.ones_like(one))[0, 1:]
        parts.append(subject.dictionary.encode_dense(residual).numpy())
    return parts


@pytest.fixture(scope="module")
def places(rows, tokenizer):
    """Decoded window -> the (row, first token, last token + 1, middle) that it can be; tokens counted after BOS."""
    found = {}
    for number, (tokens, mask) in enumerate(zip(rows.tokens, rows.mask, strict=True)):
        ids = tokens[mask.bool()].tolist()[1:]
        for centre in range(len(ids)):
            start, end = max(0, centre - WIDTH), min(len(ids), centre + WIDTH + 1)
            found.setdefault(tokenizer.decode(ids[start:end]), []).append((number, start, end, centre))
    return found


def evidence(subject, rows, firing, **changes):
    options = {"n_windows": N_WINDOWS, "n_amplified": 3, "batch_size": 16, "seed": 0} | changes
    return scored_contexts(subject, rows, firing, **options)


def located(scored, side, places):
    """Yield each record of a side with the places that its window can be."""
    for one in scored[scored["side"] == side].itertuples():
        yield one, places[one.before + one.token + one.after]


def test_heldout_windows_fire_and_come_from_rows_that_explainers_never_see(scored, firing, dense, places):
    shown = firing.top.groupby("latent_index")["row"].apply(lambda rows: set(rows.astype(int)))
    seen = 0
    for one, where in located(scored, "heldout", places):
        own = [
            (row, centre)
            for row, _, _, centre in where
            if np.isclose(dense[row][centre, one.latent_index], one.value, rtol=1e-3)
        ]
        assert own
        assert all(row not in shown[one.latent_index] for row, _ in own)
        assert one.value > 0
        seen += 1
    assert seen > 100


def test_heldout_windows_reach_from_the_strongest_to_the_weakest_unseen_row(scored, firing, dense):
    best = np.array([part.max(0) for part in dense])
    checked = 0
    for latent, own in scored[scored["side"] == "heldout"].groupby("latent_index"):
        shown = firing.top.loc[firing.top["latent_index"] == latent, "row"].astype(int)
        unseen = np.delete(best[:, latent], shown)
        unseen = unseen[unseen > 0]
        values = own.sort_values("rank")["value"].to_numpy()
        assert (np.diff(values) <= 0).all()
        if 2 <= len(unseen) <= POOL:
            np.testing.assert_allclose(values[[0, -1]], [unseen.max(), unseen.min()], rtol=1e-3)
            assert len(values) == min(N_WINDOWS, len(unseen))
            checked += 1
    assert checked > 5


def test_unmarked_tokens_are_inactive_tokens_of_the_same_window(scored, dense, places):
    heldout = scored[scored["side"] == "heldout"].set_index(["latent_index", "rank"])
    seen = 0
    for one, where in located(scored, "unmarked", places):
        twin = heldout.loc[one.latent_index, one.rank]
        assert one.before + one.token + one.after == twin.before + twin.token + twin.after
        assert one.before != twin.before
        (row, start, end, _), *_ = where
        at = [p for p in range(start, end) if dense[row][p, one.latent_index] == 0]
        assert at
        seen += 1
    assert seen > 100


def test_the_marked_token_itself_is_inactive(scored, rows, dense, tokenizer, places):
    for one, where in located(scored, "unmarked", places):
        row, start, end, _ = where[0]
        ids = rows.tokens[row, 1:].tolist()
        marked = [p for p in range(start, end) if tokenizer.decode(ids[start:p]) == one.before]
        assert [dense[row][p, one.latent_index] for p in marked] == [0.0]


def test_silent_windows_hold_no_token_on_which_the_latent_fires(scored, dense, places):
    seen = 0
    for one, where in located(scored, "silent", places):
        assert all((dense[row][start:end, one.latent_index] == 0).all() for row, start, end, _ in where)
        assert one.value == 0
        seen += 1
    assert seen > 100


def test_silent_windows_come_from_rows_that_are_shown_nowhere_else(scored, firing, places):
    shown = firing.top.groupby("latent_index")["row"].apply(lambda rows: set(rows.astype(int)))
    heldout = {}
    for one, where in located(scored, "heldout", places):
        heldout.setdefault(one.latent_index, set()).update(row for row, *_ in where)
    for one, where in located(scored, "silent", places):
        assert where[0][0] not in shown[one.latent_index] | heldout.get(one.latent_index, set())


def test_words_that_an_explainer_saw_are_not_shown_again_from_another_row(subject, rows):
    twice = TokenRows(torch.cat([rows.tokens, rows.tokens]), torch.cat([rows.mask, rows.mask]))
    firing = measure_firing(subject, twice, 16)
    scored = evidence(subject, twice, firing)
    said = context_table(subject, twice, firing)
    for latent, own in scored[scored["side"] == "heldout"].groupby("latent_index"):
        texts = (own["before"] + own["token"] + own["after"]).tolist()
        assert len(set(texts)) == len(texts)
        inside = said[(said["latent_index"] == latent) & (said["side"] == "input")]
        assert not set(texts) & set(inside["before"] + inside["token"] + inside["after"])


def test_the_amplified_tokens_are_those_of_rows_that_the_explainers_side_leaves_out(subject, rows, firing, scored):
    used = rows_amplified_on(N_ROWS, 3)
    assert len(used) == 3
    rest = np.setdiff1d(np.arange(N_ROWS), used)
    again = amplified_tokens(subject, TokenRows(rows.tokens[rest], rows.mask[rest]), firing, 3)
    own = scored[scored["side"] == "amplified_heldout"]
    assert own["token"].tolist() == again["token"].tolist()
    told = amplified_tokens(subject, rows, firing, 3)
    assert told["value"].tolist() != again["value"].tolist()
    assert "amplified_heldout" not in set(evidence(subject, rows, firing, n_amplified=0)["side"])


def test_what_explainers_read_holds_none_of_it(subject, rows, firing):
    assert set(context_table(subject, rows, firing, 3)["side"]) == {"input", "output", "amplified"}


def test_the_same_seed_gives_the_same_evidence(subject, rows, firing, scored):
    pd.testing.assert_frame_equal(evidence(subject, rows, firing), scored)
    other = evidence(subject, rows, firing, seed=1)
    assert not other["before"].equals(scored["before"])


def test_a_corpus_without_unseen_rows_gives_nothing_to_score_windows_on(subject, rows):
    few = rows.first(4)
    firing = measure_firing(subject, few, 4)
    assert set(evidence(subject, few, firing, n_amplified=0)["side"]) == set()
