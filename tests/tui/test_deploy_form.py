"""The deploy form: its request, the live preview of the whole set, what stands in the way, the VMs that it makes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from host import secrets
from host.connection import Host
from host.errors import HvtuiError, UsageError
from host.host_list import HostEntry
from host.units import GIB, MIB
from hvtui.tui import actions, catalogue, deploy_form
from hvtui.tui.app import HvtuiApp
from hvtui.tui.deploy_form import FIELDS, request_from
from hvtui.tui.form_fields import NotYet
from hvtui.tui.screens.deploy import DeployScreen
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.plan import PlanScreen, PlanSetScreen
from hvtui.tui.screens.prompt import PromptScreen
from hvtui.tui.screens.templates import TemplatesScreen
from hvtui.tui.widgets.chooser import Chooser
from hvtui.tui.widgets.page import Page
from tests.support import fake_library
from tests.support.fake_library import DEBIAN, TINY, FakeLibrary
from tests.support.simulated_world import HOSTILE_NAMES
from tests.tui.conftest import until
from tests.tui.driving import SIZES, names, on_screen, picture, running, status
from tests.tui.scenes import DARK
from vm import deploy, steps
from vm.demo import demo_host

App = Callable[..., HvtuiApp]
assert steps  # registers the verbs


@pytest.fixture
def host(open_world: Callable[[str], Host]) -> Host:
    return fake_library.furnished(open_world)


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLibrary:
    return fake_library.install(monkeypatch, DEBIAN, TINY)


async def open_form(pilot: Pilot[None]) -> DeployScreen:
    await pilot.press("N")
    form = await on_screen(pilot, DeployScreen)
    await until(pilot, lambda: form.value("template") != "" or "no template" in preview(pilot))
    return form


def preview(pilot: Pilot[None]) -> str:
    return " ".join(pilot.app.screen.query_one("#plan", Page).plain.split())


def values(**changes: str) -> dict[str, str]:
    return {field.key: field.value for field in FIELDS} | {"template": "tiny"} | changes


# The request


def test_the_form_makes_the_request_that_it_shows(host: Host):
    request, parts = request_from(
        host,
        values(template="debian", name=" web-{:02} ", count="3", first="7", disks="full", until="started",
               hardware="medium", memory="2G", vcpus="1", disk="8G", network="lab", user="alice", pool="fast"),
    )  # fmt: skip
    assert request.names == ("web-07", "web-08", "web-09")
    assert (request.template, request.linked, request.pool) == ("debian", False, "fast")
    assert (request.start, request.wait_ready) == (True, False)
    assert (request.hardware.memory_bytes, request.hardware.vcpus, request.hardware.disk_bytes) == (2 * GIB, 1, 8 * GIB)
    assert [nic.network for nic in request.hardware.nics] == ["lab"]
    assert request.guest.users[-1].name == "alice"
    assert parts.hardware.memory_bytes == 4 * GIB
    assert request.command == (
        *("vm", "deploy", "-n", "3", "--first", "7", "--pool", "fast", "--until", "started", "--full"),
        *("--profile", "medium", "--set", "memory=2G", "--set", "vcpus=1", "--set", "disk=8G", "--set", "network=lab"),
        *("--set", "user=alice", "debian", "web-{:02}"),
    )


def test_free_user_data_tags_title_and_owner_are_those_of_the_command(host: Host, tmp_path: Path):
    file = tmp_path / "web.yaml"
    file.write_text("#cloud-config\npackages: [nginx]\n")
    request, _ = request_from(
        host, values(name="web", user_data=f" {file} ", title="shop front", tags="web, prod", owner="ops")
    )
    assert request.user_data == file.read_text()
    assert (request.title, request.tags, request.owner) == ("shop front", ("web", "prod"), "ops")
    assert request.command == (
        *("vm", "deploy", "--user-data", str(file), "--title", "shop front", "--owner", "ops"),
        *("--tag", "web", "--tag", "prod", "tiny", "web"),
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"#cloud-config\n[", "YAML"),
        (b"\xff", "not UTF-8"),
        (b"hello", "."),
        (b"a" * 2**21, "."),
    ],
)
def test_user_data_that_no_guest_can_take_belong_to_their_field(
    host: Host, tmp_path: Path, content: bytes | None, words: str
):
    if content is not None:
        (tmp_path / "web.yaml").write_bytes(content)
    with pytest.raises(HvtuiError, match=words) as caught:
        request_from(host, values(template="debian", name="web", user_data=str(tmp_path / "web.yaml")))
    assert deploy_form.key_of(caught.value.about) == "user_data"


def test_what_is_left_alone_is_the_templates_and_not_in_the_command(host: Host):
    request, _ = request_from(host, values(name="web"))
    assert request.names == ("web",)
    assert request.hardware.memory_bytes == 128 * MIB
    assert (request.linked, request.start, request.wait_ready) == (True, True, True)
    assert request.command == ("vm", "deploy", "tiny", "web")


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"count": "many"}, "count", "not a number of at least 1"),
        ({"first": "-1"}, "first", "not a number of at least 0"),
        ({"count": "2"}, "name", "2 VMs are wanted"),
        ({"memory": "lots"}, "memory", "not a size"),
        ({"vcpus": "none"}, "vcpus", "no number of vCPUs"),
        ({"ssh_key": "nonsense", "user": "alice"}, "ssh_key", "."),
    ],
)
def test_an_error_belongs_to_its_field(host: Host, changes: dict[str, str], key: str, words: str):
    with pytest.raises(UsageError, match=words) as caught:
        request_from(host, values(template="debian", name="web", **changes))
    assert deploy_form.key_of(caught.value.about) == key


def test_without_a_name_nothing_is_wrong_yet(host: Host):
    with pytest.raises(NotYet):
        request_from(host, values())


# The form


@SIZES
async def test_three_vms_are_previewed_proposed_and_made(app_on: App, host: Host, size: tuple[int, int]):
    app = app_on(host)
    async with running(app, size) as pilot:
        form = await open_form(pilot)
        assert form.focused is form.query_one("#name")
        assert "web-{:02}" in preview(pilot)
        form.query_one("#template", Chooser).choose("tiny")
        await pilot.press(*"web-", "left_curly_bracket", *":02", "right_curly_bracket", "down", "backspace", "3")
        await until(pilot, lambda: "and 2 more like it: web-02, web-03" in preview(pilot))
        assert "Define web-01" in preview(pilot)
        assert "vm deploy -n 3 tiny 'web-{:02}'" in preview(pilot)
        picture(pilot)
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanSetScreen)
        picture(pilot)
        await pilot.press("enter")
        await on_screen(pilot, FleetScreen)
        await until(pilot, lambda: {"web-01", "web-02", "web-03"} <= names(app))
        await until(pilot, lambda: "deployed 3 VMs" in status(pilot))
    made = app.snapshot
    assert made is not None
    assert {vm.config.template for vm in made.vms if vm.config and vm.name.startswith("web")} <= {"tiny"}


async def test_names_that_are_taken_block_with_what_to_do(app_on: App, host: Host):
    app = app_on(host)
    async with running(app, (100, 40)) as pilot:
        await open_form(pilot)
        await pilot.press(*"old-shop")
        await until(pilot, lambda: "there is a VM called old-shop already" in preview(pilot))
        assert "Choose another name" in preview(pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "cannot be made yet" in status(pilot))
        assert isinstance(app.screen, DeployScreen)


async def test_empty_fields_show_what_template_and_profile_say(app_on: App, host: Host):
    async with running(app_on(host), (100, 40)) as pilot:
        form = await open_form(pilot)
        await until(pilot, lambda: form.query_one("#memory", Input).placeholder == "1.0G")
        assert form.query_one("#disk", Input).placeholder.startswith("4.0G")
        form.query_one("#hardware", Chooser).choose("large")
        await until(pilot, lambda: form.query_one("#memory", Input).placeholder == "8.0G")
        assert form.query_one("#vcpus", Input).placeholder == "4"
        form.query_one("#template", Chooser).choose("tiny")
        form.query_one("#hardware", Chooser).choose("")
        await until(pilot, lambda: form.query_one("#memory", Input).placeholder == "128M")


async def test_a_guest_that_can_be_told_nothing_is_asked_nothing(app_on: App, host: Host):
    async with running(app_on(host)) as pilot:
        form = await open_form(pilot)
        assert form.query_one("#row-user").display
        form.query_one("#template", Chooser).choose("tiny")
        await until(pilot, lambda: not form.query_one("#row-user").display)
        assert not form.query_one("#row-disks").display
        assert not form.query_one("#row-user_data").display
        form.query_one("#template", Chooser).choose("debian")
        await until(pilot, lambda: form.query_one("#row-user").display)


async def test_without_a_template_the_way_to_one_is_told(app_on: App, host: Host, monkeypatch: pytest.MonkeyPatch):
    fake_library.install(monkeypatch, exists=False)
    async with running(app_on(host)) as pilot:
        form = await open_form(pilot)
        await until(pilot, lambda: "esc, then T: the templates" in preview(pilot))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "choose a template" in status(pilot))
        assert pilot.app.screen is form
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


async def test_another_library_offers_other_templates(app_on: App, host: Host):
    async with running(app_on(host)) as pilot:
        form = await open_form(pilot)
        assert form.value("library") == "library"
        form.query_one("#library", Input).value = "vault"
        await until(pilot, lambda: "There is no template in the library vault" in preview(pilot))
        assert form.value("template") == ""
        form.query_one("#library", Input).value = "library"
        await until(pilot, lambda: form.value("template") == "debian")
        form.query_one("#name", Input).value = "web"
        await until(pilot, lambda: "vm deploy debian web" in preview(pilot))


async def test_the_library_of_the_configuration_is_where_the_form_begins(app_on: App, host: Host, fake: FakeLibrary):
    fake.pool = "vault"
    config = replace(DARK, hosts=(HostEntry("lab1", host.uri, library="vault"),))
    async with running(app_on(host, config)) as pilot:
        form = await open_form(pilot)
        assert form.value("library") == "vault"
        assert form.value("template") == "debian"
        form.query_one("#name", Input).value = "web"
        await until(pilot, lambda: "vm deploy debian web" in preview(pilot))  # without --library: it is the usual one
        request, _ = request_from(host, form.values())
        assert (request.library, request.command[2:4]) == ("vault", ("--library", "vault"))
        await pilot.press("escape", "escape", "T")
        screen = await on_screen(pilot, TemplatesScreen)
        await until(pilot, lambda: screen.library is not None and bool(screen.library.templates))
        await pilot.press("l")
        await on_screen(pilot, PromptScreen)
        await pilot.press("ctrl+u", *"other", "enter")
        await until(pilot, lambda: screen.library is not None and screen.library.pool == "other")
        assert "No template yet." in picture(pilot)


async def test_a_plan_longer_than_its_place_is_scrolled_from_any_field(app_on: App, host: Host):
    async with running(app_on(host)) as pilot:
        form = await open_form(pilot)
        form.query_one("#name", Input).value = "web"
        await until(pilot, lambda: "vm deploy debian web" in preview(pilot))
        await until(pilot, lambda: "more lines" in picture(pilot))
        assert "same as" not in picture(pilot)
        for _ in range(6):
            await pilot.press("pagedown")
        await until(pilot, lambda: "same as" in picture(pilot))
        assert "more line" not in picture(pilot)
        assert form.focused is form.query_one("#name")
        for _ in range(6):
            await pilot.press("pageup")
        await until(pilot, lambda: "more lines" in picture(pilot))


async def test_the_demo_says_honestly_that_it_has_no_templates(app_on: App, fake: FakeLibrary):
    fake.pool = ""
    demo = demo_host()
    try:
        async with running(app_on(demo)) as pilot:
            await pilot.press("T")
            await on_screen(pilot, TemplatesScreen)
            await until(pilot, lambda: "The simulated host has no templates." in picture(pilot))
            await pilot.press("escape", "N")
            await on_screen(pilot, DeployScreen)
            await until(pilot, lambda: "The simulated host has no templates." in preview(pilot))
    finally:
        demo.close()


async def test_an_untouched_form_is_left_at_once_and_a_filled_one_at_the_second_press(app_on: App, host: Host):
    async with running(app_on(host)) as pilot:
        await open_form(pilot)
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)
        await open_form(pilot)
        await pilot.press("x", "escape")
        await until(pilot, lambda: "not made yet" in status(pilot))
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


async def test_previews_leave_no_secrets_behind(app_on: App, host: Host):
    """A seed holds users and keys; each preview offers one for each VM."""
    async with running(app_on(host), (100, 40)) as pilot:
        await open_form(pilot)
        for letter in "web":
            await pilot.press(letter)
            await until(pilot, lambda: "Make the seed" in preview(pilot))
        await pilot.press("ctrl+s")
        await on_screen(pilot, PlanScreen)
        await pilot.press("escape")
        await on_screen(pilot, DeployScreen)
        await pilot.press("escape", "escape")
        await on_screen(pilot, FleetScreen)
        await until(pilot, lambda: not secrets._offered)


async def test_the_arrow_keys_reach_every_field_of_a_form_longer_than_the_screen(app_on: App, host: Host):
    async with running(app_on(host)) as pilot:
        form = await open_form(pilot)
        seen = []
        for _ in FIELDS:
            assert form.focused is not None
            seen.append(form.focused.id)
            await pilot.press("down")
        assert set(seen) == {field.key for field in FIELDS}
        await pilot.press("up")
        assert form.focused is form.query_one("#library")


async def test_a_form_that_is_left_while_its_plan_is_made_leaves_quietly(
    app_on: App, host: Host, monkeypatch: pytest.MonkeyPatch
):
    go_on = threading.Event()
    real = deploy.plan_deploy
    monkeypatch.setattr(deploy, "plan_deploy", lambda *arguments: go_on.wait(60) and real(*arguments))
    async with running(app_on(host)) as pilot:
        await open_form(pilot)
        await pilot.press(*"web")
        await until(pilot, lambda: "looking at what the host can do" in preview(pilot))
        await pilot.press("escape", "escape")
        await on_screen(pilot, FleetScreen)
        go_on.set()
        await until(pilot, lambda: not [each for each in threading.enumerate() if each.name == "call"])
        assert not secrets._offered


@SIZES
async def test_hostile_answers_and_templates_are_harmless(
    app_on: App, host: Host, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
):
    odd = [replace(DEBIAN, name=text, description=text) for text in HOSTILE_NAMES]
    fake_library.install(monkeypatch, *odd)
    async with running(app_on(host), size) as pilot:
        form = await open_form(pilot)
        chooser = form.query_one("#template", Chooser)
        for text in HOSTILE_NAMES:
            chooser.choose(text)
            for key in ("name", "network", "user", "pool", "ssh_key"):
                form.query_one(f"#{key}", Input).value = text
            await pilot.pause(0.3)
            picture(pilot)


def test_d_means_debian_only_where_there_is_no_vm():
    catalogue.load()
    debian = actions.action_named("fleet.debian")
    assert debian is not None
    assert debian.applies(actions.Target())
    assert not debian.applies(actions.Target(vms_there=1))
