"""The host's facts, load and overcommitment as text: pure functions from a Snapshot to styled Content. No widget."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from textual.content import Content

from host.facts import NodeFacts
from host.text import fit, printable
from host.units import format_bytes
from hvtui.tui.job_text import bar
from vm.model import Snapshot, VmState

_LABEL = 18
_OVERCOMMITTED = 1.0  # more promised than there is
_METER_CELLS = 20


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


def host_content(snapshot: Snapshot) -> Content:
    """The whole host screen."""
    lines = [_heading("Now"), *_load_lines(snapshot), Content("")]
    facts = snapshot.facts
    if facts is None:
        return Content("\n").join([*lines, Content.styled("  reading the host's facts", "$text-muted")])
    lines += [_heading("Promised to virtual machines"), *_allocation_lines(snapshot, facts), Content("")]
    lines += [_heading("Hardware"), *_hardware_lines(facts), Content("")]
    lines += [_heading("Hypervisor"), *_hypervisor_lines(facts)]
    return Content("\n").join(lines)


def _load_lines(snapshot: Snapshot) -> list[Content]:
    load = snapshot.load
    lines = [_row("connection", _link_words(snapshot), "" if snapshot.link.is_up else "$text-error")]
    if load.cpu_percent is not None:
        lines.append(_meter("cpu", load.cpu_percent / 100, f"{load.cpu_percent:.0f}%"))
    for name, used, total in (
        ("memory", load.memory_used_bytes, load.memory_total_bytes),
        ("image storage", load.disk_used_bytes, load.disk_total_bytes),
    ):
        if used is not None and total:
            lines.append(_meter(name, used / total, f"{format_bytes(used)} of {format_bytes(total)}"))
    states = Counter(vm.state for vm in snapshot.vms)
    words = ", ".join(f"{states[state]} {state.value}" for state in VmState if states[state])
    lines.append(_row("virtual machines", f"{len(snapshot.vms)}: {words}" if words else "none yet"))
    return lines


def _allocation_lines(snapshot: Snapshot, facts: NodeFacts) -> list[Content]:
    given = allocation(snapshot)
    cpus, memory = max(facts.cpus, 1), max(facts.memory_bytes, 1)
    rows = (
        ("cpu, running", given.running_vcpus / cpus, f"{given.running_vcpus} vCPU on {facts.cpus} CPUs"),
        ("cpu, all", given.all_vcpus / cpus, f"{given.all_vcpus} vCPU"),
        ("memory, running", given.running_memory_bytes / memory, format_bytes(given.running_memory_bytes)),
        ("memory, all", given.all_memory_bytes / memory, format_bytes(given.all_memory_bytes)),
    )
    return [
        _meter(name, share, f"{share:.0%}  {words}" + ("  ! more than the host has" if share > _OVERCOMMITTED else ""))
        for name, share, words in rows
    ]


def _hardware_lines(facts: NodeFacts) -> list[Content]:
    cores = f"{facts.sockets} sockets x {facts.cores_per_socket} cores x {facts.threads_per_core} threads"
    topology = f"{facts.cpus} CPUs: {cores}"
    lines = [
        _row("cpu", f"{facts.cpu_model} {facts.cpu_vendor}".strip()),
        _row("topology", f"{topology}, {facts.cpu_mhz} MHz, {facts.architecture}"),
        _row("memory", format_bytes(facts.memory_bytes)),
    ]
    cells = facts.numa if len(facts.numa) > 1 else ()
    lines += [_row(f"NUMA node {c.id}", f"{len(c.cpus)} CPUs, {format_bytes(c.memory_bytes)}") for c in cells]
    return lines


def _hypervisor_lines(facts: NodeFacts) -> list[Content]:
    emulated = facts.accelerator == "qemu"
    accelerator = f"{facts.accelerator}: {facts.accelerator_reason}" if facts.accelerator_reason else facts.accelerator
    return [
        _row("accelerator", accelerator, "$text-warning" if emulated else ""),
        _row("driver", f"{facts.driver} {facts.hypervisor_version}, libvirt {facts.libvirt_version}"),
        _row("emulator", facts.emulator or "none"),
        _row("machine", f"{facts.default_machine} of {len(facts.machine_types)} types, at most {facts.vcpus_max} vCPU"),
        _row("firmware", ", ".join(facts.firmware) + (" with Secure Boot" if facts.secure_boot else "")),
        _row("TPM", ", ".join(facts.tpm_models) or "none"),
    ]


def _link_words(snapshot: Snapshot) -> str:
    if snapshot.link.is_up:
        return snapshot.uri
    return f"{snapshot.link.status.value}: {snapshot.link.error}; hvtui reconnects by itself"


def _heading(text: str) -> Content:
    return Content.styled(f" {text}", "bold $text-accent")


def _row(label: str, value: str, style: str = "") -> Content:
    return Content.assemble("   ", (fit(label, _LABEL), "$text-muted"), (printable(value, limit=400), style))


def _meter(label: str, share: float, words: str) -> Content:
    style = "$text-error" if share > 0.9 else "$text-warning" if share > 0.75 else "$text-success"
    return Content.assemble(
        "   ", (fit(label, _LABEL), "$text-muted"), (bar(share, cells=_METER_CELLS), style), f"  {words}"
    )
