"""The simulated host of `hvtui --demo`: its machines, networks and pool as a file for libvirt's test driver.

The file names no path that exists on a real machine. This module makes text only; vm.demo opens it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from xml.etree.ElementTree import Element, SubElement, register_namespace, tostring

from vm.domain_xml import AGENT_CHANNEL, HVTUI_ELEMENT, OSINFO_NAMESPACE, OWNER_ELEMENT, TAG_ELEMENT

IMAGES = "/demo/images"
HOST_MEMORY_BYTES = 384 * 1024**3
HOST_CPUS = 64
_TEST_NAMESPACE = "http://libvirt.org/schemas/domain/test/1.0"
_SNAPSHOT_TIME_S = 1_750_000_000
_RUN_STATES = {"running": 1, "paused": 3, "off": 5, "saved": 5, "crashed": 6}  # virDomainState

register_namespace("test", _TEST_NAMESPACE)


class System(StrEnum):
    """The guests' systems, as libosinfo ids."""

    DEBIAN = "http://debian.org/debian/12"
    UBUNTU = "http://ubuntu.com/ubuntu/24.04"
    ALPINE = "http://alpinelinux.org/alpinelinux/3.20"
    FEDORA = "http://fedoraproject.org/fedora/41"
    FREEBSD = "http://freebsd.org/freebsd/14.1"
    OPENBSD = "http://openbsd.org/openbsd/7.5"
    WINDOWS_SERVER = "http://microsoft.com/win/2k22"
    WINDOWS = "http://microsoft.com/win/11"
    WINDOWS_XP = "http://microsoft.com/win/xp"


