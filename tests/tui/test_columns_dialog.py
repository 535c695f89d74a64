"""The columns of the list: chosen in a dialog, sorted by any of them, and uptimes that grow."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from textual.containers import VerticalScroll
from textual.pilot import Pilot

from hvtui.config import Config, Ui, parse_config
from hvtui.tui.messages import SnapshotChanged
from hvtui.tui.screens.columns import ColumnsScreen, config_line
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.widgets.columns import DEFAULT_COLUMNS
from hvtui.tui.widgets.grid import Grid
from tests.tui import scenes
from tests.tui.driving import SIZES, on_screen, picture


async def _opened(pilot: Pilot[None]) -> ColumnsScreen:
    await pilot.pause()
    await pilot.press("C")
    return await on_screen(pilot, ColumnsScreen)


def _titles(pilot: Pilot[None]) -> list[str]:
    """The titles that the list shows now, in their order."""
    return [column.id for column, _width in pilot.app.screen.query_one(Grid).layout_now.columns]


async def test_columns_are_hidden_moved_and_applied_for_this_run():
    app = scenes.still_app(config=Config(ui=Ui(theme="dark", ascii=False, columns=("name", "state", "cpu"))))
    async with app.run_test(size=(120, 40)) as pilot:
        await _opened(pilot)
        await pilot.press("j", "space")  # hides the state
        await pilot.press("j", "K")  # the CPU changes places with it
        await pilot.press("K")  # and comes before the name
        await pilot.press("enter")
        await on_screen(pilot, FleetScreen)
        assert _titles(pilot) == ["cpu", "name"]
        assert "CPU" in picture(pilot)
        assert "STATE" not in picture(pilot)


async def test_a_hidden_column_is_shown_where_it_was_moved_to():
    app = scenes.still_app(config=Config(ui=Ui(theme="dark", ascii=False, columns=("name", "state"))))
    async with app.run_test(size=(120, 40)) as pilot:
        await _opened(pilot)
        await pilot.press("k", "space", *["minus"] * (len(DEFAULT_COLUMNS) - 2))  # the last one: autostart
        await pilot.press("enter")
        await on_screen(pilot, FleetScreen)
        assert _titles(pilot) == ["name", "autostart", "state"]


async def test_esc_leaves_the_columns_as_they_are():
    app = scenes.still_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        before = _titles(pilot)
        await _opened(pilot)
        await pilot.press("j", "space", "J", "escape")
        await on_screen(pilot, FleetScreen)
        assert _titles(pilot) == before


@SIZES
async def test_the_dialog_shows_every_column_the_line_to_keep_them_and_fits(size: tuple[int, int]):
    config = replace(scenes.DARK, file="/etc/hvtui/config.toml")
    app = scenes.still_app(config=config)
    async with app.run_test(size=size) as pilot:
        dialog = await _opened(pilot)
        for title in ("NAME", "NET IN OUT", "DISK R W", "UPTIME"):
            assert title in picture(pilot)
        await pilot.press("k")
        await pilot.pause()
        text = picture(pilot)
        assert "/etc/hvtui/config.toml" in text
        assert '"autostart"]' in text
        body = dialog.query_one("#body", VerticalScroll)
        assert body.size.height <= size[1] - 2


async def test_a_column_there_is_no_room_for_is_told():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await _opened(pilot)
        assert "no room for it now" in picture(pilot)
        await pilot.press("d", *["j", "space"] * (len(DEFAULT_COLUMNS) - 3))
        assert "no room for it now" not in picture(pilot)


async def test_the_name_cannot_be_hidden_and_d_brings_the_built_in_set_back():
    app = scenes.still_app(config=Config(ui=Ui(theme="dark", ascii=False, columns=("state",))))
    async with app.run_test(size=(120, 40)) as pilot:
        dialog = await _opened(pilot)
        assert dialog.chosen == ("name", "state")
        await pilot.press("space")
        assert dialog.chosen == ("name", "state")
        assert "the name is always shown" in picture(pilot)
        await pilot.press("d")
        assert dialog.chosen == DEFAULT_COLUMNS


async def test_y_copies_the_line():
    app = scenes.still_app()
    async with app.run_test(size=(120, 40)) as pilot:
        dialog = await _opened(pilot)
        await pilot.press("y")
        assert app.clipboard == config_line(dialog.chosen)


def test_the_line_is_what_the_configuration_takes():
    line = config_line(("name", "uptime"))
    assert parse_config(f"[ui]\n{line}\n", file="f").ui.columns == ("name", "uptime")


@pytest.mark.parametrize("column_id", DEFAULT_COLUMNS)
async def test_the_list_can_be_sorted_by_every_column(column_id: str):
    app = scenes.still_app(
        config=Config(ui=Ui(theme="dark", ascii=False, columns=tuple(dict.fromkeys(("name", column_id)))))
    )
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        grid = app.screen.query_one(Grid)
        place = _titles(pilot).index(column_id) + 1
        await pilot.press("o", str(place))
        first = grid.sort
        assert len(grid.shown) == 24
        await pilot.press(str(place))
        assert first[0] == grid.sort[0] == column_id
        assert first[1] is not grid.sort[1]


async def test_uptimes_are_shown_longest_first_and_grow_without_any_other_change():
    app = scenes.still_app(config=Config(ui=Ui(theme="dark", ascii=False, columns=("name", "uptime"))))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("2", "g")
        grid = app.screen.query_one(Grid)
        assert grid.shown[0].name == "print", "since 154 hours"
        assert "6d 10h" in picture(pilot).splitlines()[3]
        app.now = lambda: scenes.NOW + timedelta(hours=1)  # type: ignore[method-assign]
        app.post_message(SnapshotChanged(replace(app.picture, read_at_s=app.picture.read_at_s + 3600)))
        await pilot.pause()
        assert "6d 11h" in picture(pilot).splitlines()[3]
        assert not grid.shown[-1].is_active
