import numpy as np
from transformers import PreTrainedTokenizerFast

from isaerft import config
from isaerft.subjects.load import LoadedModel
from isaerft.testbed.language import DEFAULT, language_of
from isaerft.testbed.model import corpus_rows, hook_name, make_tokenizer, train_model


def test_the_model_is_saved_with_its_tokenizer_and_the_same_seed_gives_the_same_bytes(world, tmp_path):
    subject, loss, folder = world
    sizes = config.Testbed(steps=3, batch_size=8, d_model=16, n_layers=2)
    assert train_model(sizes, 0, tmp_path / "model") == loss
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "model" / name).read_bytes() == (folder / "model" / name).read_bytes()
    assert train_model(sizes, 1, tmp_path / "other") != loss
    text = "user : be polite . describe the cat assistant :"
    assert subject.language.tokenizer(text)["input_ids"] == make_tokenizer(DEFAULT)(text)["input_ids"]
    assert subject.language.tokenizer(text)["input_ids"][0] == subject.language.bos[0]
    assert hook_name(sizes) == "blocks.0.hook_resid_post"


def test_deep_supervision_is_an_option_of_the_world(world, tmp_path):
    _, loss, _ = world
    sizes = config.Testbed(steps=3, batch_size=8, d_model=16, n_layers=2, deep_supervision=False)
    assert train_model(sizes, 0, tmp_path / "model") < 0.6 * loss, "one loss, not two"


def test_a_world_with_paraphrases_knows_them(tmp_path):
    sizes = config.Testbed(steps=1, batch_size=8, d_model=16, n_layers=2, paraphrase=True)
    train_model(sizes, 0, tmp_path / "model")
    tokenizer = make_tokenizer(language_of(sizes))
    assert len(tokenizer) == len(make_tokenizer(DEFAULT)) + sum(len(style.paraphrases) for style in DEFAULT.styles)
    language = LoadedModel(None, tokenizer, True)
    rows = corpus_rows(language, language_of(sizes), n_tokens=4000, context_size=64, seed=0)
    assert not (rows.tokens == tokenizer.unk_token_id).any()
    known = tokenizer.convert_tokens_to_ids([word for style in DEFAULT.styles for word in style.paraphrases])
    assert np.isin(rows.tokens, known).any()


def test_the_corpus_is_whole_dialogues_of_known_words():
    tokenizer = make_tokenizer(DEFAULT)
    rows = corpus_rows(LoadedModel(None, tokenizer, True), DEFAULT, n_tokens=4000, context_size=64, seed=0)
    assert not (rows.tokens == tokenizer.unk_token_id).any()
    assert int(rows.mask.sum()) >= 4000
    ends = rows.tokens[range(len(rows.tokens)), rows.mask.sum(1) - 1]
    assert (ends == tokenizer.eos_token_id).all(), "no dialogue is cut"


def test_a_world_of_several_factors_knows_every_word_of_its_corpus(tmp_path):
    options = {"styles": 24, "topics": 16, "substyles": 8, "composition": 0.5, "correlation": 0.5, "zipf_words": 1}
    sizes = config.Testbed(steps=1, batch_size=8, d_model=16, n_layers=2, **options)
    assert train_model(sizes, 0, tmp_path / "model") > 0
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    rows = corpus_rows(LoadedModel(None, tokenizer, True), language_of(sizes), n_tokens=9000, context_size=64, seed=0)
    used = set(rows.tokens[rows.mask.bool()].tolist())
    assert tokenizer.unk_token_id not in used
    assert len(used) > 0.8 * len(tokenizer)
