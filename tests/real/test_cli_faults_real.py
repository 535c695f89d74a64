"""Wrong input and faults at the command line, on a real libvirtd: the documented exit code, no traceback, and every VM
as it was before. Ctrl-C cancels and rolls back; a libvirtd that is away or frozen is told; what is detached goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from host.connection import Host
from host.job_model import JobState
from host.journal import Journal
from hvtui.__main__ import run
from tests.cli.conftest import Result
from tests.cli.test_hostile_input import LONG_TEXT, assert_clear_error, is_harmless
from tests.real.conftest import wait_for
from tests.support.hostile_xml import HOSTILE_XML
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.simulated_world import ESCAPE_NAME, GLOB_NAME, MARKUP_NAME, WIDE_NAME
from tests.support.terminal import HVTUI, Terminal
from vm.tiny import TinyGuest

# A machine with nothing to boot: it runs, and never reacts to a request to shut down.
DEAF = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"""
Hv = Callable[..., Result]


@pytest.fixture
def hv(private_daemon: PrivateLibvirtd, journal: Journal, capsys: pytest.CaptureFixture[str]) -> Hv:
    """Run one command in this process on the private libvirtd."""

    def command(*words: str) -> Result:
        capsys.readouterr()
        code = run(["--connect", private_daemon.uri, *words])
        told = capsys.readouterr()
        return Result(code, told.out, told.err)

    return command


@pytest.fixture
def vms(real_host: Host) -> libvirt.virConnect:
    """`running`, which reacts to nothing, and `off`; the connection to look at them."""
    connection = real_host.connection()
    for name in ("running", "off"):
        connection.defineXML(DEAF.format(name=name))
    connection.lookupByName("running").create()
    return connection


def world(connection: libvirt.virConnect) -> dict[str, tuple[object, ...]]:
    """Everything that a wrong command could have changed: each VM's XML (both) and state."""
    inactive = libvirt.VIR_DOMAIN_XML_INACTIVE
    return {
        domain.name(): (domain.XMLDesc(0), domain.XMLDesc(inactive), domain.state(), domain.autostart())
        for domain in connection.listAllDomains()
    }


