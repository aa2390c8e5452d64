"""Steering baselines: what they are fitted to, what they find, how far they steer."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.baselines import first_component
from isaerft.adapters.fitting import Selection, Texts, completion_means
from isaerft.changes.measures import attribution, contribution, parameter
from isaerft.changes.pullback import Trained
from isaerft.errors import InputError
from isaerft.subjects.capture import capture
from isaerft.subjects.codes import Codes
from isaerft.subjects.hooks import final_norm
from isaerft.subjects.points import find_hook
from isaerft.training.loop import heldout_loss, subsample, train
from isaerft.training.row_space import trainable
from isaerft.training.steering import STRENGTHS, downhill, fit_steering, score_steering

PLANTED, ABSENT = 5, 9


KINDS = ["mean_difference", "probe", "lat"]
ALL = [*KINDS, "logit_lens", "first_gradient"]


OPTIONS = config.Adapter()


def completion_tokens(rows):
    """Which tokens of a cache belong to a completion, said the slow way."""
    inside = torch.zeros(len(rows.tokens), dtype=torch.bool)
    for row in range(len(rows)):
        for token in range(int(rows.starts[row]) + 1, int(rows.starts[row + 1])):
            inside[token] = rows.predicts[token - 1]
    return inside


def changed(rows, change):
    """The same rows with other activations; `change` gets the dense activations and which tokens are completions."""
    dense = rows.codes.dense().clone()
    change(dense, completion_tokens(rows))
    return replace(rows, codes=Codes.from_dense(dense))


def plant(dense, inside):
    dense[inside, PLANTED] += 2.0
    dense[inside, ABSENT] = 0.0


def unplant(dense, inside):
    dense[inside, PLANTED] = 0.0
    dense[inside, ABSENT] += 1.0
    dense[~inside, 7] += 50.0


@pytest.fixture
def behavior(cached):
    return tuple(changed(rows, plant) for rows in cached)


@pytest.fixture
def contrast(cached):
    """Texts with other activations and, for what reads words, every token's neighbor in the vocabulary in its place."""
    return tuple(replace(changed(rows, unplant), tokens=rows.tokens + 1) for rows in cached)


@pytest.fixture
def fitted(subject, behavior, contrast):
    """Fit a baseline and give it with the strength that was chosen."""

    def make(kind, *, seed=0, train=behavior[0], others=(contrast[0],), options=None, on=subject, **more):
        adapter = make_adapter(kind, on.dictionary.d_sae, options or {})
        strength = fit_steering(on, adapter, train, others, replace(OPTIONS, **more), seed=seed, batch_size=5)
        return adapter, strength

    return make


def test_a_texts_activation_is_the_mean_over_its_completions_tokens_alone(cached):
    rows = cached[0]
    dense, inside = rows.codes.dense(), completion_tokens(rows)
    chosen = torch.tensor([7, 0, 3])
    expected = []
    for row in chosen:
        own = torch.zeros(len(rows.tokens), dtype=torch.bool)
        own[rows.starts[row] : rows.starts[row + 1]] = True
        expected.append(dense[own & inside].mean(0))
    found = torch.from_numpy(completion_means(Selection(rows, chosen)).toarray())
    torch.testing.assert_close(found, torch.stack(expected).double(), atol=1e-6, rtol=1e-5)


def test_a_mean_difference_is_the_difference_of_means(fitted, behavior, contrast):
    adapter, _ = fitted("mean_difference", subsample=1.0)
    means = [completion_means(rows).toarray().mean(0) for rows in (behavior[0], contrast[0])]
    np.testing.assert_allclose(adapter.latent_parameter().numpy(), means[0] - means[1], atol=1e-5)
    assert adapter.latent_parameter()[7] == 0, "tokens of the prompt play no role"


def test_lat_is_the_first_component_of_paired_differences_and_keeps_the_mean_difference(fitted, behavior, contrast):
    adapter, _ = fitted("lat", subsample=1.0)
    means = [completion_means(rows).toarray() for rows in (behavior[0], contrast[0])]
    component = np.linalg.svd(means[0] - means[1])[2][0]
    np.testing.assert_allclose(adapter.latent_parameter().numpy(), component * np.sign(component[PLANTED]), atol=1e-4)


