"""What can go wrong while a VM is made. What can be known is said before anything is made; what cannot is taken back;
and a kill -9 at any call of any step leaves a job that is rolled back to nothing or completed to the whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from host import jobs
from host.connection import Host
from host.errors import HvtuiError
from host.job_model import Job, JobState
from host.journal import Journal
from host.units import GIB, MIB
from hvtui.__main__ import run
from tests.cli.conftest import Result
from tests.cli.test_hostile_input import is_harmless
from tests.real.conftest import wait_for
from tests.support import guest
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import inventory
from vm.create import plan_create, tiny_request
from vm.create_request import CreateRequest, Firmware, SourceKind
from vm.create_steps import tiny_volume_names
from vm.delete import plan_delete
from vm.model import VmState
from vm.tiny import TinyGuest

DEADLY = Path(__file__).parents[1] / "support/killing"
NAME = "doomed"
Hv = Callable[..., Result]


@pytest.fixture
def hv(private_daemon: PrivateLibvirtd, journal: Journal, capsys: pytest.CaptureFixture[str]) -> Hv:
    """Run hvtui in this process on the private libvirtd; keyword arguments are its environment."""

    def command(*words: str, **environment: str) -> Result:
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code = run(["--headless", *words, "--connect", private_daemon.uri, "--yes"])
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        assert "internal error" not in told.err
        assert is_harmless(told.err)
        return Result(code, told.out, told.err)

    return command


def traces(daemon: PrivateLibvirtd, host: Host) -> set[str]:
    """Everything that making a VM can leave: files, a TPM's directory, definitions, pools."""
    found = {str(path) for name in ("images", "lib", "etc") for path in _files(daemon.directory / name)}
    found |= {str(path) for path in (daemon.directory / "lib/swtpm").glob("*")}
    with host.calls("look") as connection:
        found |= {f"vm {domain.name()}" for domain in connection.listAllDomains()}
        found |= {f"pool {pool.name()}" for pool in connection.listAllStoragePools()}
    return found


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if not path.is_dir())


# Killed


# Everything a VM can have: a disk, UEFI variables, a TPM. The others have the built-in kernel in their place.
WHOLE = CreateRequest(
    NAME,
    source=SourceKind.EMPTY,
    disk_bytes=64 * MIB,
    firmware=Firmware.UEFI,
    tpm=True,
    memory_bytes=64 * MIB,
    vcpus=1,
    network="none",
)
TINY = replace(tiny_request(NAME), network="none")
TINY_OFF = replace(TINY, start=False, wait_ready=False)
SHORT = range(12)  # every call of a step that makes a few
UPLOAD = (0, 1, 4)  # some calls of steps that repeat themselves; each guest that is waited for costs seconds
WAIT = (0, 4)

KILLED = [
    (WHOLE, "create.volume", SHORT),
    (WHOLE, "create.define", SHORT),
    (WHOLE, "create.start", SHORT),
    (TINY_OFF, "create.tiny", UPLOAD),
    (TINY, "create.wait", WAIT),
]
STEPS = pytest.mark.parametrize(("request_", "verb", "calls"), KILLED, ids=[verb for _, verb, _ in KILLED])


def killed(host: Host, journal: Journal, request: CreateRequest, place: str) -> Job | None:
    """The job of a create whose process died at that place; None when it was done before it came there."""
    plan = plan_create(host, request)
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(HvtuiError):  # dead before it was seen to begin
        patch.setenv("PYTHONPATH", str(DEADLY))
        patch.setenv("HVTUI_TEST_KILL_AT", place)
        jobs.start_detached(plan, host, journal)
    wait_for(lambda: is_over(journal), "the killed job to be noticed")
    job = journal.jobs(limit=1)[0]
    if job.state is JobState.DONE:
        return None
    assert job.state is JobState.INTERRUPTED, job.error
    assert journal.holder(str(job.vm_uuid)) is not None or not any(step.has_begun for step in job.steps)
    return job


def is_over(journal: Journal) -> bool:
    journal.recover()
    return journal.jobs(limit=1)[0].state.is_over


