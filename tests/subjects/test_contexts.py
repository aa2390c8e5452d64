"""Contexts that explainers see, and those held out for scoring."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft.behaviors import Record
from isaerft.subjects.chat import render_prompt
from isaerft.subjects.contexts import (
    N_POOL,
    WIDTH,
    activation_tables,
    amplified_rows,
    amplified_tokens,
    context_table,
    heldout_contexts,
)
from isaerft.subjects.corpus import TokenRows, pad_rows, texts_to_rows
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.facts import latent_facts, measure_firing
from isaerft.subjects.hooks import final_norm, residual_stream

TEXTS = ["say hello to the cat", "the world is round", "tell me about the garden and the dog", "hello"]
N_ROWS, N_WINDOWS = 36, 5


@pytest.fixture(scope="module")
def few_rows(subject, tokenizer):
    return pad_rows([[1, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in TEXTS], 0)


@pytest.fixture(scope="module")
def few_firing(subject, few_rows):
    return measure_firing(subject, few_rows, 3)


def test_a_context_shows_the_token_between_its_neighbors_without_bos_or_padding(
    subject, few_rows, few_firing, tokenizer
):
    table = context_table(subject, few_rows, few_firing)
    inside = table[table.side == "input"]
    assert len(inside) == len(few_firing.top)
    for row in inside.itertuples():
        assert any(f"{row.before}{row.token}{row.after}" in text for text in TEXTS)
    ranks = inside.groupby("latent_index")["rank"].apply(list)
    assert all(values == list(range(len(values))) for values in ranks)


def test_the_contexts_token_by_token_are_the_same_texts_with_the_activation_of_each_token(
    subject, few_rows, few_firing, monkeypatch
):
    monkeypatch.setattr("isaerft.subjects.contexts.CONTEXTS_PER_PART", 7)
    table = context_table(subject, few_rows, few_firing)
    whole = table[table.side == "input"].set_index(["latent_index", "rank"])
    tokens = pd.concat(activation_tables(subject, few_rows, few_firing)).set_index(["latent_index", "rank"])
    assert tokens.index.equals(whole.index)
    for key, row in tokens.iterrows():
        text = f"{whole.before[key]}{whole.token[key]}{whole.after[key]}"
        assert "".join(row.tokens).replace(" ", "") == text.replace(" ", "")
        assert len(row.tokens) == len(row.activations)
        at = int(np.argmax(np.abs(row.activations)))
        assert row.activations[at] == pytest.approx(whole.value[key], rel=1e-6)
        assert row.tokens[at].strip() == whole.token[key].strip()


def test_a_character_of_several_tokens_is_shown_once(subject, few_firing):
    """As a tokenizer of bytes decodes them: half a character by itself has no text."""
    bytes_of = {4: "\u00e9"[0].encode()[:1], 5: "\u00e9".encode()[1:], 6: b"a", 7: b" b"}

    class OfBytes:
        chat_template = None

        def decode(self, ids):
            return b"".join(bytes_of.get(token, b"x") for token in ids).decode("utf-8", "replace")

    tokens = torch.tensor([[4, 5, 6, 7, 4, 5, 4]])
    rows = TokenRows(tokens, torch.ones_like(tokens))
    firing = replace(few_firing, top=few_firing.top.iloc[:1].assign(row=0, position=3), nearby=few_firing.nearby[:1])
    used = replace(subject, language=replace(subject.language, tokenizer=OfBytes(), prepend_bos=False))
    shown = next(activation_tables(used, rows, firing)).tokens[0]
    assert shown == ["", "\u00e9", "a", " b", "", "\u00e9", "\ufffd"]


def test_no_context_marks_or_shows_the_constant_beginning_of_chats(subject, tokenizer, tiny):
    chat = copy.deepcopy(tokenizer)
    chat.chat_template = "{{ bos_token }}[say hello]" + tiny.chat_template.removeprefix("{{ bos_token }}")
    used = replace(subject, language=replace(subject.language, tokenizer=chat))
    texts = [render_prompt(Record("a", f"{n} {TEXTS[n % 4]}"), used.language) for n in range(40)]
    rows = texts_to_rows(texts, used.language, n_tokens=10_000, context_size=64)
    prefix = len(used.language.chat_prefix)
    assert prefix > 3
    firing = measure_firing(used, rows, 8)
    assert firing.n_tokens == int(rows.mask.sum()) - 40 * prefix
    assert firing.top.position.min() >= prefix
    heldout = heldout_contexts(used, rows, firing, n_windows=3, n_amplified=0, batch_size=8, seed=0)
    for table in (context_table(used, rows, firing, 2), heldout):
        inside = table[table.before != ""]
        assert len(inside) > 20
        assert not inside.before.str.contains("[say", regex=False).any()


def promoted(subject, model, rows, firing=None):
    """Return the promoted tokens of a subject with another model: latent -> {token: value}."""
    used = replace(subject, language=replace(subject.language, model=model))
    table = context_table(used, rows, firing or measure_firing(used, rows, 4))
    table = table[table.side == "output"]
    assert (table.before + table.after == "").all()
    return {latent: dict(zip(own.token, own.value, strict=True)) for latent, own in table.groupby("latent_index")}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_promoted_tokens_are_those_of_the_corpus_that_the_direct_path_raises_more_than_other_latents_do(
    subject, model_of, few_rows, tokenizer, architecture
):
    model = copy.deepcopy(model_of(architecture))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in final_norm(model).parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    firing = measure_firing(replace(subject, language=replace(subject.language, model=model)), few_rows, 4)
    found = promoted(subject, model, few_rows, firing)
    alive = np.flatnonzero(firing.count)
    assert list(found) == alive.tolist()
    # At a given size of the residual stream the final norm is linear up to its bias: read it off inputs of one size.
    x = torch.randn(400, subject.dictionary.d_in, generator=generator)
    x -= x.mean(1, keepdim=True) if architecture == "gpt2" else 0
    x *= 100 / x.norm(dim=1, keepdim=True)
    with torch.no_grad():
        linear = torch.linalg.lstsq(x, (final_norm(model)(x) - final_norm(model)(-x)) / 2, driver="gelsd").solution
    text = few_rows.tokens[:, 1:][few_rows.mask[:, 1:].bool()]
    head = model.get_output_embeddings().weight.detach()
    tokens = text.unique()
    direction = (head[tokens] - head[text].mean(0)) @ linear.T
    rows = subject.dictionary.W_dec[torch.from_numpy(alive)]
    cosine = torch.nn.functional.cosine_similarity(rows[:, None], direction, dim=2).numpy()
    for number, latent in enumerate(alive):
        excess = cosine[number] - np.delete(cosine, number, axis=0).mean(0)
        best = np.argsort(-excess)[:8]
        np.testing.assert_allclose(list(found[latent].values()), excess[best], atol=2e-3)
        expected = {tokenizer.decode([tokens[i]]): excess[i] for i in best}
        assert found[latent].keys() == expected.keys()


def test_a_token_that_the_corpus_lacks_is_not_promoted_however_large_its_unembedding(
    subject, model_of, few_rows, tokenizer
):
    model = copy.deepcopy(model_of("llama"))
    head = model.get_output_embeddings().weight
    absent = tokenizer.convert_tokens_to_ids("Z")
    assert absent not in few_rows.tokens
    firing = measure_firing(subject, few_rows, 4)
    before = promoted(subject, model, few_rows, firing)
    with torch.no_grad():
        head[absent] = 1000 * head[absent]
    assert promoted(subject, model, few_rows, firing) == before


def test_a_token_of_large_unembedding_or_one_that_every_latent_promotes_takes_no_more_places_than_others(
    subject, model_of, tokenizer
):
    generator = torch.Generator().manual_seed(0)
    rows = pad_rows(torch.randint(3, 90, (40, 20), generator=generator).tolist(), 0)
    model = copy.deepcopy(model_of("llama"))
    dictionary, head = subject.dictionary, model.get_output_embeddings().weight
    shared = torch.nn.functional.normalize(torch.randn(dictionary.d_in, generator=generator), dim=0)
    skewed = replace(subject, dictionary=replace(dictionary, W_dec=dictionary.W_dec + 2 * shared))
    firing = measure_firing(skewed, rows, 8)
    large, common = tokenizer.convert_tokens_to_ids(["A", "B"])
    with torch.no_grad():
        head[large] *= 20
        head[common] = 5 * head.norm(dim=1).median() * shared
        logits = skewed.dictionary.W_dec @ (final_norm(model).weight[:, None] * head.T)
    in_logits = torch.zeros(len(head)).scatter_add_(0, logits.topk(8).indices.flatten(), torch.ones(8 * len(logits)))
    assert in_logits[common] == len(logits)
    assert in_logits[large] > 0.4 * len(logits)
    lists = promoted(skewed, model, rows, firing).values()
    for token in ("A", "B"):
        assert np.mean([token in tokens for tokens in lists]) < 0.2


def test_no_promoted_token_is_half_a_character(subject, model_of, tokenizer):
    rows = pad_rows([[1, *tokenizer(text)["input_ids"]] for text in ("☃ ☃ snow", "über Ü ☃ 10", "snow day")], 0)
    shown = {token for tokens in promoted(subject, model_of("llama"), rows).values() for token in tokens}
    assert shown
    assert not any("\ufffd" in token for token in shown)


def test_promotion_knows_no_soft_cap_no_bias_of_the_norm_and_no_constant_in_all_unembeddings(
    subject, model_of, few_rows
):
    firing = measure_firing(subject, few_rows, 4)
    for architecture in ("gemma2", "gpt2"):
        model = copy.deepcopy(model_of(architecture))
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone(), requires_grad=False)
        before = promoted(subject, model, few_rows, firing)
        model.config.final_logit_softcapping = None
        with torch.no_grad():
            model.lm_head.weight.add_(torch.randn(model.config.hidden_size))
            if architecture == "gpt2":
                model.transformer.ln_f.bias.add_(torch.randn(model.config.hidden_size))
        after = promoted(subject, model, few_rows, firing)
        for latent, tokens in before.items():
            assert list(after[latent]) == list(tokens)
            np.testing.assert_allclose(list(after[latent].values()), list(tokens.values()), atol=1e-4)


def test_a_final_norm_without_weights_has_promoted_tokens_too(subject, model_of, few_rows):
    plain, weightless = copy.deepcopy(model_of("llama")), copy.deepcopy(model_of("llama"))
    with torch.no_grad():
        plain.model.norm.weight.fill_(1.0)
    weightless.model.norm = torch.nn.RMSNorm(plain.config.hidden_size, elementwise_affine=False)
    firing = measure_firing(subject, few_rows, 4)
    first, second = (promoted(subject, model, few_rows, firing) for model in (plain, weightless))
    assert {latent: list(tokens) for latent, tokens in first.items()} == {k: list(v) for k, v in second.items()}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_amplified_tokens_are_those_that_the_whole_model_makes_likelier(
    subject, model_of, few_rows, tokenizer, architecture, monkeypatch
):
    model = model_of(architecture)
    used = replace(subject, language=replace(subject.language, model=model))
    few_firing = measure_firing(used, few_rows, 4)
    table = context_table(used, few_rows, few_firing, n_amplified=2)
    outside = table[table.side == "amplified"]
    assert set(outside.latent_index) == set(np.flatnonzero(few_firing.count))
    latent = int(outside.latent_index.iloc[-1])
    push, rises = float(few_firing.maximum[latent]) * subject.dictionary.W_dec[latent], []
    layers = model.transformer.h if architecture == "gpt2" else model.model.layers
    # BOS with 4 tokens of the first row, and all of the last, which is shorter than 24.
    for ids in (few_rows.tokens[0, :5], few_rows.tokens[-1][few_rows.mask[-1].bool()]):

        def add(module, args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden[:, 1:] += push

        with torch.no_grad():
            plain = model(input_ids=ids[None]).logits[0, -1].log_softmax(-1)
            handle = layers[1].register_forward_hook(add)
            try:
                pushed = model(input_ids=ids[None]).logits[0, -1].log_softmax(-1)
            finally:
                handle.remove()
        rises.append(pushed - plain)
    rise = torch.stack(rises).mean(0).sort(descending=True)
    own = outside[outside.latent_index == latent]
    np.testing.assert_allclose(own.value, rise.values[:8], rtol=1e-3, atol=1e-4)
    assert own.token.tolist() == [tokenizer.decode([i]) for i in rise.indices[:8].tolist()]
    monkeypatch.setattr("isaerft.subjects.contexts.AMPLIFIED_ROWS_AT_ONCE", 6)
    again = context_table(used, few_rows, few_firing, n_amplified=2)
    pd.testing.assert_frame_equal(again, table, rtol=1e-4)


def test_a_dictionary_that_never_fires_has_no_contexts_and_no_rates(tiny, subject, few_rows, tmp_path):
    weights = tiny.random_sae()
    weights["b_enc"][:] = -1e6
    silent = load_dictionary(tiny.write_sae(tmp_path, weights))
    used = replace(subject, dictionary=silent)
    few_firing = measure_firing(used, TokenRows(few_rows.tokens, few_rows.mask), 2)
    assert not few_firing.count.any()
    assert latent_facts(used, few_firing, cluster_cosine=0.9).mean_activation.isna().all()
    table = context_table(used, few_rows, few_firing, n_amplified=2)
    assert table.empty
    assert list(table) == ["latent_index", "side", "rank", "token", "before", "after", "value"]


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
def held_out(subject, rows, firing):
    return hold_out(subject, rows, firing)


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
def windows(rows, tokenizer):
    """Decoded window -> the (row, first token, last token + 1, middle) that it can be; tokens counted after BOS."""
    found = {}
    for number, (tokens, mask) in enumerate(zip(rows.tokens, rows.mask, strict=True)):
        ids = tokens[mask.bool()].tolist()[1:]
        for center in range(len(ids)):
            start, end = max(0, center - WIDTH), min(len(ids), center + WIDTH + 1)
            found.setdefault(tokenizer.decode(ids[start:end]), []).append((number, start, end, center))
    return found


def hold_out(subject, rows, firing, **changes):
    options = {"n_windows": N_WINDOWS, "n_amplified": 3, "batch_size": 16, "seed": 0} | changes
    return heldout_contexts(subject, rows, firing, **options)


def located(held_out, side, windows):
    """Yield each record of a side with the windows that its window can be."""
    for one in held_out[held_out["side"] == side].itertuples():
        yield one, windows[one.before + one.token + one.after]


def test_heldout_windows_fire_and_come_from_rows_that_explainers_never_see(held_out, firing, dense, windows):
    shown = firing.top.groupby("latent_index")["row"].apply(lambda rows: set(rows.astype(int)))
    seen = 0
    for one, where in located(held_out, "heldout", windows):
        own = [
            (row, center)
            for row, _, _, center in where
            if np.isclose(dense[row][center, one.latent_index], one.value, rtol=1e-3)
        ]
        assert own
        assert all(row not in shown[one.latent_index] for row, _ in own)
        assert one.value > 0
        seen += 1
    assert seen > 100


def test_heldout_windows_reach_from_the_strongest_to_the_weakest_unseen_row(held_out, firing, dense):
    best = np.array([part.max(0) for part in dense])
    checked = 0
    for latent, own in held_out[held_out["side"] == "heldout"].groupby("latent_index"):
        shown = firing.top.loc[firing.top["latent_index"] == latent, "row"].astype(int)
        unseen = np.delete(best[:, latent], shown)
        unseen = unseen[unseen > 0]
        values = own.sort_values("rank")["value"].to_numpy()
        assert (np.diff(values) <= 0).all()
        if 2 <= len(unseen) <= N_POOL:
            np.testing.assert_allclose(values[[0, -1]], [unseen.max(), unseen.min()], rtol=1e-3)
            assert len(values) == min(N_WINDOWS, len(unseen))
            checked += 1
    assert checked > 5


@pytest.mark.parametrize("side", ["heldout", "silent"])
def test_windows_also_come_token_by_token_with_the_activation_of_each(held_out, dense, windows, side):
    seen = 0
    for one, where in located(held_out, side, windows):
        assert "".join(one.tokens).split() == (one.before + one.token + one.after).split()
        assert len(one.tokens) == len(one.activations)
        assert any(
            np.allclose(dense[row][start:end, one.latent_index], one.activations, rtol=1e-3, atol=1e-4)
            for row, start, end, _ in where
        )
        assert max(one.activations) == pytest.approx(one.value, rel=1e-3)
        seen += 1
    assert seen > 100
    assert held_out.loc[held_out["side"] == "amplified_heldout", ["tokens", "activations"]].isna().all(axis=None)


def test_unmarked_tokens_are_inactive_tokens_of_the_same_window(held_out, dense, windows):
    heldout = held_out[held_out["side"] == "heldout"].set_index(["latent_index", "rank"])
    seen = 0
    for one, where in located(held_out, "unmarked", windows):
        twin = heldout.loc[one.latent_index, one.rank]
        assert one.before + one.token + one.after == twin.before + twin.token + twin.after
        assert one.before != twin.before
        (row, start, end, _), *_ = where
        at = [p for p in range(start, end) if dense[row][p, one.latent_index] == 0]
        assert at
        seen += 1
    assert seen > 100


def test_the_marked_token_itself_is_inactive(held_out, rows, dense, tokenizer, windows):
    for one, where in located(held_out, "unmarked", windows):
        row, start, end, _ = where[0]
        ids = rows.tokens[row, 1:].tolist()
        marked = [p for p in range(start, end) if tokenizer.decode(ids[start:p]) == one.before]
        assert [dense[row][p, one.latent_index] for p in marked] == [0.0]


def test_silent_windows_hold_no_token_on_which_the_latent_fires(held_out, dense, windows):
    seen = 0
    for one, where in located(held_out, "silent", windows):
        assert all((dense[row][start:end, one.latent_index] == 0).all() for row, start, end, _ in where)
        assert one.value == 0
        seen += 1
    assert seen > 100


def test_silent_windows_come_from_rows_that_are_shown_nowhere_else(held_out, firing, windows):
    shown = firing.top.groupby("latent_index")["row"].apply(lambda rows: set(rows.astype(int)))
    heldout = {}
    for one, where in located(held_out, "heldout", windows):
        heldout.setdefault(one.latent_index, set()).update(row for row, *_ in where)
    for one, where in located(held_out, "silent", windows):
        assert where[0][0] not in shown[one.latent_index] | heldout.get(one.latent_index, set())


def test_words_that_an_explainer_saw_are_not_shown_again_from_another_row(subject, rows):
    twice = TokenRows(torch.cat([rows.tokens, rows.tokens]), torch.cat([rows.mask, rows.mask]))
    firing = measure_firing(subject, twice, 16)
    held_out = hold_out(subject, twice, firing)
    said = context_table(subject, twice, firing)
    for latent, own in held_out[held_out["side"] == "heldout"].groupby("latent_index"):
        texts = (own["before"] + own["token"] + own["after"]).tolist()
        assert len(set(texts)) == len(texts)
        inside = said[(said["latent_index"] == latent) & (said["side"] == "input")]
        assert not set(texts) & set(inside["before"] + inside["token"] + inside["after"])


def test_the_amplified_tokens_are_those_of_rows_that_the_explainers_side_leaves_out(subject, rows, firing, held_out):
    used = amplified_rows(N_ROWS, 3)
    assert len(used) == 3
    rest = np.setdiff1d(np.arange(N_ROWS), used)
    again = amplified_tokens(subject, TokenRows(rows.tokens[rest], rows.mask[rest]), firing, 3)
    own = held_out[held_out["side"] == "amplified_heldout"]
    assert own["token"].tolist() == again["token"].tolist()
    told = amplified_tokens(subject, rows, firing, 3)
    assert told["value"].tolist() != again["value"].tolist()
    assert "amplified_heldout" not in set(hold_out(subject, rows, firing, n_amplified=0)["side"])


def test_what_explainers_read_holds_none_of_it(subject, rows, firing):
    assert set(context_table(subject, rows, firing, 3)["side"]) == {"input", "output", "amplified"}


def test_the_same_seed_gives_the_same_evidence(subject, rows, firing, held_out):
    pd.testing.assert_frame_equal(hold_out(subject, rows, firing), held_out)
    other = hold_out(subject, rows, firing, seed=1)
    assert not other["before"].equals(held_out["before"])


def test_a_corpus_without_unseen_rows_gives_nothing_to_score_windows_on(subject, rows):
    few = rows.first(4)
    firing = measure_firing(subject, few, 4)
    assert set(hold_out(subject, few, firing, n_amplified=0)["side"]) == set()
