"""The view of one VM on a real simulated host: its tabs, its keys, and what may happen to it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from host.connection import Host
from host.errors import HvtuiError
from host.events import Event, EventKind
from host.journal import Journal
from hvtui.config import Config, Ui
from hvtui.tui.app import HvtuiApp
from hvtui.tui.messages import EventArrived, JobsChanged, SnapshotChanged
from hvtui.tui.screens.delete import DeleteScreen
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.screens.prompt import PromptScreen
from hvtui.tui.screens.vm import HARDWARE, LOG, SUMMARY, XML, VmScreen
from hvtui.tui.screens.xml_editor import XmlEditorScreen
from hvtui.tui.widgets.xml_text import XmlText
from tests.support.simulated_world import domain, hostile_domains, world
from tests.tui import scenes, view_scenes
from tests.tui.conftest import shown, until
from tests.tui.driving import SIZES, app_of, go_to, names, on_screen, picture, running, status, vm
from vm import hardware
from vm.hardware import DiskSize
from vm.model import VmState

App = Callable[..., HvtuiApp]


async def open_view(pilot: Pilot[None], name: str, *keys: str) -> VmScreen:
    await go_to(pilot, name)
    await pilot.press("enter")
    screen = await on_screen(pilot, VmScreen)
    await pilot.press(*keys)
    await pilot.pause()
    return screen


async def see(pilot: Pilot[None], text: str) -> None:
    await until(pilot, lambda: text in shown(app_of(pilot)).text)


# The tabs


@SIZES
async def test_enter_drills_in_and_esc_backs_out_to_the_same_row(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        await open_view(pilot, "web-01")
        lines = picture(pilot).splitlines()
        assert " ─ web-01 ─ ▶ Summary  2 Hardware  3 XML  4 Log " in lines[1]
        assert "● running" in lines[1]
        assert "Front page" in lines[2]
        await pilot.press("escape")
        fleet = await on_screen(pilot, FleetScreen)
        assert [each.name for each in fleet.targets()] == ["web-01"]


@SIZES
async def test_the_summary_says_what_it_is(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        await until(pilot, lambda: vm(app_of(pilot), "web-01").config is not None)
        await open_view(pilot, "web-01")
        text = picture(pilot)
        for words in ("cpu  ", "memory  ", "net in", "disk write", "owner      alice", "tags       web prod",
                      "system     debian 12", "autostart"):  # fmt: skip
            assert words in text, words
        await pilot.press("G")
        assert vm(app_of(pilot), "web-01").uuid in picture(pilot)
        assert "Serves the shop." in picture(pilot)
        assert "Ask Alice." in picture(pilot), "each line of the description"


@SIZES
async def test_the_hardware_lists_disks_interfaces_and_devices(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        await open_view(pilot, "files", "2")
        await see(pilot, "Processor and memory")
        text = picture(pilot)
        await pilot.press("G")
        await pilot.pause()
        text += picture(pilot)
        for words in ("512M", "vda", "/img/files-data.raw", "sdc", "cdrom", "empty", "52:54:00", "default",
                      "Network interfaces", "Other devices", "controller"):  # fmt: skip
            assert words in text, words


async def test_the_hardware_tells_the_sizes_of_the_disks(monkeypatch: pytest.MonkeyPatch):
    async with still(monkeypatch, "2") as pilot:
        await see(pilot, "20.0G")
        line = shown(app_of(pilot)).line_with("vda")
        assert "virtio  qcow2   20.0G     3.1G  /var/lib/libvirt/images/web-01.qcow2" in line
        assert "UEFI, Secure Boot" in picture(pilot)
        assert "host-model: EPYC-Milan, x86_64" in picture(pilot)


@SIZES
async def test_the_xml_is_shown_in_colours_and_scrolls(app_on: App, simulated: Host, size: tuple[int, int]):
    async with running(app_on(simulated), size) as pilot:
        screen = await open_view(pilot, "web-01", "3")
        await see(pilot, "<name>web-01</name>")
        assert "what its next start uses" in picture(pilot)
        styles = {s.text: s.style.color for strip in screen.scroller.lines for s in strip if s.style}
        assert styles["uuid"] != styles[vm(app_of(pilot), "web-01").uuid]
        await pilot.press("G")
        await see(pilot, "</domain>")
        picture(pilot)
        await pilot.press("v")
        await see(pilot, "<domain type='test' id=")
        assert "what runs now" in picture(pilot)
        await pilot.press("v")
        await see(pilot, "what its next start uses")


async def test_there_is_no_running_xml_of_a_vm_that_is_off(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        await open_view(pilot, "build-07", "v")
        await see(pilot, "<name>build-07</name>")
        await pilot.press("v")
        await until(pilot, lambda: "it does not run" in status(pilot))


async def test_the_tabs_are_reached_by_number_tab_arrows_and_mouse(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        screen = await open_view(pilot, "web-01")
        for key, tab in (("4", LOG), ("1", SUMMARY), ("tab", HARDWARE), ("right", XML), ("shift+tab", HARDWARE),
                         ("left", SUMMARY), ("left", LOG), ("tab", SUMMARY)):  # fmt: skip
            await pilot.press(key)
            assert screen.chosen == tab, key
        place = shown(app_of(pilot)).lines[1].index("Hardware")
        await pilot.click("#tabs", offset=(place, 0))
        assert screen.chosen == HARDWARE
        await pilot.click("#tabs", offset=(3, 0))
        assert screen.chosen == HARDWARE, "the name is no tab"


async def test_each_tab_is_left_and_found_where_one_was_in_it(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        screen = await open_view(pilot, "web-01", "3")
        await see(pilot, "<name>web-01</name>")
        await pilot.press("j", "j", "down", "k")
        assert screen.scroller.top == 2
        await pilot.press("pagedown", "ctrl+b", "4", "3")
        assert screen.scroller.top == 2
        await pilot.press("G", "j")
        assert "</domain>" in picture(pilot)
        await pilot.press("home")
        assert screen.scroller.top == 0


# The keys of its actions


async def test_the_keys_of_vms_work_on_it_and_the_view_follows(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        await open_view(pilot, "build-07")
        assert "○ off" in picture(pilot)
        assert " s start" in picture(pilot).splitlines()[-1]
        await pilot.press("s")
        await see(pilot, "● running")
        await until(pilot, lambda: "started build-07" in status(pilot))
        await pilot.press("O")
        await on_screen(pilot, PlanScreen)
        await pilot.press("escape")
        await on_screen(pilot, VmScreen)
        await pilot.press("4")
        await see(pilot, "Start build-07")
        await see(pilot, "started")


async def test_e_edits_and_comes_back_to_the_new_xml(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        await open_view(pilot, "build-07", "3")
        await see(pilot, "<name>build-07</name>")
        await pilot.press("e")
        editor = await on_screen(pilot, XmlEditorScreen)
        text = editor.query_one(XmlText)
        text.text = editor.text.replace("</name>", "</name>\n  <title>new title</title>", 1)
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanScreen)
        await pilot.press("enter")
        await on_screen(pilot, VmScreen)
        await see(pilot, "<title>new title</title>")


async def test_a_new_name_is_shown_at_once(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        await open_view(pilot, "build-07", "3")
        await pilot.press("r")
        await on_screen(pilot, PromptScreen)
        await pilot.press("ctrl+u", *"new-name", "enter")
        await on_screen(pilot, VmScreen)
        await see(pilot, " ─ new-name ─")
        await see(pilot, "<name>new-name</name>")


# What happens meanwhile


async def test_a_vm_that_is_removed_is_told_and_one_that_comes_back_is_shown_again(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        screen = await open_view(pilot, "build-07", "2")
        await see(pilot, "Processor and memory")
        with simulated.calls("remove it") as connection:
            xml = connection.lookupByName("build-07").XMLDesc(0)
            connection.lookupByName("build-07").undefine()
        await see(pilot, "× not here any more")
        assert "Processor and memory" in picture(pilot), "the last data stay"
        assert screen.targets() == ()
        await pilot.press("s")
        await until(pilot, lambda: "no VM" in status(pilot))
        await pilot.press("3", "1", "4", "2")
        picture(pilot)
        with simulated.calls("make it again") as connection:
            connection.defineXML(xml)
        await see(pilot, "○ off")
        assert [each.name for each in screen.targets()] == ["build-07"]


async def test_its_deletion_from_the_view_leaves_a_way_back(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        await open_view(pilot, "build-07")
        await pilot.press("D")
        await on_screen(pilot, DeleteScreen)
        await pilot.press("enter")
        await on_screen(pilot, PlanScreen)
        await pilot.press(*"build", "minus", *"07", "enter")
        await until(pilot, lambda: "build-07" not in names(app_of(pilot)))
        await see(pilot, "not here any more")
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


def still(monkeypatch: pytest.MonkeyPatch, *keys: str, app: Any = None, size: tuple[int, int] = (80, 24)) -> Any:
    """The view of web-01 on the still scenes."""
    from contextlib import asynccontextmanager

    monkeypatch.setattr(hardware, "read", view_scenes.read)
    monkeypatch.setattr(hardware, "disk_sizes", view_scenes.disk_sizes)

    @asynccontextmanager
    async def opened() -> Any:
        shown_app = app or scenes.still_app(shown_jobs=view_scenes.jobs())
        async with shown_app.run_test(size=size) as pilot:
            await until(pilot, lambda: shown_app.snapshot is not None and isinstance(shown_app.screen, FleetScreen))
            await pilot.pause()
            await open_view(pilot, "web-01", *keys)
            yield pilot

    return opened()


async def test_a_lost_connection_greys_it_and_the_return_reads_it_again(monkeypatch: pytest.MonkeyPatch):
    async with still(monkeypatch, "2") as pilot:
        app = app_of(pilot)
        await see(pilot, "UEFI, Secure Boot")
        assert len(_colors(app)) > 2
        app.post_message(SnapshotChanged(scenes.lost(app.picture)))  # type: ignore[attr-defined]
        await see(pilot, "stale 12 s")
        assert len(_colors(app)) == 1, "it is grey"
        await pilot.press("S")
        await until(pilot, lambda: "connection is lost" in status(pilot))
        reads: list[str] = []
        monkeypatch.setattr(hardware, "read", lambda host, vm: (reads.append(vm.name), view_scenes.read(host, vm))[1])
        await pilot.press("3", "2")
        await pilot.pause()
        assert reads == [], "nobody asks a host that is not there"
        app.post_message(SnapshotChanged(app.picture))  # type: ignore[attr-defined]
        await until(pilot, lambda: reads == ["web-01"])
        await until(pilot, lambda: len(_colors(app)) > 2)


def _colors(app: HvtuiApp) -> set[Any]:
    """The colours of the text between tabs and status line, without the scroll mark's."""
    strips = app.screen._compositor.render_strips(app.size)[2:-2]
    return {s.style.color for strip in strips for s in list(strip)[:-1] if s.text.strip() and s.style}


