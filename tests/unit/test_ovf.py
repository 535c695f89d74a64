"""Descriptors of appliances, as VMware and VirtualBox write them."""

from __future__ import annotations

import pytest

from host.errors import UsageError
from vm import ovf
from vm.create_request import Firmware

ENVELOPE = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vbox="http://www.virtualbox.org/ovf/machine">
  <References>
    <File ovf:href="web-disk2.vmdk" ovf:id="file2"/><File ovf:href="web-disk1.vmdk" ovf:id="file1" ovf:size="9"/>
  </References>
  <DiskSection><Info>disks</Info>
    <Disk ovf:capacity="16" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk1" ovf:fileRef="file1"/>
    <Disk ovf:capacity="1073741824" ovf:diskId="vmdisk2" ovf:fileRef="file2"/>
    <Disk ovf:capacity="5" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="empty"/>
  </DiskSection>
  <VirtualSystem ovf:id="web">
    <OperatingSystemSection ovf:id="96" vmw:osType="debian12_64Guest"><Info/></OperatingSystemSection>
    <VirtualHardwareSection>
      <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>4</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>2048</rasd:VirtualQuantity></Item>
      <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>1</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/vmdisk2</rasd:HostResource>
        <rasd:InstanceID>6</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>7</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>2</rasd:AddressOnParent><rasd:HostResource>/disk/empty</rasd:HostResource>
        <rasd:InstanceID>8</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:InstanceID>9</rasd:InstanceID><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType></Item>
      %s
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>"""


def test_a_descriptor_tells_vcpus_memory_disks_in_order_and_cards() -> None:
    machine = ovf.read(ENVELOPE % "")
    assert (machine.name, machine.vcpus, machine.memory_bytes) == ("web", 4, 2 * 1024**3)
    assert [(disk.file, disk.capacity_bytes, disk.bus) for disk in machine.disks] == [
        ("web-disk1.vmdk", 16 * 1024**3, "scsi"),
        ("web-disk2.vmdk", 1024**3, "scsi"),
    ]
    assert (machine.nics, machine.os_name, machine.firmware) == (("VmxNet3",), "debian12_64Guest", Firmware.BIOS)


@pytest.mark.parametrize(
    ("extension", "firmware"),
    [
        ('<vmw:Config vmw:key="firmware" vmw:value="efi"/>', Firmware.UEFI),
        (
            '<vmw:Config vmw:key="firmware" vmw:value="efi"/>'
            '<vmw:Config vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>',
            Firmware.UEFI_SECURE,
        ),
        ('<vbox:Machine><Hardware><Firmware type="EFI"/></Hardware></vbox:Machine>', Firmware.UEFI),
        ('<vmw:Config vmw:key="firmware" vmw:value="bios"/>', Firmware.BIOS),
    ],
)
def test_the_firmware_is_told_in_each_producers_own_words(extension: str, firmware: Firmware) -> None:
    assert ovf.read(ENVELOPE % extension).firmware is firmware


def test_memory_in_virtualboxs_words_is_understood() -> None:
    text = (ENVELOPE % "").replace("byte * 2^20", "MegaBytes")
    assert ovf.read(text).memory_bytes == 2 * 1024**3


@pytest.mark.parametrize(
    "text",
    [
        "no XML",
        "<domain/>",
        '<!DOCTYPE x [<!ENTITY a "b">]>' + ENVELOPE.partition("?>")[2] % "&a;",
        (ENVELOPE % "").replace("VirtualSystem", "VirtualSystemCollection"),
        (ENVELOPE % "").replace("ovf:/disk/", "ovf:/nothing/").replace("fileRef", "noRef"),
    ],
)
def test_what_is_no_descriptor_of_one_machine_with_a_disk_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        ovf.read(text)


def test_absurd_numbers_are_left_to_the_defaults() -> None:
    text = (ENVELOPE % "").replace(">2048<", ">" + "9" * 50 + "<").replace(">4<", ">-4<")
    machine = ovf.read(text)
    assert (machine.memory_bytes, machine.vcpus) == (0, 0)