@STEPS
def test_a_create_killed_at_any_call_is_rolled_back_to_nothing(
    real_host: Host,
    journal: Journal,
    private_daemon: PrivateLibvirtd,
    tiny_guest: TinyGuest,
    request_: CreateRequest,
    verb: str,
    calls: Sequence[int],
) -> None:
    before = traces(private_daemon, real_host)
    for call in calls:
        job = killed(real_host, journal, request_, f"{verb}:{call}")
        if job is None:
            break
        rolled_back = jobs.rollback(job.id, real_host, journal)
        assert rolled_back.state is JobState.ROLLED_BACK, (call, rolled_back.error)
        assert traces(private_daemon, real_host) == before, f"killed after call {call} of {verb}"
        assert journal.holder(str(job.vm_uuid)) is None
    assert call >= 1, "the step was killed at least once in the middle"


@STEPS
def test_a_create_killed_at_any_call_is_completed_by_a_restart(
    real_host: Host,
    journal: Journal,
    private_daemon: PrivateLibvirtd,
    tiny_guest: TinyGuest,
    request_: CreateRequest,
    verb: str,
    calls: Sequence[int],
) -> None:
    before = traces(private_daemon, real_host)
    whole = jobs.submit(plan_create(real_host, replace(request_, wait_ready=False)), real_host, journal)
    assert whole.state is JobState.DONE, whole.error
    shape_of_whole = shape(traces(private_daemon, real_host) - before)
    forget(real_host)
    for call in calls[1:3]:
        job = killed(real_host, journal, request_, f"{verb}:{call}")
        if job is None:
            break
        restarted = jobs.restart(job.id, real_host, journal)
        assert restarted.state is JobState.DONE, (call, restarted.error)
        state = VmState.RUNNING if request_.start else VmState.OFF
        assert inventory.find(real_host, NAME).state is state
        found = shape(traces(private_daemon, real_host) - before)
        assert found == shape_of_whole, f"killed after call {call} of {verb}"
        if request_ is not WHOLE:
            assert_uploaded(private_daemon, tiny_guest)
        if request_ is TINY:
            domain = real_host.connection().lookupByName(NAME)
            wait_for(lambda: guest.answers(domain), "the guest")  # noqa: B023
        forget(real_host)
        assert not {trace for trace in traces(private_daemon, real_host) - before if "hvtui-tiny" not in trace}


def assert_uploaded(daemon: PrivateLibvirtd, tiny_guest: TinyGuest) -> None:
    """The built-in kernel and its RAM disk are there, bit for bit."""
    files = (tiny_guest.kernel, tiny_guest.initrd)
    for name, path in zip(tiny_volume_names(tiny_guest.key), files, strict=True):
        assert (daemon.images / name).read_bytes() == path.read_bytes(), name


# Uuids, the digits in a disk's name, QEMU's number.
VARYING = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=-)[0-9a-f]{8}(?=\.)|-\d+-")


def shape(found: set[str]) -> set[str]:
    """Traces without what differs from one creation to the next."""
    return {VARYING.sub("?", each) for each in found}


def forget(host: Host) -> None:
    """Delete the VM with its disks."""
    vm = inventory.read_configs(host, [inventory.find(host, NAME)])[0]
    disks = [disk.target for disk in vm.config.disks] if vm.config else []
    job = jobs.submit(plan_delete(host, vm, remove_disks=disks, off=True), host, Journal())
    assert job.state is JobState.DONE, job.error


# Said before anything is made


def refused(hv: Hv, *words: str, **environment: str) -> Result:
    """A create that is refused, with and without --dry-run, in the same words."""
    dry = hv("vm", "create", NAME, *words, "--dry-run", **environment)
    result = hv("vm", "create", NAME, *words, **environment)
    assert dry.code == result.code != 0, (dry, result)
    assert "(job " not in result.err, "it was refused before it became a job"
    return result


@pytest.fixture
def nothing_made(real_host: Host, private_daemon: PrivateLibvirtd, journal: Journal) -> Iterator[None]:
    """Fails when the test has left anything, a job included."""
    before = traces(private_daemon, real_host)
    yield
    assert traces(private_daemon, real_host) == before
    assert journal.jobs() == ()


