from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from isaerft import config
from isaerft.config.base import validated
from isaerft.errors import InputError
from isaerft.io import read_json
from isaerft.layout import SubjectFolder
from isaerft.subjects.blocks import writer_of
from isaerft.subjects.corpus import pad_rows
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.gate import Fit, check_gate, describe_subject, measure_fit, other_model
from isaerft.subjects.load import LoadedModel, LoadedSubject
from isaerft.subjects.points import HookPoint, find_hook

LENGTHS = (12, 12, 9, 5, 12, 7)


@pytest.fixture(scope="module")
def rows(subject):
    """What the model itself finds most likely, so that it beats a unigram model."""
    tokens = torch.tensor([[1, 20 * row + 30] for row in range(len(LENGTHS))])
    while tokens.shape[1] < max(LENGTHS):
        with torch.no_grad():
            tokens = torch.cat([tokens, subject.model(input_ids=tokens).logits[:, -1:].argmax(-1)], 1)
    return pad_rows([row[:length] for row, length in zip(tokens.tolist(), LENGTHS, strict=True)], 0)


@pytest.fixture(scope="module")
def right(tiny, subject, tmp_path_factory):
    """The subject with an SAE that rebuilds its residual stream exactly."""
    folder = tiny.write_sae(tmp_path_factory.mktemp("perfect"), tiny.perfect_sae())
    return replace(subject, dictionary=load_dictionary(folder))


@pytest.fixture
def options():
    return config.Subject(model="a/b", sae_path="sae")


def by_hand(subject, rows):
    with torch.no_grad():
        logits = subject.model(input_ids=rows.tokens, attention_mask=rows.mask).logits[:, :-1].log_softmax(-1)
    wanted = rows.mask[:, 1:].bool()
    return float(-logits.gather(-1, rows.tokens[:, 1:, None])[..., 0][wanted].mean())


def test_a_perfect_sae_explains_everything_and_costs_nothing(right, rows):
    fit = measure_fit(right, rows, 3)
    assert fit.variance_explained == pytest.approx(1, abs=1e-6)
    assert fit.loss_spliced == pytest.approx(fit.loss_base, abs=1e-5)
    assert fit.loss_base == pytest.approx(by_hand(right, rows), abs=1e-5)
    assert fit.l0 == pytest.approx(32)
    shares = torch.bincount(rows.tokens[:, 1:][rows.mask[:, 1:].bool()]).double()
    shares = shares[shares > 0] / shares.sum()
    assert fit.loss_unigram == pytest.approx(float(-(shares * shares.log()).sum()))
    assert fit.loss_base < fit.loss_unigram


def test_an_sae_that_gives_the_mean_explains_nothing(right, rows):
    residual = []
    for tokens, mask in zip(rows.tokens, rows.mask, strict=True):
        with torch.no_grad():
            ids = tokens[mask.bool()][None]
            residual.append(right.model(input_ids=ids, output_hidden_states=True).hidden_states[2][0, 1:])
    mean = torch.cat(residual).mean(0)
    nothing = replace(right.dictionary, W_dec=torch.zeros_like(right.dictionary.W_dec), b_dec=mean)
    fit = measure_fit(replace(right, dictionary=nothing), rows, 4)
    assert fit.variance_explained == pytest.approx(0, abs=1e-5)
    assert fit.loss_spliced != pytest.approx(fit.loss_base, abs=1e-3)


