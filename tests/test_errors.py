import pickle

import pytest

from isaerft.errors import MAX_LISTED, MAX_PART, InputError, one_line, shown, unknown_name

HOSTILE = ["\x1b[2J", "a\nb", "a\rb", "\x00", "\u202e", "\u2066", "\u200f", "\u2028", "\ud800", "\x9b"]


def test_an_error_says_what_was_given_what_is_allowed_and_what_to_do():
    error = InputError("firing rate 7", allowed="0 to 1", remedy="check the units")
    assert str(error) == "firing rate 7; allowed: 0 to 1; check the units"
    assert (error.problem, error.allowed, error.remedy) == ("firing rate 7", "0 to 1", "check the units")
    assert str(InputError("nothing")) == "nothing"
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_is_one_line_that_a_terminal_prints_and_utf_8_holds(text):
    errors = [
        InputError(text, allowed=text, remedy=text),
        InputError(f"key {shown(text)}"),
        unknown_name(text, text, ["x" + text]),
    ]
    for error in errors:
        message = str(error)
        assert message.isprintable()
        assert message.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_escaped_is_still_seen(text):
    assert "\\" in str(InputError(text))


def test_readable_text_is_left_as_it_is():
    assert one_line("Grüße, 世界 🙂 'quoted' \\ back") == "Grüße, 世界 🙂 'quoted' \\ back"


@pytest.mark.parametrize("size", [10**5, 10**6])
def test_a_huge_value_gives_a_short_error(size):
    assert len(shown("x" * size)) < 400
    assert len(str(InputError("x" * size))) < MAX_PART + 100
    assert len(str(unknown_name("latent", "x" * size, ["y" * size]))) < 1000


def test_an_unknown_name_lists_the_valid_ones_and_the_nearest():
    error = unknown_name("behavior", "refusl", ["refusal", "helpfulness"])
    assert str(error) == "unknown behavior 'refusl'; allowed: helpfulness, refusal; did you mean 'refusal'?"


def test_a_name_like_no_other_gets_no_guess():
    assert unknown_name("behavior", "zzz", ["refusal"]).remedy == ""


def test_no_valid_name_is_said_so():
    assert unknown_name("judge", "x", []).allowed == "none is available"


def test_a_long_list_is_cut_and_counted():
    names = [f"b{i:03}" for i in range(MAX_LISTED + 60)]
    allowed = unknown_name("behavior", "zzz", names).allowed
    assert allowed.endswith(f"b{MAX_LISTED - 1:03}, ... ({len(names)} in all)")


def test_an_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(InputError("given", allowed="this", remedy="do that")))
    assert str(error) == "given; allowed: this; do that"
    assert error.allowed == "this"
