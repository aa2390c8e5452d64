import subprocess
import sys
from importlib import import_module

import pytest

from isaerft import registry
from isaerft.errors import InputError
from isaerft.registry import ADAPTERS, STATISTICS, Registry

REGISTRIES = [part for part in vars(registry).values() if isinstance(part, Registry)]


@pytest.fixture
def colours():
    registry = Registry("colour", group="isaerft.colours", builtin={"blue": "isaerft_no_such_module"})
    registry("red")(str)
    return registry


@pytest.fixture
def outside_package(tmp_path, monkeypatch):
    """An installed package of somebody else's that adds an adapter, and one that cannot be imported."""
    (tmp_path / "their_package.py").write_text(
        "from isaerft.registry import ADAPTERS\n@ADAPTERS('theirs')\nclass Theirs:\n    pass\n"
    )
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[isaerft.adapters]\n"
        "theirs = their_package:Theirs\n"
        "broken = no_such_package:Adapter\n"
        "old = their_package:Gone\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ADAPTERS, "_parts", dict(ADAPTERS._parts))
    yield tmp_path
    sys.modules.pop("their_package", None)


def test_a_registered_part_is_found_by_name(colours):
    assert colours["red"] is str
    assert colours.check("red") == "red"


def test_a_name_cannot_be_registered_twice(colours):
    with pytest.raises(ValueError, match="colour 'red' is registered twice"):
        colours("red")(int)
    assert colours("red")(str) is str


def test_an_unknown_name_lists_the_valid_ones_and_the_nearest(colours):
    for look_up in [colours.check, colours.__getitem__]:
        with pytest.raises(InputError, match=r"unknown colour 'rad'; allowed: blue, red; did you mean 'red'\?"):
            look_up("rad")


def test_listing_and_checking_import_nothing(colours):
    assert list(colours) == ["blue", "red"]
    assert "blue" in colours
    assert colours.check("blue") == "blue"
    with pytest.raises(ModuleNotFoundError):
        colours["blue"]


def test_an_outside_packages_adapter_is_found(outside_package):
    assert "theirs" in ADAPTERS
    assert "their_package" not in sys.modules
    assert ADAPTERS["theirs"].__name__ == "Theirs"
    assert ADAPTERS["theirs"] is ADAPTERS["theirs"]


def test_an_outside_package_is_found_by_a_fresh_process(outside_package):
    code = f"import sys; sys.path.insert(0, {str(outside_package)!r})\n"
    code += "from isaerft.registry import ADAPTERS; sys.stdout.write(ADAPTERS['theirs'].__name__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "Theirs"


@pytest.mark.parametrize(("name", "reason"), [("broken", "No module named 'no_such_package'"), ("old", "Gone")])
def test_an_outside_package_that_cannot_be_loaded_is_named(outside_package, name, reason):
    with pytest.raises(InputError, match=rf"adapter '{name}' from '.*' cannot be loaded .*{reason}.*uninstall"):
        ADAPTERS[name]


@pytest.mark.parametrize("parts", REGISTRIES, ids=lambda parts: parts.group)
def test_every_builtin_name_is_registered_by_the_module_that_it_names(parts):
    for name, module in parts._builtin.items():
        import_module(module)
        assert name in parts._parts, f"{module} does not register {parts.kind} {name!r}"


@pytest.mark.parametrize("parts", REGISTRIES, ids=lambda parts: parts.group)
def test_no_part_of_ours_is_registered_unlisted(parts):
    for name in parts._builtin:
        parts[name]
    ours = {name for name, part in parts._parts.items() if getattr(part, "__module__", "").startswith("isaerft.")}
    assert ours <= set(parts._builtin)


def test_the_statistics_are_one_registry():
    from isaerft import stats

    assert stats.STATISTICS is STATISTICS
    assert "stratified_auroc" in STATISTICS


def test_names_of_torch_backed_parts_are_listed_without_torch():
    code = "import sys; from isaerft.registry import ADAPTERS; list(ADAPTERS); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
