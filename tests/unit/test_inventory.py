"""Reading, finding and expanding VMs on libvirt's test driver."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest

from host.connection import Host
from host.errors import ConnectionLost, NotFound
from tests.support import simulated_world
from tests.support.simulated_world import GLOB_NAME, HOSTILE_NAMES, domain, uuid_of, world
from vm import domain_xml, inventory
from vm.model import Vm, VmState
from vm.states import reason_of, state_of


def by_name(vms: tuple[Vm, ...]) -> dict[str, Vm]:
    return {vm.name: vm for vm in vms}


def test_every_vm_is_read_with_its_state_and_flags(simulated: Host) -> None:
    simulated.connection().lookupByName("files").setAutostart(1)

    vms = by_name(inventory.read(simulated))

    assert len(vms) == len(simulated_world.VARIED)
    assert vms["web-01"].state is VmState.RUNNING
    assert vms["web-01"].checkpoints == 1
    assert vms["web-01"].domain_id is not None
    assert vms["web-01"].uuid == uuid_of("web-01")
    assert vms["db-01"].state is VmState.PAUSED
    assert vms["build-07"].state is VmState.OFF
    assert vms["build-07"].domain_id is None
    assert vms["build-08"].state is VmState.SAVED
    assert vms["build-08"].has_saved_state
    assert vms["panicked"].state is VmState.CRASHED
    assert not vms["scratch"].persistent
    assert [name for name, vm in vms.items() if vm.autostart] == ["files"]
    assert set(HOSTILE_NAMES) <= vms.keys()


def test_the_list_is_sorted_by_name(simulated: Host) -> None:
    names = [vm.name for vm in inventory.read(simulated)]

    assert names == sorted(names)


def test_the_quick_list_knows_names_and_states(simulated: Host) -> None:
    full, quick = by_name(inventory.read(simulated)), by_name(inventory.read_states(simulated))

    assert {name: vm.state for name, vm in quick.items()} == {name: vm.state for name, vm in full.items()}


def test_some_vms_are_read_and_those_that_are_gone_left_out(simulated: Host) -> None:
    wanted = [uuid_of("web-01"), uuid_of("never"), uuid_of("build-07")]

    assert [vm.name for vm in inventory.read_some(simulated, wanted)] == ["build-07", "web-01"]
    assert inventory.read_some(simulated, [uuid_of("never")]) == ()
    assert inventory.read_some(simulated, []) == ()


def test_a_vm_that_vanished_after_its_handle_was_taken_is_left_out(simulated: Host) -> None:
    vms, handles = inventory.read_all(simulated)
    simulated.connection().lookupByName("build-07").undefine()
    wanted = [vm for vm in vms if vm.name in {"build-07", "web-01"}]

    assert [vm.name for vm in inventory.read_some(simulated, [vm.uuid for vm in wanted], handles=handles)] == ["web-01"]
    assert [vm.name for vm in inventory.read_configs(simulated, wanted, handles=handles)] == ["web-01"]
    assert [vm.name for vm in inventory.read_configs(simulated, wanted)] == ["web-01"]


def test_configs_fill_what_statistics_lack_and_count_checkpoints(simulated: Host) -> None:
    connection = simulated.connection()
    connection.lookupByName("web-01").snapshotCreateXML("<domainsnapshot><name>second</name></domainsnapshot>")
    web = inventory.find(simulated, "web-01")
    assert (web.memory_bytes, web.config) == (0, None), "the test driver's statistics have only the state"

    (read,) = inventory.read_configs(simulated, [web])

    assert read.config is not None
    assert read.config.tags == ("web", "prod")
    assert (read.memory_bytes, read.memory_max_bytes, read.vcpus) == (2 * 1024**3, 2 * 1024**3, 2)
    assert read.checkpoints == 2


def test_many_configs_are_read_at_once(simulated: Host) -> None:
    vms = inventory.read_configs(simulated, inventory.read(simulated), pending=True)

    assert len(vms) == len(simulated_world.VARIED)
    assert all(vm.config is not None and not vm.config.pending_changes for vm in vms)


def test_changes_for_the_next_boot_are_seen_only_where_asked_for(open_world: Callable[[str], Host]) -> None:
    host = open_world(world([domain("web", state="running")]))
    host.connection().lookupByName("web").setVcpusFlags(
        2, libvirt.VIR_DOMAIN_AFFECT_CONFIG | libvirt.VIR_DOMAIN_VCPU_MAXIMUM
    )
    vms = inventory.read(host)

    (asked,) = inventory.read_configs(host, vms, pending=True)
    (unasked,) = inventory.read_configs(host, vms)

    assert asked.config is not None
    assert unasked.config is not None
    assert asked.config.pending_changes
    assert not unasked.config.pending_changes


def test_a_configuration_that_cannot_be_read_leaves_the_vm_in_the_list(
    open_world: Callable[[str], Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = open_world(world([domain("huge", description="x" * 10_000)]))
    monkeypatch.setattr(domain_xml, "LARGEST_XML_BYTES", 1000)

    (vm,) = inventory.read_configs(host, inventory.read(host))

    assert vm.name == "huge"
    assert vm.config is not None
    assert vm.config.description == ""


# Finding


@pytest.mark.parametrize("name", ["web-01", *HOSTILE_NAMES])
def test_a_vm_is_found_by_its_exact_name(simulated: Host, name: str) -> None:
    assert inventory.find(simulated, name).name == name


def test_a_vm_is_found_by_uuid_in_any_notation_and_by_id(simulated: Host) -> None:
    uuid = uuid_of("web-01")
    running = inventory.find(simulated, uuid)

    assert running.name == "web-01"
    assert inventory.find(simulated, uuid.upper()).name == "web-01"
    assert inventory.find(simulated, uuid.replace("-", "")).name == "web-01"
    assert inventory.find(simulated, str(running.domain_id)).name == "web-01"


def test_a_name_wins_over_an_id(open_world: Callable[[str], Host]) -> None:
    host = open_world(world([domain("first", state="running"), domain("1")]))

    assert inventory.find(host, "1").name == "1"
    assert [vm.name for vm in inventory.expand(host, ["1"])] == ["1"]


@pytest.mark.parametrize(("ref", "hint"), [("wbe-01", "web-01"), ("biuld-07", "build-07"), ("qqqqq", "vm list")])
def test_an_unknown_name_names_the_nearest(simulated: Host, ref: str, hint: str) -> None:
    with pytest.raises(NotFound) as caught:
        inventory.find(simulated, ref)

    assert ref in str(caught.value)
    assert hint in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "ref", ["", "99999999999999999999", "9999", "a/b", "x\x1b[2J", "\n", uuid_of("never"), "n" * 10_000]
)
def test_a_hostile_reference_is_simply_not_found(simulated: Host, ref: str) -> None:
    with pytest.raises(NotFound) as caught:
        inventory.find(simulated, ref)
    assert "\x1b" not in str(caught.value)

    with pytest.raises(NotFound):
        inventory.expand(simulated, [ref])


def test_a_hint_shows_hostile_names_harmlessly(simulated: Host) -> None:
    with pytest.raises(NotFound) as caught:
        inventory.find(simulated, "eviltxt31")

    assert "\\u202e" in str(caught.value)
    assert "\u202e" not in str(caught.value)


# Expanding


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["web-01"], ["web-01"]),
        (["web-*"], ["web-01", "web-02"]),
        (["build-0[78]", "web-01", "web-*"], ["build-07", "build-08", "web-01", "web-02"]),
        (["web-0?"], ["web-01", "web-02"]),
        ([GLOB_NAME], [GLOB_NAME]),
        (["star*"], [GLOB_NAME]),
        ([uuid_of("db-01")], ["db-01"]),
        ([], []),
    ],
)
def test_names_and_globs_stand_for_vms_each_once(simulated: Host, patterns: list[str], names: list[str]) -> None:
    assert [vm.name for vm in inventory.expand(simulated, patterns)] == names


def test_an_id_stands_for_a_running_vm(simulated: Host) -> None:
    number = inventory.find(simulated, "web-02").domain_id

    assert [vm.name for vm in inventory.expand(simulated, [str(number)])] == ["web-02"]


@pytest.mark.parametrize("pattern", ["WEB-*", "nothing-*", "web-03", "[", "77"])
def test_a_pattern_that_matches_nothing_is_an_error(simulated: Host, pattern: str) -> None:
    with pytest.raises(NotFound):
        inventory.expand(simulated, ["web-01", pattern])


def test_a_star_stands_for_every_vm(simulated: Host) -> None:
    assert inventory.expand(simulated, ["*"]) == inventory.read(simulated)


# Odd moments


class Vanishing:
    """A handle whose XML cannot be read: the moment between two calls in which another client acts."""

    def __init__(self, vm: Vm, code: int) -> None:
        self.vm = vm
        self.code = code

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return self.vm.uuid

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 - libvirt's name
        error = libvirt.libvirtError("XMLDesc() failed")
        error.err = (self.code, libvirt.VIR_FROM_QEMU, "no", 2, "", None, None, 0, 0)
        raise error


def test_a_vm_that_vanishes_while_its_xml_is_read_is_left_out(simulated: Host) -> None:
    (vm,) = inventory.read_some(simulated, [uuid_of("web-01")])

    assert inventory.read_configs(simulated, [vm], handles={vm.uuid: Vanishing(vm, libvirt.VIR_ERR_NO_DOMAIN)}) == ()


def test_any_other_error_while_the_xml_is_read_is_told(simulated: Host) -> None:
    (vm,) = inventory.read_some(simulated, [uuid_of("web-01")])

    with pytest.raises(ConnectionLost):
        inventory.read_configs(simulated, [vm], handles={vm.uuid: Vanishing(vm, libvirt.VIR_ERR_NO_CONNECT)})


def test_the_start_of_a_vm_is_told_by_its_pid_file_on_this_machines_own_libvirtd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated: Host
) -> None:
    (tmp_path / "web-01.pid").write_text("1")
    os.utime(tmp_path / "web-01.pid", (1_700_000_000, 1_700_000_000))
    assert inventory.find(simulated, "web-01").started_at is None

    monkeypatch.setattr(inventory, "_pid_directory", lambda _host: str(tmp_path))
    vms = by_name(inventory.read(simulated))

    assert vms["web-01"].started_at is not None
    assert vms["web-01"].started_at.timestamp() == 1_700_000_000
    assert vms["web-02"].started_at is None
    assert vms[simulated_world.ESCAPE_NAME].started_at is None


# States in words


def test_every_reason_that_this_libvirt_knows_has_words() -> None:
    prefixes = {
        "RUNNING": libvirt.VIR_DOMAIN_RUNNING,
        "PAUSED": libvirt.VIR_DOMAIN_PAUSED,
        "SHUTDOWN": libvirt.VIR_DOMAIN_SHUTDOWN,
        "SHUTOFF": libvirt.VIR_DOMAIN_SHUTOFF,
        "CRASHED": libvirt.VIR_DOMAIN_CRASHED,
        "PMSUSPENDED": libvirt.VIR_DOMAIN_PMSUSPENDED,
        "NOSTATE": libvirt.VIR_DOMAIN_NOSTATE,
    }
    flags_of_shutdown_call = {"ACPI_POWER_BTN", "GUEST_AGENT", "INITCTL", "SIGNAL", "PARAVIRT", "DEFAULT"}
    known: list[tuple[int, int]] = []
    for name in dir(libvirt):
        _, _, rest = name.partition("VIR_DOMAIN_")
        prefix, _, reason = rest.partition("_")
        if prefix in prefixes and reason and reason not in flags_of_shutdown_call:
            known.append((prefixes[prefix], getattr(libvirt, name)))

    assert len(known) > 30
    assert not [pair for pair in known if reason_of(*pair).startswith("reason ")]


def test_states_and_reasons_read_in_words() -> None:
    assert state_of(libvirt.VIR_DOMAIN_SHUTOFF, has_saved_state=True) is VmState.SAVED
    assert state_of(libvirt.VIR_DOMAIN_RUNNING, has_saved_state=True) is VmState.RUNNING
    assert state_of(libvirt.VIR_DOMAIN_BLOCKED) is VmState.RUNNING
    assert state_of(99) is VmState.UNKNOWN
    assert reason_of(libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR) == "disk error"
    assert reason_of(libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED) == "crashed"
    assert reason_of(libvirt.VIR_DOMAIN_PAUSED, 99) == "reason 99"


@pytest.mark.parametrize(
    ("state", "reason", "alarming"),
    [
        (VmState.PAUSED, "disk error", True),
        (VmState.PAUSED, "by user", False),
        (VmState.CRASHED, "", True),
        (VmState.OFF, "crashed", True),
        (VmState.OFF, "shut down", False),
        (VmState.RUNNING, "was crashed", False),
    ],
)
def test_what_nobody_asked_for_needs_attention(state: VmState, reason: str, alarming: bool) -> None:
    fields: dict[str, Any] = {"uuid": "x", "name": "x", "state": state, "state_reason": reason}

    assert Vm(**fields).needs_attention is alarming
