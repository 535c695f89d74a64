from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.errors import UsageError
from host.units import GIB, MIB, format_bytes, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("512M", 512 * MIB),
        ("2G", 2 * GIB),
        (" 2 gib ", 2 * GIB),
        ("1.5GB", 3 * GIB // 2),
        ("0.1K", 102),
        ("4096B", 4096),
        ("0B", 0),
        ("1T", 1024 * GIB),
    ],
)
def test_a_size_is_read_in_powers_of_1024(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "2", "-1G", "2X", "G", "1e3M", "1,5G", "٣G", "9999999E", "2G\x1b[31m", "1.G"])
def test_a_text_that_is_no_size_is_a_usage_error_with_a_remedy(text):
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert caught.value.remedy


def test_a_bare_number_is_answered_with_the_two_likely_meanings():
    with pytest.raises(UsageError, match=r"2048M or 2048G"):
        parse_size("2048")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1K"),
        (1500, "1.5K"),
        (512 * MIB, "512M"),
        (2 * GIB, "2.0G"),
        (99.96 * GIB, "100G"),
        (1010 * GIB, "1.0T"),
        (-3 * GIB // 2, "-1.5G"),
        (2**70, "1024E"),
    ],
)
def test_a_size_is_shown_short(size_bytes, text):
    assert format_bytes(size_bytes) == text


@given(st.integers(min_value=0, max_value=2**62))
def test_what_is_shown_can_be_read_again_and_is_close(size_bytes):
    again = parse_size(format_bytes(size_bytes))
    assert abs(again - size_bytes) <= max(size_bytes * 0.06, 1)
