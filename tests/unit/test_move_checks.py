"""What keeps a VM from being moved, and in which ways: from what was read of two hosts, without any."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from host import host_test
from vm.move import choose_kind
from vm.move_checks import judge
from vm.move_kinds import ALL, LIVE, MEMORY, MOVES
from vm.move_model import Check, MoveKind, MoveOptions, MovePicture, MoveRequest, Stuck
from vm.move_options import Abilities, read_abilities
from vm.move_reading import HostReading, Namesake, PoolReading, SourceReading, TargetReading, VolumeReading

UUID = "11111111-2222-3333-4444-555555555555"
DISK = "/images/web.qcow2"
XML = f"""
<domain type='kvm'><name>web</name><uuid>{UUID}</uuid>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom'><model>Skylake</model></cpu>
  <devices>
    <emulator>/usr/bin/qemu</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{DISK}'/><target dev='vda'/></disk>
    <interface type='network'><source network='lan'/></interface>
    MORE
  </devices>
</domain>"""
MIB = 1024**2
POOLS = (PoolReading("default", "/images", "dir", is_active=True, free_bytes=10_000 * MIB),)


def host(name: str, **changes: Any) -> HostReading:
    usual = HostReading(f"qemu+ssh://{name}/system", name, "QEMU", f"uuid of {name}", "Skylake", 9_000_000, 7_002_000)
    return replace(usual, **changes)


def source(more: str = "", xml: str = XML, **changes: Any) -> SourceReading:
    root = fromstring(xml.replace("MORE", more))  # noqa: S314 - the test's own
    volume = VolumeReading(DISK, "default", "web.qcow2", 1000 * MIB, 100 * MIB, "qcow2")
    usual = SourceReading(
        host("lab1", volumes={DISK: volume}), UUID, "web", is_active=True, is_paused=False, is_asleep=False,
        is_persistent=True, autostart=False, has_saved_state=False, is_busy=False, definition=root, current=root,
        memory_bytes=512 * MIB,
    )  # fmt: skip
    return replace(usual, **changes)


def target(**changes: Any) -> TargetReading:
    usual = TargetReading(
        host("lab2"), machines=frozenset({"pc-q35-7.2"}), domain_types=frozenset({"kvm", "qemu"}),
        emulators=frozenset({"/usr/bin/qemu"}), cpus=4, cpu=2, free_memory_bytes=4000 * MIB,
        total_memory_bytes=8000 * MIB, networks={"lan": True}, pools=POOLS, likeness={DISK: True},
    )  # fmt: skip
    return replace(usual, **changes)


def picture(
    here: SourceReading | None = None, there: TargetReading | None = None, can: Abilities | None = None, **options: Any
) -> MovePicture:
    request = MoveRequest(peer_uri="qemu+ssh://lab2/system", options=MoveOptions(**options))
    return judge(here or source(), there or target(), request, can=can or Abilities())


def the_check(found: MovePicture, name: str) -> Check:
    (check,) = [check for check in found.checks if check.name == name and not check.ok]
    return check


def test_a_running_vm_on_shared_storage_moves_live():
    found = picture()

    assert choose_kind(found) == (MoveKind.LIVE, ())
    assert not found.warnings
    assert found.disks[0].is_shared


def test_a_vm_that_is_off_moves_offline():
    assert choose_kind(picture(source(is_active=False)))[0] is MoveKind.OFFLINE


def test_a_disk_that_the_target_does_not_see_is_copied_and_the_better_way_says_why_not():
    found = picture(there=target(likeness={DISK: False}))

    kind, why_not = choose_kind(found)

    assert kind is MoveKind.LIVE_STORAGE
    assert why_not == (f"live cannot be: lab2 does not see its disk vda ({DISK})",)
    assert found.disks[0].target_pool == "default"


BOOTS_ITSELF = XML.replace("</os>", "<kernel>/images/vmlinuz</kernel></os>")


def test_a_kernel_that_the_target_has_not_is_copied_but_for_a_definition_alone():
    found = picture(source(xml=BOOTS_ITSELF))

    assert choose_kind(found) == (MoveKind.LIVE, ())
    (kernel,) = found.boot_files
    assert (kernel.target, kernel.needs_copy, kernel.target_pool) == ("kernel", True, "default")
    assert the_check(found, "boot-files").blocks == {MoveKind.DEFINITION}
    nowhere = picture(source(xml=BOOTS_ITSELF), target(pools=(replace(POOLS[0], kind="logical"),)))
    assert the_check(nowhere, "boot-files").blocks == ALL


def test_a_kernel_at_the_same_path_is_there_and_one_where_no_pool_looks_may_be():
    volume = VolumeReading("/images/vmlinuz", "default", "vmlinuz", MIB, MIB, "raw")
    there = picture(source(xml=BOOTS_ITSELF), target(host=host("lab2", volumes={volume.path: volume})))
    assert not there.boot_files[0].needs_copy and not there.warnings
    unknown = picture(source(xml=BOOTS_ITSELF.replace("/images/vmlinuz", "/boot/vmlinuz")))
    assert not unknown.boot_files[0].needs_copy
    assert not the_check(unknown, "boot-files").blocks


def test_what_cannot_be_told_to_be_shared_is_copied_where_nobody_asked_for_more():
    found = picture(there=target(likeness={DISK: None}, pools=(replace(POOLS[0], path="/elsewhere"),)))

    kind, why_not = choose_kind(found)

    assert kind is MoveKind.LIVE_STORAGE
    assert why_not[0].startswith("live may not work: whether lab2 sees its disk vda")
    assert not found.blockers(MoveKind.LIVE)


def test_a_disk_of_which_nobody_can_tell_needs_a_place_for_its_copy_in_every_move_but_a_live_one():
    found = picture(there=target(likeness={DISK: None}, pools=()))

    assert not found.blockers(MoveKind.LIVE)
    (warning,) = [check.reason for check in found.warnings if "vda" in check.reason]
    assert warning.endswith("cannot be told: a live move proves it, others copy it")
    for kind in (MoveKind.LIVE_STORAGE, MoveKind.QUICK):
        assert [check.name for check in found.blockers(kind)] == ["pool"]
    assert choose_kind(found)[0] is MoveKind.LIVE


EACH: dict[str, tuple[dict[str, Any], dict[str, Any], str, frozenset[MoveKind], str]] = {
    "one host": ({}, {"host": host("lab2", host_uuid="uuid of lab1")}, "host", ALL, "the same host UUID"),
    "the same host": ({}, {"host": host("lab1")}, "host", ALL, "it is on lab1 already"),
    "a namesake": ({}, {"by_name": Namesake("other", "web", is_active=False)}, "name", ALL, "another VM named web"),
    "a twin that runs": ({}, {"by_uuid": Namesake(UUID, "web", is_active=True)}, "uuid", ALL, "runs a VM with"),
    "a twin that is off": ({}, {"by_uuid": Namesake(UUID, "old", is_active=False)}, "uuid", ALL, "a definition with"),
    "an older QEMU": ({}, {"host": host("lab2", hypervisor_version=6_002_000)}, "versions", MEMORY, "QEMU 7.2.0 on"),
    "no such machine": ({}, {"machines": frozenset({"pc"})}, "machine", ALL, "the machine type pc-q35-7.2"),
    "no KVM": ({}, {"domain_types": frozenset({"qemu"})}, "virtualization", ALL, "of the type kvm"),
    "no emulator": ({}, {"emulators": frozenset({"/usr/bin/other"})}, "emulator", ALL, "no emulator at /usr/bin/qemu"),
    "a lesser CPU": ({}, {"cpu": 0}, "cpu", MEMORY, "cannot give the guest the CPU that it runs with (Skylake)"),
    "no network": ({}, {"networks": {}}, "network", MOVES, "lab2 has no network lan"),
    "a network that is off": ({}, {"networks": {"lan": False}}, "network", MEMORY, "is not active on lab2"),
    "little memory": ({}, {"free_memory_bytes": 100 * MIB}, "memory", MEMORY, "100M of memory free"),
    "less memory in all": ({}, {"total_memory_bytes": 100 * MIB}, "memory", MOVES, "lab2 has 100M of memory"),
    "a sleeping guest": ({"is_asleep": True}, {}, "asleep", MEMORY, "sleeps"),
    "a busy domain": ({"is_busy": True}, {}, "busy", MOVES, "busy"),
    "checkpoints": ({"snapshots": ("a", "b")}, {}, "checkpoints", LIVE, "2 checkpoints (a, b)"),
    "checkpoints in files": (
        {"external_snapshots": ("a",), "snapshots": ()}, {}, "checkpoint-files", MOVES, "in files of their own (a)",
    ),
    "no definition": (
        {"is_persistent": False}, {}, "transient",
        frozenset({MoveKind.QUICK, MoveKind.OFFLINE, MoveKind.DEFINITION}), "transient",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EACH)
def test_an_obstacle_blocks_the_kinds_that_it_concerns_and_says_what_to_do(case: str):
    here, there, name, blocks, words = EACH[case]

    check = the_check(picture(source(**here), target(**there)), name)

    assert check.blocks == blocks
    assert words in check.reason
    assert check.remedy


DEVICES = {
    "<hostdev mode='subsystem' type='pci'/>": ("host-device", MEMORY),
    "<interface type='hostdev'/>": ("host-device", MEMORY),
    "<filesystem type='mount'/>": ("filesystem", MEMORY),
    "<shmem name='s'/>": ("shmem", MEMORY),
    "<tpm model='tpm-crb'><backend type='passthrough'/></tpm>": ("tpm", MOVES),
}


@pytest.mark.parametrize("xml", DEVICES)
def test_a_device_of_the_host_keeps_a_running_guest_there(xml: str):
    name, blocks = DEVICES[xml]

    assert the_check(picture(source(xml)), name).blocks == blocks


CD = "<disk type='file' device='cdrom'><source file='/isos/a.iso'/><target dev='sda'/></disk>"


def test_a_cd_that_the_target_has_not_blocks_until_it_is_ejected():
    there = target(likeness={DISK: True, "/isos/a.iso": False})

    check = the_check(picture(source(CD), there), "medium")

    assert check.blocks >= LIVE and "/isos/a.iso" in check.reason and "--eject" in check.remedy
    assert not picture(source(CD), there, eject=True).blockers(MoveKind.LIVE)


def test_a_cd_that_both_hosts_have_stays_in_its_drive():
    assert not picture(source(CD), target(likeness={DISK: True, "/isos/a.iso": True})).blockers(MoveKind.LIVE)


def test_an_unsafe_cache_mode_blocks_what_hands_the_disk_over_and_not_a_copy():
    xml = XML.replace("type='qcow2'/>", "type='qcow2' cache='unsafe'/>")

    assert the_check(picture(source(xml=xml)), "cache").blocks == {MoveKind.LIVE, MoveKind.QUICK}
    copied = picture(source(xml=xml), target(likeness={DISK: False}))
    assert not copied.blockers(MoveKind.LIVE_STORAGE)


def test_a_full_pool_blocks_copies_only():
    there = target(likeness={DISK: False}, pools=(replace(POOLS[0], free_bytes=50 * MIB),))

    check = the_check(picture(there=there), "space")

    assert check.blocks == {MoveKind.LIVE_STORAGE, MoveKind.QUICK, MoveKind.OFFLINE}
    assert "50M free" in check.reason


def test_a_pool_that_does_not_exist_is_named_with_those_that_do():
    request = MoveRequest(peer_uri="x", pools={"": "fast"})

    found = judge(source(), target(likeness={DISK: False}), request)

    assert "lab2 has no storage pool fast" in {check.reason for check in found.blockers(MoveKind.LIVE_STORAGE)}


def test_a_definition_that_an_earlier_move_left_is_replaced():
    found = picture(there=target(by_uuid=Namesake(UUID, "web", is_active=False, mark="0a1b2c3d")))

    assert not found.blockers(MoveKind.LIVE)
    assert any("earlier move" in check.reason for check in found.checks if check.ok)


def test_the_host_where_it_is_says_only_that():
    itself = Namesake(UUID, "web", is_active=True)
    found = picture(there=target(host=host("lab1"), by_uuid=itself, by_name=itself))

    assert [check.name for check in found.checks if not check.ok and check.blocks == ALL] == ["host"]


def test_a_simulated_host_moves_nothing():
    found = picture(there=target(host=host("lab2", driver="TEST")))

    assert [check.exit_code for check in found.checks] == [8]
    assert found.checks[0].blocks == ALL


def test_without_an_address_between_the_hosts_a_live_move_is_warned_about():
    found = judge(source(), target(), MoveRequest())

    assert any("hvtui itself drives" in check.reason for check in found.warnings)


def test_words_of_a_host_are_harmless_to_show():
    evil = XML.replace("network='lan'", "network='l&#xA;an\u202e'")

    reasons = [check.reason for check in picture(source(xml=evil)).checks]

    assert not any("\u202e" in reason or "\n" in reason for reason in reasons)


# Options


ONE = "Leave one of the two out"


@pytest.mark.parametrize(
    ("options", "reason", "remedy"),
    [
        ({"tunnelled": True, "connections": 2}, "a tunnelled migration has one connection", ONE),
        ({"tunnelled": True, "postcopy": True}, "a tunnelled migration has no post-copy", ONE),
        ({"tunnelled": True, "tls": True}, "libvirt's own connection, which has its own encryption", ONE),
        ({"tunnelled": True, "peer_to_peer": False}, "from host to host", "Give --peer-uri"),
        ({"connections": 2, "compress": True}, "libvirt 9.0.0 cannot compress over several", ONE),
        ({"connections": 2, "stuck": Stuck.POSTCOPY}, "post-copy does not work over several connections", ONE),
    ],
)
def test_options_that_exclude_each_other_are_refused_and_replaced_by_no_other_kind(
    options: dict[str, Any], reason: str, remedy: str
):
    found = picture(**options)

    told = [check for check in found.blockers(MoveKind.LIVE) if reason in check.reason]
    assert [check.remedy.startswith(remedy) for check in told] == [True]
    assert choose_kind(found)[0] is MoveKind.LIVE
    request = MoveRequest(MoveKind.QUICK, peer_uri="x", options=MoveOptions(**options))
    assert not judge(source(), target(), request).blockers(MoveKind.QUICK)


def test_post_copy_is_refused_where_the_kernel_keeps_it_from_qemu_and_told_where_nobody_knows():
    no, unknown, yes = (picture(postcopy=True, can=Abilities(can_postcopy=can)) for can in (False, None, True))

    (blocker,) = no.blockers(MoveKind.LIVE)
    assert blocker.reason.startswith("lab2 lets no QEMU fetch memory on demand")
    assert "vm.unprivileged_userfaultfd=1" in blocker.remedy
    assert next(check.reason for check in unknown.warnings).startswith("whether lab2 lets QEMU fetch memory")
    (warning,) = yes.warnings
    assert warning.reason.startswith("once post-copy has begun it cannot be taken back")


def test_certificates_that_lack_are_named_and_others_are_in_order():
    lacking = picture(tls=True, can=Abilities(("/etc/pki/qemu/client-key.pem",), ()))
    unknown = picture(tls=True)

    assert [check.reason for check in lacking.blockers(MoveKind.LIVE)] == ["lab1 has not /etc/pki/qemu/client-key.pem"]
    assert any(check.ok and check.reason == "lab2 has certificates for QEMU" for check in lacking.checks)
    assert [check.reason for check in unknown.warnings] == [
        f"whether {host} has certificates for QEMU cannot be told from here" for host in ("lab1", "lab2")
    ]


class _Told:
    """A host on which commands can be run, and whose QEMU is not root's."""

    name, uri, is_local, is_simulated = "lab2", "qemu+ssh://root@lab2/system", False, False

    def __init__(self, *, files: dict[str, str], says: dict[str, str] | None = None) -> None:
        self.files, self.says = files, says or {}

    @contextmanager
    def calls(self, *_about: str) -> Iterator[Any]:
        yield self

    def getCapabilities(self) -> str:  # noqa: N802 - libvirt's name
        model = "<secmodel><model>dac</model><baselabel type='kvm'>+64055:+64055</baselabel></secmodel>"
        return f"<capabilities><host>{model}</host></capabilities>"

    def run(self, _subject: Any, words: list[str]) -> subprocess.CompletedProcess[str]:
        program, *_options, place = words[2:]
        found = (self.says if program in {"grep", "cat"} else self.files).get(place)
        return subprocess.CompletedProcess(words, 0 if found is not None else 2, found or "", "")


