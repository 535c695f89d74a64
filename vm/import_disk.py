"""Plans a VM from disks of another product, or from an appliance (OVA): converted here, then stored in a pool.

The firmware follows from the partition table (vm.boot_sector), the bus and the card from where the disk comes from:
they are what its system has drivers for at its first start, not what is fastest; vm.paravirtual changes them later.
What is packed is looked into when it is unpacked. The steps are those of vm.import_disk_steps. Nothing is changed here.
"""

from __future__ import annotations

import shlex
import uuid as uuids
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from host import image_convert, images
from host.connection import Host
from host.errors import HvtuiError, NotFound, Unsupported, UsageError
from host.facts import GuestDefaults, read_defaults
from host.image_kinds import ImageKind, recognise
from host.image_unpack import read_descriptor
from host.load import local_memory
from host.paths import cache_directory
from host.plan import Blocker, Json, Plan, Step
from host.text import printable
from host.units import GIB, format_bytes
from vm import boot_sector, create_checks, import_disk_steps, ovf
from vm.boot_sector import BootLook, Maker
from vm.commands import host_blockers, virsh
from vm.create_request import CreateRequest, Firmware, SourceKind
from vm.deploy_checks import Target, read_nic
from vm.deploy_xml import with_machine
from vm.import_pool import check_room, pool_steps, read_pool
from vm.import_report import DEFAULT_LIMIT_BYTES, FindingKind, Findings
from vm.names import check_name
from vm.new_domain_xml import Hardware, NewDisk, NewNic, new_domain_xml
from vm.ovf import OvfMachine
from vm.profile_model import ProfileNic

__all__ = ["DiskImportRequest", "import_disk_steps", "plan_import_disk"]

MOST_IDE_DISKS = 4
CONVENTIONAL = "pc"  # the PC of 1996 with its IDE disks, which every system of those years boots from
# Systems whose first RAM disk holds the drivers of every bus, virtio's too; others hold those of where they were.
_HAS_ALL_DRIVERS = ("debian", "ubuntu", "alpine")
_ENDINGS = frozenset({".gz", ".xz", ".zst", ".vhd", ".vhdx", ".vmdk", ".vdi", ".qcow2", ".raw", ".img", ".ova"})


@dataclass(frozen=True, slots=True)
class DiskImportRequest:
    """Disks to make a VM of. `sources` are files of this machine: one or several disks, or one OVA. 0 and "" leave the
    choice to the descriptor of an OVA, else to hvtui. `is_raw` is the user's word that the disks are raw ones."""

    sources: tuple[Path, ...]
    name: str = ""
    pool: str = "default"
    network: str = "auto"
    memory_bytes: int = 0
    vcpus: int = 0
    firmware: Firmware = Firmware.AUTO
    bus: str = ""  # virtio, scsi, sata, ide
    os_id: str = ""
    tpm: bool = False
    is_raw: bool = False
    start: bool = False
    limit_bytes: int = DEFAULT_LIMIT_BYTES


@dataclass(frozen=True, slots=True)
class _Disk:
    """One disk: the file, or a member of the OVA; its kind, where it can be known now; what it takes, roughly."""

    path: Path
    kind: ImageKind | None
    member: str = ""
    actual_bytes: int = 0
    virtual_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Hardware:
    """What the VM's disks and card hang on, and why."""

    bus: str
    nic_model: str
    machine: str
    why: str


def plan_import_disk(host: Host, request: DiskImportRequest) -> Plan:
    """The plan that makes a VM of the disks; long. Raises NotFound, Denied, UsageError for files that are no disks, or
    damaged or hostile ones."""
    return _Planner(host, request).plan()


