"""What carries a VM out of this host or into it: export, capture, paravirtual devices, import; each with its plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from host.connection import Host
from host.errors import UsageError
from host.journal import Journal
from hvtui.tui import import_form, vm_forms
from hvtui.tui.app import HvtuiApp
from hvtui.tui.form_fields import NotYet
from hvtui.tui.import_form import SourceKind
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.import_vm import ImportScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.screens.templates import TemplatesScreen
from hvtui.tui.screens.vm_forms import CaptureScreen, ExportScreen
from hvtui.tui.widgets.chooser import Chooser
from hvtui.tui.widgets.page import Page
from tests.support import bundles, simulated_world
from tests.support.simulated_world import HOSTILE_NAMES
from tests.tui.conftest import until
from tests.tui.driving import SIZES, go_to, on_screen, picture, running, status
from vm.create_request import Firmware
from vm.domain_xml import parse, to_text
from vm.import_disk import DiskImportRequest
from vm.import_report import ImportRequest
from vm.template_capture import CaptureRequest, Identity
from vm.template_model import Readiness

App = Callable[..., HvtuiApp]
SATA = "<disk type='file' device='disk'><source file='/images/a.qcow2'/><target dev='sda' bus='sata'/></disk>"


@pytest.fixture
def host(open_world: Callable[[str], Host]) -> Host:
    """A host with the VM bare, which is off, and a pool."""
    opened = open_world(f"<node>{simulated_world.domain('bare')}</node>")
    with opened.calls("prepare") as connection:
        domain = connection.lookupByName("bare")
        if domain.isActive():
            domain.destroy()
    return opened


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def preview(pilot: Pilot[None]) -> str:
    return " ".join(pilot.app.screen.query_one("#plan", Page).plain.split())


def values(**changes: str) -> dict[str, str]:
    return {field.key: field.value for field in import_form.FIELDS} | changes


# Export


@SIZES
async def test_an_export_suggests_a_directory_that_is_free_and_shows_its_plan(
    app_on: App, host: Host, home: Path, size: tuple[int, int]
):
    (home / "bare").mkdir()
    async with running(app_on(host), size) as pilot:
        await go_to(pilot, "bare")
        await pilot.press("X")
        form = await on_screen(pilot, ExportScreen)
        assert form.value("directory") == str(home / "bare-2")
        await until(pilot, lambda: "vm export bare --to" in preview(pilot))
        assert "Export bare to a bundle" in picture(pilot)
        form.query_one("#directory", Input).value = str(home / "no/such/place")
        await until(pilot, lambda: "there is no directory" in preview(pilot))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "cannot be made yet" in status(pilot))
        form.query_one("#leave_out", Input).value = "vdz"
        await until(pilot, lambda: "vdz" in preview(pilot))


async def test_a_vm_that_runs_is_shut_down_before_it_is_exported(app_on: App, host: Host):
    with host.calls("start") as connection:
        connection.lookupByName("bare").create()
    async with running(app_on(host)) as pilot:
        await go_to(pilot, "bare")
        await pilot.press("X")
        await on_screen(pilot, PlanScreen)
        assert "only a VM that is off can be exported" in picture(pilot)
        await pilot.press("enter")
        await on_screen(pilot, ExportScreen)
        await until(
            pilot, lambda: "Make the bundle's directory" in preview(pilot) and "is running" not in preview(pilot)
        )


async def test_a_shutdown_that_is_not_wanted_exports_nothing(app_on: App, host: Host, journal: Journal):
    with host.calls("start") as connection:
        connection.lookupByName("bare").create()
    async with running(app_on(host)) as pilot:
        await go_to(pilot, "bare")
        await pilot.press("L")
        await on_screen(pilot, PlanScreen)
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)
    assert journal.jobs() == ()


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "..", "/", "~root"])
def test_no_name_of_a_vm_leads_out_of_the_home_directory(home: Path, name: str):
    assert vm_forms.free_directory(name).parent == home


# Capture


def test_a_capture_asks_for_what_its_form_shows():
    fields = {"name": " web ", "library": "", "identity": vm_forms.GONE, "description": "", "readiness": "agent",
              "seed": "no", "tags": "a, b"}  # fmt: skip
    assert vm_forms.capture_request(fields) == CaptureRequest(
        "web", identity=Identity.GONE, readiness=Readiness.AGENT, takes_seed=False, tags=("a", "b")
    )
    with pytest.raises(NotYet):
        vm_forms.capture_request(fields | {"name": " "})


@SIZES
async def test_a_template_is_captured_after_its_plan_was_shown(app_on: App, host: Host, size: tuple[int, int]):
    async with running(app_on(host), size) as pilot:
        await go_to(pilot, "bare")
        await pilot.press("L")
        form = await on_screen(pilot, CaptureScreen)
        assert "Give the template a name" in preview(pilot)
        await pilot.press(*"web")
        await until(pilot, lambda: "a simulated host's storage keeps no contents" in preview(pilot))
        form.query_one("#identity", Chooser).choose(vm_forms.KEPT)
        await until(pilot, lambda: "--keep-identity" in preview(pilot))
        picture(pilot)
        form.query_one("#name", Input).value = "no/name"
        await until(pilot, lambda: "cannot be a template's name" in preview(pilot))


# Paravirtual devices


async def test_emulated_disks_become_paravirtual_by_the_go_line(app_on: App, host: Host):
    with host.calls("add a disk") as connection:
        root = parse(connection.lookupByName("bare").XMLDesc(0))
        root.find("devices").append(parse(f"<domain>{SATA}</domain>").find("disk"))
        connection.defineXML(to_text(root))
    async with running(app_on(host)) as pilot:
        await go_to(pilot, "bare")
        await pilot.press("colon", *"virtio now", "enter")
        dialog = await on_screen(pilot, PlanScreen)
        assert [plan.command for plan in dialog.plans] == [("vm", "paravirtual", "--now", "bare")]
        assert "Make bare paravirtual: 1 disk" in picture(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "made paravirtual: bare" in status(pilot))
        await pilot.press("colon", *"virtio now", "enter")
        await until(pilot, lambda: "bare: paravirtual already" in status(pilot))
    with host.calls("look") as connection:
        targets = parse(connection.lookupByName("bare").XMLDesc(2)).findall("devices/disk/target")
    assert {target.get("bus") for target in targets} == {"virtio"}


# Import


def test_what_lies_at_a_path_is_told_apart(tmp_path: Path):
    (tmp_path / "x.vhd").touch()
    (tmp_path / import_form.MANIFEST).touch()
    kinds = [import_form.kind_of(str(each)) for each in (tmp_path, tmp_path / import_form.MANIFEST, tmp_path / "x.vhd")]
    assert kinds == [SourceKind.BUNDLE, SourceKind.BUNDLE, SourceKind.DISK]
    assert {import_form.kind_of(text) for text in ("", "/no/such", "a\0b", "x" * 9000, "~nobody-has-this/x")} == {
        SourceKind.NONE
    }


def test_the_form_makes_the_request_for_a_bundle(tmp_path: Path):
    given = values(path=f" {tmp_path} ", identity=import_form.RESTORE, disks=import_form.IN_PLACE, name="new",
                   networks="lan=default, br7 = bridge:br0", start="yes")  # fmt: skip
    request = import_form.request_from(given, SourceKind.BUNDLE)
    assert request == ImportRequest(
        tmp_path, name="new", restore=True, register=True, networks={"lan": "default", "br7": "bridge:br0"}, start=True
    )
    with pytest.raises(UsageError) as caught:
        import_form.request_from(given | {"networks": "lan"}, SourceKind.BUNDLE)
    assert caught.value.about == "networks"


def test_the_form_makes_the_request_for_disks(tmp_path: Path):
    given = values(path=str(tmp_path / "a.vhd"), more="'/b c.vhd' /d.vhd", firmware="uefi", bus="sata", memory="2G",
                   vcpus="4", tpm="yes", raw="yes", network="none", pool="fast")  # fmt: skip
    request = import_form.request_from(given, SourceKind.DISK)
    assert request == DiskImportRequest(
        (tmp_path / "a.vhd", Path("/b c.vhd"), Path("/d.vhd")), pool="fast", network="none", memory_bytes=2 * 1024**3,
        vcpus=4, firmware=Firmware.UEFI, bus="sata", tpm=True, is_raw=True,
    )  # fmt: skip
    with pytest.raises(UsageError) as caught:
        import_form.request_from(given | {"more": "'open"}, SourceKind.DISK)
    assert caught.value.about == "more disks"


@SIZES
async def test_i_imports_from_the_list_and_from_the_templates_with_the_report_as_preview(
    app_on: App, host: Host, tmp_path: Path, size: tuple[int, int]
):
    disk = bundles.bootable(tmp_path / "old.raw")
    async with running(app_on(host), size) as pilot:
        await pilot.press("T")
        await on_screen(pilot, TemplatesScreen)
        await pilot.press("i")
        form = await on_screen(pilot, ImportScreen)
        assert not form.query_one("#row-firmware").display
        assert not form.query_one("#row-identity").display
        await pilot.press(*str(disk))
        await until(pilot, lambda: "found in order" in preview(pilot))
        assert form.query_one("#row-firmware").display
        assert not form.query_one("#row-identity").display
        assert "it boots by BIOS" in preview(pilot)
        picture(pilot)
        form.query_one("#firmware", Chooser).choose("uefi")
        await until(pilot, lambda: "--firmware uefi" in preview(pilot))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "cannot be made yet" in status(pilot))  # the host of this test keeps no contents
        form.query_one("#path", Input).value = str(tmp_path)
        await until(pilot, lambda: bool(form.query_one("#row-identity").display))
        await until(pilot, lambda: form.query_one("#row-path").has_class("-wrong"))  # a directory, and no bundle


async def test_a_path_with_nothing_there_is_wrong_only_when_it_is_sent(app_on: App, host: Host):
    async with running(app_on(host)) as pilot:
        await pilot.press("i")
        await on_screen(pilot, ImportScreen)
        await pilot.press(*"/no/such")
        await pilot.pause(0.5)
        assert "×" not in preview(pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "there is nothing at /no/such on this machine" in status(pilot))


@SIZES
async def test_hostile_answers_are_harmless(app_on: App, host: Host, size: tuple[int, int]):
    async with running(app_on(host), size) as pilot:
        await pilot.press("i")
        form = await on_screen(pilot, ImportScreen)
        for text in HOSTILE_NAMES:
            for key in ("path", "name", "more", "os"):
                form.query_one(f"#{key}", Input).value = text
            await pilot.pause(0.3)
            picture(pilot)
