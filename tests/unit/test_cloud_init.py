"""Seeds: what a guest profile becomes, how free user data join it, and what of them is refused."""

from __future__ import annotations

import json
from email import message_from_string
from email.message import Message

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from host.errors import UsageError
from vm.cloud_init import check_addresses, check_user_data, host_name, seed_files
from vm.profile_model import GuestNetwork, GuestProfile, GuestUser

UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
MACS = ("52:54:00:AA:BB:01", "52:54:00:aa:bb:02")
HASH = "$6$saltsalt$" + "a" * 86
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK alice@lab"
PLAIN = GuestProfile()
STATIC = GuestNetwork(("198.51.100.10/24", "2001:db8::10/64"), ("198.51.100.1", "2001:db8::1"), ("9.9.9.9",), ("lab",))


def seed(guest: GuestProfile = PLAIN, user_data: str = "", index: int = 0, vm_name: str = "web-01"):
    return seed_files(guest, vm_name=vm_name, uuid=UUID, macs=MACS, index=index, user_data=user_data)


def config(guest: GuestProfile = PLAIN):
    text = seed(guest)["user-data"]
    assert text.startswith("#cloud-config\n")
    return yaml.safe_load(text)


def parts(text: str) -> list[Message]:
    return [part for part in message_from_string(text).walk() if not part.is_multipart()]


def content(part: Message) -> str:
    return part.get_payload(decode=True).decode()


# What a profile becomes


def test_the_instance_is_the_vm_and_its_host_name_the_vms() -> None:
    files = seed(GuestProfile(domain="example.org"))
    assert sorted(files) == ["meta-data", "network-config", "user-data"]
    assert json.loads(files["meta-data"]) == {"instance-id": UUID, "local-hostname": "web-01"}
    told = config(GuestProfile(domain="example.org"))
    assert (told["hostname"], told["fqdn"]) == ("web-01", "web-01.example.org")


def test_users_get_their_keys_hashes_groups_and_shell() -> None:
    alice = GuestUser("alice", (KEY,), HASH, ("adm", "sudo"), "ALL=(ALL) NOPASSWD:ALL")
    told = config(GuestProfile(users=(alice,)))
    assert told["users"] == [
        {
            "name": "alice",
            "lock_passwd": False,
            "hashed_passwd": HASH,
            "ssh_authorized_keys": [KEY],
            "groups": ["adm", "sudo"],
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "shell": "/bin/bash",
        }
    ]
    assert told["ssh_pwauth"] is True
    assert told["disable_root"] is True


def test_without_a_hash_nobody_logs_in_by_password() -> None:
    told = config(GuestProfile(users=(GuestUser("alice", (KEY,)),)))
    assert told["ssh_pwauth"] is False
    assert told["users"][0]["lock_passwd"] is True
    assert "hashed_passwd" not in told["users"][0]
    assert config()["ssh_pwauth"] is False
    assert "users" not in config()


def test_root_can_log_in_where_the_profile_says_so() -> None:
    assert config(GuestProfile(users=(GuestUser("root", (KEY,)),)))["disable_root"] is False


def test_packages_locale_zone_and_commands_are_passed_on() -> None:
    guest = GuestProfile(packages=("nginx",), upgrade_packages=True, locale="C.UTF-8", time_zone="UTC", run=("id", "x"))
    told = config(guest)
    assert told["packages"] == ["nginx"]
    assert told["package_update"] and told["package_upgrade"]
    assert (told["locale"], told["timezone"]) == ("C.UTF-8", "UTC")
    assert told["runcmd"][1:] == ["id", "x"]
    assert not {"packages", "package_update", "package_upgrade", "locale", "timezone"} & set(config())


def test_the_guest_stays_itself_when_its_seed_is_gone() -> None:
    assert config(GuestProfile(run=("exit 1",)))["runcmd"][0].endswith("/var/lib/cloud/instance/manual-clean")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_nothing_that_a_profile_holds_ends_a_text_and_begins_a_key(text: str) -> None:
    assert config(GuestProfile(run=(text,)))["runcmd"][1:] == [text]


@pytest.mark.parametrize(
    ("vm_name", "domain", "wanted"),
    [
        ("web-01", "", ("web-01", "web-01")),
        ("Web_01 (old)", "lab", ("web-01-old", "web-01-old.lab")),
        ("web.example.org", "", ("web", "web.example.org")),
        ("web.example.org", "example.org", ("web", "web.example.org")),
        ("web.north", "example.org", ("web", "web.north.example.org")),
        ("debian-12.4", "", ("debian-12-4", "debian-12-4")),
        ("x" * 90, "", ("x" * 63, "x" * 63)),
    ],
)
def test_a_host_name_is_made_of_the_vms_name(vm_name: str, domain: str, wanted: tuple[str, str]) -> None:
    assert host_name(vm_name, domain) == wanted