class _Planner:
    """Looks at the disks and the host; used once."""

    def __init__(self, host: Host, request: DiskImportRequest) -> None:
        sources = tuple(path.expanduser().absolute() for path in request.sources)
        self._host = host
        self._request = replace(request, sources=sources)
        self._findings = Findings()
        self._kinds = [recognise(path) for path in sources]
        self._appliance = self._read_appliance()
        self._look: BootLook | None = None
        self._maker = Maker.OTHER
        self._disks = self._read_disks()
        self._name = check_name(request.name or self._own_name())
        self._uuid = str(uuids.uuid4())
        self._work = cache_directory() / "imports" / self._uuid[:8]

    # What there is

    def _read_appliance(self) -> OvfMachine | None:
        if ImageKind.OVA not in self._kinds:
            return None
        if len(self._kinds) > 1:
            raise UsageError("an OVA holds all disks of its VM", remedy="Give it alone")
        return ovf.read(read_descriptor(self._request.sources[0]))

    def _read_disks(self) -> list[_Disk]:
        if self._appliance is not None:
            source = self._request.sources[0]
            share = source.stat().st_size // len(self._appliance.disks)
            disks = self._appliance.disks
            return [_Disk(source, None, disk.file, share, disk.capacity_bytes) for disk in disks]
        pairs = enumerate(zip(self._request.sources, self._kinds, strict=True))
        return [self._read_disk(path, kind, is_first=index == 0) for index, (path, kind) in pairs]

    def _read_disk(self, path: Path, kind: ImageKind, *, is_first: bool) -> _Disk:
        if kind.is_compressed:
            return _Disk(path, None, actual_bytes=path.stat().st_size)
        if kind is ImageKind.ISO:
            remedy = f"Make a VM that installs from it: hvtui vm create NAME --from {printable(str(path))}"
            raise UsageError("that is an installation medium, not a disk", about=str(path), remedy=remedy)
        if kind is ImageKind.UNKNOWN and self._request.is_raw:
            kind = ImageKind.RAW
        if not kind.is_disk:
            remedy = "If it is a raw disk without a partition table, say so with --raw"
            raise UsageError("it is no disk image that hvtui knows", about=str(path), remedy=remedy)
        info = image_convert.check_source(path, kind, limit_bytes=self._request.limit_bytes)
        if is_first:
            self._look = boot_sector.look(boot_sector.read_head(path, kind))
            self._maker = boot_sector.vhd_maker(path) if kind is ImageKind.VHD else Maker.OTHER
        return _Disk(path, kind, "", info.actual_size_bytes, info.virtual_size_bytes)

    def _own_name(self) -> str:
        if self._appliance is not None and self._appliance.name:
            return self._appliance.name
        path = Path(self._request.sources[0].name)
        while path.suffix.lower() in _ENDINGS:
            path = path.with_suffix("")
        return path.name

    # What the VM gets

    def _firmware(self) -> tuple[Firmware | None, str]:
        """The firmware, None where the disk tells it only when it is unpacked; and why."""
        if self._request.firmware is not Firmware.AUTO:
            return self._request.firmware, "as asked"
        if self._appliance is not None and self._appliance.firmware is not Firmware.BIOS:
            return self._appliance.firmware, "its descriptor says so"
        if self._look is not None:
            return self._look.firmware, self._look.why
        return None, "its partition table tells, once it is unpacked"

    def _hardware(self, firmware: Firmware | None) -> _Hardware:
        """What is sure to be there at the first start."""
        request, kind = self._request, self._disks[0].kind
        if request.bus:
            machine = CONVENTIONAL if request.bus == "ide" else ""
            return _Hardware(
                request.bus, "virtio" if request.bus in {"virtio", "scsi"} else "e1000", machine, "as asked"
            )
        system = f"{request.os_id} {self._appliance.os_name if self._appliance else ''}".lower()
        known = next((name for name in _HAS_ALL_DRIVERS if name in system), "")
        if known:
            return _Hardware(
                "virtio", "virtio", "", f"a {known.capitalize()} has virtio's drivers from its first start"
            )
        later = "'hvtui vm paravirtual' changes that once its drivers are there"
        if firmware is not Firmware.BIOS or len(self._disks) > MOST_IDE_DISKS:
            return _Hardware("sata", "e1000e", "", f"every newer system has drivers for these; {later}")
        if self._maker in {Maker.VIRTUAL_PC, Maker.VIRTUAL_SERVER}:
            why = f"a system from Virtual PC or Virtual Server boots from IDE; {later}"
            return _Hardware("ide", "rtl8139", CONVENTIONAL, why)
        is_ovf_ide = self._appliance is not None and self._appliance.disks[0].bus == "ide"
        if kind in {ImageKind.VHD, ImageKind.VHDX} or is_ovf_ide:
            where = "in its appliance" if is_ovf_ide else "of Hyper-V's generation 1"
            return _Hardware("ide", "e1000", CONVENTIONAL, f"a system {where} boots from IDE; {later}")
        return _Hardware("sata", "e1000e", "", f"every newer system has drivers for these; {later}")

    def plan(self) -> Plan:
        host, request, findings = self._host, self._request, self._findings
        if host.is_simulated:
            findings.block("a simulated host keeps no contents", exit_code=Unsupported.exit_code)
        firmware, why = self._firmware()
        hardware = self._hardware(firmware)
        defaults = with_machine(read_defaults(host), hardware.machine)
        like = self._vm_request(firmware or Firmware.BIOS)
        checks = create_checks.Findings()
        create_checks.check_values(like)
        with host.calls("plan an import to", host.name) as connection:
            create_checks.check_name(connection, like, checks)
            create_checks.check_resources(connection, like, defaults, checks, memory=local_memory(host))
            create_checks.check_os_id(like.os_id, checks)
            choices = create_checks.read_choices(connection, defaults)
            nic = self._nic(connection, hardware, checks)
            pool = read_pool(host, connection, request.pool, findings)
            version = connection.getLibVersion()
        if not host.is_simulated and firmware is not None:
            create_checks.check_firmware(like, firmware, defaults, checks)
        if defaults.accelerator.is_emulated:
            checks.warnings.append(f"the guest is emulated, 10 to 50 times slower: {defaults.accelerator.reason}")
        video = "vga" if hardware.bus in {"ide", "sata"} else "virtio"
        video = video if video in choices.video_models or not choices.video_models else "vga"
        xmls = {
            each.value: self._xml(each, defaults, hardware, pool=pool, nic=nic, video=video, version=version)
            for each in ([firmware] if firmware is not None else _possible(defaults))
        }
        self._check_space(pool)
        notes = (
            f"it boots by {_words(firmware)}: {why}",
            f"its disks hang on {hardware.bus}, and {_card(nic)}: {hardware.why}",
            *(each.text for each in findings.all if each.kind is FindingKind.OK),
        )
        return self._assembled(pool, xmls, checks, notes)

    def _assembled(
        self, pool: Target, xmls: dict[str, str], checks: create_checks.Findings, notes: tuple[str, ...]
    ) -> Plan:
        findings, host = self._findings.all, self._host
        changed = tuple(each.text for each in findings if each.kind is FindingKind.CHANGED)
        blocked = (each for each in findings if each.kind is FindingKind.BLOCKER)
        own = tuple(Blocker(each.text, each.remedy, exit_code=each.exit_code) for each in blocked)
        return Plan(
            title=f"Import {self._name} from {self._request.sources[0].name}",
            host_uri=host.uri,
            steps=self._steps(pool, xmls),
            command=_command(self._request, self._name),
            vm_uuid=self._uuid,
            vm_name=self._name,
            warnings=(*checks.warnings, *changed),
            blockers=(*host_blockers(host), *checks.blockers, *own),
            keeps=tuple(f"{path} stays as it is" for path in self._request.sources),
            notes=notes,
            xml_after=next(iter(xmls.values())),
            long=True,
        )

    def _vm_request(self, firmware: Firmware) -> CreateRequest:
        request, appliance = self._request, self._appliance
        return CreateRequest(
            name=self._name,
            source=SourceKind.IMAGE,
            vcpus=request.vcpus or (appliance.vcpus if appliance else 0) or 2,
            memory_bytes=request.memory_bytes or (appliance.memory_bytes if appliance else 0) or 2 * GIB,
            firmware=firmware,
            tpm=request.tpm,
            os_id=request.os_id,
            start=request.start,
        )

    def _nic(self, connection: Any, hardware: _Hardware, checks: create_checks.Findings) -> NewNic | None:
        from vm.template_model import Template

        wanted = ProfileNic(network=self._request.network, model=hardware.nic_model)
        return read_nic(self._host, connection, wanted, Template(self._name, ()), checks)

    def _xml(
        self,
        firmware: Firmware,
        defaults: GuestDefaults,
        hardware: _Hardware,
        *,
        pool: Target,
        nic: NewNic | None,
        video: str,
        version: int,
    ) -> str:
        disks = tuple(
            NewDisk(f"{pool.path}/{self._volume(index)}", "qcow2", bus=hardware.bus)
            for index in range(len(self._disks))
        )
        parts = Hardware(
            uuid=self._uuid,
            firmware=firmware,
            disks=disks,
            nics=(nic,) if nic is not None else (),
            video_model=video,
            libvirt_version=version,
        )
        return new_domain_xml(self._vm_request(firmware), defaults, parts)

    def _volume(self, index: int) -> str:
        return f"{self._name}-{self._uuid[:8]}" + (f"-{index + 1}" if index else "") + ".qcow2"

    def _check_space(self, pool: Target) -> None:
        now_bytes = sum(disk.actual_bytes for disk in self._disks)
        most_bytes = max(now_bytes, sum(disk.virtual_bytes for disk in self._disks))
        check_room(pool, now_bytes=now_bytes, most_bytes=most_bytes, findings=self._findings)
        try:
            free_bytes = images.free_bytes(self._work)
        except HvtuiError as error:
            self._findings.block_for(error)
            return
        packed = any(disk.kind is None for disk in self._disks)
        wanted_bytes = now_bytes * (2 if packed else 1)
        if free_bytes < wanted_bytes:
            reason = f"converting it needs {format_bytes(wanted_bytes)} in {self._work.parent}, and "
            remedy = "Make room, or set HVTUI_CACHE_DIR to a directory that has it"
            self._findings.block(f"{reason}{format_bytes(free_bytes)} are free", remedy)

    # Steps

    def _steps(self, pool: Target, xmls: dict[str, str]) -> tuple[Step, ...]:
        request, uri = self._request, self._host.uri
        identity: dict[str, Json] = {"uuid": self._uuid, "name": self._name}
        common: dict[str, Json] = {"work": str(self._work), "limit_bytes": request.limit_bytes}
        steps: list[Step] = []
        source = request.sources[0]
        if self._appliance is not None:
            args = {**common, "source": str(source)}
            line = shlex.join(["tar", "-xf", str(source)])
            steps.append(
                Step("import.unpack", f"Unpack {source.name}: whether it is whole is seen only then", args, (line,))
            )
        for index, disk in enumerate(self._disks):
            kind = disk.kind.value if disk.kind is not None else ""
            args = {**common, "index": index, "source": "" if disk.member else str(disk.path), "member": disk.member}
            args |= {"kind": kind, "is_raw": request.is_raw}
            shown = disk.member or str(disk.path)
            options = ["-f", disk.kind.qemu_format] if disk.kind else []
            line = shlex.join(["qemu-img", "convert", *options, "-O", "qcow2", "--", shown, f"{index}.qcow2"])
            size = f" ({format_bytes(disk.actual_bytes)})" if disk.actual_bytes else ""
            title = f"Convert {printable(Path(shown).name)}{size}"
            if disk.kind is None and not disk.member:
                title = f"Unpack and c{title[1:]}: whether it is whole is seen only then"
            steps.append(Step("import.convert", title, args, (line,)))
        steps += pool_steps(self._host, pool)
        for index in range(len(self._disks)):
            name = self._volume(index)
            args = {"work": str(self._work), "index": index, "pool": pool.name, "name": name}
            upload = ["vol-upload", "--sparse", "--pool", pool.name, "--vol", name, "--file", f"{index}.qcow2"]
            line = shlex.join(["virsh", "-c", uri, *upload])
            steps.append(Step("import.upload", f"Upload it to the pool {pool.name}", args, (line,)))
        args = {**identity, "work": str(self._work), "xml": dict(xmls)}
        line = shlex.join(["virsh", "-c", uri, "define", "--validate", "--file", f"{self._name}.xml"])
        steps.append(Step("import.define-disk", f"Define {self._name}", args, (line,)))
        steps.append(Step("import.tidy", "Remove what was only for converting", {"work": str(self._work)}))
        if request.start:
            steps.append(Step("create.start", f"Start {self._name}", identity, (virsh(uri, "start", self._name),)))
        return tuple(steps)


