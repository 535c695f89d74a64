"""hvtui on a host with systemd itself: a job goes on when the session that began it is ended with all its processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import lab_program
from tests.support.lab import Lab
from tests.support.lab_host import LabHost
from tests.support.lab_saved import SavedGuests
from tests.support.waiting import wait_for

SESSION = "session-of-an-administrator.service"
SLOW = "4M"  # a second: the guest's memory takes several of them


@pytest.fixture
def here(lab: Lab) -> Iterator[LabHost]:
    """The host that the administrator is logged in to."""
    yield lab["lab1"]
    lab["lab1"].run(["systemctl", "stop", SESSION], check=False)
    lab["lab1"].run(["rm", "-rf", "/var/lib/hvtui", "/root/.config/hvtui"])


def test_a_move_outlives_the_session_that_began_it(lab: Lab, here: LabHost, guests: SavedGuests) -> None:
    guest = guests.start(here)
    with lab_program.installed(here) as hvtui:
        here.run([*hvtui, "host", "add", "lab2", lab["lab2"].peer_uri])
        move = [*hvtui, "--connect", "qemu:///system", "vm", "migrate", "count", "--to", "lab2", "--bandwidth", SLOW]
        here.run(["systemd-run", "--quiet", f"--unit={SESSION}", *move])
        wait_for(lambda: job(here, hvtui).get("progress", 0.0) > 0.3, what="the move to be under way")
        scope = scopes(here)
        assert len(scope) == 1

        here.run(["systemctl", "stop", SESSION])  # as logind does at its end with KillUserProcesses=yes

        assert job(here, hvtui)["state"] == "running"
        assert scopes(here) == scope
        here.run([*hvtui, "job", "tune", str(job(here, hvtui)["id"]), "--bandwidth", "1G"])
        wait_for(lambda: job(here, hvtui)["state"] == "done", timeout_s=120.0, what="the move's end")
        wait_for(lambda: not scopes(here), what="systemd to forget the scope")
    assert guest.counted_on(lab["lab2"]).count > 0
    assert not here.connect().listAllDomains()


def scopes(host: LabHost) -> list[str]:
    """The scopes of systemd that jobs run in."""
    listed = host.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "hvtui-job-*"]).stdout
    return [line.split()[0] for line in listed.splitlines()]


def job(host: LabHost, hvtui: list[str]) -> dict[str, Any]:
    """The host's newest job; empty before there is one."""
    found: list[dict[str, Any]] = json.loads(host.run([*hvtui, "job", "list", "-o", "json"]).stdout)
    return found[0] if found else {}
