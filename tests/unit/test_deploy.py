"""Plans that deploy VMs from a template, run on libvirt's test driver: what they make, and what stands in their way."""

from __future__ import annotations

import threading
from dataclasses import replace

import libvirt
import pytest

from host import jobs
from host.errors import NameTaken, NotFound, UsageError
from host.job_model import JobState
from host.journal import Journal
from host.units import GIB, MIB
from tests.support import new_vms
from vm import deploy, deploy_checks, inventory, steps
from vm.create_checks import Findings
from vm.create_request import Firmware
from vm.delete import plan_delete
from vm.deploy_request import DeployRequest
from vm.domain_xml import parse, read_config
from vm.new_domain_xml import new_mac
from vm.profile_model import GuestProfile, GuestUser, HardwareProfile, ProfileNic, Topology
from vm.template_mark import template_of
from vm.template_model import ImageRole, Library, Readiness, Template, TemplateImage

LIBRARY = "<pool type='dir'><name>library</name><target><path>/library</path></target></pool>"
DISK = TemplateImage("debian.qcow2", ImageRole.DISK, "qcow2", 4 * GIB, 900 * MIB, "0" * 64)
KERNEL = TemplateImage("tiny.vmlinuz", ImageRole.KERNEL, "raw", MIB, MIB, "1" * 64)
INITRD = TemplateImage("tiny.initrd", ImageRole.INITRD, "raw", MIB, MIB, "2" * 64)
DEBIAN = Template(
    "debian", (DISK,), revision=3, readiness=Readiness.CLOUD_INIT, takes_seed=True, tags=("debian",),
    os_id="http://debian.org/debian/12",
)  # fmt: skip
TINY = Template(
    "tiny", (KERNEL, INITRD), readiness=Readiness.AGENT, kernel_arguments="console=ttyS0 tiny.hostname={name}"
)
HARDWARE = HardwareProfile(memory_bytes=256 * MIB)
GUEST = GuestProfile("web", users=(GuestUser("alice", ssh_keys=("ssh-ed25519 AAAA alice",)),))
USER_DATA = "#cloud-config\npassword: swordfish\n"
ONE = DeployRequest("debian", ("web-01",), HARDWARE, GUEST, command=("vm", "deploy", "debian", "web-01"))
assert steps  # registers the verbs for jobs that are run again


@pytest.fixture
def host(open_world):
    pools = new_vms.POOL + LIBRARY + new_vms.NETWORK.format(name="default") + new_vms.NETWORK.format(name="lab")
    opened = open_world(new_vms.WORLD.format(body=pools))
    pool = opened.connection().storagePoolLookupByName("library")
    for image in (DISK, KERNEL, INITRD):
        xml = f"<volume><name>{image.volume}</name><capacity>{image.virtual_size_bytes}</capacity></volume>"
        pool.createXML(xml, 0)
    return opened


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.db")


@pytest.fixture(autouse=True)
def templates(monkeypatch):
    """The library of these tests; what reads a real one is tested elsewhere."""
    known = {"debian": DEBIAN, "tiny": TINY}
    library = Library("library", "/library", templates=tuple(known.values()))

    def find(_host, name, pool):
        assert pool == "library"
        return library, known[name]

    monkeypatch.setattr(deploy, "find_template", find)
    return known


def plan_one(host, request=ONE):
    plan_set = deploy.plan_deploy(host, request)
    (plan,) = plan_set.plans
    return plan


def run_all(plan_set, host, journal):
    done = [jobs.submit(plan, host, journal) for plan in (*plan_set.preparations, *plan_set.plans)]
    assert [job.state for job in done] == [JobState.DONE] * len(done), [job.error for job in done]
    return done


def volumes(host, pool="default"):
    return sorted(host.connection().storagePoolLookupByName(pool).listVolumes())


def verbs(plan):
    return [step.verb for step in plan.steps]


def reasons(plan_set):
    return [blocker.reason for blocker in plan_set.all_blockers]


# What a plan is made of


