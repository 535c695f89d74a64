"""What a VM is made of, as rows for the hardware tab. Pure functions from a frozen Hardware to rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

from host.text import display_width, printable
from host.units import format_bytes
from hvtui.tui.symbols import NONE
from hvtui.tui.widgets.lines import Span, between, cells
from hvtui.tui.widgets.wrapping import wrapped
from vm.hardware import Device, DiskPart, DiskSize, Hardware, NicPart
from vm.model import Vm

_MARGIN = 3
_LABEL = 14
_LONGEST = 400
_MOST_CELLS = 22  # of a column other than the last
_LEAST_LAST = 24  # cells for the last column, else it goes below
_GAP = 2
_WIDE = 100  # from this width on processor and machine stand side by side
Row = list[Span]
_FIRMWARE = {"uefi": "UEFI", "bios": "BIOS", "kernel": "none: it boots a kernel of the host"}
_VIRTUALIZATION = {"qemu": "emulated: 10 to 50 times slower than KVM", "kvm": "KVM", "test": "simulated"}
_SOURCES = {"network": "", "bridge": "bridge ", "direct": "direct ", "user": "user"}


def hardware_rows(vm: Vm, hardware: Hardware, sizes: Mapping[str, DiskSize] | None, *, width: int) -> list[Row]:
    """All sections. `sizes` is None until they were read."""
    rows: list[Row] = []
    if hardware.config.pending_changes:
        rows += [[("  ! ", "warn"), ("this is what runs now: changes wait for the next start", "warn")], []]
    if width >= _WIDE:
        left = _section("Processor and memory", _pairs(_processor(vm, hardware), width // 2))
        right = _section("Machine", _pairs(_machine(hardware), width - width // 2))
        rows += _side_by_side(left, right, width // 2)
    else:
        rows += _section("Processor and memory", _pairs(_processor(vm, hardware), width))
        rows += _section("Machine", _pairs(_machine(hardware), width))
    rows += _section("Disks", _disks(hardware.disks, sizes, width))
    rows += _section("Network interfaces", _nics(hardware.nics, width))
    return rows + _section("Other devices", _pairs(_others(hardware.devices), width))


def _side_by_side(left: Sequence[Row], right: Sequence[Row], cells_left: int) -> list[Row]:
    blank: Row = []
    pairs: Iterable[tuple[Row, Row]] = zip_longest(left, right, fillvalue=blank)
    return [[*between(one, [], cells_left), *other] for one, other in pairs]


def _section(title: str, rows: Sequence[Row]) -> list[Row]:
    return [[(f" {title}", "title")], *rows, []] if rows else [[(f" {title}", "title"), ("   none", "dim")], []]


def _processor(vm: Vm, hardware: Hardware) -> Iterable[tuple[str, str, str]]:
    config = hardware.config
    topology = f"   {hardware.topology}" if hardware.topology else ""
    more = f", at most {config.vcpus_max}" if config.vcpus_max > config.vcpus else ""
    cpu = hardware.cpu or "the hypervisor's default"
    yield "cpu", f"{cpu}, {hardware.architecture}" if hardware.architecture else cpu, ""
    yield "vCPU", f"{config.vcpus}{more}{topology}", ""
    now = vm.memory_bytes if vm.is_active and vm.memory_bytes else config.memory_bytes
    most = f", at most {format_bytes(config.memory_max_bytes)}" if config.memory_max_bytes > now else ""
    yield "memory", "   ".join((f"{format_bytes(now)}{most}", *hardware.memory)), ""
    kind = config.virtualization
    yield "acceleration", _VIRTUALIZATION.get(kind, kind), "warn" if config.is_emulated else ""


def _machine(hardware: Hardware) -> Iterable[tuple[str, str, str]]:
    config = hardware.config
    secure = ", Secure Boot" if hardware.secure_boot else ""
    yield "machine", config.machine, ""
    yield "firmware", _FIRMWARE.get(config.firmware, config.firmware) + secure, ""
    yield "boots from", ", ".join(hardware.boot), ""
    yield "clock", hardware.clock, ""
    yield "features", " ".join(hardware.features), ""
    yield "emulator", hardware.emulator, ""


def _others(devices: Iterable[Device]) -> Iterable[tuple[str, str, str]]:
    """Devices of one kind below each other, named once."""
    kinds: dict[str, list[str]] = {}
    for device in devices:
        number = f" × {device.count}" if device.count > 1 else ""
        kinds.setdefault(device.kind, []).append(f"{device.words or NONE}{number}")
    for kind, words in kinds.items():
        for place, each in enumerate(words):
            yield "" if place else kind, each, ""


def _pairs(pairs: Iterable[tuple[str, str, str]], width: int) -> list[Row]:
    rows: list[Row] = []
    for label, value, role in pairs:
        for place, line in enumerate(
            wrapped(printable(value, limit=_LONGEST), width - _MARGIN - _LABEL) if value else ()
        ):
            margin = cells("" if place else printable(label), _LABEL - 1)
            rows.append([(f"{' ' * _MARGIN}{margin} ", "dim"), (line, role or "text")])
    return rows


def _disks(parts: Sequence[DiskPart], sizes: Mapping[str, DiskSize] | None, width: int) -> list[Row]:
    lines = []
    for part in parts:
        disk, size = part.disk, (sizes or {}).get(part.disk.target)
        flags = [
            *(["read-only"] if disk.read_only and disk.device == "disk" else ()),
            *(["shared"] if disk.shareable else ()),
        ]
        unknown = NONE if sizes is not None or not disk.source else "…"
        figures = (
            (format_bytes(size.capacity_bytes), format_bytes(size.allocation_bytes)) if size else (unknown, unknown)
        )
        kind = disk.driver_format if disk.device == "disk" else disk.device
        lines.append(((disk.target, disk.bus, kind, *figures, disk.source or "empty"), (*flags, *part.options)))
    return _table(("DISK", "BUS", "FORMAT", "SIZE>", "ON DISK>", "SOURCE"), lines, width)


def _nics(parts: Sequence[NicPart], width: int) -> list[Row]:
    lines = []
    for part in parts:
        nic = part.nic
        source = f"{_SOURCES.get(nic.source_type, f'{nic.source_type} ')}{nic.source}"
        lines.append(((nic.mac, nic.model, nic.target or NONE, source.strip() or NONE), part.options))
    return _table(("MAC", "MODEL", "ON HOST", "NETWORK"), lines, width)


def _table(heads: Sequence[str], lines: Sequence[tuple[Sequence[str], Sequence[str]]], width: int) -> list[Row]:
    """Aligned columns ("HEAD>" to the right). The last one wraps in the room that is left, or stands below where that
    is too narrow; the options of a line stand below it."""
    if not lines:
        return []
    names = [head.removesuffix(">") for head in heads]
    shown = [[printable(each, limit=_LONGEST) for each in line] for line, _options in lines]
    widths = [
        min(max(display_width(line[column]) for line in (names, *shown)), _MOST_CELLS)
        for column in range(len(heads) - 1)
    ]
    begin = _MARGIN + sum(widths) + _GAP * len(widths)
    is_beside = width - begin >= _LEAST_LAST
    begin = begin if is_beside else _MARGIN + _GAP

    def columns(line: Sequence[str], role: str) -> Row:
        fitted = (
            cells(each, size, right=head.endswith(">")) for each, size, head in zip(line, widths, heads, strict=False)
        )
        return [(" " * _MARGIN, "text"), *((each + " " * _GAP, role) for each in fitted)]

    rows = [[*columns(names, "head"), (names[-1] if is_beside else "", "head")]]
    for line, (_line, options) in zip(shown, lines, strict=True):
        first, *more = wrapped(line[-1], width - begin)
        more = more if is_beside else [first, *more]
        rows.append([*columns(line, "text"), (first if is_beside else "", "text")])
        rows += [[(" " * begin, "text"), (each, "text")] for each in more]
        extra = printable(", ".join(options), limit=_LONGEST)
        rows += [[(" " * begin, "text"), (each, "dim")] for each in wrapped(extra, width - begin) if extra]
    return rows
