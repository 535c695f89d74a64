"""Domain XML: safe parsing, reading, editing."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree.ElementTree import Element

import pytest

from host.connection import Host
from host.errors import UsageError
from tests.support import simulated_world
from vm import domain_xml
from vm.domain_xml import parse, read_config, to_text

RUNNING = """
<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web</name>
  <title>Front</title>
  <description>The shop.</description>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
    <hvtui:vm xmlns:hvtui="https://hvtui.org/xmlns/domain/1">
      <hvtui:tag>web</hvtui:tag><hvtui:tag> prod </hvtui:tag><hvtui:tag>web</hvtui:tag><hvtui:tag/>
      <hvtui:owner> alice </hvtui:owner>
      <hvtui:boot order="3"/>
    </hvtui:vm>
  </metadata>
  <maxMemory slots='16' unit='KiB'>8388608</maxMemory>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static' current='2'>4</vcpu>
  <os firmware='efi'><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='host-model' check='partial'/>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/i/a.qcow2' index='1'/>
      <backingStore/><target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>
    <disk type='block' device='lun'><driver type='raw'/><source dev='/dev/sdb'/><target dev='sda' bus='scsi'/>
      <shareable/></disk>
    <disk type='volume' device='disk'><source pool='fast' volume='v1'/><target dev='vdb' bus='virtio'/></disk>
    <disk type='network' device='disk'><source protocol='rbd' name='pool/img'><host name='ceph' port='6789'/></source>
      <target dev='vdc' bus='virtio'/></disk>
    <disk type='network' device='disk'><source protocol='nbd'><host transport='unix' socket='/s'/></source>
      <target dev='vdd' bus='virtio'/></disk>
    <disk type='dir' device='floppy'><source dir='/d'/><target dev='fda' bus='fdc'/><readonly/></disk>
    <disk device='cdrom'><target dev='sdb' bus='sata'/><readonly/></disk>
    <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='vnet3'/>
      <model type='virtio'/></interface>
    <interface type='network'><mac address='52:54:00:00:00:02'/>
      <source network='default' portid='x' bridge='virbr0'/></interface>
    <interface type='direct'><source dev='eth0' mode='bridge'/></interface>
    <interface type='user'/>
    <interface type='hostdev'><source><address type='pci'/></source></interface>
    <hostdev mode='subsystem' type='pci'/>
    <serial type='pty'/><console type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
    <graphics type='vnc' port='5901' listen='127.0.0.1'><listen type='address' address='127.0.0.1'/></graphics>
    <graphics type='vnc'><listen type='socket' socket='/run/x'/></graphics>
    <graphics type='spice' port='-1' tlsPort='5902' autoport='yes'><listen type='address' address='::1'/></graphics>
    <graphics type='vnc' port='-1' autoport='yes'/>
    <rng model='virtio'/><tpm model='tpm-crb'/><memballoon model='virtio'/>
  </devices>
  <qemu:commandline><qemu:arg value='-snapshot'/></qemu:commandline>
