"""Plans the making of a virtual machine: from a disk image, an ISO, a kernel, nothing, or the built-in tiny guest.

Everything that could go wrong and can be known is said before anything is made (vm.create_checks); the XML is made by
vm.new_domain_xml; the steps are those of vm.create_steps and vm.create_wait. This module changes nothing.
"""

from __future__ import annotations

import shlex
import uuid as uuids
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from host import images, pool_room
from host.connection import Host
from host.errors import NotFound, Unsupported
from host.facts import GuestDefaults, read_defaults
from host.load import local_memory
from host.paths import cache_directory
from host.plan import Json, Plan, Step
from host.text import printable
from host.units import MIB, format_bytes
from vm import create_checks as checks
from vm import create_steps, create_wait, tiny  # the steps register their verbs
from vm.commands import host_blockers, virsh, words
from vm.create_checks import Findings
from vm.create_options import options
from vm.create_request import DEFAULT_DISK_BYTES, CreateRequest, Firmware, SourceKind, tiny_request
from vm.domain_xml import parse
from vm.new_domain_xml import DirectBoot, Hardware, NewDisk, NewNic, new_domain_xml

__all__ = ["CreateRequest", "create_wait", "plan_create", "tiny_request"]

DEFAULT_POOL = "default"
DEFAULT_POOL_PATH = Path("/var/lib/libvirt/images")
TINY_BYTES = 32 * MIB
TINY_BUILD_BYTES = 300 * MIB  # the kernel's package, unpacked
LEAST_FREE_BYTES = 512 * MIB  # less than that and a guest that installs something is paused at once
_FILE_POOLS = frozenset({"dir", "fs", "netfs"})


@dataclass(frozen=True, slots=True)
class _Pool:
    """Where new volumes go. `step` makes or starts the pool; None when it is there and active."""

    path: str
    kind: str = "dir"
    free_bytes: int | None = None
    volumes: frozenset[str] = frozenset()
    step: Step | None = None


def plan_create(host: Host, request: CreateRequest) -> Plan:
    """The plan that makes the VM of `request`; long. Raises UsageError for values that no host could take,
    ConnectionLost, Denied."""
    checks.check_values(request)
    request = _completed(request)
    return _Planner(host, request).plan()


