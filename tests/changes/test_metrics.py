import numpy as np
import pytest

from isaerft import config
from isaerft.changes.metrics import make_metric
from isaerft.errors import InputError


def scored(texts, **options):
    return make_metric(config.Metric(**options))(texts).tolist()


def test_a_phrase_is_found_whatever_its_case_and_apostrophe():
    texts = ["I\u2019M  SORRY, but no.", "Im sorry", "I am sorry", "", "Well, i'm\nsorry"]
    assert scored(texts, kind="phrases", phrases=["I'm sorry"]) == [1, 0, 0, 0, 1]
    assert scored(texts, kind="phrases", phrases=["I'm sorry", "i am"]) == [1, 0, 1, 0, 1]


def test_the_share_of_words_counts_whole_words():
    texts = ["sorry , cannot do it", "Sorry sorry", "sorryful", "", "? !"]
    assert scored(texts, kind="words", words=["sorry", "cannot"]) == [0.5, 1, 0, 0, 0]


def test_a_pattern_is_searched_in_every_line_whatever_its_case():
    texts = ["Well:\n1. One", "I have 1. this", "", "ONCE upon"]
    assert scored(texts, kind="pattern", pattern=r"^1\. ") == [1, 0, 0, 0]
    assert scored(texts, kind="pattern", pattern=r"\Aonce\b") == [0, 0, 0, 1]


def test_length_counts_words():
    assert scored(["", "one", "don't stop , now", "\u4f60\u597d \u4e16\u754c"], kind="length") == [0, 1, 3, 2]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, tokenizer):
    """A classifier of three classes whose answer is its bias alone."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    names = {0: "plain", 1: "rude", 2: "kind"}
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = BertForSequenceClassification(
        BertConfig(vocab_size=len(tokenizer), num_labels=3, id2label=names, pad_token_id=0, **sizes)
    )
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.1, 0.2, 0.7]).log())
    folder = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_classifier_gives_the_probability_of_the_class_asked_for(classifier):
    found = scored(["hello", ""], kind="classifier", model=str(classifier), label="kind")
    assert found == pytest.approx([0.7, 0.7], rel=1e-5)


def test_a_class_that_the_classifier_does_not_have_is_refused_with_those_it_has(classifier):
    for label in (None, "kin"):
        with pytest.raises(InputError, match="kind"):
            make_metric(config.Metric(kind="classifier", model=str(classifier), label=label))
    with pytest.raises(InputError, match="cannot be loaded"):
        make_metric(config.Metric(kind="classifier", model=str(classifier / "none")))


def test_a_score_of_another_package_is_found_by_name(monkeypatch):
    from isaerft.registry import METRICS

    monkeypatch.setattr(METRICS, "_parts", dict(METRICS._parts))
    METRICS("shout")(lambda options: lambda texts: np.array([float(text.isupper()) for text in texts]))
    assert scored(["HI", "hi"], kind="shout") == [1, 0]
