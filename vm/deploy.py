"""Plans the making of VMs from a template: one plan a VM, and what has to be there before the first of them.

Everything that could go wrong for any of them and can be known is said before anything is made (vm.deploy_checks); the
XML is made by vm.deploy_xml; the steps are those of vm.create_steps, vm.deploy_steps and vm.ready_steps. This module
changes nothing.
"""

from __future__ import annotations

import json
import shlex
import uuid as uuids
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from host import secrets
from host.connection import Host
from host.facts import read_defaults
from host.plan import Json, Plan, PlanSet, Step
from host.units import MIB, format_bytes
from vm import (  # the steps register their verbs
    cloud_init,
    create_checks,
    create_steps,
    deploy_defaults,
    deploy_steps,
    ready_steps,
)
from vm import deploy_checks as checks
from vm import library as libraries
from vm.commands import host_blockers, virsh
from vm.create_checks import Findings
from vm.deploy_checks import Target
from vm.deploy_request import DeployRequest
from vm.deploy_xml import Choices, deployed_xml, seed_drive, vm_request, with_machine
from vm.new_domain_xml import NewDisk, new_mac
from vm.profile_overrides import departures
from vm.template_model import ImageRole, Library, Readiness, Template, TemplateImage, library_words

__all__ = ["DeployRequest", "create_steps", "plan_deploy", "ready_steps"]

FORMAT = "qcow2"


def plan_deploy(host: Host, request: DeployRequest) -> PlanSet:
    """The plans that make the VMs of `request`; long. Raises UsageError for values that no host could take (user data
    that do not parse, too), NotFound for a template that is not there, ConnectionLost, Denied."""
    checks.check_values(request)
    if request.user_data:
        cloud_init.check_user_data(request.user_data)
    return _Planner(host, request).plan_set()


def find_template(host: Host, name: str, pool: str) -> tuple[Library, Template]:
    """The template and its library. Raises NotFound with the nearest names."""
    return libraries.find(host, name, pool)


@dataclass(frozen=True, slots=True)
class _NewVm:
    """One VM of the set. The uuid's digits make the names of its volumes this job's own: whatever has such a name was
    made by this job."""

    name: str
    uuid: str
    index: int

    @property
    def stem(self) -> str:
        return f"{self.name}-{self.uuid[:8]}"

    @property
    def seed(self) -> str:
        return f"{self.name}{deploy_steps.seed_ending(self.uuid)}"


