import subprocess
import sys

import pytest

from isaerft import registry
from isaerft.errors import InputError
from isaerft.registry import ADAPTERS, STATISTICS, AdapterFacts, Registry, StatisticFacts

REGISTRIES = [part for part in vars(registry).values() if isinstance(part, Registry)]


@pytest.fixture
def colors():
    registry = Registry("color", AdapterFacts, group="isaerft.colors")
    registry.declare("blue", "isaerft_no_such_module:Blue", made="given")
    registry("red", contrasted=True)(str)
    return registry


@pytest.fixture
def outside_package(tmp_path, monkeypatch):
    """An installed package of somebody else's that adds an adapter, and one that cannot be imported."""
    (tmp_path / "their_package.py").write_text(
        "from isaerft.registry import ADAPTERS\n@ADAPTERS('theirs', made='fitted', contrasted=True)\n"
        "class Theirs:\n    pass\nclass Plain:\n    pass\n"
    )
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[isaerft.adapters]\n"
        "theirs = their_package:Theirs\n"
        "plain = their_package:Plain\n"
        "broken = no_such_package:Adapter\n"
        "old = their_package:Gone\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("_parts", "_facts"):
        monkeypatch.setattr(ADAPTERS, name, dict(getattr(ADAPTERS, name)))
    yield tmp_path
    sys.modules.pop("their_package", None)


def test_a_registered_part_is_found_by_name_with_its_facts(colors):
    assert colors["red"] is str
    assert colors.check("red") == "red"
    assert colors.facts("red") == AdapterFacts(contrasted=True)


def test_a_name_cannot_be_registered_twice_nor_take_one_of_ours(colors):
    with pytest.raises(ValueError, match="color 'red' is registered twice"):
        colors("red")(int)
    assert colors("red")(str) is str
    with pytest.raises(ValueError, match="color 'blue' is one of isaerft's own"):
        colors("blue")


def test_an_unknown_name_lists_the_valid_ones_and_the_nearest(colors):
    for look_up in [colors.check, colors.__getitem__, colors.facts, colors.module_of]:
        with pytest.raises(InputError, match=r"unknown color 'rad'; allowed: blue, red; did you mean 'red'\?"):
            look_up("rad")


def test_listing_checking_and_facts_of_ours_import_nothing(colors):
    assert list(colors) == ["blue", "red"]
    assert colors.check("blue") == "blue"
    assert colors.facts("blue").made == "given"
    assert colors.module_of("blue") == "isaerft_no_such_module"
    with pytest.raises(ModuleNotFoundError):
        colors["blue"]


def test_an_outside_packages_part_is_found_and_brings_its_facts(outside_package):
    assert "theirs" in ADAPTERS
    assert ADAPTERS.module_of("theirs") == "their_package"
    assert "their_package" not in sys.modules
    assert ADAPTERS.facts("theirs") == AdapterFacts(made="fitted", contrasted=True)
    assert ADAPTERS["theirs"].__name__ == "Theirs"
    assert ADAPTERS["theirs"] is ADAPTERS["theirs"]


def test_a_part_named_by_an_entry_point_alone_has_the_usual_facts(outside_package):
    assert ADAPTERS.facts("plain") == AdapterFacts()


def test_a_part_may_carry_its_facts_itself(monkeypatch):
    monkeypatch.setattr(
        STATISTICS, "_parts", STATISTICS._parts | {"theirs": type("S", (), {"facts": StatisticFacts(chance=3)})}
    )
    monkeypatch.setattr(STATISTICS, "_facts", dict(STATISTICS._facts))
    assert STATISTICS.facts("theirs").chance == 3


def test_an_outside_package_is_found_by_a_fresh_process(outside_package):
    code = f"import sys; sys.path.insert(0, {str(outside_package)!r})\n"
    code += "from isaerft.registry import ADAPTERS; sys.stdout.write(ADAPTERS['theirs'].__name__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "Theirs"


@pytest.mark.parametrize(("name", "reason"), [("broken", "No module named 'no_such_package'"), ("old", "Gone")])
def test_an_outside_package_that_cannot_be_loaded_is_named(outside_package, name, reason):
    with pytest.raises(InputError, match=rf"adapter '{name}' from '.*' cannot be loaded .*{reason}.*uninstall"):
        ADAPTERS[name]


def test_every_part_of_ours_is_where_it_is_declared():
    for parts in REGISTRIES:
        for name in parts.builtin:
            assert parts[name] is not None, f"{parts.kind} {name}"
            assert parts.module_of(name) in sys.modules


def test_the_statistics_carry_the_facts_that_are_declared():
    for name in STATISTICS.builtin:
        assert STATISTICS[name].facts is STATISTICS.facts(name), name


def test_names_of_torch_backed_parts_are_listed_without_torch():
    code = "import sys; from isaerft.registry import ADAPTERS; list(ADAPTERS); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
