import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isaerft.subjects.dictionary import Codes

VALUES = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 2.5, -1.0])


@st.composite
def activations(draw, d_sae=None):
    n, d = draw(st.integers(1, 6)), d_sae or draw(st.integers(1, 5))
    return torch.tensor(draw(st.lists(VALUES, min_size=n * d, max_size=n * d))).reshape(n, d)


@given(activations())
def test_sparse_and_dense_say_the_same(dense):
    codes = Codes.from_dense(dense)
    assert torch.equal(codes.dense(), dense)
    assert codes.n_tokens == len(dense)
    assert torch.equal(codes.counts(), (dense != 0).sum(1))
    assert torch.equal(codes.tokens(), dense.nonzero()[:, 0])
    assert len(codes.values) == int((dense != 0).sum())


@given(activations(), st.data())
def test_rows_are_taken_in_the_order_asked_for_also_repeatedly_or_none(dense, data):
    wanted = torch.tensor(data.draw(st.lists(st.integers(0, len(dense) - 1), max_size=8)), dtype=torch.int64)
    assert torch.equal(Codes.from_dense(dense).rows(wanted).dense(), dense[wanted])


@given(st.lists(activations(d_sae=3), min_size=1, max_size=4))
def test_concatenating_joins_token_after_token(parts):
    joined = Codes.concatenate(Codes.from_dense(part) for part in parts)
    assert torch.equal(joined.dense(), torch.cat(parts))


@settings(deadline=None)
@given(activations(), st.integers(1, 4))
def test_combining_is_the_product_with_the_rows(dense, width):
    rows = torch.arange(dense.shape[1] * width).reshape(-1, width).float() - 3
    codes = Codes.from_dense(dense)
    torch.testing.assert_close(codes.combine(rows), dense @ rows)
    doubled = codes.combine(rows, 2 * codes.values)
    torch.testing.assert_close(doubled, 2 * dense @ rows)


@given(activations())
def test_summing_over_tokens_is_the_sum_of_the_columns(dense):
    codes = Codes.from_dense(dense)
    torch.testing.assert_close(codes.sum_over_tokens(), dense.sum(0))
    torch.testing.assert_close(codes.sum_over_tokens(codes.values**2), dense.square().sum(0))
