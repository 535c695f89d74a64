"""The colours of XML: every part gets its role, whatever is open, and each line can be taken alone."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from textual.strip import Strip

from hvtui.tui.screens.xml_editor import XmlEditorScreen
from hvtui.tui.themes import palette
from hvtui.tui.widgets.xml_text import XmlText
from hvtui.tui.xml_colors import Inside, insides, pieces
from tests.tui import scenes
from tests.tui.conftest import shown

ODD_PARTS = ("<a", ">", "/>", "</b>", "<!--", "-->", "<![CDATA[", "]]>", "<?x", "?>", "<!D", '"', "'", " b='c'", "=",
             "&amp;", "t ", "<", "日", "\u202e", "\n")  # fmt: skip
TEXTS = st.lists(st.sampled_from(ODD_PARTS), max_size=40).map("".join)


def parts(xml: str) -> list[tuple[str, str]]:
    """The text of each piece with its role."""
    lines = xml.split("\n")
    begins = list(insides(lines))
    return [
        (line[start:end], role)
        for line, begin in zip(lines, begins, strict=False)
        for start, end, role in pieces(line, begin)[0]
    ]


def test_tags_attributes_values_comments_and_entities_have_their_roles():
    assert parts("<a b='c'>t &amp;</a><!-- d -->") == [
        ("<", "dim"), ("a", "accent"), ("b", "text"), ("=", "dim"), ("'", "good"), ("c'", "good"), (">", "dim"),
        ("&amp;", "warn"), ("</", "dim"), ("a", "accent"), (">", "dim"), ("<!--", "dim"), (" d -->", "dim"),
    ]  # fmt: skip


def test_what_a_line_leaves_open_goes_on_in_the_next():
    assert parts("<!-- <a>\n<b> --><c") == [
        ("<!--", "dim"), (" <a>", "dim"), ("<b> -->", "dim"), ("<", "dim"), ("c", "accent"),
    ]  # fmt: skip
    assert parts('<a b="1\n<2>" c\n/>')[5:] == [
        ("1", "good"), ('<2>"', "good"), ("c", "text"), ("/>", "dim"),
    ]  # fmt: skip
    assert list(insides(["<![CDATA[<a>", "]]><a", "b='", "'>"])) == [
        Inside.TEXT, Inside.DATA, Inside.TAG, Inside.QUOTES, Inside.TEXT,
    ]  # fmt: skip


def test_a_tag_that_nobody_closed_is_marked_where_the_next_one_begins():
    assert ("<", "bad") in parts("<a <b>")


@given(TEXTS)
def test_pieces_are_in_order_and_inside_the_line_for_any_text(text: str):
    lines = text.split("\n")
    begins = list(insides(lines))
    assert len(begins) == len(lines) + 1
    for line, begin, after in zip(lines, begins, begins[1:], strict=False):
        found, left = pieces(line, begin)
        assert left is after, "the quick look and the exact one say the same"
        places = [place for start, end, _role in found for place in (start, end)]
        assert places == sorted(places)
        assert all(start < end <= len(line) for start, end, _role in found)


def test_hostile_lines_take_no_longer_than_their_length():
    for part in ("<a b='c'", "<", "<a '", "&amp", "<!--", '<a "', "<a>'"):
        list(insides([part * 20_000, part]))


def painted(editor: XmlText) -> list[list[Segment]]:
    return [list(Strip(editor.render_line(y)).simplify()) for y in range(editor.size.height)]


async def test_each_change_is_painted_as_if_all_were_painted_again():
    numbers = random.Random(7)  # noqa: S311 - the same changes in each run
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        xml = "\n".join(["<domain>", *["  <a b='c'>text</a>"] * 30, "</domain>"])
        app.push_screen(XmlEditorScreen(scenes.varied_vms()[0], xml))
        await pilot.pause()
        editor = app.screen.query_one(XmlText)
        for _ in range(150):
            change(editor, numbers)
            await pilot.pause()
            quick = painted(editor)
            editor._line_cache.clear()
            editor._insides = [Inside.TEXT]
            assert quick == painted(editor)


def change(editor: XmlText, numbers: random.Random) -> None:
    """Do one thing that people do to a text."""
    line = numbers.randrange(editor.document.line_count)
    place = (line, numbers.randint(0, len(editor.document.get_line(line))))
    doing: Any = numbers.choice(["insert", "insert", "delete", "undo", "redo", "paste", "long"])
    if doing == "insert":
        editor.insert(numbers.choice(ODD_PARTS), place)
    elif doing == "delete":
        editor.delete(place, (line, place[1] + numbers.randint(1, 6)))
    elif doing == "paste":
        editor.insert("<!-- two\nlines -->", place)
    elif doing == "long":
        editor.insert("<long a='" + "x" * 90 + "'/>", place)
    else:
        getattr(editor, doing)()
    editor.move_cursor((numbers.randrange(min(editor.document.line_count, 15)), 0))


async def test_the_editor_shows_colours_and_follows_the_theme():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.push_screen(XmlEditorScreen(scenes.varied_vms()[0], "<domain type='kvm'/>\n<b/>"))
        await pilot.pause()
        editor = app.screen.query_one(XmlText)
        for theme in ("hvtui-dark", "hvtui-light", "hvtui-ansi"):
            app.theme = theme
            await pilot.pause()
            for y, tag in enumerate(("domain", "b")):  # the cursor's line as well
                colors = {segment.text: segment.style.color for segment in editor.render_line(y) if segment.style}
                assert colors[tag] == palette(theme).ink("accent").color


async def test_no_color_shows_the_text_without_colour(monkeypatch: Any):
    monkeypatch.setenv("NO_COLOR", "1")
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.push_screen(XmlEditorScreen(scenes.varied_vms()[0], "<domain type='kvm'/>"))
        await pilot.pause()
        assert "<domain type='kvm'/>" in shown(app).text
        styles = [s.style for strip in app.screen._compositor.render_strips(app.size) for s in strip if s.style]
        assert all(color is None or color.is_default for style in styles for color in (style.color, style.bgcolor))
