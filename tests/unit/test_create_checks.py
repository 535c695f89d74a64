"""What keeps a VM from being made is said before anything is: names, sizes, firmware, CPUs, files."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from host import images
from host.errors import NotFound, Unsupported, UsageError, WrongState
from host.file_access import User
from tests.support import new_vms
from tests.support.new_vms import EMPTY, GIB, KVM, MIB, reasons
from vm import create, create_checks, inventory
from vm.create import plan_create
from vm.create_checks import Findings, GuestChoices
from vm.create_request import CreateRequest, Firmware, SourceKind


@pytest.fixture
def host(open_world):
    return new_vms.furnished(open_world)


@pytest.fixture
def local(host, monkeypatch):
    return new_vms.taken_for_local(host, monkeypatch)


# Prechecks


def test_a_name_that_is_taken_ends_with_the_code_of_a_conflict(simulated):
    name = inventory.read(simulated)[0].name
    taken = next(vm.name for vm in inventory.read(simulated) if vm.name == "web-01")
    plan = plan_create(simulated, replace(EMPTY, name=taken, disk_bytes=0))
    assert name
    assert f"there is a VM called {taken} already" in reasons(plan)
    with pytest.raises(WrongState) as caught:
        plan.raise_if_blocked()
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "a/b"},
        {"name": "web*"},
        {"name": "*"},
        {"name": "web?"},
        {"name": "web[1]"},
        {"source": SourceKind.TINY, "firmware": Firmware.UEFI},
        {"name": "evil\x1b[31m"},
        {"name": "n" * 10_000},
        {"vcpus": 0},
        {"memory_bytes": 1},
        {"disk_bytes": -1},
        {"disk_bytes": 512},
        {"disk_format": "vmdk"},
        {"tags": ("a b",)},
        {"title": "two\nlines"},
        {"description": "bell\x07"},
        {"owner": "\ud800"},
        {"source": SourceKind.IMAGE, "image": "relative.qcow2"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_values_that_no_host_can_take_are_a_usage_error(host, changes):
    with pytest.raises(UsageError):
        plan_create(host, replace(EMPTY, **changes))


def test_more_than_the_host_has_blocks(host):
    assert "is more than the host has (8.0G)" in reasons(plan_create(host, replace(EMPTY, memory_bytes=9 * GIB)))[0]
    assert "vCPUs are more than the" in reasons(plan_create(host, replace(EMPTY, vcpus=500)))[0]
    plan = plan_create(host, replace(EMPTY, vcpus=8))
    assert not plan.blockers
    assert "share the 4 of the host" in plan.warnings[0]


class FakeConnection:
    """getInfo and getMemoryStats of a host with 8 GiB, of which 3 are free or caches: the test driver has no such."""

    def getInfo(self):  # noqa: N802
        return ["x86_64", 8192, 4, 2000, 1, 1, 4, 1]

    def getMemoryStats(self, _cell, _flags):  # noqa: N802
        return {"total": 8 * MIB, "free": MIB, "buffers": MIB, "cached": MIB}


def test_more_memory_than_is_free_blocks_a_start_but_not_a_definition():
    findings = Findings()
    wanted = replace(EMPTY, memory_bytes=4 * GIB)
    create_checks.check_resources(FakeConnection(), wanted, KVM, findings)
    assert findings.blockers[0].reason == "4.0G of memory is more than the 3.0G that are free"
    findings = Findings()
    create_checks.check_resources(FakeConnection(), replace(wanted, start=False), KVM, findings)
    assert not findings.blockers
    own = (GIB, 24 * GIB)  # what the kernel of a local host says counts, not libvirt's sum of the NUMA cells
    create_checks.check_resources(FakeConnection(), replace(wanted, memory_bytes=20 * GIB), KVM, findings, memory=own)
    assert not findings.blockers


@pytest.mark.parametrize(
    ("firmware", "request_", "defaults", "expected"),
    [
        (Firmware.UEFI, EMPTY, replace(KVM, firmware=("bios",)), "no UEFI firmware"),
        (Firmware.UEFI_SECURE, EMPTY, replace(KVM, secure_boot=False), "no Secure Boot"),
        (Firmware.BIOS, EMPTY, replace(KVM, firmware=("uefi",)), "boot by UEFI only"),
        (Firmware.BIOS, replace(EMPTY, tpm=True), replace(KVM, tpm_models=()), "cannot emulate a TPM"),
    ],
)
def test_firmware_that_the_host_lacks_blocks_as_unsupported(firmware, request_, defaults, expected):
    findings = Findings()
    create_checks.check_firmware(request_, firmware, defaults, findings)
    (blocker,) = findings.blockers
    assert expected in blocker.reason
    assert blocker.exit_code == Unsupported.exit_code


def test_firmware_that_is_there_blocks_nothing():
    findings = Findings()
    create_checks.check_firmware(replace(EMPTY, tpm=True), Firmware.UEFI_SECURE, KVM, findings)
    assert not findings.blockers


@pytest.mark.parametrize(
    ("source", "firmware", "expected"),
    [
        (SourceKind.ISO, ("bios", "uefi"), Firmware.UEFI),
        (SourceKind.IMAGE, ("bios", "uefi"), Firmware.BIOS),
        (SourceKind.IMAGE, ("uefi",), Firmware.UEFI),
        (SourceKind.ISO, ("bios",), Firmware.BIOS),
    ],
)
def test_automatic_firmware_is_uefi_for_installing_where_there_is_one(source, firmware, expected):
    assert create._firmware(replace(EMPTY, source=source), replace(KVM, firmware=firmware)) is expected
    assert create._firmware(replace(EMPTY, firmware=Firmware.BIOS), KVM) is Firmware.BIOS


CHOICES = GuestChoices(frozenset({"maximum", "host-model"}), frozenset({"EPYC"}), frozenset({"vga"}))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("auto", None),
        ("maximum", None),
        ("EPYC", None),
        ("host-passthrough", "cannot have the CPU mode host-passthrough"),
        ("Pentium", "Pentium is no CPU model"),
    ],
)
def test_a_cpu_that_the_host_cannot_give_blocks(mode, expected):
    findings = Findings()
    create_checks.check_cpu(replace(EMPTY, cpu_mode=mode), CHOICES, findings)
    assert [expected in blocker.reason for blocker in findings.blockers] == ([True] if expected else [])


# Images


def image_findings(host, path, **changes):
    findings = Findings()
    request = replace(EMPTY, source=SourceKind.IMAGE, image=str(path), **changes)
    return create_checks.check_image(host, request, findings), findings


def make_image(path, *arguments):
    subprocess.run(["qemu-img", "create", "-q", *arguments, str(path), "1M"], check=True)
    return path


def test_an_images_format_is_told_by_its_content(local, tmp_path):
    found, findings = image_findings(local, make_image(tmp_path / "disk.img", "-f", "qcow2"))
    assert (found, findings.blockers) == ("qcow2", [])


def test_a_missing_image_blocks(local, tmp_path):
    found, findings = image_findings(local, tmp_path / "gone.qcow2")
    assert found == "qcow2"
    assert "there is no file" in findings.blockers[0].reason
    assert findings.blockers[0].exit_code == 3
    gone = CreateRequest("k", source=SourceKind.KERNEL, kernel=str(tmp_path / "gone"))
    with pytest.raises(NotFound):
        plan_create(local, replace(gone, network="none")).raise_if_blocked()


def test_an_image_of_another_hypervisor_is_to_be_converted(local, tmp_path):
    _, findings = image_findings(local, make_image(tmp_path / "disk.vmdk", "-f", "vmdk"))
    assert "vmdk, which is for importing only" in findings.blockers[0].reason
    assert "qemu-img convert" in findings.blockers[0].remedy


def test_an_iso_is_no_disk(local, tmp_path):
    iso = tmp_path / "cd.iso"
    iso.write_bytes(b"\0" * 32768 + b"\x01CD001\x01\x00" + b"\0" * 4096)
    _, findings = image_findings(local, iso)
    assert "installation medium, not a disk" in findings.blockers[0].reason
    findings = Findings()
    create_checks.check_iso(local, str(iso), findings)
    assert (findings.blockers, findings.warnings) == ([], [])


def test_a_file_that_is_no_iso_warns(local, tmp_path):
    findings = Findings()
    create_checks.check_iso(local, str(make_image(tmp_path / "x.img", "-f", "raw")), findings)
    assert "does not look like an ISO" in findings.warnings[0]
    create_checks.check_iso(local, str(tmp_path), findings)
    assert findings.blockers
    create_checks.check_iso(local, str(tmp_path / "none.iso"), findings)
    assert "there is no file" in findings.blockers[-1].reason


def test_a_text_that_is_named_as_an_image_warns_and_an_empty_raw_disk_does_not(local, tmp_path):
    for name in ("notes.qcow2", "notes.img"):
        (tmp_path / name).write_text("milk, bread")
        found, findings = image_findings(local, tmp_path / name)
        assert found == "raw"
        assert "looks like no disk image" in findings.warnings[0]
    _, findings = image_findings(local, make_image(tmp_path / "blank.img", "-f", "raw"))
    assert findings.warnings == []


def test_a_system_that_libosinfo_does_not_know_warns(tmp_path, monkeypatch):
    def warnings(os_id):
        findings = Findings()
        create_checks.check_os_id(os_id, findings)
        return findings.warnings

    monkeypatch.setattr(create_checks, "OS_DATABASE", tmp_path / "none")
    assert "is no id of libosinfo" in warnings("debian12")[0]
    assert warnings("http://debian.org/debian/99") == warnings("") == []
    monkeypatch.setattr(create_checks, "OS_DATABASE", tmp_path)
    (tmp_path / "debian.org").mkdir()
    (tmp_path / "debian.org" / "debian-12.xml").write_text("<libosinfo/>")
    assert warnings("http://debian.org/debian/12") == []
    assert "knows no system http://debian.org/debian/99" in warnings("http://debian.org/debian/99")[0]


def test_a_missing_backing_file_blocks_with_the_images_own_words(local, tmp_path):
    base = make_image(tmp_path / "base.qcow2", "-f", "qcow2")
    top = tmp_path / "top.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(top)], check=True)
    base.unlink()
    _, findings = image_findings(local, top)
    assert "base.qcow2" in findings.blockers[0].reason


@pytest.mark.parametrize(("trait", "word"), [("is_corrupt", "damaged"), ("is_encrypted", "encrypted")])
def test_damaged_and_encrypted_images_block(local, tmp_path, monkeypatch, trait, word):
    path = make_image(tmp_path / "disk.qcow2", "-f", "qcow2")
    info = replace(images.inspect(path), **{trait: True})
    monkeypatch.setattr(create_checks.images, "inspect", lambda _path: info)
    _, findings = image_findings(local, path)
    assert word in findings.blockers[0].reason


def test_a_directory_that_qemu_may_not_enter_blocks_as_denied(local, tmp_path, monkeypatch):
    nobody = User("nobody", 65534, frozenset({65534}))
    monkeypatch.setattr(create_checks, "_qemu_user", lambda _host: nobody)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    _, findings = image_findings(local, make_image(closed / "disk.qcow2", "-f", "qcow2"))
    assert "nobody may not pass through" in findings.blockers[0].reason
    assert findings.blockers[0].remedy.startswith("Allow it: setfacl")
    assert findings.blockers[0].exit_code == 5


def test_whom_qemu_runs_as_is_asked_of_libvirt(local, monkeypatch):
    label = (
        "<capabilities><host><secmodel><model>dac</model><baselabel type='kvm'>+77:+88</baselabel></secmodel></host>"
    )

    class Connection:
        def getCapabilities(self):  # noqa: N802
            return label + "</capabilities>"

    monkeypatch.setattr(local, "connection", Connection)
    monkeypatch.setattr(local, "_connection", lambda _role: Connection())
    assert create_checks._qemu_user(local) == User("user 77", 77, frozenset({88}))
    label = "<capabilities><host/>"
    assert create_checks._qemu_user(local) is None
    monkeypatch.setattr(local, "uri", "qemu:///session")
    assert create_checks._qemu_user(local) == User("root", 0, frozenset({0}))


def test_a_file_on_another_host_is_a_warning_never_a_guess(local, monkeypatch):
    monkeypatch.setattr(local, "is_local", False)
    found, findings = image_findings(local, "/elsewhere/disk.raw")
    assert found == "raw"
    assert "cannot be looked at from here" in findings.warnings[0]


def test_an_image_that_another_vm_uses_or_builds_on_blocks(simulated):
    vms = inventory.read_configs(simulated, inventory.read(simulated))
    owner = next(vm for vm in vms if vm.config.disks and vm.config.disks[0].source.startswith("/"))
    findings = Findings()
    create_checks.check_image_users(simulated, owner.config.disks[0].source, findings)
    assert any("uses this disk image" in blocker.reason for blocker in findings.blockers)


def test_an_image_that_another_image_builds_on_blocks(host):
    pool = host.connection().storagePoolLookupByName("default")
    pool.createXML(
        "<volume><name>top.qcow2</name><capacity>1048576</capacity><target><format type='qcow2'/></target>"
        "<backingStore><path>/images/base.qcow2</path><format type='qcow2'/></backingStore></volume>"
    )
    findings = Findings()
    create_checks.check_image_users(host, "/images/base.qcow2", findings)
    assert "the image /images/top.qcow2 builds on this one" in findings.blockers[0].reason


def test_a_kernel_is_looked_for(local, tmp_path):
    plan_ = CreateRequest("k", source=SourceKind.KERNEL, kernel=str(tmp_path / "vmlinuz"), initrd=str(tmp_path / "rd"))
    (tmp_path / "vmlinuz").write_bytes(b"K")
    assert reasons(plan_create(local, replace(plan_, network="none")))[-1].startswith(
        "the initial RAM disk: there is no"
    )
