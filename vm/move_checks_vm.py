"""What a VM itself has that cannot, or can, go along in a move. Pure functions on what was read."""

from __future__ import annotations

from collections.abc import Iterator

from host.text import printable
from vm.commands import hint
from vm.move_kinds import CARRY_CHECKPOINTS, CARRY_NVRAM, CARRY_TPM, MEMORY, MOVES
from vm.move_model import Check, MoveKind, MoveRequest
from vm.move_reading import SourceReading, TargetReading

CONFLICT, UNSUPPORTED = 4, 8
_OFFLINE = frozenset({MoveKind.OFFLINE})
_ANY_ADDRESS = frozenset({"", "0.0.0.0", "::", "127.0.0.1", "::1", "localhost"})  # noqa: S104 - compared, not bound


def check_vm(here: SourceReading, there: TargetReading, request: MoveRequest) -> Iterator[Check]:
    """Every check of the VM."""
    yield from _state(here)
    yield from _devices(here)
    yield from _checkpoints(here)
    yield from _carried(here)
    yield from _screens(here, there)
    if here.autostart and request.kind is not MoveKind.DEFINITION:
        yield Check("autostart", True, f"it starts with its host; that goes with it to {there.host.name}")


def _state(here: SourceReading) -> Iterator[Check]:
    if here.is_active:
        remedy = f"Shut it down first: {hint('stop', here.name)}"
        yield Check("state", False, "it is running, and an offline move needs it off", remedy, _OFFLINE, CONFLICT)
    else:
        remedy = "Move it offline, or start it first"
        yield Check("state", False, "it is off: there is no running guest to move", remedy, MEMORY, CONFLICT)
    if here.is_asleep:
        yield Check(
            "asleep", False, "its guest sleeps", f"Wake it up first: {hint('resume', here.name)}", MEMORY, CONFLICT
        )
    if here.is_busy:
        reason = "libvirt is busy with it (a save, a backup, a copy, or another migration)"
        yield Check("busy", False, reason, "Wait until that has ended", MOVES, CONFLICT)
    if here.has_saved_state and not here.is_active:
        remedy = f"Start it, or throw the memory away: {hint('discard-saved', here.name)}"
        yield Check(
            "saved", False, "it has a saved state, which only this host can go on from", remedy, _OFFLINE, CONFLICT
        )
    if not here.is_persistent:
        blocks = frozenset({MoveKind.QUICK, MoveKind.OFFLINE, MoveKind.DEFINITION})
        reason = "it has no definition of its own (a transient VM): it ends with its QEMU"
        yield Check("transient", False, reason, "Define it first: virsh define", blocks, CONFLICT)


# <hostdev> and interfaces of that type give the guest a device of this very host.
_BOUND = {
    "filesystem": ("a directory of its host (9p or virtiofs)", "Remove the file system first"),
    "shmem": ("memory shared with other programs of its host", "Remove it first"),
    "lease": ("a lock of its host", "Remove the lease first"),
}


def _devices(here: SourceReading) -> Iterator[Check]:
    root = here.current
    hostdevs = root.findall("devices/hostdev") + root.findall("devices/interface[@type='hostdev']")
    if hostdevs:
        count = f"{len(hostdevs)} devices" if len(hostdevs) > 1 else "a device"
        remedy = "Take it away from the VM first, or shut the VM down and move it offline"
        yield Check(
            "host-device", False, f"it has {count} of its host: they cannot go along", remedy, MEMORY, UNSUPPORTED
        )
        if not here.is_active:
            yield Check("host-device", False, f"it has {count} of its host: it may not start without the same there")
    for tag, (what, remedy) in _BOUND.items():
        if root.find(f"devices/{tag}") is not None:
            yield Check(tag, False, f"it has {what}, which cannot go along", remedy, MEMORY, UNSUPPORTED)
    if root.find("devices/tpm/backend[@type='passthrough']") is not None:
        yield Check("tpm", False, "it uses the TPM of its host", "Remove it first", MOVES, UNSUPPORTED)
    if root.find("launchSecurity") is not None:
        yield Check("encryption", False, "its memory is encrypted for this very host", "", MEMORY, UNSUPPORTED)
    for card in root.findall("devices/interface"):
        if card.get("type") in {"vhostuser", "vdpa"}:
            kind = printable(card.get("type", ""), limit=20)
            yield Check("network", False, f"a network card is a {kind} one of its host: the target needs the same")


def _checkpoints(here: SourceReading) -> Iterator[Check]:
    for names, what in ((here.snapshots, "checkpoint"), (here.checkpoints, "backup checkpoint")):
        if names:
            shown = ", ".join(printable(name, limit=40) for name in names[:3]) + (" …" if len(names) > 3 else "")
            reason = f"it has {len(names)} {what}{'s' if len(names) > 1 else ''} ({shown}), which would stay behind"
            remedy = "Delete them first, or shut it down and move it offline, which takes them along"
            yield Check("checkpoints", False, reason, remedy, MOVES - CARRY_CHECKPOINTS, CONFLICT)
    if here.external_snapshots:
        shown = ", ".join(printable(name, limit=40) for name in here.external_snapshots[:3])
        reason = f"its checkpoints are in part in files of their own ({shown}), which no move takes along"
        yield Check("checkpoint-files", False, reason, "Merge or delete those checkpoints first", MOVES, UNSUPPORTED)


def _carried(here: SourceReading) -> Iterator[Check]:
    root = here.definition
    if root.find("os/nvram") is not None or root.find("os[@firmware='efi']") is not None:
        yield Check("nvram", True, "its firmware variables go along")
        if MOVES - CARRY_NVRAM:
            reason = "its firmware variables are in a file of this host"
            yield Check("nvram", False, reason, "Move it live or offline", MOVES - CARRY_NVRAM, UNSUPPORTED)
    if root.find("devices/tpm/backend[@type='emulator']") is not None:
        yield Check("tpm", True, "its TPM's state goes along")
        if MOVES - CARRY_TPM:
            reason = "its TPM's state is in files of this host"
            yield Check("tpm", False, reason, "Move it live or offline", MOVES - CARRY_TPM, UNSUPPORTED)


def _screens(here: SourceReading, there: TargetReading) -> Iterator[Check]:
    for screen in here.current.findall("devices/graphics"):
        listen = screen.find("listen[@type='address']")
        address = listen.get("address", "") if listen is not None else ""
        if address not in _ANY_ADDRESS:
            reason = (
                f"its screen listens on {printable(address, limit=60)}, an address that {there.host.name} needs too"
            )
            yield Check("screen", False, reason)
    if here.is_active and here.current.find("devices/graphics") is not None:
        yield Check("screen", True, "whoever looks at its screen has to connect again")
