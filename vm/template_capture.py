"""Plans a template made from a VM: its disks copied whole into the library, generalised there, then a manifest.

The VM must be off, and its own disks are only read. Whether the copy loses the guest's identity is said in the plan and
in the manifest: by virt-sysprep, by the guest itself before, or not at all. Changes nothing.
"""

from __future__ import annotations

import shlex
import uuid as uuids
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host.connection import Host
from host.errors import NameTaken, NotFound, Unsupported
from host.plan import Blocker, Json, Plan, Step
from host.text import printable
from host.units import MIB, format_bytes
from vm import capture_steps, generalise  # the steps register their verbs
from vm.clone import Origin, chain_of, volume_of_disk
from vm.clone_xml import is_kept, problem_of, target_of
from vm.commands import hint, host_blockers
from vm.create_checks import Findings
from vm.create_request import Firmware
from vm.deploy_steps import seed_drives
from vm.domain_xml import disk_source, parse, read_config, to_text
from vm.import_machine import wants_secure_boot
from vm.library import read
from vm.library_pool import pool_steps, pool_warnings
from vm.model import Vm, VmConfig, VmState
from vm.template_add import finish_step, template_uuid, tidy_steps
from vm.template_manifest import check_template_name
from vm.template_mark import template_of
from vm.template_model import DEFAULT_LIBRARY, ImageRole, Readiness
from vm.template_steps import image_name

__all__ = ["CaptureRequest", "Identity", "capture_steps", "plan_capture"]

_SECURE = libvirt.VIR_DOMAIN_XML_INACTIVE
_READY = frozenset({VmState.OFF, VmState.CRASHED})
_SLACK_BYTES = 16 * MIB
_BUSES = {"virtio": "virtio", "scsi": "scsi", "sata": "sata"}


class Identity(StrEnum):
    """What becomes of the guest's identity in the copy."""

    REMOVED = "removed"  # by virt-sysprep
    GONE = "gone"  # the guest has removed it before
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """A template of that name from a VM. What is None is taken from the VM, or left at what is safe."""

    name: str
    library: str = DEFAULT_LIBRARY
    identity: Identity = Identity.REMOVED
    description: str | None = None
    readiness: Readiness | None = None
    takes_seed: bool | None = None
    tags: tuple[str, ...] = ()


def plan_capture(host: Host, vm: Vm, request: CaptureRequest) -> Plan:
    """The plan that makes the template; long. Raises UsageError for a name that no template can have, NotFound,
    ConnectionLost, Denied."""
    check_template_name(request.name)
    return _Planner(host, vm, request).plan()


