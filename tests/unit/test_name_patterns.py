"""Names of a set of VMs: what a pattern may hold, what it gives, and which of them are taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.errors import UsageError
from vm.name_patterns import MOST_NAMES, collisions, expand, has_field


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("web-{:02}", ("web-09", "web-10", "web-11")),
        ("web-{}", ("web-9", "web-10", "web-11")),
        ("{:03d}.lab", ("009.lab", "010.lab", "011.lab")),
        ("n{:d}", ("n9", "n10", "n11")),
    ],
)
def test_a_field_is_the_number_with_as_many_digits_as_it_asks_for(pattern: str, names: tuple[str, ...]) -> None:
    assert expand(pattern, 3, first=9) == names
    assert has_field(pattern)


def test_a_number_wider_than_its_field_is_written_out() -> None:
    assert expand("w{:02}", 2, first=99) == ("w99", "w100")


def test_a_name_without_a_field_is_good_for_one() -> None:
    assert expand("web", 1) == ("web",)
    assert not has_field("web")
    with pytest.raises(UsageError, match="'web' is one name, and 2 VMs are wanted"):
        expand("web", 2)


@pytest.mark.parametrize(
    "pattern",
    [
        "{0.__class__}",
        "{0}",
        "{name}",
        "{!r}",
        "{:>9}",
        "{:010}",
        "{:2}",
        "{:}",
        "{:02x}",
        "{:99999999d}",
        "{{}}",
        "web-{",
        "web-}",
        "{:{}}",
        "a{}b{}",
        "{:٣}",
    ],
)
def test_any_other_field_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError) as caught:
        expand(pattern, 1)
    assert caught.value.remedy


@pytest.mark.parametrize("pattern", ["", " {}", "a/{}", "*{}", "\x1b[31m{}", "x" * 200 + "{}"])
def test_a_name_that_no_vm_can_have_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError) as caught:
        expand(pattern, 1)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(("count", "first"), [(0, 1), (-1, 1), (MOST_NAMES + 1, 1), (1, -1), (1, 10**12)])
def test_numbers_out_of_range_are_refused(count: int, first: int) -> None:
    with pytest.raises(UsageError, match=r"count|first"):
        expand("{}", count, first)


@given(st.text(max_size=40))
def test_whatever_is_typed_is_a_name_or_a_usage_error(pattern: str) -> None:
    try:
        names = expand(pattern, 1)
    except UsageError:
        return
    assert len(names) == 1


def test_collisions_are_the_taken_names_in_order_and_those_that_stand_twice() -> None:
    assert collisions(["a", "b", "c", "b"], {"c", "x"}) == ("c", "b")
    assert collisions(expand("web-{}", 3), ()) == ()
