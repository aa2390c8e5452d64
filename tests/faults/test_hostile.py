"""What tests/faults/hostile.py looks for is found where it is planted, and nothing in what is harmless."""

import pytest

from tests.faults import hostile
from tests.faults.hostile_texts import KINDS, texts

MARK = "q001z"
PAGE = '<!doctype html><meta http-equiv="Content-Security-Policy" content="x"><p data-v="{0}">{0}</p>'
SVG = '<svg xmlns="http://www.w3.org/2000/svg">{}<text>q001z</text></svg>'


def found_by(check, path, text, *more):
    path.write_text(text, encoding="utf-8")
    found = hostile.Findings()
    check(path, *more, found)
    return found.lines


@pytest.mark.parametrize(
    "row",
    ["=1", "a,+x", "a;=1", "a; +1", '"a;""=1"', "\u200d=1", "\xad=1", "\x1b[2J", "a,b,c", "\u202e", "\uff1d1"],
)
def test_a_table_that_a_spreadsheet_would_run_is_found(tmp_path, row):
    assert found_by(hostile.check_table, tmp_path / "a.csv", f"name,value\n{row}\n")


def test_numbers_and_words_are_harmless(tmp_path):
    table = "name,value\n'=1,-1.5e-3\nb,+2\na;'=1,\n"
    assert not found_by(hostile.check_table, tmp_path / "a.csv", table)
    assert not found_by(hostile.check_log, tmp_path / "a.log", "50%\r100% 3.0it/s]\nread a\\x1b[2J\n")
    assert not found_by(hostile.check_page, tmp_path / "a.html", PAGE.format(MARK), PAGE.format(MARK), {"meta", "p"})
    assert not found_by(hostile.check_figure, tmp_path / "a.svg", SVG.format(""))


@pytest.mark.parametrize("text", ["\x1b[2J", "a\rb", "said\nforged line", "\u202e", "\x9b31m"])
def test_a_log_that_commands_a_terminal_is_found(tmp_path, text):
    assert found_by(hostile.check_log, tmp_path / "a.log", text)


@pytest.mark.parametrize("text", ["<script/>", f'<g id="{MARK}"/>', '<g onload="x"/>', "<foreignObject/>", "\x9b"])
def test_a_figure_with_parts_that_text_made_is_found(tmp_path, text):
    assert found_by(hostile.check_figure, tmp_path / "a.svg", SVG.format(text))


@pytest.mark.parametrize(
    "text",
    [
        "<b>", f"<p id={MARK}>", "<p onclick=x>", f"<a href=javascript:{MARK}>", f"<!--{MARK}-->", "<html data-ran=x>",
        "<script>x</script><script>y</script>",
    ],
)  # fmt: skip
def test_a_page_with_parts_that_text_made_is_found(tmp_path, text):
    dom = PAGE.format(MARK) + text
    tags = {"meta", "p", "a", "html", "script"}
    assert found_by(hostile.check_page, tmp_path / "a.html", PAGE.format(MARK), dom, tags)


@pytest.mark.parametrize(
    "text",
    [
        'latents("a",[])\nevil()\n',
        'latents("a",["<b>"])\n',
        'latents("b",[])\n',
        'latents("a",["\u2028"])\n',
        "evil()\n",
    ],
)
def test_a_data_file_that_does_more_than_hand_over_json_is_found(tmp_path, text):
    assert not found_by(hostile.check_data, tmp_path / "a.js", 'latents("a",["\\u003cb>",1])\n')
    assert found_by(hostile.check_data, tmp_path / "a.js", text)


def test_explanations_that_were_changed_or_lost_are_found(tmp_path):
    given = dict(enumerate(texts("/away", 0)[:10]))
    rows = "".join(f"{latent},other words\n" for latent in given)
    header = "latent_index,explanation\n"
    assert len(found_by(hostile.check_explanations, tmp_path / "a.csv", header + rows, given)) == 10
    assert found_by(hostile.check_explanations, tmp_path / "a.csv", header, given)


def test_the_texts_are_two_hundred_or_more_that_differ_and_bear_marks_of_their_own():
    found = texts("/away", 3)
    assert len(found) == len({one.text for one in found}) == len({one.mark for one in found}) >= 200
    assert all(one.mark in one.text for one in found)
    assert {one.kind for one in found} == set(KINDS)
    assert texts("/away", 3) == found != texts("/away", 4)


def test_the_templates_elements_are_known():
    assert {"table", "td", "img", "article", "button", "mark", "bdi"} <= hostile.template_tags()
    # An svg is our own, as an img is; what hostile ones hold is not.
    foreign = {"use", "image", "animate", "foreignobject", "iframe", "object", "embed", "link", "base"}
    assert not foreign & hostile.template_tags()
