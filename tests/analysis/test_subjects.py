"""subjects.csv"""


def test_the_subject_and_its_random_twin_are_listed(finished):
    assert finished[1]["subjects"].subject.tolist() == ["toy", "toy-permuted"]
