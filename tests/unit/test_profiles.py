"""Profiles: what their TOML may say, what is refused and how, that they write back the same, and single settings."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.errors import UsageError
from host.units import GIB, MIB
from vm import profiles
from vm.create_request import Firmware, Graphics
from vm.profile_model import GuestNetwork, GuestProfile, GuestUser, HardwareProfile, ProfileNic, Topology
from vm.profiles import SETTINGS, override, parse, parse_guest, parse_hardware, to_toml

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJt31R+GUUTy+PBFFD08Es/rtnhJOZlsdf8bBgICGV3C alice@lab"
ECDSA = (
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBBGqjOZCErHW0Igz8oiAZ9DHnnuXxiXXBT7P3Wx"
    "jcXCc/faXXPPhmyVR0S3kHkoEwurQadh2ot5ZN9Tn6fla4KM="
)
SHA512 = "$6$ih3IQ9ylYjFNapSy$hFnv3bm6Zjp2RYzDjElx0xT.Sg97Py11Mr2.7qxFvH/XlA119BSL0.XkIifXQu0.sOwVGv4qq0P.Lcwqs6/9T/"
HASHES = (
    SHA512,
    SHA512.replace("$6$", "$6$rounds=10000$"),
    "$5$AX00.DkBHwg8YnPo$d0K8q2BmSiYcYBXopNTjOc3RD8UKij4Pglf2UvJhT2.",
    "$2b$05$aaaaaaaaaaaaaaaaaaaaaOEqz3KoKH6bru/RRpFuAJrwlceiJnvGu",
    "$7$CU..../....abcdefgh$19TzpFZ5AwP26vdEMbfvWacoVUfd2MfVusFAVFilh.C",
    "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
)

HARDWARE = """
kind = "hardware"
description = "a web server"
vcpus = 4
memory = "2G"
memory_minimum = "1G"
memory_maximum = "4G"
disk = "40G"
disk_bus = "scsi"
machine = "q35"
firmware = "uefi-secure"
tpm = true
cpu = "host-model"
graphics = "none"
autostart = true

[topology]
cores = 2
threads = 2

[[nic]]
network = "bridge:br0"

[[nic]]
network = "lab"
model = "e1000e"
"""
GUEST = f"""
kind = "guest"
name_pattern = "web-{{:02}}"
domain = "Example.org"
packages = ["nginx", "vim=2:9.0.1378-2", "nginx"]
upgrade_packages = true
locale = "en_GB.UTF-8"
time_zone = "Europe/Berlin"
run = ["systemctl enable --now nginx"]
user_data = '''
#cloud-config
write_files: []
'''

[network]
addresses = ["198.51.100.10/24", "2001:db8::0010/64"]
gateways = ["198.51.100.1", "fe80::1"]
nameservers = ["9.9.9.9"]
search = ["example.org"]

[[user]]
name = "alice"
ssh_keys = ["{KEY}"]
password_hash = "{SHA512}"
groups = ["adm"]
sudo = "ALL=(ALL) NOPASSWD:ALL"