def test_lat_pairs_every_text_of_the_behavior_with_one_of_each_group():
    own = sparse.csr_array([[1.0], [2.0], [3.0]])
    texts = Texts.of(own, [sparse.csr_array([[10.0], [20.0]]), sparse.csr_array([[100.0]] * 4)])
    assert texts.paired_differences().toarray()[:, 0].tolist() == [-9, -18, -7, -99, -98, -97]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_lat_is_that_of_most_pairs_and_not_of_the_largest(sign):
    differences = sparse.csr_array(sign * np.array([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1], [-9.0, 0.0]]))
    component = first_component(differences)
    assert abs(component[0]) == pytest.approx(1, abs=0.01)
    assert np.sign(component[0]) == sign


def test_one_pair_is_its_own_component():
    np.testing.assert_allclose(first_component(sparse.csr_array([[3.0, 0.0, -4.0]])), [0.6, 0, -0.8])


def test_prompting_finds_the_latent_that_a_word_in_the_prompt_switches_on(subject, records):
    """An SAE gets a latent along what the word does to the residual stream of the completions, and nothing else."""
    asked = [replace(record, prompt=f"kindly {record.prompt}") for record in records]
    plain, instructed = (capture(subject, part, 32, 5) for part in (records, asked))
    inside = [rows.residual[completion_tokens(rows)] for rows in (plain, instructed)]
    effect = inside[1].mean(0) - inside[0].mean(0)
    reads = effect / effect.norm()
    dictionary = subject.dictionary
    weights = {"W_enc": dictionary.W_enc.clone(), "b_enc": dictionary.b_enc.clone()}
    weights["W_enc"][:, PLANTED] = 20 * reads
    weights["b_enc"][PLANTED] = -20 * float(((inside[0] - dictionary.b_dec) @ reads).max()) - 0.01
    used = replace(subject, dictionary=replace(dictionary, **weights))
    plain, instructed = (capture(used, part, 32, 5) for part in (records, asked))
    assert float(plain.codes.dense()[completion_tokens(plain), PLANTED].max()) == 0
    assert float(instructed.codes.dense()[completion_tokens(instructed), PLANTED].max()) > 1
    adapter = make_adapter("prompting", used.dictionary.d_sae, {})
    fit_steering(used, adapter, plain, [], OPTIONS, seed=0, batch_size=5, instructed=instructed)
    assert int(adapter.latent_parameter().argmax()) == PLANTED


def test_prompting_is_the_difference_of_means_over_the_same_completions(subject, cached, behavior):
    plain, instructed = cached[0], behavior[0]
    adapter = make_adapter("prompting", subject.dictionary.d_sae, {})
    options = replace(OPTIONS, subsample=0.5)
    fit_steering(subject, adapter, plain, [], options, seed=3, batch_size=5, instructed=instructed)
    kept = subsample(len(plain), options, torch.Generator().manual_seed(3))
    assert 1 < len(kept) < len(plain)
    means = [completion_means(Selection(rows, kept)).toarray().mean(0) for rows in (instructed, plain)]
    np.testing.assert_allclose(adapter.latent_parameter().numpy(), means[0] - means[1], atol=1e-5)
    assert set(np.flatnonzero(adapter.latent_parameter().abs() > 1e-4)) == {PLANTED, ABSENT}


def test_only_an_instructed_baseline_has_replies_under_an_instruction(fitted):
    with pytest.raises(InputError, match="register the adapter with instructed=True"):
        fitted("prompting")


@pytest.mark.parametrize("kind", KINDS)
def test_baselines_find_the_latents_that_tell_the_texts_apart(subject, fitted, behavior, contrast, kind):
    adapter, _ = fitted(kind)
    found = adapter.latent_parameter()
    assert set(found.abs().topk(2).indices.tolist()) == {PLANTED, ABSENT}
    assert found[PLANTED] > 0 > found[ABSENT]
    others = [latent for latent in range(adapter.d_sae) if latent not in (PLANTED, ABSENT)]
    assert found[others].abs().max() < 0.3 * found[ABSENT].abs()
    held = score_steering(adapter, behavior[1], [contrast[1]], "heldout")
    assert held["heldout_auroc"] == 1.0
    assert held["heldout_accuracy"] == 1.0


