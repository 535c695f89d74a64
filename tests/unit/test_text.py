"""Hostile text becomes harmless, and fits its cells."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.text import did_you_mean, display_width, fit, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web-01", "web-01"),
        ("a\x1b[31mb", "a\\e[31mb"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\u009b2J", "\\x9b2J"),
        ("evil\u202etxt", "evil\\u202etxt"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("日本語 вм", "日本語 вм"),
        ("[red]<b>", "[red]<b>"),
    ],
)
def test_what_controls_or_hides_is_made_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_nothing_invisible_is_left_and_it_stays_on_one_line(text: str) -> None:
    shown = printable(text)

    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for char in shown)


def test_a_limit_cuts_with_an_ellipsis() -> None:
    assert printable("n" * 10_000, limit=10) == "n" * 9 + "…"
    assert printable("n" * 10, limit=10) == "n" * 10
    assert printable("ab", limit=0) == "…"


@given(st.text(max_size=30), st.integers(min_value=1, max_value=20), st.booleans())
def test_a_fitted_text_takes_exactly_its_cells(text: str, width: int, right: bool) -> None:
    assert display_width(fit(printable(text), width, right=right)) == width


def test_wide_characters_take_two_cells_and_marks_none() -> None:
    assert display_width("日本") == 4
    assert display_width("e\u0301") == 1
    assert fit("日本語", 5) == "日本…"
    assert fit("日本語", 4) == "日… "
    assert fit("ab", 4, right=True) == "  ab"
    assert fit("ab", 0) == ""


def test_the_nearest_word_is_offered_and_all_of_them_where_none_is_near():
    known = ("start", "stop", "")
    assert did_you_mean("Strat", known) == "Did you mean start?"
    assert did_you_mean("zzz", known) == "Known: start, stop"
    assert did_you_mean("zzz", known, otherwise="See the list") == "See the list"
    assert did_you_mean("x" * 100_000, known) == "Known: start, stop"