class _Planner:
    """Looks at the VM and the library once; used once."""

    def __init__(self, host: Host, vm: Vm, request: CaptureRequest) -> None:
        self._host = host
        self._vm = vm
        self._request = request
        self._findings = Findings()
        self._mark = str(uuids.uuid4())[:8]
        self._library = read(host, request.library)

    def plan(self) -> Plan:
        host, vm, request, findings = self._host, self._vm, self._request, self._findings
        self._check_state()
        with host.calls("plan the capture of", vm.name) as connection:
            root = parse(connection.lookupByUUIDString(vm.uuid).XMLDesc(_SECURE))
            images = self._images(connection, root)
        if any(template.name == request.name for template in self._library.templates):
            reason = f"there is a template {request.name} in the library already"
            findings.block(reason, "Choose another name, or remove that one first", exit_code=NameTaken.exit_code)
        self._check_space(images)
        config = read_config(to_text(root))
        paths = [str(new["path"]) for role, _, new in images if role is ImageRole.DISK]
        self._check_identity(config, paths)
        words = f"the VM {vm.name}, {self._identity_words()}"
        shared: dict[str, Json] = {"pool": request.library, "name": request.name, "mark": self._mark}
        return Plan(
            title=f"Capture {vm.name} as the template {request.name}",
            host_uri=host.uri,
            steps=(
                *pool_steps(host, self._library),
                *tidy_steps(self._library),
                *self._image_steps(images, shared, paths),
                Step("template.store", f"Store the manifest of {request.name}", {
                    **shared, "facts": self._facts(root, config, words), "created_at": datetime.now(UTC).isoformat(),
                    "revision": 1, "text": "", "replaces": "", "old_text": "",
                }),
                finish_step(request.library, request.name, self._mark),
            ),
            command=("template", "capture", *self._options(), request.name),
            vm_uuid=template_uuid(host, request.library, request.name),
            vm_name=request.name,
            warnings=tuple(dict.fromkeys((*pool_warnings(self._library), *findings.warnings))),
            blockers=(*host_blockers(host), *findings.blockers),
            keeps=(f"{vm.name} and its disks stay as they are",),
            long=True,
        )  # fmt: skip

    # What stands in the way

    def _check_state(self) -> None:
        vm = self._vm
        if vm.state in _READY and not vm.has_saved_state:
            pass
        elif vm.state is VmState.SAVED or vm.has_saved_state:
            reason = "it has a saved state, whose memory fits only to the disks as they are"
            self._findings.blockers.append(Blocker.wrong_state(reason, remedy="Start it and shut it down"))
        else:
            remedy = (
                f"Shut it down: {hint('stop', vm.name)}; or clone it and capture the clone: {hint('clone', vm.name)}"
            )
            reason = f"it is {vm.state}, and only a VM that is off can be captured"
            blocker = Blocker.wrong_state(reason, remedy=remedy, action_id="vm.stop")
            self._findings.blockers.append(blocker)
        if self._host.is_simulated:
            reason = "a simulated host's storage keeps no contents"
            self._findings.block(reason, "Connect to a real one", exit_code=Unsupported.exit_code)

    def _check_space(self, images: Sequence[tuple[ImageRole, Origin, dict[str, Json]]]) -> None:
        wanted_bytes = sum(origin.size_bytes for _, origin, _ in images) + _SLACK_BYTES
        free_bytes = self._library.free_bytes
        if free_bytes is not None and free_bytes < wanted_bytes:
            reason = f"the library has {format_bytes(free_bytes)} free, and {format_bytes(wanted_bytes)} are needed"
            self._findings.block(reason, "Remove what is not needed")

    def _check_identity(self, config: VmConfig, paths: Sequence[str]) -> None:
        findings, identity = self._findings, self._request.identity
        if identity is Identity.KEPT:
            findings.warnings.append("VMs made from it share its machine-id, its SSH host keys and all it remembers")
        if identity is not Identity.REMOVED or not paths:
            return
        directory = paths[0].rpartition("/")[0]
        reason, remedy = generalise.obstacle(self._host, directory)
        if "microsoft" in config.os_id:
            reason, remedy = "Windows is generalised by its own Sysprep only", "Run it in the guest"
        elif not self._library.exists and not reason:
            return  # the plan makes it
        if reason:
            others = f"do it {generalise.in_the_guest()}; then give --generalised. Or keep it: --keep-identity"
            findings.block(reason, f"{remedy}; or {others}", exit_code=Unsupported.exit_code)

    def _identity_words(self) -> str:
        if self._request.identity is Identity.KEPT:
            return "with its identity (machine-id, SSH host keys, logs)"
        return "generalised" if self._request.identity is Identity.REMOVED else "generalised by the guest itself"

    # Images

    def _images(self, connection: Any, root: Element) -> list[tuple[ImageRole, Origin, dict[str, Json]]]:
        found: list[tuple[ImageRole, Origin]] = []
        for role in (ImageRole.KERNEL, ImageRole.INITRD):
            path = root.findtext(f"os/{role.value}", "").strip()
            if path:
                found.append((role, self._file(connection, path)))
        seeds = seed_drives(root, self._vm.uuid)
        for disk in root.iterfind("devices/disk"):
            source, target = disk_source(disk), target_of(disk)
            if source in seeds or disk.get("device") in {"cdrom", "floppy"} or not source:
                continue
            if is_kept(disk):
                self._findings.warnings.append(f"the disk {target} is not captured: it is shared, or only read")
            elif problem := problem_of(disk):
                reason = f"the disk {printable(target)} cannot be captured: {problem}"
                self._findings.block(reason, exit_code=Unsupported.exit_code)
            else:
                found.append((ImageRole.DISK, self._disk(connection, disk, source)))
        if not found:
            self._findings.block("it has no disk that a template could be made of")
        return self._named(found)

    def _named(self, found: Sequence[tuple[ImageRole, Origin]]) -> list[tuple[ImageRole, Origin, dict[str, Json]]]:
        request, number, named = self._request, 0, []
        made = pool_steps(self._host, self._library)
        path = self._library.path or (str(made[0].args["path"]) if made else "")
        for role, origin in found:
            number += role is ImageRole.DISK
            name = image_name(request.name, self._mark, role, number if role is ImageRole.DISK else 1)
            kind = "qcow2" if role is ImageRole.DISK else "raw"
            new: dict[str, Json] = {
                "pool": request.library, "name": name, "path": f"{path}/{name}",
                "capacity_bytes": origin.capacity_bytes, "format": kind, "source": {"size_bytes": origin.size_bytes},
            }  # fmt: skip
            if role is not ImageRole.DISK:
                new["mode"] = "0644"
            named.append((role, origin, new))
        return named

    def _disk(self, connection: Any, disk: Element, source: str) -> Origin:
        driver = disk.find("driver")
        kind = "raw" if driver is None else driver.get("type", "raw")
        volume = volume_of_disk(connection, disk, source)
        if volume is None:
            return self._outside(target_of(disk), source, kind)
        return self._origin(connection, volume, kind, target=target_of(disk), source=source)

    def _file(self, connection: Any, path: str) -> Origin:
        volume = volume_of_disk(connection, Element("disk", type="file"), path)
        return self._outside("", path, "raw") if volume is None else self._origin(connection, volume, "raw")

    def _origin(self, connection: Any, volume: Any, kind: str, *, target: str = "", source: str = "") -> Origin:
        capacity_bytes = int(volume.info()[1])
        size_bytes, depth = chain_of(connection, volume)
        pool = volume.storagePoolLookupByVolume().name()
        if depth > 1:
            text = f"the disk {target} builds on another image: the template's is whole"
            self._findings.warnings.append(text)
        return Origin(target, source, volume.path(), kind, capacity_bytes, size_bytes, "", pool, volume.name())

    def _outside(self, target: str, path: str, kind: str) -> Origin:
        if self._host.is_local and not self._host.is_simulated and path.startswith("/"):
            from host.images import inspect

            return Origin(target, path, path, kind, inspect(path).virtual_size_bytes, 0, "")
        reason = f"no active storage pool has {printable(path, limit=120)}"
        self._findings.block(reason, "Make a storage pool over its directory", exit_code=NotFound.exit_code)
        return Origin(target, path, path, kind, 0, 0, "")

    def _image_steps(
        self, images: Sequence[tuple[ImageRole, Origin, dict[str, Json]]], shared: dict[str, Json], paths: Sequence[str]
    ) -> list[Step]:
        given: list[Json] = [
            {"role": role.value, "target": origin.target, "source": origin.source, "path": origin.path,
             "format": origin.format, "pool": origin.pool, "volume": origin.volume, "new": new}
            for role, origin, new in images
        ]  # fmt: skip
        args: dict[str, Json] = {**shared, "uuid": self._vm.uuid, "vm": self._vm.name, "images": given}
        lines = tuple(
            shlex.join(["qemu-img", "convert", "-O", str(new["format"]), origin.path, str(new["path"])])
            for _, origin, new in images
        )
        size = format_bytes(sum(origin.size_bytes for _, origin, _ in images))
        steps = [Step("capture.copy", f"Copy its images into the library ({size})", args, lines)]
        if self._request.identity is Identity.REMOVED and paths:
            line = shlex.join(generalise.sysprep_command(paths))
            title = "Take the guest's identity out of the copy"
            steps.append(Step("capture.generalise", title, {**shared, "paths": list(paths)}, (line,)))
        return [*steps, Step("capture.seal", "Take the SHA-256 of the images", {**shared, "images": given})]

    # The manifest

    def _facts(self, root: Element, config: VmConfig, words: str) -> dict[str, Json]:
        request = self._request
        disks = [disk for disk in config.disks if disk.device == "disk"]
        size = f"{config.vcpus} vCPU{'s' if config.vcpus != 1 else ''} and {format_bytes(config.memory_max_bytes)}"
        facts: dict[str, Json] = {
            "origin": words,
            "description": request.description if request.description is not None else f"it had {size} of memory",
            "firmware": _firmware(root, config).value,
            "architecture": _architecture(root),
            "disk_bus": _BUSES.get(disks[0].bus, "sata") if disks else "virtio",
            "nic_model": "virtio" if not config.nics or config.nics[0].model == "virtio" else "e1000e",
            "kernel_arguments": _kernel_arguments(root, self._vm.name),
            "tags": list(request.tags or config.tags),
        }
        if config.os_id:
            facts["os_id"] = config.os_id
        return {**facts, **self._guest_facts(root, config)}

    def _guest_facts(self, root: Element, config: VmConfig) -> dict[str, Json]:
        """What its own template said of its guest, where it was made from one of this library."""
        request, mark = self._request, template_of(root)
        own = next((each for each in self._library.templates if mark and each.name == mark.name), None)
        readiness = request.readiness or (own.readiness if own is not None else None)
        takes_seed = request.takes_seed
        if takes_seed is None:
            takes_seed = own.takes_seed if own is not None else False
        if readiness is None:
            readiness = Readiness.CLOUD_INIT if takes_seed else Readiness.NONE
            if config.has_agent_channel and not takes_seed:
                text = "whether its agent answers cannot be seen while it is off: --readiness agent says that it does"
                self._findings.warnings.append(text)
        profiles: dict[str, Json] = {}
        if own is not None:
            profiles = {"hardware_profile": own.hardware_profile, "guest_profile": own.guest_profile}
        return {"readiness": readiness.value, "takes_seed": takes_seed, **profiles}

    def _options(self) -> tuple[str, ...]:
        request = self._request
        words = ["--from", self._vm.name]
        words += {Identity.KEPT: ["--keep-identity"], Identity.GONE: ["--generalised"]}.get(request.identity, [])
        given = {
            "--library": request.library if request.library != DEFAULT_LIBRARY else "",
            "--description": request.description,
            "--readiness": request.readiness,
        }
        for key, value in given.items():
            words += [key, str(value)] if value else []
        if request.takes_seed is not None:
            words.append("--seed" if request.takes_seed else "--no-seed")
        return (*words, *(word for tag in request.tags for word in ("--tag", tag)))


def _architecture(root: Element) -> str:
    kind = root.find("os/type")
    return "x86_64" if kind is None else kind.get("arch", "x86_64")


def _firmware(root: Element, config: VmConfig) -> Firmware:
    os_element = root.find("os")
    if config.firmware != "uefi" or os_element is None:
        return Firmware.BIOS
    return Firmware.UEFI_SECURE if wants_secure_boot(os_element) else Firmware.UEFI


def _kernel_arguments(root: Element, name: str) -> str:
    """Its kernel's arguments, with a field where the VM's own name stands."""
    words = root.findtext("os/cmdline", "").split()
    return " ".join(f"{word[: -len(name)]}{{name}}" if word.endswith(f"={name}") else word for word in words)