class Process:
    """hvtui as a process of its own without a terminal."""

    def __init__(self, uri: str, *words: str) -> None:
        self.process = subprocess.Popen(
            [*HVTUI, "--headless", "--connect", uri, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self, timeout_s: float = 60.0) -> Result:
        out, err = self.process.communicate(timeout=timeout_s)
        return Result(self.process.returncode, out, err)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(private_daemon: PrivateLibvirtd, journal: Journal) -> Iterator[Callable[..., Process]]:
    """Start hvtui as a process on the private libvirtd."""
    started: list[Process] = []

    def begin(*words: str) -> Process:
        started.append(Process(private_daemon.uri, *words))
        return started[-1]

    yield begin
    for each in started:
        each.close()


# Wrong input


WRONG = [
    (3, ("start", "nobody")),
    (3, ("delete", "nobody", "--yes")),
    (3, ("set", "nobody", "owner=x")),
    (3, ("start", "off", "nobody-*")),
    (4, ("start", "running")),
    (4, ("stop", "off")),
    (4, ("pause", "off")),
    (4, ("resume", "running")),
    (4, ("save", "off", "--yes")),
    (4, ("reset", "off", "--yes")),
    (4, ("discard-saved", "off", "--yes")),
    (4, ("delete", "running", "--yes")),
    (4, ("rename", "off", "running")),
    (4, ("rename", "running", "new")),
    (2, ("rename", "off", "a/b")),
    (2, ("rename", "off", "two\nlines")),
    (2, ("set", "off", "title=\x1b[31m")),
    (2, ("set", "off", "description=\ufffe")),
    (2, ("set", "off", "memory=lots")),
    (2, ("delete", "off")),
    (4, ("create", "off", "--from", "empty", "--disk", "64M", "--yes")),
    (2, ("create", "x\x1b[31m", "--from", "empty", "--disk", "64M", "--yes")),
    (5, ("off", "running", "--yes", "--read-only")),
]


@pytest.mark.parametrize(
    ("code", "words"), WRONG, ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else None
)
def test_a_wrong_command_ends_with_its_code_and_changes_nothing(
    hv: Hv,
    vms: libvirt.virConnect,
    private_daemon: PrivateLibvirtd,
    journal: Journal,
    code: int,
    words: tuple[str, ...],
) -> None:
    before, files = world(vms), sorted(private_daemon.images.iterdir())
    result = hv("vm", *words)
    assert (result.code, "Traceback" in result.err) == (code, False), result
    assert is_harmless(result.out + result.err)
    assert world(vms) == before
    assert sorted(private_daemon.images.iterdir()) == files
    assert journal.jobs() == ()


def test_hostile_xml_changes_nothing(hv: Hv, vms: libvirt.virConnect, tmp_path: Path, journal: Journal) -> None:
    before = world(vms)
    own = vms.lookupByName("off").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    texts = {
        **HOSTILE_XML,
        "of another VM": vms.lookupByName("running").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE),
        "with another uuid": own.replace("<uuid>", "<uuid>0"),
        "with another name": own.replace("<name>off<", "<name>on<"),
        "with an entity": f'<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]>{own.replace(">off<", ">&e;<")}',
        "not of the schema": own.replace("</domain>", "<nonsense/></domain>"),
        "with U+FFFE": own.replace("<memory", "<description>\ufffe</description><memory", 1),
    }
    path = tmp_path / "new.xml"
    for kind, text in texts.items():
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        result = hv("vm", "edit", "off", "--file", str(path), "--yes")
        assert result.code == 2, (kind, result)
        assert_clear_error(result, 2)
        assert world(vms) == before, kind
    assert journal.jobs() == ()


def test_what_libvirt_alone_can_refuse_is_refused_and_changes_nothing(
    hv: Hv, vms: libvirt.virConnect, tmp_path: Path
) -> None:
    before = world(vms)
    own = vms.lookupByName("off").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    (tmp_path / "new.xml").write_text(own.replace("machine='pc-q35", "machine='pc-nothing"))
    result = hv("vm", "edit", "off", "--file", str(tmp_path / "new.xml"), "--yes")
    assert result.code != 0
    assert "Traceback" not in result.err
    assert world(vms) == before


@pytest.mark.parametrize("name", [MARKUP_NAME, ESCAPE_NAME, WIDE_NAME, GLOB_NAME, "-", "--help", "a b", "ÄÖ'\"$(id)`"])
def test_a_vm_of_whatever_name_lives_a_whole_life(hv: Hv, real_host: Host, name: str) -> None:
    from xml.sax.saxutils import escape

    real_host.connection().defineXML(DEAF.format(name=escape(name)))
    listed = hv("vm", "list", "-o", "json")
    assert [each["name"] for each in listed.json] == [name]
    for words in (("start",), ("pause",), ("resume",), ("reset", "--yes"), ("off", "--yes"), ("delete", "--yes")):
        result = hv("vm", *words, "-o", "json", "--", name)
        assert (result.code, result.json[0]["vm"], result.json[0]["result"]) == (0, name, "done"), result
        shown = hv("vm", "list")
        assert is_harmless(result.err + shown.out + shown.err)
    assert hv("vm", "list", "-o", "json").json == []


def test_what_was_set_survives_a_restart_of_libvirtd(
    hv: Hv, vms: libvirt.virConnect, real_host: Host, private_daemon: PrivateLibvirtd
) -> None:
    texts = {
        "title": LONG_TEXT[:5000].strip(),
        "description": f"{LONG_TEXT}\n\tsecond line\x9b\u202e",
        "owner": "日本 <b>&amp;",
    }
    for key, text in texts.items():
        assert hv("vm", "set", "off", f"{key}={text}").code == 0
    private_daemon.restart()
    shown = hv("vm", "show", "off", "-o", "json").json[0]
    assert {key: shown[key] for key in texts} == texts