@pytest.mark.parametrize(
    ("says", "files", "missing"),
    [
        ({}, {}, ["/etc/pki/qemu/ca-cert.pem", "/etc/pki/qemu/server-cert.pem", "/etc/pki/qemu/server-key.pem"]),
        ({}, {"/etc/pki/libvirt-migrate": "ca-cert.pem server-cert.pem"}, ["/etc/pki/libvirt-migrate/server-key.pem"]),
        ({"/etc/libvirt/qemu.conf": 'default_tls_x509_cert_dir = "/pki"'},
         {"/pki": "ca-cert.pem server-cert.pem server-key.pem"}, []),
    ],
)  # fmt: skip
def test_certificates_are_looked_for_where_libvirt_does(
    monkeypatch: pytest.MonkeyPatch, says: dict[str, str], files: dict[str, str], missing: list[str]
):
    host: Any = _Told(files=files, says=says)
    monkeypatch.setattr(host_test, "run_on", host.run)

    assert read_abilities(host, host, MoveRequest(options=MoveOptions(tls=True))).missing_there == tuple(missing)


@pytest.mark.parametrize(("told", "can"), [({"/proc/sys/vm/unprivileged_userfaultfd": "0\n"}, False), ({}, None)])
def test_the_kernels_setting_says_whether_there_can_be_post_copy(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], can: bool | None
):
    host: Any = _Told(files={}, says=told)
    monkeypatch.setattr(host_test, "run_on", host.run)

    assert read_abilities(host, host, MoveRequest(options=MoveOptions(postcopy=True))).can_postcopy is can