class _Planner:
    """Looks at the host once, then makes one plan a VM; used once."""

    def __init__(self, host: Host, request: DeployRequest) -> None:
        self._host = host
        self._request = request
        self._findings = Findings()
        self._library, self._template = find_template(host, request.template, request.library)
        self._has_seed = self._template.takes_seed

    def plan_set(self) -> PlanSet:
        request, host, findings = self._request, self._host, self._findings
        defaults = with_machine(read_defaults(host), request.hardware.machine)
        firmware = checks.resolve_firmware(request, self._template, defaults)
        with host.calls("plan a deployment of", request.template) as connection:
            existing = [domain.name() for domain in connection.listAllDomains(0)]
            pools = {pool.name(): pool for pool in connection.listAllStoragePools(0)}
            is_numbered = len(request.names) > 1 or any("{" in word for word in request.command[-1:])
            checks.check_names(existing, request.names, findings, is_numbered=is_numbered)
            volumes = self._volumes(pools)
            target = checks.read_target(host, pools, request, findings)
            checks.check_resources(host, connection, request, defaults, findings)
            checks.check_machine(connection, self._template, defaults, findings)
            found = create_checks.read_choices(connection, defaults)
            wanted = [checks.read_nic(host, connection, nic, self._template, findings) for nic in request.hardware.nics]
            choices = Choices(
                defaults=defaults,
                firmware=firmware,
                nics=tuple(nic for nic in wanted if nic is not None),
                video_model="virtio" if "virtio" in found.video_models or not found.video_models else "vga",
                libvirt_version=connection.getLibVersion(),
                library=self._library,
                template=self._template,
                settings=self._settings(),
            )
        like = vm_request(request, request.names[0], choices)
        create_checks.check_cpu(like, found, findings)
        create_checks.check_os_id(self._template.os_id, findings)
        if not host.is_simulated:
            create_checks.check_firmware(like, firmware, defaults, findings)
        if defaults.accelerator.is_emulated:
            findings.warnings.append(f"the guests are emulated, 10 to 50 times slower: {defaults.accelerator.reason}")
        checks.check_template(host, self._library, self._template, volumes, findings)
        checks.check_space(request, self._template, target, findings)
        self._check_seed()
        return PlanSet(
            title=_title(request),
            plans=self._plans(target, choices),
            command=request.command,
            preparations=self._preparations(target),
            warnings=tuple(dict.fromkeys(findings.warnings)),
            blockers=(*host_blockers(host), *findings.blockers),
        )

    def _settings(self) -> tuple[str, ...]:
        """What was asked for in place of the profile's values: the VM remembers it, so that it is no drift."""
        hardware, library = self._request.hardware, self._library.pool
        base, _ = deploy_defaults.base_hardware(self._host, self._template, library, hardware.name)
        return departures(base, hardware)

    def _volumes(self, pools: dict[str, Any]) -> Collection[str]:
        pool = pools.get(self._library.pool)
        if pool is None or not pool.isActive():
            reason = f"the {library_words(self._library.pool)} is not active"
            self._findings.block(reason, f"Start it: {self._virsh('pool-start', '--pool', self._library.pool)}")
            return frozenset(image.volume for image in self._template.images)
        return frozenset(pool.listVolumes())

    def _check_seed(self) -> None:
        request, findings = self._request, self._findings
        checks.check_seed(request, self._template, findings)
        if not self._has_seed:
            return
        cloud_init.check_addresses(request.guest.network, len(request.names))
        if not self._removes_seed:
            remedy = "when the guest has read it, take it away with 'hvtui vm unseed NAME'"
            findings.warnings.append(f"the seed, which may hold secrets, stays with the VM: {remedy}")

    @property
    def _waits(self) -> bool:
        return self._request.start and self._request.wait_ready and self._template.readiness is not Readiness.NONE

    @property
    def _removes_seed(self) -> bool:
        return self._has_seed and self._waits

    # Storage

    def _preparations(self, target: Target) -> tuple[Plan, ...]:
        """Make or start the pool of the new disks, if need be."""
        if target.is_active:
            return ()
        name, path = target.name, target.path
        title = f"Start the storage pool {name}"
        commands = [self._virsh("pool-start", "--pool", name)]
        if not target.exists:
            title = f"Make the storage pool {name} in {path}"
            define = self._virsh("pool-define-as", "--name", name, "--type", "dir", "--target", path)
            others = (self._virsh(verb, "--pool", name) for verb in ("pool-build", "pool-start", "pool-autostart"))
            commands = [define, *others]
        args = {"name": name, "uuid": str(uuids.uuid4()), "path": path}
        step = Step("create.pool", title, args, tuple(commands))
        return (Plan(title=title, host_uri=self._host.uri, steps=(step,), command=self._request.command),)

    def _disk_steps(self, vm: _NewVm, target: Target) -> list[tuple[Step, NewDisk]]:
        sizes = checks.disk_bytes(self._request.hardware, self._template)
        images = [image for image in self._template.images if image.role is ImageRole.DISK]
        origins = [*images, *[None] * (len(sizes) - len(images))]
        pairs = zip(origins, sizes, strict=True)
        return [self._disk_step(vm, target, image, size, number) for number, (image, size) in enumerate(pairs, 1)]

    def _disk_step(
        self, vm: _NewVm, target: Target, image: TemplateImage | None, size_bytes: int, number: int
    ) -> tuple[Step, NewDisk]:
        request, kind = self._request, "raw" if target.is_block else FORMAT
        name = vm.stem + (f"-{number}" if number > 1 else "") + ("" if target.is_block else f".{FORMAT}")
        path = f"{target.path}/{name}"
        args: dict[str, Json] = {
            "pool": target.name,
            "name": name,
            "path": path,
            "capacity_bytes": size_bytes,
            "format": kind,
        }
        size = format_bytes(size_bytes)
        if image is None:
            title, more = f"Make a disk of {size}", tuple[str, ...]()
        elif request.linked:
            origin = f"{self._library.path}/{image.volume}"
            args["backing"] = {"path": origin, "format": image.format}
            title, more = f"Link a disk of {size} to {image.volume}", (
                "--backing-vol", origin, "--backing-vol-format", image.format,
            )  # fmt: skip
        else:
            args["source"] = {"pool": self._library.pool, "volume": image.volume, "size_bytes": image.size_bytes}
            step = Step("deploy.disk", f"Copy {image.volume}, as a disk of {size}", args, self._copy_lines(args, image))
            return step, self._new_disk(path, kind, target)
        new = ("--name", name, "--capacity", str(size_bytes), "--format", kind, *more)
        line = self._virsh("vol-create-as", "--pool", target.name, *new)
        return Step("deploy.disk", title, args, (line,)), self._new_disk(path, kind, target)

    def _copy_lines(self, args: dict[str, Json], image: TemplateImage) -> tuple[str, ...]:
        pool, name = str(args["pool"]), str(args["name"])
        origin = ("--vol", image.volume, "--inputpool", self._library.pool)
        lines = [self._virsh("vol-create-from", "--pool", pool, "--file", f"{name}.xml", *origin)]
        if image.virtual_size_bytes != args["capacity_bytes"]:
            size = str(args["capacity_bytes"])
            lines.append(self._virsh("vol-resize", "--pool", pool, "--vol", name, "--capacity", size))
        return tuple(lines)

    def _new_disk(self, path: str, kind: str, target: Target) -> NewDisk:
        return NewDisk(path, kind, "block" if target.is_block else "file", bus=self._disk_bus)

    @property
    def _disk_bus(self) -> str:
        return self._request.hardware.disk_bus or self._template.disk_bus

    # One VM

    def _plans(self, target: Target, choices: Choices) -> tuple[Plan, ...]:
        taken: set[str] = set()
        plans = []
        for index, name in enumerate(self._request.names):
            plans.append(self._plan(_NewVm(name, _new_uuid(taken), index), target, choices))
        return tuple(plans)

    def _plan(self, vm: _NewVm, target: Target, choices: Choices) -> Plan:
        request = self._request
        made = self._disk_steps(vm, target)
        steps, disks = [step for step, _ in made], [disk for _, disk in made]
        if self._has_seed:
            step, drive = self._seed_step(vm, target, choices)
            steps.append(step)
            disks.append(drive)
        xml = deployed_xml(request, vm.name, vm.uuid, disks, choices)
        return Plan(
            title=f"Deploy {vm.name} from {request.template}",
            host_uri=self._host.uri,
            steps=(*steps, *self._vm_steps(vm, target, xml)),
            command=self._command_of(vm),
            vm_uuid=vm.uuid,
            vm_name=vm.name,
            xml_after=xml,
            long=True,
        )

    def _command_of(self, vm: _NewVm) -> tuple[str, ...]:
        """What deploys this one alone, as far as a static address does not depend on its place."""
        from vm.deploy_options import of_one

        return of_one(self._request, vm.name)

    def _seed_pool(self, target: Target) -> tuple[str, str]:
        """The name and the path of a pool that holds files."""
        return (self._library.pool, self._library.path) if target.is_block else (target.name, target.path)

    def _seed_step(self, vm: _NewVm, target: Target, choices: Choices) -> tuple[Step, NewDisk]:
        request, (pool, path) = self._request, self._seed_pool(target)
        macs = [new_mac(vm.uuid, number) for number in range(len(choices.nics))]
        files = cloud_init.seed_files(
            request.guest,
            vm_name=vm.name,
            uuid=vm.uuid,
            macs=macs,
            index=vm.index,
            user_data=request.user_data,
        )
        args: dict[str, Json] = {"pool": pool, "name": vm.seed, "files": secrets.offer(json.dumps(files))}
        make = self._virsh(
            "vol-create-as", "--pool", pool, "--name", vm.seed, "--capacity", str(MIB), "--format", "raw"
        )
        upload = self._virsh("vol-upload", "--pool", pool, "--vol", vm.seed, "--file", vm.seed)
        step = Step("deploy.seed", "Make the seed that tells its guest what to be", args, (make, upload))
        return step, seed_drive(f"{path}/{vm.seed}", self._disk_bus)

    def _vm_steps(self, vm: _NewVm, target: Target, xml: str) -> list[Step]:
        request, uri = self._request, self._host.uri
        identity: dict[str, Json] = {"uuid": vm.uuid, "name": vm.name}
        define = [self._virsh("define", "--file", f"{vm.name}.xml")]
        if request.hardware.autostart:
            define.append(virsh(uri, "autostart", vm.name))
        # Checking the XML against libvirt's schema takes longer than all else: what is right for the first VM of the
        # set is right for the others.
        args = {**identity, "xml": xml, "autostart": request.hardware.autostart, "is_valid": vm.index > 0}
        steps = [Step("create.define", f"Define {vm.name}", args, tuple(define))]
        if request.start:
            steps.append(Step("create.start", f"Start {vm.name}", identity, (virsh(uri, "start", vm.name),)))
        if self._waits:
            ready = {**identity, "readiness": self._template.readiness.value, "timeout_s": request.ready_timeout_s}
            title = f"Wait until its guest is ready, at most {request.ready_timeout_s:.0f} s"
            steps.append(Step("deploy.ready", title, ready))
        if self._removes_seed:
            steps.append(self._unseed_step(vm, target, identity))
        return steps

    def _unseed_step(self, vm: _NewVm, target: Target, identity: dict[str, Json]) -> Step:
        pool, path = self._seed_pool(target)
        seed = f"{path}/{vm.seed}"
        detach = virsh(self._host.uri, "detach-disk", vm.name, "--target", seed, "--persistent")
        delete = self._virsh("vol-delete", "--pool", pool, "--vol", vm.seed)
        args: dict[str, Json] = {**identity, "pool": pool, "volume": vm.seed, "path": seed}
        return Step("deploy.unseed", "Take the seed away and delete it", args, (detach, delete))

    def _virsh(self, *arguments: str) -> str:
        return shlex.join(["virsh", "-c", self._host.uri, *arguments])


def _new_uuid(taken: set[str]) -> str:
    """A uuid of which neither the digits in volumes' names nor those in MAC addresses are another's in the set."""
    while True:
        uuid = str(uuids.uuid4())
        marks = {uuid[:8], uuid[-6:]}
        if taken.isdisjoint(marks):
            taken |= marks
            return uuid


def _title(request: DeployRequest) -> str:
    count = len(request.names)
    kind = "linked" if request.linked else "full"
    what = request.names[0] if count == 1 else f"{count} VMs, {request.names[0]} to {request.names[-1]},"
    return f"Deploy {what} from {request.template} ({kind})"
