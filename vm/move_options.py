"""What a move's options need of both hosts: read where they are wanted, and judged before libvirt would refuse.

What libvirt does not tell (certificates, a setting of the kernel) is looked up over the host's ssh login, or here for
this machine; without either it is unknown, and the plan says so. Reads only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import libvirt

from host.connection import Host
from host.facts import version_text
from host.host_list import HostEntry
from vm.domain_xml import parse
from vm.move_kinds import LIVE, MEMORY
from vm.move_model import Check, MoveKind, MoveRequest, Stuck
from vm.move_reading import SourceReading, TargetReading

UNSUPPORTED = 8
_COMPRESSED_PARALLEL = 9_004_000
_AUTHORITY = "ca-cert.pem"
SOURCE_FILES = (_AUTHORITY, "client-cert.pem", "client-key.pem")
TARGET_FILES = (_AUTHORITY, "server-cert.pem", "server-key.pem")
_CONFIGURATION = "/etc/libvirt/qemu.conf"
_USERFAULTS = "/proc/sys/vm/unprivileged_userfaultfd"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the hosts can do of what is wanted; None where that cannot be told, or was not asked for. Of certificates
    the paths that are missing."""

    missing_here: tuple[str, ...] | None = None
    missing_there: tuple[str, ...] | None = None
    can_postcopy: bool | None = None


# Reading


def read_abilities(source: Host, target: Host, request: MoveRequest) -> Abilities:
    """Nothing is asked for what is not wanted. Raises ConnectionLost."""
    options = request.options
    return Abilities(
        missing_here=_missing(source, SOURCE_FILES) if options.tls else None,
        missing_there=_missing(target, TARGET_FILES) if options.tls else None,
        can_postcopy=_can_postcopy(target) if wants_postcopy(request) else None,
    )


def wants_postcopy(request: MoveRequest) -> bool:
    """Whether libvirt is told that post-copy may follow."""
    return request.options.postcopy or request.options.stuck is Stuck.POSTCOPY


def _run_on(host: Host, words: list[str]) -> tuple[int, str, str] | None:
    """Exit code, output and complaints of a command on the host; None where there is no way to run one."""
    from host.host_test import Subject, run_on

    done = run_on(Subject(HostEntry(host.name, host.uri), host), ["env", "LC_ALL=C", *words])
    return None if done is None or isinstance(done, str) else (done.returncode, done.stdout, done.stderr)


def _missing(host: Host, wanted: tuple[str, ...]) -> tuple[str, ...] | None:
    """Which of QEMU's certificates are not where libvirt looks for those of migrations."""
    named = _run_on(host, ["grep", "-hE", r"^ *(migrate|default)_tls_x509_cert_dir *=", _CONFIGURATION])
    if named is None:
        return None
    configured = dict(re.findall(r'(migrate|default)_tls\w+ *= *"([^"]*)"', named[1]))
    usual = configured.get("default", "/etc/pki/qemu")
    for directory in (configured.get("migrate", "/etc/pki/libvirt-migrate"), usual):
        found = _run_on(host, ["ls", "--", directory])
        if found is None or "Permission denied" in found[2]:
            return None
        if found[0] == 0:
            return tuple(f"{directory}/{name}" for name in wanted if name not in found[1].split())
    return tuple(f"{usual}/{name}" for name in wanted)


def _can_postcopy(host: Host) -> bool | None:
    """QEMU fetches memory on demand by userfaultfd, which kernels keep from other users than root unless told so."""
    with host.calls("read the capabilities of", host.name) as connection:
        try:
            root = parse(connection.getCapabilities(), root="capabilities")
        except libvirt.libvirtError as error:
            if error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise
            return None
    labels = (
        each.findtext("baselabel", "") for each in root.findall("host/secmodel") if each.findtext("model") == "dac"
    )
    if next(labels, "").startswith("+0:"):
        return True
    told = _run_on(host, ["cat", _USERFAULTS])
    if told is None or told[0] != 0:
        return None
    return told[1].strip() != "0"


# Judging


