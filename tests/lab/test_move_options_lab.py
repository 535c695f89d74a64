"""How a live move may be made: what QEMU itself says of each option while it sends, and refusals before it begins."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host import host_test, jobs
from host.job_model import JobState
from tests.support import guest as inside
from tests.support.lab import Lab
from tests.support.lab_host import LabHost
from tests.support.lab_saved import SavedGuests
from tests.support.live_moves import (
    SLOW,
    Pair,
    runs_at_the_source_alone,
    runs_at_the_target_alone,
)
from tests.support.waiting import wait_for

MIB = 1024**2
CERTIFICATES = "/etc/pki/qemu"


@pytest.fixture
def pair(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """Commands on the hosts, which hvtui runs over ssh, are run as the lab can."""

    def run_on(tested: host_test.Subject, words: list[str]) -> subprocess.CompletedProcess[str]:
        return lab[tested.entry.name].run(words, check=False)

    monkeypatch.setattr(host_test, "run_on", run_on)
    both = Pair(lab)
    yield both
    both.close()
    for host in lab.hosts:
        host.run(["rm", "-rf", "/etc/pki"])


def qemu(host: LabHost, command: str) -> Any:
    """What the guest's QEMU answers."""
    words = ["virsh", "qemu-monitor-command", "count", json.dumps({"execute": command})]
    return json.loads(host.run(words).stdout)["return"]


def capabilities(host: LabHost) -> set[str]:
    return {each["capability"] for each in qemu(host, "query-migrate-capabilities") if each["state"]}


def connections(host: LabHost) -> int:
    """How many connections carry memory to that host."""
    return len(host.run(["ss", "-Htn", "state", "established", "sport >= 49152"]).stdout.splitlines())


BUSY = "cd /run; head -c 4000000 /dev/vda > a; while :; do cat a a a a > b; done"


def test_what_is_changed_while_it_runs_reaches_qemu_and_a_guest_that_writes_much_is_slowed_down(
    pair: Pair, guests: SavedGuests
):
    guest = guests.start(pair.here)
    inside.agent(guest.domain, "guest-exec", path="/bin/sh", arg=["-c", BUSY])
    moving = pair.begin(pair.plan("count", compress=True, bandwidth_bytes_s=16 * SLOW, downtime_ms=1))

    assert {"xbzrle", "auto-converge"} <= capabilities(pair.here)
    assert qemu(pair.here, "query-migrate-parameters")["max-bandwidth"] == 16 * SLOW
    wait_for(lambda: "memory, round" in str(moving.job.current_step), what="it to write faster than that")
    jobs.wish(moving.id, pair.journal, bandwidth="4M", downtime="10ms")
    wait_for(lambda: qemu(pair.here, "query-migrate-parameters")["downtime-limit"] == 10, what="the downtime's limit")
    assert qemu(pair.here, "query-migrate-parameters")["max-bandwidth"] == 4 * MIB

    wait_for(lambda: "guest slowed by" in str(moving.job.current_step), timeout_s=40.0, what="it to be slowed down")
    assert "xbzrle-cache" in qemu(pair.here, "query-migrate")
    jobs.cancel(moving.id, pair.journal)
    assert moving.ended().state is JobState.CANCELLED, moving.job.error
    runs_at_the_source_alone(pair, guest)


def test_tls_is_refused_where_certificates_lack_and_carries_over_several_connections_where_they_are(
    pair: Pair, guests: SavedGuests, tmp_path: Path
):
    guest = guests.start(pair.here)
    lacking = "; ".join(blocker.reason for blocker in pair.plan("count", tls=True).blockers)
    assert f"lab1 has not {CERTIFICATES}/ca-cert.pem, {CERTIFICATES}/client-cert.pem" in lacking
    assert f"lab2 has not {CERTIFICATES}/ca-cert.pem, {CERTIFICATES}/server-cert.pem" in lacking
    for name in ("a", "b"):
        make_certificates(tmp_path / name)
    give_certificates(pair.here, tmp_path / "a")
    give_certificates(pair.there, tmp_path / "b")

    job = pair.run(pair.plan("count", tls=True))  # of two authorities that do not know each other
    assert job.state is JobState.FAILED
    assert "it runs on lab1" in job.error
    assert "certificates" in job.remedy
    runs_at_the_source_alone(pair, guest)

    give_certificates(pair.there, tmp_path / "a")
    options = {"tls": True, "connections": 2, "auto_converge": False}
    moving = pair.begin(pair.plan("count", bandwidth_bytes_s=SLOW, **options))
    parameters = qemu(pair.here, "query-migrate-parameters")
    assert "multifd" in capabilities(pair.here) and "auto-converge" not in capabilities(pair.here)
    assert parameters["multifd-channels"] == 2 and parameters["tls-creds"]
    assert connections(pair.there) == 3
    jobs.wish(moving.id, pair.journal, bandwidth="1000M")
    assert moving.ended().state is JobState.DONE, moving.job.error
    runs_at_the_target_alone(pair, guest)


def test_a_tunnelled_move_opens_no_connection_of_its_own(pair: Pair, guests: SavedGuests):
    guest = guests.start(pair.here)
    moving = pair.begin(pair.plan("count", tunnelled=True, bandwidth_bytes_s=SLOW))

    assert connections(pair.there) == 0
    jobs.wish(moving.id, pair.journal, bandwidth="1000M")
    assert moving.ended().state is JobState.DONE, moving.job.error
    runs_at_the_target_alone(pair, guest)


# Certificates


def make_certificates(directory: Path) -> None:
    """An authority, and one certificate of it for both hosts, as servers and as clients."""
    directory.mkdir()

    def openssl(*words: str) -> None:
        command = ["openssl", *words, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        subprocess.run(command, cwd=directory, check=True, capture_output=True)

    openssl("req", "-x509", "-subj", "/CN=lab", "-keyout", "ca-key.pem", "-out", "ca-cert.pem")
    names = "subjectAltName=DNS:lab1,DNS:lab2"
    usage = "extendedKeyUsage=serverAuth,clientAuth"
    openssl(
        "req", "-x509", "-subj", "/CN=host", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-keyout", "key.pem",
        "-out", "cert.pem", "-addext", names, "-addext", usage, "-addext", "basicConstraints=critical,CA:FALSE",
        "-addext", "keyUsage=critical,digitalSignature,keyEncipherment",
    )  # fmt: skip


def give_certificates(host: LabHost, directory: Path) -> None:
    host.run(["mkdir", "-p", CERTIFICATES])
    place = host.path(CERTIFICATES)
    (place / "ca-cert.pem").write_bytes((directory / "ca-cert.pem").read_bytes())
    for role in ("client", "server"):
        for kind in ("cert", "key"):
            (place / f"{role}-{kind}.pem").write_bytes((directory / f"{kind}.pem").read_bytes())