def test_the_fit_does_not_depend_on_the_batch_size(subject, rows):
    one, all_at_once = measure_fit(subject, rows, 1), measure_fit(subject, rows, 6)
    assert list(vars(one).values())[:5] == pytest.approx(list(vars(all_at_once).values())[:5], rel=1e-5)
    assert one.outliers is all_at_once.outliers is None


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_an_sae_inside_a_block_is_spliced_in_there_and_nowhere_else(
    tiny, model_of, tokenizer, tmp_path, rows, family, part
):
    model, hook = model_of(family), f"blocks.1.hook_{'attn' if part == 'attention' else 'mlp'}_out"
    made = tiny.write_sae(tmp_path, tiny.perfect_sae(), hook_name=hook)
    language = LoadedModel(model, tokenizer, prepend_bos=True)
    perfect = LoadedSubject(language, load_dictionary(made), find_hook(model, hook))
    fit = measure_fit(perfect, rows, 4)
    assert fit.variance_explained == pytest.approx(1, abs=1e-6)
    assert fit.loss_spliced == pytest.approx(fit.loss_base, abs=1e-5)
    assert fit.loss_base == pytest.approx(by_hand(perfect, rows), abs=1e-5)

    constant = torch.linspace(-1, 1, 32)
    dictionary = replace(perfect.dictionary, W_dec=torch.zeros_like(perfect.dictionary.W_dec), b_dec=constant)

    def spliced(module, args, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, 1:] = constant
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = writer_of(model, 1, part).register_forward_hook(spliced)
    try:
        expected = by_hand(perfect, rows)
    finally:
        handle.remove()
    assert measure_fit(replace(perfect, dictionary=dictionary), rows, 4).loss_spliced == pytest.approx(
        expected, abs=1e-4
    )
    assert expected != pytest.approx(fit.loss_base, abs=1e-3)


def test_the_neighbors_of_an_sae_inside_a_block_are_the_same_part_of_other_blocks(
    tiny, subject, tmp_path, rows, options
):
    hooks = [f"blocks.{block}.hook_{at}_out" for block in (0, 2) for at in ("attn", "mlp")]
    for n, hook in enumerate(hooks):
        folder = tiny.write_sae(tmp_path / str(n), tiny.random_sae(), hook_name=hook)
        other = replace(subject, dictionary=load_dictionary(folder), hook=find_hook(subject.model, hook))
        with pytest.raises(InputError) as caught:
            check_gate("toy", options, other, Fit(0, 0, 2, 2, 4), rows)
        assert ("one block earlier" in str(caught.value)) == (n > 1)
        assert ("one block later" in str(caught.value)) == (n < 2)


def test_the_cost_of_splicing_is_a_share_of_the_gap_to_a_unigram_model():
    assert Fit(0.9, 10, loss_base=2.0, loss_spliced=2.5, loss_unigram=4.0).loss_increase == pytest.approx(0.25)
    assert Fit(0.9, 10, loss_base=4.0, loss_spliced=4.1, loss_unigram=3.0).loss_increase == float("inf")


def test_a_pair_that_fits_passes_the_gate(right, rows, options):
    check_gate("toy", options, right, Fit(0.8, 10, 2.0, 2.1, 4.0), rows)


def test_a_wrong_pair_is_stopped_with_what_was_measured_and_what_to_try(subject, rows, options):
    fit = measure_fit(subject, rows, 4)
    assert fit.variance_explained < 0.5
    with pytest.raises(InputError) as caught:
        check_gate("toy", options, subject, fit, rows)
    message = str(caught.value)
    assert f"'toy': its SAE explains {fit.variance_explained:.2f} of the variance at its hook" in message
    assert "at least 0.5" in message
    for setting in ("center_writing_weights True", "one block earlier", "one block later", "prepend_bos (now True)"):
        assert setting in message


@pytest.mark.parametrize(
    ("model", "trained_on", "is_other"),
    [
        ({"model": "google/gemma-2-2b-it"}, "gemma-2-2b", True),
        ({"model": "google/gemma-2-2b"}, "gemma-2-2b", False),
        ({"model": "google/gemma-3-1b-it"}, "google/gemma-3-1b-it", False),
        ({"model": "openai-community/gpt2"}, "gpt2-small", False),
        ({"model": "openai-community/gpt2-medium"}, "gpt2-small", True),
        ({"gguf": {"file": "SmolLM2-135M-Instruct.Q4_1.gguf", "package": "a"}}, "SmolLM2-135M-Instruct", False),
        ({"gguf": {"file": "models/SmolLM2-135M-Instruct-Q4_K_M.gguf"}}, "SmolLM2-135M", True),
        ({"model": "a/b"}, "", False),
        ({"model": "a/b", "sae_path": None, "train_sae": {}}, "model", False),
    ],
)
def test_an_sae_of_another_model_is_known_by_the_name_in_its_metadata(model, trained_on, is_other):
    options = validated(config.Subject, {"sae_path": "sae"} | model)
    assert other_model(options, trained_on) == (trained_on if is_other else None)


