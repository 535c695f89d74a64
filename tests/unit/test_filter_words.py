"""The explanation of the filter language is complete, and what people bring from elsewhere is answered."""

from __future__ import annotations

import re

import pytest

from host.errors import UsageError
from vm import filter_words
from vm.filter import FLAGS, KEYS, parse


def test_every_key_and_property_is_explained() -> None:
    assert tuple(filter_words.KEYS) == KEYS
    assert tuple(filter_words.FLAGS) == FLAGS


def test_every_example_is_a_filter() -> None:
    spans = re.findall(r"`([^`\n]+)`", filter_words.page())
    examples = [each for each in spans if re.fullmatch(r"-?[a-z]+(:|[<>]=?)\S.*", each)]
    assert len(examples) > 20
    for example in examples:
        parse(example.replace("key:", "tag:"))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("!tag:web", "Write -tag:web"),
        ("a or b", "state:running,paused"),
        ("a AND b", "Leave it out"),
        ("not x", "-tag"),
    ],
)
def test_another_languages_words_are_answered_with_ours(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text)
    assert hint in raised.value.remedy


@pytest.mark.parametrize("text", ['"or"', '"!x"', "name:or", "-name:and", "oracle", "or,and", "!"])
def test_such_words_can_be_looked_for_all_the_same(text: str) -> None:
    parse(text)


def test_a_word_that_begins_so_can_be_typed() -> None:
    assert parse("web or", lenient=True).tests
