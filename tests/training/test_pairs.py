import pytest
import torch

from isaerft.errors import InputError
from isaerft.subjects.capture import capture_behavior
from isaerft.training.pairs import read_pairs


def test_chosen_and_rejected_rows_stand_in_one_batch_in_the_same_order(subject, pairs, plain):
    order = torch.tensor([5, 0, 2])
    batch = pairs.batch(order)
    both = torch.cat([order, order + 8])
    ids = plain.table["input_ids"][both]
    mask = plain.table["attention_mask"][both].bool()
    assert torch.equal(batch.mask, mask[:, : batch.mask.shape[1]])
    assert torch.equal(batch.labels, ids[plain.completion[both].bool()])
    codes = subject.dictionary.encode(batch.residual).dense()
    starts = torch.cat([torch.zeros(1).long(), batch.mask.sum(1).cumsum(0)[:-1]])
    codes[starts] = 0
    torch.testing.assert_close(batch.codes.dense(), codes)


def test_the_base_log_probability_is_the_unadapted_models_log_probability(subject, pairs, plain):
    expected = plain.base_log_probability
    torch.testing.assert_close(pairs.base_log_probability.T.flatten(), expected, atol=1e-4, rtol=1e-5)
    batch = pairs.batch(torch.tensor([4, 1]))
    torch.testing.assert_close(batch.base_log_probability, expected[[4, 1, 12, 9]], atol=1e-4, rtol=1e-5)


def test_a_cache_without_rejected_replies_is_refused(subject, records, tmp_path):
    capture_behavior(subject, {"train": records[:2]}, tmp_path / "cache", max_length=32, batch_size=2)
    with pytest.raises(InputError, match=r"split 'train_rejected'; run `isaerft capture` again"):
        read_pairs(subject, tmp_path / "cache", "train", 2)