async def test_hardware_that_was_never_read_says_so_on_a_lost_connection(monkeypatch: pytest.MonkeyPatch):
    async with still(monkeypatch) as pilot:
        app = app_of(pilot)
        app.post_message(SnapshotChanged(scenes.lost(app.picture)))  # type: ignore[attr-defined]
        await pilot.press("2")
        await see(pilot, "the connection is lost: this is read when it is back")
        app.post_message(SnapshotChanged(app.picture))  # type: ignore[attr-defined]
        await see(pilot, "UEFI, Secure Boot")


async def test_what_cannot_be_read_says_why_and_f5_tries_again(monkeypatch: pytest.MonkeyPatch):
    def refuse(_host: Host, _vm: Any) -> Any:
        raise HvtuiError("the XML is larger than 1024 KiB")

    async with still(monkeypatch) as pilot:
        monkeypatch.setattr(hardware, "read", refuse)
        await pilot.press("3")
        await see(pilot, "larger than 1024 KiB")
        monkeypatch.setattr(hardware, "read", view_scenes.read)
        await pilot.press("f5")
        await see(pilot, "<name>web-01</name>")


async def test_libvirt_is_asked_on_other_threads_and_an_answer_that_does_not_come_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
):
    answers, threads = threading.Event(), []

    def slow(host: Host, vm: Any) -> Any:
        threads.append(threading.current_thread())
        assert answers.wait(20)
        return view_scenes.read(host, vm)

    def sizes(*_: Any) -> dict[str, DiskSize]:
        threads.append(threading.current_thread())
        return view_scenes.SIZES

    async with still(monkeypatch) as pilot:
        monkeypatch.setattr(hardware, "read", slow)
        monkeypatch.setattr(hardware, "disk_sizes", sizes)
        await pilot.press("2")
        await see(pilot, "reading…")
        for _ in range(5):
            await pilot.press("3", "2")
        await pilot.press("1")
        assert "net in" in picture(pilot), "keys are answered"
        answers.set()
        await pilot.press("2")
        await see(pilot, "20.0G")
        assert threading.main_thread() not in threads
        assert len(threads) <= 4, "one reading at a time, and one more for all that was asked meanwhile"


