"""The host's facts, load and overcommitment as text: pure functions from a Snapshot to rows. No widget here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from host.facts import NodeFacts
from host.text import fit, printable
from host.units import format_bytes
from hvtui.tui.widgets.charts import bar
from hvtui.tui.widgets.page import Row, heading, row
from vm.model import Snapshot, VmState

if TYPE_CHECKING:
    from host.maintenance import Maintenance

_LABEL = 18
_INDENT = 3 + _LABEL
_METER_CELLS = 20
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Allocation:
    """What running VMs have been promised of this host, and what all defined VMs would need together."""

    running_vcpus: int
    running_memory_bytes: int
    all_vcpus: int
    all_memory_bytes: int


def allocation(snapshot: Snapshot) -> Allocation:
    """The sums over the snapshot's VMs; memory is each VM's maximum."""
    running = [vm for vm in snapshot.vms if vm.is_active]
    return Allocation(
        running_vcpus=sum(vm.vcpus for vm in running),
        running_memory_bytes=sum(vm.memory_max_bytes for vm in running),
        all_vcpus=sum(vm.vcpus for vm in snapshot.vms),
        all_memory_bytes=sum(vm.memory_max_bytes for vm in snapshot.vms),
    )


def host_rows(snapshot: Snapshot, note: Maintenance | None = None) -> list[Row]:
    """The whole host screen; `note` where the host is drained, or misses VMs."""
    facts = snapshot.facts
    rows = [heading("Now"), *_load_rows(snapshot), *(_maintenance_rows(note) if note is not None else ()), row()]
    if facts is None:
        return [*rows, row("reading what this host is and can do", style="$text-muted", indent=3)]
    rows += [heading("Promised to virtual machines"), *_allocation_rows(snapshot, facts), row()]
    rows += [heading("Hypervisor"), *_hypervisor_rows(facts), row()]
    return [*rows, heading("Hardware"), *_hardware_rows(facts)]


def _maintenance_rows(note: Maintenance) -> list[Row]:
    since = f"drained since {note.since}: no VM is placed here" if note.is_drained else "takes VMs again"
    rows = [_row("maintenance", since, "$text-warning")]
    for guest in note.guests:
        where = f"moved to {guest.host}" if guest.fate == "moved" else guest.fate
        rows.append(_row("", f"{guest.name}: {where}, was {guest.was}"))
    return rows


def _load_rows(snapshot: Snapshot) -> list[Row]:
    load = snapshot.load
    rows = [_row("connection", *_link_words(snapshot))]
    if load.cpu_percent is not None:
        rows.append(_meter("cpu", load.cpu_percent / 100, f"{load.cpu_percent:.0f}%"))
    for name, used, total in (
        ("memory", load.memory_used_bytes, load.memory_total_bytes),
        ("image storage", load.disk_used_bytes, load.disk_total_bytes),
    ):
        if used is not None and total:
            figures = f"{format_bytes(used)} of {format_bytes(total)}, {format_bytes(total - used)} free"
            rows.append(_meter(name, used / total, f"{used / total:.0%}", figures))
    states = Counter(vm.state for vm in snapshot.vms)
    words = ", ".join(f"{states[state]} {state.value}" for state in VmState if states[state])
    rows.append(_row("virtual machines", f"{len(snapshot.vms)}: {words}" if words else "none yet"))
    return rows


def _allocation_rows(snapshot: Snapshot, facts: NodeFacts) -> list[Row]:
    """CPUs may be promised several times over; memory that is promised twice is missing when it is wanted."""
    given = allocation(snapshot)
    cpus, memory = max(facts.cpus, 1), max(facts.memory_bytes, 1)
    cpu_words = f"of {facts.cpus} CPUs"
    memory_words = f"of {format_bytes(facts.memory_bytes)}"
    rows = [
        _promise("cpu, running", given.running_vcpus / cpus, f"{given.running_vcpus} vCPU {cpu_words}", most=4.0),
        _promise("cpu, all VMs", given.all_vcpus / cpus, f"{given.all_vcpus} vCPU {cpu_words}", most=4.0),
    ]
    for name, size in (("memory, running", given.running_memory_bytes), ("memory, all VMs", given.all_memory_bytes)):
        rows.append(_promise(name, size / memory, f"{format_bytes(size)} {memory_words}", most=1.0))
    return rows


def _promise(label: str, share: float, words: str, *, most: float) -> Row:
    """`most` is the share from which on it is too much: shown as a warning, in words too."""
    if share <= most:
        return _meter(label, share, f"{share:.0%}", words, limits=(most, most))
    return _meter(label, share, f"{share:.0%}", f"{words}  ! too much", limits=(most, most))


def _hypervisor_rows(facts: NodeFacts) -> list[Row]:
    emulated = facts.accelerator == "qemu"
    name = {"qemu": "none: guests are emulated, 10 to 50 times slower", "kvm": "KVM"}.get(
        facts.accelerator, facts.accelerator
    )
    machines = f"{facts.default_machine} by default, {_counted(len(facts.machine_types), 'type')}"
    return _rows(
        ("acceleration", name, "$text-warning" if emulated else ""),
        ("  because", facts.accelerator_reason, ""),
        ("hypervisor", " ".join(part for part in (facts.driver, facts.hypervisor_version) if part), ""),
        ("libvirt", facts.libvirt_version, ""),
        ("emulator", facts.emulator, ""),
        ("machine types", machines if facts.machine_types else "", ""),
        ("vCPU of one VM", f"at most {facts.vcpus_max}" if facts.vcpus_max else "", ""),
        ("firmware", ", ".join(facts.firmware) + (", Secure Boot" if facts.secure_boot else ""), ""),
        ("TPM", ", ".join(facts.tpm_models) or "none", ""),
    )


def _hardware_rows(facts: NodeFacts) -> list[Row]:
    cores = (
        f"{_counted(facts.sockets, 'socket')} × {_counted(facts.cores_per_socket, 'core')}"
        f" × {_counted(facts.threads_per_core, 'thread')}"
    )
    speed = f", {facts.cpu_mhz} MHz" if facts.cpu_mhz else ""
    cells = facts.numa if len(facts.numa) > 1 else ()
    return _rows(
        ("cpu", f"{facts.cpu_model} {facts.cpu_vendor}".strip(), ""),
        ("CPUs", f"{facts.cpus}: {cores}{speed}, {facts.architecture}", ""),
        ("memory", format_bytes(facts.memory_bytes), ""),
        *((f"NUMA node {c.id}", f"{_counted(len(c.cpus), 'CPU')}, {format_bytes(c.memory_bytes)}", "") for c in cells),
    )


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _link_words(snapshot: Snapshot) -> tuple[str, str]:
    if snapshot.link.is_up:
        return snapshot.uri, ""
    cause = f": {snapshot.link.error}" if snapshot.link.error else ""
    return f"{snapshot.link.status.value}{cause}; hvtui tries again by itself", "$text-error"


def _rows(*rows: tuple[str, str, str]) -> list[Row]:
    """Those that have something to say."""
    return [_row(label, value, style) for label, value, style in rows if value]


def _row(label: str, value: str, style: str = "") -> Row:
    return Row(Content.styled(printable(value, limit=_LONGEST), style), _label(label), _INDENT)


def _label(label: str) -> Content:
    return Content.styled(f"   {fit(label, _LABEL)}", "$text-muted")


def _meter(
    label: str, share: float, figure: str, words: str = "", *, limits: tuple[float, float] = (0.85, 0.95)
) -> Row:
    style = "$text-error" if share > limits[1] else "$text-warning" if share > limits[0] else ""
    parts = (bar(share, _METER_CELLS), style or "$chart"), (f"  {figure:>4}", style), (f"  {words}", "$text-muted")
    return Row(Content.assemble(*parts), _label(label), _INDENT)
