"""What baselines are fitted to: each quantity against the slow way to say it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.fitting import Fitting, Selection, Texts, token_shares
from isaerft.errors import InputError
from isaerft.registry import OBJECTIVES
from isaerft.subjects.capture import capture
from isaerft.subjects.points import find_hook


def selection(rows, kept=None):
    return Selection(rows, torch.arange(len(rows)) if kept is None else torch.tensor(kept))


def completion_tokens(rows, kept):
    """The tokens of completions, said the slow way."""
    found = []
    for row in kept:
        for token in range(int(rows.starts[row]) + 1, int(rows.starts[row + 1])):
            if rows.predicts[token - 1]:
                found.append(int(rows.tokens[token]))
    return found


def test_both_kinds_of_text_weigh_alike_and_so_does_each_group_of_the_others():
    groups = [sparse.csr_array(np.full((n, 1), value)) for n, value in ((2, 1.0), (6, 2.0), (3, 5.0))]
    texts = Texts.of(groups[0], groups[1:])
    assert texts.weight.sum() == pytest.approx(2)
    assert texts.mean(True) == pytest.approx([1.0])
    assert texts.mean(False) == pytest.approx([3.5]), "not (6 * 2 + 3 * 5) / 9"


def test_texts_without_a_contrast_are_the_behaviors_alone():
    texts = Texts.of(sparse.csr_array(np.ones((4, 2))), [])
    assert texts.weight.tolist() == [0.25] * 4
    assert texts.is_behavior.all()
    assert texts.mean(True) == pytest.approx([1.0, 1.0])


def test_a_tokens_share_counts_completions_alone(subject, cached):
    kept = [4, 1, 7]
    tokens = completion_tokens(cached[0], kept)
    n = subject.language.n_vocabulary
    expected = np.array([tokens.count(token) for token in range(n)]) / len(tokens)
    np.testing.assert_allclose(token_shares(selection(cached[0], kept), n), expected, atol=1e-12)


def test_groups_of_a_contrast_weigh_alike_in_shares_of_tokens(subject, cached):
    n = subject.language.n_vocabulary
    own, small, large = (selection(cached[0], kept) for kept in ([0, 1], [2], list(range(3, 12))))
    found = Fitting(subject, own, [small, large], 4).excess_shares
    shares = [token_shares(part, n) for part in (own, small, large)]
    torch.testing.assert_close(found, shares[0] - (shares[1] + shares[2]) / 2)
    assert float(found.sum()) == pytest.approx(0, abs=1e-12)
    assert found.abs().max() > 0.01


def test_shares_of_tokens_need_a_contrast(subject, cached):
    with pytest.raises(InputError, match="without other text to compare"):
        _ = Fitting(subject, selection(cached[0]), [], 4).excess_shares


def bias_gradient(subject, rows, kept):
    """The gradient of a bias at its start, by autograd on the latents themselves."""
    adapter = make_adapter("bias", subject.dictionary.d_sae, {})
    batch = rows.batch(torch.tensor(kept))
    OBJECTIVES["sft"](subject, batch, adapted(subject, adapter, batch)).backward()
    return adapter.bias.grad


@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.1.hook_attn_out"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_the_gradient_through_the_decoder_is_that_of_a_bias(subject, model_of, records, architecture, hook):
    model = model_of(architecture)
    used = replace(subject, language=replace(subject.language, model=model), hook=find_hook(model, hook))
    rows, kept = capture(used, records[:9], 32, 5), [0, 3, 4, 7, 8]
    found = used.dictionary.W_dec.double() @ Fitting(used, selection(rows, kept), [], 2).gradient
    expected = bias_gradient(used, rows, kept)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_the_slope_of_the_loss(subject, cached):
    """Not only autograd's word: finite differences along a random vector."""
    rows = cached[0].batch(torch.arange(len(cached[0])))
    push = torch.randn(subject.dictionary.d_in, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        up, down = (float(OBJECTIVES["sft"](subject, rows, rows.residual + s * 0.01 * push)) for s in (1, -1))
    found = float(Fitting(subject, selection(cached[0]), [], 5).gradient @ push.double())
    assert found == pytest.approx((up - down) / 0.02, rel=1e-2)
    assert abs(found) > 0.01