def test_an_sae_of_another_model_is_named_where_it_does_not_fit_and_warned_of_where_it_does(
    right, subject, rows, options, tmp_path, caplog
):
    strange = replace(subject, dictionary=replace(subject.dictionary, model_name="gemma-2-2b"))
    with pytest.raises(InputError, match="choose an SAE of a/b: this one's metadata name gemma-2-2b"):
        check_gate("toy", options, strange, measure_fit(strange, rows, 4), rows)
    fits = replace(right, dictionary=replace(right.dictionary, model_name="gemma-2-2b"))
    study = study_of(model="a/b", sae_path=str(tmp_path), testbed=None, corpus={"sample": True})
    describe_subject(study, "toy", fits, rows, SubjectFolder(tmp_path))
    assert "its SAE was trained on gemma-2-2b, not on a/b; it explains 1.00 of the variance here" in caplog.text
    assert {card["sae_model"] for card in SubjectFolder(tmp_path).read_cards()} == {"gemma-2-2b"}


@pytest.mark.parametrize("fit", [Fit(0.9, 10, 2, 3.5, 4), Fit(0.4, 10, 2, 2, 4), Fit(float("nan"), 10, 2, 2, 4)])
def test_either_measure_alone_stops_a_subject(right, rows, options, fit):
    with pytest.raises(InputError, match="variance explained under other settings"):
        check_gate("toy", options, right, fit, rows)


def test_at_the_ends_of_the_model_only_the_layer_that_exists_is_tried(right, rows, options):
    first = replace(right, hook=HookPoint(0, 3))
    with pytest.raises(InputError) as caught:
        check_gate("toy", options, first, Fit(0, 0, 2, 2, 4), rows)
    assert "one block later" in str(caught.value)
    assert "earlier" not in str(caught.value)


def test_the_setting_that_mends_a_subject_is_shown_to_fit_better(right, rows, options):
    # This SAE knows the sum over dimensions from its bias alone, so it is right for a centered residual stream only.
    eye = torch.eye(32) - 1 / 32
    centered = replace(right.dictionary, W_enc=torch.cat([eye, -eye], 1), W_dec=torch.cat([eye, -eye]))
    uncentered = replace(right, dictionary=replace(centered, center=False))
    assert measure_fit(uncentered, rows, 4).variance_explained < 0.999
    with pytest.raises(InputError, match=r"center_writing_weights True: 1\.00"):
        check_gate("toy", options, uncentered, Fit(0, 0, 2, 2, 4), rows)


def study_of(controls=("random_dictionary",), **subject):
    return config.plan_from_dict(
        {
            "study": "small",
            "subjects": {"toy": {"testbed": {}} | subject},
            "behaviors": {n: {"description": n, "rule": True} for n in ("a", "b")},
            "adapters": {"bias": {}},
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
            "controls": list(controls),
        }
    )


def test_describing_writes_facts_contexts_and_a_card_for_the_subject_and_its_twin(right, rows, tmp_path):
    plan = study_of()
    folder = SubjectFolder(tmp_path)
    describe_subject(plan, "toy", right, rows, folder)
    own, twin = folder.read_cards()
    assert (own["subject"], twin["subject"]) == ("toy", "toy-permuted")
    assert own["variance_explained"] == pytest.approx(1, abs=1e-6)
    assert twin["variance_explained"] < 0.5
    assert own["n_alive"] == int((folder.read_latents().firing_rate >= plan.study.agreement.min_firing_rate).sum())
    assert folder.contexts.is_file()


def test_a_subject_that_does_not_pass_leaves_no_card(subject, rows, tmp_path):
    folder = SubjectFolder(tmp_path)
    with pytest.raises(InputError, match="variance"):
        describe_subject(study_of(), "toy", subject, rows, folder)
    assert not folder.card.exists()
    with pytest.raises(InputError):
        read_json(folder.card)


def test_a_random_baseline_passes_whatever_its_dictionary_does(subject, rows, tmp_path):
    folder, plan = SubjectFolder(tmp_path), study_of(controls=["random_dictionary", "untrained_dictionary"])
    describe_subject(plan, "toy-untrained-dictionary", subject, rows, folder)
    (card,) = folder.read_cards()
    assert card["subject"] == "toy-untrained-dictionary"
    assert card["variance_explained"] < plan.study.subjects["toy"].min_variance_explained


SINK = 77