def test_a_linked_vm_gets_an_overlay_and_a_seed_that_is_gone_when_it_is_ready(host, journal):
    plan = plan_one(host)
    assert verbs(plan) == [
        *("deploy.disk", "deploy.seed", "create.define", "create.start", "deploy.ready", "deploy.unseed"),
    ]
    assert plan.long
    disk = plan.steps[0].args
    assert disk["backing"] == {"path": "/library/debian.qcow2", "format": "qcow2"}
    assert disk["capacity_bytes"] == 4 * GIB
    root, seed = read_config(plan.xml_after).disks
    assert (root.source, root.driver_format) == (disk["path"], "qcow2")
    assert seed.source.endswith(f"{plan.vm_uuid[:8]}.seed.iso")
    assert seed.read_only
    run_all(deploy.PlanSet("one", (plan,), ()), host, journal)
    domain = host.connection().lookupByName("web-01")
    (left,) = read_config(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).disks
    assert left.source == disk["path"]
    assert volumes(host) == [disk["name"]]


def test_what_a_seed_says_never_reaches_the_journal(host, journal, tmp_path):
    plan = plan_one(host, replace(ONE, user_data=USER_DATA))
    job = jobs.submit(plan, host, journal)
    assert job.state is JobState.DONE
    texts = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"swordfish" not in texts
    assert b"alice" not in texts


def test_a_full_copy_is_made_by_libvirt_and_grown(host, journal):
    request = replace(ONE, linked=False, pool="library", hardware=replace(HARDWARE, disk_bytes=8 * GIB))
    plan = plan_one(host, request)
    assert plan.steps[0].args["source"] == {"pool": "library", "volume": DISK.volume, "size_bytes": 900 * MIB}
    assert [line.split()[3] for line in plan.steps[0].commands] == ["vol-create-from", "vol-resize"]
    assert plan.steps[0].args["capacity_bytes"] == 8 * GIB


def test_every_vm_of_a_set_is_a_stranger_to_the_others(host):
    names = tuple(f"web-{number:02}" for number in range(1, 51))
    plan_set = deploy.plan_deploy(host, replace(ONE, names=names, hardware=HardwareProfile(memory_bytes=64 * MIB)))
    assert reasons(plan_set) == []
    assert [plan.vm_name for plan in plan_set.plans] == list(names)
    for read in (
        lambda plan: plan.vm_uuid,
        lambda plan: read_config(plan.xml_after).nics[0].mac,
        lambda plan: read_config(plan.xml_after).disks[0].source,
    ):
        assert len({read(plan) for plan in plan_set.plans}) == 50


def test_planning_fifty_vms_makes_as_many_calls_as_planning_one(host, monkeypatch):
    def calls(count):
        made, own = [], threading.get_ident()

        def note(name, real, arguments):
            if threading.get_ident() == own:  # an earlier test's thread may still close its connection
                made.append(name)
            return real(*arguments)

        names = [name for name in dir(libvirt.libvirtmod) if name.startswith("vir")]
        with monkeypatch.context() as patch:
            for name in names:
                real = getattr(libvirt.libvirtmod, name)
                patch.setattr(libvirt.libvirtmod, name, lambda *a, _f=real, _n=name: note(_n, _f, a))
            hardware = HardwareProfile(memory_bytes=32 * MIB)
            names = tuple(f"web-{number}" for number in range(count))
            deploy.plan_deploy(host, replace(ONE, names=names, hardware=hardware))
        return [name for name in made if "Free" not in name and "Ref" not in name]

    assert calls(50) == calls(1)


