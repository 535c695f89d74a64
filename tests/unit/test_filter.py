"""The filter language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.errors import UsageError
from tests.support.simulated_world import HOSTILE_NAMES
from vm.filter import KEYS, parse
from vm.model import Disk, Nic, Vm, VmConfig, VmRates, VmState

WEB = Vm(
    uuid="0001",
    name="web-01",
    state=VmState.RUNNING,
    domain_id=3,
    autostart=True,
    vcpus=2,
    memory_bytes=2 * 1024**3,
    memory_used_bytes=1024**3,
    checkpoints=2,
    addresses=("192.0.2.11",),
    rates=VmRates(cpu_percent=55.0, steal_percent=1.5, disk_read_bytes_s=2048.0, net_send_bytes_s=0.0),
    config=VmConfig(
        title="Front Page",
        tags=("web", "prod"),
        owner="Bob",
        os_id="http://debian.org/debian/12",
        virtualization="qemu",
        firmware="uefi",
        agent_connected=True,
        has_tpm=True,
        disks=(Disk("vda", "virtio", "disk", "/img/web-01.qcow2", "file", "qcow2"),),
        nics=(Nic("52:54:00:aa:bb:cc", "virtio", "network", "default"),),
    ),
)
OLD = Vm(
    uuid="0002",
    name="old db",
    state=VmState.SAVED,
    has_saved_state=True,
    persistent=False,
    config=VmConfig(tags=("old",), pending_changes=True, host_devices=1),
)
BARE = Vm(uuid="0003", name="bare", state=VmState.PAUSED, state_reason="disk error")
CLOSING = Vm(uuid="0004", name="closing", state=VmState.SHUTTING_DOWN)
ALL = (WEB, OLD, BARE, CLOSING)


def chosen(text: str) -> list[str]:
    wanted = parse(text)
    return [vm.name for vm in ALL if wanted.matches(vm)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["web-01", "old db", "bare", "closing"]),
        ("   ", ["web-01", "old db", "bare", "closing"]),
        ("web", ["web-01"]),
        ("WEB", ["web-01"]),
        ("front", ["web-01"]),
        ("192.0.2", ["web-01"]),
        ("bob", ["web-01"]),
        ('"old db"', ["old db"]),
        ("old,bare", ["old db", "bare"]),
        ("-web", ["old db", "bare", "closing"]),
        ("w*1", ["web-01"]),
        ("name:web-*", ["web-01"]),
        ('name:"w*"', []),
        ("name=web", []),
        ("name=web-01", ["web-01"]),
        ("state:running", ["web-01"]),
        ("state:run", ["web-01"]),
        ("state:s", ["old db", "closing"]),
        ("state:shutting-down", ["closing"]),
        ('state:"shutting down"', ["closing"]),
        ("state:running,saved", ["web-01", "old db"]),
        ("-state:running", ["old db", "bare", "closing"]),
        ("reason:disk", ["bare"]),
        ("tag:web", ["web-01"]),
        ("tag:we", []),
        ("tag:we*", ["web-01"]),
        ("tag:old,prod", ["web-01", "old db"]),
        ("-tag:old", ["web-01", "bare", "closing"]),
        ("owner:bob", ["web-01"]),
        ("os:debian", ["web-01"]),
        ("title:page", ["web-01"]),
        ("net:default", ["web-01"]),
        ("mac:52:54", ["web-01"]),
        ("disk:web-01.qcow2", ["web-01"]),
        ("uuid:0003", ["bare"]),
        ("ip:192.0.2.11", ["web-01"]),
        ("cpu>50", ["web-01"]),
        ("cpu>50%", ["web-01"]),
        ("cpu>=55 cpu<=55 cpu:55 cpu=55", ["web-01"]),
        ("cpu!=55", []),
        ("cpu<50", []),
        ("steal>1.2", ["web-01"]),
        ("mem>=2G", ["web-01"]),
        ("memory>=2G", ["web-01"]),
        ("mem:2G,4G", ["web-01"]),
        ("used<2048M", ["web-01"]),
        ("vcpus:2", ["web-01"]),
        ("id:3", ["web-01"]),
        ("checkpoints>1", ["web-01"]),
        ("read>1K", ["web-01"]),
        ("send>0", []),
        ("send:0", ["web-01"]),
        ("write>0 receive>0", []),
        ("is:autostart", ["web-01"]),
        ("is:active", ["web-01", "bare", "closing"]),
        ("is:inactive", ["old db"]),
        ("is:running,saved", ["web-01", "old db"]),
        ("is:off", []),
        ("is:paused", ["bare"]),
        ("is:crashed", []),
        ("is:transient", ["old db"]),
        ("is:persistent", ["web-01", "bare", "closing"]),
        ("is:attention", ["bare"]),
        ("has:checkpoint", ["web-01"]),
        ("has:agent", ["web-01"]),
        ("has:tpm", ["web-01"]),
        ("is:uefi", ["web-01"]),
        ("is:emulated", ["web-01"]),
        ("is:tagged", ["web-01", "old db"]),
        ("is:pending", ["old db"]),
        ("has:passthrough", ["old db"]),
        ("state:running tag:web cpu>50 -tag:old", ["web-01"]),
        ("State:Running TAG:Web", ["web-01"]),
        ("fe80::1", []),
    ],
)
def test_a_filter_chooses(text: str, names: list[str]) -> None:
    assert chosen(text) == names


def test_host_terms_count_where_the_host_is_known() -> None:
    assert parse("host:lab1").matches(WEB)
    assert parse("host:lab1").matches(WEB, host_name="Lab1")
    assert not parse("host:lab1").matches(WEB, host_name="lab2")
    assert parse("-host:lab1").matches(WEB, host_name="lab2")


@pytest.mark.parametrize(
    ("text", "column", "hint"),
    [
        ("tga:web", 1, "tag"),
        ("web  stat:running", 6, "state"),
        ("state:runing", 1, "running"),
        ("is:autostrat", 1, "autostart"),
        ("cpu>much", 1, "cpu>50"),
        ("mem>2", 1, "2G"),
        ("mem>lots", 1, "512M"),
        ("tag:", 1, ""),
        ("tag:web,", 1, ""),
        ('tag:"web', 1, ""),
        ("web -", 5, ""),
        ("name>3", 1, "name:"),
        ("is>3", 1, "is:"),
        ('we"b', 3, "quotes"),
        ('"we"b', 5, "quotes"),
        ("zzzzzz:1", 1, "state"),
    ],
)
def test_an_error_says_where_and_what_was_meant(text: str, column: int, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)

    assert f"column {column}:" in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("typed", ["-", "tag:", "cpu>", "cpu>x", "mem>2", "mem>=", "is:auto", "is:", 'tag:"', "state:"])
def test_while_typing_an_unfinished_last_term_is_left_out(typed: str) -> None:
    wanted = parse(f"state:running {typed}", lenient=True)

    assert [vm.name for vm in ALL if wanted.matches(vm)] == ["web-01"]
    with pytest.raises(UsageError):
        parse(f"{typed} state:running")


def test_while_typing_what_is_there_of_a_last_term_counts() -> None:
    assert parse('"old d', lenient=True).matches(OLD)
    assert not parse('"old d', lenient=True).matches(WEB)
    assert not parse("tag:web,", lenient=True).matches(OLD)


def test_what_needs_the_domain_xml_says_so() -> None:
    assert all(parse(text).needs_config for text in ("tag:web", "is:uefi", "web"))
    assert not any(parse(text).needs_config for text in ("name:web", "is:running", "cpu>5", "state:off", ""))


@given(st.text(max_size=40))
def test_any_text_is_a_filter_or_a_usage_error(text: str) -> None:
    for lenient in (False, True):
        try:
            wanted = parse(text, lenient=lenient)
        except UsageError as error:
            assert "\x1b" not in str(error)
        else:
            for vm in ALL:
                wanted.matches(vm)


@given(st.sampled_from(KEYS), st.sampled_from([":", "=", ">", "<="]), st.text(max_size=10))
def test_any_value_of_any_key_is_a_filter_or_a_usage_error(key: str, operator: str, value: str) -> None:
    try:
        wanted = parse(f"{key}{operator}{value}")
    except UsageError:
        return
    for vm in ALL:
        wanted.matches(vm, host_name="lab1")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_matched_as_plain_text(name: str) -> None:
    vm = Vm(uuid="x", name=name, state=VmState.OFF)

    for text in ("web", "*", "name:[x]", '"[x]"', "-zz"):
        parse(text).matches(vm)
    assert parse(f'"{name}"').matches(vm)