async def test_an_event_of_the_vm_has_its_xml_read_again_and_one_of_another_has_not(monkeypatch: pytest.MonkeyPatch):
    async with still(monkeypatch, "3") as pilot:
        await see(pilot, "<name>web-01</name>")
        changed = view_scenes.read(None, scenes.varied_vms()[0])  # type: ignore[arg-type]
        changed = replace(changed, next_xml=changed.next_xml.replace("shop front", "shop back"))
        monkeypatch.setattr(hardware, "read", lambda _host, _vm: changed)
        app = app_of(pilot)
        app.post_message(EventArrived(Event(EventKind.DEFINED, "another", "x", "changed", scenes.NOW)))
        await pilot.pause(0.2)
        assert "shop back" not in picture(pilot)
        app.post_message(EventArrived(Event(EventKind.DEFINED, view_scenes.UUID, "web-01", "changed", scenes.NOW)))
        await see(pilot, "shop back")


async def test_charts_follow_each_snapshot(monkeypatch: pytest.MonkeyPatch):
    async with still(monkeypatch) as pilot:
        app = app_of(pilot)
        assert " 41%" in picture(pilot)
        still_picture = app.picture  # type: ignore[attr-defined]
        vms = tuple(replace(each, rates=replace(each.rates, cpu_percent=77.0)) for each in still_picture.vms)
        app.post_message(SnapshotChanged(replace(still_picture, vms=vms, load=replace(still_picture.load))))
        await see(pilot, " 77%")


