"""What moving a VM between hosts is described with: kinds, requests, what was read, checks and forecasts. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class MoveKind(StrEnum):
    """How a VM gets to another host; STORAGE keeps it on its own and moves its disks."""

    LIVE = "live"  # memory is copied while the guest runs; both hosts see its disks
    LIVE_STORAGE = "live-storage"  # the same, and the disks are copied too (shared-nothing)
    QUICK = "quick"  # saved here, restored there: the guest stands still meanwhile (Hyper-V's Quick Migration)
    OFFLINE = "offline"  # of a VM that is off: its definition, and its disks where they are not shared
    STORAGE = "storage"
    DEFINITION = "definition"  # a copy of the definition; the VM stays where it is


BOOT_FILES = ("kernel", "initrd", "dtb")  # elements of <os>: files of the host, read at each start

# The least disruptive first: the order in which an automatic choice tries them.
AUTOMATIC = (MoveKind.LIVE, MoveKind.LIVE_STORAGE, MoveKind.QUICK, MoveKind.OFFLINE)


class Stuck(StrEnum):
    """What to do with a live migration that does not converge within `MoveOptions.patience_s`."""

    ASK = "ask"  # go on, and offer the other ways
    QUICK = "quick"  # cancel it and take Quick Migration
    POSTCOPY = "postcopy"  # run the guest at the target and fetch the rest of its memory on demand
    CANCEL = "cancel"  # give up; the VM stays where it is


@dataclass(frozen=True, slots=True)
class MoveOptions:
    """How to move. Rates are bytes a second; None leaves it to libvirt's and QEMU's own.

    `migrate_uri` is where QEMU sends the memory to (tcp://198.51.100.7); `peer_to_peer` False drives libvirt's
    migration from here, which the loss of this process cancels.
    """

    bandwidth_bytes_s: int | None = None
    downtime_ms: int | None = None
    auto_converge: bool = True
    connections: int = 1  # more than one: QEMU's parallel migration
    compress: bool = False
    tls: bool = False
    tunnelled: bool = False
    postcopy: bool = False  # permit it; `Stuck.POSTCOPY` or a wish begins it
    peer_to_peer: bool = True
    migrate_uri: str = ""
    stuck: Stuck = Stuck.ASK
    patience_s: float = 300.0
    keep_source_disks: bool = False
    eject: bool = False  # media that the target has not are taken out of their drives first


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """What is asked for. `kind` None chooses the least disruptive that can work. `peer_uri` is the target's URI as the
    source host reaches it. `pools` names the target's pool for a disk's target name (vda), "" for all others."""

    kind: MoveKind | None = None
    peer_uri: str = ""
    options: MoveOptions = field(default_factory=MoveOptions)
    pools: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at on both hosts. `blocks` are the kinds of move that it makes impossible; without any,
    a check that is not `ok` is a warning. `reason` is a sentence, `remedy` what to do about it."""

    name: str
    ok: bool
    reason: str
    remedy: str = ""
    blocks: frozenset[MoveKind] = frozenset()
    exit_code: int = 9
    doubts: frozenset[MoveKind] = frozenset()  # kinds that it may make impossible, as far as can be told before


@dataclass(frozen=True, slots=True)
class MoveDisk:
    """A disk of the VM, or (device "file") a file that it boots from. `source_path` is on the source host; `is_shared`:
    the target sees the same file at the same path (None: nobody can tell). `pool` and `volume` are those at the source,
    empty where no pool knows it; `target_pool` is where a copy would go. `backing` are the images below it, nearest
    first."""

    target: str  # vda
    device: str  # disk, cdrom, floppy
    source_path: str
    format: str = ""
    capacity_bytes: int = 0
    allocation_bytes: int = 0
    is_shared: bool | None = False
    read_only: bool = False
    pool: str = ""
    volume: str = ""
    target_pool: str = ""
    backing: tuple[str, ...] = ()
    cache: str = ""
    is_network: bool = False
    is_block: bool = False
    target_pool_path: str = ""
    target_backing: str = ""  # the nearest of `backing`, when the target has it too, at the same path
    backing_format: str = ""
    shareable: bool = False

    @property
    def is_local_file(self) -> bool:
        """An image in the source's file system."""
        return bool(self.source_path) and not self.is_network and not self.is_block

    @property
    def needs_copy(self) -> bool:
        """Whether the target has to get a copy: media in drives are not copied, disks in a network are there, and a
        file that it boots from is known to lack."""
        if self.device == "file":
            return self.is_shared is False
        return self.device in {"disk", "lun"} and bool(self.source_path) and not self.is_network and not self.is_shared


@dataclass(frozen=True, slots=True)
class Link:
    """What is known of the way from one host to another: bytes a second and where that figure comes from ("measured by
    job 214", "assumed: 1 Gbit/s")."""

    bytes_s: float
    basis: str
    is_measured: bool = False


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a move of this kind would take: seconds in all, seconds without a running guest, bytes over the wire.
    `converges` False: the guest writes faster than the link carries. `basis` says what it rests on."""

    kind: MoveKind
    total_s: float
    downtime_s: float
    transfer_bytes: int
    converges: bool = True
    basis: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MovePicture:
    """Everything that was read of both hosts and the VM before a plan is made. `dirty_bytes_s` is None where it could
    not be measured (the VM is off, or libvirt cannot)."""

    vm_uuid: str
    vm_name: str
    source_uri: str
    target_uri: str
    source_name: str
    target_name: str
    is_running: bool
    memory_bytes: int
    dirty_bytes_s: float | None
    disks: tuple[MoveDisk, ...]
    checks: tuple[Check, ...]
    link: Link
    autostart: bool = False
    inactive_xml: str = ""
    migratable_xml: str = ""
    has_nvram: bool = False
    has_tpm: bool = False
    checkpoints: tuple[str, ...] = ()
    is_persistent: bool = True
    is_paused: bool = False
    resident_bytes: int = 0  # of the guest's memory on its host; 0 when not known
    boot_files: tuple[MoveDisk, ...] = ()  # what the hypervisor loads itself; `target` is one of BOOT_FILES

    def blockers(self, kind: MoveKind) -> tuple[Check, ...]:
        """What keeps the VM from being moved in this way."""
        return tuple(check for check in self.checks if not check.ok and kind in check.blocks)

    def doubts(self, kind: MoveKind) -> tuple[Check, ...]:
        """What may keep the VM from being moved in this way: an automatic choice takes another, where there is one."""
        return tuple(check for check in self.checks if not check.ok and kind in check.doubts)

    @property
    def warnings(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.ok and not check.blocks)


# What a plan is made from, and what its steps share


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """A disk that is copied: `path` is where the copy will be at the target, in `pool` as `volume` (the plan's mark is
    in its name). With `backing` the copy builds on that image, which is at the target already; without, it holds
    everything that the disk and the images below it hold."""

    target: str  # vda
    source_path: str
    path: str
    pool: str
    volume: str
    format: str
    capacity_bytes: int
    backing: str = ""
    backing_format: str = ""


@dataclass(frozen=True, slots=True)
class MoveDraft:
    """What the functions that plan a kind's steps get. `mark` is eight hexadecimal digits that only this plan has;
    `copies` are the disks that this kind copies, `boot_copies` the files that the VM boots from; `shared` the
    directories that `move.share` has to prove."""

    kind: MoveKind
    picture: MovePicture
    request: MoveRequest
    mark: str
    copies: tuple[DiskCopy, ...] = ()
    boot_copies: tuple[DiskCopy, ...] = ()
    shared: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, bool | int | float | str]:
        """The arguments that every step of a move has. `source` and `target` are the URIs as seen from here (`target`
        is what StepContext.peer takes), `peer` is the target's URI as the source reaches it. `is_paused`: its guest was
        paused when the plan was made, and is to be so at the target."""
        return {
            "uuid": self.picture.vm_uuid,
            "name": self.picture.vm_name,
            "source": self.picture.source_uri,
            "target": self.picture.target_uri,
            "source_name": self.picture.source_name,
            "target_name": self.picture.target_name,
            "peer": self.request.peer_uri or self.picture.target_uri,
            "mark": self.mark,
            "is_paused": self.picture.is_paused,
        }
