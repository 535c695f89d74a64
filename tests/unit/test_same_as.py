"""The command that a plan or a job equals: right to paste, harmless to show, and on the right host."""

from __future__ import annotations

import subprocess

import pytest

from host.connection import Host
from host.plan import Blocker, Plan, Step
from hvtui.same_as import command_line, command_lines
from hvtui.target import choose_target, implied_uri
from tests.support.simulated_world import HOSTILE_NAMES
from vm.demo import demo_host

LAB2 = "qemu+ssh://root@lab2/system"


@pytest.fixture(autouse=True)
def usual_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HVTUI_URI", "LIBVIRT_DEFAULT_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("hvtui.target.default_uri", lambda: "qemu:///system")


def plan(*command: str, uri: str = "qemu:///system", **more: object) -> Plan:
    values: dict[str, object] = {"title": "x", "host_uri": uri, "steps": (Step("x", "x"),), "command": command}
    return Plan(**(values | more))  # type: ignore[arg-type]


def test_the_host_that_a_command_means_anyway_is_not_named():
    assert command_line(plan("vm", "start", "web")) == "hvtui --headless vm start web"


def test_another_host_is_named():
    assert command_line(plan("vm", "start", "web", uri=LAB2)) == f"hvtui --headless --connect {LAB2} vm start web"
    assert command_line(plan("vm", "start", "web", uri="qemu+tls://h/system?no_verify=1&x=y")).split()[3] == (
        "'qemu+tls://h/system?no_verify=1&x=y'"
    )


@pytest.mark.parametrize("variable", ["HVTUI_URI", "LIBVIRT_DEFAULT_URI"])
def test_the_environment_says_which_host_a_command_means(monkeypatch: pytest.MonkeyPatch, variable: str):
    monkeypatch.setenv(variable, LAB2)
    assert choose_target(None, None, pytest.fail)[0] == implied_uri() == LAB2
    assert "--connect" not in command_line(plan("vm", "start", "web", uri=LAB2))
    assert "--connect qemu:///system " in command_line(plan("vm", "start", "web"))


def test_a_job_knows_its_host_by_itself():
    assert command_line(plan("job", "undo", "7", uri=LAB2)) == "hvtui --headless job undo 7"


def test_a_simulated_host_is_never_mistaken_for_this_machine(simulated: Host):
    assert f"--connect {simulated.uri} " in command_line(plan("vm", "off", "web", uri=simulated.uri))
    demo = demo_host()
    try:
        assert command_line(plan("vm", "off", "web", uri=demo.uri)) == "hvtui --headless --demo vm off web"
        assert command_line(plan("job", "undo", "7", uri=demo.uri)) == "hvtui --headless --demo job undo 7"
    finally:
        demo.close()


def test_a_hostile_name_is_harmless_to_show_and_right_to_paste():
    for name in (*HOSTILE_NAMES[:4], "it's", "a\nb\x1b[31m\\", "$(reboot)`id`", "a b"):
        line = command_line(plan("vm", "stop", name))
        assert line.isprintable()
        told = subprocess.run(
            ["bash", "-c", f"printf '%s|' {line.removeprefix('hvtui ')}"],
            capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert told.stdout.decode() == f"--headless|vm|stop|{name}|"


def test_one_command_stands_for_plans_that_differ_in_the_name_alone():
    plans = [plan("vm", "start", name, uri=LAB2, vm_name=name) for name in ("a", "b c")]
    assert command_lines(plans) == [f"hvtui --headless --connect {LAB2} vm start a 'b c'"]
    assert len(command_lines([*plans, plan("vm", "stop", "d", uri=LAB2, vm_name="d")])) == 3


def test_plans_of_several_hosts_are_a_command_for_each_host():
    plans = [plan("vm", "start", name, uri=LAB2, vm_name=name) for name in ("a", "b")]
    there = f"hvtui --headless --connect {LAB2} vm start a b"
    assert command_lines([*plans, plan("vm", "start", "c", vm_name="c")]) == [there, "hvtui --headless vm start c"]
    assert command_lines([*plans, plan("vm", "stop", "c", vm_name="c")]) == [there, "hvtui --headless vm stop c"]


def test_what_cannot_be_done_is_left_out_of_the_command_unless_nothing_can():
    blocked = plan("vm", "start", "c", vm_name="c", blockers=(Blocker("it runs", ""),))
    assert command_lines([plan("vm", "start", "a", vm_name="a"), blocked]) == ["hvtui --headless vm start a"]
    assert command_lines([blocked]) == ["hvtui --headless vm start c"]
