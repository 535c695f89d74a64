"""Plans clones of a VM: full ones with disks of their own, or linked ones on a frozen base. Changes nothing.

A full clone's disks are copied whole by the host, with everything that they build on, so that it needs nobody. Of a
running VM they are copied below temporary overlays, which are merged back (vm.clone_live); each clone of a set does so
for itself, one after the other, so that one that fails takes nothing from the others and leaves nothing behind. For
linked ones the origin, which must be off, gets an overlay of its own: its disks so far become a base that nobody writes
to any more, since a write to it would destroy every clone.
"""

from __future__ import annotations

import shlex
import uuid as uuids
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host import pool_room
from host.connection import Host
from host.errors import Conflict, NotFound, Unsupported
from host.plan import Blocker, Json, Plan, PlanSet, Step
from host.text import printable
from host.units import GIB, MIB, format_bytes
from vm import clone_steps, create_steps, host_files  # the steps register their verbs
from vm.clone_live import MARK, overlay_path
from vm.clone_xml import REMOVABLE, CloneDisk, Identity, close_screens, is_kept, make_clone, problem_of, target_of
from vm.commands import hint, host_blockers, virsh
from vm.create_checks import Findings
from vm.deploy_checks import check_names
from vm.deploy_steps import seed_drives
from vm.disk_uses import disk_uses
from vm.domain_xml import disk_source, parse, to_text
from vm.export import nvram_path
from vm.model import ACTIVE_STATES, Vm, VmState
from vm.names import check_name
from vm.redact import extract
from vm.template_mark import set_template, template_of

__all__ = ["MARK", "clone_steps", "create_steps", "plan_clone"]

_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
_SECURE = _INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
_LONGEST_CHAIN = 32
_LONG_CHAIN = 5  # from here on a warning: each link is another file to look into
_SLACK_BYTES = 16 * MIB
_LIVE = frozenset({VmState.RUNNING, VmState.PAUSED})
FORMATS = ("qcow2", "raw")


@dataclass(frozen=True, slots=True)
class Origin:
    """A disk to be copied or linked. `size_bytes` is what it and all that it builds on take, `depth` how many images
    that is; `pool` is empty for a file that no active pool has."""

    target: str
    source: str
    path: str
    format: str
    capacity_bytes: int
    size_bytes: int
    element: str
    pool: str = ""
    volume: str = ""
    is_block: bool = False
    depth: int = 1


def plan_clone(
    host: Host,
    vm: Vm,
    names: Sequence[str],
    *,
    linked: bool = False,
    start: bool = False,
    pool: str = "",
    command: Sequence[str] = (),
) -> PlanSet:
    """The plans that make the clones `names` of `vm`; long. `pool`: where their disks go, by default where the origin's
    are. Raises UsageError for a name that no VM can have, NotFound, ConnectionLost, Denied."""
    for name in names:
        check_name(name)
    planner = _Planner(host, vm, linked=linked, start=start, pool=pool)
    return planner.plan_set(names, tuple(command) or planner.command_of(names[0]))


