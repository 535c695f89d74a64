"""The library's changes killed (-9) at every call, and under a libvirtd that dies: a whole template, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from host import jobs
from host.connection import Host
from host.job_engine import Patience
from host.job_model import Job, JobState
from host.journal import Journal
from host.units import MIB
from tests.support.library_lab import (  # noqa: F401 - the fixtures are found by their names
    NAME,
    Hv,
    accounted,
    bare_host_fixture,
    cache_fixture,
    host_fixture,
    hv_fixture,
    image_fixture,
    listed,
    noise,
    prepared,
    qcow2,
    stored,
    whole,
)
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import library as libraries
from vm import steps
from vm.library_index import INDEX_NAME
from vm.template_add import AddRequest, plan_add
from vm.template_change import plan_remove

assert steps  # registers the verbs
DEADLY = Path(__file__).parents[1] / "support/killing"


# Killed by SIGKILL


def killed(hv: Hv, journal: Journal, words: Sequence[str], place: str) -> int | None:
    """The id of the job that died at that place; None when it was done before it came there."""
    hv(*words, PYTHONPATH=str(DEADLY), HVTUI_TEST_KILL_AT=place)
    journal.recover()
    job = journal.jobs(limit=1)[0]
    if job.state is JobState.DONE:
        return None
    assert job.state is JobState.INTERRUPTED, job.error
    return job.id


ADD_STEPS = pytest.mark.parametrize(
    ("verb", "calls"),
    [
        ("template.prepare", range(1)),
        ("template.upload", range(0, 99, 13)),
        ("template.store", range(0, 99, 11)),
        ("template.finish", range(0, 99, 11)),
    ],
    ids=["prepare", "upload", "store", "finish"],
)


@ADD_STEPS
@pytest.mark.timeout(400)
def test_an_add_killed_at_any_call_is_rolled_back_to_nothing(
    hv: Hv, host: Host, journal: Journal, cache: Path, image: Path, verb: str, calls: range
) -> None:
    assert hv("template", "add", "first", "--from", str(image)).code == 0
    before = stored(host)
    for call in calls:
        job = killed(hv, journal, ("template", "add", NAME, "--from", str(image)), f"{verb}:{call}")
        if job is None:
            break
        assert listed(host) in (["first"], [NAME, "first"])
        result = hv("job", "rollback", str(job))
        assert result.code == 0, (call, result)
        assert stored(host) == before, f"killed after call {call} of {verb}"
        assert prepared(cache) == []
        assert listed(host) == ["first"]
    assert call >= calls.step or calls.stop == 1, "the step was killed at least once in the middle"


@pytest.mark.timeout(400)
def test_the_first_add_makes_the_library_and_a_kill_at_any_call_is_rolled_back(
    hv: Hv, bare_host: Host, journal: Journal, image: Path
) -> None:
    for call in range(0, 20, 3):
        job = killed(hv, journal, ("template", "add", NAME, "--from", str(image)), f"create.pool:{call}")
        if job is None:
            break
        result = hv("job", "rollback", str(job))
        assert result.code == 0, (call, result)
        assert not libraries.read(bare_host).exists
    assert call >= 3
    assert [each.name for each in libraries.read(bare_host).templates] == [NAME]
    pool = bare_host.connection().storagePoolLookupByName("library")
    assert pool.autostart()
    assert hv("job", "undo", str(journal.jobs(limit=1)[0].id)).code == 0
    assert libraries.read(bare_host).templates == ()


@ADD_STEPS
@pytest.mark.timeout(400)
def test_an_add_killed_at_any_call_is_completed_by_a_restart(
    hv: Hv, host: Host, journal: Journal, cache: Path, image: Path, verb: str, calls: range
) -> None:
    for call in range(5, calls.stop, 2 * calls.step) or calls:
        job = killed(hv, journal, ("template", "add", NAME, "--from", str(image)), f"{verb}:{call}")
        if job is None:
            break
        result = hv("job", "restart", str(job))
        assert result.code == 0, (call, result)
        assert listed(host) == [NAME]
        assert stored(host) == accounted(host), f"killed after call {call} of {verb}"
        assert prepared(cache) == []
        assert hv("template", "verify").code == 0
        assert hv("template", "remove", NAME).code == 0
        assert stored(host) == {INDEX_NAME}


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("verb", "calls"), [("template.upload", range(2, 99, 23)), ("template.store", range(9, 99, 17))]
)
def test_an_add_that_died_and_was_given_up_is_cleared_up_by_the_next_change(
    hv: Hv, host: Host, journal: Journal, image: Path, verb: str, calls: range
) -> None:
    for call in calls:
        job = killed(hv, journal, ("template", "add", NAME, "--from", str(image)), f"{verb}:{call}")
        if job is None:
            break
        assert hv("job", "cancel", str(job)).code == 0
        assert listed(host) in ([], [NAME])
        result = hv("template", "add", "next", "--from", str(image))
        assert result.code == 0, (call, result)
        assert stored(host) == accounted(host), f"killed after call {call} of {verb}"
        for name in listed(host):
            assert hv("template", "remove", name).code == 0


REMOVE_STEPS = pytest.mark.parametrize(
    ("verb", "calls"),
    [
        ("template.withdraw", range(0, 99, 9)),
        ("template.remove-images", range(0, 99, 9)),
        ("template.finish", range(0, 99, 19)),
    ],
    ids=["withdraw", "remove-images", "finish"],
)


@REMOVE_STEPS
@pytest.mark.timeout(400)
def test_a_removal_killed_at_any_call_leaves_a_whole_template_or_none_and_is_completed(
    hv: Hv, host: Host, journal: Journal, image: Path, verb: str, calls: range
) -> None:
    assert hv("template", "add", "first", "--from", str(image)).code == 0
    for call in calls:
        if NAME not in listed(host):
            assert hv("template", "add", NAME, "--from", str(image)).code == 0
        job = killed(hv, journal, ("template", "remove", NAME), f"{verb}:{call}")
        if job is None:
            break
        assert "first" in listed(host)
        result = hv("job", "restart", str(job))
        assert result.code == 0, (call, result)
        assert listed(host) == ["first"]
        assert stored(host) == accounted(host), f"killed after call {call} of {verb}"


@REMOVE_STEPS
@pytest.mark.timeout(400)
def test_a_removal_killed_at_any_call_is_rolled_back_to_a_whole_template_or_cleared_up_later(
    hv: Hv, host: Host, journal: Journal, image: Path, verb: str, calls: range
) -> None:
    for call in calls[::2]:
        if NAME not in (listed(host) if stored(host) else ()):
            assert hv("template", "add", NAME, "--from", str(image)).code == 0
        job = killed(hv, journal, ("template", "remove", NAME), f"{verb}:{call}")
        if job is None:
            break
        result = hv("job", "rollback", str(job))
        assert result.code == 0, (call, result)
        assert listed(host) in ([], [NAME])
        assert hv("template", "add", "next", "--from", str(image)).code == 0
        assert stored(host) == accounted(host), f"killed after call {call} of {verb}"
        assert hv("template", "remove", "next").code == 0


@pytest.mark.timeout(400)
@pytest.mark.parametrize("deed", ["restart", "rollback", "cancel"])
def test_an_edit_killed_at_any_call_leaves_one_whole_revision(
    hv: Hv, host: Host, journal: Journal, image: Path, deed: str
) -> None:
    assert hv("template", "add", NAME, "--from", str(image)).code == 0
    for call in range(3, 99, 11):
        before = libraries.find(host, NAME)[1]
        words = ("template", "edit", NAME, f"description={deed} {call}")
        job = killed(hv, journal, words, f"template.store:{call}")
        if job is None:
            break
        assert listed(host) == [NAME]
        assert hv("job", deed, str(job)).code == 0
        after = libraries.find(host, NAME)[1]
        assert after.description in {before.description, f"{deed} {call}"}
        if deed != "cancel":
            assert after.description == (f"{deed} {call}" if deed == "restart" else before.description)
        assert hv("template", "edit", NAME, f"tags=after-{call}").code == 0
        assert stored(host) == accounted(host), f"killed after call {call}"


def test_a_change_that_lives_is_not_cleared_up_by_another(hv: Hv, host: Host, image: Path) -> None:
    from host import job_process
    from vm import template_leftovers

    assert hv("template", "add", "first", "--from", str(image)).code == 0
    record = template_leftovers.record_name("other", "0a1b2c3d")
    with host.calls("test") as connection:
        template_leftovers.write_record(
            connection, "library", record, deed="adding it", volume_names=["other-0a1b2c3d.qcow2"]
        )
    assert not job_process.is_alive("")
    (Path(libraries.read(host).path) / "other-0a1b2c3d.qcow2").write_bytes(b"half")
    assert hv("template", "add", "second", "--from", str(image)).code == 0
    assert {record, "other-0a1b2c3d.qcow2"} <= stored(host)


# A libvirtd that dies

DEEDS = {
    "add": ("template.prepare", "template.upload", "template.store", "template.finish"),
    "remove": ("template.withdraw", "template.remove-images", "template.finish"),
}


@pytest.mark.parametrize(("deed", "verb"), [(deed, verb) for deed, verbs in DEEDS.items() for verb in verbs])
def test_a_libvirtd_that_dies_in_a_step_is_waited_for(
    host: Host, journal: Journal, private_daemon: PrivateLibvirtd, cache: Path, tmp_path: Path, deed: str, verb: str
) -> None:
    image = noise(tmp_path / "noise.qcow2", 24 * MIB)
    plan = plan_add(host, AddRequest(NAME, str(image)))
    if deed == "remove":
        assert jobs.submit(plan, host, journal).state is JobState.DONE
        plan = plan_remove(host, *libraries.find(host, NAME))
    killed_at: list[float] = []

    def kill_once(job: Job) -> None:
        step = job.current_step
        is_there = step is not None and step.verb == verb and (verb != "template.upload" or (step.fraction or 0) > 0.2)
        if is_there and not killed_at:
            killed_at.append(step.fraction or 0.0)
            private_daemon.restart()

    created = jobs.create(plan, journal)
    job = jobs.run(created.id, host, journal, kill_once, patience=Patience(progress_every_s=0.0))
    assert killed_at
    assert job.state is JobState.DONE, job.error
    assert listed(host) == ([NAME] if deed == "add" else [])
    assert stored(host) == accounted(host)
