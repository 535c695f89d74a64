"""From a VM's definition to its clone's: what is new, what is left out, what stays. Pure."""

from __future__ import annotations

from dataclasses import replace
from xml.etree.ElementTree import SubElement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm.clone_xml import CloneDisk, Identity, close_screens, is_kept, make_clone, problem_of
from vm.domain_xml import parse, to_text
from vm.redact import extract

NEW = Identity("copy", "11111111-2222-3333-4444-555555abcdef", {"vda": CloneDisk("/new/vda.qcow2", "qcow2")})
ORIGIN = """
<domain type='kvm'><name>origin</name><uuid>aaaaaaaa-2222-3333-4444-555555abcdef</uuid>
<genid>aaaaaaaa-2222-3333-4444-555555abcdef</genid><title>a title</title>
<sysinfo type='smbios'><system><entry name='uuid'>aaaaaaaa-2222-3333-4444-555555abcdef</entry>
<entry name='serial'>S1</entry><entry name='product'>P</entry></system></sysinfo>
<os><type>hvm</type><loader type='pflash'>/l</loader><nvram template='/t'>/n/origin_VARS.fd</nvram></os>
<devices>{devices}</devices></domain>
"""


def cloned(devices: str = "", identity: Identity = NEW):
    root = parse(ORIGIN.format(devices=devices))
    return root, make_clone(root, identity)


def test_name_uuid_and_generation_are_new_and_the_title_stays():
    root, _ = cloned()
    assert (root.findtext("name"), root.findtext("uuid"), root.findtext("title")) == ("copy", NEW.uuid, "a title")
    assert root.findtext("genid") in (None, "")
    entries = {entry.get("name"): entry.text for entry in root.iterfind("sysinfo/system/entry")}
    assert entries == {"uuid": NEW.uuid, "product": "P"}


def test_firmware_variables_are_its_own():
    root, _ = cloned(identity=Identity("copy", NEW.uuid, nvram="/n/copy_VARS.fd"))
    assert root.findtext("os/nvram") == "/n/copy_VARS.fd"
    root, _ = cloned()
    assert (root.findtext("os/nvram") or "") == ""
    assert root.find("os/nvram").get("template") == "/t"


def test_a_copied_disk_stands_in_no_chain_and_keeps_its_place():
    disk = """<disk type='volume' device='disk'><driver name='qemu' type='raw' cache='none'/>
      <source pool='p' volume='v' startupPolicy='optional' index='3'><reservations managed='yes'/></source>
      <backingStore type='file'><format type='raw'/><source file='/b'/></backingStore>
      <target dev='vda' bus='virtio'/><address type='pci'/></disk>"""
    root, _ = cloned(disk)
    (element,) = root.findall("devices/disk")
    assert element.get("type") == "file"
    assert element.find("source").attrib == {"file": "/new/vda.qcow2", "startupPolicy": "optional"}
    assert len(element.find("source")) == 0
    assert element.find("backingStore") is None
    assert element.find("driver").attrib == {"name": "qemu", "type": "qcow2", "cache": "none"}
    assert element.find("address") is not None


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("<hostdev type='usb' mode='subsystem'/>", "a usb device of the host stays"),
        ("<interface type='hostdev'/>", "is bound to one VM"),
        ("<interface type='vhostuser'><source type='unix' path='/s'/></interface>", "is bound to one VM"),
        ("<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>", "TPM"),
        ("<lease><lockspace>a</lockspace></lease>", "is left out"),
        ("<channel type='file'><source path='/f'/><target type='virtio' name='x'/></channel>", "file /f"),
        ("<memory model='nvdimm'><source><path>/n</path></source></memory>", "NVDIMM"),
    ],
)
def test_what_only_one_vm_can_have_is_left_out_and_said(device, said):
    root, notes = cloned(device)
    assert len(root.find("devices")) == 0
    assert any(said in note for note in notes), notes


def test_serial_ports_that_write_to_files_become_consoles():
    root, notes = cloned("<serial type='file'><source path='/var/log/x'/><target port='0'/></serial>")
    (port,) = root.findall("devices/serial")
    assert (port.get("type"), port.find("source")) == ("pty", None)
    assert any("/var/log/x" in note for note in notes)


def test_screens_get_free_ports_and_without_their_password_listen_here_alone():
    root = parse(ORIGIN.format(devices="<graphics type='vnc' port='5901' autoport='no' passwd='hunter2'>"
                               "<listen type='address' address='0.0.0.0'/></graphics>"))  # fmt: skip
    notes = (*close_screens(root, extract(root)), *make_clone(root, NEW))
    screen = root.find("devices/graphics")
    assert (screen.get("port"), screen.get("autoport"), screen.get("passwd")) == ("-1", "yes", None)
    assert [each.get("address") for each in screen.iterfind("listen")] == ["127.0.0.1"]
    assert "hunter2" not in to_text(root) + " ".join(notes)
    assert any("no password" in note and "not on" in note for note in notes)


def test_every_card_gets_an_address_of_its_own():
    card = """<interface type='network'><mac address='52:54:00:00:00:01'/><source network='n'/>
      <target dev='tap7'/></interface>"""
    root, _ = cloned(card * 2)
    macs = [mac.get("address") for mac in root.iterfind("devices/interface/mac")]
    assert len(set(macs)) == 2
    assert "52:54:00:00:00:01" not in macs
    assert root.find("devices/interface/target") is None


@pytest.mark.parametrize(
    ("disk", "kept", "problem"),
    [
        ("<disk type='file' device='cdrom'><source file='/x.iso'/></disk>", True, ""),
        ("<disk type='file' device='disk'><source file='/x'/><shareable/></disk>", True, ""),
        ("<disk type='file' device='disk'><source file='/x'/><readonly/></disk>", True, ""),
        ("<disk type='file' device='disk'><source file='/x'/></disk>", False, ""),
        ("<disk type='block' device='lun'><source dev='/dev/sda'/></disk>", False, "device of the host"),
        ("<disk type='network' device='disk'><source protocol='rbd' name='x'/></disk>", False, "no disk of this host"),
        ("<disk type='file' device='disk'><source file='/x'><encryption format='luks'/></source></disk>", False,
         "encrypted"),
    ],
)  # fmt: skip
def test_what_is_copied_kept_and_refused(disk, kept, problem):
    element = parse(disk, root="disk")
    assert is_kept(element) is kept
    assert problem in problem_of(element) if problem else (kept or not problem_of(element))


@given(st.lists(st.sampled_from(["serial", "console", "channel", "hostdev", "interface", "graphics", "tpm", "vsock"])),
       st.text("abcxyz-", max_size=8))  # fmt: skip
def test_cloning_twice_gives_the_same(tags, kind):
    devices = "".join(f"<{tag} type='{kind}'><source path='/x'/><target dev='y'/></{tag}>" for tag in tags)
    root, _ = cloned(devices)
    once = to_text(root)
    make_clone(root, NEW)
    assert to_text(root) == once


@pytest.mark.parametrize(
    ("name", "line"),
    [("twin", "quiet tiny.hostname=twin panic=-1"), ("no host name", "quiet panic=-1")],
)
def test_a_tiny_guest_gets_the_name_of_the_clone_on_its_kernels_command_line(name, line):
    root = parse(ORIGIN.format(devices=""))
    system = root.find("os")
    for text, expected in (("quiet tiny.hostname=origin panic=-1", line), ("hostname=origin", "hostname=origin")):
        for old in system.findall("cmdline"):
            system.remove(old)
        SubElement(system, "cmdline").text = text
        make_clone(root, replace(NEW, name=name))
        assert root.findtext("os/cmdline") == expected
