"""What the digests that rerun jobs see: everything that a verb runs, and nothing else."""

import sys

import pytest

from isaerft import digest
from isaerft.digest import Part, code, modules_of, settings
from isaerft.errors import InputError
from isaerft.registry import ADAPTERS, JUDGES, MEASURES, OBJECTIVES

THEIRS = "isaerft_test_outside"


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package of somebody else's with an adapter, named by an entry point alone."""
    package = tmp_path / THEIRS
    package.mkdir()
    (package / "__init__.py").write_text("from isaerft_test_outside.adapter import Theirs\n")
    (package / "adapter.py").write_text("from isaerft.adapters.maps import LowRank\nclass Theirs(LowRank):\n    pass\n")
    info = tmp_path / f"{THEIRS}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {THEIRS}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[isaerft.adapters]\ntheirs = {THEIRS}:Theirs\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    sys.modules.pop(THEIRS, None)


@pytest.fixture(autouse=True)
def read_anew():
    yield
    for cached in (
        code,
        modules_of,
        digest._file_of,
        digest._module,
        digest._origin,
        digest._imports,
        digest._commands,
    ):
        cached.cache_clear()
    digest._outside_sources.cache_clear()


def test_training_depends_on_its_adapter_and_objective_but_on_no_other_and_on_no_statistic():
    found = modules_of("train", Part(ADAPTERS, "bias"), Part(OBJECTIVES, "dpo"))
    assert {"isaerft.adapters.elementwise", "isaerft.training.objectives", "isaerft.training.loop"} <= set(found)
    assert not {"isaerft.adapters.maps", "isaerft.judges.lexical"} & set(found)
    assert not [name for name in found if name.startswith(("isaerft.report", "isaerft.analysis", "isaerft.stats."))]


def test_what_seeds_every_training_is_part_of_every_training():
    assert "isaerft.config.plan" in modules_of("train", Part(ADAPTERS, "bias"))


def test_a_judge_depends_on_its_own_kind_alone():
    lexical = modules_of("judge", Part(JUDGES, "lexical"))
    assert "isaerft.judges.lexical" in lexical
    assert "isaerft.judges.llm" not in lexical
    assert "isaerft.judges.llm" in modules_of("judge", Part(JUDGES, "llm"))


def test_tables_depend_on_every_module_of_the_analysis():
    found = modules_of("tables", packages=("isaerft.analysis",))
    assert {"isaerft.analysis.subjects", "isaerft.analysis.explained_latents", "isaerft.stats.verdicts"} <= set(found)


def test_editing_a_file_of_an_outside_package_changes_its_digest_and_no_other(outside):
    def digests():
        for cached in (code, modules_of, digest._outside_sources, digest._imports):
            cached.cache_clear()
        return code("train", Part(ADAPTERS, "theirs")), code("train", Part(ADAPTERS, "bias"))

    theirs, ours = digests()
    assert "isaerft.adapters.maps" in modules_of("train", Part(ADAPTERS, "theirs"))
    assert THEIRS not in sys.modules, "listing is not importing"
    (outside / "adapter.py").write_text((outside / "adapter.py").read_text() + "    x = 1\n")
    assert digests()[0] != theirs
    assert digests()[1] == ours
    theirs = digests()[0]
    (outside / "helper.py").write_text("y = 2\n")
    assert digests()[0] != theirs


def test_every_verb_of_the_command_line_has_a_digest_of_its_own():
    from isaerft.cli.app import app

    found = {command.name: code(command.name) for command in app.registered_commands}
    assert len(set(found.values())) == len(found)


def test_styles_and_scripts_of_pages_count_with_the_modules_beside_them(monkeypatch, tmp_path):
    found = digest._files_beside(modules_of("latent-pages"))
    assert [path.name for path in found] == ["latents.css", "latents.js"]
    assert digest._files_beside(modules_of("judge")) == []
    before = code("latent-pages")
    edited = tmp_path / "latents.js"
    edited.write_text(found[1].read_text(encoding="utf-8") + " ", encoding="utf-8")
    monkeypatch.setattr(digest, "_files_beside", lambda modules: [found[0], edited])
    code.cache_clear()
    assert code("latent-pages") != before


def test_an_unknown_verb_is_refused():
    with pytest.raises(InputError, match=r"verb .trian.; allowed: .*train"):
        code("trian")


def test_options_are_digested_by_value():
    assert settings(1, {"a": 2}) == settings(1, {"a": 2}) != settings(1, {"a": 3})


def test_a_measure_is_found_where_it_is_defined():
    assert "isaerft.changes.measures" in modules_of("changes", Part(MEASURES, "parameter"))


def test_no_module_hides_what_it_uses_in_relative_imports():
    relative = [path.name for path in digest.PACKAGE.rglob("*.py") if "\nfrom ." in path.read_text(encoding="utf-8")]
    assert relative == []