def test_a_linked_vm_is_made_by_one_call_for_its_disk_and_one_to_define_it(host, journal, monkeypatch):
    request = DeployRequest("debian", ("a", "b"), HARDWARE, GuestProfile(), start=False)
    monkeypatch.setattr(
        deploy, "find_template", lambda *_: (Library("library", "/library"), replace(DEBIAN, takes_seed=False))
    )
    second = deploy.plan_deploy(host, request).plans[1]
    assert verbs(second) == ["deploy.disk", "create.define"]
    job = jobs.create(second, journal)
    made = []
    for name in [name for name in dir(libvirt.libvirtmod) if name.startswith("vir")]:
        real = getattr(libvirt.libvirtmod, name)
        monkeypatch.setattr(libvirt.libvirtmod, name, lambda *a, _f=real, _n=name: made.append(_n) or _f(*a))
    jobs.run(job.id, host, journal)
    calls = [name for name in made if not name.endswith(("Free", "Ref", "ResetLastError", "GetLastError"))]
    assert calls == ["virStoragePoolLookupByName", "virStorageVolCreateXML", "virDomainDefineXMLFlags"]


def test_a_tiny_vm_boots_the_librarys_kernel_under_its_own_name(host, journal):
    request = DeployRequest("tiny", ("web-01",), HARDWARE, GuestProfile())
    plan = plan_one(host, request)
    assert verbs(plan) == ["create.define", "create.start", "deploy.ready"]
    root = parse(plan.xml_after)
    assert (root.findtext("os/kernel"), root.findtext("os/initrd")) == ("/library/tiny.vmlinuz", "/library/tiny.initrd")
    assert root.findtext("os/cmdline") == "console=ttyS0 tiny.hostname=web-01"
    spaced = parse(plan_one(host, replace(request, names=("a b",))).xml_after)
    assert spaced.findtext("os/cmdline") == "console=ttyS0"
    run_all(deploy.PlanSet("one", (plan,), ()), host, journal)


def test_the_profile_is_in_the_xml_and_the_template_in_the_metadata(host):
    hardware = HardwareProfile(
        "big", vcpus=4, topology=Topology(1, 2, 2), memory_bytes=512 * MIB, memory_minimum_bytes=256 * MIB,
        memory_maximum_bytes=GIB, disk_bus="scsi", nics=(ProfileNic("lab"), ProfileNic("user", "e1000e")),
    )  # fmt: skip
    plan = plan_one(host, replace(ONE, hardware=hardware, tags=("prod",), owner="alice"))
    root = parse(plan.xml_after)
    config = read_config(plan.xml_after)
    assert (config.memory_bytes, config.memory_max_bytes, config.vcpus) == (512 * MIB, GIB, 4)
    assert root.find("cpu/topology").attrib == {"sockets": "1", "cores": "2", "threads": "2"}
    assert [disk.target for disk in config.disks] == ["sda", "sdb"]
    assert [(nic.source, nic.model, nic.mac) for nic in config.nics] == [
        ("lab", "virtio", new_mac(plan.vm_uuid)),
        ("", "e1000e", new_mac(plan.vm_uuid, 1)),
    ]
    assert config.tags == ("debian", "prod")
    assert config.os_id == DEBIAN.os_id
    mark = template_of(root)
    assert (mark.name, mark.revision, mark.library, mark.linked) == ("debian", 3, "library", True)
    assert (mark.hardware_profile, mark.guest_profile) == ("big", "web")
    assert (mark.memory_minimum_bytes, mark.memory_maximum_bytes) == (256 * MIB, GIB)


def test_a_guest_that_boots_from_sata_gets_its_seed_as_a_cd(host, templates):
    templates["debian"] = replace(DEBIAN, disk_bus="sata", nic_model="e1000e")
    disks = read_config(plan_one(host).xml_after).disks
    assert [(disk.bus, disk.device) for disk in disks] == [("sata", "disk"), ("sata", "cdrom")]


def test_a_seed_that_nobody_takes_away_is_told(host):
    plan_set = deploy.plan_deploy(host, replace(ONE, wait_ready=False))
    assert verbs(plan_set.plans[0])[-1] == "create.start"
    assert "hvtui vm unseed" in " ".join(plan_set.warnings)
    assert "create.start" not in verbs(plan_one(host, replace(ONE, start=False)))


