"""What `mkdocs build` adds to the pages of docs/: README.md as the first page, notebooks, the API reference, the menu.

Each package of isaerft has one API page with its modules; mkdocstrings reads their docstrings.
A notebook becomes a page through nbconvert; the page is Markdown like all others, so its links are checked as theirs.
A link from a page to a file outside docs/ (an example, a config) takes that file into the site.
"""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "isaerft"
FIRST = ("quickstart", "reading_results", "faq")
REFERENCE = ("tables", "config", "architecture")
PROJECT = {
    "config/README.md": "Config folder",
    "CONTRIBUTING.md": "Contributing",
    "SECURITY.md": "Security",
    "CHANGELOG.md": "Changes",
}
NOTEBOOKS = DOCS / "notebooks"
LINK = re.compile(r"(\]\()([^)#\s:]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the first page, the project's pages, the API reference and every file that a page links to; make the menu."""
    guides = sorted(path.stem for path in DOCS.glob("*.md"))
    api = dict(_api_pages())
    pages = {"index.md": "README.md"} | {name: name for name in PROJECT}
    for uri, source in pages.items():
        page = ROOT / source
        files.append(File.generated(config, uri, content=_relinked(page.read_text("utf-8"), page.parent)))
    notebooks = {f"notebooks/{name}.md": name for name in _notebooks()}
    for uri, name in notebooks.items():
        files.append(File.generated(config, uri, content=_notebook_page(name)))
    for uri, content in api.items():
        files.append(File.generated(config, uri, content=content))
    for path in sorted(_linked_outside()):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    config.nav = [
        {"isaerft": "index.md"},
        *(f"{name}.md" for name in FIRST if name in guides),
        {"Notebooks": list(notebooks)},
        {"Guides": [f"{name}.md" for name in guides if name not in FIRST + REFERENCE]},
        {"Reference": [f"{name}.md" for name in REFERENCE if name in guides]},
        {"API": list(api)},
        {"Project": [{title: name} for name, title in PROJECT.items()]},
    ]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page in docs/ that leave docs/ into links within the site."""
    source = DOCS / page.file.src_uri
    return _relinked(markdown, DOCS) if source.is_file() else markdown


def _notebooks() -> list[str]:
    """Return the names of the notebooks in the order in which they are read."""
    names: list[str] = runpy.run_path(str(NOTEBOOKS / "execute.py"))["names"]()
    return names


def _notebook_page(name: str) -> str:
    """Return a notebook as Markdown, with a link to the notebook itself below its heading."""
    body, _ = MarkdownExporter().from_filename(str(NOTEBOOKS / f"{name}.ipynb"))
    heading, _, rest = body.lstrip().partition("\n")
    rest = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", rest)
    rest = rest.replace('<table border="1" class="dataframe">', "<table>")
    return f"{heading}\n\n[Download this notebook]({name}.ipynb)\n{rest}"


def _api_pages() -> Iterator[tuple[str, str]]:
    """Yield the path and the content of an API page for isaerft's own modules and for each of its packages."""
    groups = {"isaerft": sorted(PACKAGE.glob("*.py"))}
    for package in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        groups[f"isaerft.{package.name}"] = sorted(package.rglob("*.py"))
    for name, paths in groups.items():
        blocks = [_api_block(path) for path in paths if path.name != "__main__.py"]
        yield f"api/{name}.md", "\n".join([f"# {name}\n", *sorted(blocks)])


def _api_block(path: Path) -> str:
    """Return what asks mkdocstrings for a module; a package that defines nothing leaves its members to its modules."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    empty = path.name == "__init__.py" and not re.search(r"^(def|class) [^_]", path.read_text("utf-8"), re.MULTILINE)
    return f"::: {module}\n    options: {{show_submodules: false{', members: false' if empty else ''}}}\n"


def _linked_outside() -> Iterator[Path]:
    """Yield the files outside docs/, other than pages, that the pages link to."""
    found = {target for page in DOCS.glob("*.md") for target in _targets(page.read_text("utf-8"), DOCS)}
    for name in ("README.md", *PROJECT):
        found |= set(_targets((ROOT / name).read_text("utf-8"), (ROOT / name).parent))
    pages = {ROOT / "README.md", *(ROOT / name for name in PROJECT)}
    yield from (path for path in found - pages if not path.is_relative_to(DOCS))


def _targets(markdown: str, folder: Path) -> Iterator[Path]:
    for match in LINK.finditer(markdown):
        path = (folder / match[2]).resolve()
        if path.is_file():
            yield path


def _relinked(markdown: str, folder: Path) -> str:
    """Rewrite the links of a page in `folder` to where their files are in the site, seen from the page."""
    here = folder.relative_to(DOCS if folder.is_relative_to(DOCS) else ROOT)

    def rewrite(match: re.Match[str]) -> str:
        path = (folder / match[2]).resolve()
        if not path.is_file():
            return match[0]
        if path.is_relative_to(DOCS):
            # A notebook is a page of the site, but for its own link to download it.
            there = path.relative_to(DOCS).as_posix().replace(".ipynb", ".md")
        else:
            there = "index.md" if path == ROOT / "README.md" else path.relative_to(ROOT).as_posix()
        return match[1] + os.path.relpath(there, here)

    return LINK.sub(rewrite, markdown)
