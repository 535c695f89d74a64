from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from host import images, jobs
from host.accelerator import Accelerator, AcceleratorKind
from host.errors import Blocked, NotFound, Unsupported, UsageError, WrongState
from host.facts import GuestDefaults
from host.file_access import User
from host.job_model import JobState
from host.journal import Journal
from host.steps import StepContext, verb_named
from vm import create, create_checks, create_steps, inventory, tiny
from vm.create import plan_create, tiny_request
from vm.create_checks import Findings, GuestChoices
from vm.create_options import options
from vm.create_request import CreateRequest, Firmware, Graphics, SourceKind
from vm.domain_xml import parse, read_config
from vm.model import VmState

MIB = 1024**2
GIB = 1024**3
EMPTY = CreateRequest("fresh", source=SourceKind.EMPTY, memory_bytes=256 * MIB, disk_bytes=GIB)

WORLD = """
<node>
  <cpu><nodes>1</nodes><sockets>1</sockets><cores>4</cores><threads>1</threads><active>4</active><mhz>2000</mhz></cpu>
  <memory>8388608</memory>
  {body}
</node>
"""
POOL = "<pool type='dir'><name>default</name><target><path>/images</path></target></pool>"
NETWORK = (
    "<network><name>{name}</name><bridge name='{name}br'/><ip address='192.0.2.1' netmask='255.255.255.0'/></network>"
)


@pytest.fixture
def host(open_world):
    """A simulated host with a pool and two networks, both active."""
    return open_world(WORLD.format(body=POOL + NETWORK.format(name="default") + NETWORK.format(name="lab")))


@pytest.fixture
def bare(open_world):
    """A simulated host with nothing on it."""
    return open_world(WORLD.format(body=""))


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.db")


def reasons(plan):
    return [blocker.reason for blocker in plan.blockers]


def verbs(plan):
    return [step.verb for step in plan.steps]


def run(plan, host, journal):
    job = jobs.submit(plan, host, journal)
    assert job.state is JobState.DONE, job.error
    return job


# What a plan is made of


def test_a_vm_with_a_new_disk_is_made_started_and_taken_back(host, journal):
    plan = plan_create(host, EMPTY)
    assert verbs(plan) == ["create.volume", "create.define", "create.start"]
    assert plan.long
    assert plan.command == ("vm", "create", "--from", "empty", "--memory", "256M", "--disk", "1G", "fresh")
    job = run(plan, host, journal)
    vm = inventory.find(host, "fresh")
    assert (vm.uuid, vm.state) == (plan.vm_uuid, VmState.RUNNING)
    (disk,) = read_config(plan.xml_after).disks
    assert disk.source == f"/images/fresh-{plan.vm_uuid[:8]}.qcow2"
    undo = jobs.plan_undo(job, host)
    assert undo.losses == (
        "what the guest has in memory",
        "the VM fresh with its firmware variables, saved state and checkpoints",
        f"the disk {disk.source} and everything written to it",
    )
    run(undo, host, journal)
    with pytest.raises(NotFound):
        inventory.find(host, "fresh")
    assert host.connection().storagePoolLookupByName("default").listVolumes() == []


def test_the_first_vm_of_a_simulated_host_is_a_tiny_one_without_any_file(host, journal):
    plan = plan_create(host, tiny_request("web"))
    assert verbs(plan) == ["create.define", "create.start", "create.wait"]
    assert run(plan, host, journal).steps[-1].result == {"ready": True}
    assert plan.command == ("vm", "create", "--from", "tiny", "web")


def test_each_step_shows_the_command_that_does_the_same(host):
    plan = plan_create(host, replace(EMPTY, name="it's", autostart=True))
    lines = [line for step in plan.steps for line in step.commands]
    assert [line.split()[3] for line in lines] == ["vol-create-as", "define", "autostart", "start"]
    assert all(line.startswith("virsh -c test:///") for line in lines)
    assert "'it'\"'\"'s'" in lines[-1]


def test_a_vm_may_be_only_defined(host, journal):
    plan = plan_create(host, replace(EMPTY, start=False, autostart=True, disk_bytes=0))
    assert verbs(plan) == ["create.define"]
    run(plan, host, journal)
    vm = inventory.find(host, "fresh")
    assert (vm.state, vm.autostart) == (VmState.OFF, True)


def test_an_iso_gets_a_disk_to_install_to(host):
    plan = plan_create(host, CreateRequest("inst", source=SourceKind.ISO, iso="/isos/debian.iso"))
    disk, drive = read_config(plan.xml_after).disks
    assert (disk.device, drive.source) == ("disk", "/isos/debian.iso")
    assert "20.0G disk" in plan.title


