"""Plans that make a template from a VM, and taking its identity away with a program that only notes its arguments."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from host.connection import Host
from host.errors import Cancelled, HvtuiError
from tests.support import simulated_world
from vm import generalise, inventory, steps, template_capture
from vm.template_capture import CaptureRequest, Identity

assert steps  # registers the verbs
POOL = "<pool type='dir'><name>library</name><target><path>/library</path></target></pool>"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virt-sysprep that writes its arguments down; the file beside it, `then`, is run after that."""
    directory = tmp_path / "bin"
    directory.mkdir()
    tool = directory / generalise.TOOL
    tool.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/arguments\n. {tmp_path}/then\n")
    tool.chmod(0o755)
    (tmp_path / "then").write_text("exit 0\n")
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def run(*paths: str, cancelled: bool = False) -> None:
    generalise.generalise(paths, progress=lambda _fraction, _note: None, is_cancelled=lambda: cancelled)


def test_the_images_are_given_with_their_format_and_never_probed(fake: Path) -> None:
    run("/library/a.qcow2", "/library/b.qcow2")
    words = (fake / "arguments").read_text().splitlines()
    places = [place for place, word in enumerate(words) if word == "--add"]
    assert [words[place + 1] for place in places] == ["/library/a.qcow2", "/library/b.qcow2"]
    assert [words[place - 2 : place] for place in places] == [["--format", "qcow2"]] * 2
    assert "--no-network" in words
    assert "/var/lib/cloud/*" in words
    assert words[words.index("--truncate") + 1] == "/etc/machine-id", "it is filled in again otherwise"


def test_what_it_complains_about_is_told_with_what_else_can_be_done(fake: Path) -> None:
    (fake / "then").write_text("echo noise; echo 'virt-sysprep: error: no operating systems found' >&2; exit 1\n")
    with pytest.raises(HvtuiError, match="no operating systems") as caught:
        run("/library/a.qcow2")
    assert caught.value.about == "a.qcow2"
    assert "--generalised" in caught.value.remedy
    assert "cloud-init clean" in caught.value.remedy


def test_cancelling_ends_it_with_all_that_it_has_started(fake: Path) -> None:
    (fake / "then").write_text(f"sleep 60 & echo $! > {fake}/child; wait\n")
    with pytest.raises(Cancelled):
        generalise.generalise(
            ["/library/a.qcow2"],
            progress=lambda _fraction, _note: None,
            is_cancelled=lambda: (fake / "child").exists() and bool((fake / "child").read_text()),
        )
    child = Path("/proc") / (fake / "child").read_text().strip()
    for _ in range(100):
        if not child.exists() or ") Z " in (child / "stat").read_text():
            break
        time.sleep(0.02)
    else:
        pytest.fail("its child goes on")


def test_where_it_is_not_installed_the_plan_says_what_else_can_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated: Host
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(simulated, "is_simulated", False)
    monkeypatch.setattr(simulated, "is_local", True)
    reason, remedy = generalise.obstacle(simulated, str(tmp_path))
    assert "not installed" in reason
    assert "libguestfs-tools" in remedy


@pytest.fixture
def host(open_world) -> Host:
    vms = [simulated_world.domain("web", disks=["/images/web.qcow2"], tags=["a"], os_id="http://debian.org/debian/12"),
           simulated_world.domain("busy", state="running", disks=["/images/busy.qcow2"])]  # fmt: skip
    return open_world(f"<node>{POOL}{''.join(vms)}</node>")


def test_a_running_vm_is_not_captured_and_a_clone_is_offered(host: Host) -> None:
    plan = template_capture.plan_capture(host, inventory.find(host, "busy"), CaptureRequest("t"))
    told = [(blocker.reason, blocker.remedy) for blocker in plan.blockers]
    assert any("is running" in reason and "vm clone" in remedy for reason, remedy in told), told


def test_the_manifest_says_what_became_of_the_identity(host: Host) -> None:
    vm = inventory.find(host, "web")
    for identity, words in ((Identity.KEPT, "with its identity"), (Identity.GONE, "by the guest itself")):
        plan = template_capture.plan_capture(host, vm, CaptureRequest("t", identity=identity))
        (store,) = [step for step in plan.steps if step.verb == "template.store"]
        assert words in store.args["facts"]["origin"]
        assert store.args["facts"]["os_id"] == "http://debian.org/debian/12"
        assert store.args["facts"]["tags"] == ["a"]
        assert "capture.generalise" not in [step.verb for step in plan.steps]