[[user]]
name = "root"
shell = "/bin/sh"
"""


def test_every_key_of_a_hardware_profile_is_read() -> None:
    assert parse_hardware(HARDWARE, "/x/web.hardware.toml") == HardwareProfile(
        name="web",
        description="a web server",
        vcpus=4,
        topology=Topology(1, 2, 2),
        memory_bytes=2 * GIB,
        memory_minimum_bytes=GIB,
        memory_maximum_bytes=4 * GIB,
        disk_bytes=40 * GIB,
        disk_bus="scsi",
        nics=(ProfileNic("bridge:br0"), ProfileNic("lab", "e1000e")),
        machine="q35",
        firmware=Firmware.UEFI_SECURE,
        tpm=True,
        cpu_mode="host-model",
        graphics=Graphics.NONE,
        autostart=True,
    )


def test_every_key_of_a_guest_profile_is_read() -> None:
    assert parse_guest(GUEST, "web.toml") == GuestProfile(
        name="web",
        name_pattern="web-{:02}",
        domain="example.org",
        users=(
            GuestUser("alice", (KEY,), SHA512, ("adm",), "ALL=(ALL) NOPASSWD:ALL"),
            replace(GuestUser("root"), shell="/bin/sh"),  # noqa: S604 - not that shell
        ),
        packages=("nginx", "vim=2:9.0.1378-2"),
        upgrade_packages=True,
        locale="en_GB.UTF-8",
        time_zone="Europe/Berlin",
        network=GuestNetwork(
            ("198.51.100.10/24", "2001:db8::10/64"), ("198.51.100.1", "fe80::1"), ("9.9.9.9",), ("example.org",)
        ),
        run=("systemctl enable --now nginx",),
        user_data="#cloud-config\nwrite_files: []\n",
    )


def test_what_is_left_out_is_as_usual() -> None:
    assert parse_hardware('kind = "hardware"', "x.toml") == HardwareProfile(name="x")
    assert parse_guest('kind = "guest"', "x.guest.toml") == GuestProfile(name="x")


def test_no_network_card_can_be_asked_for() -> None:
    assert parse_hardware('kind = "hardware"\nnic = []', "x").nics == ()
    assert parse_hardware('kind = "hardware"\n[[nic]]\nnetwork = "none"', "x").nics == ()


def test_the_kind_decides() -> None:
    assert isinstance(parse(HARDWARE, "x"), HardwareProfile)
    assert isinstance(parse(GUEST, "x"), GuestProfile)
    for text, problem in (("", "kind is missing"), ('kind = "gest"', "Did you mean guest"), ("kind = 1", "whole")):
        with pytest.raises(UsageError, match=problem):
            parse(text, "x")
    with pytest.raises(UsageError, match="kind is 'guest'"):
        parse_hardware(GUEST, "x")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("memmory = '2G'", "memmory is not a key. Did you mean memory?"),
        ("memory = 2", "memory is a whole number"),
        ("memory = '2'", "Write it with a unit"),
        ("memory = '1K'", "memory is 1K"),
        ("memory = '1G'\nmemory_minimum = '2G'", "memory_minimum (2G) is more than memory (1G)"),
        ("memory = '2G'\nmemory_maximum = '1536M'", "memory_maximum (1536M) is less than memory (2G)"),
        ("vcpus = 0", "vcpus is 0"),
        ("vcpus = 5000", "from 1 to 4096"),
        ("vcpus = true", "vcpus is true or false"),
        ("vcpus = 3\ntopology = {cores = 2}", "1 × 2 × 1 vCPUs, and vcpus is 3"),
        ("topology = {core = 2}", "[topology] core is not a key. Did you mean cores?"),
        ("topology = 2", "must be a table: [topology]"),
        ("disk = '1K'", "disk is 1K"),
        ("disk_bus = 'virto'", "Did you mean virtio?"),
        ("firmware = 'efi'", "Did you mean uefi?"),
        ("tpm = 'yes'", "tpm is a text"),
        ("machine = 'q 35'", "machine is wrong"),
        ("cpu = '<model/>'", "cpu is wrong"),
        ("graphics = 'vnc'", "graphics is 'vnc'"),
        ("nic = 1", "[[nic]]"),
        ("[[nic]]\nnetwrk = 'x'", "[nic] netwrk is not a key. Did you mean network?"),
        ("[[nic]]\nnetwork = '../x'", "is no network"),
        ("[[nic]]\nmodel = 'ne2k'", "[nic] model is 'ne2k'"),
        ("[[nic]]\n" * 17, "17 network cards"),
        ("description = '''a\nb'''", "not one line"),
        ("x = ", "not valid TOML"),
        ("a" + ".a" * 5000 + " = 1", "x.toml"),
    ],
)
def test_a_wrong_line_of_hardware_is_refused_with_file_key_and_remedy(line: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_hardware(f"kind = 'hardware'\n{line}", "x.toml")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("x.toml: ")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("packges = []", "packges is not a key. Did you mean packages?"),
        ("packages = 'nginx'", "packages is a text"),
        ("packages = [1]", "packages holds a whole number"),
        ("packages = ['-o=x']", "no package's name"),
        ("packages = ['a b']", "no package's name"),
        ("name_pattern = 'web-{0.__class__}'", "no pattern of names"),
        ("domain = 'a..b'", "no domain"),
        ("domain = '-a'", "no domain"),
        ("locale = 'english please'", "no locale"),
        ("time_zone = 'Europe/Berln'", "Did you mean Europe/Berlin?"),
        ("time_zone = '../../etc/passwd'", "no time zone"),
        ("run = ['']", "a command is empty"),
        ("user_data = 'x'", "does not say what they are"),
        ("user_data = '''#cloud-config\na: [b\n'''", "line 3, column 1"),
        ("network = {addresses = ['198.51.100.10']}", "no address of a network card"),
        ("network = {addresses = ['198.51.100.0/24']}", "no host's address in 198.51.100.0/24"),
        ("network = {addresses = ['198.51.100.255/24']}", "no host's address in 198.51.100.0/24"),
        ("network = {addresses = ['127.0.0.1/8']}", "no address of a network card"),
        ("network = {gateways = ['198.51.100.1']}", "a gateway without an address"),
        ("network = {addresses = ['198.51.100.9/24'], gateways = ['192.0.2.1']}", "in no network of the addresses"),
        ("network = {addresses=['198.51.100.9/24'], gateways=['198.51.100.1','198.51.100.2']}", "two gateways"),
        ("network = {nameservers = ['dns.example.org']}", "is no address"),
        ("network = {adresses = []}", "[network] adresses is not a key. Did you mean addresses?"),
        ("[[user]]\nssh_keys = []", "[user 1] name is missing"),
        ("[[user]]\nname = ''", "cannot be a user's name"),
        ("[[user]]\nname = 'Alice'", "[user 1] name is wrong: 'Alice' cannot be a user's name"),
        ("[[user]]\nname = 'a'\n[[user]]\nname = 'a'", "the user 'a' is there twice"),
        ("[[user]]\nname = 'a'\nshell = 'bash'", "no shell's path"),
        ("[[user]]\nname = 'a'\nsudo = 'yes'", "no rule of sudo"),
        ("[[user]]\nname = 'a'\ngroups = ['a,b']", "cannot be a group's name"),
        ("[[user]]\nname = 'a'\nssh_key = []", "Did you mean ssh_keys?"),
        ("[[user]]\nname = 'a'\nssh_keys = ['ssh-dss AAAAB3NzaC1kc3M= x']", "no ssh public key"),
        (f"[[user]]\nname = 'a'\nssh_keys = ['{KEY[:60]}']", "is damaged"),
        (f"[[user]]\nname = 'a'\nssh_keys = ['{ECDSA.replace('256 ', '384 ')}']", "is damaged"),
        ("[[user]]\nname = 'a'\nssh_keys = ['-----BEGIN OPENSSH PRIVATE KEY-----']", "a private key"),
        (f"[[user]]\nname = 'a'\nssh_keys = ['''{KEY}\n{KEY}''']", "not one line"),
    ],
)
def test_a_wrong_line_of_a_guest_is_refused_with_file_key_and_remedy(line: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_guest(f"kind = 'guest'\n{line}", "x.toml")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("x.toml: ")
    assert caught.value.remedy


@pytest.mark.parametrize("value", HASHES)
def test_every_sound_method_of_hashing_a_password_is_taken(value: str) -> None:
    text = f"kind = 'guest'\n[[user]]\nname = 'a'\npassword_hash = '{value}'"
    assert parse_guest(text, "x").users[0].password_hash == value


@pytest.mark.parametrize(
    "line",
    [
        "password_hash = 'hunter2'",
        "password_hash = 'hunter2hunter'",
        "password_hash = '$6$hunter2'",
        "password_hash = '$1$D20jadZ/$hunter2WCZPfiU0PDnNmvo'",
        "password = 'hunter2'",
        "plain_text_passwd = 'hunter2'",
    ],
)
def test_a_plain_password_is_refused_and_not_repeated(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_guest(f"kind = 'guest'\n[[user]]\nname = 'a'\n{line}", "x.toml")
    assert "hunter2" not in str(caught.value)
    assert "mkpasswd -m sha-512" in caught.value.remedy
    assert "openssl passwd -6" in caught.value.remedy


@pytest.mark.parametrize("key", [KEY, ECDSA, f'from="198.51.100.*",no-pty {KEY}', f"  {KEY} "])
def test_a_public_key_of_any_known_type_is_taken(key: str) -> None:
    _, guest = override(HardwareProfile(), GuestProfile(), "user=a", f"ssh-key={key}")
    assert guest.users[0].ssh_keys == (key.strip(),)


def test_a_keys_data_must_be_whole() -> None:
    truncated = base64.b64encode(base64.b64decode(KEY.split()[1])[:-3]).decode()
    with pytest.raises(UsageError, match="damaged"):
        override(HardwareProfile(), GuestProfile(), "user=a", f"ssh-key=ssh-ed25519 {truncated}")


# Writing


@pytest.mark.parametrize("text", [HARDWARE, GUEST, 'kind = "hardware"\nnic = []', 'kind = "guest"'])
def test_what_is_written_reads_back_as_the_same(text: str) -> None:
    profile = parse(text, "web")
    assert parse(to_toml(profile), "web") == profile


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(st.lists(TEXTS.filter(str.strip)), TEXTS)
def test_any_text_is_written_so_that_it_reads_back(run: list[str], script: str) -> None:
    profile = GuestProfile(name="x", run=tuple(dict.fromkeys(run)), user_data=f"#!/bin/sh\n{script}")
    assert parse(to_toml(profile), "x") == profile


@given(st.integers(MIB, 10**14), st.integers(1, 4096))
def test_sizes_are_written_exactly(memory_bytes: int, vcpus: int) -> None:
    profile = HardwareProfile(name="x", vcpus=vcpus, memory_bytes=memory_bytes)
    assert parse(to_toml(profile), "x") == profile


@given(st.text(max_size=300))
def test_whatever_a_file_holds_it_is_a_profile_or_a_usage_error(text: str) -> None:
    for start in ("", 'kind = "guest"\n', 'kind = "hardware"\n'):
        try:
            parse(start + text, "x")
        except UsageError:
            continue


# Single settings


def changed(*settings: str, hardware: HardwareProfile = HardwareProfile(), guest: GuestProfile = GuestProfile()):  # noqa: B008 - frozen
    return override(hardware, guest, *settings)


def test_a_setting_changes_its_value_and_no_other() -> None:
    hardware, guest = changed("memory=2G")
    assert hardware == HardwareProfile(memory_bytes=2 * GIB)
    assert guest == GuestProfile()


def test_every_setting_of_the_hardware() -> None:
    hardware, _ = changed(
        *("vcpus=4", "topology=1x2x2", "memory=2G", "memory-minimum=1G", "memory-maximum=4G", "disk=40G"),
        *("disk-bus=scsi", "network=bridge:br0,lab", "nic-model=e1000e", "machine=q35", "firmware=uefi", "tpm=yes"),
        *("cpu=host-model", "graphics=none", "autostart=on"),
    )
    assert hardware == HardwareProfile(
        vcpus=4,
        topology=Topology(1, 2, 2),
        memory_bytes=2 * GIB,
        memory_minimum_bytes=GIB,
        memory_maximum_bytes=4 * GIB,
        disk_bytes=40 * GIB,
        disk_bus="scsi",
        nics=(ProfileNic("bridge:br0", "e1000e"), ProfileNic("lab", "e1000e")),
        machine="q35",
        firmware=Firmware.UEFI,
        tpm=True,
        cpu_mode="host-model",
        graphics=Graphics.NONE,
        autostart=True,
    )


def test_every_setting_of_the_guest(tmp_path: Path) -> None:
    keys = tmp_path / "keys.pub"
    keys.write_text(f"# mine\n{KEY}\n\n{ECDSA}\n")
    _, guest = changed(
        *("name-pattern=web-{:02}", "domain=example.org", "user=alice", f"ssh-key=@{keys}", f"password-hash={SHA512}"),
        *("groups=adm,sudo", "sudo=no", "shell=/bin/sh", "package=nginx", "package=vim", "upgrade-packages=yes"),
        *("locale=C.UTF-8", "timezone=UTC", "address=198.51.100.10/24", "gateway=198.51.100.1", "nameserver=9.9.9.9"),
        *("search=example.org,lab", "run=id"),
    )
    assert guest == GuestProfile(
        name_pattern="web-{:02}",
        domain="example.org",
        users=(GuestUser("alice", (KEY, ECDSA), SHA512, ("adm", "sudo"), "", "/bin/sh"),),
        packages=("nginx", "vim"),
        upgrade_packages=True,
        locale="C.UTF-8",
        time_zone="UTC",
        network=GuestNetwork(("198.51.100.10/24",), ("198.51.100.1",), ("9.9.9.9",), ("example.org", "lab")),
        run=("id",),
    )


def test_a_user_named_by_a_setting_may_use_sudo_and_is_the_one_that_later_settings_mean() -> None:
    _, guest = changed("user=a", "user=b", f"ssh-key={KEY}", "user=a", "groups=adm")
    assert [(user.name, user.ssh_keys, user.groups) for user in guest.users] == [("b", (KEY,), ()), ("a", (), ("adm",))]
    assert all("NOPASSWD" in user.sudo for user in guest.users)


def test_an_empty_value_takes_back() -> None:
    full = parse_guest(GUEST, "x")
    _, guest = changed("package=", "run=", "user=", "address=dhcp", "domain=", guest=full)
    assert (guest.packages, guest.run, guest.users, guest.domain) == ((), (), (), "")
    assert guest.network == replace(full.network, addresses=(), gateways=())
    assert changed("network=none")[0].nics == ()
    assert changed("firmware=auto", hardware=HardwareProfile(firmware=Firmware.UEFI))[0].firmware is None


def test_another_number_of_vcpus_drops_a_topology_that_does_not_fit() -> None:
    two = HardwareProfile(vcpus=2, topology=Topology(1, 2, 1))
    assert changed("vcpus=3", hardware=two)[0].topology is None
    assert changed("vcpus=2", hardware=two)[0].topology == two.topology


def test_what_settings_say_together_is_checked_when_all_are_applied() -> None:
    small = HardwareProfile(memory_maximum_bytes=GIB)
    assert changed("memory=2G", "memory-maximum=4G", hardware=small)[0].memory_bytes == 2 * GIB
    with pytest.raises(UsageError, match="memory_maximum"):
        changed("memory=2G", hardware=small)
    with pytest.raises(UsageError, match="gateway"):
        changed("gateway=198.51.100.1")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("memmory=2G", "there is no setting 'memmory'. Did you mean memory?"),
        ("memory", "'memory' is no KEY=VALUE"),
        ("memory=2", "memory=: '2' is not a size. Write it with a unit"),
        ("memory_maximum=x", "memory-maximum=: 'x' is not a size"),
        ("vcpus=0", "vcpus=: '0' is no number of vCPUs"),
        ("topology=2x2", "is no topology"),
        ("tpm=maybe", "neither yes nor no"),
        ("firmware=efi", "Did you mean uefi?"),
        ("network=a,,b", "'' is no network"),
        (f"ssh-key={KEY}", "there is no user yet. Name one before it: user=alice"),
        ("user=Alice", "user=: 'Alice' cannot be a user's name"),
        ("password=x", "there is no setting 'password'. Did you mean password-hash?"),
        ("", "is no KEY=VALUE"),
    ],
)
def test_a_wrong_setting_is_a_usage_error_that_names_it(setting: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        changed(setting)
    assert problem in str(caught.value)


def test_a_file_of_keys_must_be_there_and_hold_public_ones(tmp_path: Path) -> None:
    private = tmp_path / "id"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (tmp_path / "empty").touch()
    for file, problem in ((private, "private key"), (tmp_path / "empty", "no key"), (tmp_path / "x", "No such file")):
        with pytest.raises(UsageError, match=problem):
            changed("user=a", f"ssh-key=@{file}")


def test_every_setting_is_explained_and_known() -> None:
    for key, meaning in SETTINGS.items():
        assert meaning
        if key == "run":  # a command may be anything
            continue
        with pytest.raises(UsageError) as caught:
            changed(f"{key}=\x1b")
        assert "no setting" not in str(caught.value)
        assert "\x1b" not in str(caught.value)


def test_the_documented_form_is_what_a_file_holds() -> None:
    assert profiles.to_document(parse(HARDWARE, "x"))["memory"] == "2G"
