"""Which part of a line of XML is what: a tokenizer for colours, which takes any text, finished or not.

It goes line by line; what a line leaves open (a comment, a tag, a value) is the `Inside` that the next one begins with.
It knows no DTD and judges nothing. Not tree-sitter, which Textual could use: two compiled wheels, 40 ms to load them
(measured on 2 cores), and a query over the whole text at each key, for what a regular expression a line does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TypeAlias

Piece: TypeAlias = tuple[int, int, str]  # start, end, and role: a role of themes.Palette


class Inside(StrEnum):
    """What a line begins inside of."""

    TEXT = ""
    COMMENT = "-->"
    DATA = "]]>"
    INSTRUCTION = "?>"
    DECLARATION = ">"
    TAG = "tag"
    DOUBLE_QUOTES = '"'
    QUOTES = "'"


_OPENING = {
    "<!--": Inside.COMMENT,
    "<![CDATA[": Inside.DATA,
    "<?": Inside.INSTRUCTION,
    "<!": Inside.DECLARATION,
}
_IN_TEXT = re.compile(r"(?P<opening><!--|<!\[CDATA\[|<\?|<!)|(?P<mark></?)(?P<tag>[^\s<>/=\"'&]+)|(?P<entity>&[#\w]+;)")
_IN_TAG = re.compile(r"(?P<end>/?>)|(?P<quote>[\"'])|(?P<name>[^\s<>/=\"']+)|(?P<mark>[=/])|(?P<broken><)")
# A line on which whatever opens is closed again: most are, and this tells it ten times faster than taking it to pieces.
# Atomic groups: it never looks twice at a character. (Possessive groups match anything in Python 3.11.2.)
_CLOSED = re.compile(r"""(?>(?>[^<]*<(?![!?])(?>(?>"[^"]*"|'[^']*'|[^<>"'])*)>)*)[^<]*""")
_MARK, _TAG, _NAME, _VALUE, _ASIDE, _ENTITY, _WRONG = "dim", "accent", "text", "good", "dim", "warn", "bad"


def pieces(line: str, inside: Inside = Inside.TEXT) -> tuple[list[Piece], Inside]:
    """The coloured parts of `line`, in order (between them it is plain text), and what the next line is inside of."""
    found: list[Piece] = []
    place = 0
    while True:
        if inside is Inside.TEXT:
            place, inside = _text(line, place, found)
        elif inside is Inside.TAG:
            place, inside = _tag(line, place, found)
        else:
            place, inside = _until_closed(line, place, inside, found)
        if place >= len(line):
            return found, inside


def insides(lines: Sequence[str], begin: Inside = Inside.TEXT) -> Iterator[Inside]:
    """What each line begins inside of, and last what would follow the last one."""
    yield begin
    for line in lines:
        if begin is not Inside.TEXT or _CLOSED.fullmatch(line) is None:
            begin = pieces(line, begin)[1]
        yield begin


def _text(line: str, place: int, found: list[Piece]) -> tuple[int, Inside]:
    """Until something opens."""
    for match in _IN_TEXT.finditer(line, place):
        if match["entity"]:
            found.append((*match.span(), _ENTITY))
        elif match["tag"]:
            found += [(*match.span("mark"), _MARK), (*match.span("tag"), _TAG)]
            return match.end(), Inside.TAG
        else:
            found.append((*match.span(), _ASIDE))
            return match.end(), _OPENING[match["opening"]]
    return len(line), Inside.TEXT


def _tag(line: str, place: int, found: list[Piece]) -> tuple[int, Inside]:
    """Until the tag ends or a value begins."""
    for match in _IN_TAG.finditer(line, place):
        if match["quote"]:
            found.append((*match.span(), _VALUE))
            return match.end(), Inside(match["quote"])
        if match["broken"]:  # the tag was never closed: this is where that shows
            found.append((*match.span(), _WRONG))
            return match.start() + 1, Inside.TEXT
        found.append((*match.span(), _NAME if match["name"] else _MARK))
        if match["end"]:
            return match.end(), Inside.TEXT
    return len(line), Inside.TAG


def _until_closed(line: str, place: int, inside: Inside, found: list[Piece]) -> tuple[int, Inside]:
    is_value = inside in {Inside.QUOTES, Inside.DOUBLE_QUOTES}
    end = line.find(inside.value, place)
    stop = end + len(inside.value) if end >= 0 else len(line)
    if stop > place:
        found.append((place, stop, _VALUE if is_value else _ASIDE))
    if end < 0:
        return stop, inside
    return stop, Inside.TAG if is_value else Inside.TEXT
