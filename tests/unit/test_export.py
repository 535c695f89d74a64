"""What is said of an export before it begins: states, disks that cannot go along, the directory, the room."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from host.connection import Host
from host.errors import UsageError
from host.plan import Plan
from tests.support.new_vms import WORLD
from tests.support.running import vm_named
from vm.export import plan_export
from vm.model import VmState

POOL = """<pool type='dir'><name>default</name><target><path>/images</path></target>
<volume><name>web.qcow2</name><capacity>1073741824</capacity><allocation>2097152</allocation>
<target><format type='qcow2'/></target></volume></pool>"""
DOMAIN = """<domain type='test'><name>web</name><uuid>11111111-2222-3333-4444-555555555555</uuid>
<memory>65536</memory><vcpu>1</vcpu><os>{os}<type>hvm</type></os><devices>{devices}</devices></domain>"""
DISK = """<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/images/web.qcow2'/>
<target dev='vda' bus='virtio'/></disk>"""
CD = "<disk type='file' device='cdrom'><source file='/x.iso'/><target dev='sda' bus='sata'/></disk>"
NETWORK_DISK = """<disk type='network' device='disk'><source protocol='rbd' name='p/x'><host name='h'/></source>
<target dev='vdb' bus='virtio'/></disk>"""
ENCRYPTED = """<disk type='file'><source file='/images/web.qcow2'/><target dev='vdc' bus='virtio'/>
<encryption format='luks'><secret type='passphrase' uuid='11111111-2222-3333-4444-555555555556'/></encryption></disk>"""


@pytest.fixture
def world(open_world: Callable[..., Host]) -> Callable[..., Host]:
    def make(devices: str, os_more: str = "") -> Host:
        host = open_world(WORLD.format(body=POOL))
        with host.calls("define") as connection:
            connection.defineXML(DOMAIN.format(devices=devices, os=os_more))
        return host

    return make


def plan(host: Host, directory: Path, *leave_out: str) -> Plan:
    return plan_export(host, vm_named(host, "web"), directory, leave_out=leave_out)


def reasons(made: Plan) -> str:
    return "; ".join(blocker.reason for blocker in made.blockers if "simulated" not in blocker.reason)


def test_a_vm_that_is_off_is_exported_step_by_step(world: Callable[..., Host], tmp_path: Path) -> None:
    kernel = "<kernel>/images/vmlinuz</kernel><initrd>/images/initrd</initrd>"
    made = plan(world(DISK + CD, kernel), tmp_path / "b")
    assert not reasons(made)
    assert [step.verb for step in made.steps] == [
        "export.begin",
        "export.disk",
        "export.file",
        "export.file",
        "export.finish",
    ]
    left_out: Any = made.steps[-1].args["left_out"]
    assert left_out == {"sda": "/x.iso, a medium in a drive"}
    assert made.steps[1].args["pool"] == "default"


@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.PAUSED, VmState.SAVED, VmState.SHUTTING_DOWN])
def test_any_other_state_is_a_blocker_with_its_remedy(
    world: Callable[..., Host], tmp_path: Path, state: VmState
) -> None:
    host = world(DISK)
    made = plan_export(host, replace(vm_named(host, "web"), state=state), tmp_path / "b")
    (blocker,) = [each for each in made.blockers if "simulated" not in each.reason]
    assert blocker.exit_code == 4
    assert "hvtui vm" in blocker.remedy


@pytest.mark.parametrize(("disk", "target"), [(NETWORK_DISK, "vdb"), (ENCRYPTED, "vdc")])
def test_a_disk_that_cannot_go_along_needs_a_word(
    world: Callable[..., Host], tmp_path: Path, disk: str, target: str
) -> None:
    host = world(DISK + disk)
    made = plan(host, tmp_path / "b")
    assert f"the disk {target} cannot be exported" in reasons(made)
    assert any(f"--leave-out {target}" in blocker.remedy for blocker in made.blockers)
    without = plan(host, tmp_path / "b", target)
    assert not reasons(without)
    assert any(target in warning for warning in without.warnings)
    assert target in without.steps[-1].args["left_out"]  # type: ignore[operator]


def test_a_disk_that_the_vm_has_not_cannot_be_left_out(world: Callable[..., Host], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="vdx"):
        plan(world(DISK), tmp_path / "b", "vdx")


def test_the_directory_must_be_new_and_its_parent_there(world: Callable[..., Host], tmp_path: Path) -> None:
    host = world(DISK)
    (tmp_path / "taken").mkdir()
    assert not reasons(plan(host, tmp_path / "taken"))  # an empty one is as good as none
    (tmp_path / "taken/file").touch()
    assert "there already" in reasons(plan(host, tmp_path / "taken"))
    assert "there already" in reasons(plan(host, tmp_path / "taken/file"))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "there already" in reasons(plan(host, tmp_path / "link"))
    assert "no directory" in reasons(plan(host, tmp_path / "a/b"))


def test_too_little_room_is_a_blocker(
    world: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _path: status)
    assert "has 4K free" in reasons(plan(world(DISK), tmp_path / "b"))


def test_firmware_variables_are_where_the_definition_says(world: Callable[..., Host], tmp_path: Path) -> None:
    made = plan(world(DISK, "<loader type='pflash'>/x</loader><nvram>/here/web.fd</nvram>"), tmp_path / "b")
    assert [step.args["path"] for step in made.steps if step.args.get("role") == "nvram"] == ["/here/web.fd"]
