"""The rows of the view, without a screen: wrapping, charts, tables, XML with line numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from host.text import printable
from hvtui.tui.hardware_text import hardware_rows
from hvtui.tui.log_text import log_rows
from hvtui.tui.rate_history import RateHistory
from hvtui.tui.summary_text import summary_rows
from hvtui.tui.widgets import charts
from hvtui.tui.widgets.details import flat_rows, tall_rows
from hvtui.tui.widgets.lines import width_of
from hvtui.tui.widgets.scroller import thumb
from hvtui.tui.widgets.wrapping import flowing, folded, wrapped
from hvtui.tui.xml_rows import ColoredXml, XmlRows
from tests.support.simulated_world import EVIL
from tests.tui import scenes, view_scenes
from vm import hardware
from vm.hardware import DiskSize
from vm.model import VmRates, VmState

TEXTS = st.text(alphabet=st.sampled_from(" ab-日語é\u0301ー"), max_size=60)
WIDTHS = st.integers(2, 30)
WEB = next(vm for vm in scenes.varied_vms() if vm.name == "web-01")


def text_of(rows) -> str:
    return "\n".join("".join(text for text, _role in row) for row in rows)


@given(TEXTS, WIDTHS)
def test_wrapped_text_fits_and_keeps_every_character_but_blanks(text: str, width: int):
    lines = wrapped(text, width)
    assert lines
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(st.lists(st.tuples(TEXTS, st.sampled_from(["text", "dim"])), max_size=6), WIDTHS)
def test_folded_spans_break_where_the_text_alone_would(spans: list[tuple[str, str]], width: int):
    lines = folded(spans, width)
    whole = folded([("".join(text for text, _role in spans), "text")], width)
    assert text_of(lines) == text_of(whole)
    assert all(width_of(line) <= width for line in lines)


def test_words_are_wrapped_whole_where_they_fit():
    assert wrapped("one two three", 8) == ["one two", "three"]
    assert wrapped("abcdefghij k", 4) == ["abcd", "efgh", "ij k"]
    assert wrapped("", 4) == [""]


def test_short_facts_flow_onto_the_next_line():
    facts = [("running", "good"), ("up 3d", "text"), ("title", "dim")]
    assert text_of(flowing(facts, 20)) == "running   up 3d\ntitle"


def test_a_tall_chart_fills_from_below():
    assert charts.block((0, 50, 100), 4, 2, top=100) == ["   █", " ▁██"]
    assert charts.block((100,), 2, 1, top=100) == [" █"]
    assert charts.block((), 3, 2, top=100) == ["   ", "   "]
    assert charts.block((5, 7), 2, 1, top=0) == ["▁▁"]
    assert charts.block((25, 75), 2, 2, top=100) == [" ▄", "▄█"]


@pytest.mark.parametrize("top", [0, 3, 90])
def test_the_scroll_mark_stands_where_one_is(top: int):
    first, end = thumb(top, 10, 100)
    assert end - first == 1
    assert first == round(top / 90 * 9)
    assert thumb(0, 10, 10) == (0, 0)


@pytest.mark.parametrize(("width", "height"), [(79, 20), (119, 36), (40, 10), (199, 56)])
def test_the_summary_fits_its_width_and_leaves_facts_in_sight(width: int, height: int):
    history = RateHistory(*[tuple(float(n) for n in range(50))] * 6)
    rows = summary_rows(WEB, history, width=width, height=height, now=scenes.NOW)
    assert all(width_of(row) <= width for row in rows)
    if width >= 79:
        assert len(rows) <= height, "nothing to scroll at the usual sizes"
    text = "".join(text_of(rows).split())
    for words in ("●running", "up7h12m", "shopfront", "cpu", "netout", "198.51.100.11", WEB.uuid):
        assert words in text


def test_the_summary_of_a_vm_that_is_off_has_no_charts_and_says_what_it_would_get():
    vm = scenes.resting("build-08", 17, VmState.SAVED, has_saved_state=True, persistent=False)
    text = text_of(summary_rows(vm, RateHistory(), width=79, height=20, now=scenes.NOW))
    assert "net in" not in text
    for words in ("◌ saved", "memory     4.0G", "vCPU       2", "the next start goes on", "gone when it stops"):
        assert words in text, words


def test_a_state_that_nobody_asked_for_is_told_with_its_reason():
    vm = next(vm for vm in scenes.varied_vms() if vm.name == "db-01")
    assert "‖ paused, disk error" in text_of(summary_rows(vm, RateHistory(), width=79, height=20, now=scenes.NOW))


def test_the_template_that_a_vm_was_made_of_is_told_beside_the_list_and_on_its_page():
    made = replace(WEB, config=replace(WEB.config, template="debian", is_linked=True))
    history = RateHistory()
    assert "template debian (linked)" in text_of(flat_rows(made, history, width=100, now=scenes.NOW))
    for rows in (
        tall_rows(made, history, width=40, height=38, now=scenes.NOW),
        summary_rows(made, history, width=100, height=40, now=scenes.NOW),
    ):
        line = next(each for each in text_of(rows).splitlines() if "template" in each)
        assert line.split("template")[1].split()[:2] == ["debian", "(linked)"]
    copied = replace(made, config=replace(made.config, is_linked=False))
    assert "(linked)" not in text_of(flat_rows(copied, history, width=100, now=scenes.NOW))
    assert "template" not in text_of(flat_rows(WEB, history, width=100, now=scenes.NOW))


def test_what_is_not_told_is_no_zero():
    vm = replace(WEB, memory_used_bytes=None, rates=VmRates(41.0))
    history = RateHistory(*[(0.0,) * 50] * 6)
    rows = text_of(summary_rows(vm, history, width=79, height=20, now=scenes.NOW))
    assert "use not told" in rows
    assert [line for line in rows.splitlines() if "▁" in line] == ["  " + "▁" * 36 + " " * 39], "the CPU alone"


def test_sizes_are_awaited_then_told_or_not_known():
    read = hardware.from_xml(view_scenes.NEXT_XML)
    waiting = text_of(hardware_rows(WEB, read, None, width=79)).splitlines()
    known = text_of(hardware_rows(WEB, read, {"vda": DiskSize(scenes.GIB, scenes.MIB)}, width=79)).splitlines()
    vda, vdb, sda = (
        [next(line for line in lines if f" {disk} " in line) for lines in (waiting, known)]
        for disk in ("vda", "vdb", "sda")
    )
    assert "…" in vda[0]
    assert "1.0G" in vda[1]
    assert "…" in vdb[0]
    assert "–" in vdb[1]
    assert "–" in sda[0], "an empty drive has none"


def test_a_long_path_goes_on_in_its_column_and_below_where_that_is_narrow():
    xml = view_scenes.NEXT_XML.replace("/srv/data/web-01-uploads.raw", "/srv/" + "long/" * 20 + "x.raw")
    read = hardware.from_xml(xml)
    for width in (30, 60, 79, 119):
        rows = hardware_rows(WEB, read, view_scenes.SIZES, width=width)
        assert all(width_of(row) <= width for row in rows) or width == 30
        assert "long/" * 20 + "x.raw" in "".join(text_of(rows).split())


def test_what_waits_for_the_next_start_is_said():
    live = view_scenes.LIVE_XML.replace("<vcpu placement='static'>2<", "<vcpu placement='static'>1<")
    text = text_of(hardware_rows(WEB, hardware.from_xml(view_scenes.NEXT_XML, live), {}, width=79))
    assert "changes wait for the next start" in text


def test_the_log_is_told_in_time_order_at_any_width():
    for width in (20, 79, 119):
        rows = log_rows(view_scenes.jobs(), view_scenes.events(), width=width, now=scenes.NOW)
        assert all(width_of(row) <= max(width, 40) for row in rows)
        text = text_of(rows)
        assert text.index("stopped") < text.index("io error") < text.rindex("started")


def test_xml_rows_have_numbers_and_wrap_under_their_beginning():
    xml = ColoredXml("<a>\n  <b c='" + "x" * 30 + "'/>\n\n</a>")
    rows = XmlRows(xml, width=24, head=[("what it is", "dim")])
    assert [text_of([row]) for row in rows] == [
        "what it is",
        "  1 <a>",
        "  2   <b c='xxxxxxxxxxxx",
        "    xxxxxxxxxxxxxxxxxx'/",
        "    >",
        "  3 ",
        "  4 </a>",
    ]
    assert len(rows[2:4]) == 2
    with pytest.raises(IndexError):
        rows[7]


@given(
    st.lists(st.sampled_from(["<a ", "b='c'", ">", "日本語", "\t", EVIL, "<!-- ", " -->", "\n", "x" * 50]), max_size=30)
)
def test_any_xml_has_as_many_rows_as_it_says_and_is_harmless(parts: list[str]):
    xml = "".join(parts)
    rows = XmlRows(ColoredXml(xml), width=30, head=())
    read = [rows[place] for place in range(len(rows))]
    assert all(width_of(row) <= 30 for row in read)
    assert all(printable(text) == text for row in read for text, _role in row)
    shown = "".join(text for row in read[1:] for text, role in row if role != "faint")
    assert shown == "".join(printable(line.replace("\t", "    ")) for line in xml.splitlines())