def test_a_disk_has_whole_mebibytes(host):
    plan = plan_create(host, replace(EMPTY, disk_bytes=GIB + 1))
    assert plan.steps[0].args["capacity_bytes"] == GIB + MIB


def test_a_read_only_host_makes_nothing(host):
    host.read_only = True
    assert "read-only" in reasons(plan_create(host, EMPTY))[0]


# Networks


@pytest.mark.parametrize(
    ("network", "kind", "source"),
    [("auto", "network", "default"), ("lab", "network", "lab"), ("user", "user", ""), ("bridge:br7", "bridge", "br7")],
)
def test_a_network_is_what_was_asked_for(host, network, kind, source):
    (nic,) = read_config(plan_create(host, replace(EMPTY, network=network)).xml_after).nics
    assert (nic.source_type, nic.source, nic.model) == (kind, source, "virtio")


def test_without_a_network_there_is_no_interface(host):
    assert read_config(plan_create(host, replace(EMPTY, network="none")).xml_after).nics == ()


def test_where_no_default_network_is_active_the_vm_is_made_without_one_and_it_says_so(host):
    host.connection().networkLookupByName("default").destroy()
    plan = plan_create(host, EMPTY)
    assert read_config(plan.xml_after).nics == ()
    assert "net-start --network default" in plan.warnings[0]
    assert not plan.blockers


def test_an_unprivileged_libvirt_gets_user_networking(bare, monkeypatch):
    bare.connection()
    monkeypatch.setattr(bare, "uri", "test:///x/session")
    assert read_config(plan_create(bare, replace(EMPTY, disk_bytes=0)).xml_after).nics[0].source_type == "user"


def test_an_unknown_or_inactive_network_blocks(host):
    plan = plan_create(host, replace(EMPTY, network="lan"))
    assert reasons(plan) == ["there is no network lan"]
    assert "default, lab" in plan.blockers[0].remedy
    host.connection().networkLookupByName("lab").destroy()
    plan = plan_create(host, replace(EMPTY, network="lab"))
    assert reasons(plan) == ["the network lab is not active"]
    assert "net-start --network lab" in plan.blockers[0].remedy


def test_a_bridge_must_exist_on_the_local_host(monkeypatch, host):
    findings = Findings()
    monkeypatch.setattr(host, "is_simulated", False)
    create_checks.check_bridge(host, "no-such-br", findings)
    assert findings.blockers[0].reason == "there is no bridge no-such-br on the host"
    with pytest.raises(UsageError):
        create_checks.check_bridge(host, "a bridge", findings)


# Storage pools


def test_a_host_without_a_pool_gets_the_default_one(bare, journal):
    plan = plan_create(bare, EMPTY)
    assert verbs(plan)[0] == "create.pool"
    assert [line.split()[3] for line in plan.steps[0].commands] == [
        "pool-define-as",
        "pool-build",
        "pool-start",
        "pool-autostart",
    ]
    job = run(plan, bare, journal)
    pool = bare.connection().storagePoolLookupByName("default")
    assert (pool.isActive(), pool.autostart(), pool.numOfVolumes()) == (1, 1, 1)
    run(jobs.plan_undo(job, bare), bare, journal)
    assert bare.connection().listAllStoragePools() == []


def test_the_pool_of_an_unprivileged_libvirt_is_in_the_home_directory(bare, monkeypatch):
    bare.connection()
    monkeypatch.setattr(bare, "uri", "test:///x/session")
    assert plan_create(bare, EMPTY).steps[0].args["path"] == str(Path.home() / ".local/share/libvirt/images")


def test_an_inactive_pool_is_started_and_stays_after_an_undo(host, journal):
    pool = host.connection().storagePoolLookupByName("default")
    pool.destroy()
    plan = plan_create(host, EMPTY)
    assert plan.steps[0].title == "Start the storage pool default"
    job = run(plan, host, journal)
    run(jobs.plan_undo(job, host), host, journal)
    assert pool.isActive()


def test_a_pool_with_other_volumes_is_not_removed(bare, journal):
    job = run(plan_create(bare, EMPTY), bare, journal)
    pool = bare.connection().storagePoolLookupByName("default")
    args = {"name": "other", "capacity_bytes": MIB, "format": "raw"}
    pool.createXML(create_steps.volume_xml(args), 0)
    run(jobs.plan_undo(job, bare), bare, journal)
    assert pool.listVolumes() == ["other"]