async def test_a_snapshot_without_news_paints_nothing(monkeypatch: pytest.MonkeyPatch):
    for tab in "1234":
        async with still(monkeypatch, tab) as pilot:
            app = app_of(pilot)
            await pilot.pause(0.2)
            scroller = app.screen.query_one("#rows")
            before = scroller.cells_painted  # type: ignore[attr-defined]
            app.post_message(SnapshotChanged(app.picture))  # type: ignore[attr-defined]
            await pilot.pause()
            assert scroller.cells_painted == before, tab  # type: ignore[attr-defined]


# The log


@SIZES
async def test_the_log_has_jobs_and_events_in_one_line_of_time(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]):
    app = scenes.still_app(shown_jobs=view_scenes.jobs())
    app.events.extend(view_scenes.events())
    app.events.append(Event(EventKind.CRASHED, "another", "db-01", "not its own", scenes.NOW))
    async with still(monkeypatch, "4", app=app, size=size) as pilot:
        await see(pilot, "Shut down web-01")
        lines = picture(pilot).splitlines()[2:-2]
        words = ["started", "stopped", "shutting down", "Shut down web-01", "Save web-01", "no space left", "Make room",
                 "Set the tags", "resumed", "paused", "! io error", "agent", "started", "Create web-01"]  # fmt: skip
        assert [word for word, line in zip(words, lines, strict=False) if word not in line] == []
        assert "not its own" not in picture(pilot)
        assert "undone by job 189" in picture(pilot)


async def test_older_jobs_come_from_the_journal_and_running_ones_show_how_far_they_are(
    monkeypatch: pytest.MonkeyPatch, journal: Journal
):
    app = scenes.still_app()
    old = view_scenes.jobs()[-1]
    monkeypatch.setattr(type(app.services.journal), "jobs", lambda *_a, vm=None, **_k: (old,) if vm else ())
    async with still(monkeypatch, "4", app=app) as pilot:
        await see(pilot, "Create web-01")
        from host.job_model import JobState

        move = scenes.plan("Move web-01", "web-01", "Copy", "Switch")
        for fraction, percent in ((0.2, "10%"), (0.8, "40%")):
            job = scenes.job(196, JobState.RUNNING, move, fraction=fraction)
            app.post_message(JobsChanged((job,)))
            await see(pilot, percent)
        assert "Create web-01" in picture(pilot)


async def test_an_empty_log_says_what_will_be_there(app_on: App, simulated: Host):
    async with running(app_on(simulated)) as pilot:
        await open_view(pilot, "build-07", "4")
        await see(pilot, "No job has changed it")


# Hostile text, other terminals


