"""The list and its painting: what moves, what is repainted, what fits, and that no name can break a line."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from hvtui.tui.messages import SnapshotChanged
from hvtui.tui.themes import DARK, Palette
from hvtui.tui.widgets import charts, columns
from hvtui.tui.widgets.grid import Grid
from hvtui.tui.widgets.lines import cells, changed_cells, line_of
from tests.tui import scenes
from tests.tui.conftest import shown
from vm.model import Vm

PALETTE = Palette(DARK)


@given(st.text(max_size=60), st.integers(0, 50))
def test_any_text_takes_exactly_the_cells_it_is_given(text: str, width: int):
    fitted = cells(text, width)
    assert cell_len(fitted) == width
    assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs"} for char in fitted)


@given(st.integers(1, 220), st.integers(4, 60))
def test_columns_always_fit_and_the_name_never_drops(width: int, name_needs: int):
    layout = columns.fitted(columns.DEFAULT_COLUMNS, width=width, name_needs=name_needs)
    ids = [column.id for column, _width in layout.columns]
    assert "name" in ids
    taken = sum(each for _column, each in layout.columns) + layout.gap * (len(ids) - 1)
    assert taken <= max(width, 14)


def test_a_narrow_list_drops_columns_by_priority():
    narrow = [c.id for c, _ in columns.fitted(columns.DEFAULT_COLUMNS, width=45, name_needs=10).columns]
    wide = [c.id for c, _ in columns.fitted(columns.DEFAULT_COLUMNS, width=190, name_needs=10).columns]
    assert narrow == ["name", "state", "cpu"]
    assert set(wide) == set(columns.DEFAULT_COLUMNS)


def test_names_sort_as_people_count():
    names = ["web-10", "web-2", "Web-1", "db", "10", "9"]
    assert sorted(names, key=columns.natural) == ["9", "10", "db", "Web-1", "web-2", "web-10"]


def test_only_the_cells_that_differ_are_changed():
    before = line_of([("name  ", "text"), ("41%", "text"), ("  rest", "dim")], 20, PALETTE)
    after = line_of([("name  ", "text"), ("42%", "text"), ("  rest", "dim")], 20, PALETTE)
    assert changed_cells(before, after) == (6, 9)
    assert changed_cells(before, before) is None


def test_a_sparkline_is_as_wide_as_asked_and_newest_right():
    assert charts.spark((0.0, 50.0, 100.0), 5, top=100.0) == "  ▁▅█"
    assert charts.spark((), 3) == "   "
    assert charts.share(None, 2 * 1024**3) == "2.0G"
    assert charts.share(966_367_641, 2 * 1024**3) == "0.9/2.0G"


async def _fleet(pilot) -> Grid:
    await pilot.pause()
    return pilot.app.screen.query_one(Grid)


async def test_the_cursor_stays_on_its_vm_when_the_order_changes():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        grid = await _fleet(pilot)
        assert grid.move_to_vm(next(vm.uuid for vm in grid.shown if vm.name == "git"))
        await pilot.press("3")
        assert grid.current is not None
        assert grid.current.name == "git"
        assert grid.shown[0].name == "db-02", "the busiest first"
        await pilot.press("3")
        assert grid.shown[-1].name == "db-02", "the same key again turns the order round"
        assert grid.current.name == "git"


async def test_a_vm_that_vanishes_takes_its_mark_and_leaves_the_cursor_in_the_list():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        grid = await _fleet(pilot)
        await pilot.press("G", "space")
        gone = grid.marked[0]
        rest = tuple(vm for vm in scenes.varied_vms() if vm.uuid != gone.uuid)
        app.post_message(SnapshotChanged(scenes.snapshot(rest)))
        await pilot.pause()
        assert grid.marked == ()
        assert grid.current in rest


async def test_the_same_picture_again_paints_nothing_and_one_changed_vm_only_its_cells():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        grid = await _fleet(pilot)
        picture = app.picture
        before = grid.cells_painted
        app.post_message(SnapshotChanged(replace(picture, read_at_s=picture.read_at_s + 2)))
        await pilot.pause()
        assert grid.cells_painted == before

        def busier(vm: Vm) -> Vm:
            return replace(vm, rates=replace(vm.rates, cpu_percent=99.0)) if vm.name == "ci-runner-1" else vm

        app.post_message(SnapshotChanged(replace(picture, vms=tuple(map(busier, picture.vms)))))
        await pilot.pause()
        assert 0 < grid.cells_painted - before <= 15, "a figure of one row, not the row"
        assert "99%" in shown(app).line_with("ci-runner-1")


async def test_ten_thousand_rows_cost_no_more_painting_than_a_page():
    app = scenes.still_app(scenes.snapshot(scenes.many_vms(10_000)))
    async with app.run_test(size=(80, 24)) as pilot:
        grid = await _fleet(pilot)
        await pilot.press("G")
        assert grid.current is not None
        assert grid.current.name == "vm-10000"
        assert "vm-10000" in shown(app).text
        before = grid.cells_painted
        await pilot.press("k")
        assert grid.cells_painted - before <= 2 * 80, "a move within the page repaints two rows"


async def test_hostile_names_are_shown_harmless_and_keep_every_line_exact():
    names = (
        "[red]x[/]",
        "a\x1b[31mb",
        "tab\tnew\nline",
        "\u202eevil",
        "日本語" * 30,
        "e\u0301" * 40,
        "x" * 10_000,
        "\U0001f9ff",
    )
    vms = tuple(scenes.running(name, number, cpu=5) for number, name in enumerate(names, 1))
    app = scenes.still_app(scenes.snapshot(vms))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        text = shown(app).text
        for bad in ("\x1b", "\u202e", "\t"):
            assert bad not in text
        assert "[red]x[/]" in text
        for line in shown(app).lines:
            assert cell_len(line) == 80