</domain>"""

MINIMAL = "<domain type='qemu'><name>x</name><memory>1024</memory><vcpu>1</vcpu></domain>"


def test_everything_that_lists_show_is_read() -> None:
    config = read_config(RUNNING)

    assert (config.title, config.description) == ("Front", "The shop.")
    assert config.tags == ("web", "prod")
    assert config.owner == "alice"
    assert config.os_id == "http://debian.org/debian/12"
    assert (config.virtualization, config.machine, config.firmware) == ("kvm", "pc-q35-7.2", "uefi")
    assert config.cpu_mode == "host-model"
    assert (config.memory_bytes, config.memory_max_bytes) == (1024**3, 2 * 1024**3)
    assert (config.vcpus, config.vcpus_max) == (2, 4)
    assert config.has_agent_channel
    assert config.agent_connected is True
    assert config.has_serial_console
    assert config.has_balloon
    assert config.has_rng
    assert config.has_tpm
    assert config.host_devices == 2
    assert config.graphics == ("vnc 127.0.0.1:5901", "vnc socket", "spice [::1]:5902", "vnc")
    assert not config.pending_changes
    assert not config.is_emulated


def test_each_kind_of_disk_has_its_source() -> None:
    disks = {disk.target: disk for disk in read_config(RUNNING).disks}

    assert {name: disk.source for name, disk in disks.items()} == {
        "vda": "/i/a.qcow2",
        "sda": "/dev/sdb",
        "vdb": "fast/v1",
        "vdc": "rbd://ceph:6789/pool/img",
        "vdd": "nbd:///s/",
        "fda": "/d",
        "sdb": "",
    }
    assert disks["sda"].shareable
    assert disks["fda"].read_only
    assert disks["sdb"].source_type == "file"
    assert disks["vda"].driver_format == "qcow2"


def test_each_kind_of_nic_has_its_source() -> None:
    nics = read_config(RUNNING).nics

    assert [(nic.source_type, nic.source) for nic in nics] == [
        ("bridge", "br0"),
        ("network", "default"),
        ("direct", "eth0"),
        ("user", ""),
        ("hostdev", ""),
    ]
    assert nics[0].target == "vnet3"


def test_a_minimal_domain_reads_as_defaults() -> None:
    config = read_config(MINIMAL)

    assert config.memory_bytes == config.memory_max_bytes == 1024**2
    assert (config.vcpus, config.firmware, config.tags, config.owner) == (1, "bios", (), "")
    assert config.agent_connected is None
    assert not config.has_balloon
    assert config.is_emulated


@pytest.mark.parametrize(
    ("os_xml", "firmware"),
    [
        ("<os><loader type='pflash'>/ovmf</loader></os>", "uefi"),
        ("<os><loader type='rom'>/bios</loader></os>", "bios"),
        ("<os><kernel>/vmlinuz</kernel></os>", "kernel"),
        ("<os firmware='bios'/>", "bios"),
        ("", "bios"),
    ],
)
def test_the_firmware_is_told_from_the_boot_settings(os_xml: str, firmware: str) -> None:
    assert read_config(f"<domain>{os_xml}</domain>").firmware == firmware


@pytest.mark.parametrize(
    ("memory", "size_bytes"),
    [
        ("<memory>2</memory>", 2048),
        ("<memory unit='b'>2</memory>", 2),
        ("<memory unit='MB'>2</memory>", 2_000_000),
        ("<memory unit='MiB'>2</memory>", 2 * 1024**2),
        ("<memory unit='G'> 2 </memory>", 2 * 1024**3),
        ("<memory unit='furlong'>2</memory>", 0),
        ("<memory>much</memory>", 0),
        ("<memory>-5</memory>", 0),
        (f"<memory>{'9' * 5000}</memory>", 0),
        ("<memory/>", 0),
    ],
)
def test_memory_is_read_with_its_unit(memory: str, size_bytes: int) -> None:
    assert read_config(f"<domain>{memory}</domain>").memory_max_bytes == size_bytes


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("<domain>\n  <name>x</nom>\n</domain>", "line 2"),
        ("", "line 1"),
        ("<network/>", "not <domain>"),
        ("<!DOCTYPE d [<!ENTITY a 'b'>]>\n<domain>&a;</domain>", "document type at line 1"),
        ("<?xml version='1.0'?>\n<!DOCTYPE d SYSTEM 'file:///etc/passwd'><domain/>", "document type at line 2"),
        ("<!DOCTYPE d [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><domain>&a;</domain>", "document type"),
        ("<domain>&lol;</domain>", "undefined entity"),
        ("<domain>\x1b</domain>", "line 1"),
        ("<domain>\ud800</domain>", "cannot hold"),
        ("<domain>" + "x" * 1024 * 1024 + "</domain>", "larger than 1024 KiB"),
        ("<domain>" + "<a>" * 200 + "</a>" * 200 + "</domain>", "nests more than"),
        ("<!DOCTYPE d <<<", "line 1"),
        ("<domain><!DOCTYPE d></domain>", "line 1"),
    ],
)
def test_dangerous_or_malformed_text_is_refused_with_its_line(xml: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(xml)


def test_a_billion_laughs_are_refused_before_they_are_laughed() -> None:
    entities = "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 10))

    with pytest.raises(UsageError, match="document type"):
        parse(f"<!DOCTYPE d [<!ENTITY l0 'lol'>{entities}]><domain>&l9;</domain>")


def test_the_words_of_a_document_type_in_a_comment_are_harmless() -> None:
    assert parse("<domain><!-- <!DOCTYPE x> --></domain>").tag == "domain"
    assert parse("<domain><description><![CDATA[<!DOCTYPE x>]]></description></domain>") is not None


def test_another_root_may_be_asked_for() -> None:
    assert parse("<domainsnapshot/>", root="domainsnapshot").tag == "domainsnapshot"


# Pending changes


def edited(change: Callable[[Element], object]) -> str:
    root = parse(RUNNING)
    change(root)
    return to_text(root)


def _find(root: Element, path: str) -> Element:
    found = root.find(path)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda root: _find(root, "vcpu").set("current", "4"),
        lambda root: domain_xml.set_text(root, "memory", "4194304"),
        lambda root: domain_xml.set_tags(root, ["other"]),
        lambda root: domain_xml.set_text(root, "title", "Back"),
        lambda root: _find(root, "os/type").set("machine", "pc-q35-8.0"),
        lambda root: _find(root, "devices/disk/source").set("file", "/i/b.qcow2"),
        lambda root: _find(root, "devices/interface/source").set("bridge", "br1"),
        lambda root: _find(root, "devices").remove(_find(root, "devices/rng")),
        lambda root: _find(root, "devices").append(Element("watchdog", model="i6300esb")),
    ],
)
def test_what_a_person_changed_for_the_next_boot_is_pending(change: Callable[[Element], object]) -> None:
    assert read_config(RUNNING, inactive_xml=edited(change)).pending_changes


@pytest.mark.parametrize(
    "change",
    [
        lambda root: root.attrib.pop("id"),
        lambda root: _find(root, "devices/interface").remove(_find(root, "devices/interface/target")),
        lambda root: _find(root, "devices/graphics").set("port", "-1"),
        lambda root: _find(root, "currentMemory").__setattr__("text", "2097152"),
        lambda root: _find(root, "devices/channel/target").attrib.pop("state"),
        lambda root: _find(root, "devices/disk/source").attrib.pop("index"),
        lambda root: _find(root, "devices/disk[@device='cdrom']").append(Element("driver", name="qemu", type="raw")),
        lambda root: None,
    ],
)
def test_what_libvirt_fills_in_while_a_vm_runs_is_not_pending(change: Callable[[Element], object]) -> None:
    assert not read_config(RUNNING, inactive_xml=edited(change)).pending_changes


# Editing


@pytest.mark.parametrize("tag", ["web", "prod-2", "2026.1", "team/web", "c++", "вм", "日本", "a" * 40])
def test_a_tag_is_letters_digits_and_a_few_marks(tag: str) -> None:
    assert domain_xml.check_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", "-web", "a b", "a,b", "<b>", "a\x1b", "a\n", "a" * 41, ".x", '"'])
def test_other_text_is_no_tag(tag: str) -> None:
    with pytest.raises(UsageError):
        domain_xml.check_tag(tag)


def test_tags_are_written_with_commas_or_spaces() -> None:
    assert domain_xml.parse_tags("web, prod  web\tx") == ("web", "prod", "x")
    assert domain_xml.parse_tags("  ") == ()
    with pytest.raises(UsageError, match="not a tag"):
        domain_xml.parse_tags("web,<b>")


def test_setting_tags_and_owner_keeps_everything_else() -> None:
    root = parse(RUNNING)
    domain_xml.set_tags(root, ["db", "old"])
    domain_xml.set_owner(root, "bob")
    text = to_text(root)

    config = read_config(text)
    assert (config.tags, config.owner) == (("db", "old"), "bob")
    assert config.os_id == "http://debian.org/debian/12"
    assert "hvtui:boot" in text, "an element of a later version must survive"
    assert "qemu:commandline" in text
    assert config.disks == read_config(RUNNING).disks


def test_metadata_is_made_and_removed_as_needed() -> None:
    root = parse(MINIMAL)
    domain_xml.set_tags(root, ["web"])
    domain_xml.set_owner(root, "alice")
    domain_xml.set_text(root, "title", "T")
    own = domain_xml.own_metadata(root)
    assert own is not None
    assert "hvtui:tag" in to_text(own)
    assert [child.tag for child in root][:2] == ["name", "title"]

    domain_xml.set_text(root, "title", "Other")
    assert root.findtext("title") == "Other"

    domain_xml.set_tags(root, [])
    domain_xml.set_owner(root, " ")
    domain_xml.set_text(root, "title", "")
    domain_xml.set_text(root, "description", "")
    assert [child.tag for child in root] == ["name", "memory", "vcpu"]
    assert domain_xml.own_metadata(root) is None


def test_a_bad_tag_changes_nothing() -> None:
    root = parse(RUNNING)
    before = to_text(root)

    with pytest.raises(UsageError):
        domain_xml.set_tags(root, ["good", "<bad>"])
    assert to_text(root) == before


def test_prefixes_that_others_chose_are_kept() -> None:
    xml = "<domain><metadata><app:x xmlns:app='https://example.org/app'/><ns0:y xmlns:ns0='urn:y'/></metadata></domain>"

    assert "<app:x" in to_text(parse(xml))


def test_nobody_can_take_hvtuis_own_prefix() -> None:
    parse("<domain><metadata><hvtui:x xmlns:hvtui='urn:other'/></metadata></domain>")
    root = parse(MINIMAL)
    domain_xml.set_owner(root, "alice")

    assert f'xmlns:hvtui="{domain_xml.HVTUI_NAMESPACE}"' in to_text(root)


def test_libvirt_takes_and_keeps_what_was_edited(simulated: Host) -> None:
    with simulated.calls("edit") as connection:
        domain = connection.lookupByName("web-01")
        root = parse(domain.XMLDesc(2))
        domain_xml.set_tags(root, ["new"])
        domain_xml.set_owner(root, "карл <&>")
        connection.defineXML(to_text(root))
        config = read_config(domain.XMLDesc(2))

    assert (config.tags, config.owner) == (("new",), "карл <&>")
    assert config.os_id == "http://debian.org/debian/12"
    assert config.title == "Front page"


def test_every_vm_of_the_simulated_world_reads(simulated: Host) -> None:
    with simulated.calls("read") as connection:
        configs = {each.name(): read_config(each.XMLDesc(0)) for each in connection.listAllDomains(0)}

    assert configs["files"].disks[-1].device == "cdrom"
    assert configs["web-01"].has_agent_channel
    assert configs[simulated_world.WIDE_NAME].owner == "日本"