@pytest.mark.parametrize("size", [(20, 5), (80, 24), (120, 40)], ids=["20x5", "80x24", "120x40"])
async def test_every_tab_of_every_hostile_vm_is_harmless(
    app_on: App, open_world: Callable[[str], Host], size: tuple[int, int]
):
    host = open_world(world(hostile_domains()))
    async with running(app_on(host), size) as pilot:
        for name in sorted(names(app_of(pilot))):
            screen = await open_view(pilot, name)
            for tab in "1234":
                await pilot.press(tab)
                await until(pilot, lambda: screen._hardware is not None or screen.chosen in {SUMMARY, LOG})  # noqa: B023
                picture(pilot)
                for key in ("G", "pageup", "g"):
                    await pilot.press(key)
                    picture(pilot)
            await pilot.press("escape")
            await on_screen(pilot, FleetScreen)


async def test_hostile_events_and_jobs_are_harmless(monkeypatch: pytest.MonkeyPatch):
    from tests.support.simulated_world import EVIL

    evil = view_scenes.jobs()[1]
    evil = replace(evil, title=EVIL * 40, user=EVIL, error=f"{EVIL}\n" * 30, remedy=EVIL)
    app = scenes.still_app(shown_jobs=(evil,))
    app.events.append(Event(EventKind.IO_ERROR, view_scenes.UUID, EVIL, f"{EVIL}\n" * 90, scenes.NOW))
    async with still(monkeypatch, "4", app=app) as pilot:
        await see(pilot, "io error")
        picture(pilot)


async def test_ascii_consoles_get_ascii_only(monkeypatch: pytest.MonkeyPatch):
    app = scenes.still_app(config=Config(ui=Ui(theme="ansi", ascii=True)), shown_jobs=view_scenes.jobs())
    async with still(monkeypatch, app=app) as pilot:
        for tab in "1234":
            await pilot.press(tab)
            await pilot.pause(0.1)
            lines = shown(app).lines
            assert all(line.isascii() and len(line) == 80 for line in lines)
        assert "- web-01 - 1 Summary  2 Hardware  3 XML  > Log " in lines[1]


async def test_without_colour_the_chosen_tab_is_still_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with still(monkeypatch, "3") as pilot:
        await see(pilot, "<name>web-01</name>")
        styles = [s for strip in app_of(pilot).screen._compositor.render_strips(app_of(pilot).size) for s in strip]
        colors = [color for s in styles if s.style for color in (s.style.color, s.style.bgcolor)]
        assert all(color is None or color.is_default for color in colors)
        assert [s.text for s in styles if s.style and s.style.reverse] == [" ▶ XML "]


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (160, 50), (200, 60), (40, 10), (20, 5), (1, 1)])
async def test_every_size_is_filled_exactly(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]):
    async with still(monkeypatch) as pilot:
        await pilot.resize_terminal(*size)
        for tab in "1234":
            await pilot.press(tab)
            await pilot.pause(0.05)
            picture(pilot)


async def test_a_long_xml_is_taken_to_pieces_where_it_is_looked_at_only(
    app_on: App, open_world: Callable[[str], Host], monkeypatch: pytest.MonkeyPatch
):
    from hvtui.tui import xml_rows

    lines = "\n".join(f"line {n} of its description" for n in range(2000))
    host = open_world(world([domain("big", description=lines)]))
    taken: list[str] = []
    monkeypatch.setattr(xml_rows, "pieces", lambda line, inside: (taken.append(line), view_pieces(line, inside))[1])
    from hvtui.tui.xml_colors import pieces as view_pieces

    async with running(app_on(host)) as pilot:
        screen = await open_view(pilot, "big", "3")
        await see(pilot, "<name>big</name>")
        assert len(screen._next_xml.lines) > 2000
        taken.clear()
        await pilot.press("G")
        await see(pilot, "</domain>")
        assert len(taken) < 50
        taken.clear()
        for _ in range(3):
            app_of(pilot).post_message(SnapshotChanged(app_of(pilot).snapshot))  # type: ignore[arg-type]
            await pilot.pause()
        assert taken == []


async def test_a_view_that_is_left_while_it_reads_is_left_in_peace(monkeypatch: pytest.MonkeyPatch):
    answers = threading.Event()
    async with still(monkeypatch) as pilot:
        monkeypatch.setattr(hardware, "read", lambda host, vm: (answers.wait(20), view_scenes.read(host, vm))[1])
        await pilot.press("2")
        await see(pilot, "reading…")
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)
        answers.set()
        await pilot.pause(0.2)
        assert vm(app_of(pilot), "web-01").state is VmState.RUNNING
