"""The domain XML of a new virtual machine: a modern PC with virtio everywhere. A pure function; it asks no host.

What is chosen, and why: docs/architecture.md of libvirt's formatdomain and the machine q35, the only one of the two
common PC types with PCI Express, Secure Boot and an emulated IOMMU. Spare root ports are there because q35 can only
take new devices while it runs where a port is free.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from xml.etree.ElementTree import Element, SubElement, indent

from host.facts import GuestDefaults
from host.units import KIB
from vm import domain_xml
from vm.create_request import CreateRequest, Firmware, Graphics, SourceKind
from vm.profile_model import Topology
from vm.template_mark import TemplateMark, set_template

SPARE_ROOT_PORTS = 6
STATISTICS_PERIOD_S = 5
ITCO_SINCE = 9_001_000  # libvirt 9.1.0 knows q35's own watchdog
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
CPU_MODES = ("host-model", "host-passthrough", "maximum")


@dataclass(frozen=True, slots=True)
class NewDisk:
    """A disk of the new VM. `source_type` is file or block; `format` qcow2, raw, …; `bus` virtio, scsi or sata, which a
    CD drive always has. A read-only one is never booted from."""

    path: str
    format: str
    source_type: str = "file"
    is_cdrom: bool = False
    bus: str = "virtio"
    is_read_only: bool = False


@dataclass(frozen=True, slots=True)
class DirectBoot:
    """A kernel that the hypervisor loads itself."""

    kernel: str
    initrd: str
    arguments: str


@dataclass(frozen=True, slots=True)
class NewNic:
    """`kind` is network, bridge or user; `source` the network's or the bridge's name."""

    kind: str
    source: str = ""
    model: str = "virtio"


@dataclass(frozen=True, slots=True)
class Hardware:
    """What vm.create found out before it asks for the XML."""

    uuid: str
    firmware: Firmware  # AUTO is resolved
    disks: tuple[NewDisk, ...] = ()
    boot: DirectBoot | None = None
    nics: tuple[NewNic, ...] = ()
    video_model: str = "virtio"
    libvirt_version: int = 0
    topology: Topology | None = None
    memory_maximum_bytes: int = 0  # what the guest can be given later; 0: no more than it starts with
    template: TemplateMark | None = None


def new_domain_xml(request: CreateRequest, defaults: GuestDefaults, hardware: Hardware) -> str:
    """The XML that defines the VM of `request`. Raises UsageError for a tag that is not valid."""
    root = Element("domain", type=defaults.virtualization)
    _add(root, "name", request.name)
    _add(root, "uuid", hardware.uuid)
    _add_identity(root, request, hardware.template)
    _add(root, "memory", str(max(request.memory_bytes, hardware.memory_maximum_bytes) // KIB), unit="KiB")
    _add(root, "currentMemory", str(request.memory_bytes // KIB), unit="KiB")
    _add(root, "vcpu", str(request.vcpus), placement="static")
    _add_os(root, defaults, hardware)
    _add_features(root, defaults, hardware)
    _add_cpu(root, request, defaults, hardware.topology)
    _add_clock(root, is_pc=_is_pc(defaults))
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _add(root, event, action)
    if _is_pc(defaults):
        power = _add(root, "pm")
        _add(power, "suspend-to-mem", enabled="no")
        _add(power, "suspend-to-disk", enabled="no")
    _add_devices(root, request, defaults, hardware)
    indent(root)
    return domain_xml.to_text(root) + "\n"


def new_mac(uuid: str, index: int = 0) -> str:
    """A MAC address in QEMU's range that follows from the VM's uuid and the card's number, so that defining twice gives
    the same one."""
    digits = uuid.replace("-", "")[-6:] if index == 0 else sha256(f"{uuid} {index}".encode()).hexdigest()[:6]
    return "52:54:00:" + ":".join(digits[place : place + 2] for place in (0, 2, 4))


def _add(parent: Element, tag: str, text: str = "", /, **attributes: str) -> Element:
    child = SubElement(parent, tag, {name.rstrip("_"): value for name, value in attributes.items() if value})
    child.text = text or None
    return child


def _is_pc(defaults: GuestDefaults) -> bool:
    return defaults.virtualization != "test" and defaults.architecture in {"x86_64", "i686"}


def _add_identity(root: Element, request: CreateRequest, template: TemplateMark | None) -> None:
    if request.os_id:
        namespace = f"{{{domain_xml.OSINFO_NAMESPACE}}}"
        metadata = SubElement(root, "metadata")
        SubElement(SubElement(metadata, f"{namespace}libosinfo"), f"{namespace}os", id=request.os_id)
    domain_xml.set_tags(root, request.tags)
    domain_xml.set_owner(root, request.owner)
    if template is not None:
        set_template(root, template)
    domain_xml.set_text(root, "title", request.title)
    domain_xml.set_text(root, "description", request.description)


def _add_os(root: Element, defaults: GuestDefaults, hardware: Hardware) -> None:
    uefi = hardware.firmware in {Firmware.UEFI, Firmware.UEFI_SECURE}
    os_element = _add(root, "os", firmware="efi" if uefi else "")
    _add(os_element, "type", "hvm", arch=defaults.architecture, machine=defaults.machine)
    if uefi and _is_pc(defaults):
        secure = "yes" if hardware.firmware is Firmware.UEFI_SECURE else "no"
        firmware = _add(os_element, "firmware")
        _add(firmware, "feature", enabled=secure, name="secure-boot")
        _add(firmware, "feature", enabled=secure, name="enrolled-keys")
    if hardware.boot is not None:
        _add(os_element, "kernel", hardware.boot.kernel)
        if hardware.boot.initrd:
            _add(os_element, "initrd", hardware.boot.initrd)
        if hardware.boot.arguments:
            _add(os_element, "cmdline", hardware.boot.arguments)


def _add_features(root: Element, defaults: GuestDefaults, hardware: Hardware) -> None:
    features = _add(root, "features")
    _add(features, "acpi")
    if _is_pc(defaults):
        _add(features, "apic")
        _add(features, "vmport", state="off")  # VMware's back door serves no guest of QEMU
        if hardware.firmware is Firmware.UEFI_SECURE:
            _add(features, "smm", state="on")


def _add_cpu(root: Element, request: CreateRequest, defaults: GuestDefaults, topology: Topology | None) -> None:
    wanted = defaults.cpu_mode if request.cpu_mode == "auto" else request.cpu_mode
    if not wanted and topology is None:
        return
    if not wanted or wanted in CPU_MODES:
        cpu = _add(root, "cpu", mode=wanted)
    else:
        cpu = _add(root, "cpu", mode="custom", match="exact")
        _add(cpu, "model", wanted, fallback="forbid")
    if topology is not None:
        counts = {name: str(getattr(topology, name)) for name in ("sockets", "cores", "threads")}
        _add(cpu, "topology", **counts)


def _add_clock(root: Element, *, is_pc: bool) -> None:
    clock = _add(root, "clock", offset="utc")
    if is_pc:
        _add(clock, "timer", name="rtc", tickpolicy="catchup")
        _add(clock, "timer", name="pit", tickpolicy="delay")
        _add(clock, "timer", name="hpet", present="no")  # it costs CPU and gives a guest nothing that kvmclock lacks


def _add_devices(root: Element, request: CreateRequest, defaults: GuestDefaults, hardware: Hardware) -> None:
    devices = _add(root, "devices")
    if defaults.emulator:
        _add(devices, "emulator", defaults.emulator)
    letters = {"vd": iter(_LETTERS), "sd": iter(_LETTERS)}
    for order, disk in enumerate(hardware.disks, start=1):
        prefix = "vd" if _bus(disk) == "virtio" else "sd"
        boots = hardware.boot is None and not disk.is_read_only
        _add_disk(devices, disk, order=order if boots else 0, name=prefix + next(letters[prefix]))
    if any(_bus(disk) == "scsi" for disk in hardware.disks):
        _add(devices, "controller", type="scsi", model="virtio-scsi")
    for index, nic in enumerate(hardware.nics):
        _add_nic(devices, nic, mac=new_mac(hardware.uuid, index))
    _add_consoles(devices)
    _add_rng_and_balloon(devices)
    if request.graphics is not Graphics.NONE:
        _add_screen(devices, request, hardware)
    else:
        _add(_add(devices, "video"), "model", type="none")
    if request.tpm:
        model = "tpm-crb" if "tpm-crb" in defaults.tpm_models else next(iter(defaults.tpm_models), "tpm-tis")
        _add(_add(devices, "tpm", model=model), "backend", type="emulator", version="2.0")
    has_usb = request.graphics is not Graphics.NONE and request.source is not SourceKind.TINY
    if _is_pc(defaults):
        _add(devices, "panic", model="isa")
        if hardware.libvirt_version >= ITCO_SINCE and "q35" in defaults.machine:
            _add(devices, "watchdog", model="itco", action="reset")
    if defaults.virtualization != "test":
        _add_usb(devices, has_usb=has_usb)
        if not _is_conventional(defaults):
            _add_root_ports(devices)


def _bus(disk: NewDisk) -> str:
    return "sata" if disk.is_cdrom else disk.bus


def _add_disk(devices: Element, disk: NewDisk, *, order: int, name: str) -> None:
    element = _add(devices, "disk", type=disk.source_type, device="cdrom" if disk.is_cdrom else "disk")
    discard = "" if disk.is_cdrom or disk.is_read_only else "unmap"
    _add(element, "driver", name="qemu", type=disk.format, discard=discard)
    SubElement(element, "source", {"dev" if disk.source_type == "block" else "file": disk.path})
    _add(element, "target", dev=name, bus=_bus(disk))
    if disk.is_cdrom or disk.is_read_only:
        _add(element, "readonly")
    if order:
        _add(element, "boot", order=str(order))


def _add_nic(devices: Element, nic: NewNic, *, mac: str) -> None:
    element = _add(devices, "interface", type=nic.kind)
    _add(element, "mac", address=mac)
    if nic.kind != "user":
        SubElement(element, "source", {nic.kind: nic.source})
    _add(element, "model", type=nic.model)


def _add_consoles(devices: Element) -> None:
    _add(_add(devices, "serial", type="pty"), "target", port="0")
    _add(_add(devices, "console", type="pty"), "target", type="serial", port="0")
    channel = _add(devices, "channel", type="unix")
    _add(channel, "target", type="virtio", name=domain_xml.AGENT_CHANNEL)


def _add_rng_and_balloon(devices: Element) -> None:
    _add(_add(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")
    balloon = _add(devices, "memballoon", model="virtio", freePageReporting="on")
    _add(balloon, "stats", period=str(STATISTICS_PERIOD_S))


def _add_screen(devices: Element, request: CreateRequest, hardware: Hardware) -> None:
    if request.graphics is Graphics.SOCKET:
        _add(_add(devices, "graphics", type="vnc"), "listen", type="socket")
    else:
        vnc = _add(devices, "graphics", type="vnc", port="-1", autoport="yes", listen="127.0.0.1")
        _add(vnc, "listen", type="address", address="127.0.0.1")
    _add(_add(devices, "video"), "model", type=hardware.video_model)


def _is_conventional(defaults: GuestDefaults) -> bool:
    """True for the PC of 1996, which has a PCI bus and no root ports."""
    return defaults.machine == "pc" or "i440fx" in defaults.machine


def _add_usb(devices: Element, *, has_usb: bool) -> None:
    if has_usb:
        _add(devices, "controller", type="usb", model="qemu-xhci")
        _add(devices, "input", type="tablet", bus="usb")
    else:
        _add(devices, "controller", type="usb", model="none")


def _add_root_ports(devices: Element) -> None:
    _add(devices, "controller", type="pci", index="0", model="pcie-root")
    on_ports = sum(_takes_port(device) for device in devices)
    for _ in range(on_ports + SPARE_ROOT_PORTS):
        _add(devices, "controller", type="pci", model="pcie-root-port")


def _takes_port(device: Element) -> bool:
    """True for what libvirt puts behind a root port of its own on q35 and virt."""
    if device.tag == "disk":
        target = device.find("target")
        return target is not None and target.get("bus") == "virtio"
    if device.tag == "controller":
        return device.get("model") in {"qemu-xhci", "virtio-scsi"}
    return device.tag in {"interface", "channel", "rng", "memballoon"}