@pytest.fixture(scope="module")
def with_sink(right):
    """A model in which one token is huge, an SAE that knows all but its direction, and a corpus that has it 3 times."""
    model = deepcopy(right.model)
    embedding = model.get_input_embeddings().weight.data
    embedding[SINK] *= 1000
    direction, eye = embedding[SINK] / embedding[SINK].norm(), torch.eye(32)
    W_enc = eye - torch.outer(direction, direction)
    blind = replace(right.dictionary, W_enc=torch.cat([W_enc, -W_enc], 1), W_dec=torch.cat([eye, -eye]))
    tokens = torch.randint(100, 250, (20, 12), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 1
    tokens[[2, 7, 15], [3, 9, 5]] = SINK
    return replace(right, language=replace(right.language, model=model), dictionary=blind), pad_rows(tokens.tolist(), 0)


def test_a_few_huge_tokens_are_left_out_of_the_variance_explained_and_named(with_sink, right, rows):
    subject, corpus = with_sink
    fit = measure_fit(subject, corpus, 4)
    assert fit.variance_explained < 0.3
    assert fit.outliers.share == pytest.approx(3 / 220)
    assert fit.outliers.norm > 20
    assert fit.outliers.tokens == (subject.language.decode([SINK]),)
    with torch.no_grad():
        x = subject.model(input_ids=corpus.tokens, output_hidden_states=True).hidden_states[2][:, 1:].flatten(0, 1)
    x = x[corpus.tokens[:, 1:].flatten() != SINK].double()
    left = (x - subject.dictionary.reconstruct(x.float()).double()).square().sum()
    assert fit.outliers.variance_explained == pytest.approx(1 - float(left / (x - x.mean(0)).square().sum()), abs=1e-5)
    assert fit.outliers.variance_explained > 0.9
    whole = measure_fit(subject, corpus, 20).outliers
    assert whole.variance_explained == pytest.approx(fit.outliers.variance_explained, rel=1e-6)
    assert (whole.share, whole.tokens) == (fit.outliers.share, fit.outliers.tokens)
    assert measure_fit(right, rows, 4).outliers is None


def test_the_gate_judges_without_outliers_and_tells_of_them(with_sink, options, tmp_path, caplog, monkeypatch):
    subject, corpus = with_sink
    fit = replace(measure_fit(subject, corpus, 4), loss_spliced=2.0, loss_base=2.0, loss_unigram=4.0)
    check_gate("toy", options, subject, fit, corpus)
    strict = replace(options, min_variance_explained=0.999)
    with pytest.raises(InputError, match=r"1\.4 % of its tokens .* times as large as the median; without these"):
        check_gate("toy", strict, subject, fit, corpus)
    monkeypatch.setattr("isaerft.subjects.gate.measure_fit", lambda *_: fit)
    describe_subject(study_of(), "toy", subject, corpus, SubjectFolder(tmp_path))
    assert "1.4 % of its tokens" in caplog.text
    assert SubjectFolder(tmp_path).read_cards()[0]["variance_explained"] == pytest.approx(fit.variance_explained)


def test_tokens_of_which_many_are_large_are_not_outliers(with_sink):
    subject, corpus = with_sink
    common = corpus.tokens.clone()
    common[4, 4] = SINK
    assert measure_fit(subject, replace(corpus, tokens=common), 4).outliers.share == pytest.approx(4 / 220)
    common[:, 5] = SINK
    assert measure_fit(subject, replace(corpus, tokens=common), 4).outliers is None


def test_a_bos_convention_that_the_metadata_contradict_is_named(right, subject, rows, options, tmp_path, caplog):
    without = replace(subject, dictionary=replace(subject.dictionary, prepend_bos=False))
    with pytest.raises(InputError, match="set prepend_bos: false, as this SAE's metadata say"):
        check_gate("toy", options, without, measure_fit(without, rows, 4), rows)
    fits = replace(right, dictionary=replace(right.dictionary, prepend_bos=False))
    describe_subject(study_of(), "toy", fits, rows, SubjectFolder(tmp_path))
    assert "trained without BOS, as its metadata say, and prepend_bos is True" in caplog.text
    caplog.clear()
    agrees = replace(right, dictionary=replace(right.dictionary, prepend_bos=True))
    describe_subject(study_of(), "toy", agrees, rows, SubjectFolder(tmp_path))
    assert "BOS" not in caplog.text
