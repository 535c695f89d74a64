"""Editing a VM's XML: what is refused, what is kept, and that no password leaves the host's libvirt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from host import jobs, secrets
from host.connection import Host
from host.errors import Conflict, UsageError, WrongState
from host.job_codec import plan_to_json
from host.job_model import JobState
from host.plan import Plan
from tests.support.running import do, done, submit, undo
from tests.support.simulated_world import HOSTILE_NAMES, domain, uuid_of, world
from vm import inventory
from vm.domain_xml import parse, to_text
from vm.edit import editable_xml, plan_edit
from vm.redact import extract, insert

SECURE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
SESAME = "open sesame & <more>"
VNC = "<graphics type='vnc' port='-1' autoport='yes' passwd='open sesame &amp; &lt;more&gt;'/>"


def xml_of(host: Host, name: str, flags: int = libvirt.VIR_DOMAIN_XML_INACTIVE) -> str:
    with host.calls("read") as connection:
        return str(connection.lookupByName(name).XMLDesc(flags))


def edit(host: Host, name: str, old: str, new: str) -> Plan:
    vm = inventory.find(host, name)
    text = editable_xml(host, vm)
    assert old in text
    return plan_edit(host, vm, text.replace(old, new, 1))


def reboot_policy(host: Host, name: str, policy: str = "destroy") -> Plan:
    return edit(host, name, "<on_reboot>restart<", f"<on_reboot>{policy}<")


@pytest.fixture
def guarded(open_world: Callable[[str], Host]) -> Host:
    """A host with a VM whose screen has a password."""
    return open_world(world([domain("guarded", devices=VNC), domain("plain", state="running")]))


def test_an_edit_is_defined_and_can_be_taken_back(simulated: Host) -> None:
    before = xml_of(simulated, "build-07")
    plan = reboot_policy(simulated, "build-07")
    assert plan.xml_before == before
    assert "<on_reboot>destroy<" in (plan.xml_after or "")
    job = done(plan, simulated)
    assert "<on_reboot>destroy<" in xml_of(simulated, "build-07")
    done(jobs.plan_undo(job, simulated), simulated)
    assert xml_of(simulated, "build-07") == before


def test_an_edit_may_run_twice_and_be_rolled_back_twice(simulated: Host) -> None:
    before = xml_of(simulated, "build-07")
    (step,) = reboot_policy(simulated, "build-07").steps
    do(simulated, step)
    result = do(simulated, step)
    undo(simulated, step, result)
    undo(simulated, step, result)
    assert xml_of(simulated, "build-07") == before


def test_an_interrupted_edit_is_known_by_its_outcome(simulated: Host) -> None:
    before = xml_of(simulated, "build-07")
    (step,) = reboot_policy(simulated, "build-07").steps
    undo(simulated, step, None)
    assert xml_of(simulated, "build-07") == before
    do(simulated, step)
    undo(simulated, step, None)
    assert xml_of(simulated, "build-07") == before


def test_somebody_elses_change_is_never_overwritten(simulated: Host) -> None:
    (mine,) = reboot_policy(simulated, "build-07").steps
    (theirs,) = edit(simulated, "build-07", "<on_crash>destroy<", "<on_crash>preserve<").steps
    do(simulated, theirs)
    changed = xml_of(simulated, "build-07")
    with pytest.raises(Conflict, match="in the meantime"):
        do(simulated, mine)
    assert xml_of(simulated, "build-07") == changed
    undo(simulated, mine, None)
    assert xml_of(simulated, "build-07") == changed


def test_a_running_vm_changes_at_the_next_start(simulated: Host) -> None:
    plan = reboot_policy(simulated, "web-01")
    assert "next start" in plan.warnings[0]
    done(plan, simulated)
    assert "<on_reboot>restart<" in xml_of(simulated, "web-01", 0)
    assert "<on_reboot>destroy<" in xml_of(simulated, "web-01")


def test_a_saved_vm_is_warned_about_and_a_transient_one_blocked(simulated: Host) -> None:
    assert "saved state" in reboot_policy(simulated, "build-08").warnings[0]
    with pytest.raises(WrongState, match="transient"):
        reboot_policy(simulated, "scratch").raise_if_blocked()


def test_an_edit_without_a_difference_says_so(simulated: Host) -> None:
    vm = inventory.find(simulated, "build-07")
    assert plan_edit(simulated, vm, editable_xml(simulated, vm)).warnings == ("Nothing is different",)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_vm_with_a_hostile_name_can_be_edited(simulated: Host, name: str) -> None:
    done(reboot_policy(simulated, name), simulated)
    assert "<on_reboot>destroy<" in xml_of(simulated, name)


ENTITY = '<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: "not XML",
        lambda text: text[:-20],
        lambda text: ENTITY + text,
        lambda text: text.replace("<domain", "<network", 1).replace("</domain>", "</network>"),
        lambda text: text.replace("</devices>", "<x>" * 200 + "</x>" * 200 + "</devices>"),
        lambda text: text + " " * (2 * 1024 * 1024),
        lambda text: text.replace(uuid_of("build-07"), uuid_of("web-01")),
        lambda text: text.replace(f"<uuid>{uuid_of('build-07')}</uuid>", ""),
        lambda text: text.replace("<name>build-07<", "<name>other<"),
        lambda text: text.replace("<name>build-07</name>", ""),
        lambda text: text.replace("<name>build-07<", "<name>\x1b]0;x\x07<"),
    ],
)
def test_malformed_or_hostile_xml_is_a_usage_error_on_one_line(simulated: Host, spoil: Callable[[str], str]) -> None:
    vm = inventory.find(simulated, "build-07")
    before = editable_xml(simulated, vm)
    with pytest.raises(UsageError) as caught:
        plan_edit(simulated, vm, spoil(before))
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert editable_xml(simulated, vm) == before


def test_xml_against_the_schema_is_refused_before_anything_runs(simulated: Host) -> None:
    with pytest.raises(UsageError, match="not a valid domain: Extra element") as caught:
        edit(simulated, "build-07", "<devices>", "<devices><bogus/>")
    assert "/usr" not in str(caught.value)


TWICE = "<disk type='file' device='disk'><source file='/x'/><target dev='vda' bus='virtio'/></disk>"


def test_xml_that_libvirt_refuses_leaves_everything_as_it_was(simulated: Host) -> None:
    before = xml_of(simulated, "build-07")
    job = submit(edit(simulated, "build-07", "<devices>", f"<devices>{TWICE}"), simulated)
    assert job.state is JobState.FAILED
    assert job.exit_code == 2
    assert xml_of(simulated, "build-07") == before


def test_a_refused_edit_rolls_back_to_nothing(simulated: Host) -> None:
    (step,) = edit(simulated, "build-07", "<devices>", f"<devices>{TWICE}").steps
    (theirs,) = reboot_policy(simulated, "build-07").steps
    do(simulated, theirs)
    changed = xml_of(simulated, "build-07")
    undo(simulated, step, None)
    assert xml_of(simulated, "build-07") == changed


# Secrets


def test_the_xml_that_is_handed_out_holds_no_password(guarded: Host) -> None:
    assert SESAME in [each.get("passwd") for each in parse(xml_of(guarded, "guarded", SECURE)).iter("graphics")]
    assert "sesame" not in editable_xml(guarded, inventory.find(guarded, "guarded"))


def test_a_password_in_force_survives_an_edit_and_its_undo(guarded: Host) -> None:
    before = xml_of(guarded, "guarded", SECURE)
    plan = reboot_policy(guarded, "guarded")
    assert "sesame" not in json.dumps(plan_to_json(plan))
    job = done(plan, guarded)
    assert "sesame" in xml_of(guarded, "guarded", SECURE)
    done(jobs.plan_undo(job, guarded), guarded)
    assert xml_of(guarded, "guarded", SECURE) == before


def test_a_new_password_reaches_libvirt_but_never_the_plan_or_the_journal(guarded: Host, tmp_path: Path) -> None:
    plan = edit(guarded, "guarded", "<graphics type='vnc'", "<graphics passwd='brand&lt;new' type='vnc'")
    assert "brand" not in json.dumps(plan_to_json(plan))
    job = done(plan, guarded)
    assert "brand&lt;new" in xml_of(guarded, "guarded", SECURE)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "world" not in path.name)
    assert b"brand" not in stored
    assert b"sesame" not in stored
    assert "password" in jobs.plan_undo(job, guarded).blockers[0].reason


def test_a_rolled_back_edit_of_another_password_keeps_one(guarded: Host) -> None:
    plan = edit(guarded, "guarded", "<graphics type='vnc'", "<graphics passwd='brand new' type='vnc'")
    (step,) = plan.steps
    (reference,) = list(secrets.references(step.args))
    given = {"graphics/vnc/0/passwd": "brand new"}
    result = do(guarded, step, secrets=given)
    assert reference
    undo(guarded, step, result)
    assert "passwd='brand new'" in xml_of(guarded, "guarded", SECURE)


def test_secrets_come_out_and_go_in_where_they_stood() -> None:
    cookies = "<cookies><cookie name='a'>b</cookie></cookies>"
    text = (
        f"<domain><devices>{VNC}<graphics type='vnc'/><graphics type='spice' passwd='s'/>"
        f"<disk><target dev='sda'/><source protocol='https'>{cookies}</source></disk>"
        "<disk><source file='/x'/></disk></devices></domain>"
    )
    root = parse(text)
    found = extract(root)
    assert set(found) == {"graphics/vnc/0/passwd", "graphics/spice/0/passwd", "disk/sda/0/cookies"}
    assert "sesame" not in to_text(root)
    assert "cookie" not in to_text(root)
    insert(root, {**found, "graphics/vnc/7/passwd": "nowhere"})
    assert extract(root) == found
    assert not extract(root)


def test_a_secret_that_stands_already_is_not_replaced() -> None:
    root = parse("<domain><devices><graphics type='vnc' passwd='mine'/></devices></domain>")
    insert(root, {"graphics/vnc/0/passwd": "theirs"})
    assert extract(root) == {"graphics/vnc/0/passwd": "mine"}


def test_a_cookie_that_is_not_xml_is_refused() -> None:
    root = parse("<domain><devices><disk><target dev='sda'/><source/></disk></devices></domain>")
    with pytest.raises(UsageError):
        insert(root, {"disk/sda/0/cookies": "<"})