def test_the_pool_is_made_before_the_first_disk(open_world, journal):
    opened = open_world(new_vms.WORLD.format(body=LIBRARY))
    opened.connection().storagePoolLookupByName("library").createXML(
        f"<volume><name>{DISK.volume}</name><capacity>1</capacity></volume>", 0
    )
    plan_set = deploy.plan_deploy(opened, ONE)
    (preparation,) = plan_set.preparations
    assert verbs(preparation) == ["create.pool"]
    run_all(plan_set, opened, journal)
    assert len(volumes(opened)) == 1


def test_each_plan_equals_a_command_for_its_vm_alone(host):
    command = ("vm", "deploy", "-n", "2", "--pool", "default", "--first", "7", "debian", "web-{:02}")
    plan_set = deploy.plan_deploy(host, replace(ONE, names=("web-07", "web-08"), command=command))
    assert plan_set.command == command
    assert plan_set.plans[1].command == ("vm", "deploy", "--pool", "default", "debian", "web-08")


# Failure, rollback, undo


def test_a_failed_vm_leaves_nothing_and_the_others_stay(host, journal, monkeypatch):
    plan_set = deploy.plan_deploy(host, replace(ONE, names=("a", "b"), start=False))
    first, second = plan_set.plans
    broken = replace(
        second,
        steps=(*second.steps[:-1], replace(second.steps[-1], args={**second.steps[-1].args, "xml": "<domain/>"})),
    )
    assert jobs.submit(first, host, journal).state is JobState.DONE
    before = volumes(host)
    failed = jobs.submit(broken, host, journal)
    assert failed.state is JobState.FAILED
    assert volumes(host) == before
    assert inventory.find(host, "a")


def test_an_undone_deployment_leaves_nothing(host, journal):
    job = jobs.submit(plan_one(host), host, journal)
    undo = jobs.plan_undo(job, host)
    assert any("disk" in loss for loss in undo.losses)
    assert jobs.submit(undo, host, journal).state is JobState.DONE
    assert volumes(host) == []
    with pytest.raises(NotFound):
        inventory.find(host, "web-01")


def test_a_disk_that_a_killed_job_left_half_made_is_made_anew(host, journal):
    plan = plan_one(host)
    args = plan.steps[0].args
    xml = f"<volume><name>{args['name']}</name><capacity>7</capacity></volume>"
    host.connection().storagePoolLookupByName("default").createXML(xml, 0)
    assert jobs.submit(plan, host, journal).state is JobState.DONE
    volume = host.connection().storagePoolLookupByName("default").storageVolLookupByName(args["name"])
    assert volume.info()[1] == 4 * GIB


def test_a_deleted_vm_takes_its_seed_along_and_comes_back_without_it(host, journal):
    run_all(deploy.plan_deploy(host, replace(ONE, start=False)), host, journal)
    plan = plan_delete(host, inventory.find(host, "web-01"))
    assert any("its seed" in loss for loss in plan.losses)
    assert not any(
        "seed" in text for text in plan_delete(host, inventory.find(host, "web-01"), all_disks=True).warnings
    )
    job = jobs.submit(plan, host, journal)
    assert job.state is JobState.DONE, job.error
    assert not any("seed" in name for name in volumes(host))
    assert jobs.submit(jobs.plan_undo(job, host), host, journal).state is JobState.DONE
    assert len(read_config(host.connection().lookupByName("web-01").XMLDesc(0)).disks) == 1


# What stands in the way


def test_names_that_are_taken_are_named_with_the_number_to_begin_at(host, journal):
    taken = replace(ONE, names=("web-03", "web-07"), start=False)
    run_all(deploy.plan_deploy(host, taken), host, journal)
    names = tuple(f"web-{number:02}" for number in range(1, 11))
    plan_set = deploy.plan_deploy(host, replace(ONE, names=names, hardware=HardwareProfile(memory_bytes=64 * MIB)))
    assert reasons(plan_set) == ["there are VMs called web-03, web-07 already"]
    assert plan_set.blockers[0].remedy == "Begin after them: --first 8"
    assert plan_set.blockers[0].exit_code == NameTaken.exit_code