@pytest.fixture
def small_pool(private_daemon: PrivateLibvirtd, real_host: Host) -> Iterator[Path]:
    """A storage pool `small` on a file system of 24 MiB of its own; its path, as seen from here."""
    inside = private_daemon.directory / "small"
    inside.mkdir()
    pid = private_daemon.libvirtd_pids()[0]
    enter = ("nsenter", "--mount", f"--target={pid}", "--")
    subprocess.run([*enter, "mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(inside)], check=True)
    pool = real_host.connection().storagePoolDefineXML(
        f"<pool type='dir'><name>small</name><target><path>{inside}</path></target></pool>"
    )
    pool.create()
    yield Path(f"/proc/{pid}/root{inside}")
    pool.destroy()
    pool.undefine()
    subprocess.run([*enter, "umount", str(inside)], check=True)
    inside.rmdir()


@pytest.mark.usefixtures("small_pool", "nothing_made", "tiny_guest")
def test_a_pool_that_is_too_full_is_said_before_anything_is_made(hv: Hv) -> None:
    for words in (
        ("--from", "tiny"),
        ("--from", "empty", "--disk", "1G"),
        ("--from", "empty", "--disk", "1G", "--disk-format", "raw"),
        ("--from", "empty", "--disk", "30M", "--disk-format", "raw"),
        ("--from", "tiny", "--disk", "20M"),
    ):
        result = refused(hv, *words, "--pool", "small")
        assert result.code == 9, (words, result)
        assert "24M free" in result.err or "24.0M free" in result.err, result
        assert "small" in result.err


@pytest.mark.usefixtures("nothing_made")
def test_a_cache_that_is_too_full_for_the_tiny_guest_is_said_before(hv: Hv, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(cache)], check=True)
    try:
        result = refused(hv, "--from", "tiny", HVTUI_CACHE_DIR=str(cache))
        assert result.code == 9
        assert str(cache) in result.err
        assert [path for path in cache.rglob("*") if not path.is_dir()] == []
    finally:
        subprocess.run(["umount", str(cache)], check=True)


def test_a_pool_that_fills_up_after_the_plan_fails_the_job_and_leaves_nothing(
    real_host: Host, small_pool: Path, journal: Journal, private_daemon: PrivateLibvirtd, tiny_guest: TinyGuest
) -> None:
    before = traces(private_daemon, real_host)
    disk = CreateRequest(NAME, source=SourceKind.EMPTY, pool="small", disk_bytes=16 * MIB, disk_format="raw")
    plans = [plan_create(real_host, replace(disk, memory_bytes=64 * MIB, network="none"))]
    with (small_pool / "filler").open("wb") as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"x" * MIB)
    tiny_plan = plan_create(real_host, replace(tiny_request(NAME), network="none"))
    step = replace(tiny_plan.steps[0], args={**tiny_plan.steps[0].args, "pool": "small"})
    plans.append(replace(tiny_plan, steps=(step, *tiny_plan.steps[1:])))
    for plan in plans:
        assert plan.blockers == ()
        job = jobs.submit(plan, real_host, journal)
        if job.state is not JobState.DONE:
            assert job.state is JobState.FAILED, job.error
            assert "No space left" in job.error
        else:
            assert plan is plans[0], "a raw disk takes its room only as it fills"
            forget(real_host)
        with real_host.calls("look") as connection:
            assert connection.storagePoolLookupByName("small").listVolumes() == ["filler"]
    assert traces(private_daemon, real_host) - before == set()


def test_a_journal_that_cannot_be_written_makes_nothing(
    hv: Hv, real_host: Host, private_daemon: PrivateLibvirtd, tmp_path: Path
) -> None:
    before = traces(private_daemon, real_host)
    state = tmp_path / "full"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(state)], check=True)
    try:
        words = ("vm", "create", NAME, "--from", "empty", "--disk", "64M", "--memory", "64M", "--network", "none")
        result = hv(*words, HVTUI_STATE_DIR=str(state))
        assert result.code not in {0, 130}
        assert str(state) in result.err
    finally:
        subprocess.run(["umount", str(state)], check=True)
    assert traces(private_daemon, real_host) == before


def image(path: Path, *options: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, "--", str(path), "8M"], check=True)
    return path


