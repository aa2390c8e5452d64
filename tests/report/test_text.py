import pandas as pd
import pytest

from isaerft.report import text


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA])
def test_undefined_is_dash_not_zero(value):
    for show in (text.number, text.fixed, text.count, text.visible):
        assert show(value) == "—"


def test_zero_is_zero_not_dash():
    assert (text.number(0.0), text.fixed(0.0), text.count(0), text.fixed(-0.001)) == ("0", "0.00", "0", "0.00")


def test_direction_and_invisible_characters_are_seen():
    assert text.visible("a\u202eb\u200bc\u2066d\u200ee\U000e0041f") == "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf"
    assert text.visible("line\nbreak\x00end\ttab\u2028") == "line break end tab"


def test_lone_surrogates_and_noncharacters_do_not_survive():
    assert text.visible("a\ud800b\uffffc").encode("utf-8").decode() == "a\ufffdb\ufffdc"


def test_pile_of_combining_marks_is_bounded():
    assert len(text.visible("e" + "\u0335" * 500)) <= 1 + text.MAX_COMBINING


def test_other_scripts_pass_unchanged():
    assert text.visible("敬語 مرحبا naïve") == "敬語 مرحبا naïve"


def test_shortened_text_fits_in_its_columns():
    assert text.shorten("abcdef", 6) == "abcdef"
    assert text.shorten("abcdefg", 6) == "abcde…"
    assert text.shorten("敬語敬語敬語", 6) == "敬語…"


def test_long_names_with_one_beginning_stay_distinct():
    names = [f"the_same_long_beginning_{i}_end" for i in range(30)]
    assert len(set(text.distinct(names, 12))) == 30
    assert text.distinct(["same", "same"], 3) == ["sa…", "sa…"]
