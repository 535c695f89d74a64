"""Renaming and settings, on libvirt's test driver: live and for the next start, done twice, rolled back, taken back."""

from __future__ import annotations

from collections.abc import Callable

import libvirt
import pytest

from host import jobs
from host.connection import Host
from host.errors import NameTaken, NotFound, UsageError, WrongState
from host.job_model import JobState
from host.journal import Journal
from host.plan import Plan
from host.units import GIB, MIB
from tests.support.running import do, done, undo
from tests.support.simulated_world import MARKUP_NAME, WIDE_NAME, domain, uuid_of, world
from vm import inventory
from vm.delete import plan_delete
from vm.domain_xml import parse, read_config
from vm.model import VmConfig
from vm.names import LONGEST_NAME_BYTES, name_problem
from vm.settings import plan_rename, plan_set
from vm.settings_steps import edit_vcpus

BALLOON = "<memballoon model='virtio'/>"


def next_start(host: Host, name: str) -> VmConfig:
    """What the next start of the VM uses."""
    with host.calls("read") as connection:
        return read_config(connection.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


def live(host: Host, name: str) -> VmConfig:
    with host.calls("read") as connection:
        return read_config(connection.lookupByName(name).XMLDesc(0))


def setting(host: Host, name: str, **changes: str) -> Plan:
    return plan_set(host, inventory.find(host, name), changes)


# Rename


def test_a_vm_that_is_off_is_renamed_and_back(simulated: Host) -> None:
    job = done(plan_rename(simulated, inventory.find(simulated, "build-07"), "build-70"), simulated)
    assert inventory.find(simulated, "build-70").uuid == uuid_of("build-07")
    done(jobs.plan_undo(job, simulated), simulated)
    assert inventory.find(simulated, "build-07").uuid == uuid_of("build-07")


def test_a_rename_may_run_twice_and_be_rolled_back_twice(simulated: Host) -> None:
    (step,) = plan_rename(simulated, inventory.find(simulated, "build-07"), "build-70").steps
    do(simulated, step)
    do(simulated, step)
    undo(simulated, step, {})
    undo(simulated, step, None)
    assert inventory.find(simulated, "build-07").uuid == uuid_of("build-07")


def test_a_name_that_is_taken_is_refused_before_anything_runs(simulated: Host) -> None:
    with pytest.raises(NameTaken) as caught:
        plan_rename(simulated, inventory.find(simulated, "build-07"), "web-01")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", ["web-01", "db-01", "build-08", "scratch", "panicked"])
def test_only_a_persistent_vm_that_is_off_can_be_renamed(simulated: Host, name: str) -> None:
    with pytest.raises(WrongState):
        plan_rename(simulated, inventory.find(simulated, name), "other").raise_if_blocked()


def test_a_vm_with_checkpoints_or_the_same_name_is_not_renamed(open_world: Callable[[str], Host]) -> None:
    host = open_world(world([domain("old", snapshots=["one"]), domain("plain")]))
    assert "checkpoints" in plan_rename(host, inventory.find(host, "old"), "new").blockers[0].reason
    assert "already" in plan_rename(host, inventory.find(host, "plain"), "plain").blockers[0].reason


@pytest.mark.parametrize(
    "name",
    ["", " ", " a", "a ", "a/b", "a\nb", "a\x1b[31m", "\u202eb", ".", "..", "x" * (LONGEST_NAME_BYTES + 1), "é" * 101],
)
def test_a_name_that_would_do_harm_is_refused(simulated: Host, name: str) -> None:
    assert name_problem(name)
    with pytest.raises(UsageError, match="cannot be a VM's name"):
        plan_rename(simulated, inventory.find(simulated, "build-07"), name)


@pytest.mark.parametrize("name", ["web", "-x", "日本語", "a b", "{red}x", "x" * LONGEST_NAME_BYTES])
def test_other_names_are_fine(name: str) -> None:
    assert not name_problem(name)


# Texts and labels


@pytest.mark.parametrize("name", ["web-01", "build-07", MARKUP_NAME, WIDE_NAME, "scratch"])
def test_texts_and_labels_change_live_and_for_the_next_start(simulated: Host, name: str) -> None:
    plan = setting(simulated, name, title="A [b]title", description="Two\nlines & <more>", tags="a,b", owner="zoë")
    done(plan, simulated)
    configs = [live(simulated, name), next_start(simulated, name)]
    for config in configs:
        assert (config.title, config.description) == ("A [b]title", "Two\nlines & <more>")
        assert (config.tags, config.owner) == (("a", "b"), "zoë")


def test_an_empty_text_clears(simulated: Host) -> None:
    done(setting(simulated, "web-01", title="", description="", tags="", owner=""), simulated)
    config = next_start(simulated, "web-01")
    assert (config.title, config.description, config.tags, config.owner) == ("", "", (), "")
    assert config.os_id, "metadata of others stays"


def test_tags_are_added_and_removed_by_sign(simulated: Host) -> None:
    done(setting(simulated, "web-01", tags="+new, -prod +new -none"), simulated)
    assert next_start(simulated, "web-01").tags == ("web", "new")
    assert next_start(simulated, "web-01").owner == "alice", "the owner stays"


def test_the_owner_changes_and_the_tags_stay(simulated: Host) -> None:
    plan = setting(simulated, "web-01", owner="carol")
    assert "metadata" in plan.steps[0].commands[0]
    done(plan, simulated)
    assert next_start(simulated, "web-01").tags == ("web", "prod")
    assert next_start(simulated, "web-01").owner == "carol"


def test_every_text_can_be_taken_back(simulated: Host) -> None:
    before = next_start(simulated, "web-01")
    plan = setting(simulated, "web-01", title="x", description="y", tags="z", owner="w")
    job = done(plan, simulated)
    done(jobs.plan_undo(job, simulated), simulated)
    assert next_start(simulated, "web-01") == before


def test_every_setting_is_rolled_back_even_when_it_was_interrupted(simulated: Host) -> None:
    before = next_start(simulated, "web-01")
    plan = setting(simulated, "web-01", title="x", description="y", tags="z", vcpus="1", memory="1G", autostart="on")
    for step in plan.steps:
        do(simulated, step)
        do(simulated, step)
    for step in reversed(plan.steps):
        undo(simulated, step, None)
        undo(simulated, step, {})
    assert next_start(simulated, "web-01") == before
    assert not inventory.find(simulated, "web-01").autostart


def test_a_text_that_somebody_changed_since_is_not_rolled_back(simulated: Host) -> None:
    (step,) = setting(simulated, "web-01", title="mine").steps
    do(simulated, step)
    (other,) = setting(simulated, "web-01", title="theirs").steps
    do(simulated, other)
    undo(simulated, step, None)
    assert next_start(simulated, "web-01").title == "theirs"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"titel": "x"},
        {"zzz\x1b": "x"},
        {"title": "two\nlines"},
        {"owner": "tab\there"},
        {"title": "esc\x1b[31m"},
        {"description": "nul\x00"},
        {"description": "x" * 10_001},
        {"description": "\ud800"},
        {"tags": "ok, no way!"},
        {"tags": "plain,+mixed"},
        {"autostart": "maybe"},
        {"vcpus": "0"},
        {"vcpus": "-1"},
        {"vcpus": "two"},
        {"vcpus": "5000"},
        {"vcpus": "²"},
        {"memory": "512"},
        {"memory": "lots"},
        {"memory": "1K"},
    ],
)
def test_a_bad_value_is_a_usage_error_and_changes_nothing(simulated: Host, changes: dict[str, str]) -> None:
    before = next_start(simulated, "web-01")
    with pytest.raises(UsageError) as caught:
        plan_set(simulated, inventory.find(simulated, "web-01"), changes)
    assert "\x1b" not in str(caught.value)
    assert next_start(simulated, "web-01") == before