@pytest.mark.parametrize("vm_name", ["***", "--", "Straße.…", "..."])
def test_a_name_that_leaves_no_host_name_is_refused(vm_name: str) -> None:
    with pytest.raises(UsageError, match="no host name"):
        host_name(vm_name)


# Network


def cards(guest: GuestProfile, index: int = 0):
    return json.loads(seed(guest, index=index)["network-config"])["ethernets"]


def test_every_card_is_matched_by_its_address_and_asks_by_dhcp() -> None:
    told = json.loads(seed()["network-config"])
    assert told["version"] == 2
    assert told["ethernets"] == {
        "nic0": {"match": {"macaddress": "52:54:00:aa:bb:01"}, "dhcp4": True},
        "nic1": {"match": {"macaddress": "52:54:00:aa:bb:02"}, "dhcp4": True},
    }


def test_a_static_network_is_the_first_cards_and_each_vm_gets_the_next_address() -> None:
    card = cards(GuestProfile(network=STATIC), index=3)["nic0"]
    assert card["addresses"] == ["198.51.100.13/24", "2001:db8::13/64"]
    assert (card["gateway4"], card["gateway6"]) == ("198.51.100.1", "2001:db8::1")
    assert card["nameservers"] == {"addresses": ["9.9.9.9"], "search": ["lab"]}
    assert card["dhcp4"] is False
    assert cards(GuestProfile(network=STATIC))["nic1"]["dhcp4"] is True


def test_name_servers_are_told_beside_dhcp_too() -> None:
    card = cards(GuestProfile(network=GuestNetwork(nameservers=("9.9.9.9",))))["nic0"]
    assert card["dhcp4"] is True
    assert card["nameservers"]["addresses"] == ["9.9.9.9"]


@pytest.mark.parametrize(
    ("address", "gateway", "last"),
    [
        ("198.51.100.250/24", "198.51.100.1", 4),
        ("192.0.2.0/31", "192.0.2.9", 1),
        ("2001:db8::fe/120", "2001:db8::1", 1),
    ],
)
def test_an_address_beyond_the_network_is_a_usage_error(address: str, gateway: str, last: int) -> None:
    guest = GuestProfile(network=GuestNetwork((address,), (gateway,)))
    cards(guest, index=last)
    with pytest.raises(UsageError, match=f"VM {last + 2} of the set has no address"):
        cards(guest, index=last + 1)


def test_the_gateways_address_is_nobody_elses() -> None:
    guest = GuestProfile(network=GuestNetwork(("198.51.100.252/24",), ("198.51.100.254",)))
    cards(guest, index=1)
    with pytest.raises(UsageError, match="is the gateway"):
        cards(guest, index=2)


def test_a_whole_set_is_checked_at_once() -> None:
    check_addresses(STATIC, 50)
    check_addresses(GuestNetwork(), 1000)
    with pytest.raises(UsageError, match="VM 246 of the set"):
        check_addresses(STATIC, 246)
    with pytest.raises(UsageError, match="VMs 1 and 3 of the set would both be"):
        check_addresses(GuestNetwork(("198.51.100.12/24", "198.51.100.10/24")), 3)


# Free user data


def test_free_user_data_join_the_profiles_in_one_multipart() -> None:
    guest = GuestProfile(packages=("nginx",), user_data="#!/bin/sh\necho profile\n")
    given_text = "#cloud-config\npackages: [curl]\n"
    text = seed(guest, given_text)["user-data"]
    found = parts(text)
    assert [part.get_content_type() for part in found] == [
        "text/cloud-config",
        "text/x-shellscript",
        "text/cloud-config",
    ]
    assert content(found[0]) == given_text
    assert content(found[1]) == guest.user_data
    assert yaml.safe_load(content(found[2]))["packages"] == ["nginx"]
    # cloud-init runs scripts in the order of their names, and merges from the first part to the last.
    assert [part.get_filename() for part in found] == ["20-given", "10-profile", "00-hvtui"]
    assert {part["Merge-Type"] for part in (found[0], found[2])} == {
        "dict(no_replace,recurse_list)+list(prepend)+str()"
    }
    assert seed(guest, given_text)["user-data"] == text


