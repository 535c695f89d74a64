from __future__ import annotations

from dataclasses import replace

import libvirt
import pytest

from host.accelerator import Accelerator, AcceleratorKind
from host.errors import UsageError
from host.facts import GuestDefaults
from vm import domain_xml
from vm.create_request import CreateRequest, Firmware, Graphics, SourceKind, tiny_request
from vm.new_domain_xml import SPARE_ROOT_PORTS, DirectBoot, Hardware, NewDisk, NewNic, new_domain_xml, new_mac

UUID = "0b8f7a3e-0000-4000-8000-0000000abcde"
KVM = GuestDefaults(
    accelerator=Accelerator(AcceleratorKind.KVM, "announced"),
    architecture="x86_64",
    emulator="/usr/bin/qemu-system-x86_64",
    machine="pc-q35-7.2",
    cpu_mode="host-model",
    firmware=("bios", "uefi"),
    secure_boot=True,
    tpm_models=("tpm-tis", "tpm-crb"),
    vcpus_max=288,
)
TEST = replace(
    KVM,
    accelerator=Accelerator(AcceleratorKind.TEST, "simulated"),
    architecture="i686",
    emulator="",
    machine="",
    cpu_mode="",
    firmware=(),
    tpm_models=(),
)
BIOS = Hardware(UUID, Firmware.BIOS)


EMPTY = CreateRequest("web", source=SourceKind.EMPTY)


def xml_of(request=EMPTY, defaults=KVM, hardware=BIOS):
    return domain_xml.parse(new_domain_xml(request, defaults, hardware))


def test_a_new_vm_is_a_modern_pc_with_virtio_and_room_for_more():
    disks = (NewDisk("/images/web.qcow2", "qcow2"), NewDisk("/iso/d.iso", "raw", is_cdrom=True))
    root = xml_of(hardware=replace(BIOS, disks=disks, nics=(NewNic("network", "default"),), libvirt_version=9_001_000))
    assert root.get("type") == "kvm"
    assert root.find("os/type").get("machine") == "pc-q35-7.2"
    assert root.find("cpu").get("mode") == "host-model"
    disk, drive = root.findall("devices/disk")
    assert (disk.find("target").get("bus"), disk.find("driver").get("discard")) == ("virtio", "unmap")
    assert (drive.find("target").get("dev"), drive.find("readonly") is not None) == ("sda", True)
    assert [boot.get("order") for boot in root.findall("devices/disk/boot")] == ["1", "2"]
    assert root.find("devices/interface/model").get("type") == "virtio"
    assert root.find("devices/interface/source").get("network") == "default"
    assert root.find("devices/channel/target").get("name") == "org.qemu.guest_agent.0"
    assert root.find("devices/rng").get("model") == "virtio"
    assert root.find("devices/memballoon").get("freePageReporting") == "on"
    assert root.find("devices/memballoon/stats").get("period") == "5"
    assert root.find("devices/graphics/listen").get("type") == "socket"
    assert root.find("devices/console/target").get("type") == "serial"
    assert root.find("devices/watchdog").get("model") == "itco"
    assert root.find("devices/panic").get("model") == "isa"
    on_ports = 6  # disk, NIC, agent channel, rng, balloon, USB
    assert len(root.findall("devices/controller[@model='pcie-root-port']")) == on_ports + SPARE_ROOT_PORTS


def test_an_old_libvirt_gets_no_watchdog_that_it_does_not_know():
    assert xml_of(hardware=replace(BIOS, libvirt_version=9_000_000)).find("devices/watchdog") is None


@pytest.mark.parametrize(
    ("firmware", "secure"), [(Firmware.UEFI, "no"), (Firmware.UEFI_SECURE, "yes")], ids=lambda value: str(value)
)
def test_uefi_says_whether_secure_boot_is_wanted(firmware, secure):
    root = xml_of(CreateRequest("web", tpm=True), hardware=replace(BIOS, firmware=firmware))
    assert root.find("os").get("firmware") == "efi"
    features = {each.get("name"): each.get("enabled") for each in root.findall("os/firmware/feature")}
    assert features == {"secure-boot": secure, "enrolled-keys": secure}
    assert (root.find("features/smm") is not None) == (secure == "yes")
    assert root.find("devices/tpm").get("model") == "tpm-crb"


