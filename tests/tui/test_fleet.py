"""The fleet screen on still scenes: filter, marks, sizes, consoles without colour or Unicode, empty and lost hosts."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from textual import events
from textual.widgets import Input

from hvtui.config import Config, Ui
from hvtui.tui import symbols
from hvtui.tui.app import HvtuiApp
from hvtui.tui.messages import SnapshotChanged
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.widgets.grid import Grid
from tests.tui import scenes
from tests.tui.conftest import shown


async def test_every_state_is_told_by_symbol_and_word():
    app = scenes.still_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        screen = shown(app)
        for name, state in {
            "web-01": "● running", "build-07": "○ off", "build-08": "◌ saved", "standby": "‖ paused",
            "print": "◐ stopping", "old-shop": "× crashed", "db-01": "‖ disk error",
        }.items():  # fmt: skip
            assert any(f" {name} " in line and state in line for line in screen.lines[3:]), name
        assert "! 1 disk error" in screen.lines[1]
        assert "! 1 crashed" in screen.lines[1]


async def test_the_filter_narrows_as_one_types_and_esc_clears_it():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        grid = app.screen.query_one(Grid)
        await pilot.press("slash", *"tag:web")
        assert {vm.name for vm in grid.shown} == {"web-01", "web-02", "web-03", "web-10"}
        assert "4 of 24 VMs" in shown(app).text
        await pilot.press("down")
        assert grid.current is not None
        assert grid.current.name == "web-02", "arrows move in the list while one types"
        await pilot.press("enter")
        assert "/tag:web" in shown(app).lines[1], "a kept filter stays in sight"
        await pilot.press("j")
        assert grid.current.name == "web-03", "keys are keys again"
        await pilot.press("escape")
        assert len(grid.shown) == 24
        assert grid.current.name == "web-03"


async def test_a_filter_that_nothing_matches_says_how_to_get_out():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("slash", *"xyzzy")
        assert "nothing matches; esc shows all" in shown(app).text
        assert "0 of 24 VMs" in shown(app).lines[1]


async def test_keys_typed_faster_than_they_are_painted_go_where_they_were_meant():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        for key, character in (("G", "G"), ("slash", "/"), *((c, c) for c in "stop"), ("enter", None), ("k", "k")):
            app.post_message(events.Key(key, character))
        await pilot.pause()
        await pilot.pause()
        assert app.screen.query_one("#filter").value == "stop"  # type: ignore[attr-defined]
        assert not isinstance(app.focused, Input)
        for key, character in ((":", ":"), ("v", "v"), ("p", "p"), ("n", "n")):
            app.post_message(events.Key("colon" if key == ":" else key, character))
        await pilot.pause()
        await pilot.pause()
        assert app.screen.query_one("#command").value == "vpn"  # type: ignore[attr-defined]


async def test_a_wrong_filter_is_told_and_the_rows_do_not_stand_there_as_its_answer():
    app = scenes.still_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        grid = app.screen.query_one(Grid)
        await pilot.press("slash", *"state:run")
        before = grid.shown
        assert _roles_of_row(app) != 1
        await pilot.press(*" colour:red x")
        assert grid.shown == before
        assert "! filter, column 11: there is no key 'colour'" in shown(app).lines[-2]
        assert "? of 24 VMs" in shown(app).lines[1]
        assert _roles_of_row(app) == 1, "the rows are grey"
        await pilot.press("escape")
        assert len(grid.shown) == 24
        assert "filter" not in shown(app).lines[-2]
        await pilot.press("slash", *"state:run")
        assert _roles_of_row(app) != 1


def _roles_of_row(app: HvtuiApp) -> int:
    """How many colours of text the second row has."""
    strip = app.screen._compositor.render_strips(app.size)[4]
    left = [segment for segment in strip if segment.text.strip() and segment.style][:5]
    return len({segment.style.color for segment in left if segment.style})


@pytest.mark.parametrize(("text", "says"), [
    ("stat:off", "there is no key 'stat'. Did you mean state?"), ("state:", "needs a value"), ("mem>8x", "not a size"),
    ("state:runing", "no state is called 'runing'"),
])  # fmt: skip
async def test_enter_does_not_take_a_wrong_filter(text: str, says: str):
    app = scenes.still_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        await pilot.press("slash", *text, "enter")
        await pilot.pause()
        assert isinstance(app.focused, Input)
        assert app.focused.value == text
        assert says in shown(app).lines[-2]
        await pilot.press("escape", "slash", *"memory>4G", "enter")
        await pilot.pause()
        assert not isinstance(app.focused, Input)
        assert 0 < len(app.screen.query_one(Grid).shown) < 24


@pytest.mark.parametrize("word", ["state:running", "-web", "web*", "cpu>5", "w"])
async def test_typing_key_by_key_ends_where_pasting_ends(word: str):
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        grid = app.screen.query_one(Grid)
        await pilot.press("slash", *word)
        typed = [vm.name for vm in grid.shown]
        await pilot.press("escape", "slash")
        app.screen.query_one("#filter").value = word  # type: ignore[attr-defined]
        await pilot.pause()
        assert [vm.name for vm in grid.shown] == typed


async def test_marks_survive_a_filter_and_star_marks_what_is_shown():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        grid = app.screen.query_one(Grid)
        await pilot.press("space", "space")
        first = {vm.name for vm in grid.marked}
        assert len(first) == 2
        await pilot.press("slash", *"tag:web", "enter", "asterisk")
        assert {vm.name for vm in grid.marked} == first | {"web-01", "web-02", "web-03", "web-10"}
        assert "✓ 6 marked" in shown(app).text
        await pilot.press("escape", "escape")
        assert grid.marked == ()


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (120, 40), (160, 50), (200, 60), (40, 10), (20, 5), (1, 1)])
async def test_every_size_is_filled_exactly(size: tuple[int, int]):
    app = scenes.still_app()
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.press("j", "G")
        lines = shown(app).lines
        assert len(lines) == size[1]
        assert {cell_len(line) for line in lines} == {size[0]}


async def test_a_storm_of_resizes_ends_with_a_whole_picture():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        expected = shown(app).text
        for step in range(60):
            await pilot.resize_terminal(20 + step * 3, 5 + step)
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert shown(app).text == expected


async def test_details_stand_below_at_80_columns_and_right_from_120():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("G", "k", "k", "k", "k", "k")
        below = app.screen.query_one("#details").region
        assert (below.x, below.width) == (0, 80)
        assert "agent connected" in shown(app).text
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        right = app.screen.query_one("#details").region
        assert right.x > 70
        assert right.height > 30
        await pilot.press("d")
        assert not app.screen.query_one("#details").display


async def test_ascii_consoles_get_ascii_only_and_the_same_widths():
    app = scenes.still_app(config=Config(ui=Ui(theme="ansi", ascii=True)))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("G")
        lines = shown(app).lines
        assert all(line.isascii() and len(line) == 80 for line in lines)
        assert "??????-test" in shown(app).text
        assert "* running" in shown(app).text


def test_ascii_is_chosen_by_terminal_and_locale():
    assert symbols.needs_ascii({"TERM": "linux", "LANG": "C.UTF-8"})
    assert symbols.needs_ascii({"TERM": "xterm-256color", "LANG": "de_DE.ISO-8859-1"})
    assert symbols.needs_ascii({"TERM": "xterm", "LC_ALL": "C", "LANG": "C.UTF-8"})
    assert not symbols.needs_ascii({"TERM": "tmux-256color", "LANG": "C.UTF-8"})


async def test_no_color_sends_no_colour(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        for strip in app.screen._compositor.render_strips(app.size):
            for segment in strip:
                style = segment.style
                colors = [style.color, style.bgcolor] if style is not None else []
                assert all(color is None or color.is_default for color in colors), segment
        assert any(segment.style.reverse for strip in app.screen._compositor.render_strips(app.size)
                   for segment in strip if segment.style), "the cursor is still seen"  # fmt: skip


@pytest.mark.parametrize("theme", ["dark", "light", "contrast", "ansi"])
async def test_every_theme_paints_every_role(theme: str):
    app = scenes.still_app(config=Config(ui=Ui(theme=theme, ascii=False)))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("f2", "f2", "f2", "f2")
        assert app.theme == f"hvtui-{theme}", "f2 goes round"
        assert "web-01" in shown(app).text


async def test_an_empty_host_says_what_to_do_first():
    app = scenes.still_app(scenes.snapshot(()))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        text = shown(app).text
        assert "No virtual machine on lab1 yet." in text
        for key_and_words in ("t   try one now", "n   new VM"):
            assert key_and_words in text
        app.post_message(SnapshotChanged(scenes.snapshot()))
        await pilot.pause()
        assert "build-07" in shown(app).text


async def test_a_lost_link_greys_the_list_and_counts_the_seconds():
    app = scenes.still_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.post_message(SnapshotChanged(scenes.lost(app.picture, seconds=12)))
        await pilot.pause()
        assert "stale 12 s" in shown(app).lines[0]
        assert "keepalive timed out" in shown(app).lines[0]
        assert "db-02" in shown(app).text, "the last data stay"
        assert " s start" not in shown(app).lines[-1]
        await pilot.press("S")
        assert "connection is lost" in shown(app).lines[-2]
        app.post_message(SnapshotChanged(app.picture))
        await pilot.pause()
        assert "stale" not in shown(app).lines[0]


async def test_a_host_out_of_reach_from_the_start_says_why():
    app = scenes.still_app(scenes.lost(scenes.snapshot(())))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "cannot be reached" in shown(app).text
        assert "keepalive timed out" in shown(app).text


async def test_unknown_columns_of_the_configuration_are_left_out():
    app = scenes.still_app(config=Config(ui=Ui(theme="dark", ascii=False, columns=("name", "tags", "colour"))))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        titles = shown(app).lines[2]
        assert "TAGS" in titles
        assert "CPU" not in titles
        assert isinstance(app.screen, FleetScreen)
