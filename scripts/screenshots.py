"""Writes screenshots/*.svg: every screen at 80x24 and 120x40, from the still scenes of the tests (`make screenshots`).

The scenes and their clock are frozen, so the pictures change only when the program does.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SIZES = tuple(tuple(map(int, size.split("x"))) for size in os.environ.get("SIZES", "80x24 120x40").split())
CELL_WIDTH = 12.2  # of Rich's SVG export
_TEXT = re.compile(
    r'(<text [^>]*?)x="([\d.]+)"( y="[^"]*") textLength="[\d.]+"([^>]*>)((?:&#160;)*)([^<]*?)((?:&#160;)*)</text>'
)
_FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


@dataclass(frozen=True)
class Scene:
    """One picture: what is shown, and the keys pressed first."""

    name: str
    keys: tuple[str, ...] = ()
    app: Callable[[Any], Any] | None = None
    prepare: Callable[[Any], Awaitable[None]] | None = None


def tidy(svg: str) -> str:
    """Rich's SVG without the web font it names, and without the leading blanks that some viewers drop."""

    def move(match: re.Match[str]) -> str:
        start, x, y, rest, blanks, text, _trailing = match.groups()
        if not text:
            return ""
        shift = blanks.count("&#160;") * CELL_WIDTH
        cells = len(re.sub(r"&[^;]+;", "x", text))
        return f'{start}x="{float(x) + shift:.5g}"{y} textLength="{cells * CELL_WIDTH:.5g}"{rest}{text}</text>'

    lines = _FONT_FACE.sub("", _TEXT.sub(move, svg)).replace("Fira Code,", "").splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip()) + "\n"


async def take(scene: Scene, size: tuple[int, int], directory: Path) -> Path:
    """Write the picture of one scene at one size."""
    from tests.tui import scenes

    app = scene.app(scenes) if scene.app is not None else scenes.still_app()
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        for key in scene.keys:
            await pilot.press(key)
        if scene.prepare is not None:
            await scene.prepare(app)
        await pilot.pause(0.1)
        await pilot.pause()
        path = directory / f"{scene.name}-{size[0]}x{size[1]}.svg"
        path.write_text(tidy(app.export_screenshot(title="hvtui")), encoding="utf-8")
    return path


def with_theme(theme: str, **ui: Any) -> Callable[[Any], Any]:
    def make(scenes: Any) -> Any:
        from hvtui.config import Config, Ui

        return scenes.still_app(config=Config(ui=Ui(theme=theme, ascii=ui.get("ascii", False))))

    return make


def with_jobs(scenes: Any) -> Any:
    return scenes.still_app(shown_jobs=scenes.jobs())


async def show_plan(app: Any) -> None:
    from hvtui.tui.screens.plan import PlanScreen
    from tests.tui import scenes

    app.push_screen(PlanScreen([scenes.stop_plan()]))


@cache
def demo_host() -> Any:
    """The host of `hvtui --demo`, on which the program itself makes the plans of the pictures."""
    from vm import demo

    return demo.demo_host()


def demo_vm(name: str) -> Any:
    from vm import inventory

    host = demo_host()
    return next(vm for vm in inventory.read_configs(host, inventory.read(host)) if vm.name == name)


def on_demo(scenes: Any) -> Any:
    return scenes.still_app(host=demo_host())


def show_plan_of(app: Any, plan: Any) -> None:
    """The plan as it is on the host of the picture."""
    from hvtui.tui.screens.plan import PlanScreen

    app.push_screen(PlanScreen([replace(plan, host_uri="qemu:///system")]))


async def show_disks(app: Any) -> None:
    from hvtui.tui.screens.delete import DeleteScreen
    from vm.delete import disk_uses

    vm = demo_vm("web-03")
    app.push_screen(DeleteScreen(vm, disk_uses(demo_host(), vm)))


async def show_delete(app: Any) -> None:
    from vm.delete import plan_delete

    show_plan_of(app, plan_delete(demo_host(), demo_vm("web-03"), remove_disks=("vda",), off=True))


async def show_editor(app: Any) -> None:
    from hvtui.tui.screens.xml_editor import XmlEditorScreen
    from vm.edit import editable_xml, plan_edit

    vm = demo_vm("web-03")
    xml = editable_xml(demo_host(), vm)
    edited = xml.replace("Shop front end", "Shop front end, new theme").replace("static'>4<", "static'>6<")
    app.push_screen(XmlEditorScreen(vm, edited))
    show_plan_of(app, plan_edit(demo_host(), vm, edited))


