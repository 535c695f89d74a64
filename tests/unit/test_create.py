"""Plans for new VMs, run on libvirt's test driver: what they make, and what a rollback or an undo takes back."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from host import jobs
from host.errors import Blocked, NotFound, UsageError
from host.job_model import JobState
from host.journal import Journal
from host.steps import StepContext, verb_named
from tests.support import new_vms
from tests.support.new_vms import EMPTY, GIB, MIB, reasons
from vm import create, create_checks, create_steps, create_wait, inventory, tiny
from vm.create import plan_create, tiny_request
from vm.create_checks import Findings
from vm.create_options import options
from vm.create_request import CreateRequest, Firmware, Graphics, SourceKind
from vm.domain_xml import parse, read_config
from vm.model import VmState


@pytest.fixture
def host(open_world):
    return new_vms.furnished(open_world)


@pytest.fixture
def bare(open_world):
    return new_vms.bare(open_world)


@pytest.fixture
def local(host, monkeypatch):
    return new_vms.taken_for_local(host, monkeypatch)


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.db")


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


def test_only_the_tiny_guest_is_waited_for_unless_that_is_asked_for(host):
    plain = CreateRequest("fresh", source=SourceKind.EMPTY, disk_bytes=MIB)
    assert "create.wait" not in verbs(plan_create(host, plain))
    asked = plan_create(host, replace(plain, wait_ready=True))
    assert verbs(asked)[-1] == "create.wait"
    assert "--wait" in asked.command
    impatient = plan_create(host, replace(tiny_request("web"), wait_ready=False))
    assert "create.wait" not in verbs(impatient)
    assert "--no-wait" in impatient.command


def test_who_cancels_the_wait_for_a_guest_keeps_the_vm(host, journal, monkeypatch):
    plan = plan_create(host, tiny_request("web"))
    monkeypatch.setattr(create_wait, "_agent_answers", lambda ctx, _args: jobs.cancel(ctx.job_id, journal) and False)
    job = run(plan, host, journal)
    assert job.warnings == ("stopped waiting; its guest has not answered",)
    assert inventory.find(host, "web").state is VmState.RUNNING


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
        wait_ready=True,
    )
    assert options(request) == (
        *("--kernel", "/k", "--initrd", "/i", "--cmdline", "quiet", "--memory", "1536M", "--cpus", "4"),
        *("--disk", "1025B", "--pool", "fast", "--disk-format", "raw", "--network", "user", "--firmware", "uefi"),
        *("--cpu", "maximum", "--graphics", "none", "--os", "http://d/12", "--title", "T", "--description", "D"),
        *("--owner", "o", "--tag", "a", "--tag", "b", "--tpm", "--autostart", "--wait"),
    )


def test_defaults_are_not_shown():
    assert options(tiny_request("t")) == ("--from", "tiny")
    bare_kernel = CreateRequest(
        "k", source=SourceKind.KERNEL, kernel="/k", start=False, memory_bytes=2048 * 1024 + 1024
    )
    assert options(bare_kernel) == ("--kernel", "/k", "--memory", "2049K", "--no-start")