# Ctrl-C


def files(daemon: PrivateLibvirtd) -> set[str]:
    roots = (daemon.images, daemon.directory / "lib", daemon.directory / "etc")
    return {str(path) for root in roots for path in root.rglob("*")}


def wait_for_step(journal: Journal, verb: str) -> None:
    def is_there() -> bool:
        step = jobs[0].current_step if (jobs := journal.jobs()) else None
        return step is not None and step.verb == verb

    wait_for(is_there, f"the step {verb}")


@pytest.mark.parametrize("verb", ["create.tiny", "create.start"])
def test_ctrl_c_during_a_create_takes_everything_back(
    private_daemon: PrivateLibvirtd, real_host: Host, journal: Journal, tiny_guest: TinyGuest, verb: str
) -> None:
    before = files(private_daemon)
    words = ("vm", "create", "gone", "--from", "tiny", "--disk", "64M", "--yes")
    terminal = Terminal(*HVTUI, "--connect", private_daemon.uri, *words)
    try:
        wait_for_step(journal, verb)
        terminal.type("\x03")
        assert terminal.exit_code() == 130
        terminal.assert_restored()
    finally:
        terminal.close()
    job = journal.jobs()[0]
    assert job.state is JobState.CANCELLED
    assert journal.holder(str(job.vm_uuid)) is None
    assert real_host.connection().listAllDomains() == []
    assert files(private_daemon) == before


def test_ctrl_c_during_the_wait_for_a_new_guest_leaves_it_running(
    private_daemon: PrivateLibvirtd, real_host: Host, journal: Journal, tiny_guest: TinyGuest
) -> None:
    terminal = Terminal(*HVTUI, "--connect", private_daemon.uri, "vm", "create", "stays", "--from", "tiny", "--yes")
    try:
        wait_for_step(journal, "create.wait")
        terminal.type("\x03")
        terminal.exit_code()
    finally:
        terminal.close()
    wait_for(lambda: journal.jobs()[0].state.is_over, "the job to end")
    assert journal.jobs()[0].state is JobState.DONE
    assert journal.jobs()[0].warnings == ("stopped waiting; its guest has not answered",)
    assert real_host.connection().lookupByName("stays").isActive()


def test_ctrl_c_ends_the_wait_for_a_guest_that_does_not_react(
    start: Callable[..., Process], vms: libvirt.virConnect, journal: Journal
) -> None:
    before = world(vms)
    command = start("vm", "stop", "running", "--timeout", "60")
    wait_for(lambda: any(step.note for job in journal.jobs() for step in job.steps), "the job to wait")
    command.process.send_signal(signal.SIGINT)
    result = command.end()
    assert result.code == 130
    assert "Traceback" not in result.err
    assert journal.jobs()[0].state is JobState.CANCELLED
    assert world(vms) == before


def test_a_create_that_is_not_waited_for_returns_while_it_goes_on(
    hv: Hv, journal: Journal, tiny_guest: TinyGuest, real_host: Host
) -> None:
    result = hv("vm", "create", "later", "--from", "tiny", "--no-wait", "-o", "json")
    (told,) = json.loads(result.out)
    assert (result.code, told["result"] in {"queued", "running"}) == (0, True)
    wait_for(lambda: journal.job(told["job"]).state.is_over, "the job to end")
    assert journal.job(told["job"]).state is JobState.DONE
    with real_host.calls("look") as connection:
        assert connection.lookupByName("later").isActive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_create_goes_on_when_the_command_that_watches_it_is_ended(
    start: Callable[..., Process], journal: Journal, tiny_guest: TinyGuest, real_host: Host, number: signal.Signals
) -> None:
    command = start("vm", "create", "stays", "--from", "tiny", "--yes")
    wait_for_step(journal, "create.wait")
    os.killpg(command.process.pid, number)
    assert command.end().code in {-number, 128 + number}
    wait_for(lambda: journal.jobs()[0].state.is_over, "the job to end")
    assert journal.jobs()[0].state is JobState.DONE
    assert real_host.connection().lookupByName("stays").isActive()


