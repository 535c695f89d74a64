"""`hvtui vm`: the noun, and the verbs that only read: list, show, xml."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from host.units import format_bytes
from hvtui.cli.grammar import Noun, Verbs, name_argument, names_argument, option, verb
from hvtui.cli.output import (
    Column,
    Format,
    choose,
    narrate,
    plain,
    record,
    write_facts,
    write_json,
    write_list,
    write_text,
)
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from host.plan import Json
    from vm.model import Disk, Nic, Vm, VmConfig

VERBS: Verbs = {
    "list": ("hvtui.cli.vm:list_", "List VMs and their states."),
    "show": ("hvtui.cli.vm:show", "Show everything about VMs."),
    "start": ("hvtui.cli.vm_lifecycle:start", "Start VMs; a saved one goes on from where it was."),
    "stop": ("hvtui.cli.vm_lifecycle:stop", "Shut guests down, by the agent first, then ACPI."),
    "restart": ("hvtui.cli.vm_lifecycle:restart", "Restart guests cleanly."),
    "reset": ("hvtui.cli.vm_lifecycle:reset", "Press the reset button: the guest is not asked."),
    "off": ("hvtui.cli.vm_lifecycle:off", "Cut the power: the guest is not asked."),
    "pause": ("hvtui.cli.vm_lifecycle:pause", "Let the virtual CPUs stand still."),
    "resume": ("hvtui.cli.vm_lifecycle:resume", "Let paused VMs go on."),
    "save": ("hvtui.cli.vm_lifecycle:save", "Save the memory to disk and stop; start goes on from there."),
    "discard-saved": ("hvtui.cli.vm_lifecycle:discard_saved", "Throw a saved state away; the next start boots."),
    "autostart": ("hvtui.cli.vm_lifecycle:autostart", "Start VMs with the host, or no more."),
    "create": ("hvtui.cli.vm_create:create", "Make a VM from an image, an ISO, a kernel, or 'tiny'."),
    "deploy": ("hvtui.cli.vm_deploy:deploy", "Make VMs from a template, many at once."),
    "migrate": ("hvtui.cli.vm_migrate:migrate", "Move VMs to another host, running or not."),
    "move-storage": ("hvtui.cli.vm_move_storage:move_storage", "Move a VM's disks to another storage pool."),
    "clone": ("hvtui.cli.vm_clone:clone", "Clone a VM: whole copies, or linked ones."),
    "unseed": ("hvtui.cli.vm_deploy:unseed", "Take the seed away from VMs deployed without waiting."),
    "rename": ("hvtui.cli.vm_settings:rename", "Give a VM another name."),
    "set": ("hvtui.cli.vm_settings:set_", "Change title, description, tags, owner, CPUs, memory."),
    "edit": ("hvtui.cli.vm_settings:edit", "Edit the XML, see the difference, and apply it."),
    "xml": ("hvtui.cli.vm:xml", "Print the XML."),
    "diff": ("hvtui.cli.vm_drift:diff", "Show where VMs depart from their templates."),
    "align": ("hvtui.cli.vm_drift:align", "Make VMs as their templates and profiles say."),
    "delete": ("hvtui.cli.vm_settings:delete", "Delete VMs; their disks stay unless named."),
    "watch": ("hvtui.cli.vm_streams:watch", "Stream state changes and rates as JSON lines."),
    "import": ("hvtui.cli.vm_import:import_", "Import a bundle, disks of another product, or an OVA."),
    "paravirtual": ("hvtui.cli.vm_import:paravirtual", "Switch an imported VM to virtio disks and cards."),
    "place": ("hvtui.cli.vm_place:place", "Rate the hosts for a VM: stars, with reasons."),
    "export": ("hvtui.cli.vm_export:export", "Export a VM to a bundle with its disks and state."),
    "console": ("hvtui.cli.vm_streams:console", "The serial console; ctrl+] leaves."),
}

vm = Noun("vm", verbs=VERBS, help="Virtual machines of one host. NAMES are names, UUIDs, ids, or globs in quotes.")

NO_VM = "No virtual machine on {} yet. A first one in seconds: hvtui vm create web --from tiny"


def _config(read: Callable[[VmConfig], Json]) -> Callable[[Vm], Json]:
    return lambda vm: read(vm.config) if vm.config is not None else None


def _size(read: Callable[[Vm], int | None]) -> Callable[[Vm], str]:
    def cell(vm: Vm) -> str:
        size_bytes = read(vm)
        return format_bytes(size_bytes) if size_bytes else "–"

    return cell


def _state(vm: Vm) -> str:
    reason = vm.state_reason if vm.needs_attention else ""
    return f"{vm.state} ({reason}) !" if reason else f"{vm.state} !" if vm.needs_attention else vm.state.value


def _uptime_s(vm: Vm) -> int | None:
    return int((datetime.now(UTC) - vm.started_at).total_seconds()) if vm.started_at else None


def disk_record(disk: Disk) -> dict[str, Json]:
    """The JSON object of a disk."""
    return {
        "target": disk.target,
        "bus": disk.bus,
        "device": disk.device,
        "source": disk.source,
        "source_type": disk.source_type,
        "format": disk.driver_format,
        "read_only": disk.read_only,
        "shareable": disk.shareable,
    }


def nic_record(nic: Nic) -> dict[str, Json]:
    """The JSON object of a network interface."""
    return {
        "mac": nic.mac,
        "model": nic.model,
        "source_type": nic.source_type,
        "source": nic.source,
        "target": nic.target,
    }


COLUMNS: tuple[Column[Vm], ...] = (
    Column("name", "The VM's name.", lambda vm: vm.name, in_table=True),
    Column("host", "The host it is on, by its name in the list of hosts.", lambda vm: vm.host),
    Column("uuid", "Its UUID, the same for ever.", lambda vm: vm.uuid),
    Column("id", "libvirt's number while it runs, else null.", lambda vm: vm.domain_id, right=True),
    Column(
        "state",
        "running, paused, shutting down, off, saved, crashed, suspended or unknown.",
        lambda vm: vm.state.value,
        _state,
        in_table=True,
    ),
    Column("reason", "libvirt's reason for the state, in words.", lambda vm: vm.state_reason),
    Column("needs_attention", "True for a state nobody asked for (a disk error).", lambda vm: vm.needs_attention),
    Column("vcpus", "Virtual CPUs.", lambda vm: vm.vcpus or None, title="CPUS", right=True, in_table=True),
    Column(
        "memory_bytes",
        "Memory the guest has now, or would get.",
        lambda vm: vm.memory_bytes or None,
        _size(lambda vm: vm.memory_bytes),
        title="MEMORY",
        right=True,
        in_table=True,
    ),
    Column(
        "memory_max_bytes",
        "The most memory it may have.",
        lambda vm: vm.memory_max_bytes or None,
        _size(lambda vm: vm.memory_max_bytes),
        title="MOST",
        right=True,
    ),
    Column(
        "memory_used_bytes",
        "Memory used inside, told by the guest's balloon driver, else null.",
        lambda vm: vm.memory_used_bytes,
        _size(lambda vm: vm.memory_used_bytes),
        title="USED",
        right=True,
    ),
    Column("autostart", "True when it starts with the host.", lambda vm: vm.autostart, in_table=True),
    Column("persistent", "False for one that vanishes when it stops.", lambda vm: vm.persistent),
    Column("has_saved_state", "True when the next start resumes a saved memory.", lambda vm: vm.has_saved_state),
    Column("checkpoints", "How many checkpoints it has.", lambda vm: vm.checkpoints, right=True),
    Column("started_at", "When it started, ISO 8601, else null.", lambda vm: _iso(vm.started_at)),
    Column("uptime_s", "Seconds since then, else null.", _uptime_s, right=True),
    Column(
        "addresses",
        "IP addresses of a running guest: its leases; `vm show` asks its agent too.",
        lambda vm: list(vm.addresses),
        extra=True,
    ),
    Column("title", "A short title.", _config(lambda c: c.title), extra=True),
    Column("description", "Free text.", _config(lambda c: c.description), extra=True),
    Column("tags", "Tags.", _config(lambda c: list(c.tags)), extra=True),
    Column("owner", "Who it belongs to.", _config(lambda c: c.owner), extra=True),
    Column("os", "libosinfo's id of its system.", _config(lambda c: c.os_id), extra=True),
    Column("virtualization", "kvm, qemu (emulated) or test.", _config(lambda c: c.virtualization), extra=True),
    Column("machine", "The machine type.", _config(lambda c: c.machine), extra=True),
    Column("firmware", "bios, uefi or kernel (direct boot).", _config(lambda c: c.firmware), extra=True),
    Column("cpu_mode", "libvirt's CPU mode.", _config(lambda c: c.cpu_mode), extra=True),
    Column("vcpus_max", "The most virtual CPUs.", _config(lambda c: c.vcpus_max), right=True, extra=True),
    Column("disks", "Its disks.", _config(lambda c: [disk_record(d) for d in c.disks]), extra=True),
    Column("nics", "Its network interfaces.", _config(lambda c: [nic_record(n) for n in c.nics]), extra=True),
    Column("agent_connected", "Whether its agent answers.", _config(lambda c: c.agent_connected), extra=True),
    Column("serial_console", "True when it has one.", _config(lambda c: c.has_serial_console), extra=True),
    Column("tpm", "True when it has a TPM.", _config(lambda c: c.has_tpm), extra=True),
    Column("graphics", "Where its screen is reached.", _config(lambda c: list(c.graphics)), extra=True),
    Column("host_devices", "Devices of the host given to it.", _config(lambda c: c.host_devices), extra=True),
    Column("template", "The template that it was made from.", _config(lambda c: c.template), extra=True),
    Column(
        "memory_next_start_bytes",
        "The memory that its next start gets, where that is not what it has now.",
        _config(lambda c: c.next_memory_bytes or None),
        _size(lambda vm: vm.config.next_memory_bytes if vm.config else None),
        title="NEXT MEMORY",
        right=True,
        extra=True,
    ),
    Column(
        "vcpus_next_start",
        "The virtual CPUs that its next start gets, where these are not those of now.",
        _config(lambda c: c.next_vcpus or None),
        title="NEXT CPUS",
        right=True,
        extra=True,
    ),
    Column(
        "pending_changes",
        "True when the next boot of a running VM differs from what runs.",
        _config(lambda c: c.pending_changes),
        extra=True,
    ),
)
MANY_COLUMNS = ("host", *(column.key for column in COLUMNS if column.in_table))
_OF_THE_NEXT_BOOT = frozenset({"pending_changes", "memory_next_start_bytes", "vcpus_next_start"})
EXTRA = frozenset(column.key for column in COLUMNS if column.extra)


def _iso(at: datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") if at else None


@verb(
    "list",
    names_argument(),
    option(
        "--details",
        is_flag=True,
        text="Every column, those from the XML too (one call a VM); on a terminal one below the other.",
    ),
    text="List VMs: all of them, or those of NAMES and --filter.",
)
def list_(session: Session, names: tuple[str, ...], details: bool) -> int:
    keys = {column.key for column in choose(COLUMNS, session.columns)}  # a wrong one is told before all is read
    is_many = session.is_many
    vms, code = _listed(
        session,
        names,
        config=details or not EXTRA.isdisjoint(keys),
        pending=details or not _OF_THE_NEXT_BOOT.isdisjoint(keys),
        addresses=details or "addresses" in keys,
    )
    if not vms and session.output is Format.TABLE:
        if not code:
            where = "these hosts" if is_many else session.host().name
            narrate("No VM matches" if session.filter_text else NO_VM.format(where))
        return code
    if details and session.output is Format.TABLE and not session.columns and sys.stdout.isatty():
        _write_blocks(vms, COLUMNS)  # no terminal is as wide as a table of everything
        return code
    chosen = session.columns or (MANY_COLUMNS if is_many and session.output is Format.TABLE and not details else ())
    write_list(vms, COLUMNS, output=session.output, chosen=chosen, details=details)
    return code


def _listed(session: Session, names: tuple[str, ...], **what: bool) -> tuple[tuple[Vm, ...], int]:
    """The VMs of a list, and the exit code: 6 when hosts did not answer, which was told then."""
    if session.is_many:
        from hvtui.cli.many import listed_everywhere

        return listed_everywhere(session, names, **what)
    from hvtui.cli.chosen import listed_vms

    return listed_vms(session, names, **what), 0


@verb("show", names_argument(required=True), text="Show everything about VMs, also what only their XML says.")
def show(session: Session, names: tuple[str, ...]) -> int:
    from hvtui.cli.vm_origin import KEY, made_from_column, read_origins

    chosen = choose((*COLUMNS, made_from_column({})), session.columns)
    vms, code = _listed(session, names, config=True, pending=True, addresses=True, agents=True)
    is_wanted = not chosen or any(column.key == KEY for column in chosen)
    columns = (*COLUMNS, made_from_column(read_origins(session, vms) if is_wanted else {}))
    if session.output is not Format.TABLE:
        write_list(vms, columns, output=session.output, chosen=session.columns, details=True)
    else:
        _write_blocks(vms, choose(columns, session.columns) or columns)
    return code


def _write_blocks(vms: Sequence[Vm], columns: Sequence[Column[Vm]]) -> None:
    """Each VM as lines of a name and a value."""
    for number, vm in enumerate(vms):
        if number:
            write_text("\n")
        write_facts(_facts(vm, columns))


def _facts(vm: Vm, columns: Sequence[Column[Vm]]) -> list[tuple[str, str]]:
    facts = []
    for column in columns:
        value = column.value(vm)
        if column.key in {"disks", "nics"} and isinstance(value, list):
            facts += [(column.key.rstrip("s"), plain(each)) for each in value]
        elif value not in (None, "", [], False):
            facts.append((column.key.removesuffix("_bytes"), column.cell(vm) if column.cell else plain(value)))
    return facts


@verb(
    "xml",
    name_argument(),
    option("--live", is_flag=True, text="What runs now, rather than what the next boot gets."),
    text="Print a VM's XML as it is stored (without secrets).",
)
def xml(session: Session, name: str, live: bool) -> None:
    from hvtui.cli.chosen import one_vm
    from vm.inventory import read_xml

    vm = one_vm(session, name)
    text = read_xml(session.host(), vm, live=live)
    if session.output is Format.TABLE:
        write_text(text)
    else:
        write_json({**record(vm, COLUMNS[:3]), "xml": text})