def _completed(request: CreateRequest) -> CreateRequest:
    """With a disk to install to, and in whole MiB, which is what every image format can hold."""
    disk_bytes = request.disk_bytes
    if not disk_bytes and request.source is SourceKind.ISO:
        disk_bytes = DEFAULT_DISK_BYTES
    return replace(request, disk_bytes=-(-disk_bytes // MIB) * MIB)


class _Planner:
    """Collects steps and findings for one plan; used once."""

    def __init__(self, host: Host, request: CreateRequest) -> None:
        self._host = host
        self._request = request
        self._uuid = str(uuids.uuid4())
        self._findings = Findings()
        self._steps: list[Step] = []
        self._tiny_key = ""

    def plan(self) -> Plan:
        request, host, findings = self._request, self._host, self._findings
        defaults = read_defaults(host)
        firmware = _firmware(request, defaults)
        with host.calls("plan a new VM", request.name) as connection:
            checks.check_name(connection, request, findings)
            checks.check_resources(connection, request, defaults, findings, memory=local_memory(host))
            choices = checks.read_choices(connection, defaults)
            checks.check_cpu(request, choices, findings)
            checks.check_os_id(request.os_id, findings)
            nic = self._nic(connection)
            pool = self._pool(connection)
            version = connection.getLibVersion()
        if not host.is_simulated:
            checks.check_firmware(request, firmware, defaults, findings)
        if defaults.accelerator.is_emulated:
            findings.warnings.append(f"the guest is emulated, 10 to 50 times slower: {defaults.accelerator.reason}")
        hardware = Hardware(
            uuid=self._uuid,
            firmware=firmware,
            boot=self._boot(pool, defaults),
            disks=self._disks(pool),
            nics=(nic,) if nic is not None else (),
            video_model="virtio" if "virtio" in choices.video_models or not choices.video_models else "vga",
            libvirt_version=version,
        )
        xml = new_domain_xml(request, defaults, hardware)
        self._add_vm_steps(xml)
        return Plan(
            title=f"Create {request.name} ({_summary(request)})",
            host_uri=host.uri,
            steps=tuple(self._steps),
            command=words("create", request.name, *options(request)),
            vm_uuid=self._uuid,
            vm_name=request.name,
            warnings=tuple(findings.warnings),
            blockers=(*host_blockers(host), *findings.blockers),
            keeps=self._keeps(),
            xml_after=xml,
            long=True,
        )

    def _keeps(self) -> tuple[str, ...]:
        if self._request.source is not SourceKind.IMAGE:
            return ()
        return (f"{self._request.image} stays where it is; the guest writes to it",)

    # Networks

    def _nic(self, connection: Any) -> NewNic | None:
        wanted = self._request.network
        if wanted in {"", "none"}:
            return None
        if wanted == "user":
            return NewNic("user")
        if wanted.startswith("bridge:"):
            name = wanted.removeprefix("bridge:")
            checks.check_bridge(self._host, name, self._findings)
            return NewNic("bridge", name)
        if wanted != "auto":
            checks.check_network(connection, self._host.uri, wanted, self._findings)
            return NewNic("network", wanted)
        if checks.is_active_network(connection, "default"):
            return NewNic("network", "default")
        if self._host.uri.endswith("/session"):
            return NewNic("user")  # what an unprivileged libvirt has
        self._findings.warnings.append(
            "made without a network: the network 'default' is not active. "
            f"Start it first ({self._virsh('net-start', '--network', 'default')}), or choose --network user"
        )
        return None

    # Storage

    def _needs_pool(self) -> bool:
        return bool(self._request.disk_bytes) or (self._is_tiny() and not self._host.is_simulated)

    def _is_tiny(self) -> bool:
        return self._request.source is SourceKind.TINY

    def _pool(self, connection: Any) -> _Pool:
        if not self._needs_pool():
            return _Pool("")
        name = self._request.pool
        pools = {pool.name(): pool for pool in connection.listAllStoragePools(0)}
        if name in pools:
            return self._existing_pool(pools[name])
        if name != DEFAULT_POOL:
            known = ", ".join(printable(each, limit=60) for each in sorted(pools)) or "none"
            reason = f"there is no storage pool {printable(name, limit=60)}"
            self._findings.block(reason, f"Pools here: {known}", exit_code=NotFound.exit_code)
            return _Pool(str(DEFAULT_POOL_PATH))
        return self._new_pool()

    def _existing_pool(self, pool: Any) -> _Pool:
        root = parse(pool.XMLDesc(0), root="pool")
        kind, path, name = root.get("type", ""), root.findtext("target/path", ""), pool.name()
        if kind not in {*_FILE_POOLS, "logical"}:
            self._findings.block(f"the storage pool {printable(name)} is of type {kind}", "Choose a directory pool")
        if kind == "logical" and (self._is_tiny() or self._request.disk_format != "raw"):
            self._findings.block(f"{printable(name)} holds logical volumes", "Choose the format raw, or another pool")
        if pool.isActive():
            return _Pool(path, kind, pool_room.free_bytes(self._host, path, pool.info()), frozenset(pool.listVolumes()))
        command = self._virsh("pool-start", "--pool", name)
        title = f"Start the storage pool {name}"
        step = Step("create.pool", title, self._pool_args(path), (command,))
        return _Pool(path, kind, self._free_bytes(path), step=step)

    def _new_pool(self) -> _Pool:
        is_session = self._host.uri.endswith("/session")
        path = str(Path.home() / ".local/share/libvirt/images" if is_session else DEFAULT_POOL_PATH)
        define = ("pool-define-as", "--name", DEFAULT_POOL, "--type", "dir", "--target", path)
        others = (self._virsh(verb, "--pool", DEFAULT_POOL) for verb in ("pool-build", "pool-start", "pool-autostart"))
        commands = (self._virsh(*define), *others)
        title = f"Make the storage pool {DEFAULT_POOL} in {path}"
        return _Pool(
            path,
            free_bytes=self._free_bytes(path),
            step=Step("create.pool", title, self._pool_args(path), commands),
        )

    def _pool_args(self, path: str) -> dict[str, Any]:
        return {"name": self._request.pool, "uuid": str(uuids.uuid4()), "path": path}

    def _free_bytes(self, path: str) -> int | None:
        return images.free_bytes(path) if self._host.is_local and not self._host.is_simulated else None

    def _disks(self, pool: _Pool) -> tuple[NewDisk, ...]:
        request, findings = self._request, self._findings
        disks = []
        if request.source is SourceKind.IMAGE:
            found = checks.check_image(self._host, request, findings)
            checks.check_image_users(self._host, request.image, findings)
            disks.append(NewDisk(request.image, found))
        if request.disk_bytes:
            disks.append(self._new_disk(pool))
        if request.source is SourceKind.ISO:
            checks.check_iso(self._host, request.iso, findings)
            disks.append(NewDisk(request.iso, "raw", is_cdrom=True))
        return tuple(disks)

    def _new_disk(self, pool: _Pool) -> NewDisk:
        request = self._request
        self._ensure_pool(pool)
        self._check_space(pool)
        is_block = pool.kind == "logical"
        # The uuid's digits make the name this job's own: whatever has it was made by this job.
        name = f"{request.name}-{self._uuid[:8]}" + ("" if is_block else f".{request.disk_format}")
        args: dict[str, Json] = {
            "pool": request.pool,
            "name": name,
            "capacity_bytes": request.disk_bytes,
            "format": request.disk_format,
        }
        volume = ("--name", name, "--capacity", str(request.disk_bytes), "--format", request.disk_format)
        command = self._virsh("vol-create-as", "--pool", request.pool, *volume, "--allocation", "0")
        title = f"Make a disk of {format_bytes(request.disk_bytes)} in the pool {request.pool}"
        self._steps.append(Step("create.volume", title, args, (command,)))
        return NewDisk(f"{pool.path}/{name}", request.disk_format, "block" if is_block else "file")

    def _ensure_pool(self, pool: _Pool) -> None:
        if pool.step is not None and pool.step not in self._steps:
            self._steps.append(pool.step)

    def _check_space(self, pool: _Pool) -> None:
        request = self._request
        if pool.free_bytes is None:
            return
        free, wanted = format_bytes(pool.free_bytes), format_bytes(request.disk_bytes)
        needs_all = request.disk_format == "raw"
        least_bytes = request.disk_bytes if needs_all else min(request.disk_bytes, LEAST_FREE_BYTES)
        if pool.free_bytes < least_bytes:
            remedy = "Make room, or choose a smaller disk or another pool"
            self._findings.block(f"the pool {printable(request.pool)} has {free} free, the disk is {wanted}", remedy)
        elif pool.free_bytes < request.disk_bytes:
            warning = f"the disk may grow to {wanted}, but its pool has {free} free: a full pool pauses the VM"
            self._findings.warnings.append(warning)

    # What boots

    def _boot(self, pool: _Pool, defaults: GuestDefaults) -> DirectBoot | None:
        request = self._request
        if request.source is SourceKind.TINY:
            return self._tiny_boot(pool, defaults)
        if request.source is not SourceKind.KERNEL:
            return None
        checks.check_file(self._host, request.kernel, "the kernel", self._findings)
        if request.initrd:
            checks.check_file(self._host, request.initrd, "the initial RAM disk", self._findings)
        return DirectBoot(request.kernel, request.initrd, request.kernel_arguments)

    def _tiny_boot(self, pool: _Pool, defaults: GuestDefaults) -> DirectBoot:
        request = self._request
        arguments = tiny.kernel_arguments(request.name)
        if self._host.is_simulated:
            kernel, initrd = (f"{DEFAULT_POOL_PATH}/{name}" for name in create_steps.tiny_volume_names("simulated"))
            return DirectBoot(kernel, initrd, arguments)
        problem = tiny.obstacle(defaults.architecture)
        if problem:
            self._findings.block(problem, "Make the VM from a disk image or an ISO", exit_code=Unsupported.exit_code)
        self._tiny_key = tiny.identity()
        self._check_tiny_space(pool)
        self._ensure_pool(pool)
        names = create_steps.tiny_volume_names(self._tiny_key)
        existed = [name for name in names if name in pool.volumes]
        args = {"key": self._tiny_key, "pool": request.pool, "existed": existed}
        uploads = tuple(
            self._virsh("vol-upload", "--pool", request.pool, "--vol", name, "--file", name) for name in names
        )
        title = "Build the tiny guest from this system's own kernel" + (" (it is there)" if len(existed) == 2 else "")
        self._steps.append(Step("create.tiny", title, args, uploads))
        return DirectBoot(f"{pool.path}/{names[0]}", f"{pool.path}/{names[1]}", arguments)

    def _check_tiny_space(self, pool: _Pool) -> None:
        places = [(pool.free_bytes, TINY_BYTES, f"the pool {printable(self._request.pool)}")]
        if tiny.find(self._tiny_key) is None:
            cache = cache_directory()
            places.append((images.free_bytes(cache), TINY_BUILD_BYTES, str(cache)))
        for free_bytes, wanted_bytes, place in places:
            if free_bytes is not None and free_bytes < wanted_bytes:
                reason = (
                    f"{place} has {format_bytes(free_bytes)} free, the tiny guest needs {format_bytes(wanted_bytes)}"
                )
                self._findings.block(reason, "Make room")

    def _virsh(self, *arguments: str) -> str:
        return shlex.join(["virsh", "-c", self._host.uri, *arguments])

    # The VM

    def _add_vm_steps(self, xml: str) -> None:
        request, uri = self._request, self._host.uri
        identity: dict[str, Any] = {"uuid": self._uuid, "name": request.name}
        define = [self._virsh("define", "--validate", "--file", f"{request.name}.xml")]
        if request.autostart:
            define.append(virsh(uri, "autostart", request.name))
        args = {**identity, "xml": xml, "autostart": request.autostart}
        self._steps.append(Step("create.define", f"Define {request.name}", args, tuple(define)))
        if not request.start:
            return
        self._steps.append(
            Step("create.start", f"Start {request.name}", identity, (virsh(uri, "start", request.name),))
        )
        if request.wait_ready:
            args = {**identity, "timeout_s": request.ready_timeout_s, "tiny_key": self._tiny_key}
            title = f"Wait until its guest answers, at most {request.ready_timeout_s:.0f} s"
            self._steps.append(Step("create.wait", title, args))


def _firmware(request: CreateRequest, defaults: GuestDefaults) -> Firmware:
    if request.firmware is not Firmware.AUTO:
        return request.firmware
    has_uefi, has_bios = "uefi" in defaults.firmware, "bios" in defaults.firmware
    if has_uefi and (request.source is SourceKind.ISO or not has_bios):
        return Firmware.UEFI
    return Firmware.BIOS


def _summary(request: CreateRequest) -> str:
    cpus = f"{request.vcpus} vCPU" + ("s" if request.vcpus > 1 else "")
    parts = [request.source.value, cpus, format_bytes(request.memory_bytes)]
    if request.disk_bytes:
        parts.append(f"{format_bytes(request.disk_bytes)} disk")
    return ", ".join(parts)