async def wait_for_preview(app: Any) -> None:
    from hvtui.tui.widgets.page import Page

    for _ in range(100):
        if "prod" in app.screen.query_one("#plan", Page).plain:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("the create form never showed its plan")


async def show_events(app: Any) -> None:
    from tests.tui import scenes

    app.events.extend(scenes.events())
    app.go("events")


def with_view(scenes: Any) -> Any:
    from tests.tui import view_scenes
    from vm import hardware

    hardware.read, hardware.disk_sizes = view_scenes.read, view_scenes.disk_sizes
    app = scenes.still_app(shown_jobs=view_scenes.jobs())
    app.events.extend(view_scenes.events())
    return app


def with_library(scenes: Any) -> Any:
    from tests.tui import template_scenes
    from vm import create_checks, deploy, library, os_catalogue, profile_store

    create_checks.check_os_id = lambda *_: None  # it tells what osinfo-db knows on this machine
    os_catalogue.look_up = template_scenes.look_up
    profile_store.suggested_guest = template_scenes.guest
    library.read = template_scenes.read
    real = deploy.plan_deploy
    deploy.plan_deploy = lambda host, request: template_scenes.as_on_lab1(real(host, request))
    return scenes.still_app(template_scenes.snapshot(), host=library_host())


@cache
def library_host() -> Any:
    from tests.tui import template_scenes

    return template_scenes.host(Path(os.environ["HVTUI_STATE_DIR"]))


async def wait_for_templates(app: Any) -> None:
    await wait_for(lambda: app.screen.selected is not None, "the templates were never read")


async def wait_for_deployment(app: Any) -> None:
    from hvtui.tui.widgets.page import Page

    await wait_for(lambda: "19 more" in app.screen.query_one("#plan", Page).plain, "the form never showed its plan")


async def wait_for(is_there: Callable[[], bool], problem: str) -> None:
    for _ in range(200):
        if is_there():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError(problem)


def with_running_set(scenes: Any) -> Any:
    from tests.tui import template_scenes

    return scenes.still_app(shown_jobs=template_scenes.running_set())


def with_bundle(scenes: Any) -> Any:
    from hvtui.tui import import_form
    from tests.tui import template_scenes

    import_form.kind_of = lambda _text: import_form.SourceKind.BUNDLE
    import_form.plan_of = lambda *_: template_scenes.import_plan()
    return scenes.still_app()


async def wait_for_report(app: Any) -> None:
    from hvtui.tui.widgets.page import Page

    await wait_for(lambda: "found in order" in app.screen.query_one("#plan", Page).plain, "the report never came")


def on_many(scenes: Any) -> Any:  # noqa: ARG001 - every scene's maker gets them
    from tests.tui import fleet_scenes

    return fleet_scenes.many_app()


def on_a_move(scenes: Any) -> Any:  # noqa: ARG001 - the same
    from tests.tui import fleet_scenes

    return fleet_scenes.many_app(shown_jobs=(fleet_scenes.moving(),))


async def show_hosts(app: Any) -> None:
    from hvtui.tui.screens.move import HostsScreen
    from tests.tui import fleet_scenes

    dialog = HostsScreen("Move web-01 to", "lab1")
    app.push_screen(dialog)
    await wait_for(lambda: dialog.is_mounted, "the dialog never opened")
    dialog.show_ratings(fleet_scenes.ratings())


async def show_move(app: Any) -> None:
    from hvtui.tui.screens.move import MovePlanScreen
    from tests.tui import fleet_scenes

    plan, sight = fleet_scenes.move_sight()
    app.push_screen(MovePlanScreen([plan], sight))


async def show_drain(app: Any) -> None:
    from hvtui.tui.screens.drain import DrainScreen
    from tests.tui import fleet_scenes

    app.push_screen(DrainScreen(fleet_scenes.drain_plan()))


async def show_undo(app: Any) -> None:
    from hvtui.tui import undo_handlers
    from hvtui.tui.screens.choice import ChoiceScreen
    from tests.tui import template_scenes

    app.push_screen(ChoiceScreen(undo_handlers.QUESTION, template_scenes.undo_choices(), verb="show the plan"))


