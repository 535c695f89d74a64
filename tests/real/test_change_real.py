"""Stopping, saving, renaming, settings and XML edits against a real libvirtd and QEMU.

The guests have no operating system: their firmware ignores every request to shut down, as a hung guest does.
"""

from __future__ import annotations

import threading
from pathlib import Path

import libvirt
import pytest

from host import jobs
from host.connection import Host
from host.errors import Cancelled, TimedOut, UsageError
from host.job_model import JobState
from host.units import MIB
from tests.real.test_delete_real import UEFI, define
from tests.support.running import Notes, do, done, submit
from vm import inventory, lifecycle
from vm.domain_xml import read_config
from vm.edit import editable_xml, plan_edit
from vm.model import VmState
from vm.settings import plan_rename, plan_set

SECURE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
VNC = "<graphics type='vnc' socket='/tmp/hvtui-lifecycle-test.vnc' passwd='sesame'/>"
AGENT = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
BALLOON = "<memballoon model='virtio'/>"


def test_a_guest_that_ignores_every_request_is_told_about_and_left_alone(real_host: Host) -> None:
    define(real_host, "deaf", AGENT).create()
    (step,) = lifecycle.plan_stop(real_host, inventory.find(real_host, "deaf"), timeout_s=1.0).steps
    notes = Notes()
    with pytest.raises(TimedOut, match="did not react"):
        do(real_host, step, notes)
    assert any(note.startswith("asked ACPI") for note in notes.notes)
    assert inventory.find(real_host, "deaf").state is VmState.RUNNING
    job = submit(lifecycle.plan_restart(real_host, inventory.find(real_host, "deaf"), timeout_s=1.0), real_host)
    assert (job.state, job.exit_code) == (JobState.FAILED, 7)


def test_it_is_turned_off_when_that_was_asked_for(real_host: Host) -> None:
    define(real_host, "deaf").create()
    plan = lifecycle.plan_stop(real_host, inventory.find(real_host, "deaf"), timeout_s=1.0, force=True)
    done(plan, real_host)
    assert inventory.find(real_host, "deaf").state is VmState.OFF


def test_the_wait_for_a_guest_ends_when_it_is_cancelled(real_host: Host) -> None:
    define(real_host, "deaf").create()
    (step,) = lifecycle.plan_stop(real_host, inventory.find(real_host, "deaf"), timeout_s=600.0).steps
    with pytest.raises(Cancelled):
        do(real_host, step, Notes(cancelled=lambda: True))


def test_a_forced_restart_is_seen(real_host: Host) -> None:
    define(real_host, "deaf").create()
    plan = lifecycle.plan_restart(real_host, inventory.find(real_host, "deaf"), timeout_s=1.0, force=True)
    done(plan, real_host)
    assert inventory.find(real_host, "deaf").state is VmState.RUNNING


def test_a_restart_that_libvirt_reports_ends_the_wait(real_host: Host) -> None:
    domain = define(real_host, "deaf")
    domain.create()
    (step,) = lifecycle.plan_restart(real_host, inventory.find(real_host, "deaf"), timeout_s=60.0).steps
    asked = threading.Event()

    class Resetting(Notes):
        """Resets the guest as soon as it was asked, as a guest that obeys does."""

    notes = Resetting()

    def cancelled() -> bool:
        if any(note.startswith("asked ACPI") for note in notes.notes) and not asked.is_set():
            asked.set()
            domain.reset(0)
        return False

    notes.cancelled = cancelled
    assert do(real_host, step, notes) == {"forced": False}


