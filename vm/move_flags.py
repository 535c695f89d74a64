"""The arguments of a live move as libvirt's flags and parameters."""

from __future__ import annotations

from typing import Any

import libvirt

from host.steps import Args
from vm.move_model import BOOT_FILES
from vm.move_progress import mib_a_second
from vm.move_xml import fitted

_SECURE = libvirt.VIR_DOMAIN_XML_SECURE


def flags_of(args: Args) -> int:
    """The flags of libvirt's migration, but for the way in which it is driven."""
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    wanted = (
        (args["persistent"], libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE),
        (args["proved_shared"], libvirt.VIR_MIGRATE_UNSAFE),  # move.share has proved it
        (args["auto_converge"], libvirt.VIR_MIGRATE_AUTO_CONVERGE),
        (args["connections"] > 1, libvirt.VIR_MIGRATE_PARALLEL),
        (args["compress"], libvirt.VIR_MIGRATE_COMPRESSED),
        (args["tls"], libvirt.VIR_MIGRATE_TLS),
        (args["tunnelled"], libvirt.VIR_MIGRATE_TUNNELLED),
        (args["postcopy"], libvirt.VIR_MIGRATE_POSTCOPY),
    )
    for is_wanted, flag in wanted:
        flags |= flag if is_wanted else 0
    return int(flags | _disk_flags(args))


def _disks(args: Args) -> list[Any]:
    """The copies that libvirt makes; the files that the VM boots from are there already."""
    return [copy for copy in args["copies"] if copy["target"] not in BOOT_FILES]


def _disk_flags(args: Args) -> int:
    if not _disks(args):
        return 0
    keeps_backing = any(copy["backing"] for copy in _disks(args))
    return int(libvirt.VIR_MIGRATE_NON_SHARED_INC if keeps_backing else libvirt.VIR_MIGRATE_NON_SHARED_DISK)


def parameters_of(args: Args, domain: Any) -> dict[str, Any]:
    """The parameters of libvirt's migration. The definitions are read now and hold secrets: they go nowhere else."""
    parameters: dict[str, Any] = {}
    if args["migrate_uri"]:
        parameters[libvirt.VIR_MIGRATE_PARAM_URI] = args["migrate_uri"]
    if args["bandwidth_bytes_s"]:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = mib_a_second(args["bandwidth_bytes_s"])
    if args["bandwidth_bytes_s"] and args["postcopy"]:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] = mib_a_second(args["bandwidth_bytes_s"])
    if args["compress"]:
        parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION] = "zstd" if args["connections"] > 1 else "xbzrle"
    if args["connections"] > 1:
        parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = args["connections"]
    if args["persistent"]:
        # With the mark: a switch-over whose end libvirt does not learn of goes back, and leaves this at the target.
        definition = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | _SECURE)
        parameters[libvirt.VIR_MIGRATE_PARAM_PERSIST_XML] = fitted(definition, args["copies"], mark=args["mark"])
    if args["copies"]:
        current = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | _SECURE)
        parameters[libvirt.VIR_MIGRATE_PARAM_DEST_XML] = fitted(current, args["copies"])
    if _disks(args):
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = [copy["target"] for copy in _disks(args)]
    return parameters
