"""The templates screen: the list and its details, an empty library, its forms, removal, verification, hostile texts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from host.connection import Host
from host.errors import NotFound, UsageError
from hvtui.tui import template_form
from hvtui.tui.app import HvtuiApp
from hvtui.tui.form_fields import NotYet
from hvtui.tui.screens.deploy import DeployScreen
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.screens.template_forms import AddTemplateScreen, EditTemplateScreen
from hvtui.tui.screens.templates import TemplatesScreen
from hvtui.tui.template_text import made_from, system
from hvtui.tui.widgets.page import Page
from tests.support import fake_library
from tests.support.fake_library import DEBIAN, TINY, FakeLibrary
from tests.support.simulated_world import HOSTILE_NAMES
from tests.tui import scenes, template_scenes
from tests.tui.conftest import until
from tests.tui.driving import SIZES, on_screen, picture, running, status
from vm import os_catalogue, template_change, template_verify
from vm.os_catalogue import OsSupport
from vm.template_add import OriginKind
from vm.template_model import Library
from vm.template_verify import Finding, ImageVerdict, Verification

App = Callable[..., HvtuiApp]


@pytest.fixture
def host(open_world: Callable[[str], Host]) -> Host:
    return fake_library.furnished(open_world)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLibrary:
    return fake_library.install(
        monkeypatch, DEBIAN, TINY, others=("debian-13.iso",), problems=("broken.r1-0.template.toml: it is cut off",)
    )


async def open_templates(pilot: Pilot[None]) -> TemplatesScreen:
    await pilot.press("T")
    screen = await on_screen(pilot, TemplatesScreen)
    await until(pilot, lambda: screen.library is not None)
    await pilot.pause()
    return screen


def detail(pilot: Pilot[None]) -> str:
    return " ".join(pilot.app.screen.query_one("#text", Page).plain.split())


def preview(pilot: Pilot[None]) -> str:
    return " ".join(pilot.app.screen.query_one("#plan", Page).plain.split())


@SIZES
async def test_templates_are_listed_with_what_one_chooses_by(
    app_on: App, host: Host, fake: FakeLibrary, size: tuple[int, int]
):
    async with running(app_on(host), size) as pilot:
        screen = await open_templates(pilot)
        text = picture(pilot)
        line = next(each for each in text.splitlines() if each.lstrip(" ▶").startswith("debian "))
        for word in ("debian 12", "4.0G", "bios", "cloud-init", "3"):
            assert word in line
        assert "Debian 12 with cloud-init" in detail(pilot)
        assert "debian.qcow2 qcow2, 4.0G, 900M stored" in detail(pilot)
        assert "broken.r1-0.template.toml: it is cut off" in detail(pilot)
        assert "also in the library: debian-13.iso" in detail(pilot)
        await pilot.press("j")
        assert screen.selected == TINY
        assert "console=ttyS0" in detail(pilot)
        await pilot.press("enter")
        assert "tiny.initrd" in picture(pilot)
        assert not screen.query_one("#rows").display
        await pilot.press("escape", "escape")
        await on_screen(pilot, FleetScreen)


@SIZES
async def test_an_empty_library_says_what_to_do(
    app_on: App, host: Host, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
):
    fake_library.install(monkeypatch, exists=False)
    async with running(app_on(host), size) as pilot:
        await open_templates(pilot)
        assert "No template yet." in picture(pilot)
        assert "a add one: tiny in seconds, debian in 3 minutes, or an image file" in detail(pilot)
        for key in ("d", "e", "v", "D", "enter"):
            await pilot.press(key)
            await pilot.pause()
        assert isinstance(pilot.app.screen, TemplatesScreen)
        await pilot.press("a")
        await on_screen(pilot, AddTemplateScreen)


async def test_d_opens_the_form_with_the_template_under_the_cursor(app_on: App, host: Host, fake: FakeLibrary):
    async with running(app_on(host)) as pilot:
        await open_templates(pilot)
        await pilot.press("j", "d")
        form = await on_screen(pilot, DeployScreen)
        await until(pilot, lambda: form.value("template") == "tiny")


async def test_a_recipe_needs_a_name_only_and_the_plan_is_shown_live(app_on: App, host: Host, fake: FakeLibrary):
    async with running(app_on(host), (100, 40)) as pilot:
        await open_templates(pilot)
        await pilot.press("a")
        form = await on_screen(pilot, AddTemplateScreen)
        assert not form.query_one("#row-path").display
        await pilot.press(*"first")
        await until(pilot, lambda: "template add --from tiny first" in preview(pilot))
        assert "a simulated host's storage keeps no contents" in preview(pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "cannot be made yet" in status(pilot))
        await pilot.press("down", "right", "right")
        await until(pilot, lambda: "file: give its path on this machine" in preview(pilot))
        assert form.query_one("#row-path").display
        assert form.query_one("#row-sha256").display


async def test_only_what_was_changed_is_stored(app_on: App, host: Host, fake: FakeLibrary):
    async with running(app_on(host), (100, 40)) as pilot:
        await open_templates(pilot)
        await pilot.press("e")
        await on_screen(pilot, EditTemplateScreen)
        assert "Change something" in preview(pilot)
        await pilot.press(*" and more")
        command = "template edit debian 'description=Debian 12 with cloud-init and more'"
        await until(pilot, lambda: command in preview(pilot))
        assert "revision 4" in preview(pilot)
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanScreen)
        assert "Change the template debian: description" in picture(pilot)
        await pilot.press("escape", "escape", "escape")
        await on_screen(pilot, TemplatesScreen)


async def test_removal_names_the_linked_vms_that_block_it(
    app_on: App, host: Host, fake: FakeLibrary, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(template_change, "linked_vms", lambda *_: ("web-01", "web-02"))
    async with running(app_on(host)) as pilot:
        await open_templates(pilot)
        await pilot.press("D")
        await on_screen(pilot, PlanScreen)
        assert "web-01, web-02 need its images" in " ".join(picture(pilot).split())
        await pilot.press("escape")
        await on_screen(pilot, TemplatesScreen)


async def test_a_verification_runs_beside_and_tells_what_it_found(
    app_on: App, host: Host, fake: FakeLibrary, monkeypatch: pytest.MonkeyPatch
):
    go_on = threading.Event()
    verdict = ImageVerdict(DEBIAN.images[0].volume, Finding.CHANGED, "its SHA-256 is another")

    def verify(_host, _library, template, progress, *, is_cancelled):
        progress(0.42, "reading")
        go_on.wait(60)
        return Verification(template.name, (verdict,))

    monkeypatch.setattr(template_verify, "verify", verify)
    async with running(app_on(host)) as pilot:
        screen = await open_templates(pilot)
        await pilot.press("v")
        await until(pilot, lambda: "verifying debian  42%" in status(pilot))
        await pilot.press("j")
        assert screen.selected == TINY
        go_on.set()
        await until(pilot, lambda: "debian is not what it was" in status(pilot))
        await pilot.press("k")
        await until(pilot, lambda: "debian.qcow2 is changed: its SHA-256 is another" in detail(pilot))


async def test_v_again_stops_the_verification(
    app_on: App, host: Host, fake: FakeLibrary, monkeypatch: pytest.MonkeyPatch
):
    stopped = threading.Event()

    def verify(_host, _library, template, _progress, *, is_cancelled):
        while not is_cancelled():
            stopped.wait(0.02)
        stopped.set()
        return Verification(template.name, ())

    monkeypatch.setattr(template_verify, "verify", verify)
    async with running(app_on(host)) as pilot:
        await open_templates(pilot)
        await pilot.press("v", "v")
        await until(pilot, stopped.is_set)


async def test_the_list_is_read_again_when_the_screen_comes_back(app_on: App, host: Host, fake: FakeLibrary):
    async with running(app_on(host)) as pilot:
        screen = await open_templates(pilot)
        await pilot.press("a")
        await on_screen(pilot, AddTemplateScreen)
        fake.now = replace(fake.now, templates=(*fake.now.templates, replace(TINY, name="zebra")))
        await pilot.press("escape")
        await on_screen(pilot, TemplatesScreen)
        await until(pilot, lambda: screen.library is not None and len(screen.library.templates) == 3)
        assert "zebra" in picture(pilot)


@SIZES
@pytest.mark.parametrize("text", HOSTILE_NAMES, ids=["markup", "escapes", "wide", "globs", "10 kB"])
async def test_hostile_texts_are_harmless(
    app_on: App, host: Host, monkeypatch: pytest.MonkeyPatch, text: str, size: tuple[int, int]
):
    image = replace(DEBIAN.images[0], volume=text)
    odd = replace(DEBIAN, name=text, description=text, origin=text, os_id=f"x/{text}", tags=(text,), images=(image,))
    fake_library.install(monkeypatch, odd, others=(text,), problems=(text,))
    async with running(app_on(host), size) as pilot:
        await open_templates(pilot)
        picture(pilot)
        for key in ("enter", "escape", "e", "escape", "a", "escape", "d", "escape"):
            await pilot.press(key)
            await pilot.pause(0.1)
            picture(pilot)


async def test_the_support_of_a_system_is_told_where_it_is_known(
    app_on: App, host: Host, fake: FakeLibrary, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os_catalogue, "look_up", template_scenes.look_up)
    async with running(app_on(host), (120, 40)) as pilot:
        await open_templates(pilot)
        await until(pilot, lambda: "Debian 12: supported until 2028-06-30" in detail(pilot))


async def test_a_system_that_nobody_knows_leaves_the_rest_as_it_is(
    app_on: App, host: Host, fake: FakeLibrary, monkeypatch: pytest.MonkeyPatch
):
    def look_up(_os_id: str) -> OsSupport:
        raise NotFound("no such system")

    monkeypatch.setattr(os_catalogue, "look_up", look_up)
    async with running(app_on(host), (120, 40)) as pilot:
        screen = await open_templates(pilot)
        await until(pilot, lambda: screen._support == {DEBIAN.os_id: ""})
        assert "Debian 12 with cloud-init" in detail(pilot)


def test_vms_are_counted_by_the_template_that_they_name():
    made = scenes.running("web-01", 1, cpu=1, config={"template": "debian", "is_linked": True})
    other = scenes.running("web-02", 2, cpu=1)
    assert made_from(DEBIAN, (made, other, replace(other, config=None))) == (made,)


@pytest.mark.parametrize(
    ("os_id", "shown"),
    [("http://debian.org/debian/12", "debian 12"), ("", "–"), ("win2k22", "win2k22"), ("a\x1b/b", "a\\e b")],
)
def test_a_system_is_told_in_a_few_letters(os_id: str, shown: str):
    assert system(replace(DEBIAN, os_id=os_id)) == shown


def values(**changes: str) -> dict[str, str]:
    return {field.key: field.value for field in template_form.add_fields(Library("library"))} | changes


def test_the_form_makes_the_request_that_it_shows():
    request = template_form.add_request(values(name=" img ", source="file", path="/srv/a.vmdk", os="x/y", sha256="ab"))
    assert (request.name, request.kind, request.source) == ("img", OriginKind.FILE, "/srv/a.vmdk")
    assert (request.os_id, request.sha256, request.description) == ("x/y", "ab", None)
    recipe = template_form.add_request(values(name="t", path="/left/over", sha256="ab", description="d"))
    assert (recipe.kind, recipe.source, recipe.sha256, recipe.description) == (OriginKind.RECIPE, "tiny", "", "d")
    volume = template_form.add_request(values(name="t", source="volume", volume="loose.qcow2"))
    assert (volume.kind, volume.source) == (OriginKind.VOLUME, "loose.qcow2")


def test_what_is_missing_is_asked_for():
    with pytest.raises(NotYet):
        template_form.add_request(values(name=" "))
    with pytest.raises(UsageError, match="in the library"):
        template_form.add_request(values(name="t", source="volume"))


def test_an_edit_says_only_what_was_changed():
    before = {field.key: field.value for field in template_form.edit_fields(TINY)}
    assert "kernel_arguments" in before
    assert "kernel_arguments" not in {field.key for field in template_form.edit_fields(DEBIAN)}
    assert template_form.changes(before, before | {"seed": "yes", "os": " "}) == {"seed": "yes"}
    with pytest.raises(NotYet):
        template_form.changes(before, before)


def test_what_a_manifest_names_can_always_be_chosen():
    odd = {field.key: field for field in template_form.edit_fields(replace(DEBIAN, disk_bus="ide"))}
    assert ("ide", "ide") in odd["disk_bus"].choices


async def test_the_input_of_a_form_keeps_what_a_manifest_says(app_on: App, host: Host, fake: FakeLibrary):
    async with running(app_on(host)) as pilot:
        await open_templates(pilot)
        await pilot.press("e")
        form = await on_screen(pilot, EditTemplateScreen)
        assert form.query_one("#os", Input).value == DEBIAN.os_id
        assert form.query_one("#tags", Input).value == "debian"
