import copy
import json

import pytest
import torch

from isaerft import config
from isaerft.errors import InputError
from isaerft.subjects.corpus import make_corpus, pad_rows, read_corpus, texts_to_rows, write_corpus
from isaerft.subjects.load import LoadedModel


def test_texts_become_rows_until_there_are_enough_tokens(subject, tokenizer):
    texts = ["say hello", "", "tell me about the garden and the weather", "the world"]
    rows = texts_to_rows(texts, subject.language, n_tokens=9, context_size=6)
    first = [1, *tokenizer("say hello", add_special_tokens=False)["input_ids"]]
    assert rows.tokens[0, : len(first)].tolist() == first
    assert rows.mask.sum(1).tolist() == [len(first), 6]
    with pytest.raises(InputError, match="has no text"):
        texts_to_rows(["", ""], subject.language, n_tokens=9, context_size=6)


def test_rows_read_again_are_the_rows_written_and_batches_lose_no_token(tmp_path):
    rows = pad_rows([[5, 6, 7], [8], [9, 10]], padding=0)
    write_corpus(rows, tmp_path / "corpus.safetensors")
    read = read_corpus(tmp_path / "corpus.safetensors")
    kept = [row[m.bool()].tolist() for t, mask in read.batches(2) for row, m in zip(t, mask, strict=True)]
    assert kept == [[5, 6, 7], [8], [9, 10]]
    assert [tuple(tokens.shape) for tokens, _ in read.batches(2)] == [(2, 3), (1, 2)]
    with pytest.raises(InputError, match="isaerft corpus"):
        read_corpus(tmp_path / "none")


def test_a_corpus_file_without_the_column_is_refused_with_those_it_has(subject, tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps({"body": "say hello"}) + "\n")
    with pytest.raises(InputError, match=r"line 1.*'text'.*allowed: body"):
        make_corpus(config.Corpus(path=str(path)), subject.language, 0)
    rows = make_corpus(config.Corpus(path=str(path), column="body"), subject.language, 0)
    assert rows.tokens[0, 0] == 1


def corpus_of(tmp_path, rows, **options):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return config.Corpus(path=str(path), **options)


def test_rows_without_text_are_left_out_with_a_warning_that_counts_them(subject, tmp_path, caplog):
    rows = [{"text": f"say hello to the cat {n}"} for n in range(40)]
    made = make_corpus(corpus_of(tmp_path, [{"text": None}, *rows, {"text": float("nan")}]), subject.language, 0)
    assert "leaves out 2 rows of 42: {'text is missing': 2}" in caplog.text
    clean = make_corpus(corpus_of(tmp_path, rows), subject.language, 0)
    assert torch.equal(made.tokens, clean.tokens)


def test_a_corpus_read_only_in_part_counts_only_what_was_read(subject, tmp_path, caplog):
    rows = [{"text": "say hello to the cat"}] * 60 + [{"text": None}] * 60
    assert len(make_corpus(corpus_of(tmp_path, rows, tokens=100, context_size=16), subject.language, 0).tokens) < 60
    assert "leaves out" not in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": None}, "line 1: text is missing"),
        ({"text": [{"role": "user", "content": "hi"}]}, r"line 1: text is \[\{.*select the text with a dotted path"),
        ({"text": "\ud800"}, "line 1: text has half of a surrogate pair"),
    ],
    ids=["null", "messages", "surrogate"],
)
def test_a_column_that_holds_no_text_is_refused(subject, tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        make_corpus(corpus_of(tmp_path, [row] * 3), subject.language, 0)
    rows = [{"text": "say hello"}] * 10 + [row]
    with pytest.raises(InputError, match=r"reference corpus: 1 of 11 rows cannot be used.*max_unusable_share"):
        make_corpus(corpus_of(tmp_path, rows), subject.language, 0)


def test_a_text_may_lie_deep_in_a_row(subject, tmp_path):
    rows = [{"messages": [{"content": "say hello"}, {"content": "world"}]}]
    made = make_corpus(corpus_of(tmp_path, rows, column="messages.-1.content"), subject.language, 0)
    assert subject.language.decode(made.tokens[0, 1:].tolist()) == "world"


@pytest.mark.parametrize("same", [False, True], ids=["eos differs", "eos is bos, as in GPT-2"])
def test_a_sampled_corpus_begins_with_bos_ends_at_eos_and_follows_its_seed(subject, tokenizer, same):
    used = copy.deepcopy(tokenizer)
    if same:
        used.bos_token = used.eos_token
    language = LoadedModel(subject.model, used, True)
    corpus = config.Corpus(sample=True, tokens=300, context_size=12)
    rows = make_corpus(corpus, language, 5)
    assert int(rows.mask.sum()) >= 300
    assert (rows.tokens[:, 0] == used.bos_token_id).all()
    assert rows.mask.sum(1).float().mean() > 3
    for tokens, mask in zip(rows.tokens, rows.mask, strict=True):
        assert used.eos_token_id not in tokens[mask.bool()][1:-1]
    assert torch.equal(make_corpus(corpus, language, 5).tokens, rows.tokens)
    assert not torch.equal(make_corpus(corpus, language, 6).tokens[:5, :5], rows.tokens[:5, :5])


def test_a_corpus_of_the_hub_that_cannot_be_had_is_one_line_with_its_name(subject):
    corpus = config.Corpus(dataset="nobody/nothing-at-all")
    with pytest.raises(InputError, match="nobody/nothing-at-all") as caught:
        make_corpus(corpus, subject.language, 0)
    assert "\n" not in str(caught.value)
