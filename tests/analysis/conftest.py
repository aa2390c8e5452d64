import pytest

from tests.analysis.small_study import Parts, make_study


@pytest.fixture
def parts(tmp_path):
    """The parts of the small study, to be changed."""
    return Parts(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The parts of the small study and its tables by name; tests must leave both as they found them."""
    parts = Parts(tmp_path_factory.mktemp("results"))
    return parts, parts.tables(make_study())
