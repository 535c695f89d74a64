"""Brings a lab back to how it was after its start, whatever a test did to its hosts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import libvirt

from tests.support import lab_setup
from tests.support.lab import Lab
from tests.support.lab_host import LabHost

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


def reset(lab: Lab) -> None:
    """Every host runs and answers, without VMs, volumes, or pools and networks of a test. Raises RuntimeError."""
    for host in lab.hosts:
        _revive(host)
    for host in lab.hosts:
        host.wait_ready()
        _remove_vms(host)
        _remove_pools_and_networks(host)
        lab_setup.set_up(host)
    for directory in (lab.shared / "images", *(host.images for host in lab.hosts)):
        _empty(directory)
    for host in lab.hosts:
        _refresh(host)


def _revive(host: LabHost) -> None:
    if not host.is_running():
        host.request_start()
        return
    host.thaw_libvirtd()
    host.heal_network()
    host.empty_disks()
    if not host.answers():
        host.start_libvirtd()


def _remove_vms(host: LabHost) -> None:
    connection = host.connect()
    try:
        for domain in connection.listAllDomains():
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
            with contextlib.suppress(libvirt.libvirtError):
                domain.undefineFlags(_UNDEFINE)
        for pid in host.pids("qemu-system"):  # a guest that its libvirtd has lost
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        left = [domain.name() for domain in connection.listAllDomains()]
    finally:
        connection.close()
    if left:
        raise RuntimeError(f"{host.name}: could not be removed: {left}")


def _remove_pools_and_networks(host: LabHost) -> None:
    connection = host.connect()
    try:
        for pool in connection.listAllStoragePools():
            if pool.name() not in lab_setup.POOLS:
                _remove(pool)
        for network in connection.listAllNetworks():
            if network.name() != lab_setup.NETWORK:
                _remove(network)
    finally:
        connection.close()


def _remove(thing: libvirt.virStoragePool | libvirt.virNetwork) -> None:
    if thing.isActive():
        thing.destroy()
    if thing.isPersistent():
        thing.undefine()


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _refresh(host: LabHost) -> None:
    connection = host.connect()
    try:
        for pool in connection.listAllStoragePools():
            pool.refresh()
    finally:
        connection.close()
