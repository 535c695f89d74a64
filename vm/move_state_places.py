"""Where a VM's firmware variables and TPM state are, and whether both hosts of a move have them in one place.

Libvirt removes them with a definition: where they are in one place, that would take them from the other host's VM. This
module removes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from xml.etree.ElementTree import Element

import libvirt

from host.shared_storage import prove_shared
from host.steps import Args, StepContext
from vm import host_files
from vm.create_steps import or_none
from vm.domain_xml import parse
from vm.move_sides import NO_DOMAIN


def is_shared(ctx: StepContext, args: Args) -> bool:
    """Whether what libvirt keeps beside the VM is the other host's as well. Raises HvtuiError."""
    root = _definition(ctx, args)
    if root is None:
        return False
    has_nvram = root.find("os/nvram") is not None or root.find("os[@firmware='efi']") is not None
    if has_nvram and is_common(ctx, args, host_files.split(nvram_path(ctx, args))[0]):
        return True
    has_tpm = root.find("devices/tpm/backend[@type='emulator']") is not None
    return has_tpm and is_common(ctx, args, host_files.tpm_directory(ctx.host))


def _definition(ctx: StepContext, args: Args) -> Element | None:
    with ctx.calls("read the definition of", args["name"]) as connection:
        domain = or_none(connection.lookupByUUIDString, args["uuid"], missing=NO_DOMAIN)
        return parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) if domain is not None else None


def nvram_path(ctx: StepContext, args: Args) -> str:
    """Where the firmware variables are, the same on both: where the definition says, or where libvirt puts them for one
    that was never started."""
    with ctx.calls("read the definition of", args["name"]) as connection:
        text = connection.lookupByUUIDString(args["uuid"]).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    own = parse(text).findtext("os/nvram", "").strip()
    return own or f"{host_files.nvram_directory(ctx.host)}/{args['name']}_VARS.fd"


def tpm_path(ctx: StepContext, args: Args) -> str:
    """Where the state of its TPM is on the host of the context."""
    return f"{host_files.tpm_directory(ctx.host)}/{args['uuid']}"


def is_common(ctx: StepContext, args: Args, directory: str) -> bool:
    """Whether both hosts have one directory there: then it is not copied, and above all not removed."""
    there = replace(ctx, host=ctx.peer(args["target"]))
    for context in (ctx, there):
        if not host_files.exists(context, directory, mark=args["mark"]):
            return False
    return prove_shared(ctx.host, ctx.peer(args["target"]), directory, args["mark"])
