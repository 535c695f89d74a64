"""Profiles where no library is: the built-in ones, files, and what is said of the rest. Storing: tests/real."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from host.connection import Host
from host.errors import Blocked, Denied, NotFound, UsageError
from host.plan import Plan
from vm import profile_store
from vm.profile_model import GuestProfile, GuestUser, HardwareProfile
from vm.profile_steps import parse_volume_name, volume_name
from vm.profile_store import load, plan_add_profile, plan_remove_profile, read, suggested_guest
from vm.profiles import to_toml

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJt31R+GUUTy+PBFFD08Es/rtnhJOZlsdf8bBgICGV3C alice@lab"
LIBRARY = "library"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SUDO_USER", raising=False)
    return tmp_path


def asked_by(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd((name, "x", 1000, 1000, "", "/", "/bin/sh"))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)


def test_the_suggested_guest_is_who_asks_with_the_keys_of_the_home_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_by("alice", monkeypatch)
    (home / ".ssh/id.pub").write_text(f"{KEY}\n")
    (home / ".ssh/broken.pub").write_text("no key\n")
    (home / ".ssh/binary.pub").write_bytes(b"\xff\xfe")
    (home / ".ssh/directory.pub").mkdir()
    (home / ".ssh/id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert suggested_guest().users == (GuestUser("alice", (KEY,), sudo="ALL=(ALL) NOPASSWD:ALL"),)


@pytest.mark.parametrize("name", ["root", "LAB\\alice", "Alice.B"])
def test_a_name_that_no_guest_should_have_becomes_admin(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_by(name, monkeypatch)
    assert [user.name for user in suggested_guest().users] == ["admin"]


def test_behind_sudo_the_one_who_typed_it_is_meant(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "alice")
    assert suggested_guest().users[0].name == "alice"


def test_no_library_is_an_empty_one(simulated: Host) -> None:
    found = read(simulated, LIBRARY)
    assert {entry.name for entry in found.entries} == {"small", "medium", "large", "tiny", "default"}
    assert [profile.name for profile in found.hardware] == ["large", "medium", "small", "tiny"]
    assert [profile.name for profile in found.guests] == ["default"]
    assert not found.problems


def test_a_word_is_a_file_or_a_name(simulated: Host, tmp_path: Path) -> None:
    file = tmp_path / "web.guest.toml"
    file.write_text(to_toml(GuestProfile(domain="lab")))
    assert load(simulated, LIBRARY, str(file)) == (None, GuestProfile(name="web", domain="lab"))
    assert load(simulated, LIBRARY, "small") == (profile_store.BUILT_IN[0], None)
    with pytest.raises(NotFound, match=r"there is no profile 'smal'\. Did you mean small\?"):
        load(simulated, LIBRARY, "smal")
    with pytest.raises(NotFound, match="there is no such file"):
        load(simulated, LIBRARY, "./small")
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(simulated, LIBRARY, str(file))


def test_only_the_library_of_the_usual_name_is_made_by_itself(simulated: Host) -> None:
    def verbs(plan: Plan) -> list[str]:
        return [step.verb for step in plan.steps]

    plan = plan_add_profile(simulated, LIBRARY, HardwareProfile(name="web"))
    assert verbs(plan) == ["create.pool", "profile.write"]
    assert not plan.blockers
    plan = plan_add_profile(simulated, "elsewhere", HardwareProfile(name="web"))
    assert plan.warnings == ("there is no library elsewhere yet: it is made",)
    assert plan.steps[0].title == "Make the storage pool elsewhere in /var/lib/libvirt/elsewhere"
    reserved = plan_add_profile(simulated, "qemu", HardwareProfile(name="web"))
    assert reserved.steps[0].args["path"] == "/var/lib/libvirt/library-qemu"


def test_what_is_not_stored_is_neither_changed_nor_removed(simulated: Host) -> None:
    with pytest.raises(NotFound, match="no stored hardware profile web"):
        plan_add_profile(simulated, LIBRARY, HardwareProfile(name="web"), replaces=True).raise_if_blocked()
    with pytest.raises(NotFound, match="None is stored"):
        plan_remove_profile(simulated, LIBRARY, "web", "guest")
    with pytest.raises(UsageError, match="built in"):
        plan_remove_profile(simulated, LIBRARY, "small", "hardware")


def test_a_read_only_host_takes_none(simulated_uri: str) -> None:
    from host.connection import open_host

    host = open_host(simulated_uri, read_only=True)
    try:
        with pytest.raises((Denied, Blocked)):
            plan_add_profile(host, LIBRARY, HardwareProfile(name="web")).raise_if_blocked()
    finally:
        host.close()


@pytest.mark.parametrize("name", ["", "a/b", "../x", "-x", "x\x1b", "x" * 200])
def test_a_name_that_no_file_should_have_is_refused(simulated: Host, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a profile's name"):
        plan_add_profile(simulated, LIBRARY, HardwareProfile(name=name))


def test_a_volumes_name_says_what_it_holds() -> None:
    name = volume_name("web.r1-x", "guest", 12, "text")
    assert name == "web.r1-x.r12-982d9e3e.guest.toml"
    named = parse_volume_name(name)
    assert named is not None
    assert (named.name, named.kind, named.revision, named.hash) == ("web.r1-x", "guest", 12, "982d9e3e")
    for other in ("web.guest.toml", "web.r0-00000000.guest.toml", "web.r1-0000000g.guest.toml", "a.r1-00000000.toml"):
        assert parse_volume_name(other) is None
