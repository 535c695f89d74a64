"""Profiles in a real library: stored, read, changed, removed, taken back, and killed (-9) at every call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import libvirt
import pytest

from host import jobs
from host.connection import Host
from host.errors import Blocked, Conflict, NotFound
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Plan
from host.units import GIB
from tests.real.test_killed_real import DEADLY, hvtui
from vm import profile_steps, profile_store
from vm.profile_model import GuestProfile, GuestUser, HardwareProfile

LIBRARY = "library"
WEB = HardwareProfile(name="web", vcpus=2, memory_bytes=2 * GIB)
HASH = "$6$ih3IQ9ylYjFNapSy$hFnv3bm6Zjp2RYzDjElx0xT.Sg97Py11Mr2.7qxFvH/XlA119BSL0.XkIifXQu0.sOwVGv4qq0P.Lcwqs6/9T/"
GUEST = GuestProfile(name="web", users=(GuestUser("alice", password_hash=HASH),))


@pytest.fixture
def host(real_host: Host) -> Iterator[Host]:
    """A host without a library; the one that a test makes is removed with all that is in it."""
    yield real_host
    try:
        pool = libvirt.open(real_host.uri).storagePoolLookupByName(LIBRARY)
    except libvirt.libvirtError:
        return
    for volume in pool.listAllVolumes():
        volume.delete()
    pool.destroy()
    pool.undefine()


def run(plan: Plan, host: Host, journal: Journal) -> Job:
    job = jobs.submit(plan, host, journal)
    assert job.state is JobState.DONE, job.error
    return job


def store(profile: HardwareProfile | GuestProfile, host: Host, journal: Journal, *, replaces: bool = False) -> Job:
    return run(profile_store.plan_add_profile(host, LIBRARY, profile, replaces=replaces), host, journal)


def stored(host: Host) -> list[str]:
    return sorted(host.connection().storagePoolLookupByName(LIBRARY).listVolumes())


def half(host: Host, name: str) -> None:
    pool = host.connection().storagePoolLookupByName(LIBRARY)
    pool.createXML(f"<volume><name>{name}</name><capacity>9</capacity><target><format type='raw'/></target></volume>")


def test_a_profile_is_stored_found_changed_and_removed(host: Host, journal: Journal) -> None:
    store(WEB, host, journal)
    store(GUEST, host, journal)
    assert profile_store.load(host, LIBRARY, "web") == (WEB, GUEST)
    larger = replace(WEB, memory_bytes=4 * GIB)
    store(larger, host, journal, replaces=True)
    (entry, _) = profile_store.read(host, LIBRARY).named("web")
    assert (entry.profile, entry.revision) == (larger, 2)
    assert len(stored(host)) == 2
    run(profile_store.plan_remove_profile(host, LIBRARY, "web", "hardware"), host, journal)
    assert profile_store.load(host, LIBRARY, "web") == (None, GUEST)
    with pytest.raises(Conflict):
        profile_store.plan_add_profile(host, LIBRARY, GUEST).raise_if_blocked()
    with pytest.raises(NotFound):
        profile_store.plan_remove_profile(host, LIBRARY, "web", "hardware")


def test_a_stored_profile_takes_the_place_of_a_built_in_one(host: Host, journal: Journal) -> None:
    mine = HardwareProfile(name="small", memory_bytes=GIB // 2)
    store(mine, host, journal)
    assert profile_store.load(host, LIBRARY, "small") == (mine, None)
    run(profile_store.plan_remove_profile(host, LIBRARY, "small", "hardware"), host, journal)
    assert profile_store.load(host, LIBRARY, "small")[0] in profile_store.BUILT_IN


def test_each_change_can_be_taken_back(host: Host, journal: Journal) -> None:
    store(WEB, host, journal)
    changed = store(replace(WEB, vcpus=4), host, journal, replaces=True)
    run(jobs.plan_undo(changed, host), host, journal)
    assert profile_store.load(host, LIBRARY, "web") == (WEB, None)
    removed = run(profile_store.plan_remove_profile(host, LIBRARY, "web", "hardware"), host, journal)
    run(jobs.plan_undo(removed, host), host, journal)
    assert profile_store.load(host, LIBRARY, "web") == (WEB, None)


def test_what_may_be_secret_is_nowhere_but_in_the_library(host: Host, journal: Journal) -> None:
    store(GUEST, host, journal)
    removed = run(profile_store.plan_remove_profile(host, LIBRARY, "web", "guest"), host, journal)
    left = [path for path in journal.path.parent.rglob("*") if path.is_file()]
    assert left
    assert not [path for path in left if HASH.encode() in path.read_bytes()]
    with pytest.raises(Blocked, match="kept nowhere"):
        jobs.plan_undo(removed, host).raise_if_blocked()


def test_half_a_volume_is_no_profile_and_the_next_change_removes_it(host: Host, journal: Journal) -> None:
    store(WEB, host, journal)
    half(host, "web.r2-00000000.hardware.toml")
    half(host, "new.r1-00000000.hardware.toml")
    found = profile_store.read(host, LIBRARY)
    assert [each.profile for each in found.named("web")] == [WEB]
    assert len(found.problems) == 2
    with pytest.raises(NotFound, match=r"new\.r1-00000000"):
        profile_store.load(host, LIBRARY, "new")
    store(replace(WEB, vcpus=4), host, journal, replaces=True)
    store(HardwareProfile(name="new"), host, journal)
    assert [name.split("-")[0] for name in stored(host)] == ["new.r2", "web.r3"]
    assert profile_store.read(host, LIBRARY).problems == ()


def test_a_profile_changed_by_somebody_else_in_between_is_not_overwritten(host: Host, journal: Journal) -> None:
    store(WEB, host, journal)
    late = profile_store.plan_add_profile(host, LIBRARY, replace(WEB, vcpus=8), replaces=True)
    store(replace(WEB, vcpus=4), host, journal, replaces=True)
    job = jobs.submit(late, host, journal)
    assert (job.state, job.exit_code) == (JobState.FAILED, Conflict.exit_code)
    assert profile_store.load(host, LIBRARY, "web")[0] == replace(WEB, vcpus=4)


CALLS = {"profile.write": (0, 1, 3, 5, 7, 9, 11, 13), "profile.remove": (0, 1, 2, 3, 4, 5)}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("ending", ["restart", "rollback"])
def test_a_change_killed_at_any_call_leaves_a_whole_profile(host: Host, journal: Journal, ending: str) -> None:
    store(WEB, host, journal)
    vcpus = 2
    killed_jobs = 0
    for verb, calls in CALLS.items():
        for call in calls:
            killed = hvtui(
                *("profile", "edit", "web", "--set", f"vcpus={vcpus + 1}"),
                host=host,
                PYTHONPATH=str(DEADLY),
                HVTUI_TEST_KILL_AT=f"{verb}:{call}",
            )
            assert "Traceback" not in killed.stderr
            (at_once, _) = profile_store.load(host, LIBRARY, "web")
            assert at_once is not None
            assert at_once.vcpus in {vcpus, vcpus + 1}, (verb, call)
            journal.recover()
            job = journal.jobs(limit=1)[0]
            if job.state is JobState.INTERRUPTED:
                killed_jobs += 1
                ended = hvtui("job", ending, str(job.id), host=host)
                assert ended.returncode == 0, (verb, call, ended.stderr)
            else:  # it came to its end in fewer calls
                assert job.state is JobState.DONE
            is_changed = ending == "restart" or job.state is JobState.DONE
            vcpus += is_changed
            (after, _) = profile_store.load(host, LIBRARY, "web")
            assert after is not None
            assert after.vcpus == vcpus, (verb, call)
            assert len(stored(host)) == 1
            assert profile_steps.parse_volume_name(stored(host)[0]) is not None
    assert killed_jobs > len(CALLS) * 3
