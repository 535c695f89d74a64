"""What every lab host and the seat are given: storage pools, a network, and a way to reach each other."""

from __future__ import annotations

import shlex

import libvirt

from tests.support.lab_host import LabHost
from tests.support.lab_spec import LabSpec

POOLS = {"shared": "/srv/shared/images", "default": "/var/lib/libvirt/images"}
NETWORK = "default"  # Debian's own: NAT, with dnsmasq
_POOL = "<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"

# From the lab's network, with its names and its keys, and otherwise as it is outside.
_SEAT = """\
#!/bin/sh
[ "$1" = -- ] && shift
pid=$(sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p' {directory}/record.json)
exec nsenter --net="/proc/$pid/ns/net" -- unshare --mount -- sh -c '
    mount --bind {directory}/seat.hosts /etc/hosts && mount --bind {directory}/seat.ssh_config /etc/ssh/ssh_config &&
    exec "$@"' seat "$@"
"""
_SSH_CONFIG = """\
Host *
    IdentityFile {directory}/seat.ssh/id_ed25519
    UserKnownHostsFile {directory}/seat.ssh/known_hosts
    BatchMode yes
"""


def set_up(host: LabHost) -> None:
    """Define and start the pools and the network of a host that runs; what is there already stays."""
    connection = host.connect()
    try:
        there = {pool.name() for pool in connection.listAllStoragePools()}
        for name, path in POOLS.items():
            if name not in there:
                _start_pool(connection, name, path)
        network = connection.networkLookupByName(NETWORK)
        network.setAutostart(True)
        if not network.isActive():
            network.create()
    finally:
        connection.close()


def write_seat(spec: LabSpec) -> None:
    """The command `seat`, and the files that it puts over the machine's own for the one command that it runs."""
    directory = shlex.quote(str(spec.directory))
    (spec.directory / "seat.hosts").write_text(spec.hosts_file(), encoding="utf-8")
    (spec.directory / "seat.ssh_config").write_text(_SSH_CONFIG.format(directory=spec.directory), encoding="utf-8")
    (spec.directory / "seat").write_text(_SEAT.format(directory=directory), encoding="utf-8")
    (spec.directory / "seat").chmod(0o755)


def _start_pool(connection: libvirt.virConnect, name: str, path: str) -> None:
    pool = connection.storagePoolDefineXML(_POOL.format(name=name, path=path))
    pool.setAutostart(True)
    pool.create()
