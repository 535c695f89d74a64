"""Where a VM departs from its template and profile, and what aligning it changes: on libvirt's test driver."""

from __future__ import annotations

from dataclasses import replace

import pytest

from host import jobs
from host.errors import NotFound, UsageError
from host.job_model import JobState
from host.journal import Journal
from host.units import GIB, MIB
from tests.support import new_vms
from vm import deploy, drift, inventory, profile_store
from vm.deploy_request import DeployRequest
from vm.domain_xml import parse, read_config, set_tags, to_text
from vm.origin import read_origin
from vm.profile_model import GuestProfile, HardwareProfile, ProfileNic, Topology
from vm.template_model import ImageRole, Library, Template, TemplateImage

LIBRARY = "<pool type='dir'><name>library</name><target><path>/library</path></target></pool>"
DISK = TemplateImage("debian.qcow2", ImageRole.DISK, "qcow2", 4 * GIB, 900 * MIB, "0" * 64)
DEBIAN = Template("debian", (DISK,), revision=3, tags=("debian",), os_id="http://debian.org/debian/12")
WEB = HardwareProfile("web", vcpus=2, memory_bytes=256 * MIB, nics=(ProfileNic("default"), ProfileNic("lab")))


@pytest.fixture
def host(open_world):
    pools = new_vms.POOL + LIBRARY + new_vms.NETWORK.format(name="default") + new_vms.NETWORK.format(name="lab")
    opened = open_world(new_vms.WORLD.format(body=pools))
    pool = opened.connection().storagePoolLookupByName("library")
    pool.createXML(f"<volume><name>{DISK.volume}</name><capacity>{DISK.virtual_size_bytes}</capacity></volume>", 0)
    return opened


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.db")


@pytest.fixture(autouse=True)
def templates(monkeypatch):
    """A library and a profile of these tests."""
    known, profiles = {"debian": DEBIAN}, {"web": WEB}

    def find(_host, name, pool):
        if name not in known:
            raise NotFound("there is no such template", about=name)
        return Library(pool, "/library", templates=tuple(known.values())), known[name]

    def load(_host, _library, name):
        if name not in profiles:
            raise NotFound("there is no such profile", about=name)
        return profiles[name], None

    monkeypatch.setattr(deploy, "find_template", find)
    monkeypatch.setattr(drift, "find_template", find)
    monkeypatch.setattr(profile_store, "load", load)
    return known, profiles


@pytest.fixture
def web(host, journal):
    """A VM deployed a moment ago."""
    plan_set = deploy.plan_deploy(host, DeployRequest("debian", ("web-01",), WEB, GuestProfile(), start=False))
    for plan in (*plan_set.preparations, *plan_set.plans):
        assert jobs.submit(plan, host, journal).state is JobState.DONE
    return lambda: inventory.find(host, "web-01")


def change(host, edit):
    """Define the VM anew, as `edit` changed its XML."""
    connection = host.connection()
    root = parse(connection.lookupByName("web-01").XMLDesc(0))
    edit(root)
    connection.defineXML(to_text(root))


def keys(host, vm):
    return [each.key for each in drift.compare(host, vm()).differences]


def test_a_vm_that_was_just_deployed_departs_in_nothing(host, web):
    found = drift.compare(host, web())
    assert (found.template, found.revision, found.profile) == ("debian", 3, "web")
    assert found.differences == ()
    assert found.notes == ()


def test_what_was_changed_is_named_with_both_values(host, web):
    change(host, lambda root: setattr(root.find("vcpu"), "text", "4"))
    (found,) = drift.compare(host, web()).differences
    assert (found.key, found.expected, found.found, found.can_align) == ("vcpus", "2", "4", True)


def deployed(host, journal, hardware):
    """A VM deployed with that hardware."""
    plan_set = deploy.plan_deploy(host, DeployRequest("debian", ("web-01",), hardware, GuestProfile(), start=False))
    for plan in (*plan_set.preparations, *plan_set.plans):
        assert jobs.submit(plan, host, journal).state is JobState.DONE
    return lambda: inventory.find(host, "web-01")


def test_what_was_set_at_its_deployment_is_no_departure_and_is_told(host, journal):
    vm = deployed(host, journal, replace(WEB, memory_bytes=192 * MIB, nics=(ProfileNic("lab", "e1000"),)))
    found = drift.compare(host, vm())
    assert found.differences == ()
    assert found.settings == ("memory=192M", "network=lab", "nic-model=e1000")
    assert found.notes == ("memory 192M, network lab, nic-model e1000 (set at its deployment)",)