def check_options(here: SourceReading, there: TargetReading, request: MoveRequest, can: Abilities) -> Iterator[Check]:
    """Every check of what the request asks libvirt for. What cannot be as it was asked for is not replaced by another
    kind of move, unless that kind was asked for."""
    blocks = MEMORY if request.kind is None else LIVE
    yield from _tunnelled(request, blocks)
    yield from _several(here, there, request, blocks)
    if wants_postcopy(request):
        yield from _postcopy(there, can, blocks)
    if request.options.tls:
        yield from _certificates(here.host.name, can.missing_here, blocks)
        yield from _certificates(there.host.name, can.missing_there, blocks)
    if request.options.peer_to_peer and not request.peer_uri:
        reason = (
            f"no address is known under which {here.host.name} reaches {there.host.name}: hvtui itself drives a live"
            " move, and its end would be the move's"
        )
        yield Check("peer", False, reason)


def _tunnelled(request: MoveRequest, blocks: frozenset[MoveKind]) -> Iterator[Check]:
    options = request.options
    if not options.tunnelled:
        return
    one = "Leave one of the two out"
    reason = "libvirt cannot copy disks through its own connection (tunnelled)"
    yield Check("tunnelled", False, reason, "Leave --tunnelled out", frozenset({MoveKind.LIVE_STORAGE}))
    if options.connections > 1:
        yield Check("connections", False, "a tunnelled migration has one connection", one, blocks)
    if wants_postcopy(request):
        yield Check("post-copy", False, "a tunnelled migration has no post-copy", one, blocks, UNSUPPORTED)
    if options.tls:
        reason = "a tunnelled migration goes through libvirt's own connection, which has its own encryption"
        yield Check("tls", False, reason, one, blocks, UNSUPPORTED)
    if not (options.peer_to_peer and request.peer_uri):
        reason = "a tunnelled migration goes from host to host, and hvtui itself would drive this one"
        yield Check("tunnelled", False, reason, "Give --peer-uri, or leave --tunnelled out", blocks, UNSUPPORTED)


def _several(
    here: SourceReading, there: TargetReading, request: MoveRequest, blocks: frozenset[MoveKind]
) -> Iterator[Check]:
    options, one = request.options, "Leave one of the two out"
    if options.connections == 1:
        return
    version = min(here.host.libvirt_version, there.host.libvirt_version)
    if options.compress and version < _COMPRESSED_PARALLEL:
        reason = f"libvirt {version_text(version)} cannot compress over several connections"
        yield Check("compression", False, reason, one, blocks, UNSUPPORTED)
    if wants_postcopy(request):
        yield Check("post-copy", False, "post-copy does not work over several connections", one, blocks, UNSUPPORTED)


def _postcopy(there: TargetReading, can: Abilities, blocks: frozenset[MoveKind]) -> Iterator[Check]:
    target = there.host.name
    if can.can_postcopy is False:
        reason = f"{target} lets no QEMU fetch memory on demand, so that there can be no post-copy"
        remedy = "sysctl vm.unprivileged_userfaultfd=1 there, or leave post-copy out"
        yield Check("post-copy", False, reason, remedy, blocks, UNSUPPORTED)
        return
    if can.can_postcopy is None:
        reason = f"whether {target} lets QEMU fetch memory on demand (post-copy) cannot be told from here"
        yield Check("post-copy", False, reason)
    reason = (
        "once post-copy has begun it cannot be taken back, and a guest whose connection is lost then may be lost too"
    )
    yield Check("post-copy", False, reason)


def _certificates(host: str, missing: tuple[str, ...] | None, blocks: frozenset[MoveKind]) -> Iterator[Check]:
    if missing is None:
        yield Check("tls", False, f"whether {host} has certificates for QEMU cannot be told from here")
    elif missing:
        remedy = "Put certificates of one authority on both hosts, or leave --tls out"
        yield Check("tls", False, f"{host} has not {', '.join(missing)}", remedy, blocks, UNSUPPORTED)
    else:
        yield Check("tls", True, f"{host} has certificates for QEMU")