def test_a_wait_cut_off_by_a_signal_is_restartable(
    start: Callable[..., Process], hv: Hv, vms: libvirt.virConnect, journal: Journal
) -> None:
    command = start("vm", "stop", "running", "--timeout", "60")
    wait_for(lambda: any(step.note for job in journal.jobs() for step in job.steps), "the job to wait")
    command.process.terminate()
    command.end()
    assert "interrupted" in hv("job", "list").out
    blocked = hv("vm", "off", "running", "--yes")
    assert blocked.code == 4, "the interrupted job holds its VM"
    assert "job 1" in blocked.err
    vms.lookupByName("running").destroy()
    assert hv("job", "restart", "1").code == 0
    assert hv("vm", "start", "running").code == 0


# A libvirtd that is away or frozen


def test_a_frozen_libvirtd_is_told_within_the_time_limit(
    start: Callable[..., Process], private_daemon: PrivateLibvirtd, real_host: Host
) -> None:
    private_daemon.freeze()
    commands = [
        start("vm", "list", "--timeout", "2"),
        start("vm", "start", "x", "--timeout", "2"),
        start("--timeout", "2"),
    ]
    for command in commands:
        result = command.end()
        assert result.code == 7, result
        assert "within 2 s" in result.err
        assert "frozen" in result.err


def test_ctrl_c_ends_the_wait_for_a_frozen_libvirtd(
    start: Callable[..., Process], private_daemon: PrivateLibvirtd, real_host: Host
) -> None:
    private_daemon.freeze()
    command = start("vm", "list")
    time.sleep(1.5)
    command.process.send_signal(signal.SIGINT)
    result = command.end(timeout_s=10)
    assert (result.code, "Traceback" in result.err) == (130, False)


def test_a_libvirtd_that_is_away_is_told_at_once(
    start: Callable[..., Process], private_daemon: PrivateLibvirtd, real_host: Host
) -> None:
    private_daemon.kill()
    for words in (("vm", "list"), ("vm", "start", "off"), ("host", "show")):
        assert_clear_error(start(*words).end(), 6)


def test_a_command_goes_on_when_libvirtd_is_restarted_under_it(
    start: Callable[..., Process], vms: libvirt.virConnect, journal: Journal, private_daemon: PrivateLibvirtd
) -> None:
    command = start("vm", "stop", "running", "--timeout", "4", "--force", "--yes", "-o", "json")
    wait_for(lambda: any(step.note for job in journal.jobs() for step in job.steps), "the job to wait")
    private_daemon.restart()
    result = command.end(timeout_s=60)
    assert (result.code, result.json[0]["result"]) == (0, "done"), result


def test_a_stream_tells_of_a_lost_link_and_goes_on_when_it_is_back(
    start: Callable[..., Process], real_host: Host, vms: libvirt.virConnect, private_daemon: PrivateLibvirtd
) -> None:
    command = start("vm", "watch", "--no-rates")
    assert command.process.stdout is not None
    lines = (json.loads(line) for line in command.process.stdout)
    assert {next(lines)["vm"], next(lines)["vm"]} == {"running", "off"}
    private_daemon.kill()
    lost = next(lines)
    assert (lost["kind"], lost["status"]) == ("link", "lost")
    private_daemon.start()
    assert any(each["kind"] == "link" and each["status"] == "connected" for each in lines)
    connection = libvirt.open(private_daemon.uri)
    connection.lookupByName("off").create()
    connection.close()
    assert any((each["kind"], each["vm"], each["state"]) == ("state", "off", "running") for each in lines)
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(60) == 130