def test_an_unknown_pool_blocks_and_names_those_there_are(host):
    plan = plan_create(host, replace(EMPTY, pool="fast"))
    assert reasons(plan) == ["there is no storage pool fast"]
    assert plan.blockers[0].remedy == "Pools here: default"


def test_pools_of_other_types_are_refused_where_they_do_not_fit(bare):
    connection = bare.connection()
    connection.storagePoolDefineXML(
        "<pool type='logical'><name>vg</name><source><name>vg</name></source>"
        "<target><path>/dev/vg</path></target></pool>"
    ).create()
    connection.storagePoolDefineXML(
        "<pool type='scsi'><name>lun</name><source><adapter type='scsi_host' name='host1'/></source>"
        "<target><path>/dev/disk/by-path</path></target></pool>"
    ).create()
    assert reasons(plan_create(bare, replace(EMPTY, pool="lun"))) == ["the storage pool lun is of type scsi"]
    assert reasons(plan_create(bare, replace(EMPTY, pool="vg"))) == ["vg holds logical volumes"]
    plan = plan_create(bare, replace(EMPTY, pool="vg", disk_format="raw"))
    (disk,) = read_config(plan.xml_after).disks
    assert (disk.source, disk.source_type) == (f"/dev/vg/fresh-{plan.vm_uuid[:8]}", "block")


def test_a_full_pool_blocks_and_a_tight_one_warns(host):
    with_raw = replace(EMPTY, disk_bytes=10**15, disk_format="raw")
    assert "free, the disk is" in reasons(plan_create(host, with_raw))[0]
    plan = plan_create(host, replace(EMPTY, disk_bytes=10**15))
    assert not plan.blockers
    assert "a full pool pauses the VM" in plan.warnings[0]


# Prechecks


def test_a_name_that_is_taken_ends_with_the_code_of_a_conflict(simulated):
    name = inventory.read(simulated)[0].name
    taken = next(vm.name for vm in inventory.read(simulated) if vm.name.isascii() and len(vm.name) < 40)
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


KVM = GuestDefaults(
    accelerator=Accelerator(AcceleratorKind.KVM, ""),
    architecture="x86_64",
    emulator="/usr/bin/qemu-system-x86_64",
    machine="pc-q35-7.2",
    cpu_mode="host-model",
    firmware=("bios", "uefi"),
    secure_boot=True,
    tpm_models=("tpm-crb",),
    vcpus_max=288,
)


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


@pytest.fixture
def local(host, monkeypatch):
    """The simulated host taken for a local one, so that files are really looked at."""
    monkeypatch.setattr(host, "is_simulated", False)
    monkeypatch.setattr(create_checks.images, "qemu_user", lambda _uri="": User("root", 0, frozenset({0})))
    simulated = Accelerator(AcceleratorKind.TEST, "")
    monkeypatch.setattr(create, "read_defaults", lambda _host: replace(KVM, accelerator=simulated))
    return host


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


# The tiny guest on a real host


@pytest.fixture
def tiny_planned(local, monkeypatch):
    monkeypatch.setattr(tiny, "identity", lambda: "abc")
    monkeypatch.setattr(tiny, "obstacle", lambda _architecture: "")
    return local


def test_the_tiny_guest_is_uploaded_into_the_pool(tiny_planned):
    plan = plan_create(tiny_planned, tiny_request("web"))
    assert verbs(plan) == ["create.tiny", "create.define", "create.start", "create.wait"]
    root = parse(plan.xml_after)
    assert root.findtext("os/kernel") == "/images/hvtui-tiny-abc.vmlinuz"
    assert "tiny.hostname=web" in root.findtext("os/cmdline")


def test_a_host_that_cannot_have_the_tiny_guest_says_why(tiny_planned, monkeypatch):
    monkeypatch.setattr(tiny, "obstacle", lambda _architecture: "made for x86_64 hosts")
    assert reasons(plan_create(tiny_planned, tiny_request("web"))) == ["made for x86_64 hosts"]


def test_a_full_cache_directory_is_said_before_anything_is_built(tiny_planned, monkeypatch):
    monkeypatch.setattr(create.images, "free_bytes", lambda _path: 10 * MIB)
    (reason,) = reasons(plan_create(tiny_planned, tiny_request("web")))
    assert reason == f"{os.environ['HVTUI_CACHE_DIR']} has 10M free, the tiny guest needs 300M"
    with pytest.raises(Blocked):
        plan_create(tiny_planned, tiny_request("web")).raise_if_blocked()


# Steps, as a killed job runs them again or takes them back


