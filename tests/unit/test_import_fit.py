"""A VM's definition from elsewhere, fitted to a host: what stays, what changes, and what nobody may smuggle in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from host.errors import UsageError
from vm.domain_xml import parse, to_text
from vm.import_devices import fit_devices, foreign_paths
from vm.import_disks import fit_disks
from vm.import_machine import fit_machine, nearest_machine
from vm.import_nics import fit_nics
from vm.import_report import Finding, FindingKind, Findings
from vm.import_surroundings import Surroundings

EMULATOR = "/usr/bin/qemu-system-x86_64"
CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
HERE = Surroundings(
    emulator=EMULATOR,
    best_cpu_mode="host-model",
    machines=frozenset({"pc", "q35", "pc-q35-7.2", "pc-q35-6.0", "pc-i440fx-7.2"}),
    cpu_modes=frozenset({"host-passthrough", "host-model", "custom"}),
    cpu_models=frozenset({"Haswell"}),
    loaders=frozenset({CODE}),
    firmware=frozenset({"bios", "uefi"}),
    secure_boot=True,
    graphics=frozenset({"vnc", "egl-headless"}),
    video_models=frozenset({"vga", "virtio"}),
    tpm_models=("tpm-crb", "tpm-tis"),
    cpus=4,
    networks={"default": True, "lab": False},
    filters=frozenset({"clean-traffic"}),
    bridges=frozenset({"br0"}),
    interfaces=frozenset({"eth0"}),
)


def domain(
    devices: str = "", *, top: str = "", machine: str = "pc-q35-7.2", kind: str = "kvm", os: str = "", os_more: str = ""
) -> Element:
    return parse(
        f"<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>web</name>"
        f"<os {os_more}><type arch='x86_64' machine='{machine}'>hvm</type>{os}</os>{top}"
        f"<devices><emulator>{EMULATOR}</emulator>{devices}</devices></domain>"
    )


def of(findings: Findings, kind: FindingKind) -> list[str]:
    return [finding.text for finding in findings.all if finding.kind is kind]


def changed(findings: Findings) -> str:
    return "; ".join(of(findings, FindingKind.CHANGED))


def machine(root: Element, around: Surroundings = HERE) -> Findings:
    findings = Findings()
    fit_machine(root, around, findings)
    return findings


def devices(root: Element, around: Surroundings = HERE, *, is_copy: bool = True) -> Findings:
    findings = Findings()
    fit_devices(root, around, findings, is_copy=is_copy)
    return findings


def nics(root: Element, wanted: dict[str, str] | None = None, uuid_of_copy: str = "") -> Findings:
    findings = Findings()
    fit_nics(root, HERE, wanted or {}, findings, uuid_of_copy=uuid_of_copy)
    return findings


# The machine


def test_a_machine_that_the_host_has_stays_as_it_was() -> None:
    root = domain(top="<cpu mode='host-model'/>")
    before = to_text(root)
    findings = machine(root)
    assert {finding.kind for finding in findings.all} == {FindingKind.OK}
    assert to_text(root) == before


def test_where_only_emulation_works_an_accelerated_vm_is_emulated() -> None:
    root = domain(top="<cpu mode='host-passthrough'/>")
    here = replace(
        HERE,
        virtualization="qemu",
        why_emulated="no /dev/kvm",
        best_cpu_mode="maximum",
        cpu_modes=frozenset({"maximum", "custom"}),
    )
    findings = machine(root, here)
    assert root.get("type") == "qemu"
    assert root.find("cpu").attrib == {"mode": "maximum"}  # type: ignore[union-attr]
    assert "emulated here, 10 to 50 times slower: no /dev/kvm" in changed(findings)


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [
        ("pc-q35-7.1", "pc-q35-6.0"),
        ("pc-q35-10.0", "pc-q35-7.2"),
        ("pc-q35-2.4", "pc-q35-6.0"),
        ("pc-q35-rhel9.2.0", "pc-q35-7.2"),
        ("pc-q35-jammy", "pc-q35-7.2"),
        ("pc-i440fx-9.1", "pc-i440fx-7.2"),
        ("pc-1.3", "pc"),
        ("virt-9.0", ""),
        ("microvm", ""),
        ("", ""),
        ("../../q35", ""),
    ],
)
def test_the_nearest_machine_type_is_of_the_same_family(wanted: str, nearest: str) -> None:
    assert nearest_machine(wanted, HERE.machines) == nearest


def test_an_unknown_machine_type_is_replaced_with_a_word_or_refused() -> None:
    root = domain(machine="pc-q35-9.2")
    assert "pc-q35-7.2: pc-q35-9.2 is not known here" in changed(machine(root))
    assert root.find("os/type").get("machine") == "pc-q35-7.2"  # type: ignore[union-attr]
    assert of(machine(domain(machine="virt-9.0")), FindingKind.BLOCKER)


def test_a_machine_of_another_architecture_or_hypervisor_is_refused() -> None:
    assert of(machine(domain(), replace(HERE, architecture="aarch64")), FindingKind.BLOCKER)
    assert of(machine(domain(kind="xen")), FindingKind.BLOCKER)


@pytest.mark.parametrize(
    ("cpu", "mode"),
    [
        ("<cpu mode='custom'><model>Icelake</model><topology sockets='1' cores='2' threads='1'/></cpu>", "host-model"),
        ("<cpu mode='maximum'/>", "host-model"),
        ("<cpu mode='custom'><model>Haswell</model></cpu>", "custom"),
        ("<cpu mode='host-passthrough'/>", "host-passthrough"),
    ],
)  # fmt: skip
def test_a_cpu_that_cannot_be_had_is_replaced_and_keeps_its_topology(cpu: str, mode: str) -> None:
    root = domain(top=cpu)
    findings = machine(root)
    found = root.find("cpu")
    assert found is not None
    assert found.get("mode") == mode
    assert bool(changed(findings)) == (mode not in cpu)
    assert ("topology" in cpu) == (found.find("topology") is not None)


def test_pinning_to_processors_that_are_not_there_is_left_out() -> None:
    root = domain(
        top="<vcpu cpuset='0-7'>2</vcpu><cputune><vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='9'/></cputune>"
        "<numatune><memory mode='strict' nodeset='1'/></numatune>"
    )
    findings = machine(root)
    assert root.find("vcpu").get("cpuset") is None  # type: ignore[union-attr]
    assert [pin.get("cpuset") for pin in root.iterfind("cputune/vcpupin")] == ["2"]
    assert root.find("numatune") is None
    assert "processors" in changed(findings)
    assert "memory nodes" in changed(findings)


def test_firmware_by_path_becomes_the_hosts_own_of_the_same_kind() -> None:
    root = domain(os="<loader type='pflash' secure='yes'>/opt/old/OVMF_CODE.secboot.fd</loader>")
    machine(root)
    assert root.find("os").get("firmware") == "efi"  # type: ignore[union-attr]
    assert root.find("os/loader") is None
    assert root.find("os/firmware/feature[@name='secure-boot']").get("enabled") == "yes"  # type: ignore[union-attr]
    same = domain(os=f"<loader type='pflash'>{CODE}</loader>")
    assert not changed(machine(same))
    assert same.findtext("os/loader") == CODE


def test_missing_firmware_is_a_blocker() -> None:
    secure = "<firmware><feature enabled='yes' name='secure-boot'/></firmware>"
    uefi = domain(os=secure, os_more="firmware='efi'")
    assert not of(machine(uefi), FindingKind.BLOCKER)
    assert of(machine(uefi, replace(HERE, secure_boot=False)), FindingKind.BLOCKER)
    assert of(machine(uefi, replace(HERE, firmware=frozenset({"bios"}))), FindingKind.BLOCKER)
    assert of(machine(domain(), replace(HERE, firmware=frozenset({"uefi"}))), FindingKind.BLOCKER)


# What could reach into the host

HOSTILE = [
    "<filesystem type='mount'><source dir='/etc'/><target dir='x'/></filesystem>",
    "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='1' slot='0'/></source></hostdev>",
    "<shmem name='x'/>",
    "<lease><lockspace>x</lockspace><key>y</key><target path='/etc/x'/></lease>",
    "<pstore backend='acpi-erst'><path>/etc/x</path></pstore>",
    "<serial type='file'><source path='/etc/cron.d/x'/></serial>",
    "<serial type='pty'><log file='/etc/cron.d/x'/></serial>",
    "<console type='unix'><source mode='bind' path='/run/x'/></console>",
    "<parallel type='dev'><source path='/dev/lp0'/></parallel>",
    "<channel type='unix'><source mode='connect' path='/run/docker.sock'/><target type='virtio' name='x'/></channel>",
    "<channel type='file'><source path='/etc/x'/><target type='virtio' name='x'/></channel>",
    "<input type='evdev'><source dev='/dev/input/event0'/></input>",
    "<input type='passthrough' bus='virtio'><source evdev='/dev/input/event0'/></input>",
    "<graphics type='vnc' socket='/run/x'/>",
    "<graphics type='vnc'><listen type='socket' socket='/run/x'/></graphics>",
    "<graphics type='egl-headless'><gl rendernode='/dev/dri/renderD128'/></graphics>",
    "<video><model type='virtio'><acceleration rendernode='/dev/dri/x'/></model></video>",
    "<audio id='1' type='file' path='/etc/x'/>",
    "<audio id='1' type='oss'><input dev='/dev/dsp'/></audio>",
    "<rng model='virtio'><backend model='random'>/etc/shadow</backend></rng>",
    "<rng model='virtio'><backend model='egd' type='unix'><source mode='connect' path='/run/x'/></backend></rng>",
    "<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
    "<tpm model='tpm-tis'><backend type='external'><source type='unix' mode='connect' path='/run/x'/></backend></tpm>",
    "<tpm model='tpm-tis'><backend type='emulator'><source type='file' path='/etc/x'/></backend></tpm>",
    "<memory model='nvdimm'><source><path>/etc/shadow</path></source></memory>",
    "<smartcard mode='host-certificates'><database>/etc/pki</database></smartcard>",
    "<redirdev bus='usb' type='unix'><source path='/run/x'/></redirdev>",
    "<interface type='ethernet'><mac address='52:54:00:00:00:01'/><script path='/etc/x'/></interface>",
    "<interface type='vhostuser'><source type='unix' path='/run/x' mode='client'/></interface>",
    "<interface type='network'><source network='default'/><backend tap='/dev/net/x' vhost='/dev/x'/></interface>",
    "<disk type='file' device='cdrom'><source file='/etc/shadow'/><target dev='sda' bus='sata'/></disk>",
    "<disk type='block' device='lun'><source dev='/dev/sda'/><target dev='sdb' bus='scsi'/></disk>",
    "<disk type='file'><source file='/etc/shadow'/><target dev='vdb' bus='virtio'/></disk>",
    "<disk type='file'><source file='/etc/shadow'/><backingStore type='file'><source file='/etc/passwd'/>"
    "</backingStore><target dev='vda' bus='virtio'/></disk>",
    "<disk type='vhostuser'><source type='unix' path='/run/x'/><target dev='vda' bus='virtio'/></disk>",
]  # fmt: skip
TOPS = [
    "<qemu:commandline><qemu:arg value='-drive'/><qemu:arg value='file=/etc/shadow'/></qemu:commandline>",
    "<seclabel type='none'/>",
    "<launchSecurity type='sev'><dhCert>x</dhCert></launchSecurity>",
    "<resource><partition>/machine</partition></resource>",
    "<sysinfo type='fwcfg'><entry name='opt/x' file='/etc/shadow'/></sysinfo>",
    "<bootloader>/bin/sh</bootloader>",
    "<blkiotune><device><path>/dev/sda</path><weight>1</weight></device></blkiotune>",
]
SYSTEMS = [
    "<loader type='pflash'>/etc/shadow</loader><nvram template='/etc/shadow'>/etc/x</nvram>",
    "<loader type='rom'>/etc/shadow</loader>",
    "<dtb>/etc/shadow</dtb>",
    "<acpi><table type='slic'>/etc/shadow</table></acpi>",
]


def fit_all(root: Element) -> Findings:
    findings = machine(root)
    findings.all += devices(root).all
    has_disk = root.find("devices/disk/target[@dev='vda']") is not None
    fit_disks(root, {"vda": ("/pool/web.qcow2", "qcow2")} if has_disk else {}, {}, findings)
    findings.all += nics(root).all
    return findings


@pytest.mark.parametrize(
    "root",
    [
        *(pytest.param(lambda text=text: domain(text), id=text[:60]) for text in HOSTILE),
        *(pytest.param(lambda text=text: domain(top=text), id=text[:60]) for text in TOPS),
        *(pytest.param(lambda text=text: domain(os=text), id=text[:60]) for text in SYSTEMS),
    ],
)
def test_nothing_that_reaches_into_the_host_survives(root: Callable[[], Element]) -> None:
    made = root()
    findings = fit_all(made)
    for nvram in made.findall("os/nvram"):  # the comparison puts the bundle's own in its place
        made.find("os").remove(nvram)  # type: ignore[union-attr]
    if of(findings, FindingKind.BLOCKER):
        assert made.find("devices/interface") is not None  # a card must be given something of this host
        return
    assert list(foreign_paths(made, {EMULATOR, "/pool/web.qcow2"})) == []
    assert "/etc/" not in to_text(made)
    assert "/run/" not in to_text(made)
    assert "hostdev" not in to_text(made)


def test_what_nobody_thought_of_is_found_by_its_path() -> None:
    root = domain("<controller type='pci'><new file='/etc/shadow'/></controller>")
    assert list(foreign_paths(root, {EMULATOR})) == ["/etc/shadow in <new>"]
    harmless = domain(top="<title>/not/a/path</title><metadata><x a='/y'/></metadata>")
    assert not list(foreign_paths(harmless, {EMULATOR}))


def test_another_emulator_is_never_run() -> None:
    root = domain()
    root.find("devices/emulator").text = "/bin/sh"  # type: ignore[union-attr]
    assert "not /bin/sh" in changed(machine(root))
    assert root.findtext("devices/emulator") == EMULATOR


# Devices


def test_a_spice_screen_becomes_vnc_where_there_is_no_spice() -> None:
    root = domain(
        "<graphics type='spice' port='5900' autoport='no'/><channel type='spicevmc'><target type='virtio' name='s'/>"
        "</channel><redirdev bus='usb' type='spicevmc'/><audio id='1' type='spice'/><video><model type='qxl' ram='1'/>"
        "</video>"
    )
    devices(root)
    assert [each.get("type") for each in root.iterfind("devices/graphics")] == ["vnc"]
    assert root.find("devices/video/model").attrib == {"type": "virtio"}  # type: ignore[union-attr]
    for tag in ("channel", "redirdev", "audio"):
        assert root.find(f"devices/{tag}") is None


def test_a_copy_does_not_want_the_same_port_and_a_restored_vm_does() -> None:
    text = "<graphics type='vnc' port='5901' autoport='no' listen='10.0.0.7'/>"
    copy, restored = domain(text), domain(text)
    devices(copy)
    devices(restored, is_copy=False)
    assert [each.get("port") for root in (copy, restored) for each in root.iterfind("devices/graphics")] == [
        "-1",
        "5901",
    ]
    assert restored.find("devices/graphics").get("listen") == "127.0.0.1"  # type: ignore[union-attr]


def test_a_missing_tpm_is_a_blocker_and_another_model_a_change() -> None:
    text = "<tpm model='tpm-spapr'><backend type='emulator' version='2.0'/></tpm>"
    assert of(devices(domain(text), replace(HERE, tpm_models=())), FindingKind.BLOCKER)
    root = domain(text)
    assert "tpm-crb" in changed(devices(root))


def test_disks_are_those_of_the_bundle_and_keep_how_they_hang_on_the_vm() -> None:
    root = domain(
        "<disk type='block' device='disk' sgio='unfiltered'><driver name='qemu' type='raw' cache='none' io='native'/>"
        "<source dev='/dev/vg/web'/><target dev='vda' bus='scsi'/><boot order='1'/><serial>42</serial></disk>"
        "<disk type='network' device='disk'><source protocol='rbd' name='p/x'/><target dev='vdb' bus='virtio'/></disk>"
    )
    findings = Findings()
    fit_disks(
        root, {"vda": ("/pool/web.qcow2", "qcow2"), "vdz": ("/pool/z", "raw")}, {"vdb": "rbd, as asked"}, findings
    )
    (disk,) = root.findall("devices/disk")
    assert disk.attrib == {"type": "file", "device": "disk"}
    assert disk.find("driver").attrib == {"name": "qemu", "type": "qcow2", "cache": "none", "io": "native"}  # type: ignore[union-attr]
    assert disk.find("source").attrib == {"file": "/pool/web.qcow2"}  # type: ignore[union-attr]
    assert (disk.findtext("serial"), disk.find("boot").get("order")) == ("42", "1")  # type: ignore[union-attr]
    assert "vdb is left out, as by its export: rbd" in changed(findings)
    assert of(findings, FindingKind.BLOCKER) == ["its definition has no disk vdz, and the bundle has one"]


# Networks

NIC = "<interface type='{}'><mac address='52:54:00:aa:bb:cc'/><source {}/><target dev='vnet3'/>{}</interface>"


@pytest.mark.parametrize(
    ("nic", "is_there"),
    [
        (NIC.format("network", "network='default'", ""), True),
        (NIC.format("network", "network='lab'", ""), True),
        (NIC.format("network", "network='gone'", ""), False),
        (NIC.format("bridge", "bridge='br0'", ""), True),
        (NIC.format("bridge", "bridge='br9'", ""), False),
        (NIC.format("direct", "dev='eth0' mode='bridge'", ""), True),
        (NIC.format("direct", "dev='eth9' mode='bridge'", ""), False),
        ("<interface type='user'/>", True),
        ("<interface type='hostdev'/>", False),
        ("<interface type='mcast'><source address='230.0.0.1' port='5558'/></interface>", False),
    ],
)
def test_a_network_that_is_not_there_is_a_blocker_that_offers_others(nic: str, is_there: bool) -> None:
    findings = nics(domain(nic))
    blockers: list[Finding] = [each for each in findings.all if each.kind is FindingKind.BLOCKER]
    assert bool(blockers) != is_there
    assert all("default, lab" in each.remedy and "--network" in each.remedy for each in blockers)


@pytest.mark.parametrize(
    ("new", "kind", "source"),
    [
        ("lab", "network", {"network": "lab"}),
        ("bridge:br0", "bridge", {"bridge": "br0"}),
        ("user", "user", None),
    ],
)
def test_a_mapping_connects_a_card_elsewhere(new: str, kind: str, source: dict[str, str] | None) -> None:
    root = domain(NIC.format("bridge", "bridge='br9'", "<virtualport type='openvswitch'/><model type='virtio'/>"))
    findings = nics(root, {"br9": new})
    nic = root.find("devices/interface")
    assert nic is not None
    assert nic.get("type") == kind
    assert [each.attrib for each in nic.findall("source")] == ([source] if source else [])
    assert nic.find("virtualport") is None
    assert nic.find("target") is None
    assert nic.find("model") is not None
    assert not of(findings, FindingKind.BLOCKER)


def test_a_card_mapped_to_none_is_left_out_and_a_mapping_of_nothing_is_an_error() -> None:
    root = domain(NIC.format("network", "network='gone'", ""))
    nics(root, {"gone": "none"})
    assert root.find("devices/interface") is None
    with pytest.raises(UsageError, match="gnoe"):
        nics(domain(NIC.format("network", "network='gone'", "")), {"gnoe": "lab"})
    assert of(nics(domain(NIC.format("network", "network='gone'", "")), {"gone": "nowhere"}), FindingKind.BLOCKER)
    with pytest.raises(UsageError, match="bridge"):
        nics(domain(NIC.format("network", "network='gone'", "")), {"gone": "bridge:a/b"})


def test_copies_get_new_addresses_and_restored_vms_keep_theirs() -> None:
    nic = NIC.format("network", "network='default'", "")
    copy, restored = domain(nic + nic), domain(nic)
    nics(copy, uuid_of_copy="12345678-1234-1234-1234-123456789abc")
    nics(restored)
    macs = [mac.get("address") for mac in copy.iterfind("devices/interface/mac")]
    assert len({*macs, "52:54:00:aa:bb:cc"}) == 3
    assert restored.find("devices/interface/mac").get("address") == "52:54:00:aa:bb:cc"  # type: ignore[union-attr]


def test_a_filter_that_is_not_there_is_left_out() -> None:
    root = domain(NIC.format("network", "network='default'", "<filterref filter='mine'/>"))
    assert "network filter mine" in changed(nics(root))
    kept: Any = domain(NIC.format("network", "network='default'", "<filterref filter='clean-traffic'/>"))
    nics(kept)
    assert kept.find("devices/interface/filterref") is not None
