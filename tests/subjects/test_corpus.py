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
