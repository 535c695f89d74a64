"""Requests, hosts and helpers that the tests of new VMs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from host.accelerator import Accelerator, AcceleratorKind
from host.connection import Host
from host.facts import GuestDefaults
from host.file_access import User
from host.plan import Plan
from vm import create, create_checks
from vm.create_request import CreateRequest, SourceKind

MIB = 1024**2
GIB = 1024**3
EMPTY = CreateRequest("fresh", source=SourceKind.EMPTY, memory_bytes=256 * MIB, disk_bytes=GIB)

WORLD = """
<node>
  <cpu><nodes>1</nodes><sockets>1</sockets><cores>4</cores><threads>1</threads><active>4</active><mhz>2000</mhz></cpu>
  <memory>8388608</memory>
  {body}
</node>
"""
POOL = "<pool type='dir'><name>default</name><target><path>/images</path></target></pool>"
NETWORK = (
    "<network><name>{name}</name><bridge name='{name}br'/><ip address='192.0.2.1' netmask='255.255.255.0'/></network>"
)
KVM = GuestDefaults(
    accelerator=Accelerator(AcceleratorKind.KVM, ""),
    architecture="x86_64",
    emulator="/usr/bin/qemu-system-x86_64",
    machine="pc-q35-7.2",
    cpu_mode="host-model",
    firmware=("bios", "uefi"),
    secure_boot=True,
    tpm_models=("tpm-crb",),
    vcpus_max=288,
)


def furnished(open_world: Callable[[str], Host]) -> Host:
    """A simulated host with a pool and two networks, all active."""
    return open_world(WORLD.format(body=POOL + NETWORK.format(name="default") + NETWORK.format(name="lab")))


def bare(open_world: Callable[[str], Host]) -> Host:
    """A simulated host with nothing on it."""
    return open_world(WORLD.format(body=""))


def taken_for_local(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The simulated host taken for a local one, so that files are really looked at."""
    monkeypatch.setattr(host, "is_simulated", False)
    monkeypatch.setattr(create_checks.images, "qemu_user", lambda _uri="": User("root", 0, frozenset({0})))
    simulated = Accelerator(AcceleratorKind.TEST, "")
    monkeypatch.setattr(create, "read_defaults", lambda _host: replace(KVM, accelerator=simulated))
    return host


def reasons(plan: Plan) -> list[str]:
    """Why the plan cannot run."""
    return [blocker.reason for blocker in plan.blockers]