def test_a_multipart_is_taken_as_it_is() -> None:
    inner = seed(GuestProfile(), "#!/bin/sh\ntrue\n")["user-data"]
    check_user_data(inner)
    found = parts(seed(GuestProfile(), inner)["user-data"])
    assert content(found[0]) == "#!/bin/sh\ntrue\n"


@pytest.mark.parametrize(
    "text",
    [
        "#cloud-config\n",
        "#cloud-config\npackages: [a]\n",
        "\n#cloud-config\r\npackages:\r\n- a\r\n",
        "#cloud-config\n---\nx: &a [1]\ny: *a\n",
        "#cloud-config\nwhen: 2026-01-01\nfile: !!binary aGk=\n",
        "#!/usr/bin/env python3\nprint()\n",
        "#cloud-boothook\n#!/bin/sh\n",
        "## template: jinja\n#cloud-config\nfqdn: {{ v1.local_hostname }}\n",
    ],
)
def test_user_data_that_cloud_init_takes_are_taken(text: str) -> None:
    check_user_data(text)


BOMB = "#cloud-config\na: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{last}'] * 9)}]\n" for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)
LONG_TEXT_BOMB = f"#cloud-config\na: &a {'x' * 500_000}\nb: [{','.join(['*a'] * 1000)}]\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "does not say what they are"),
        ("packages: [a]\n", "does not say what they are"),
        ("#cloudconfig\n", "'#cloudconfig'. Did you mean #cloud-config?"),
        ("#include\nhttps://example.org/x\n", "#include is not taken"),
        ("#include-once https://example.org\n", "#include-once is not taken"),
        ("#part-handler\n", "#part-handler is not taken"),
        ("#cloud-config-archive\n- x\n", "archive is not taken"),
        ("#!/bin/sh\r\ntrue\r\n", "Windows line ends"),
        ("#cloud-config\npackages: [a\nx: y\n", "line 3, column 2"),
        ("#cloud-config\na: b: c\n", "line 2, column 5"),
        ("#cloud-config\n- a\n", "not a mapping"),
        ("#cloud-config\njust words\n", "not a mapping"),
        ("#cloud-config\n1: a\n", "1 is no key"),
        ("#cloud-config\na: 1\n---\nb: 2\n", "more than one document"),
        ("#cloud-config\na: !!python/object/apply:os.system [id]\n", "line 2"),
        ("#cloud-config\na: 2026-13-45\n", "cannot be read"),
        ("#cloud-config\n[a]: 1\n{b: c}: 1\n", "does not parse"),
        ("#cloud-config\na: &a [*a]\n", "refers to nothing before it"),
        ("#cloud-config\na: *b\n", "refers to nothing before it"),
        ("#cloud-config\na: \x07\n", "does not parse"),
        ("#cloud-config\n\0", "null byte"),
        ("#cloud-config\na: \ud800\n", "not UTF-8"),
        ("#cloud-config\na: " + "[" * 500_000, "nested too deep at line 2"),
        ("#cloud-config\na: " + "x" * 1024 * 1024, "larger than 1 MiB"),
        (BOMB, "too large when its aliases are expanded"),
        (LONG_TEXT_BOMB, "too large when its aliases are expanded"),
        ("Content-Type: multipart/mixed\n\nno parts", "no MIME multipart"),
    ],
)
def test_user_data_that_cannot_be_are_refused_with_the_place(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_user_data(text, about="seed.yaml")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("seed.yaml: ")
    assert caught.value.remedy


def test_the_parts_of_a_multipart_are_checked_too() -> None:
    text = (
        'Content-Type: multipart/mixed; boundary="x"\nMIME-Version: 1.0\n\n--x\nContent-Type: {kind}\n\n{body}\n--x--\n'
    )
    check_user_data(text.format(kind="text/cloud-config", body="packages: [a]"))
    for kind, body, problem in (
        ("text/cloud-config", "packages: [a", "part 1: the YAML does not parse"),
        ("text/x-include-url", "https://example.org", "#include is not taken"),
        ("text/plain", "#include\nhttps://example.org", "#include is not taken"),
    ):
        with pytest.raises(UsageError, match=problem):
            check_user_data(text.format(kind=kind, body=body))


def test_an_error_tells_the_place_and_not_the_secret_there() -> None:
    with pytest.raises(UsageError) as caught:
        check_user_data("#cloud-config\npassword: 'hunter2\n")
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=200))
def test_whatever_follows_the_header_is_taken_or_a_usage_error(text: str) -> None:
    for header in ("#cloud-config\n", "Content-Type: multipart/mixed; boundary=x\n\n--x\n", ""):
        try:
            check_user_data(header + text)
        except UsageError:
            continue