def test_a_misspelt_setting_names_the_nearest(simulated: Host) -> None:
    with pytest.raises(UsageError, match="Did you mean memory"):
        setting(simulated, "web-01", memry="2G")


# Autostart


def test_autostart_is_set_and_refused_for_a_transient_vm(simulated: Host) -> None:
    done(setting(simulated, "web-01", autostart="on"), simulated)
    assert inventory.find(simulated, "web-01").autostart
    done(setting(simulated, "web-01", autostart="off"), simulated)
    assert not inventory.find(simulated, "web-01").autostart
    with pytest.raises(WrongState, match="transient"):
        setting(simulated, "scratch", autostart="on").raise_if_blocked()


# vCPUs


def test_vcpus_of_a_vm_that_is_off_change_at_once(simulated: Host) -> None:
    plan = setting(simulated, "build-07", vcpus="3")
    assert not plan.warnings
    job = done(plan, simulated)
    assert (next_start(simulated, "build-07").vcpus, next_start(simulated, "build-07").vcpus_max) == (3, 3)
    done(jobs.plan_undo(job, simulated), simulated)
    assert next_start(simulated, "build-07").vcpus_max == 1


def test_vcpus_of_a_running_vm_without_room_change_from_the_next_start(simulated: Host) -> None:
    plan = setting(simulated, "web-01", vcpus="4")
    assert "next start" in plan.warnings[0]
    done(plan, simulated)
    assert live(simulated, "web-01").vcpus == 2
    assert next_start(simulated, "web-01").vcpus == 4


