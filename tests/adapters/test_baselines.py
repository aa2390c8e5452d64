import numpy as np
import pytest
from scipy import sparse

from isaerft.adapters.baselines import Texts


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
