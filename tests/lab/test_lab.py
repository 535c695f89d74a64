"""That the hosts of the lab are what they claim, and that what is done to them is what it says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import libvirt
import pytest

from tests.support import lab as labs
from tests.support import lab_guest, lab_process, lab_reset, lab_spec
from tests.support.lab import Lab
from tests.support.lab_saved import SavedGuests
from tests.support.waiting import wait_for

NAMES = ("lab1", "lab2", "lab3")
PERSISTENT = ("--persistent", "--undefinesource")
QUIET = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=5")


@pytest.mark.parametrize("name", NAMES)
def test_a_host_is_a_whole_system_of_its_own(lab: Lab, name: str):
    host = lab[name]

    wait_for(lambda: host.run(["systemctl", "is-system-running"], check=False).stdout.strip() != "starting")

    assert host.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""
    assert host.run(["hostnamectl", "hostname"]).stdout.strip() == name
    assert f"<uuid>{host.uuid}</uuid>" in host.connect().getCapabilities()
    assert host.connect().getHostname() == name


def test_each_host_has_identities_of_its_own(lab: Lab):
    machine_ids = {host.run(["cat", "/etc/machine-id"]).stdout for host in lab.hosts}
    keys = {host.run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout for host in lab.hosts}

    assert len(machine_ids) == len(keys) == len({host.uuid for host in lab.hosts}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_host_has_the_pools_and_the_network(lab: Lab, name: str):
    connection = lab[name].connect()

    assert {pool.name() for pool in connection.listAllStoragePools() if pool.isActive()} == {"shared", "default"}
    assert [network.name() for network in connection.listAllNetworks() if network.isActive()] == ["default"]


@pytest.mark.parametrize("source", NAMES)
def test_ssh_and_libvirt_reach_every_other_host_without_a_question(lab: Lab, source: str):
    for target in lab.hosts:
        if target.name != source:
            answer = lab[source].run(["ssh", *QUIET, f"root@{target.name}", "hostname"])
            assert answer.stdout.strip() == target.name
            assert lab[source].run(["virsh", "-c", target.peer_uri, "hostname"]).stdout.strip() == target.name


def test_from_the_seat_the_hosts_have_names_and_this_machine_stays_the_same(lab: Lab):
    hosts_file = Path("/etc/hosts").read_bytes()

    answer = subprocess.run(
        [*lab.seat(), "virsh", "-c", lab["lab2"].peer_uri, "hostname"], capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "lab2"
    assert Path("/etc/hosts").read_bytes() == hosts_file


def test_the_shared_pool_is_the_same_on_all_hosts_and_the_default_one_is_not(lab: Lab):
    lab["lab1"].run(["touch", "/srv/shared/images/a", "/var/lib/libvirt/images/b"])

    assert lab["lab3"].run(["ls", "/srv/shared/images"]).stdout.split() == ["a"]
    assert lab["lab3"].run(["ls", "/var/lib/libvirt/images"]).stdout == ""


@pytest.mark.parametrize(
    ("pool", "words"), [("shared", ("--unsafe",)), ("default", ("--copy-storage-all",))], ids=["shared", "copied"]
)
def test_a_guest_moves_between_two_hosts_and_lives_on(lab: Lab, guests: SavedGuests, pool: str, words: tuple[str, ...]):
    source, target = lab["lab1"], lab["lab2"]
    moved = guests.start(source, pool=pool)
    before = moved.counted_on(source)

    source.run(["virsh", "migrate", "--live", "--p2p", *PERSISTENT, *words, moved.name, target.peer_uri])

    after = moved.counted_on(target)
    assert after.count >= before.count
    wait_for(lambda: moved.counted_on(target).count > after.count, what="the guest to count on")
    assert lab_guest.checksum_inside(moved.on(target)) == moved.disk.checksum
    assert [domain.name() for domain in source.connect().listAllDomains()] == []
    assert lab_guest.console(target, moved.name).count("count ") > 0


def test_a_booted_guest_counts_seconds_on_its_console_and_for_its_agent(lab: Lab):
    host = lab["lab3"]
    disk = lab_guest.make_disk(host, "fresh", pool="default")

    domain = lab_guest.start(host, lab_guest.definition("fresh", disk=disk.path))

    wait_for(lambda: lab_guest.counted(domain).count >= 3, what="three seconds")
    assert re.findall(r"count (\d+)", lab_guest.console(host, "fresh"))[:4] == ["0", "1", "2", "3"]
    domain.destroy()
    assert lab_guest.disk_checksum(host, disk.path) == disk.checksum


def test_a_host_that_lost_its_power_comes_back_with_its_definitions_and_without_its_guests(
    lab: Lab, guests: SavedGuests
):
    host = lab["lab2"]
    lost = guests.start(host, pool="default")
    qemus = host.qemu_pids()

    host.kill_host()

    assert not host.is_running()
    assert not any(map(lab_process.start_time, qemus))
    assert not host.answers()
    host.start()
    assert not lost.on(host).isActive()
    assert host.connect().storagePoolLookupByName("shared").isActive()
    assert lab["lab1"].run(["ssh", *QUIET, "root@lab2", "true"]).returncode == 0


def test_a_host_reboots_in_order(lab: Lab):
    host = lab["lab3"]
    host.run(["touch", "/run/before"])

    host.reboot()

    assert not host.path("/run/before").exists()
    assert host.answers()


def test_a_killed_libvirtd_is_started_again_by_its_host_and_its_guests_go_on(lab: Lab, guests: SavedGuests):
    host = lab["lab1"]
    alive = guests.start(host)
    killed = host.libvirtd_pids()

    host.kill_libvirtd()

    wait_for(lambda: host.answers() and not set(killed) & set(host.libvirtd_pids()), what="the new libvirtd")
    alive.counted_on(host)


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_a_libvirtd_that_shall_stay_down_answers_only_after_its_start(lab: Lab, guests: SavedGuests, way: str):
    host = lab["lab1"]
    alive = guests.start(host)

    if way == "stopped":
        host.stop_libvirtd()
    else:
        host.kill_libvirtd(stays_dead=True)

    with pytest.raises(libvirt.libvirtError):
        host.connect()
    assert host.libvirtd_pids() == []
    assert len(host.qemu_pids()) == 1
    host.start_libvirtd()
    alive.counted_on(host)


def test_a_frozen_libvirtd_takes_connections_and_answers_none(lab: Lab):
    host = lab["lab1"]
    virsh = ["timeout", "2", "virsh", "-c", host.uri, "hostname"]

    host.freeze_libvirtd()

    assert subprocess.run(virsh, capture_output=True, check=False).returncode == 124
    host.thaw_libvirtd()
    assert host.connect().getHostname() == "lab1"


def test_a_pulled_cable_parts_a_host_from_the_others_and_not_from_the_test(lab: Lab):
    ping = ["ping", "-c", "1", "-W", "1", "lab2"]
    lab["lab1"].run(ping)

    lab["lab2"].cut_network()

    assert lab["lab1"].run(ping, check=False).returncode != 0
    assert lab["lab2"].connect().getHostname() == "lab2"
    lab["lab2"].heal_network()
    wait_for(lambda: lab["lab1"].run(ping, check=False).returncode == 0, what="the healed network")


def test_a_full_disk_takes_no_more_and_what_it_hid_comes_back(lab: Lab):
    host = lab["lab1"]
    host.run(["touch", "/var/lib/libvirt/images/kept"])
    write = ["dd", "if=/dev/zero", "of=/var/lib/libvirt/images/big", "bs=1M", "count=3"]

    host.fill_disk("/var/lib/libvirt/images")

    assert "No space left on device" in host.run(write, check=False).stderr
    host.empty_disks()
    assert host.run(["ls", "/var/lib/libvirt/images"]).stdout.split() == ["kept"]


def test_a_host_cannot_change_the_clock_of_this_machine(lab: Lab):
    offset_s = time.time() - time.monotonic()

    refused = lab["lab1"].run(["timedatectl", "set-time", "2001-01-01"], check=False)
    lab["lab1"].run(["timedatectl", "set-timezone", "Pacific/Auckland"])

    assert refused.returncode != 0
    assert lab["lab1"].run(["date", "+%Z"]).stdout.strip() in ("NZDT", "NZST")
    assert abs(time.time() - time.monotonic() - offset_s) < 600
    assert socket.gethostname() not in NAMES
    lab["lab1"].run(["timedatectl", "set-timezone", "UTC"])


def test_the_reset_after_a_test_undoes_whatever_it_did(lab: Lab, guests: SavedGuests):
    guests.start(lab["lab1"])
    guests.start(lab["lab2"], "other", pool="default")
    lab["lab2"].stop_libvirtd()
    lab["lab1"].connect().networkLookupByName("default").destroy()
    lab["lab1"].fill_disk("/var/lib/libvirt/images")
    lab["lab1"].cut_network()
    lab["lab1"].freeze_libvirtd()
    lab["lab3"].kill_host()

    lab_reset.reset(lab)

    for host in lab.hosts:
        connection = host.connect()
        assert connection.listAllDomains() == []
        assert host.qemu_pids() == []
        assert all(pool.isActive() and not pool.listAllVolumes() for pool in connection.listAllStoragePools())
        assert connection.networkLookupByName("default").isActive()
        lab["lab1"].run(["ping", "-c", "1", "-W", "5", host.name])


OWNER = """
import os, sys
from tests.support import lab
running = lab.up(sys.argv[1], hosts=1, owner=os.getpid())
print(running.pid(), running.hosts[0].init_pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_lab_ends_with_the_run_that_owns_it(lab_possible: None, number: signal.Signals):
    name = f"owned-{os.getpid()}"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=labs.REPOSITORY,
    )
    with owner:
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert all(map(lab_process.start_time, pids))
        owner.send_signal(number)

    wait_for(lambda: not any(map(lab_process.start_time, pids)), what="the end of the lab's processes")
    wait_for(lambda: not (lab_spec.ROOT / name).exists(), what="the end of its files")
    assert not list(Path("/sys/fs/cgroup").glob(f"**/hvtui-lab/{name}"))


def test_what_a_killed_lab_left_is_removed_by_the_next_and_a_lab_in_use_is_not(lab: Lab):
    left = lab_spec.ROOT / f"left-{os.getpid()}"
    (left / "lab1/upper").mkdir(parents=True)

    labs.remove_leftovers()

    assert not left.exists()
    assert lab.pid()
    assert lab.directory.is_dir()