def headroom(state: str) -> str:
    text = domain("grow", state=state, memory_mib=1024, devices=BALLOON)
    text = text.replace("<vcpu>1</vcpu>", "<vcpu current='1'>4</vcpu>")
    return text.replace("<currentMemory unit='MiB'>1024", "<currentMemory unit='MiB'>512")


def test_vcpus_with_room_are_added_live_and_the_room_stays(open_world: Callable[[str], Host]) -> None:
    host = open_world(world([headroom("running")]))
    plan = setting(host, "grow", vcpus="2")
    assert not plan.warnings
    assert "--live" in plan.steps[0].commands[0]
    done(plan, host)
    assert (live(host, "grow").vcpus, live(host, "grow").vcpus_max) == (2, 4)
    assert (next_start(host, "grow").vcpus, next_start(host, "grow").vcpus_max) == (2, 4)


def test_more_vcpus_than_the_host_has_cpus_warns(simulated: Host) -> None:
    assert "slower" in setting(simulated, "build-07", vcpus="64").warnings[0]


TOPOLOGY = "<cpu><topology sockets='1' dies='1' cores='2' threads='2'/></cpu>"


def test_the_cpu_topology_follows_and_an_impossible_number_is_blocked(open_world: Callable[[str], Host]) -> None:
    text = domain("topo", vcpus=4).replace("<devices>", f"{TOPOLOGY}<devices>")
    host = open_world(world([text]))
    assert "multiple of 4" in setting(host, "topo", vcpus="6").blockers[0].reason
    done(setting(host, "topo", vcpus="8"), host)
    with host.calls("read") as connection:
        root = parse(connection.lookupByName("topo").XMLDesc(0))
    assert root.find("cpu/topology").get("sockets") == "2"
    assert root.findtext("vcpu") == "8"


def test_a_vm_divided_over_numa_cells_is_left_to_the_xml_editor(open_world: Callable[[str], Host]) -> None:
    cells = "<cpu><numa><cell id='0' cpus='0-1' memory='524288' unit='KiB'/></numa></cpu>"
    text = domain("numa", vcpus=2).replace("<devices>", f"{cells}<devices>")
    host = open_world(world([text]))
    for changes in ({"vcpus": "4"}, {"memory": "1G"}):
        (blocker,) = plan_set(host, inventory.find(host, "numa"), changes).blockers
        assert blocker.action_id == "vm.edit"


def test_editing_vcpus_keeps_what_it_does_not_know() -> None:
    root = parse("<domain><vcpus><vcpu id='0'/></vcpus><odd>x</odd></domain>")
    edit_vcpus(root, 2, 2)
    assert root.find("vcpus") is None
    assert (root.findtext("vcpu"), root.findtext("odd")) == ("2", "x")


# Memory


def test_memory_of_a_vm_that_is_off_changes_at_once_and_back(simulated: Host) -> None:
    job = done(setting(simulated, "build-07", memory="1.5G"), simulated)
    config = next_start(simulated, "build-07")
    assert (config.memory_bytes, config.memory_max_bytes) == (1536 * MIB, 1536 * MIB)
    done(jobs.plan_undo(job, simulated), simulated)
    config = next_start(simulated, "build-07")
    assert (config.memory_bytes, config.memory_max_bytes) == (4 * GIB, 4 * GIB)


def test_a_balloon_changes_memory_live_within_its_most(open_world: Callable[[str], Host]) -> None:
    host = open_world(world([headroom("running")]))
    done(setting(host, "grow", memory="768M"), host)
    assert live(host, "grow").memory_bytes == 768 * MIB
    assert next_start(host, "grow").memory_max_bytes == 1024 * MIB, "the room stays"
    plan = setting(host, "grow", memory="256M")
    assert "gives memory back" in plan.warnings[0]
    assert "--live" in plan.steps[0].commands[-1]


