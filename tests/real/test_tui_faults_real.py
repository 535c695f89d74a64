"""The terminal interface on a libvirtd that is killed, restarted or frozen: it reacts to keys, says what is stale and
recovers by itself; and what it started is never lost, however the interface itself ends.

Everything is real: hvtui in a process of its own on a pseudo-terminal, libvirtd, QEMU, signals.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator

import libvirt
import pytest

from host.connection import Host
from host.job_model import Job, JobState
from host.journal import Journal
from tests.real.conftest import wait_for
from tests.support import guest
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.terminal import HVTUI, Terminal, Tui
from vm.tiny import TinyGuest

# A machine with nothing to boot: it runs, and never reacts to a request to shut down.
DEAF = """<domain type='qemu'><name>{}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"""
KEYS = 10
# A blocked event loop answers after keepalive's 15 s at the earliest. Beside other tests a key may wait for its turn.
BLOCKED_S = 8.0
USUAL_S = 0.5


@pytest.fixture
def fleet(real_host: Host) -> libvirt.virConnect:
    """Three VMs, one of them running; the connection to look at them from outside."""
    connection = real_host.connection()
    for name in ("alpha", "beta", "gamma"):
        connection.defineXML(DEAF.format(name))
    connection.lookupByName("beta").create()
    return connection


@pytest.fixture
def tui(fleet: libvirt.virConnect, private_daemon: PrivateLibvirtd, journal: Journal) -> Iterator[Tui]:
    shown = Tui(private_daemon.uri)
    yield shown
    shown.close()


def reactions_s(tui: Tui) -> list[float]:
    return [tui.react_s("jk"[number % 2]) for number in range(KEYS)]


def assert_as_quick_as(tui: Tui, before_s: list[float]) -> None:
    """Each key is answered, and the typical one about as soon as with a healthy libvirtd."""
    now_s = reactions_s(tui)
    assert max(now_s) < BLOCKED_S, now_s
    assert statistics.median(now_s) < max(USUAL_S, 5 * statistics.median(before_s)), (now_s, before_s)


def assert_live(tui: Tui, connection: libvirt.virConnect) -> None:
    """What happens on the host from now on appears by itself, within the time of an event."""
    connection.lookupByName("gamma").create()
    tui.wait_until(lambda: "● running" in tui.row("gamma"), "an event")


def test_a_frozen_libvirtd_is_told_and_keys_are_answered_until_it_goes_on(
    tui: Tui, fleet: libvirt.virConnect, private_daemon: PrivateLibvirtd
) -> None:
    before_s = reactions_s(tui)
    private_daemon.freeze()
    assert_as_quick_as(tui, before_s)
    tui.wait_until(lambda: "stale" in tui.lines[0], "the header to say so")
    assert "the host does not answer" in tui.lines[0]
    assert "● running" in tui.row("beta"), "the last data stay"
    assert_as_quick_as(tui, before_s)
    private_daemon.thaw()
    tui.wait_until(lambda: not tui.is_stale, "the list to be current again")
    assert_live(tui, fleet)


def test_a_libvirtd_frozen_until_the_link_is_given_up_is_connected_again(
    tui: Tui, real_host: Host, private_daemon: PrivateLibvirtd
) -> None:
    before_s = reactions_s(tui)
    private_daemon.freeze()
    tui.wait_until(lambda: "keepalive" in tui.lines[0], "keepalive to give up")
    assert_as_quick_as(tui, before_s)
    private_daemon.thaw()
    tui.wait_until(lambda: not tui.is_stale, "the list to be current again")
    assert_live(tui, _again(real_host))


def test_a_killed_libvirtd_is_told_at_once_and_found_again(
    tui: Tui, real_host: Host, private_daemon: PrivateLibvirtd
) -> None:
    before_s = reactions_s(tui)
    private_daemon.kill()
    tui.wait_until(lambda: "stale" in tui.lines[0], "the header to say so")
    assert_as_quick_as(tui, before_s)
    age = tui.lines[0].split("stale ")[1][:4]
    tui.wait_until(lambda: age not in tui.lines[0], "the age of the data to grow")
    assert "● running" in tui.row("beta"), "the last data stay"
    tui.go_to("beta")
    tui.type("S")
    tui.wait_for("not while the connection is lost")
    private_daemon.start()
    tui.wait_until(lambda: not tui.is_stale, "the list to be current again")
    assert_live(tui, _again(real_host))


def test_what_changed_while_libvirtd_was_away_is_shown_after_its_restart(
    tui: Tui, real_host: Host, private_daemon: PrivateLibvirtd
) -> None:
    private_daemon.kill()
    (private_daemon.directory / "etc/qemu/alpha.xml").unlink()
    for pid in private_daemon.qemu_pids():
        os.kill(pid, signal.SIGKILL)
    private_daemon.start()
    tui.wait_until(lambda: "crashed" in tui.row("beta"), "beta's end")
    tui.wait_until(lambda: not tui.row("alpha"), "alpha's end")
    assert_live(tui, _again(real_host))


def test_a_restart_of_libvirtd_is_survived(tui: Tui, real_host: Host, private_daemon: PrivateLibvirtd) -> None:
    before_s = reactions_s(tui)
    private_daemon.restart()
    assert_as_quick_as(tui, before_s)
    connection = _again(real_host)
    connection.lookupByName("gamma").create()
    tui.wait_until(lambda: "● running" in tui.row("gamma"), "the list to be current again")
    assert not tui.is_stale


# The same while a job runs


def shut_down(tui: Tui, journal: Journal) -> int:
    """Ask beta, which never reacts, to shut down; the id of the job that now waits for it."""
    tui.go_to("beta")
    tui.type("S")
    tui.wait_for("Shut down beta")
    tui.type("\r")
    wait_for(lambda: any(step.note for job in journal.jobs() for step in job.steps), "the job to wait")
    return journal.jobs()[0].id


def ended(journal: Journal, job_id: int) -> Job:
    wait_for(lambda: journal.job(job_id).state.is_over, "the job to end")
    return journal.job(job_id)


def test_keys_are_answered_while_a_job_runs_on_a_frozen_libvirtd_and_the_job_ends_well(
    tui: Tui, fleet: libvirt.virConnect, private_daemon: PrivateLibvirtd, journal: Journal
) -> None:
    before_s = reactions_s(tui)
    job_id = shut_down(tui, journal)
    private_daemon.freeze()
    assert_as_quick_as(tui, before_s)
    tui.wait_until(lambda: "stale" in tui.lines[0], "the header to say so")
    assert_as_quick_as(tui, before_s)
    private_daemon.thaw()
    _turn_off(fleet.lookupByName("beta"))
    assert ended(journal, job_id).state is JobState.DONE
    tui.wait_for(f"shut down beta · job {job_id}")
    tui.wait_until(lambda: "○ off" in tui.row("beta"), "the list to say so")


def test_a_job_goes_on_in_the_interface_when_libvirtd_was_killed_and_is_back(
    tui: Tui, real_host: Host, private_daemon: PrivateLibvirtd, journal: Journal
) -> None:
    before_s = reactions_s(tui)
    job_id = shut_down(tui, journal)
    private_daemon.kill()
    assert_as_quick_as(tui, before_s)
    wait_for(lambda: "reconnecting" in journal.job(job_id).steps[0].note, "the job to notice")
    assert journal.job(job_id).state is JobState.RUNNING
    private_daemon.start()
    _turn_off(_again(real_host).lookupByName("beta"))
    assert ended(journal, job_id).state is JobState.DONE
    tui.wait_until(lambda: "○ off" in tui.row("beta") and not tui.is_stale, "the list to say so")


def test_a_job_is_cancelled_in_the_interface_while_libvirtd_is_away(
    tui: Tui, private_daemon: PrivateLibvirtd, journal: Journal
) -> None:
    job_id = shut_down(tui, journal)
    private_daemon.kill()
    wait_for(lambda: "reconnecting" in journal.job(job_id).steps[0].note, "the job to notice")
    cancelled = subprocess.run([*HVTUI, "job", "cancel", str(job_id), "--yes"], capture_output=True, check=False)
    assert cancelled.returncode in {0, 130}, cancelled.stderr
    assert ended(journal, job_id).state in {JobState.CANCELLED, JobState.INTERRUPTED}
    assert reactions_s(tui)


def test_a_job_cut_off_by_the_interfaces_death_is_restartable(
    tui: Tui, real_host: Host, private_daemon: PrivateLibvirtd, journal: Journal
) -> None:
    job_id = shut_down(tui, journal)
    tui.process.kill()
    assert tui.exit_code() == -signal.SIGKILL
    again = Tui(private_daemon.uri)
    try:
        again.type("J")
        again.wait_for("interrupted")
        _turn_off(real_host.connection().lookupByName("beta"))
        again.wait_for("restart")
    finally:
        again.close()
    restarted = subprocess.run([*HVTUI, "--connect", private_daemon.uri, "job", "restart", str(job_id)], check=False)
    assert restarted.returncode == 0
    assert journal.job(job_id).state is JobState.DONE


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_restores_the_terminal_and_the_cut_off_job_is_kept_for_a_restart(
    tui: Tui, journal: Journal, number: signal.Signals, code: int
) -> None:
    job_id = shut_down(tui, journal)
    tui.signal(number)
    assert tui.exit_code() == code
    tui.assert_restored()
    journal.recover()
    assert journal.job(job_id).state is JobState.INTERRUPTED
    assert "restart" in journal.job(job_id).remedy


# The same while it has lent the terminal to a console


SERIAL = "<devices><serial type='pty'/></devices></domain>"


@pytest.fixture
def console(real_host: Host, private_daemon: PrivateLibvirtd, journal: Journal) -> Iterator[Tui]:
    """The interface with the serial console of a VM on its terminal."""
    real_host.connection().defineXML(DEAF.format("alpha").replace("</domain>", SERIAL)).create()
    shown = Tui(private_daemon.uri)
    shown.type("c")
    shown.wait_for("Leave it with")
    yield shown
    shown.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_during_a_console_restores_the_terminal(console: Tui, number: signal.Signals, code: int) -> None:
    console.signal(number)
    assert console.exit_code() == code
    console.assert_restored()


def test_a_window_closed_during_a_console_ends_the_program(console: Tui) -> None:
    console.hang_up()
    assert console.process.wait(60) == 128 + signal.SIGHUP


def test_a_killed_libvirtd_ends_the_console_and_the_list_recovers(
    console: Tui, private_daemon: PrivateLibvirtd
) -> None:
    private_daemon.kill()
    console.wait_until(lambda: "stale" in console.lines[0], "the list on its lost link")
    private_daemon.start()
    console.wait_until(lambda: not console.is_stale, "the list to be current again")
    console.type("q")
    assert console.exit_code() == 0
    console.assert_restored()


# The ends of the interface


def test_it_quits_at_once_while_libvirtd_is_frozen(tui: Tui, private_daemon: PrivateLibvirtd) -> None:
    private_daemon.freeze()
    tui.wait_until(lambda: "stale" in tui.lines[0], "the header to say so")
    tui.type("q")
    assert tui.exit_code(timeout_s=BLOCKED_S) == 0
    tui.assert_restored()


def test_it_waits_for_a_frozen_libvirtd_in_the_shell_and_ctrl_c_ends_that(
    private_daemon: PrivateLibvirtd, journal: Journal, real_host: Host
) -> None:
    private_daemon.freeze()
    terminal = Terminal(*HVTUI, "--connect", private_daemon.uri)
    try:
        time.sleep(2.0)
        terminal.type("\x03")
        assert terminal.exit_code(timeout_s=BLOCKED_S) == 130
        assert b"\x1b[?1049h" not in terminal.raw
        terminal.assert_restored()
    finally:
        terminal.close()


def test_a_job_of_its_own_process_outlives_the_closed_terminal(
    private_daemon: PrivateLibvirtd, real_host: Host, journal: Journal, tiny_guest: TinyGuest
) -> None:
    terminal = Terminal(*HVTUI, "--connect", private_daemon.uri)
    try:
        terminal.wait_for("try a tiny VM")
        terminal.type("t")
        terminal.wait_for("Create tiny")
        terminal.type("\r")
        wait_for(lambda: any(job.state is JobState.RUNNING for job in journal.jobs()), "the job to run")
        terminal.hang_up()
        assert terminal.process.wait(60) == 128 + signal.SIGHUP
    finally:
        terminal.close()
    job = ended(journal, journal.jobs()[0].id)
    assert job.state is JobState.DONE, job.error
    domain = real_host.connection().lookupByName("tiny")
    wait_for(lambda: guest.answers(domain), "the guest")


def _again(host: Host) -> libvirt.virConnect:
    """The test's own connection, opened again when it was lost, too."""

    def reached() -> bool:
        try:
            with host.calls("look") as connection:
                connection.getLibVersion()
        except Exception:  # noqa: BLE001 - whatever it is: not yet
            return False
        return True

    wait_for(reached, "libvirtd")
    return host.connection()


def _turn_off(domain: libvirt.virDomain) -> None:
    """A libvirtd that is just back and still getting to know its guests kills one and says that it does not run."""
    with contextlib.suppress(libvirt.libvirtError):
        domain.destroy()
    wait_for(lambda: not domain.isActive(), "the VM to be off")