def context(host):
    return StepContext(host, 1, lambda _fraction, _note: None, lambda: False)


def test_every_step_may_be_run_twice_and_taken_back_twice(bare, monkeypatch):
    monkeypatch.setattr(create_steps, "_SETTLE_S", 0)
    plan = plan_create(bare, EMPTY)
    for step in plan.steps:
        for _ in range(2):
            verb_named(step.verb).do(context(bare), step.args)
    assert inventory.find(bare, "fresh").state is VmState.RUNNING
    for step in reversed(plan.steps):
        for _ in range(2):
            verb_named(step.verb).rollback(context(bare), step.args, None)
    assert bare.connection().listAllDomains() == []
    assert bare.connection().listAllStoragePools() == []


def test_a_rollback_touches_nothing_of_the_same_name_that_somebody_else_made(host):
    plan = plan_create(host, replace(EMPTY, disk_bytes=0))
    other = plan_create(host, replace(EMPTY, disk_bytes=0))
    verb_named("create.define").do(context(host), other.steps[0].args)
    with pytest.raises(Exception, match="already exists"):
        verb_named("create.define").do(context(host), plan.steps[0].args)
    verb_named("create.define").rollback(context(host), plan.steps[0].args, None)
    assert inventory.find(host, "fresh").uuid == other.vm_uuid


def test_a_half_made_disk_of_a_daemon_that_died_is_made_anew(host):
    (step,) = [step for step in plan_create(host, EMPTY).steps if step.verb == "create.volume"]
    pool = host.connection().storagePoolLookupByName("default")
    pool.createXML(create_steps.volume_xml({**step.args, "capacity_bytes": MIB}), 0)
    verb_named("create.volume").do(context(host), step.args)
    assert pool.storageVolLookupByName(step.args["name"]).info()[1] == step.args["capacity_bytes"]


def test_removing_volumes_of_a_pool_that_is_gone_or_stopped_is_done(host):
    args = {"pool": "nowhere", "name": "x"}
    verb_named("create.volume").rollback(context(host), args, None)
    host.connection().storagePoolLookupByName("default").destroy()
    verb_named("create.volume").rollback(context(host), {**args, "pool": "default"}, None)


def test_other_errors_of_libvirt_are_not_taken_for_absence():
    def fails():
        error = libvirt.libvirtError("broken")
        error.err = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, "broken", 2, "", None, None, -1, -1)
        raise error

    with pytest.raises(libvirt.libvirtError):
        create_steps.or_none(fails, missing=frozenset({libvirt.VIR_ERR_NO_DOMAIN}))


def test_what_undo_removes_has_no_way_back():
    for name in ("pool", "volume", "tiny"):
        assert verb_named(f"create.remove-{name}").inverse({}, {}) == "what was removed is gone for good"
    assert verb_named("create.tiny").inverse({"pool": "p"}, {"made": []}) is None
    assert verb_named("create.pool").inverse({}, {"made": False}) is None


# The equivalent command line


def test_every_option_that_differs_from_its_default_is_shown():
    request = CreateRequest(
        "web",
        source=SourceKind.KERNEL,
        kernel="/k",
        initrd="/i",
        kernel_arguments="quiet",
        vcpus=4,
        memory_bytes=3 * GIB // 2,
        disk_bytes=1025,
        disk_format="raw",
        pool="fast",
        network="user",
        firmware=Firmware.UEFI,
        tpm=True,
        cpu_mode="maximum",
        graphics=Graphics.NONE,
        os_id="http://d/12",
        title="T",
        description="D",
        tags=("a", "b"),
        owner="o",
        autostart=True,
        wait_ready=False,
    )
    assert options(request) == (
        *("--kernel", "/k", "--initrd", "/i", "--cmdline", "quiet", "--memory", "1536M", "--cpus", "4"),
        *("--disk", "1025B", "--pool", "fast", "--disk-format", "raw", "--network", "user", "--firmware", "uefi"),
        *("--cpu", "maximum", "--graphics", "none", "--os", "http://d/12", "--title", "T", "--description", "D"),
        *("--owner", "o", "--tag", "a", "--tag", "b", "--tpm", "--autostart", "--no-wait"),
    )


def test_defaults_are_not_shown():
    assert options(tiny_request("t")) == ("--from", "tiny")
    bare_kernel = CreateRequest(
        "k", source=SourceKind.KERNEL, kernel="/k", start=False, memory_bytes=2048 * 1024 + 1024
    )
    assert options(bare_kernel) == ("--kernel", "/k", "--memory", "2049K", "--no-start")
