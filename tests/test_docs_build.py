"""The documentation builds without a warning and without a network, and every module is in its API reference."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = runpy.run_path(str(ROOT / "docs/build.py"))
# A proxy that nobody runs: whatever the build wanted to fetch would fail, and strictness make an error of it.
NOWHERE = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | NOWHERE | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder


@pytest.mark.slow
def test_the_docs_build_strictly_and_without_a_network(site):
    for page in (
        "index",
        *(f"notebooks/{path.stem}" for path in (ROOT / "docs/notebooks").glob("*.ipynb")),
        *(path.stem for path in (ROOT / "docs").glob("*.md")),
    ):
        assert (site / f"{page}.html").is_file(), page


@pytest.mark.slow
def test_every_public_module_is_in_the_api_reference(site):
    pages = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    for path in (ROOT / "isaerft").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        private = any(part.startswith("_") for part in module.split("."))
        if path.read_text(encoding="utf-8").startswith('"""') and not private:
            assert f'id="{module}"' in pages, module


@pytest.mark.slow
def test_the_pages_load_nothing_from_another_host(site):
    loaded = re.compile(
        r"""<(?:script|img|iframe)[^>]*\ssrc=["']?(https?:)?//|<link[^>]*rel=["']?stylesheet[^>]*https?://"""
    )
    for path in site.rglob("*.html"):
        assert not loaded.search(path.read_text(encoding="utf-8")), path.name


def test_a_link_that_leaves_the_docs_stays_within_the_site():
    relinked = BUILD["_relinked"]
    assert relinked("[a](../config/testbed.yaml)", ROOT / "docs") == "[a](config/testbed.yaml)"
    assert relinked("[a](../README.md#use)", ROOT / "docs") == "[a](index.md#use)"
    assert relinked("[a](docs/statistics.md#power)", ROOT) == "[a](statistics.md#power)"
    assert relinked("[a](notebooks/quickstart.ipynb)", ROOT / "docs") == "[a](notebooks/quickstart.md)"
    assert relinked("[a](../docs/clusters.md)", ROOT / "config") == "[a](../clusters.md)"
    for kept in ("[a](statistics.md)", "[a](#power)", "[a](https://example.org/config)", "[a](../nothing.md)"):
        assert relinked(kept, ROOT / "docs") == kept


def test_the_api_reference_names_every_module_once():
    pages = dict(BUILD["_api_pages"]())
    found = re.findall(r"^::: (\S+)$", "\n".join(pages.values()), re.MULTILINE)
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "isaerft").rglob("*.py")
        if path.name != "__main__.py"
    }
    assert len(found) == len(set(found))
    assert set(found) == modules