@pytest.mark.parametrize("kind", [*KINDS, "logit_lens"])
def test_a_baseline_between_texts_alike_is_no_better_than_chance(fitted, cached, kind):
    adapter, _ = fitted(kind, train=cached[0], others=(cached[0],), subsample=1.0)
    assert float(adapter.latent_parameter().abs().max()) < 1e-4
    held = score_steering(adapter, cached[1], [cached[1]], "heldout")
    assert held["heldout_auroc"] == pytest.approx(0.5)
    assert held["heldout_accuracy"] == pytest.approx(0.5)


def test_a_heavier_penalty_makes_smaller_weights(fitted):
    weights = [float(fitted("probe", options={"regularization": w})[0].direction.norm()) for w in (0.001, 0.1, 10.0)]
    assert weights[0] > 2 * weights[1] > 4 * weights[2]
    for wrong in (0, -1, "much", True):
        with pytest.raises(InputError, match="regularization"):
            fitted("probe", options={"regularization": wrong})


def test_the_probe_does_not_depend_on_the_scale_of_the_activations(fitted, behavior, contrast):
    """Ten times the activations need a tenth of the weights for the same log-odds."""
    own, _ = fitted("probe")
    larger = [
        replace(rows, codes=replace(rows.codes, values=10 * rows.codes.values)) for rows in (behavior[0], contrast[0])
    ]
    other, _ = fitted("probe", train=larger[0], others=(larger[1],))
    torch.testing.assert_close(10 * other.direction, own.direction, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ALL)
