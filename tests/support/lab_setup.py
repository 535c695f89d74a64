"""What every lab host and the seat are given: storage pools, a network, and a way to reach each other."""

from __future__ import annotations

import shlex

import libvirt

from tests.support.lab_host import LabHost
from tests.support.lab_spec import LabSpec

POOLS = {"shared": "/srv/shared/images", "default": "/var/lib/libvirt/images"}
NETWORK = "default"  # Debian's own: NAT, with dnsmasq
_NETWORK_FILE = "/usr/share/libvirt/networks/default.xml"
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
    """The pools and the network of a host that runs, defined, started, and started again with the host."""
    connection = host.connect()
    try:
        pools = {pool.name(): pool for pool in connection.listAllStoragePools()}
        for name, path in POOLS.items():
            _start(pools.get(name) or connection.storagePoolDefineXML(_POOL.format(name=name, path=path)))
        networks = {network.name(): network for network in connection.listAllNetworks()}
        _start(networks.get(NETWORK) or connection.networkDefineXML(host.path(_NETWORK_FILE).read_text()))
    finally:
        connection.close()


def _start(thing: libvirt.virStoragePool | libvirt.virNetwork) -> None:
    thing.setAutostart(True)
    if not thing.isActive():
        thing.create()


def write_seat(spec: LabSpec) -> None:
    """The command `seat`, and the files that it puts over the machine's own for the one command that it runs."""
    directory = shlex.quote(str(spec.directory))
    (spec.directory / "seat.hosts").write_text(spec.hosts_file(), encoding="utf-8")
    (spec.directory / "seat.ssh_config").write_text(_SSH_CONFIG.format(directory=spec.directory), encoding="utf-8")
    (spec.directory / "seat").write_text(_SEAT.format(directory=directory), encoding="utf-8")
    (spec.directory / "seat").chmod(0o755)