def test_aligning_goes_back_to_what_was_set_at_its_deployment(host, journal):
    vm = deployed(host, journal, replace(WEB, memory_bytes=192 * MIB))
    change(host, _more_memory)
    found = drift.compare(host, vm())
    assert found.differences[0].expected == "192M (set at its deployment)"
    jobs.submit(drift.plan_align(host, vm(), found), host, journal)
    config = read_config(host.connection().lookupByName("web-01").XMLDesc(0))
    assert config.memory_bytes == 192 * MIB
    assert keys(host, vm) == []


def test_a_profile_that_was_a_file_is_remembered_value_by_value(host, journal):
    shape = Topology(1, 2, 2)
    nics = (ProfileNic("default"), ProfileNic("lab", "e1000"))
    hardware = HardwareProfile("mine", vcpus=4, topology=shape, memory_maximum_bytes=3 * GIB, nics=nics)
    assert drift.compare(host, deployed(host, journal, hardware)()).differences == ()


def test_settings_that_do_not_fit_the_profile_any_more_are_left_out_with_a_word(host, journal, templates):
    vm = deployed(host, journal, replace(WEB, memory_bytes=192 * MIB))
    templates[1]["web"] = replace(WEB, memory_minimum_bytes=224 * MIB)
    found = drift.compare(host, vm())
    assert found.settings == ()
    assert "does not fit its profile any more" in found.notes[0]


def _drop_a_card(root):
    devices = root.find("devices")
    devices.remove(devices.findall("interface")[1])


def _more_memory(root):
    for tag in ("memory", "currentMemory"):
        root.find(tag).text = str(512 * 1024)


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (_drop_a_card, ["nics"]),
        (_more_memory, ["memory", "memory-maximum"]),
        (lambda root: root.find("devices").remove(root.find("devices/rng")), ["integration"]),
        (lambda root: set_tags(root, ("mine",)), ["tags"]),
    ],
    ids=["card", "memory", "rng", "tags"],
)
def test_aligning_brings_it_back_and_leaves_the_rest(host, web, journal, edit, changed):
    mac = parse(host.connection().lookupByName("web-01").XMLDesc(0)).find("devices/interface/mac").get("address")
    change(host, edit)
    assert keys(host, web) == changed
    plan = drift.plan_align(host, web(), drift.compare(host, web()))
    assert plan.command == ("vm", "align", "web-01")
    assert jobs.submit(plan, host, journal).state is JobState.DONE
    assert keys(host, web) == []
    config = read_config(host.connection().lookupByName("web-01").XMLDesc(0))
    assert config.nics[0].mac == mac


def test_tags_of_ones_own_are_no_departure_and_stay(host, web, journal):
    change(host, lambda root: set_tags(root, ("mine", "debian")))
    assert keys(host, web) == []
    change(host, lambda root: set_tags(root, ("mine",)))
    jobs.submit(drift.plan_align(host, web(), drift.compare(host, web())), host, journal)
    config = read_config(host.connection().lookupByName("web-01").XMLDesc(0))
    assert set(config.tags) == {"mine", "debian"}


def test_aligning_can_be_undone(host, web, journal):
    change(host, _more_memory)
    job = jobs.submit(drift.plan_align(host, web(), drift.compare(host, web())), host, journal)
    assert jobs.submit(jobs.plan_undo(job, host, journal), host, journal).state is JobState.DONE
    assert keys(host, web) == ["memory", "memory-maximum"]


def test_only_what_is_asked_for_is_aligned_and_the_rest_is_told(host, web, journal):
    change(host, _more_memory)
    change(host, _drop_a_card)
    plan = drift.plan_align(host, web(), drift.compare(host, web()), ["nics"])
    assert plan.command == ("vm", "align", "--only", "nics", "web-01")
    assert any("memory" in line for line in plan.keeps)
    jobs.submit(plan, host, journal)
    assert keys(host, web) == ["memory", "memory-maximum"]


def _memory_of(host):
    config = read_config(host.connection().lookupByName("web-01").XMLDesc(0))
    return config.memory_bytes // MIB, config.memory_max_bytes // MIB


@pytest.mark.parametrize(("key", "then"), [("memory", (256, 512)), ("memory-maximum", (300, 448))])
def test_memory_and_its_most_are_aligned_each_alone(host, web, journal, templates, key, then):
    templates[1]["web"] = replace(WEB, memory_maximum_bytes=448 * MIB)

    def edit(root):
        root.find("memory").text, root.find("currentMemory").text = str(512 * 1024), str(300 * 1024)

    change(host, edit)
    plan = drift.plan_align(host, web(), drift.compare(host, web()), [key])
    assert jobs.submit(plan, host, journal).state is JobState.DONE
    assert _memory_of(host) == then