def _possible(defaults: GuestDefaults) -> list[Firmware]:
    found = [each for each in (Firmware.BIOS, Firmware.UEFI) if each.value in defaults.firmware]
    if not found:
        raise NotFound("this host has no firmware for guests", remedy="Install it: apt-get install ovmf seabios")
    return found


def _card(nic: NewNic | None) -> str:
    """An e1000, a virtio card."""
    if nic is None:
        return "it has no network card"
    return f"its card is {'an' if nic.model[:1] in 'aeior' else 'a'} {nic.model}"


def _words(firmware: Firmware | None) -> str:
    words = {Firmware.BIOS: "BIOS", Firmware.UEFI: "UEFI", Firmware.UEFI_SECURE: "UEFI with Secure Boot"}
    return words.get(firmware, "BIOS or UEFI") if firmware is not None else "BIOS or UEFI"


def _command(request: DiskImportRequest, name: str) -> tuple[str, ...]:
    words = ["vm", "import", *map(str, request.sources), "--name", name]
    default = DiskImportRequest(())
    texts = {
        "--pool": (request.pool, default.pool),
        "--network": (request.network, default.network),
        "--memory": (str(request.memory_bytes), "0"),
        "--cpus": (str(request.vcpus), "0"),
        "--firmware": (request.firmware.value, default.firmware.value),
        "--bus": (request.bus, ""),
        "--os": (request.os_id, ""),
        "--max-size": (str(request.limit_bytes), str(default.limit_bytes)),
    }
    for option, (value, usual) in texts.items():
        words += [option, value] if value != usual else []
    words += ["--tpm"] if request.tpm else []
    words += ["--raw"] if request.is_raw else []
    words += ["--start"] if request.start else []
    return tuple(words)
