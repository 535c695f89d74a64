"""Host facts: from recorded capabilities of a QEMU host, and from libvirt's test driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
import pytest

from host.connection import Host, open_host
from host.errors import ConnectionLost, HvtuiError
from host.facts import (
    GuestCapabilities,
    NumaCell,
    best_cpu_mode,
    parse_guest_capabilities,
    parse_host_capabilities,
    read_defaults,
    read_facts,
    version_text,
)
from tests.support.failing_connection import FailingConnection

DATA = Path(__file__).parents[1] / "support/data"
CAPABILITIES = (DATA / "capabilities-qemu-7.2.xml").read_text()
EMULATED = (DATA / "domain-capabilities-q35-emulated.xml").read_text()
WITH_KVM = (DATA / "domain-capabilities-q35-kvm.xml").read_text()


@pytest.fixture
def default_host():
    opened = open_host("test:///default")
    yield opened
    opened.close()


def test_recorded_host_capabilities_give_the_guests_of_the_hosts_own_architecture():
    known = parse_host_capabilities(CAPABILITIES)
    assert (known.architecture, known.cpu_vendor) == ("x86_64", "AMD")
    assert known.emulator == "/usr/bin/qemu-system-x86_64"
    assert known.domain_types == ("qemu", "kvm")
    assert known.numa[0].cpus == (0, 1)
    assert known.numa[0].memory_bytes > 1024**3


def test_deprecated_machine_types_are_left_out():
    machines = parse_host_capabilities(CAPABILITIES).machine_types
    assert {"q35", "pc-q35-7.2"} <= set(machines)
    assert "pc-i440fx-1.5" not in machines


def test_capabilities_without_a_guest_of_the_own_architecture_leave_it_empty():
    known = parse_host_capabilities("<capabilities><host><cpu><arch>riscv64</arch></cpu></host></capabilities>")
    assert (known.emulator, known.machine_types, known.domain_types, known.numa) == ("", (), (), ())


def test_a_numa_cell_without_memory_has_none():
    xml = "<capabilities><host><topology><cells><cell id='3'/></cells></topology></host></capabilities>"
    assert parse_host_capabilities(xml).numa == (NumaCell(3, (), 0),)


def test_recorded_domain_capabilities_give_firmware_tpm_and_secure_boot():
    guests = parse_guest_capabilities(EMULATED)
    assert guests.firmware == ("bios", "uefi")
    assert guests.secure_boot
    assert guests.tpm_models == ("tpm-tis", "tpm-crb")
    assert guests.machine == "pc-q35-7.2"
    assert guests.vcpus_max == 288
    assert "host-passthrough" not in guests.cpu_modes


def test_an_emulated_guest_gets_the_maximum_cpu_and_an_accelerated_one_the_hosts_model():
    assert best_cpu_mode("qemu", parse_guest_capabilities(EMULATED).cpu_modes) == "maximum"
    assert best_cpu_mode("kvm", parse_guest_capabilities(WITH_KVM).cpu_modes) == "host-model"
    assert best_cpu_mode("kvm", ()) == ""
    assert best_cpu_mode("test", ("host-model",)) == ""


def test_an_arm_host_without_uefi_files_has_no_firmware_at_all():
    guests = parse_guest_capabilities("<domainCapabilities><arch>aarch64</arch></domainCapabilities>")
    assert guests == GuestCapabilities()


def test_versions_are_written_as_people_read_them():
    assert version_text(7_002_022) == "7.2.22"
    assert version_text(0) == ""


def test_the_test_driver_gives_facts_with_its_unsupported_parts_empty(default_host: Host):
    facts = read_facts(default_host)
    assert (facts.driver, facts.accelerator) == ("TEST", "test")
    assert (facts.cpus, facts.sockets, facts.cores_per_socket, facts.threads_per_core) == (16, 4, 2, 2)
    assert facts.memory_bytes == 3 * 1024**3
    assert [cell.memory_bytes for cell in facts.numa] == [2 * 1024**3, 4 * 1024**3]
    assert (facts.firmware, facts.tpm_models, facts.secure_boot) == ((), (), False)
    assert facts.vcpus_max == 32
    assert facts.default_machine == "q35"


def test_a_guest_of_the_test_driver_gets_its_type_and_the_modern_machine(default_host: Host):
    defaults = read_defaults(default_host)
    assert (defaults.virtualization, defaults.machine, defaults.cpu_mode) == ("test", "q35", "")


class RecordedConnection:
    """A QEMU host as recorded, behind the binding's names: what the test driver cannot answer."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        answers = {
            "getCapabilities": CAPABILITIES,
            "getInfo": ["x86_64", 4570, 2, 2445, 1, 1, 2, 1],
            "getMemoryStats": {"total": 24_684_092, "free": 1},
            "getHostname": "lab1",
            "getType": "QEMU",
            "getVersion": 7_002_022,
            "getLibVersion": 9_000_000,
        }
        self.calls.append(name)
        return lambda *_: answers[name]

    def getDomainCapabilities(  # noqa: N802  the binding's name
        self, _emulator: None, architecture: str, machine: str, kind: str, _flags: int
    ) -> str:
        self.calls.append("getDomainCapabilities")
        assert (architecture, machine) == ("x86_64", "q35")
        return WITH_KVM if kind == "kvm" else EMULATED