def test_names_without_a_number_have_no_number_to_begin_at(host, journal):
    run_all(deploy.plan_deploy(host, replace(ONE, names=("web",), start=False)), host, journal)
    plan_set = deploy.plan_deploy(host, replace(ONE, names=("web",)))
    assert plan_set.blockers[0].remedy == "Choose another name"


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (replace(ONE, names=()), "no VM is named"),
        (replace(ONE, names=("a", "b", "a")), "a would be made twice"),
        (replace(ONE, names=("a/b",)), "slash"),
        (replace(ONE, tags=("no tag",)), "not a tag"),
        (replace(ONE, user_data="nonsense"), "first line"),
        (replace(ONE, hardware=HardwareProfile(vcpus=3, topology=Topology(1, 2, 2))), "4 vCPUs"),
        (replace(ONE, hardware=HardwareProfile(memory_maximum_bytes=MIB)), "not in order"),
        (replace(ONE, hardware=HardwareProfile(disk_bus="ide")), "no bus"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_that_no_host_could_take_is_refused(host, request_, told):
    with pytest.raises(UsageError, match=told):
        deploy.plan_deploy(host, request_)


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (replace(ONE, names=tuple("abcd"), hardware=HardwareProfile(memory_bytes=3 * GIB)), "4 × 3.0G of memory"),
        (replace(ONE, pool="nowhere"), "no storage pool nowhere"),
        (replace(ONE, hardware=replace(HARDWARE, nics=(ProfileNic("nowhere"),))), "no network nowhere"),
        (replace(ONE, template="tiny", user_data=USER_DATA), "read no user data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_host_lacks_blocks_the_set(host, request_, told):
    assert told in " ".join(reasons(deploy.plan_deploy(host, request_)))


def test_memory_is_only_counted_for_vms_that_start(host):
    request = replace(ONE, names=tuple("abcd"), hardware=HardwareProfile(memory_bytes=3 * GIB), start=False)
    plan_set = deploy.plan_deploy(host, request)
    assert reasons(plan_set) == []
    assert "cannot all run at once" in " ".join(plan_set.warnings)


def test_an_image_that_is_gone_blocks_the_set(host, templates):
    templates["debian"] = replace(DEBIAN, images=(replace(DISK, volume="lost.qcow2"),))
    plan_set = deploy.plan_deploy(host, ONE)
    assert reasons(plan_set) == ["the template debian lacks its lost.qcow2"]


def test_overcommitted_space_is_said_in_words(host, templates):
    templates["debian"] = replace(DEBIAN, images=(replace(DISK, virtual_size_bytes=900 * GIB),))
    free = host.connection().storagePoolLookupByName("default").info()[3]
    count = free // (900 * GIB) + 1
    names = tuple(f"v{number}" for number in range(count))
    plan_set = deploy.plan_deploy(host, replace(ONE, names=names, start=False))
    assert "over-committed" in " ".join(plan_set.warnings)


def test_a_template_for_another_firmware_is_refused_where_the_host_has_none(host, templates, monkeypatch):
    templates["debian"] = replace(DEBIAN, firmware=Firmware.UEFI_SECURE)
    new_vms.taken_for_local(host, monkeypatch)
    monkeypatch.setattr(deploy, "read_defaults", lambda _host: replace(new_vms.KVM, secure_boot=False))
    monkeypatch.setattr(deploy.checks, "check_template", lambda *_: None)
    assert "no Secure Boot" in " ".join(reasons(deploy.plan_deploy(host, ONE)))


@pytest.mark.parametrize(
    ("names", "is_numbered", "remedy"),
    [
        (("web-01", "web-02"), True, "Begin after them: --first 4"),
        (("web-01",), False, "Choose another name: web-04"),
        (("lonely",), False, "Choose another name"),
    ],
)
def test_a_name_that_is_taken_is_answered_with_what_can_be_given(names, is_numbered, remedy):
    findings = Findings()
    deploy_checks.check_names(["web-01", "web-03", "lonely"], names, findings, is_numbered=is_numbered)
    assert findings.blockers[0].remedy == remedy