@pytest.mark.usefixtures("nothing_made")
def test_what_is_missing_or_no_image_is_said_before(hv: Hv, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "damaged.qcow2").write_bytes(b"QFI\xfb" + b"\xff" * 4096)
    base = image(tmp_path / "base.qcow2")
    image(tmp_path / "orphan.qcow2", "-b", str(base), "-F", "qcow2")
    base.unlink()
    for name in ("missing.qcow2", "fifo", "loop", "dangling", "damaged.qcow2", "orphan.qcow2", "", "\x1b[31m"):
        result = refused(hv, "--from", f"{tmp_path}/{name}")
        assert result.code in {2, 3, 5, 9}, (name, result)
    gone = f"{tmp_path}/missing"
    for words in (
        ("--from", f"{gone}.iso"),
        ("--kernel", gone),
        ("--kernel", "/etc/hostname", "--initrd", gone),
        ("--from", f"/{'x' * 5000}"),
        ("--from", "/dev/null/x"),
    ):
        assert refused(hv, *words).code in {2, 3, 5, 9}, words


@pytest.fixture
def unprivileged_qemu(private_daemon: PrivateLibvirtd, real_host: Host) -> Iterator[None]:
    """QEMU runs as nobody, as it does under another user everywhere but in a lab. It stays in the group of /dev/kvm:
    libvirt asks a QEMU that loses KVM for its capabilities again at every call, for seconds."""
    path = private_daemon.directory / "etc/qemu.conf"
    before = path.read_text()
    kvm = Path("/dev/kvm")
    group = f"+{kvm.stat().st_gid}" if kvm.exists() else "nogroup"
    path.write_text(before.replace('user = "root"\ngroup = "root"', f'user = "nobody"\ngroup = "{group}"'))
    private_daemon.restart()
    yield
    path.write_text(before)
    private_daemon.restart()


@pytest.mark.usefixtures("unprivileged_qemu", "nothing_made")
def test_an_image_that_qemu_may_not_reach_is_said_before(hv: Hv, private_daemon: PrivateLibvirtd) -> None:
    closed = private_daemon.directory / "closed"
    closed.mkdir(mode=0o700)
    private_daemon.directory.chmod(0o755)
    hidden = image(closed / "disk.qcow2")
    read_only = image(private_daemon.directory / "read-only.qcow2")
    read_only.chmod(0o444)
    try:
        result = refused(hv, "--from", str(hidden))
        assert result.code == 5, result
        assert str(closed) in result.err
        assert "chmod" in result.err or "setfacl" in result.err, "it says what to do"
        assert refused(hv, "--from", str(read_only)).code == 5
        assert refused(hv, "--kernel", str(hidden)).code == 5
    finally:
        hidden.unlink()
        read_only.unlink()
        closed.rmdir()
        private_daemon.directory.chmod(0o700)


OTHER = f"<domain type='qemu'><name>{NAME}</name><memory>65536</memory><os><type>hvm</type></os></domain>"


def test_a_name_taken_after_the_plan_fails_the_job_and_leaves_the_other_vm(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd
) -> None:
    request = CreateRequest(NAME, source=SourceKind.EMPTY, disk_bytes=MIB, memory_bytes=64 * MIB, network="none")
    plan = plan_create(real_host, request)
    with real_host.calls("look") as connection:
        other = connection.defineXML(OTHER)
        before, xml = traces(private_daemon, real_host), other.XMLDesc(0)
        job = jobs.submit(plan, real_host, journal)
        assert (job.state, job.exit_code) == (JobState.FAILED, 4), job.error
        assert traces(private_daemon, real_host) == before
        assert other.XMLDesc(0) == xml
    with pytest.raises(HvtuiError):
        plan_create(real_host, request).raise_if_blocked()


def test_a_qemu_that_cannot_start_fails_the_job_and_leaves_nothing(
    real_host: Host, journal: Journal, private_daemon: PrivateLibvirtd
) -> None:
    before = traces(private_daemon, real_host)
    request = CreateRequest(NAME, source=SourceKind.EMPTY, disk_bytes=GIB, memory_bytes=64 * MIB, network="none")
    plan = plan_create(real_host, request)
    (define,) = [step for step in plan.steps if step.verb == "create.define"]
    broken = str(define.args["xml"]).replace("</devices>", "<hostdev mode='subsystem' type='pci'><source>"
        "<address domain='0xffff' bus='0xff' slot='0x1f' function='0x7'/></source></hostdev></devices>")  # fmt: skip
    steps = tuple(replace(s, args={**s.args, "xml": broken}) if s is define else s for s in plan.steps)
    job = jobs.submit(replace(plan, steps=steps), real_host, journal)
    assert job.state is JobState.FAILED, job.error
    assert job.error
    assert traces(private_daemon, real_host) == before