def test_saving_shows_progress_and_can_be_cancelled(real_host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vm.lifecycle_steps.POLL_S", 0.005)
    domain = define(real_host, "big")
    domain.setMemoryFlags(1024 * 1024, libvirt.VIR_DOMAIN_AFFECT_CONFIG | libvirt.VIR_DOMAIN_MEM_MAXIMUM)
    domain.setMemoryFlags(1024 * 1024, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    domain.create()
    (step,) = lifecycle.plan_save(real_host, inventory.find(real_host, "big")).steps
    with pytest.raises(Cancelled):
        do(real_host, step, Notes(cancelled=lambda: True))
    assert inventory.find(real_host, "big").state is VmState.RUNNING
    notes = Notes()
    do(real_host, step, notes)
    assert notes.notes
    assert inventory.find(real_host, "big").state is VmState.SAVED


def test_a_vm_starts_paused_and_saves_paused(real_host: Host) -> None:
    define(real_host, "still")
    done(lifecycle.plan_start(real_host, inventory.find(real_host, "still"), paused=True), real_host)
    assert inventory.find(real_host, "still").state is VmState.PAUSED
    done(lifecycle.plan_save(real_host, inventory.find(real_host, "still")), real_host)
    done(lifecycle.plan_start(real_host, inventory.find(real_host, "still")), real_host)
    assert inventory.find(real_host, "still").state is VmState.PAUSED
    done(lifecycle.plan_resume(real_host, inventory.find(real_host, "still")), real_host)
    assert inventory.find(real_host, "still").state is VmState.RUNNING


def test_a_vm_is_renamed_with_its_uefi_variables(real_host: Host) -> None:
    define(real_host, "old", firmware=UEFI)
    job = done(plan_rename(real_host, inventory.find(real_host, "old"), "-new (x)"), real_host)
    done(lifecycle.plan_start(real_host, inventory.find(real_host, "-new (x)")), real_host)
    done(lifecycle.plan_off(real_host, inventory.find(real_host, "-new (x)")), real_host)
    done(jobs.plan_undo(job, real_host), real_host)
    assert inventory.find(real_host, "old").state is VmState.OFF


def test_settings_change_a_running_vm(real_host: Host) -> None:
    domain = define(real_host, "set", BALLOON)
    done(plan_set(real_host, inventory.find(real_host, "set"), {"memory": "64M", "vcpus": "2"}), real_host)
    domain.create()
    changes = {"title": "T", "description": "a\nb", "tags": "x,y", "owner": "o", "memory": "48M", "autostart": "on"}
    job = done(plan_set(real_host, inventory.find(real_host, "set"), changes), real_host)
    for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
        config = read_config(domain.XMLDesc(flags))
        assert (config.title, config.description, config.tags, config.owner) == ("T", "a\nb", ("x", "y"), "o")
    assert read_config(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).memory_bytes == 48 * MIB
    done(jobs.plan_undo(job, real_host), real_host)
    config = read_config(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    assert (config.title, config.tags, config.memory_bytes, config.vcpus) == ("", (), 64 * MIB, 2)
    assert not inventory.find(real_host, "set").autostart


def test_an_edit_is_validated_before_and_by_libvirt(real_host: Host) -> None:
    define(real_host, "edited")
    vm = inventory.find(real_host, "edited")
    before = editable_xml(real_host, vm)
    with pytest.raises(UsageError, match="not a valid domain") as caught:
        plan_edit(real_host, vm, before.replace("<devices>", "<devices>\n<bogus/>"))
    assert "/tmp" not in str(caught.value)
    assert "\n" not in str(caught.value)
    valid = before.replace("<on_reboot>restart<", "<on_reboot>destroy<")
    job = done(plan_edit(real_host, vm, valid), real_host)
    assert editable_xml(real_host, vm) == valid
    done(jobs.plan_undo(job, real_host), real_host)
    assert editable_xml(real_host, vm) == before


def test_an_edit_that_only_libvirt_can_refuse_leaves_everything(real_host: Host) -> None:
    define(real_host, "edited")
    vm = inventory.find(real_host, "edited")
    before = editable_xml(real_host, vm)
    job = submit(plan_edit(real_host, vm, before.replace("machine='pc-q35", "machine='pc-none")), real_host)
    assert job.state is JobState.FAILED
    assert editable_xml(real_host, vm) == before


def test_a_vnc_password_survives_an_edit_without_being_written_anywhere(real_host: Host, tmp_path: Path) -> None:
    domain = define(real_host, "guarded", VNC)
    vm = inventory.find(real_host, "guarded")
    before = editable_xml(real_host, vm)
    assert "sesame" not in before
    done(plan_edit(real_host, vm, before.replace("<on_reboot>restart<", "<on_reboot>destroy<")), real_host)
    assert "passwd='sesame'" in domain.XMLDesc(SECURE)
    changed = editable_xml(real_host, vm).replace("<graphics type='vnc'", "<graphics passwd='new-one' type='vnc'")
    done(plan_edit(real_host, vm, changed), real_host)
    assert "passwd='new-one'" in domain.XMLDesc(SECURE)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert stored
    assert b"sesame" not in stored
    assert b"new-one" not in stored