@dataclass(frozen=True, slots=True)
class DemoVm:
    """One simulated VM. `busy` is the mean share of its CPUs that it uses while it runs, 0 to 1."""

    name: str
    state: str
    system: System
    vcpus: int
    memory_mib: int
    tags: tuple[str, ...] = ()
    owner: str = ""
    title: str = ""
    description: str = ""
    disks_gib: tuple[int, ...] = (20,)
    networks: tuple[str, ...] = ("lan",)
    busy: float = 0.1
    checkpoints: tuple[str, ...] = ()
    uefi: bool = True
    agent: bool = True
    autostart: bool = False
    cdrom: str = ""

    @property
    def uuid(self) -> str:
        """The same in each run."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://hvtui.org/demo/{self.name}"))

    @property
    def is_windows(self) -> bool:
        return "microsoft" in self.system


DEMO_VMS = (
    DemoVm("web-01", "running", System.DEBIAN, 4, 4096, ("web", "prod"), "alice", "Shop front end", busy=0.42,
           networks=("dmz",), checkpoints=("before-upgrade", "after-upgrade"), autostart=True),
    DemoVm("web-02", "running", System.DEBIAN, 4, 4096, ("web", "prod"), "alice", "Shop front end", busy=0.36,
           networks=("dmz",), autostart=True),
    DemoVm("web-03", "running", System.DEBIAN, 4, 4096, ("web", "prod"), "alice", "Shop front end", busy=0.31,
           networks=("dmz",), autostart=True),
    DemoVm("web-staging", "off", System.DEBIAN, 2, 2048, ("web", "staging"), "alice", "The shop's next version",
           networks=("dmz",), checkpoints=("clean",)),
    DemoVm("proxy", "running", System.ALPINE, 2, 512, ("web", "prod"), "alice", "HAProxy in front of the shop",
           networks=("dmz", "lan"), disks_gib=(2,), busy=0.18, autostart=True),
    DemoVm("db-01", "running", System.DEBIAN, 8, 32768, ("db", "prod"), "bob", "PostgreSQL, primary",
           disks_gib=(20, 400), busy=0.55, checkpoints=("pg16-migration",), autostart=True),
    DemoVm("db-02", "running", System.DEBIAN, 8, 32768, ("db", "prod"), "bob", "PostgreSQL, standby",
           disks_gib=(20, 400), busy=0.16, autostart=True),
    DemoVm("db-reports", "paused", System.DEBIAN, 4, 16384, ("db",), "bob", "PostgreSQL for the reports",
           disks_gib=(20, 200), description="Paused over night: the reports run from 06:00."),
    DemoVm("кеш-01", "running", System.ALPINE, 2, 8192, ("cache", "prod"), "олена", "Redis", disks_gib=(4,),
           busy=0.24, autostart=True),
    DemoVm("数据库-测试", "off", System.DEBIAN, 2, 4096, ("db", "test"), "李雷", "数据库测试环境"),
    DemoVm("mail", "crashed", System.DEBIAN, 2, 4096, ("prod",), "carol", "Postfix and Dovecot",
           description="Kernel panic after the last update; the checkpoint from before it is good.",
           disks_gib=(20, 250), networks=("dmz",), checkpoints=("before-update",), autostart=True),
    DemoVm("dc-01", "running", System.WINDOWS_SERVER, 4, 8192, ("windows", "prod"), "dora",
           "Domain controller", disks_gib=(80,), busy=0.07, autostart=True),
    DemoVm("dc-02", "running", System.WINDOWS_SERVER, 4, 8192, ("windows", "prod"), "dora",
           "Domain controller", disks_gib=(80,), busy=0.06, autostart=True),
    DemoVm("erp", "running", System.WINDOWS_SERVER, 8, 24576, ("windows", "prod"), "dora", "Accounting",
           disks_gib=(100, 300), busy=0.33, checkpoints=("year-end",), autostart=True),
    DemoVm("Büro-Druck", "running", System.WINDOWS_SERVER, 2, 4096, ("windows",), "dora", "Druckserver",
           disks_gib=(60,), busy=0.04),
    DemoVm("win11-helpdesk", "saved", System.WINDOWS, 4, 8192, ("windows", "desktop"), "erik", disks_gib=(64,),
           networks=("clients",)),
    DemoVm("win11-training", "off", System.WINDOWS, 4, 8192, ("windows", "desktop"), "erik", disks_gib=(64,),
           networks=("clients",), checkpoints=("monday", "wednesday", "exam")),
    DemoVm("legacy-till", "running", System.WINDOWS_XP, 1, 1024, ("windows", "legacy"), "dora",
           "Old till, until 2027", disks_gib=(10,), networks=("isolated",), uefi=False, agent=False, busy=0.09),
    DemoVm("fw-edge", "running", System.OPENBSD, 2, 1024, ("network", "prod"), "frank", "Packet filter",
           disks_gib=(8,), networks=("wan", "dmz", "lan"), agent=False, busy=0.12, autostart=True),
    DemoVm("nas", "running", System.FREEBSD, 4, 16384, ("storage", "prod"), "frank", "ZFS over four disks",
           disks_gib=(16, 2000, 2000, 2000, 2000), busy=0.21, autostart=True),
    DemoVm("backup", "running", System.FREEBSD, 2, 8192, ("storage",), "frank", "Backups of everything",
           disks_gib=(16, 4000), busy=0.48, autostart=True),
    DemoVm("monitoring", "running", System.DEBIAN, 4, 8192, ("infra", "prod"), "frank", "Prometheus and Grafana",
           disks_gib=(20, 120), busy=0.19, autostart=True),
    DemoVm("git", "running", System.DEBIAN, 4, 8192, ("infra", "dev"), "grace", "Forgejo", disks_gib=(20, 80),
           busy=0.11, checkpoints=("v9",), autostart=True),
    DemoVm("build-01", "running", System.FEDORA, 16, 32768, ("build", "dev"), "grace", "Runner",
           disks_gib=(100,), busy=0.86),
    DemoVm("build-02", "running", System.UBUNTU, 16, 32768, ("build", "dev"), "grace", "Runner",
           disks_gib=(100,), busy=0.71),
    DemoVm("build-03", "off", System.ALPINE, 8, 16384, ("build", "dev"), "grace", "Runner", disks_gib=(60,)),
    DemoVm("αρχείο", "saved", System.DEBIAN, 2, 4096, ("storage",), "ελένη", "Αρχείο εγγράφων",
           disks_gib=(20, 500)),
    DemoVm("new-server", "off", System.UBUNTU, 2, 4096, (), "heidi", "To be installed",
           cdrom=f"{IMAGES}/ubuntu-24.04-live-server-amd64.iso"),
    DemoVm("template-debian-12", "off", System.DEBIAN, 2, 2048, ("template",), "grace", "Debian 12, sealed",
           checkpoints=("sealed",)),
    DemoVm("try-kernel", "paused", System.FEDORA, 2, 2048, ("dev",), "heidi", "Stopped in the debugger"),
)  # fmt: skip


def world() -> str:
    """The test driver's file: a host of two sockets with 64 CPUs and 384 GiB, its networks, its pool, its VMs."""
    node = Element("node")
    for vm in DEMO_VMS:
        node.append(_domain(vm))
    for index, name in enumerate(("wan", "lan", "dmz", "clients", "isolated", "default")):
        _network(node, name, index)
    _pool(node)
    cpu = SubElement(node, "cpu")
    for name, value in (("mhz", 2900), ("model", "x86_64"), ("nodes", 2), ("sockets", 1), ("cores", 16)):
        SubElement(cpu, name).text = str(value)
    SubElement(cpu, "threads").text = "2"
    SubElement(cpu, "active").text = str(HOST_CPUS)
    SubElement(node, "memory").text = str(HOST_MEMORY_BYTES // 1024)
    return tostring(node, encoding="unicode")


def _domain(vm: DemoVm) -> Element:
    domain = _basics(vm)
    SubElement(domain, f"{{{_TEST_NAMESPACE}}}runstate").text = str(_RUN_STATES[vm.state])
    if vm.state == "saved":
        SubElement(domain, f"{{{_TEST_NAMESPACE}}}hasmanagedsave")
    for age, name in enumerate(vm.checkpoints):
        is_newest = age == len(vm.checkpoints) - 1
        domain.append(_checkpoint(vm, name, age=age, is_newest=is_newest))
    return domain


def _basics(vm: DemoVm) -> Element:
    domain = Element("domain", type="test")
    SubElement(domain, "name").text = vm.name
    SubElement(domain, "uuid").text = vm.uuid
    for tag, text in (("title", vm.title), ("description", vm.description)):
        if text:
            SubElement(domain, tag).text = text
    _metadata(domain, vm)
    SubElement(domain, "memory", unit="MiB").text = str(vm.memory_mib)
    SubElement(domain, "vcpu").text = str(vm.vcpus)
    os_element = SubElement(domain, "os", {"firmware": "efi"} if vm.uefi else {})
    machine = "pc-q35-9.2" if vm.uefi else "pc-i440fx-6.2"
    SubElement(os_element, "type", arch="x86_64", machine=machine).text = "hvm"
    SubElement(domain, "cpu", mode="host-model")
    _devices(SubElement(domain, "devices"), vm)
    return domain


def _metadata(domain: Element, vm: DemoVm) -> None:
    metadata = SubElement(domain, "metadata")
    own = SubElement(metadata, HVTUI_ELEMENT)
    for tag in vm.tags:
        SubElement(own, TAG_ELEMENT).text = tag
    if vm.owner:
        SubElement(own, OWNER_ELEMENT).text = vm.owner
    libosinfo = SubElement(metadata, f"{{{OSINFO_NAMESPACE}}}libosinfo")
    SubElement(libosinfo, f"{{{OSINFO_NAMESPACE}}}os", id=vm.system.value)


def _devices(devices: Element, vm: DemoVm) -> None:
    bus = "virtio" if vm.uefi else "ide"
    for index in range(len(vm.disks_gib)):
        letter = "abcdefgh"[index]
        file = f"{vm.name}.qcow2" if index == 0 else f"{vm.name}-data{index}.qcow2"
        _disk(devices, "disk", f"{IMAGES}/{file}", f"{'vd' if vm.uefi else 'hd'}{letter}", bus)
    if vm.cdrom:
        _disk(devices, "cdrom", vm.cdrom, "sda", "sata")
    for index, network in enumerate(vm.networks):
        nic = SubElement(devices, "interface", type="network")
        SubElement(nic, "mac", address=_mac(vm, index))
        SubElement(nic, "source", network=network)
        SubElement(nic, "model", type="virtio" if vm.uefi else "rtl8139")
    SubElement(SubElement(devices, "console", type="pty"), "target", type="serial", port="0")
    if vm.agent:
        channel = SubElement(devices, "channel", type="unix")
        SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
    graphics = SubElement(devices, "graphics", type="vnc", autoport="yes")
    SubElement(graphics, "listen", type="address", address="127.0.0.1")
    SubElement(devices, "memballoon", model="virtio")
    if vm.uefi:
        rng = SubElement(devices, "rng", model="virtio")
        SubElement(rng, "backend", model="random").text = "/dev/urandom"
    if vm.is_windows and vm.uefi:
        SubElement(SubElement(devices, "tpm", model="tpm-crb"), "backend", type="emulator", version="2.0")


def _disk(devices: Element, device: str, path: str, target: str, bus: str) -> None:
    disk = SubElement(devices, "disk", type="file", device=device)
    SubElement(disk, "driver", name="qemu", type="qcow2" if path.endswith(".qcow2") else "raw")
    SubElement(disk, "source", file=path)
    SubElement(disk, "target", dev=target, bus=bus)
    if device == "cdrom":
        SubElement(disk, "readonly")


def _mac(vm: DemoVm, index: int) -> str:
    digits = uuid.uuid5(uuid.NAMESPACE_URL, f"{vm.uuid}/{index}").hex
    return f"52:54:00:{digits[0:2]}:{digits[2:4]}:{digits[4:6]}"


def _checkpoint(vm: DemoVm, name: str, *, age: int, is_newest: bool) -> Element:
    checkpoint = Element(f"{{{_TEST_NAMESPACE}}}domainsnapshot")
    SubElement(checkpoint, "name").text = name
    if age:
        SubElement(SubElement(checkpoint, "parent"), "name").text = vm.checkpoints[age - 1]
    SubElement(checkpoint, "creationTime").text = str(_SNAPSHOT_TIME_S + 86_400 * age)
    SubElement(checkpoint, "state").text = "shutoff"
    checkpoint.append(_basics(vm))
    SubElement(checkpoint, "active").text = "1" if is_newest else "0"
    return checkpoint


def _network(node: Element, name: str, index: int) -> None:
    network = SubElement(node, "network")
    SubElement(network, "name").text = name
    if name != "isolated":
        SubElement(network, "forward", mode="nat")
    SubElement(network, "bridge", name=f"virbr{index}")
    # 198.51.100.0/24 is for documentation (RFC 5737), cut into subnets of 32 addresses.
    SubElement(network, "ip", address=f"198.51.100.{index * 32 + 1}", netmask="255.255.255.224")


def _pool(node: Element) -> None:
    pool = SubElement(node, "pool", type="dir")
    SubElement(pool, "name").text = "default"
    SubElement(SubElement(pool, "target"), "path").text = IMAGES
    for file, gib in _volumes():
        volume = SubElement(pool, "volume", type="file")
        SubElement(volume, "name").text = file
        SubElement(volume, "capacity", unit="GiB").text = str(gib)
        SubElement(volume, "allocation", unit="MiB").text = str(
            min(gib * 60, 1800)
        )  # thin; the driver's pool has 100 GiB
        target = SubElement(volume, "target")
        SubElement(target, "path").text = f"{IMAGES}/{file}"
        SubElement(target, "format", type="raw" if file.endswith(".iso") else "qcow2")


def _volumes() -> Sequence[tuple[str, int]]:
    volumes = []
    for vm in DEMO_VMS:
        for index, gib in enumerate(vm.disks_gib):
            volumes.append((f"{vm.name}.qcow2" if index == 0 else f"{vm.name}-data{index}.qcow2", gib))
        if vm.cdrom:
            volumes.append((vm.cdrom.rpartition("/")[2], 3))
    return volumes
