"""hvtui at a seat in the lab's network: each leg tried over real ssh, and one login a host for all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.lab_host import LabHost

ROOT = Path(__file__).parents[2]
EMPTY = "<volume><name>{}</name><capacity>4096</capacity></volume>"
MANY = """
import sys, threading
from host.connection import open_host
host = open_host(sys.argv[1], name="lab1")
together = threading.Barrier(12)
def ask():
    with host.calls("ask") as connection:
        together.wait()
        sys.stdout.write(connection.getHostname())
threads = [threading.Thread(target=ask) for _ in range(12)]
for each in threads: each.start()
for each in threads: each.join()
host.close()
"""


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def legs(self) -> dict[tuple[str, str | None, str], Any]:
        return {(leg["host"], leg["peer"], leg["leg"]): leg for leg in json.loads(self.out)}


Seat = Callable[..., Result]


@pytest.fixture
def seat(lab: Lab, tmp_path: Path) -> Iterator[Seat]:
    """Run Python's arguments at the seat, with lab1 and lab2 configured and a state of its own."""
    config = tmp_path / "config.toml"
    config.write_text(
        "".join(f'[[host]]\nname = "{name}"\nuri = "{lab[name].peer_uri}"\n' for name in ("lab1", "lab2"))
    )
    with tempfile.TemporaryDirectory(prefix="hv-", dir="/tmp") as state:  # a control socket wants a short path
        environment = {**os.environ, "HVTUI_CONFIG": str(config), "HVTUI_STATE_DIR": state, "PYTHONPATH": str(ROOT)}

        def run(*words: str) -> Result:
            command = [*lab.seat(), sys.executable, *words]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=200, env=environment, check=False, cwd=ROOT
            )
            return Result(done.returncode, done.stdout, done.stderr)

        yield run
        for socket in Path(state).glob("ssh/*"):
            if socket.is_socket():
                leave = ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "any"]
                subprocess.run([*lab.seat(), *leave], capture_output=True, check=False)


def logins(host: LabHost) -> int:
    return host.run(["journalctl", "-u", "ssh", "-o", "cat", "--no-pager"]).stdout.count("Accepted publickey")


def test_every_leg_between_hosts_that_fit_is_fine(lab: Lab, seat: Seat):
    for host in ("lab1", "lab2"):
        lab[host].connect().storagePoolLookupByName("default").createXML(EMPTY.format("own"))
    lab["lab1"].connect().storagePoolLookupByName("shared").createXML(EMPTY.format("both"))
    lab["lab2"].connect().storagePoolLookupByName("shared").refresh()

    result = seat("-m", "hvtui", "host", "test", "lab1", "lab2", "-o", "json")

    assert result.code == 0, result.out + result.err
    legs = result.legs
    assert {leg["leg"] for leg in legs.values() if leg["result"] != "ok"} <= {"guests"}, legs
    assert legs["lab1", None, "name"]["seen"] == f"lab1 is {lab['lab1'].address}"
    assert legs["lab1", "lab2", "reach"]["seen"] == "qemu+ssh://root@lab2/system answers: lab2"
    assert legs["lab2", "lab1", "migration port"]["seen"] == "lab1:49152 is not filtered"
    assert legs["lab1", "lab2", "shared paths"]["seen"] == (
        "the same files: /srv/shared/images; each its own: /var/lib/libvirt/images"
    )


def test_what_is_wrong_between_hosts_is_told_for_each_way(lab: Lab, seat: Seat):
    target = lab["lab2"]
    conf = target.path("/etc/libvirt/qemu.conf")
    before = conf.read_text()
    rules = "add table inet t; add chain inet t i { type filter hook input priority 0; }; add rule inet t i"
    try:
        conf.write_text(before + 'lock_manager = "lockd"\n')
        target.run(["nft", f"{rules} tcp dport 49152-49215 drop"])
        target.run(["mv", "/root/.ssh/known_hosts", "/root/.ssh/known_hosts.away"])
        target.connect().networkLookupByName("default").destroy()

        result = seat("-m", "hvtui", "host", "test", "--pair", "lab1", "lab2", "-o", "json")
    finally:
        conf.write_text(before)
        target.run(["nft", "delete", "table", "inet", "t"], check=False)
        target.run(["mv", "/root/.ssh/known_hosts.away", "/root/.ssh/known_hosts"], check=False)
    found = {key: leg["result"] for key, leg in result.legs.items()}
    assert result.code == 9, result.out
    assert ("lab1", "lab2", "migration port") in found, result.out
    assert found["lab1", "lab2", "migration port"] == "fail"
    assert found["lab2", "lab1", "migration port"] == "ok"
    assert (found["lab2", "lab1", "reach"], found["lab1", "lab2", "reach"]) == ("fail", "ok")
    assert (found["lab1", "lab2", "networks"], found["lab2", "lab1", "networks"]) == ("warn", "ok")
    assert found["lab1", "lab2", "locks"] == found["lab2", "lab1", "locks"] == "fail"
    assert all(leg["remedy"] for leg in result.legs.values() if leg["result"] == "fail")


def test_a_host_without_power_fails_at_its_first_legs_and_the_other_is_tried(lab: Lab, seat: Seat):
    lab["lab2"].kill_host()

    result = seat("-m", "hvtui", "host", "test", "lab1", "lab2", "-o", "json")

    assert result.code == 9
    assert {host for host, peer, _ in result.legs if peer is None} == {"lab1", "lab2"}
    assert result.legs["lab2", None, "ssh"]["result"] == "fail"
    assert result.legs["lab1", None, "libvirt"]["result"] == "ok"
    assert ("lab2", None, "libvirt") not in result.legs
    listed = seat("-m", "hvtui", "vm", "list", "--all-hosts", "-o", "json", "--timeout", "8")
    assert listed.code == 6
    assert json.loads(listed.out) == []


def test_one_login_serves_every_command_and_a_host_that_was_away_is_logged_in_to_again(lab: Lab, seat: Seat):
    host = lab["lab1"]
    before = logins(host)
    for _ in range(3):
        assert seat("-m", "hvtui", "vm", "list", "--host", "lab1").code == 0
    assert seat("-m", "hvtui", "host", "test", "lab1").code == 0
    assert logins(host) == before + 1

    host.kill_host()
    host.start()

    assert seat("-m", "hvtui", "vm", "list", "--host", "lab1").code == 0


def test_more_connections_than_a_login_may_carry_get_logins_of_their_own(lab: Lab, seat: Seat):
    before = logins(lab["lab1"])

    result = seat("-c", MANY, lab["lab1"].peer_uri)

    assert (result.code, result.out.count("lab1")) == (0, 12), result.err
    assert 1 <= logins(lab["lab1"]) - before < 12
