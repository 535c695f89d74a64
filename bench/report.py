"""The page of results."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench import peer
from bench.provisioning import CLONES
from bench.row import Row

HEAD = """\
# Benchmarks

Written by `make bench`; do not edit. Each comparison was made in one run, the contestants taking turns on the same
daemon; times are medians. The ratio is what counts: the figures themselves change with the machine.

{machine}

{table}

- The VMs are those of libvirt's test driver inside a private libvirtd (`test+unix:///FILE`), unless a line says QEMU.
  Every connection makes that driver read its file again, for hvtui and for virsh alike: the first line is mostly that.
- "First usable list" is the time from starting the program to a terminal that shows names of VMs (120 × 40).
- "At rest" is measured over 20 s, six seconds after the list appeared. CPU is the scheduler's time of all threads.
- "Key to paint" is the CPU time of one press of `j` among 10,000 VMs, less what the program uses without keys.
- Templates are qcow2 images full of random data. "Define 50 linked VMs" is one command, with its job and its journal,
  against a script that calls qemu-img and virsh for each; virt-clone is timed {clones} times and multiplied.
- virtui-manager {version} {peer}.
"""


def page(rows: Sequence[Row], rival: peer.Peer) -> str:
    words = f"could not be compared: {rival.why_not}" if rival.why_not else "was installed from PyPI for the run"
    return HEAD.format(machine=_machine(), table=table(rows), version=peer.VERSION, peer=words, clones=CLONES)


def table(rows: Sequence[Row]) -> str:
    lines = ["| what | budget | measured | compared with | ratio | |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [
        f"| {row.what} | {row.budget} | {row.measured} | {row.note or row.compared or '–'} "
        f"| {'–' if row.ratio is None else f'{row.ratio:.2f}'} | {_verdict(row)} |"
        for row in rows
    ]
    return "\n".join(lines)


def _verdict(row: Row) -> str:
    return {True: "kept", False: "**over**", None: "not compared"}[row.kept]


def _machine() -> str:
    release = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    version = subprocess.run(["virsh", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    cpus = os.cpu_count()
    return (
        f"Measured on: {release}, {cpus} CPUs ({_cpu_model()}), {memory_gib:.0f} GiB, libvirt {version}, "
        f"Python {platform.python_version()}."
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