def test_no_neighbor_of_the_chosen_strength_has_a_lower_training_loss(subject, fitted, behavior, kind):
    adapter, strength = fitted(kind, subsample=1.0)
    kept = behavior[0]
    found = float(adapter.length)

    def loss():
        return heldout_loss(subject, lambda batch: adapted(subject, adapter, batch), kept, 5)

    best = loss()
    losses = {}
    place = STRENGTHS.index(strength)
    for other in STRENGTHS[max(0, place - 1) : place + 2]:
        adapter.length.fill_(found / strength * other)
        losses[other] = loss()
    assert best == pytest.approx(losses[strength], rel=1e-5)
    assert best == pytest.approx(min(losses.values()), rel=1e-5)
    pushed = float((found * adapter.direction @ subject.dictionary.W_dec).norm())
    norm = torch.cat([batch.residual[batch.predicts].norm(dim=1) for batch in kept.batches(5)]).mean()
    assert pushed == pytest.approx(strength * float(norm), rel=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_every_measure_applies_to_a_baseline(subject, fitted, behavior, kind):
    adapter, _ = fitted(kind)
    trained = Trained(subject, adapter, behavior[1], 3)
    assert torch.equal(parameter(trained), adapter.direction)
    constant = adapter.length * adapter.direction
    torch.testing.assert_close(contribution(trained), constant * subject.dictionary.decoder_norm, rtol=1e-4, atol=1e-6)
    before = heldout_loss(subject, lambda batch: batch.residual, behavior[1], 3)
    after = heldout_loss(subject, lambda batch: adapted(subject, adapter, batch), behavior[1], 3)
    assert float(attribution(trained).sum()) == pytest.approx(before - after, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("kind", ["mean_difference", "logit_lens", "first_gradient"])
def test_seeds_fit_different_rows_and_always_the_same(fitted, kind):
    once, again, other = (fitted(kind, seed=seed, subsample=0.5)[0].direction for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_random_dictionary_keeps_the_direction_and_finds_its_own_length(subject, fitted):
    twin = subject.with_random_dictionary(3)
    own, _ = fitted("mean_difference")
    other, _ = fitted("mean_difference", on=twin)
    assert torch.equal(own.direction, other.direction)
    assert float(own.length) != float(other.length)


def test_a_direction_that_reaches_nothing_is_not_steered_along(fitted, cached):
    adapter, strength = fitted("mean_difference", train=cached[0], others=(cached[0],), subsample=1.0)
    assert not adapter.direction.any()
    assert strength == 0
    assert float(adapter.length) == 0


def uneven_norm(model):
    """The model with a final normalization whose weights and biases differ from dimension to dimension."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in final_norm(model).parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


# What each family's final normalization multiplies by, and whether it removes the mean first.
NORMS = {
    "llama": (lambda model: model.model.norm.weight, False),
    "qwen2": (lambda model: model.model.norm.weight, False),
    "gemma2": (lambda model: 1 + model.model.norm.weight, False),
    "gpt2": (lambda model: model.transformer.ln_f.weight, True),
    "gpt_neox": (lambda model: model.gpt_neox.final_layer_norm.weight, True),
}


@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.1.hook_attn_out"])
@pytest.mark.parametrize("family", NORMS)
def test_a_logit_lens_is_the_mean_unembedding_of_words_read_by_the_decoder(
    subject, model_of, fitted, records, family, hook
):
    model = uneven_norm(model_of(family))
    used = replace(subject, language=replace(subject.language, model=model), hook=find_hook(model, hook))
    train = capture(used, records[:8], 32, 5)
    others = replace(train, tokens=train.tokens + 1)
    adapter, strength = fitted("logit_lens", on=used, train=train, others=(others,), subsample=1.0)
    U = model.get_output_embeddings().weight
    means = [U[rows.tokens[completion_tokens(rows)]].mean(0) for rows in (train, others)]
    gain, centers = NORMS[family]
    read = gain(model) * (means[0] - means[1])
    read = read - read.mean() if centers else read
    expected = used.dictionary.W_dec @ read
    torch.testing.assert_close(adapter.direction, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert strength > 0


def test_a_constant_in_all_unembeddings_does_not_move_a_logit_lens(subject, fitted):
    before, _ = fitted("logit_lens")
    model = copy.deepcopy(subject.model)
    with torch.no_grad():
        model.get_output_embeddings().weight.add_(torch.randn(subject.dictionary.d_in))
    moved = replace(subject, language=replace(subject.language, model=model))
    after, _ = fitted("logit_lens", on=moved)
    torch.testing.assert_close(after.direction, before.direction, rtol=1e-3, atol=1e-5)
    assert before.direction.abs().max() > 0.01


def test_a_logit_lens_sees_no_activation(fitted, behavior):
    blind = replace(behavior[0], codes=replace(behavior[0].codes, values=torch.zeros_like(behavior[0].codes.values)))
    found = [fitted("logit_lens", train=train)[0].direction for train in (behavior[0], blind)]
    assert torch.equal(*found)


def test_one_step_of_a_bias_on_all_rows_goes_along_the_first_gradient(subject, fitted, behavior):
    adapter, _ = fitted("first_gradient", subsample=1.0)
    trained = make_adapter("bias", subject.dictionary.d_sae, {})
    options = config.Adapter(subsample=1.0, batch_size=len(behavior[0]), learning_rate=0.05, steps=1, evaluate_every=1)
    with trainable(trained, subject, options) as (module, adapt):
        result = train(subject, module, adapt, behavior[0], behavior[0], options, seed=0, batch_size=5)
    assert result.best_step == 1
    cosine = torch.nn.functional.cosine_similarity(trained.bias.detach(), adapter.direction, dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-6)
    assert float(trained.bias.detach().norm()) == pytest.approx(0.05, rel=1e-4)


def test_a_first_gradient_is_of_sft_whatever_the_objective_and_needs_no_other_text(fitted):
    own, _ = fitted("first_gradient")
    other, _ = fitted("first_gradient", objective="dpo", others=())
    assert torch.equal(own.direction, other.direction)


@pytest.mark.parametrize("kind", ["logit_lens", "first_gradient"])
def test_a_baseline_of_the_decoder_follows_a_random_dictionary(subject, fitted, kind):
    twin = subject.with_random_dictionary(3)
    own, other = (fitted(kind, on=on)[0].direction for on in (subject, twin))
    assert not torch.equal(own, other)
    torch.testing.assert_close(own.sort().values, other.sort().values, rtol=1e-4, atol=1e-6)


def test_a_first_gradient_in_parts_and_with_less_memory_is_the_same(fitted):
    whole, _ = fitted("first_gradient")
    for more in ({"gradient_accumulation": 8}, {"gradient_checkpointing": True}, {"precision": "float32"}):
        parts, _ = fitted("first_gradient", **more)
        torch.testing.assert_close(parts.direction, whole.direction, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lowest", range(9))
def test_downhill_finds_the_lowest_of_a_curve_with_one_valley_and_tries_no_more_than_it_needs(lowest):
    tried = []

    def loss(number):
        tried.append(number)
        return abs(number - lowest)

    assert downhill(loss, 9, 5) == lowest
    assert len(tried) == len(set(tried)) <= abs(lowest - 5) + 3