def test_a_tpm_without_a_known_model_is_the_older_interface():
    root = xml_of(CreateRequest("web", tpm=True), defaults=replace(KVM, tpm_models=()))
    assert root.find("devices/tpm").get("model") == "tpm-tis"


def test_a_kernel_is_booted_directly_and_no_disk_has_a_boot_order():
    boot = DirectBoot("/k", "/i", "console=ttyS0 <&>")
    root = xml_of(hardware=replace(BIOS, boot=boot, disks=(NewDisk("/dev/vg/web", "raw", "block"),)))
    assert [root.findtext(f"os/{tag}") for tag in ("kernel", "initrd", "cmdline")] == ["/k", "/i", "console=ttyS0 <&>"]
    assert root.find("devices/disk/boot") is None
    assert root.find("devices/disk/source").get("dev") == "/dev/vg/web"


def test_a_bare_kernel_has_neither_initrd_nor_arguments():
    root = xml_of(hardware=replace(BIOS, boot=DirectBoot("/k", "", "")))
    assert root.find("os/initrd") is None
    assert root.find("os/cmdline") is None


@pytest.mark.parametrize(("mode", "element"), [("maximum", "maximum"), ("EPYC", "custom")])
def test_a_chosen_cpu_is_taken_as_mode_or_model(mode, element):
    cpu = xml_of(CreateRequest("web", cpu_mode=mode)).find("cpu")
    assert cpu.get("mode") == element
    assert cpu.findtext("model") == (None if mode == element else mode)


def test_without_a_screen_there_is_no_usb_and_no_video():
    root = xml_of(CreateRequest("web", graphics=Graphics.NONE))
    assert root.find("devices/graphics") is None
    assert root.find("devices/video/model").get("type") == "none"
    assert root.find("devices/controller[@type='usb']").get("model") == "none"


def test_a_screen_on_loopback_listens_nowhere_else():
    root = xml_of(CreateRequest("web", graphics=Graphics.LOOPBACK))
    assert root.find("devices/graphics").get("listen") == "127.0.0.1"
    assert root.find("devices/graphics/listen").get("address") == "127.0.0.1"


def test_the_tiny_guest_does_without_usb():
    assert xml_of(tiny_request("t")).find("devices/controller[@type='usb']").get("model") == "none"


@pytest.mark.parametrize("nic", [NewNic("bridge", "br0"), NewNic("user")], ids=lambda nic: nic.kind)
def test_a_bridge_has_a_source_and_user_networking_none(nic):
    element = xml_of(hardware=replace(BIOS, nics=(nic,))).find("devices/interface")
    assert element.get("type") == nic.kind
    source = element.find("source")
    assert (None if source is None else source.get("bridge")) == (nic.source or None)


def test_the_mac_address_follows_from_the_uuid():
    assert new_mac(UUID) == "52:54:00:0a:bc:de"


def test_what_people_wrote_is_kept_as_text_not_as_markup():
    hostile = "<b>&\"']]> \u202e 日本"
    request = CreateRequest(
        "a<b>&c", title=hostile, description=hostile + "\nnext", tags=("web",), owner=hostile, os_id="http://d/12"
    )
    text = new_domain_xml(request, KVM, BIOS)
    config = domain_xml.read_config(text)
    assert (config.title, config.owner, config.description) == (hostile, hostile.strip(), hostile + "\nnext")
    assert (config.tags, config.os_id) == (("web",), "http://d/12")
    assert domain_xml.parse(text).findtext("name") == "a<b>&c"


def test_a_bad_tag_is_refused():
    with pytest.raises(UsageError):
        new_domain_xml(CreateRequest("web", tags=("no spaces",)), KVM, BIOS)


@pytest.mark.parametrize("source", list(SourceKind))
@pytest.mark.parametrize("graphics", list(Graphics))
def test_the_simulated_driver_takes_every_kind(source, graphics, simulated_uri):
    request = CreateRequest("made", source=source, graphics=graphics, tpm=True, tags=("a",), owner="o")
    disks = (NewDisk("/images/a.qcow2", "qcow2"), NewDisk("/b.iso", "raw", is_cdrom=True))
    hardware = replace(BIOS, disks=disks, nics=(NewNic("network", "default"),), boot=DirectBoot("/k", "/i", "quiet"))
    connection = libvirt.open(simulated_uri)  # test:///default is one world for all who have it open
    domain = connection.defineXMLFlags(new_domain_xml(request, TEST, hardware), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    domain.create()
    assert domain.isActive()
    connection.close()