@pytest.fixture
def recorded(default_host: Host, monkeypatch: pytest.MonkeyPatch) -> RecordedConnection:
    connection = RecordedConnection()
    monkeypatch.setattr(default_host, "is_simulated", False)
    monkeypatch.setattr(default_host, "is_local", False)
    monkeypatch.setattr(default_host, "_connection", lambda _role: connection)
    return connection


def test_the_facts_of_a_qemu_host_cost_a_constant_number_of_calls(default_host: Host, recorded: RecordedConnection):
    facts = read_facts(default_host)
    assert len(recorded.calls) == len(set(recorded.calls)) == 8
    assert (facts.host_name, facts.hypervisor_version, facts.libvirt_version) == ("lab1", "7.2.22", "9.0.0")
    assert facts.memory_bytes == 24_684_092 * 1024
    assert (facts.accelerator, facts.default_machine, facts.vcpus_max) == ("kvm", "pc-q35-7.2", 288)


def test_a_new_guest_is_made_for_the_accelerator_that_was_chosen(default_host: Host, recorded: RecordedConnection):
    defaults = read_defaults(default_host, configured="qemu")
    assert (defaults.virtualization, defaults.cpu_mode, defaults.machine) == ("qemu", "maximum", "pc-q35-7.2")
    assert defaults.emulator == "/usr/bin/qemu-system-x86_64"


@pytest.mark.parametrize("broken", ["getDomainCapabilities", "getMaxVcpus", "getMemoryStats"])
def test_a_connection_lost_among_the_optional_calls_is_an_error(
    default_host: Host, monkeypatch: pytest.MonkeyPatch, broken: str
):
    connection = FailingConnection(default_host.connection(), broken, domain=libvirt.VIR_FROM_RPC)
    monkeypatch.setattr(default_host, "_connection", lambda _role: connection)
    with pytest.raises(ConnectionLost):
        read_facts(default_host)


def test_a_host_that_does_not_tell_its_largest_guest_has_zero(default_host: Host, monkeypatch: pytest.MonkeyPatch):
    connection = FailingConnection(default_host.connection(), "getMaxVcpus")
    monkeypatch.setattr(default_host, "_connection", lambda _role: connection)
    assert read_facts(default_host).vcpus_max == 0


def test_statistics_without_a_total_leave_the_nodes_own_memory(
    default_host: Host, recorded: RecordedConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recorded, "getMemoryStats", lambda *_: {}, raising=False)
    assert read_facts(default_host).memory_bytes == 4570 * 1024**2


def test_an_unknown_accelerator_in_the_configuration_is_refused(default_host: Host, recorded: RecordedConnection):
    with pytest.raises(HvtuiError, match="Use auto, kvm or qemu"):
        read_facts(default_host, configured="xen")
