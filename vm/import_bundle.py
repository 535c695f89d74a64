"""Compares a bundle with a host, and plans its import: as a copy, or with its old identity; copied, or used in place.

`compare` says before anything is made what is as it was, what will be otherwise, and what keeps it from being imported.
The bundle may come from anybody: its files are checked (vm.bundle), its definition keeps nothing that reaches into this
host by itself (vm.import_machine, vm.import_devices). The steps are those of vm.import_steps. This module changes
nothing.
"""

from __future__ import annotations

import shlex
import uuid as uuids
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent

import libvirt

from host import image_convert, secrets
from host.connection import Host
from host.errors import Denied, HvtuiError, NameTaken, NotFound, Unsupported, UsageError
from host.facts import GuestDefaults, read_defaults
from host.image_kinds import ImageKind
from host.load import local_memory
from host.plan import Json, Plan, Step
from host.text import printable
from host.units import format_bytes
from vm import bundle as bundles
from vm import create_checks, host_files, import_steps
from vm.bundle import BundleFile, Role
from vm.commands import host_blockers, virsh
from vm.create_request import CreateRequest
from vm.deploy_checks import Target
from vm.domain_xml import parse, read_config, to_text
from vm.import_devices import fit_devices, foreign_paths
from vm.import_disks import fit_disks
from vm.import_machine import fit_machine
from vm.import_nics import fit_nics
from vm.import_pool import check_room, pool_steps, read_pool
from vm.import_report import FindingKind, Findings, ImportRequest, Report
from vm.import_surroundings import Surroundings, read_surroundings
from vm.names import name_problem
from vm.redact import extract

__all__ = ["ImportRequest", "Report", "compare", "import_steps", "plan_import"]

OLD_FIRMWARE_BYTES = 128 * 1024  # the variables of a UEFI of 2 MiB, which one of 4 MiB cannot use
_BOOTED = (Role.KERNEL, Role.INITRD)


def compare(host: Host, request: ImportRequest) -> Report:
    """What the import of the bundle would find and change; nothing is made. Raises NotFound where there is no bundle,
    UsageError for one that no export wrote and for a mapping of a network that it has not, ConnectionLost, Denied."""
    return _Comparison(host, request).report()


def plan_import(host: Host, request: ImportRequest) -> Plan:
    """The plan that imports the bundle; long. Raises what `compare` does."""
    comparison = _Comparison(host, request)
    return comparison.plan(comparison.report())


@dataclass(slots=True)
class _Places:
    """Where the bundle's files will be on the host: paths by the files' names, and the volumes to make for them."""

    paths: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)


