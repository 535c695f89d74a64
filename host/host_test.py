"""Tries each leg of the way to a host, and between two hosts: what a move of a VM rests on. Changes nothing.

From here to a host: its name, ssh (or the port, or the socket), libvirt, versions, clock, how guests run there. From
host to host, each way: only a host that is logged in to by ssh can be asked to try something itself; of others such a
leg is unknown, and says so. What both libvirts tell is compared for any.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlsplit

from host.accelerator import AcceleratorKind, choose
from host.connection import Host
from host.facts import version_text
from host.host_list import HostEntry
from host.legs import Leg, LegState, tried
from host.ssh import SshTarget, run, ssh_target
from host.text import printable

OK, WARN, FAIL, UNKNOWN = LegState.OK, LegState.WARN, LegState.FAIL, LegState.UNKNOWN
COMMAND_TIMEOUT_S = 20.0
PORT_TIMEOUT_S = 5.0
CLOCK_WARN_S, CLOCK_FAIL_S = 1.0, 60.0
_PORTS = {"tls": 16514, "tcp": 16509}


@dataclass(frozen=True, slots=True)
class Subject:
    """A host under test: its entry, and a Host for it."""

    entry: HostEntry
    host: Host

    @property
    def ssh(self) -> SshTarget | None:
        """Where commands can be run on it; None where it is not reached by ssh."""
        return ssh_target(self.entry.uri)


def test_host(entry: HostEntry, host: Host) -> tuple[Leg, ...]:
    """Each leg from here to the host. What rests on a leg that failed is not tried. Raises nothing."""
    legs = [*tried("name", lambda: _name(entry)), *tried("way", lambda: _way(entry))]
    if not any(leg.state is FAIL for leg in legs):
        legs += tried("libvirt", lambda: _libvirt(host))
    if legs[-1].name == "libvirt" and legs[-1].state is OK:
        legs += tried("versions", lambda: _versions(host))
        legs += tried("guests", lambda: _guests(host))
        legs += tried("clock", lambda: _clock_leg(Subject(entry, host)))
    return tuple(replace(leg, host=entry.name) for leg in legs)


test_host.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test of its own


# From here


def _name(entry: HostEntry) -> Leg:
    name = _host_of(entry.uri)
    if not name:
        return Leg("name", OK, "no name to look up: it is reached on this machine")
    try:
        addresses = _in_time(lambda: _addresses(name), COMMAND_TIMEOUT_S)
    except OSError as error:
        if ssh_target(entry.uri) is not None:  # it may be a name of ssh's own configuration
            return Leg(
                "name", WARN, f"{printable(name)}: {error.strerror}; ssh may know it", "Put it into /etc/hosts or DNS"
            )
        return Leg("name", FAIL, f"{printable(name)}: {error.strerror}", "Put it into /etc/hosts or DNS")
    return Leg("name", OK, f"{printable(name)} is {', '.join(addresses)}")


def _way(entry: HostEntry) -> Leg:
    ssh = ssh_target(entry.uri)
    if ssh is not None:
        return _ssh_leg(ssh)
    parts = urlsplit(entry.uri)
    transport = parts.scheme.partition("+")[2]
    if parts.hostname:
        port = parts.port or _PORTS.get(transport or "tls", _PORTS["tls"])
        return _port_leg(parts.hostname, port)
    path = dict(parse_qsl(parts.query)).get("socket", "")
    return _socket_leg(path) if path else Leg("way", OK, "libvirt on this machine")


def _ssh_leg(ssh: SshTarget) -> Leg:
    began_s = time.monotonic()
    done = _command(ssh, ["true"])
    if isinstance(done, str) or done.returncode:
        said = done if isinstance(done, str) else _last_line(done.stderr) or f"ended with {done.returncode}"
        remedy = f"It must work without a question: ssh -o BatchMode=yes {printable(ssh.host)} true"
        return Leg("ssh", FAIL, printable(said, limit=200), remedy)
    return Leg("ssh", OK, f"a command took {_took(began_s)}")


def _port_leg(host: str, port: int) -> Leg:
    began_s = time.monotonic()
    try:
        socket.create_connection((host, port), timeout=PORT_TIMEOUT_S).close()
    except OSError as error:
        return Leg(
            "port", FAIL, f"{port}: {error.strerror or error}", "Is libvirt listening there, and no firewall between?"
        )
    return Leg("port", OK, f"{port} answers in {_took(began_s)}")


def _socket_leg(path: str) -> Leg:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PORT_TIMEOUT_S)
        try:
            probe.connect(path)
        except OSError as error:
            return Leg("socket", FAIL, f"{printable(path)}: {error.strerror or error}", "Is libvirtd running there?")
    return Leg("socket", OK, printable(path))


def _libvirt(host: Host) -> Leg:
    began_s = time.monotonic()
    with host.calls("ask the host", host.name) as connection:
        name = connection.getHostname()
    return Leg("libvirt", OK, f"{printable(name)} answered in {_took(began_s)}")


def _versions(host: Host) -> Leg:
    with host.calls("ask for versions", host.name) as connection:
        driver, hypervisor = connection.getType(), version_text(connection.getVersion())
        found = version_text(connection.getLibVersion())
    return Leg("versions", OK, f"libvirt {found}, {driver} {hypervisor}")


def _guests(host: Host) -> Leg:
    chosen = choose(host, prove=False)
    if chosen.kind is AcceleratorKind.QEMU:
        return Leg("guests", WARN, f"emulated: {chosen.reason}", chosen.remedy)
    return Leg("guests", OK, f"{chosen.kind}: {chosen.reason}")


def _clock_leg(tested: Subject) -> Leg:
    ahead_s = clock_ahead_s(tested)
    if ahead_s is None:
        return Leg("clock", UNKNOWN, "libvirt tells no time, and there is no ssh to ask with")
    return judge_clock(ahead_s, "this machine's")


def judge_clock(ahead_s: float, whose: str) -> Leg:
    """The leg for a clock that is so many seconds ahead of another."""
    state = FAIL if abs(ahead_s) > CLOCK_FAIL_S else WARN if abs(ahead_s) > CLOCK_WARN_S else OK
    seen = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} {whose}"
    return Leg("clock", state, seen, "" if state is OK else "Let both follow the same time server (chrony)")


def clock_ahead_s(tested: Subject) -> float | None:
    """How far the host's clock is ahead of this machine's, in seconds, within half the time of the question; None where
    nobody can be asked."""
    if tested.host.is_local and "socket=" not in tested.entry.uri:
        return 0.0
    if tested.ssh is None:
        return None
    _command(tested.ssh, ["true"])  # the login must not count
    before_s = time.time()
    done = _command(tested.ssh, ["date", "+%s.%N"])
    after_s = time.time()
    try:
        return float(done.stdout) - (before_s + after_s) / 2 if not isinstance(done, str) else None
    except ValueError:
        return None


# What the legs share


def run_on(tested: Subject, words: list[str]) -> subprocess.CompletedProcess[str] | str | None:
    """Run a command on the host: what came of it, or why it could not be run; None where there is no way to."""
    if tested.ssh is not None:
        return _command(tested.ssh, words)
    if tested.host.is_local and "socket=" not in tested.entry.uri and not tested.host.is_simulated:
        return _here(words)
    return None


def _here(words: list[str]) -> subprocess.CompletedProcess[str] | str:
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
    except OSError as error:
        return f"{words[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"no answer within {COMMAND_TIMEOUT_S:g} s"


def _command(ssh: SshTarget, words: list[str]) -> subprocess.CompletedProcess[str] | str:
    try:
        return run(ssh, words, timeout_s=COMMAND_TIMEOUT_S)
    except OSError as error:
        return f"ssh: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"no answer within {COMMAND_TIMEOUT_S:g} s"


def last_words(done: subprocess.CompletedProcess[str] | str) -> str:
    """Why a command failed, harmless to show."""
    said = done if isinstance(done, str) else _last_line(done.stderr) or f"it ended with {done.returncode}"
    return printable(said, limit=200)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _addresses(name: str) -> list[str]:
    return sorted({str(each[4][0]) for each in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})


def _in_time(look: Callable[[], list[str]], timeout_s: float) -> list[str]:
    """What `look` gives; a name server that is silent is left behind. Raises OSError."""
    import threading

    found: list[list[str]] = []
    failed: list[OSError] = []

    def work() -> None:
        try:
            found.append(look())
        except OSError as error:
            failed.append(error)

    worker = threading.Thread(target=work, name="resolve", daemon=True)
    worker.start()
    worker.join(timeout_s)
    if failed:
        raise failed[0]
    if not found:
        raise OSError(0, f"no answer within {timeout_s:g} s")
    return found[0]


def _host_of(uri: str) -> str:
    try:
        return urlsplit(uri).hostname or ""
    except ValueError:
        return ""


def _took(began_s: float) -> str:
    return f"{(time.monotonic() - began_s) * 1000:.0f} ms"
