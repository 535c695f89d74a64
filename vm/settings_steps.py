"""The step verbs that change a VM's settings. Each sets one value for the running VM and the next start alike.

The old value comes with the arguments (the plan read it), so that an interrupted step can be rolled back. A rollback
puts the old value back only where the new one still stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from host.plan import Step
from host.steps import Args, Result, StepContext, StepVerb, register
from host.units import KIB
from vm.domain_xml import HVTUI_NAMESPACE, HVTUI_PREFIX, own_metadata, parse, set_owner, set_tags, to_text
from vm.lifecycle_steps import inverse_step, look_up

_TEXT_KINDS = {
    "title": libvirt.VIR_DOMAIN_METADATA_TITLE,
    "description": libvirt.VIR_DOMAIN_METADATA_DESCRIPTION,
}
_CONFIG, _LIVE = libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_AFFECT_LIVE
_SECURE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


def _scope(domain: Any) -> int:
    """AFFECT_LIVE and AFFECT_CONFIG, as far as the VM has them."""
    return (_LIVE if domain.isActive() else 0) | (_CONFIG if domain.isPersistent() else 0)


# Name


def _rename(ctx: StepContext, args: Args) -> Result:
    _rename_to(ctx, args, args["new_name"])
    return {}


def _rename_to(ctx: StepContext, args: Args, name: str) -> None:
    with ctx.calls(f"rename to {name}", args["before"]) as connection:
        domain = look_up(connection, args)
        if domain.name() != name:
            domain.rename(name, 0)


def _undo_rename(ctx: StepContext, args: Args, result: Result | None) -> None:
    del result
    with ctx.calls("read the name of", args["name"]) as connection:
        name = look_up(connection, args).name()
    if name == args["new_name"]:
        _rename_to(ctx, args, args["before"])


def _inverse_rename(args: Args, result: Result) -> Step | str:
    del result
    back = {**args, "name": args["new_name"]}
    title = f"Rename {args['new_name']} back to {args['before']}"
    return inverse_step("vm.rename", title, back, new_name=args["before"], before=args["new_name"])


# Title and description


def _set_text(ctx: StepContext, args: Args) -> Result:
    _write_text(ctx, args, args["value"])
    return {}


def _write_text(ctx: StepContext, args: Args, value: str) -> None:
    with ctx.calls(f"set the {args['field']} of", args["name"]) as connection:
        domain = look_up(connection, args)
        domain.setMetadata(_TEXT_KINDS[args["field"]], value or None, None, None, _scope(domain))


def _undo_text(ctx: StepContext, args: Args, result: Result | None) -> None:
    del result
    with ctx.calls(f"read the {args['field']} of", args["name"]) as connection:
        root = parse(look_up(connection, args).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    if root.findtext(args["field"], "") == args["value"]:
        _write_text(ctx, args, args["before"])


def _inverse_text(args: Args, result: Result) -> Step | str:
    del result
    title = f"Set the {args['field']} of {args['name']} back"
    return inverse_step("vm.set-text", title, args, field=args["field"], value=args["before"], before=args["value"])


# Tags and owner


def _set_labels(ctx: StepContext, args: Args) -> Result:
    _write_labels(ctx, args, args["tags"], args["owner"])
    return {}


def _write_labels(ctx: StepContext, args: Args, tags: list[str], owner: str) -> None:
    with ctx.calls("set the tags of", args["name"]) as connection:
        domain = look_up(connection, args)
        root = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        text = labels_text(root, tags, owner)
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        domain.setMetadata(kind, text, HVTUI_PREFIX, HVTUI_NAMESPACE, _scope(domain))


def labels_text(root: Element, tags: Sequence[str], owner: str) -> str | None:
    """hvtui's metadata element with these tags and this owner, as virDomainSetMetadata takes it; None for none.

    Without hvtui's namespace: libvirt declares it itself, and refuses a text that declares it too.
    """
    copy = deepcopy(root)
    set_tags(copy, tags)
    set_owner(copy, owner)
    own = own_metadata(copy)
    if own is None:
        return None
    for element in own.iter():
        element.tag = element.tag.removeprefix(f"{{{HVTUI_NAMESPACE}}}")
        if len(element):
            element.text = None  # the layout between elements: on one line it can be pasted into a shell
        element.tail = None
    return to_text(own)


def _undo_labels(ctx: StepContext, args: Args, result: Result | None) -> None:
    del result
    _write_labels(ctx, args, args["before"]["tags"], args["before"]["owner"])


def _inverse_labels(args: Args, result: Result) -> Step | str:
    del result
    old, new = args["before"], {"tags": args["tags"], "owner": args["owner"]}
    title = f"Set the tags and the owner of {args['name']} back"
    return inverse_step("vm.set-labels", title, args, tags=old["tags"], owner=old["owner"], before=new)


# vCPUs


def _set_vcpus(ctx: StepContext, args: Args) -> Result:
    _write_vcpus(ctx, args, args["maximum"], args["current"])
    if args["live"] is not None:
        with ctx.calls("add vCPUs to", args["name"]) as connection:
            domain = look_up(connection, args)
            if domain.isActive() and domain.vcpusFlags(_LIVE) < args["live"]:
                domain.setVcpusFlags(args["live"], _LIVE)
    return {}


def _write_vcpus(ctx: StepContext, args: Args, maximum: int, current: int) -> None:
    with ctx.calls("set the vCPUs of", args["name"]) as connection:
        root = parse(look_up(connection, args).XMLDesc(_SECURE))
        edit_vcpus(root, maximum, current)
        connection.defineXML(to_text(root))


def edit_vcpus(root: Element, maximum: int, current: int) -> None:
    """Set the number of vCPUs, and with it the number of sockets, of a domain's XML."""
    vcpu = root.find("vcpu")
    if vcpu is None:
        vcpu = Element("vcpu")
        root.append(vcpu)
    listed = root.find("vcpus")
    if listed is not None:
        root.remove(listed)  # libvirt writes one entry a vCPU by itself; old ones would contradict
    vcpu.text = str(maximum)
    vcpu.attrib.pop("current", None)
    if current < maximum:
        vcpu.set("current", str(current))
    topology = root.find("cpu/topology")
    group = vcpus_per_socket(root)
    if topology is not None and group:
        topology.set("sockets", str(maximum // group))


def vcpus_per_socket(root: Element) -> int:
    """Dies × clusters × cores × threads of the CPU topology; 0 without one."""
    topology = root.find("cpu/topology")
    if topology is None:
        return 0
    count = 1
    for part in ("dies", "clusters", "cores", "threads"):
        count *= max(int(topology.get(part, "1")), 1)
    return count


def _undo_vcpus(ctx: StepContext, args: Args, result: Result | None) -> None:
    """Only the configuration: libvirt takes no vCPU away from a running guest."""
    del result
    _write_vcpus(ctx, args, args["before"]["maximum"], args["before"]["current"])


def _inverse_vcpus(args: Args, result: Result) -> Step | str:
    del result
    old, new = args["before"], {"maximum": args["maximum"], "current": args["current"]}
    title = f"Set the vCPUs of {args['name']} back to {old['current']}, from the next start"
    return inverse_step(
        "vm.set-vcpus", title, args, maximum=old["maximum"], current=old["current"], live=None, before=new
    )


# Memory


def _set_memory(ctx: StepContext, args: Args) -> Result:
    _write_memory(ctx, args, args)
    return {}


def _write_memory(ctx: StepContext, args: Args, values: Args) -> None:
    with ctx.calls("set the memory of", args["name"]) as connection:
        domain = look_up(connection, args)
        domain.setMemoryFlags(values["maximum_bytes"] // KIB, _CONFIG | libvirt.VIR_DOMAIN_MEM_MAXIMUM)
        domain.setMemoryFlags(values["current_bytes"] // KIB, _CONFIG)
        if values["live_bytes"] is not None and domain.isActive():
            domain.setMemoryFlags(values["live_bytes"] // KIB, _LIVE)


def _undo_memory(ctx: StepContext, args: Args, result: Result | None) -> None:
    del result
    _write_memory(ctx, args, args["before"])


def _inverse_memory(args: Args, result: Result) -> Step | str:
    del result
    keys = ("maximum_bytes", "current_bytes", "live_bytes")
    title = f"Set the memory of {args['name']} back to {args['before']['current_bytes'] // 2**20} MiB"
    old = {key: args["before"][key] for key in keys}
    return inverse_step("vm.set-memory", title, args, **old, before={key: args[key] for key in keys})


for _verb in (
    StepVerb("vm.rename", _rename, _undo_rename, _inverse_rename),
    StepVerb("vm.set-text", _set_text, _undo_text, _inverse_text),
    StepVerb("vm.set-labels", _set_labels, _undo_labels, _inverse_labels),
    StepVerb("vm.set-vcpus", _set_vcpus, _undo_vcpus, _inverse_vcpus),
    StepVerb("vm.set-memory", _set_memory, _undo_memory, _inverse_memory),
):
    register(_verb)
