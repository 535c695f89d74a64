"""The domain XML of a deployed VM: a template and a hardware profile as what vm.new_domain_xml takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from host.facts import GuestDefaults
from vm.create_request import CreateRequest, Firmware, SourceKind
from vm.deploy_request import DeployRequest
from vm.new_domain_xml import DirectBoot, Hardware, NewDisk, NewNic, new_domain_xml
from vm.template_mark import TemplateMark
from vm.template_model import ImageRole, Library, Template

NAME_FIELD = "{name}"  # in a template's kernel arguments: the VM's name, where it can be a host name
LONGEST_HOST_NAME = 63


@dataclass(frozen=True, slots=True)
class Choices:
    """What vm.deploy found out once for the whole set."""

    defaults: GuestDefaults  # with the profile's machine type
    firmware: Firmware  # AUTO is resolved
    nics: tuple[NewNic, ...]
    video_model: str
    libvirt_version: int
    library: Library
    template: Template
    settings: tuple[str, ...] = ()  # in what the hardware departs from the profile (vm.profile_overrides)


def vm_request(request: DeployRequest, name: str, choices: Choices) -> CreateRequest:
    """What vm.create would be asked for, were the VM made without a template."""
    hardware, template = request.hardware, choices.template
    has_disk = template.image(ImageRole.DISK) is not None
    return CreateRequest(
        name=name,
        source=SourceKind.IMAGE if has_disk else SourceKind.TINY,
        vcpus=hardware.vcpus,
        memory_bytes=hardware.memory_bytes,
        firmware=choices.firmware,
        tpm=hardware.tpm,
        cpu_mode=hardware.cpu_mode,
        graphics=hardware.graphics,
        os_id=template.os_id,
        title=request.title,
        tags=tuple(dict.fromkeys((*template.tags, *request.tags))),
        owner=request.owner,
        autostart=hardware.autostart,
        start=request.start,
    )


def deployed_xml(request: DeployRequest, name: str, uuid: str, disks: Sequence[NewDisk], choices: Choices) -> str:
    """The XML that defines the VM `name`; `disks` are its disks, and the drive of its seed as the last."""
    hardware = request.hardware
    parts = Hardware(
        uuid=uuid,
        firmware=choices.firmware,
        disks=tuple(disks),
        boot=direct_boot(choices.library, choices.template, name),
        nics=choices.nics,
        video_model=choices.video_model,
        libvirt_version=choices.libvirt_version,
        topology=hardware.topology,
        memory_maximum_bytes=hardware.memory_maximum_bytes,
        template=mark(request, choices),
    )
    return new_domain_xml(vm_request(request, name, choices), choices.defaults, parts)


def mark(request: DeployRequest, choices: Choices) -> TemplateMark:
    """What the VM's metadata say of where it came from."""
    hardware, template = request.hardware, choices.template
    return TemplateMark(
        name=template.name,
        revision=template.revision,
        library=choices.library.pool,
        linked=request.linked and template.image(ImageRole.DISK) is not None,
        hardware_profile=hardware.name,
        guest_profile=request.guest.name,
        memory_minimum_bytes=hardware.memory_minimum_bytes,
        memory_maximum_bytes=hardware.memory_maximum_bytes,
        settings=choices.settings,
    )


def direct_boot(library: Library, template: Template, name: str) -> DirectBoot | None:
    """The kernel that the hypervisor loads itself, from the library; None for a template that boots from its disk."""
    kernel, initrd = template.image(ImageRole.KERNEL), template.image(ImageRole.INITRD)
    if kernel is None:
        return None
    initrd_path = f"{library.path}/{initrd.volume}" if initrd is not None else ""
    arguments = kernel_arguments(template.kernel_arguments, name)
    return DirectBoot(f"{library.path}/{kernel.volume}", initrd_path, arguments)


def kernel_arguments(arguments: str, name: str) -> str:
    """The template's arguments with the VM's name in them; an argument that would hold what is no host name is left
    out, since a space in a name would begin another argument."""
    words = arguments.split(" ")
    is_host_name = name.isascii() and name.replace("-", "").isalnum() and len(name) <= LONGEST_HOST_NAME
    kept = [word for word in words if is_host_name or NAME_FIELD not in word]
    return " ".join(word.replace(NAME_FIELD, name) for word in kept)


def with_machine(defaults: GuestDefaults, machine: str) -> GuestDefaults:
    """The host's defaults with the profile's machine type, if it names one."""
    return replace(defaults, machine=machine) if machine else defaults


def seed_drive(path: str, bus: str) -> NewDisk:
    """The drive that the seed is in. A disk can be taken out of a running VM where a CD on SATA cannot, and the kernels
    made for clouds know no SATA; a guest that boots from SATA may know nothing else."""
    if bus == "sata":
        return NewDisk(path, "raw", is_cdrom=True)
    return NewDisk(path, "raw", bus=bus, is_read_only=True)