def test_what_cannot_be_aligned_alone_takes_the_other_along_and_says_so(host, web, journal):
    change(host, _more_memory)
    plan = drift.plan_align(host, web(), drift.compare(host, web()), ["memory-maximum"])
    assert "memory is aligned too: memory cannot be more than the most memory" in plan.warnings
    assert not any("memory" in line for line in plan.keeps)
    jobs.submit(plan, host, journal)
    assert _memory_of(host) == (256, 256)


def test_an_unknown_key_without_any_difference_says_that_there_is_none(host, web):
    with pytest.raises(UsageError) as caught:
        drift.plan_align(host, web(), drift.compare(host, web()), ["foo"])
    assert caught.value.remedy == "It is as debian says"


def test_the_model_of_the_cpu_is_aligned_without_its_topology(host, web, journal):
    def edit(root):
        text = "<domain><cpu mode='maximum'><topology sockets='2' cores='1' threads='1'/></cpu></domain>"
        root.extend(parse(text))

    change(host, edit)
    found = drift.compare(host, web())
    assert {"cpu", "topology"} <= {each.key for each in found.differences}
    jobs.submit(drift.plan_align(host, web(), found, ["cpu"]), host, journal)
    assert keys(host, web) == ["topology"]


def test_autostart_is_aligned_by_a_step_of_its_own(host, web, journal, templates):
    templates[1]["web"] = replace(WEB, autostart=True)
    assert keys(host, web) == ["autostart"]
    job = jobs.submit(drift.plan_align(host, web(), drift.compare(host, web())), host, journal)
    assert job.state is JobState.DONE
    assert keys(host, web) == []


def test_a_disk_more_is_told_and_never_removed(host, web):
    def add(root):
        disk = parse("<domain><disk type='file'><source file='/x'/><target dev='vdx' bus='virtio'/></disk></domain>")
        root.find("devices").append(disk.find("disk"))

    change(host, add)
    (found,) = drift.compare(host, web()).differences
    assert (found.key, found.expected, found.found, found.can_align) == ("disks", "1", "2", False)
    with pytest.raises(UsageError, match="nothing about it can be aligned"):
        drift.plan_align(host, web(), drift.compare(host, web()))
    with pytest.raises(UsageError, match="may hold data"):
        drift.plan_align(host, web(), drift.compare(host, web()), ["disks"])


def test_vcpus_and_their_topology_are_aligned_together(host, web, journal, templates):
    templates[1]["web"] = replace(WEB, vcpus=4, topology=Topology(1, 2, 2))
    assert keys(host, web) == ["vcpus", "topology"]
    jobs.submit(drift.plan_align(host, web(), drift.compare(host, web())), host, journal)
    assert keys(host, web) == []


def test_a_newer_revision_of_the_template_is_a_note(host, web, templates):
    templates[0]["debian"] = replace(DEBIAN, revision=4)
    assert drift.compare(host, web()).notes == ("made from revision 3 of debian, which is at revision 4 now",)


def test_a_profile_that_is_gone_is_a_note(host, web, templates):
    del templates[1]["web"]
    assert "is not in the library" in drift.compare(host, web()).notes[0]


def test_a_vm_of_no_template_is_compared_only_with_a_named_one(host, web):
    change(host, lambda root: root.remove(root.find("metadata")))
    with pytest.raises(UsageError, match="not made from a template"):
        drift.compare(host, web())
    assert drift.compare(host, web(), template="debian").template == "debian"
    with pytest.raises(NotFound):
        drift.compare(host, web(), template="nothing")


def test_an_unknown_key_is_answered_with_the_nearest(host, web):
    change(host, _more_memory)
    with pytest.raises(UsageError) as caught:
        drift.plan_align(host, web(), drift.compare(host, web()), ["memry"])
    assert "memory" in caught.value.remedy


def test_what_a_vm_was_made_of_is_known_with_the_job_that_made_it(host, journal):
    vm = deployed(host, journal, replace(WEB, memory_bytes=192 * MIB))
    found = read_origin(host, vm(), journal)
    assert found.template is not None
    assert (found.template.name, found.template.revision, found.template.hardware_profile) == ("debian", 3, "web")
    assert found.template.settings == ("memory=192M",)
    assert found.job_title == "Deploy web-01 from debian"
    assert found.made_at is not None
    assert read_origin(host, vm()).job is None


def test_of_a_vm_that_somebody_else_made_nothing_is_known(host, web, journal):
    connection = host.connection()
    connection.defineXML(
        "<domain type='test'><name>alien</name><memory>1024</memory><os><type>hvm</type></os></domain>"
    )
    assert not read_origin(host, inventory.find(host, "alien"), journal).is_known