class _Planner:
    """Looks at the origin and the host once, then makes one plan a clone; used once."""

    def __init__(self, host: Host, vm: Vm, *, linked: bool, start: bool, pool: str) -> None:
        self._host = host
        self._vm = vm
        self._linked = linked
        self._start = start
        self._wanted_pool = pool
        self._findings = Findings()
        self._live = vm.state in _LIVE and not linked
        self._mark = str(uuids.uuid4())[:8]
        self._drops: frozenset[str] = frozenset()
        self._pools: dict[str, tuple[str, str, int]] = {}  # name: type, path, free bytes

    def command_of(self, name: str) -> tuple[str, ...]:
        """The command that makes one clone of that name."""
        options = (*(("--linked",) if self._linked else ()), *(("--start",) if self._start else ()))
        pool = ("--pool", self._wanted_pool) if self._wanted_pool else ()
        separator = ("--",) if self._vm.name.startswith("-") or name.startswith("-") else ()
        return ("vm", "clone", *options, *pool, *separator, self._vm.name, name)

    def plan_set(self, names: Sequence[str], command: tuple[str, ...]) -> PlanSet:
        """The plans of the clones `names`, with the equivalent command."""
        host, vm, findings = self._host, self._vm, self._findings
        self._check_state()
        with host.calls("plan clones of", vm.name) as connection:
            check_names([domain.name() for domain in connection.listAllDomains(0)], names, findings)
            domain = connection.lookupByUUIDString(vm.uuid)
            root = parse(domain.XMLDesc(_SECURE))
            if self._live and not host.is_simulated and domain.listAllCheckpoints(0):
                findings.block("its backup marks do not survive freezing", "Shut it down, or remove the marks")
            for each in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
                description = parse(each.XMLDesc(0), root="pool")
                path = description.findtext("target/path", "")
                room = pool_room.free_bytes(host, path, each.info())
                self._pools[each.name()] = (description.get("type", ""), path, room)
            disks = self._read_disks(connection, root)
        if self._live and disks:
            findings.warnings.append(
                "it runs: the clone gets its disks as they are at one moment, written out by its guest if the agent"
                " answers, else as after a power cut; its memory is not copied"
            )
        findings.warnings += close_screens(root, extract(root))
        self._check_targets(disks)
        self._check_others(disks)
        self._check_space(disks, len(names))
        freeze = self._freeze_steps(disks)
        preparations = self._preparations(freeze, command) if len(names) > 1 else ()
        first = freeze if not preparations else ()
        plans = tuple(self._plan(name, root, disks, first, is_valid=bool(place)) for place, name in enumerate(names))
        kind = "linked" if self._linked else "full"
        what = names[0] if len(names) == 1 else f"{len(names)} VMs, {names[0]} to {names[-1]},"
        return PlanSet(
            title=f"Clone {vm.name} as {what} ({kind})" if len(names) == 1 else f"Clone {what} from {vm.name} ({kind})",
            plans=plans,
            command=command,
            preparations=preparations,
            warnings=tuple(dict.fromkeys(findings.warnings)),
            blockers=(*host_blockers(host), *findings.blockers),
        )

    # What stands in the way

    def _check_state(self) -> None:
        vm, findings = self._vm, self._findings
        if vm.state is VmState.SAVED or vm.has_saved_state:
            remedy = f"Start it and shut it down, or throw the memory away: {hint('discard-saved', vm.name)}"
            reason = "it has a saved state, whose memory fits only to the disks as they are"
            findings.blockers.append(Blocker.wrong_state(reason, remedy=remedy))
        elif self._linked and vm.state in ACTIVE_STATES:
            remedy = f"Shut it down first, or make full clones: {hint('stop', vm.name)}"
            reason = f"it is {vm.state}, and linked clones need its disks as a base that nobody writes to"
            findings.blockers.append(Blocker.wrong_state(reason, remedy=remedy, action_id="vm.stop"))
        elif vm.state in ACTIVE_STATES and vm.state not in _LIVE:
            findings.blockers.append(Blocker.wrong_state(f"it is {vm.state}", remedy="Wait until it is off"))
        if self._linked and vm.checkpoints:
            reason = f"its {vm.checkpoints} checkpoints are in the disks that would become the base"
            findings.block(reason, "Make full clones, or remove the checkpoints")
        elif vm.checkpoints:
            findings.warnings.append("its checkpoints are not copied, only the disks as they are now")
        if self._live and not vm.persistent:
            findings.block("it vanishes when it stops, and its data with it while its disks are frozen", "Shut it down")
        if self._live and self._host.is_simulated:
            reason = "a simulated host cannot freeze the disks of a running VM"
            findings.block(reason, f"Shut it down: {hint('stop', vm.name)}", exit_code=Unsupported.exit_code)

    def _read_disks(self, connection: Any, root: Element) -> list[Origin]:
        seeds = seed_drives(root, self._vm.uuid)
        found, drops = [], set()
        for disk in root.iterfind("devices/disk"):
            target, source = target_of(disk), disk_source(disk)
            if source in seeds:
                drops.add(target)
                self._findings.warnings.append("the seed that told its guest what to be stays with the origin")
            elif is_kept(disk):
                self._say_kept(disk, target, source)
            elif disk.get("device") in REMOVABLE:
                drops.add(target)
                self._findings.warnings.append(f"the drive {target} is empty: its medium can be written, and is one")
            elif problem := problem_of(disk):
                self._block_disk(target, problem, Unsupported.exit_code)
            elif (origin := self._read_disk(connection, disk)) is not None:
                found.append(origin)
        self._drops = frozenset(drops)
        return found

    def _say_kept(self, disk: Element, target: str, source: str) -> None:
        if source and disk.get("device") != "cdrom":
            how = "shared" if disk.find("shareable") is not None else "only read"
            text = f"the disk {target} ({printable(source, limit=120)}) is not copied: it is {how} by both"
            self._findings.warnings.append(text)

    def _block_disk(self, target: str, problem: str, exit_code: int, remedy: str = "") -> None:
        reason = f"the disk {printable(target)} cannot be cloned: {problem}"
        self._findings.block(reason, remedy or "Take it away for the time of the cloning", exit_code=exit_code)

    def _read_disk(self, connection: Any, disk: Element) -> Origin | None:
        target, source = target_of(disk), disk_source(disk)
        driver = disk.find("driver")
        image_format = "raw" if driver is None else driver.get("type", "raw")
        if MARK in source:
            remedy = "Wait until that is done; an interrupted one: hvtui job list"
            self._block_disk(target, "its disks are frozen for another clone", Conflict.exit_code, remedy)
            return None
        volume = volume_of_disk(connection, disk, source)
        if volume is None:
            return self._read_outside(disk, target, source, image_format)
        pool = volume.storagePoolLookupByVolume().name()
        kind, capacity_bytes, _ = volume.info()
        size_bytes, depth = chain_of(connection, volume)
        is_block = kind == libvirt.VIR_STORAGE_VOL_BLOCK
        if is_block and (self._linked or self._live):
            how = "linked to" if self._linked else "frozen while its VM runs"
            remedy = "Make full clones, of a VM that is off"
            self._block_disk(target, f"a block device cannot be {how}", Unsupported.exit_code, remedy)
        return Origin(
            target, source, volume.path(), image_format, capacity_bytes, size_bytes, to_text(disk), pool, volume.name(),
            is_block=is_block, depth=depth,
        )  # fmt: skip

    def _read_outside(self, disk: Element, target: str, source: str, image_format: str) -> Origin | None:
        shown, remedy = printable(source, limit=200), "Make a storage pool over its directory"
        if disk.get("type") != "file" or not source.startswith("/"):
            self._block_disk(target, f"no active storage pool has {shown}", NotFound.exit_code, "Start its pool")
            return None
        from host.images import inspect

        if self._linked or not self._host.is_local or self._host.is_simulated:
            self._block_disk(target, f"no active storage pool has {shown}", NotFound.exit_code, remedy)
            return None
        info = inspect(source)
        return Origin(target, source, source, image_format, info.virtual_size_bytes, 0, to_text(disk))

    def _check_targets(self, disks: Sequence[Origin]) -> None:
        for disk in disks:
            name = self._pool_of(disk)
            if name not in self._pools:
                remedy = "Name another with --pool; see 'virsh pool-list'"
                reason = f"there is no active storage pool {printable(name, limit=60)}"
                self._findings.block(reason, remedy, exit_code=NotFound.exit_code)
            elif self._linked and self._is_block_pool(name):
                self._findings.block(f"the pool {name} holds no files, which overlays are", "Name another with --pool")
            if self._linked and disk.depth >= _LONG_CHAIN:
                text = f"the disk {disk.target} builds on {disk.depth - 1} others already: full clones are faster"
                self._findings.warnings.append(text)
            elif not self._linked and disk.depth > 1:
                text = f"the disk {disk.target} builds on another image: its copy is whole, and needs no other"
                self._findings.warnings.append(text)

    def _check_others(self, disks: Sequence[Origin]) -> None:
        """A VM that shares a disk would go on writing to what becomes the base."""
        wanted = {disk.target for disk in disks}
        for use in disk_uses(self._host, self._vm) if self._linked else ():
            if use.used_by and use.target in wanted:
                who = printable(use.used_by[0], limit=60)
                self._block_disk(use.target, f"{who} uses it too, and may write to it", Conflict.exit_code)

    def _check_space(self, disks: Sequence[Origin], count: int) -> None:
        wanted: dict[str, int] = {}
        for disk in disks:
            pool = self._pool_of(disk)
            size_bytes = MIB if self._linked else disk.capacity_bytes if self._is_block_pool(pool) else disk.size_bytes
            wanted[pool] = wanted.get(pool, 0) + count * size_bytes
        for pool, wanted_bytes in wanted.items():
            free_bytes = self._pools.get(pool, ("", "", 2**63))[2]
            if free_bytes < wanted_bytes + _SLACK_BYTES:
                reason = f"the pool {pool} has {format_bytes(free_bytes)} free, and {format_bytes(wanted_bytes)} are"
                self._findings.block(f"{reason} needed", "Make room, name another with --pool, or make linked clones")
            elif self._live and free_bytes < wanted_bytes + GIB:
                self._findings.warnings.append(f"the pool {pool} has little room for what its guest writes meanwhile")

    def _pool_of(self, disk: Origin) -> str:
        return self._wanted_pool or disk.pool or "default"

    def _is_block_pool(self, name: str) -> bool:
        return self._pools.get(name, ("dir",))[0] not in {"dir", "fs", "netfs", "gluster", "vstorage"}

    # The base of linked clones

    def _freeze_steps(self, disks: Sequence[Origin]) -> tuple[Step, ...]:
        if not self._linked or not disks:
            return ()
        uri, vm = self._host.uri, self._vm
        given: list[Json] = []
        lines: list[str] = []
        for disk in disks:
            name = f"{vm.name[:150]}-{self._mark}-{disk.target}.qcow2"
            directory = self._pools.get(disk.pool, ("", "", 0))[1]
            new = self._linked_disk(disk, disk.pool, directory, name)
            given.append({"target": disk.target, "source": disk.source, "path": disk.path, "element": disk.element,
                          "new": new})  # fmt: skip
            lines.append(self._create_line(new, disk))
        args: dict[str, Json] = {"uuid": vm.uuid, "name": vm.name, "disks": given}
        lines.append(shlex.join(["virsh", "-c", uri, "define", "--file", f"{vm.name}.xml"]))
        title = f"Freeze the disks of {vm.name}: it goes on with overlays of its own"
        return (Step("clone.freeze", title, args, tuple(lines)),)

    def _preparations(self, steps: tuple[Step, ...], command: tuple[str, ...]) -> tuple[Plan, ...]:
        if not steps:
            return ()
        vm = self._vm
        return (
            Plan(
                title=steps[0].title, host_uri=self._host.uri, steps=steps, command=command, vm_uuid=vm.uuid,
                vm_name=vm.name, keeps=(self._base_words(),), long=True,
            ),
        )  # fmt: skip

    def _base_words(self) -> str:
        return f"what is on the disks of {self._vm.name}: they become a base that is never written to any more"

    def _linked_disk(self, disk: Origin, pool: str, directory: str, name: str) -> dict[str, Json]:
        return {
            "pool": pool,
            "name": name,
            "path": f"{directory}/{name}",
            "capacity_bytes": disk.capacity_bytes,
            "format": "qcow2",
            "backing": {"path": disk.path, "format": disk.format},
        }

    # One clone

    def _plan(
        self, name: str, root: Element, disks: Sequence[Origin], first: tuple[Step, ...], *, is_valid: bool
    ) -> Plan:
        host, vm, uuid = self._host, self._vm, str(uuids.uuid4())
        made = {disk.target: self._new_disk(disk, name, uuid) for disk in disks}
        nvram = self._nvram(root, name, uuid)
        clone_root = parse(to_text(root))
        identity = Identity(
            name, uuid, nvram=nvram[1] if nvram else "", drops=self._drops,
            disks={target: CloneDisk(str(new["path"]), str(new["format"]), self._is_block_pool(str(new["pool"])))
                   for target, new in made.items()},
        )  # fmt: skip
        notes = make_clone(clone_root, identity)
        if (mark := template_of(clone_root)) is not None and not self._linked:
            set_template(clone_root, replace(mark, linked=False))
        xml = to_text(clone_root)
        ours: dict[str, Json] = {"uuid": uuid, "name": name}
        define: dict[str, Json] = {**ours, "xml": xml, "autostart": False, "is_valid": is_valid}
        steps = [*first, *self._disk_steps(name, disks, made, uuid)]
        if nvram:
            args: dict[str, Json] = {**ours, "source": nvram[0], "path": nvram[1], "mark": uuid[:8]}
            line = shlex.join(["cp", "--", *nvram])
            steps.append(Step("clone.nvram", "Copy its firmware variables", args, (line,)))
        line = shlex.join(["virsh", "-c", host.uri, "define", "--file", f"{name}.xml"])
        steps.append(Step("create.define", f"Define {name}", define, (line,)))
        if self._start:
            steps.append(Step("create.start", f"Start {name}", ours, (virsh(host.uri, "start", name),)))
        return Plan(
            title=f"Clone {vm.name} as {name}",
            host_uri=host.uri,
            steps=tuple(steps),
            command=self.command_of(name),
            vm_uuid=uuid,
            vm_name=name,
            warnings=notes,
            keeps=(self._base_words(),) if self._linked and first else (),
            xml_after=xml,
            long=True,
        )

    def _new_disk(self, disk: Origin, name: str, uuid: str) -> dict[str, Json]:
        pool = self._pool_of(disk)
        is_block, directory = self._is_block_pool(pool), self._pools.get(pool, ("", "", 0))[1]
        kind = "raw" if is_block else disk.format if disk.format in FORMATS else "qcow2"
        if self._linked:
            return self._linked_disk(disk, pool, directory, f"{name}-{uuid[:8]}-{disk.target}.qcow2")
        volume = f"{name}-{uuid[:8]}-{disk.target}" + ("" if is_block else f".{kind}")
        return {
            "pool": pool,
            "name": volume,
            "path": f"{directory}/{volume}",
            "capacity_bytes": disk.capacity_bytes,
            "format": kind,
            "source": {"size_bytes": disk.size_bytes},
        }

    def _disk_steps(
        self, name: str, disks: Sequence[Origin], made: dict[str, dict[str, Json]], uuid: str
    ) -> list[Step]:
        if self._linked:
            return [
                Step("deploy.disk", f"Link the disk {disk.target} to the base", made[disk.target],
                     (self._create_line(made[disk.target], disk),))
                for disk in disks
            ]  # fmt: skip
        if not disks:
            return []
        given: list[Json] = []
        lines = []
        for disk in disks:
            new, mark = made[disk.target], uuid[:8]
            given.append({
                "target": disk.target, "source": disk.source, "path": disk.path, "format": disk.format,
                "pool": disk.pool, "volume": disk.volume, "overlay": overlay_path(disk.path, mark), "new": new,
            })  # fmt: skip
            words = ("--pool", str(new["pool"]), "--vol", disk.path, "--newname", str(new["name"]))
            lines.append(shlex.join(["virsh", "-c", self._host.uri, "vol-clone", *words]))
        if self._live:
            lines = self._live_lines(disks, lines, uuid[:8])
        args: dict[str, Json] = {"uuid": self._vm.uuid, "name": self._vm.name, "clone": name, "mark": uuid[:8],
                                 "live": self._live, "disks": given}  # fmt: skip
        size = format_bytes(sum(disk.size_bytes for disk in disks))
        what = "its disk" if len(disks) == 1 else f"its {len(disks)} disks"
        how = f"Freeze {what}, copy it ({size}), and merge back" if self._live else f"Copy {what} ({size})"
        return [Step("clone.disks", how.replace("copy it", "copy them" if len(disks) > 1 else "copy it"), args,
                     tuple(lines))]  # fmt: skip

    def _live_lines(self, disks: Sequence[Origin], copies: list[str], mark: str) -> list[str]:
        uri, name = self._host.uri, self._vm.name
        specs = [word for disk in disks
                 for word in ("--diskspec", f"{disk.target},file={overlay_path(disk.path, mark)}")]  # fmt: skip
        freeze = virsh(uri, "snapshot-create-as", name, "--disk-only", "--atomic", "--no-metadata", *specs)
        options = ("--active", "--pivot", "--wait")
        merges = [virsh(uri, "blockcommit", name, "--path", disk.target, *options) for disk in disks]
        return [freeze, *copies, *merges]

    def _create_line(self, new: dict[str, Json], disk: Origin) -> str:
        words = ("--pool", str(new["pool"]), "--name", str(new["name"]), "--capacity", str(disk.capacity_bytes))
        backing = ("--format", "qcow2", "--backing-vol", disk.path, "--backing-vol-format", disk.format)
        return shlex.join(["virsh", "-c", self._host.uri, "vol-create-as", *words, *backing])

    def _nvram(self, root: Element, name: str, uuid: str) -> tuple[str, str] | None:
        if self._host.is_simulated:
            return None
        source = nvram_path(self._host, self._vm, root)
        if source is None:
            return None
        directory = host_files.split(source)[0]
        return source, f"{directory}/{name}-{uuid[:8]}_VARS.fd"


def volume_of_disk(connection: Any, disk: Element, source: str) -> Any | None:
    """The volume that a <disk> with that source reads; None when no active pool has it. Raises libvirtError."""
    try:
        if disk.get("type") == "volume":
            pool, _, name = source.partition("/")
            return connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
        return connection.storageVolLookupByPath(source)
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return None


def chain_of(connection: Any, volume: Any) -> tuple[int, int]:
    """What a volume and all that it builds on take in bytes, as far as pools know them, and how many they are."""
    total_bytes, here = 0, volume
    for depth in range(1, _LONGEST_CHAIN):
        total_bytes += int(here.info()[2])
        backing = parse(here.XMLDesc(0), root="volume").findtext("backingStore/path", "")
        if not backing:
            return total_bytes, depth
        try:
            here = connection.storageVolLookupByPath(backing)
        except libvirt.libvirtError as error:
            if error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise
            return total_bytes, depth + 1
    return total_bytes, _LONGEST_CHAIN
