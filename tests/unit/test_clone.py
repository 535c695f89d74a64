"""Plans of clones on libvirt's test driver: what they make, and what stands in their way."""

from __future__ import annotations

import pytest

from host import jobs
from host.errors import UsageError
from host.job_model import JobState
from host.journal import Journal
from tests.support import simulated_world
from vm import clone, inventory, steps
from vm.domain_xml import read_config

assert steps  # registers the verbs
POOL = "<pool type='dir'><name>default</name><target><path>/images</path></target></pool>"


@pytest.fixture
def host(open_world):
    vms = [
        simulated_world.domain("web", disks=["/images/web.qcow2"], tags=["a"], owner="alice", networks=["default"]),
        simulated_world.domain("busy", state="running", disks=["/images/busy.qcow2"]),
        simulated_world.domain("far", disks=["/elsewhere/far.qcow2"]),
        simulated_world.domain("bare"),
        simulated_world.domain("pair-1", disks=["/images/pair.qcow2"]),
        simulated_world.domain("pair-2", disks=["/images/pair.qcow2"]),
    ]
    opened = open_world(f"<node>{POOL}{''.join(vms)}</node>")
    pool = opened.connection().storagePoolLookupByName("default")
    for name in ("web", "pair"):
        text = f"<volume><name>{name}.qcow2</name><capacity>1048576</capacity><target><format type='qcow2'/></target>"
        pool.createXML(f"{text}</volume>", 0)
    return opened


def planned(host, name, *names, **how):
    return clone.plan_clone(host, inventory.find(host, name), names or ("copy",), **how)


def reasons(plan_set):
    return " / ".join(blocker.reason for blocker in plan_set.all_blockers)


@pytest.mark.parametrize("linked", [False, True])
def test_clones_are_made_and_undone(host, linked):
    plan_set = planned(host, "web", "one", "two", linked=linked)
    plan_set.raise_if_blocked()
    pool = host.connection().storagePoolLookupByName("default")
    with Journal() as journal:
        done = [jobs.submit(plan, host, journal) for plan in (*plan_set.preparations, *plan_set.plans)]
        assert [job.state for job in done] == [JobState.DONE] * (3 if linked else 2), [job.error for job in done]
        for name in ("one", "two"):
            config = read_config(host.connection().lookupByName(name).XMLDesc(0))
            assert (config.tags, config.owner) == (("a",), "alice")
            assert config.disks[0].source.startswith(f"/images/{name}-")
            assert config.disks[0].source.rpartition("/")[2] in pool.listVolumes()
        undone = [jobs.submit(jobs.plan_undo(job, host), host, journal) for job in reversed(done)]
    assert [job.state for job in undone] == [JobState.DONE] * len(done), [job.error for job in undone]
    assert sorted(pool.listVolumes()) == ["pair.qcow2", "web.qcow2"]
    assert read_config(host.connection().lookupByName("web").XMLDesc(0)).disks[0].source == "/images/web.qcow2"


def test_a_vm_without_disks_can_be_cloned(host):
    plan_set = planned(host, "bare")
    assert [step.verb for step in plan_set.plans[0].steps] == ["create.define"]


def test_a_running_vm_is_no_base_of_linked_clones(host):
    assert "nobody writes to" in reasons(planned(host, "busy", linked=True))


def test_a_name_that_is_taken_and_a_disk_in_no_pool_are_said_before(host):
    assert "called web already" in reasons(planned(host, "bare", "web"))
    assert "no active storage pool has /elsewhere/far.qcow2" in reasons(planned(host, "far"))
    assert "no active storage pool nowhere" in reasons(planned(host, "web", pool="nowhere"))


def test_a_name_that_no_vm_can_have_is_refused(host):
    with pytest.raises(UsageError):
        planned(host, "web", "a/b")


def test_each_plan_s_command_makes_that_one(host):
    plan_set = planned(host, "web", "one", "two", linked=True, start=True)
    assert [plan.command for plan in plan_set.plans] == [
        ("vm", "clone", "--linked", "--start", "web", name) for name in ("one", "two")
    ]


def test_a_disk_that_another_vm_writes_to_is_no_base(host):
    assert "pair-2 uses it too" in reasons(planned(host, "pair-1", linked=True))
    assert not reasons(planned(host, "pair-1"))
