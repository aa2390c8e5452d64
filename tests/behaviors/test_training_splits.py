import pytest

from isaerft.behaviors import Record
from isaerft.behaviors import training_splits
from isaerft.config import Adapter
from isaerft.errors import InputError

SFT = {"train": [Record("a", "p", "x")], "heldout": [Record("b", "q", "y")]}
PAIRS = {
    "train": [Record("a", "p", chosen="x", rejected="z"), Record("c", "r", chosen="u", rejected="v")],
    "heldout": [Record("b", "q", chosen="y", rejected="w")],
}


def test_completions_are_captured_as_they_are():
    assert training_splits(SFT, "toy", {"bias": Adapter()}) == SFT


def test_pairs_gain_their_rejected_twins_in_the_same_order():
    splits = training_splits(PAIRS, "toy", {"bias": Adapter(objective="dpo")})
    assert list(splits) == ["train", "heldout", "train_rejected", "heldout_rejected"]
    assert [record.reply for record in splits["train"]] == ["x", "u"]
    assert splits["train_rejected"] == [Record("a", "p", "z"), Record("c", "r", "v")]
    assert splits["heldout_rejected"] == [Record("b", "q", "w")]


def test_sft_takes_the_chosen_replies_of_pairs_only_when_told_to():
    with pytest.raises(InputError, match=r"'bias' with objective 'sft' on behavior 'toy'.*sft_on_chosen: true.*chosen"):
        training_splits(PAIRS, "toy", {"dpo": Adapter(objective="dpo"), "bias": Adapter()})
    assert training_splits(PAIRS, "toy", {"bias": Adapter(sft_on_chosen=True)}) == PAIRS
    assert training_splits(SFT, "toy", {"bias": Adapter(sft_on_chosen=True)}) == SFT


@pytest.mark.parametrize("objective", ["dpo", "simpo", "orpo"])
def test_an_objective_on_pairs_refuses_completions_and_names_the_mend(objective):
    with pytest.raises(InputError, match=rf"'a' with objective '{objective}' on behavior 'toy'.*map chosen and reject"):
        training_splits(SFT, "toy", {"a": Adapter(objective=objective)})


def test_a_baseline_against_rejected_replies_has_them_captured_and_needs_pairs():
    for adapters in ({"probe": Adapter()}, {"mine": Adapter(kind="mean_difference")}):
        assert training_splits(PAIRS, "toy", adapters) == PAIRS, "what is not trained has no objective to fit"
        splits = training_splits(PAIRS, "toy", adapters, contrast=True)
        assert splits["heldout_rejected"] == [Record("b", "q", "w")]
        with pytest.raises(InputError, match=r"'toy' with `contrast: rejected`.*one completion each"):
            training_splits(SFT, "toy", adapters, contrast=True)