def view(name: str, *keys: str, shows: str) -> Scene:
    """A scene of the VM web-01 on the whole screen, once it shows what was read on other threads."""

    async def wait(app: Any) -> None:
        for _ in range(200):
            if any(shows in segment.text for line in app.screen.scroller.lines for segment in line):
                return
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{name} never showed {shows}")

    return Scene(name, keys=("G", *["k"] * 6, "enter", *keys), app=with_view, prepare=wait)


SCENES = (
    view("vm", shows="198.51.100.11"),
    view("vm-hardware", "2", shows="20.0G"),
    view("vm-xml", "3", shows="uuid"),
    view("vm-log", "4", shows="Create web-01"),
    Scene("plan", keys=("G", *["k"] * 6), prepare=show_plan),
    Scene("plan-delete", keys=("G", *["k"] * 3), prepare=show_delete),
    Scene("delete", keys=("G", *["k"] * 3), prepare=show_disks),
    Scene("jobs", keys=("J",), app=with_jobs),
    Scene("fleet-job", app=with_jobs),
    Scene("events", prepare=show_events),
    Scene("host", keys=("H",)),
    Scene("create", keys=("n", *"web-11", "down", "left", *["down"] * 8, *"web,prod"), app=on_demo,
          prepare=wait_for_preview),
    Scene("templates", keys=("T",), app=with_library, prepare=wait_for_templates),
    Scene("deploy", keys=("N", *"web-", "left_curly_bracket", *":02", "right_curly_bracket", "down", "backspace", *"20",
                          "down", "backspace", *"21"), app=with_library, prepare=wait_for_deployment),
    Scene("import", keys=("i", *"/srv/bundles/shop-2019", "down", *"shop"), app=with_bundle, prepare=wait_for_report),
    Scene("undo", keys=("G", *["k"] * 4), prepare=show_undo),
    Scene("many", keys=("G", *["k"] * 4), app=on_many),
    Scene("hosts", keys=("h", "j", "j"), app=on_many),
    Scene("move-hosts", app=on_many, prepare=show_hosts),
    Scene("move", app=on_many, prepare=show_move),
    Scene("move-running", keys=("J",), app=on_a_move),
    Scene("drain", app=on_many, prepare=show_drain),
    Scene("whatif", keys=("W",), app=on_many),
    Scene("jobs-set", keys=("J", "enter", "j", "j", "j", "j"), app=with_running_set),
    Scene("xml-editor", prepare=show_editor),
    Scene("help", keys=("question_mark",)),
    Scene("palette", keys=("G", "ctrl+p")),
    Scene("prompt", keys=("G", "k", "k", "k", "t")),
    Scene("fleet", keys=("G", *["k"] * 4)),
    Scene("fleet-marks", keys=("5", "2", "space", "space", "space")),
    Scene("fleet-filter", keys=("slash", *"tag:web", "down")),
    Scene("fleet-light", app=with_theme("light")),
    Scene("fleet-contrast", app=with_theme("contrast")),
    Scene("fleet-ascii", keys=("G", *["k"] * 4), app=with_theme("ansi", ascii=True)),
    Scene("fleet-stale", app=lambda scenes: scenes.still_app(scenes.lost(scenes.snapshot()))),
    Scene("fleet-hostile", app=lambda scenes: scenes.still_app(scenes.snapshot(scenes.hostile_vms()))),
    Scene("welcome", app=lambda scenes: scenes.still_app(scenes.snapshot(()))),
    Scene("command-line", keys=("colon", *"sh")),
)  # fmt: skip


async def _all(names: list[str], directory: Path) -> list[Path]:
    chosen = [scene for scene in SCENES if not names or scene.name in names]
    return [await take(scene, size, directory) for scene in chosen for size in SIZES]


def main() -> None:
    """Write the pictures named on the command line, or all."""
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as state:
        os.environ.update(HVTUI_STATE_DIR=state, HVTUI_CACHE_DIR=state, HVTUI_CONFIG=os.devnull)
        os.environ.update(HVTUI_URI="qemu:///system", TZ="UTC", LC_ALL="C.UTF-8", TERM="xterm-256color")
        for name in ("NO_COLOR", "COLORTERM", "HVTUI_ACCEL", "LIBVIRT_DEFAULT_URI", "COLUMNS", "LINES"):
            os.environ.pop(name, None)
        time.tzset()
        directory = Path(os.environ.get("SCREENSHOTS", ROOT / "screenshots"))
        directory.mkdir(exist_ok=True)
        try:
            for path in asyncio.run(_all(sys.argv[1:], directory)):
                print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
        finally:
            demo_host().close()


if __name__ == "__main__":
    main()