class _Comparison:
    """Looks at a bundle and a host; used once."""

    def __init__(self, host: Host, request: ImportRequest) -> None:
        directory = request.directory.expanduser().absolute()
        self._host = host
        self._request = replace(request, directory=directory)
        self._bundle = bundles.read(directory)
        self._findings = Findings()
        self._name = request.name or self._bundle.vm_name
        self._mark = str(uuids.uuid4())[:8]
        self._uuid = self._bundle.vm_uuid if request.restore else self._mark + str(uuids.uuid4())[8:]
        self._pool = Target(request.pool, "", exists=False)
        self._places = _Places()
        self._nvram = ""
        self._tpm = ""

    def report(self) -> Report:
        host, findings = self._host, self._findings
        self._check_kind_of_host()
        self._check_files()
        root = self._definition()
        defaults = read_defaults(host)  # not inside the block: it may boot a test guest once
        found: dict[str, str] = {}
        if root is not None:
            with host.calls("compare a bundle with", host.name) as connection:
                self._check_identity(connection)
                self._check_pool(connection)
                kind = root.find("os/type")
                around = read_surroundings(
                    host,
                    connection,
                    defaults,
                    architecture="x86_64" if kind is None else kind.get("arch", "x86_64"),
                    machine="" if kind is None else kind.get("machine", ""),
                )
                found = self._fit(root, around)
                self._check_resources(connection, root, defaults)
                self._ask_libvirt(connection, root)
            indent(root)
        return Report(
            name=self._name,
            uuid=self._uuid,
            mark=self._mark,
            findings=tuple(dict.fromkeys(findings.all)),
            xml="" if root is None else to_text(root) + "\n",
            secrets=found,
            nvram=self._nvram,
            tpm=self._tpm,
        )

    # The bundle

    def _check_kind_of_host(self) -> None:
        if self._host.is_simulated:
            self._findings.block("a simulated host keeps no contents", exit_code=Unsupported.exit_code)
        if self._request.register and not self._host.is_local:
            reason = f"the bundle is on this machine, and {self._host.name} is another one"
            self._findings.block(reason, "Import it without --register: its disks are copied", exit_code=2)

    def _check_files(self) -> None:
        bundle, findings = self._bundle, self._findings
        problems = [problem for file in bundle.files if (problem := bundles.problem_of(bundle, file))]
        for problem in problems:
            findings.block(problem, "Copy the bundle again, or export the VM again")
        if not problems:
            size = format_bytes(sum(file.size_bytes for file in bundle.files))
            findings.ok(f"the bundle is whole by its {len(bundle.files)} files' sizes ({size})")
            for file in bundle.of(Role.DISK):
                self._check_disk(file)

    def _check_disk(self, file: BundleFile) -> None:
        path, limit_bytes = self._bundle.path(file), self._request.limit_bytes
        try:
            if file.format == "qcow2":
                image_convert.check_source(path, ImageKind.QCOW2, limit_bytes=limit_bytes)
            elif file.size_bytes > limit_bytes:
                size, limit = format_bytes(file.size_bytes), format_bytes(limit_bytes)
                raise UsageError(f"its disk of {size} is larger than {limit}", about=file.name, remedy="--max-size")
        except HvtuiError as error:
            self._findings.block_for(error)

    def _definition(self) -> Element | None:
        """The bundle's domain XML, once its hash is right."""
        bundle, findings = self._bundle, self._findings
        (file,) = bundle.of(Role.DOMAIN)
        try:
            text = bundles.read_text(bundle.directory, file.name, limit_bytes=bundles.LARGEST_DOMAIN_BYTES)
            if bundles.sha256_of(bundle.directory, file.name) != file.sha256:
                raise bundles.mismatch(file, bundle.directory)
            return parse(text)
        except HvtuiError as error:
            findings.block_for(error)
            return None

    # Identity

    def _check_identity(self, connection: Any) -> None:
        findings, shown = self._findings, printable(self._name, limit=80)
        if problem := name_problem(self._name):
            findings.block(f"{shown!r} cannot be a VM's name: {problem}", "Give another one with --name", exit_code=2)
        taken = {domain.name(): domain.UUIDString() for domain in connection.listAllDomains(0)}
        if self._name in taken:
            reason = f"there is a VM called {shown} already"
            findings.block(reason, "Give another name with --name", exit_code=NameTaken.exit_code)
        elif not name_problem(self._name):
            findings.ok(f"the name {shown} is free")
        if not self._request.restore:
            findings.changed("it is a copy, with a new identity (UUID)")
            return
        owner = next((name for name, uuid in taken.items() if uuid == self._uuid), None)
        if owner is not None:
            reason = f"the VM {printable(owner, limit=80)} has its identity ({self._uuid}) already"
            findings.block(reason, "Import it as a copy (--copy)", exit_code=NameTaken.exit_code)
        else:
            findings.ok(f"its identity {self._uuid} is free here: it must not run on its old host as well")

    # Storage

    def _check_pool(self, connection: Any) -> None:
        bundle, findings = self._bundle, self._findings
        disks = bundle.of(Role.DISK)
        files = [*disks, *(file for role in _BOOTED for file in bundle.of(role))]
        if self._request.register:
            self._places.paths = {file.name: str(bundle.path(file)) for file in files}
            self._check_in_place(files)
            return
        if not files:
            return
        self._pool = read_pool(self._host, connection, self._request.pool, findings)
        for file in files:
            ending = f"{file.target}.{file.format}" if file.role is Role.DISK else file.role.value
            self._places.volumes[file.name] = f"{self._name}-{self._mark}-{ending}"
            self._places.paths[file.name] = f"{self._pool.path}/{self._places.volumes[file.name]}"
        now_bytes = sum(_allocated(bundle.path(file)) for file in files)
        most_bytes = sum(file.virtual_size_bytes for file in disks)
        check_room(self._pool, now_bytes=now_bytes, most_bytes=max(now_bytes, most_bytes), findings=findings)

    def _check_in_place(self, files: list[BundleFile]) -> None:
        checks = create_checks.Findings()
        for file in files:
            what, path = f"its {file.role.value}", str(self._bundle.path(file))
            create_checks.check_file(self._host, path, what, checks, write=file.role is Role.DISK)
            if file.role is Role.DISK:
                create_checks.check_image_users(self._host, path, checks)
        for blocker in checks.blockers:
            self._findings.block(blocker.reason, blocker.remedy, exit_code=blocker.exit_code)
        self._findings.changed("its disks are those of the bundle: once it has run, the bundle is no backup any more")

    # The definition

    def _fit(self, root: Element, around: Surroundings) -> dict[str, str]:
        """Make the definition one for this host; returns its secrets, taken out."""
        request, findings, bundle = self._request, self._findings, self._bundle
        self._give_identity(root)
        fit_machine(root, around, findings)
        fit_devices(root, around, findings, is_copy=not request.restore)
        places = {file.target: (self._places.paths.get(file.name, ""), file.format) for file in bundle.of(Role.DISK)}
        fit_disks(root, places, bundle.left_out, findings)
        fit_nics(root, around, request.networks, findings, uuid_of_copy="" if request.restore else self._uuid)
        self._fit_boot(root)
        self._fit_nvram(root)
        self._fit_tpm(root, around)
        found = extract(root)
        known = {*self._places.paths.values(), *around.loaders, around.emulator, self._nvram}
        for path in dict.fromkeys(foreign_paths(root, known)):
            findings.block(f"its definition names {path}, which is no file of the bundle", exit_code=Denied.exit_code)
        return found

    def _give_identity(self, root: Element) -> None:
        for tag, text in (("name", self._name), ("uuid", self._uuid)):
            element = root.find(tag)
            if element is None:
                element = SubElement(root, tag)
            element.text = text
        if self._request.restore:
            return
        for genid in root.findall("genid"):
            genid.text = str(uuids.uuid4())
        for entry in root.iterfind("sysinfo/system/entry[@name='uuid']"):
            entry.text = self._uuid

    def _fit_boot(self, root: Element) -> None:
        """The kernel that the hypervisor boots itself comes from the bundle."""
        for role in _BOOTED:
            element = root.find(f"os/{role.value}")
            if element is None:
                continue
            file = next(iter(self._bundle.of(role)), None)
            if file is None:
                self._findings.block(f"it boots a {role.value} that is not in the bundle", exit_code=NotFound.exit_code)
            else:
                element.text = self._places.paths.get(file.name, "")

    def _fit_nvram(self, root: Element) -> None:
        os_element, findings = root.find("os"), self._findings
        file = next(iter(self._bundle.of(Role.NVRAM)), None)
        if os_element is None:
            return
        has_loader = os_element.find("loader") is not None
        formats = [element.get("format", "") for element in os_element.findall("nvram")]
        for element in os_element.findall("nvram"):
            os_element.remove(element)
        is_uefi = os_element.get("firmware") == "efi" or has_loader
        if file is None or not is_uefi:
            if is_uefi:
                findings.changed("its firmware's variables (boot entries) are new: the bundle has none")
            return
        if file.size_bytes <= OLD_FIRMWARE_BYTES and not has_loader:
            findings.changed("its firmware's variables (boot entries) are new: those of the bundle are of an older one")
            return
        self._nvram = f"{host_files.nvram_directory(self._host)}/{self._name}-{self._mark}_VARS.fd"
        nvram = SubElement(os_element, "nvram")
        nvram.text = self._nvram
        if "qcow2" in formats:  # libvirt 9.5 and newer
            nvram.set("format", "qcow2")
        findings.ok("its firmware's variables (boot entries) come from the bundle")

    def _fit_tpm(self, root: Element, around: Surroundings) -> None:
        backend, findings = root.find("devices/tpm/backend"), self._findings
        if backend is None:
            return
        encryption = backend.find("encryption")
        if not self._request.restore:
            if encryption is not None:
                backend.remove(encryption)
            sealed = "what the guest sealed with the old one (BitLocker, say) asks for its recovery key"
            findings.changed(f"its TPM is a new one: {sealed}")
            return
        if not self._bundle.of(Role.TPM):
            findings.changed("its TPM is a new one: the bundle has no state of it")
            return
        if encryption is not None and encryption.get("secret", "") not in around.secrets:
            reason = f"its TPM is encrypted with the secret {printable(encryption.get('secret', ''))}, not known here"
            findings.block(reason, "Define that secret first, or import it as a copy (--copy)")
        self._tpm = f"{host_files.tpm_directory(self._host)}/{self._uuid}"
        findings.ok("its TPM keeps its state")

    def _check_resources(self, connection: Any, root: Element, defaults: GuestDefaults) -> None:
        config = read_config(to_text(root))
        checks = create_checks.Findings()
        like = CreateRequest(
            name=self._name, vcpus=config.vcpus_max, memory_bytes=config.memory_max_bytes, start=self._request.start
        )
        memory = local_memory(self._host)
        create_checks.check_resources(connection, like, defaults, checks, memory=memory)
        for blocker in checks.blockers:
            self._findings.block(blocker.reason, blocker.remedy, exit_code=blocker.exit_code)
        for warning in checks.warnings:
            self._findings.changed(warning)
        if not checks.blockers:
            memory_text = format_bytes(config.memory_max_bytes)
            cpus = f"{config.vcpus_max} vCPU{'s' if config.vcpus_max != 1 else ''}"
            self._findings.ok(f"{memory_text} of memory and {cpus} can be had")

    def _ask_libvirt(self, connection: Any, root: Element) -> None:
        """libvirt itself makes QEMU's arguments of the definition, without starting or defining anything."""
        if self._host.is_simulated or any(each.kind is FindingKind.BLOCKER for each in self._findings.all):
            return
        try:
            connection.domainXMLToNative("qemu-argv", to_text(root), 0)
        except libvirt.libvirtError as error:
            if error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                return
            message = printable(error.get_error_message() or "", limit=300)
            self._findings.block(f"libvirt here does not take it: {message}", exit_code=Unsupported.exit_code)
        else:
            self._findings.ok("libvirt here takes its definition")

    # The plan

    def plan(self, report: Report) -> Plan:
        request, bundle = self._request, self._bundle
        changed = report.of(FindingKind.CHANGED)
        return Plan(
            title=f"Import {report.name} from {request.directory}" + (", in place" if request.register else ""),
            host_uri=self._host.uri,
            steps=self._steps(report) if report.xml else (),
            command=_command(request),
            vm_uuid=report.uuid,
            vm_name=report.name,
            warnings=tuple(f"{each.text}. {each.remedy}" if each.remedy else each.text for each in changed),
            blockers=(*host_blockers(self._host), *report.blockers),
            keeps=() if request.register else (f"the bundle {bundle.directory} stays as it is",),
            notes=tuple(each.text for each in report.of(FindingKind.OK)),
            xml_after=report.xml or None,
            long=True,
        )

    def _steps(self, report: Report) -> tuple[Step, ...]:
        request = self._request
        identity: dict[str, Json] = {
            "uuid": report.uuid,
            "name": report.name,
            "mark": report.mark,
            "directory": str(request.directory),
        }
        steps = [] if request.register else list(pool_steps(self._host, self._pool))
        if report.tpm:
            args = {**identity, "path": report.tpm}
            steps.append(Step("import.look-for-tpm", "See that the host keeps no TPM of this identity", args))
        steps += self._file_steps()
        offered = {key: secrets.offer(value) for key, value in report.secrets.items()}
        define = {**identity, "xml": report.xml, "secrets": offered}
        line = shlex.join(["virsh", "-c", self._host.uri, "define", "--validate", "--file", f"{report.name}.xml"])
        steps.append(Step("import.define", f"Define {report.name}", define, (line,)))
        steps += self._state_steps(report, identity)
        if request.start:
            who: dict[str, Json] = {"uuid": report.uuid, "name": report.name}
            steps.append(
                Step("create.start", f"Start {report.name}", who, (virsh(self._host.uri, "start", report.name),))
            )
        return tuple(steps)

    def _file_steps(self) -> list[Step]:
        steps = []
        for file in self._bundle.files:
            if file.name not in self._places.paths:
                continue
            volume, path = self._places.volumes.get(file.name), self._bundle.path(file)
            args: dict[str, Json] = {
                "directory": str(self._bundle.directory),
                "file": bundles.file_to_json(file),
                "limit_bytes": self._request.limit_bytes,
            }
            size = format_bytes(_allocated(path))
            what = f"the disk {file.target}" if file.role is Role.DISK else f"its {file.role.value}"
            if volume is None:
                line = shlex.join(["sha256sum", "--", str(path)])
                steps.append(Step("import.verify", f"Check {what} ({size})", args, (line,)))
                continue
            upload = ["vol-upload", "--sparse", "--pool", self._pool.name, "--vol", volume, "--file", str(path)]
            line = shlex.join(["virsh", "-c", self._host.uri, *upload])
            args = {**args, "pool": self._pool.name, "name": volume}
            steps.append(Step("import.volume", f"Upload and check {what} ({size})", args, (line,)))
        return steps

    def _state_steps(self, report: Report, identity: dict[str, Json]) -> list[Step]:
        steps, bundle = [], self._bundle
        if report.nvram:
            (file,) = bundle.of(Role.NVRAM)
            args: dict[str, Json] = {**identity, "path": report.nvram, "file": bundles.file_to_json(file)}
            line = shlex.join(["cp", "--", str(bundle.path(file)), report.nvram])
            steps.append(Step("import.nvram", "Put its firmware's variables in place", args, (line,)))
        if report.tpm:
            states = [bundles.file_to_json(file) for file in bundle.of(Role.TPM)]
            args = {**identity, "path": report.tpm, "files": states}
            lines = (
                shlex.join(["cp", "--", str(bundle.path(file)), f"{report.tpm}/{file.target}"])
                for file in bundle.of(Role.TPM)
            )
            steps.append(Step("import.tpm", "Put its TPM's state in place", args, tuple(lines)))
        return steps


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _command(request: ImportRequest) -> tuple[str, ...]:
    words = ["vm", "import", str(request.directory)]
    words += ["--name", request.name] if request.name else []
    words += ["--restore"] if request.restore else []
    words += ["--register"] if request.register else []
    words += ["--pool", request.pool] if request.pool != "default" else []
    for old, new in request.networks.items():
        words += ["--network", f"{old}={new}"]
    words += ["--start"] if request.start else []
    return tuple(words)
