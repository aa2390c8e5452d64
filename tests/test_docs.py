"""README and docs: links resolve, the architecture page shows the code as it is, and the quickstart runs."""

import contextlib
import io
import re
import runpy
import shlex
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser
from snakemake.exceptions import CliException, WorkflowError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "results/README.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^()\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def text_of(page):
    return CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page):
    """Return the anchors that GitHub gives to a page's headings."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(text_of(page))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_whole(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") % 2 == 0, "a block of code is open"
    assert text.rstrip().endswith((".", "|", "```", "-->", ")")), "the last sentence is cut"


def test_every_link_leads_to_a_file_and_a_heading():
    broken = []
    for page in PAGES:
        for link in LINK.findall(text_of(page)):
            path, _, anchor = link.partition("#")
            if "://" in link:
                continue
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken


COMMAND = re.compile(r"^(?:\$ |# +|    )?(?:nice )?(snakemake -.*)$|`(snakemake -[^`]* [^`]+)`", re.MULTILINE)
WHOLE = [
    *PAGES,
    ROOT / "config/README.md",
    ROOT / "workflow/Snakefile",
    ROOT / "environment.yml",
    *sorted((ROOT / "config").glob("*.yaml")),
]


def test_snakemake_takes_every_command_that_is_shown():
    parser = get_argument_parser()
    refused, n_shown = [], 0
    for page in WHOLE:
        for found in COMMAND.finditer(page.read_text(encoding="utf-8").replace("\\\n", " ")):
            line = re.split(r" {3,}|&&", found[1] or found[2])[0]
            words = shlex.split(line, comments=True)[1:]
            n_shown += 1
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    parser.parse_args(words)
            except (SystemExit, CliException, WorkflowError):
                refused.append(f"{page.relative_to(ROOT)}: {line}")
    assert refused == []
    assert n_shown > 30


def test_the_readme_links_every_page_of_the_docs():
    linked = {link.partition("#")[0] for link in LINK.findall(text_of(ROOT / "README.md"))}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def test_the_architecture_page_shows_the_floors_and_names_every_module():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    blocks = runpy.run_path(str(ROOT / "benchmarks/structure.py"))["page_blocks"]()
    for name, block in blocks.items():
        assert f"<!-- {name} -->\n{block}\n<!-- /{name} -->" in text, "python benchmarks/structure.py --write ..."
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "isaerft").rglob("*.py")}
    packages = {name for name in modules if name.endswith("/__init__.py")}
    assert set(re.findall(r"`(isaerft/[\w/]+\.py)` \S", blocks["tree"])) == modules - packages


def test_the_page_on_behaviors_shows_the_example_rule_as_it_is():
    rule = (ROOT / "examples/limerick.smk").read_text(encoding="utf-8")
    assert f"```python\n{rule}```\n" in (ROOT / "docs/add_a_behavior.md").read_text(encoding="utf-8")


def test_the_quickstart_lowers_the_loss_and_lists_the_most_changed_latents(capsys):
    runpy.run_path(str(ROOT / "examples/quickstart.py"), run_name="__main__")
    printed = capsys.readouterr().out
    losses = [float(value) for value in re.findall(r"loss ([\d.]+)", printed)]
    changes = [abs(float(value)) for value in re.findall(r"change ([+-][\d.]+)", printed)]
    assert losses[-1] < losses[0] / 2
    assert len(changes) == 5
    assert changes == sorted(changes, reverse=True)
    assert changes[-1] > 0