def test_more_memory_than_a_running_vm_can_have_waits_for_the_next_start(open_world: Callable[[str], Host]) -> None:
    host = open_world(world([headroom("running")]))
    plan = setting(host, "grow", memory="2G")
    assert "at most 1.0G" in plan.warnings[0]
    job = done(plan, host)
    assert live(host, "grow").memory_bytes == 512 * MIB
    assert next_start(host, "grow").memory_max_bytes == 2 * GIB
    done(jobs.plan_undo(job, host), host)
    config = next_start(host, "grow")
    assert (config.memory_bytes, config.memory_max_bytes) == (512 * MIB, 1024 * MIB)


def test_without_a_balloon_memory_waits_for_the_next_start(open_world: Callable[[str], Host]) -> None:
    host = open_world(world([domain("none", state="running", devices="<memballoon model='none'/>")]))
    assert "no memory balloon" in setting(host, "none", memory="256M").warnings[0]


def test_more_memory_than_the_host_has_warns(simulated: Host) -> None:
    assert "more than the host" in setting(simulated, "build-07", memory="4T").warnings[0]


def test_a_transient_vm_has_no_next_start_to_configure(simulated: Host) -> None:
    for changes in ({"vcpus": "2"}, {"memory": "1G"}):
        with pytest.raises(WrongState, match="transient"):
            plan_set(simulated, inventory.find(simulated, "scratch"), changes).raise_if_blocked()


def test_the_equivalent_command_repeats_what_was_given(simulated: Host) -> None:
    plan = setting(simulated, "web-01", tags="+x", memory="1G")
    assert plan.command == ("vm", "set", "web-01", "tags=+x", "memory=1G")
    assert plan.title == "Set tags, memory of web-01"


# Taking back what was set on a VM that is gone


def test_undoing_a_setting_of_a_deleted_vm_names_the_deletion_that_comes_first(
    simulated: Host, private_directories: None
) -> None:
    vm = inventory.find(simulated, "build-07")
    with Journal() as journal:
        job = jobs.submit(plan_set(simulated, vm, {"title": "old"}), simulated, journal)
        assert not jobs.plan_undo(job, simulated, journal).blockers
        deletion = jobs.submit(plan_delete(simulated, inventory.find(simulated, vm.uuid)), simulated, journal)
        assert deletion.state is JobState.DONE, deletion.error
        plan = jobs.plan_undo(job, simulated, journal)
        with pytest.raises(NotFound, match=f"the VM is gone. Undo its deletion first: 'hvtui job undo {deletion.id}'"):
            jobs.submit(plan, simulated, journal)
        assert journal.jobs()[0].id == deletion.id
        assert jobs.submit(jobs.plan_undo(deletion, simulated, journal), simulated, journal).state is JobState.DONE
        assert jobs.submit(jobs.plan_undo(job, simulated, journal), simulated, journal).state is JobState.DONE


def test_a_rollback_has_nothing_to_do_for_a_vm_that_is_gone(simulated: Host, private_directories: None) -> None:
    vm = inventory.find(simulated, "build-07")
    plan = plan_set(simulated, vm, {"title": "new", "memory": "64M"})
    with simulated.calls("remove") as connection:
        connection.lookupByUUIDString(vm.uuid).undefine()
    with Journal() as journal:
        job = jobs.submit(plan, simulated, journal)
        assert (job.state, job.exit_code) == (JobState.FAILED, 3)
        assert journal.holder(vm.uuid) is None


def test_lowering_the_stored_maximum_is_told(simulated: Host) -> None:
    plan = setting(simulated, "web-02", memory="512M")
    told = "The most memory that it can be given while it runs goes down from 2.0G to 512M, from the next start"
    assert told in plan.warnings
    assert not any("goes down" in warning for warning in setting(simulated, "web-02", memory="4G").warnings)


def test_the_command_that_sets_labels_is_one_line(simulated: Host) -> None:
    done(setting(simulated, "web-01", tags="a,b", owner="carol"), simulated)
    (command,) = setting(simulated, "web-01", tags="+c").steps[0].commands
    assert "\n" not in command
    assert "\\n" not in command
    assert "<hvtui>" not in command
    assert "<tag>a</tag><tag>b</tag><tag>c</tag>" in command
