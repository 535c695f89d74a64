"""Exports and imports that are killed, cancelled, undone, or lose their libvirtd: completed, or as if never begun."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from host import jobs
from host.connection import Host
from host.errors import Cancelled
from host.job_model import JobState
from host.journal import Journal
from tests.support import bundles
from tests.support.bundles import (
    NAME,
    delete,
    disk_of,
    killed,
    linked,
    plain_vm,
    pools_of_hvtui,
    same_disk,
    state_files,
    traces,
    whole_vm,
)
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.running import Notes, do, done, done_while_the_daemon_dies, undo, vm_named
from vm import bundle, inventory
from vm.export import plan_export
from vm.import_bundle import ImportRequest, plan_import


@pytest.fixture
def contents(tmp_path: Path) -> Path:
    return bundles.bootable(tmp_path / "contents.raw")


@pytest.fixture
def exported(real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path) -> Path:
    """The bundle of a whole VM, which is deleted."""
    whole_vm(real_host, private_daemon, contents)
    done(plan_export(real_host, vm_named(real_host, NAME), tmp_path / "bundle"), real_host)
    delete(real_host)
    return tmp_path / "bundle"


# Killed

EXPORTS: list[tuple[str, Sequence[int]]] = [
    ("export.begin", (0, 2)),
    ("export.disk", (0, 4, 9, 16)),
    ("export.file", (0, 3, 6)),
    ("export.tpm", (0, 5, 9)),
    ("export.finish", (0, 6)),
]
IMPORTS: list[tuple[str, Sequence[int]]] = [
    ("import.look-for-tpm", (0, 3)),
    ("import.volume", (0, 3, 6, 12)),
    ("import.define", (0, 1)),
    ("import.nvram", (0, 4, 8, 14)),
    ("import.tpm", (0, 4, 6, 12)),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("verb", "calls"), EXPORTS, ids=[verb for verb, _ in EXPORTS])
def test_an_export_killed_at_any_step_is_taken_back_or_completed(
    real_host: Host,
    journal: Journal,
    private_daemon: PrivateLibvirtd,
    contents: Path,
    tmp_path: Path,
    verb: str,
    calls: Sequence[int],
) -> None:
    whole_vm(real_host, private_daemon, contents)
    vm, before = vm_named(real_host, NAME), traces(private_daemon, real_host)
    for call in calls:
        target = tmp_path / f"bundle-{call}"
        job = killed(plan_export(real_host, vm, target), real_host, journal, f"{verb}:{call}")
        if job is None:
            continue
        if call % 2:
            assert jobs.restart(job.id, real_host, journal).state is JobState.DONE
            found = bundle.read(target)
            assert same_disk(found.path(found.of(bundle.Role.DISK)[0]), contents)
            assert len(found.files) == 4
        else:
            assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK
            assert not list(tmp_path.glob(f"bundle-{call}*"))
        assert traces(private_daemon, real_host) == before


@pytest.mark.timeout(300)
@pytest.mark.parametrize("call", [0, 3, 5, 7, 8, 9])
def test_an_export_killed_while_a_disk_is_made_whole_leaves_nothing_on_the_host(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path, call: int
) -> None:
    plain_vm(real_host, str(linked(private_daemon, real_host, contents)), "qcow2")
    before = traces(private_daemon, real_host)
    plan = plan_export(real_host, vm_named(real_host, NAME), tmp_path / "bundle")
    job = killed(plan, real_host, journal, f"export.disk:{call}")
    if job is not None:
        assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK
        assert not list(tmp_path.glob("bundle*"))
    assert traces(private_daemon, real_host) == before


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("verb", "calls"), IMPORTS, ids=[verb for verb, _ in IMPORTS])
def test_an_import_killed_at_any_step_is_taken_back_or_completed(
    real_host: Host,
    journal: Journal,
    private_daemon: PrivateLibvirtd,
    exported: Path,
    contents: Path,
    verb: str,
    calls: Sequence[int],
) -> None:
    before = traces(private_daemon, real_host)
    manifest = bundle.read(exported)
    states = {file.sha256 for role in (bundle.Role.NVRAM, bundle.Role.TPM) for file in manifest.of(role)}
    for call in calls:
        plan = plan_import(real_host, ImportRequest(exported, restore=True))
        job = killed(plan, real_host, journal, f"{verb}:{call}")
        if job is not None and call % 2 == 0:
            assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK
            assert traces(private_daemon, real_host) == before, (verb, call)
            continue
        if job is not None:
            assert jobs.restart(job.id, real_host, journal).state is JobState.DONE, (verb, call)
        assert same_disk(disk_of(private_daemon), contents)
        assert set(state_files(private_daemon).values()) == states
        assert not pools_of_hvtui(real_host)
        delete(real_host)
        assert traces(private_daemon, real_host) == before, (verb, call)


def test_a_registration_killed_while_it_compares_the_disks_is_taken_back_or_completed(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, exported: Path
) -> None:
    before, disk = traces(private_daemon, real_host), exported / "vda.qcow2"
    contents = disk.read_bytes()
    for completes in (False, True):
        plan = plan_import(real_host, ImportRequest(exported, register=True))
        job = killed(plan, real_host, journal, "import.verify:0")
        assert job is not None
        if completes:
            assert jobs.restart(job.id, real_host, journal).state is JobState.DONE
            assert [each.source for each in vm_named(real_host, NAME).config.disks] == [str(disk)]  # type: ignore[union-attr]
            done(jobs.plan_undo(journal.jobs(limit=1)[0], real_host, journal), real_host)
        else:
            assert jobs.rollback(job.id, real_host, journal).state is JobState.ROLLED_BACK
        assert traces(private_daemon, real_host) == before
        assert disk.read_bytes() == contents


def test_an_import_is_undone_with_everything_that_it_made(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, exported: Path
) -> None:
    before = traces(private_daemon, real_host)
    job = jobs.submit(plan_import(real_host, ImportRequest(exported, restore=True)), real_host, journal)
    done(jobs.plan_undo(job, real_host, journal), real_host)
    assert traces(private_daemon, real_host) == before
    assert not inventory.read(real_host)
    assert bundle.read(exported).files


def test_two_exports_at_once_wait_for_each_other(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    plans = []
    for name in ("first", "second"):
        disk = tmp_path / f"elsewhere/{name}.raw"
        shutil.copy(contents, disk)
        plain_vm(real_host, str(disk), "raw", name=name)
        plans.append(plan_export(real_host, vm_named(real_host, name), tmp_path / f"bundle-{name}"))
    begun = [jobs.start_detached(plan, real_host, journal) for plan in plans]
    ended = [jobs.wait(job.id, journal, timeout_s=60) for job in begun]
    assert [job.state for job in ended] == [JobState.DONE, JobState.DONE]
    assert not pools_of_hvtui(real_host)


# Cancelled, and without a daemon


def test_a_cancelled_upload_or_download_leaves_nothing(
    real_host: Host, private_daemon: PrivateLibvirtd, exported: Path, contents: Path, tmp_path: Path
) -> None:
    before = traces(private_daemon, real_host)
    notes = Notes(cancelled=lambda: True)
    (upload,) = [
        step
        for step in plan_import(real_host, ImportRequest(exported, name="copy")).steps
        if step.verb == "import.volume"
    ]
    with pytest.raises(Cancelled):
        do(real_host, upload, notes)
    undo(real_host, upload, None)
    assert traces(private_daemon, real_host) == before
    whole_vm(real_host, private_daemon, contents)
    before = traces(private_daemon, real_host)
    begin, download, *_ = plan_export(real_host, vm_named(real_host, NAME), tmp_path / "second").steps
    do(real_host, begin)
    with pytest.raises(Cancelled):
        do(real_host, download, notes)
    for step in (download, begin):
        undo(real_host, step, None)
    assert traces(private_daemon, real_host) == before
    assert not list(tmp_path.glob("second*"))


@pytest.mark.timeout(300)
def test_a_daemon_that_is_killed_at_every_step_delays_and_spoils_nothing(
    real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    whole_vm(real_host, private_daemon, contents)
    states = set(state_files(private_daemon).values())
    plan = plan_export(real_host, vm_named(real_host, NAME), tmp_path / "bundle")
    done_while_the_daemon_dies(plan, real_host, private_daemon)
    delete(real_host)
    plan = plan_import(real_host, ImportRequest(tmp_path / "bundle", restore=True))
    done_while_the_daemon_dies(plan, real_host, private_daemon)
    assert same_disk(disk_of(private_daemon), contents)
    assert set(state_files(private_daemon).values()) == states
    assert not pools_of_hvtui(real_host)
