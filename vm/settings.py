"""Plans that change a VM's settings: its name, title, description, tags, owner, autostart, vCPUs and memory.

Live where the running VM can take it, else from the next start with a warning that says so. The plan carries the old
values, so that each step can be taken back even when it was interrupted. This module changes nothing; vm.settings_steps
has the verbs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import libvirt

from host.connection import Host
from host.errors import NameTaken, UsageError
from host.load import local_memory
from host.plan import Blocker, Json, Plan, Step
from host.text import did_you_mean, printable
from host.units import KIB, MIB, format_bytes, parse_size
from vm import settings_steps
from vm.commands import host_blockers, identity, virsh, words
from vm.domain_xml import HVTUI_NAMESPACE, HVTUI_PREFIX, fits_xml, parse, parse_tags, read_config
from vm.lifecycle import effective_state
from vm.model import Vm, VmConfig, VmState
from vm.names import check_name

LEAST_MEMORY_BYTES = MIB
MOST_VCPUS = 4096
LONGEST_TEXT = 10_000
_NEXT_START = "from the next start"


def plan_rename(host: Host, vm: Vm, new_name: str) -> Plan:
    """Rename a VM that is off. Raises UsageError for a name that cannot be, NameTaken."""
    check_name(new_name)
    title = f"Rename {vm.name} to {new_name}"
    with host.calls("rename", vm.name) as connection:
        _refuse_taken(connection, vm, new_name)
    args: dict[str, Json] = {**identity(vm), "new_name": new_name, "before": vm.name}
    return Plan(
        title=title,
        host_uri=host.uri,
        steps=(Step("vm.rename", title, args, (virsh(host.uri, "domrename", vm.name, "--new-name", new_name),)),),
        command=(*words("rename", vm.name), new_name),
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        blockers=(*host_blockers(host), *_rename_blockers(vm, new_name)),
        keeps=("the file names of its disks",),
    )


def _refuse_taken(connection: libvirt.virConnect, vm: Vm, new_name: str) -> None:
    try:
        other = connection.lookupByName(new_name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return
    if other.UUIDString() != vm.uuid:
        raise NameTaken("another VM has this name", about=new_name, remedy="Choose another name")


def _rename_blockers(vm: Vm, new_name: str) -> tuple[Blocker, ...]:
    state = effective_state(vm)
    if new_name == vm.name:
        return (Blocker.wrong_state("it has this name already"),)
    if not vm.persistent:
        return (Blocker.wrong_state("it is transient: libvirt renames only persistent VMs"),)
    if state is VmState.SAVED:
        remedy, action_id = "Start it, or discard the saved state", "vm.discard-saved"
        return (Blocker.wrong_state("its saved state belongs to the old name", remedy=remedy, action_id=action_id),)
    if state not in {VmState.OFF, VmState.UNKNOWN}:
        action_id = "vm.stop" if state is VmState.RUNNING else "vm.off"
        return (Blocker.wrong_state(f"it is {state}", remedy="Shut it down first", action_id=action_id),)
    if vm.checkpoints:
        return (Blocker.wrong_state("libvirt does not rename a VM with checkpoints", remedy="Remove these first"),)
    return ()


@dataclass(frozen=True, slots=True)
class _Change:
    """What one setting adds to the plan."""

    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    blockers: tuple[Blocker, ...] = ()


@dataclass(frozen=True, slots=True)
class _Target:
    """The VM whose settings change: `next_start` is its configuration, `live` that of the running one, if it runs."""

    host: Host
    vm: Vm
    root: Element
    next_start: VmConfig
    live: VmConfig | None
    host_cpus: int
    host_memory_bytes: int

    @property
    def scope(self) -> tuple[str, ...]:
        """virsh's options for what a change affects."""
        return (*(("--config",) if self.vm.persistent else ()), *(("--live",) if self.live is not None else ()))

    def step(self, verb: str, title: str, args: Mapping[str, Json], *commands: str) -> Step:
        return Step(verb, f"{title} of {self.vm.name}", {**identity(self.vm), **args}, commands)

    def virsh(self, verb: str, *options: str) -> str:
        return virsh(self.host.uri, verb, self.vm.name, *options)


def plan_set(host: Host, vm: Vm, changes: Mapping[str, str]) -> Plan:
    """Change settings: title, description, tags ("web,prod" replaces, "+web" adds, "-old" removes), owner, autostart
    (on, off), vcpus, memory ("2G"). An empty text clears. Raises UsageError for an unknown key or a bad value."""
    if not changes:
        raise UsageError("nothing to set", remedy=f"Settings: {', '.join(_SETTINGS)}")
    for key in changes:
        _check_key(key)
    target = _read_target(host, vm)
    labels = {key: value for key, value in changes.items() if key in {"tags", "owner"}}
    parts = [_SETTINGS[key](target, value) for key, value in changes.items() if key not in labels]
    if labels:
        parts.append(_set_labels(target, labels))
    given = tuple(f"{key}={value}" for key, value in changes.items())
    return Plan(
        title=f"Set {', '.join(changes)} of {vm.name}",
        host_uri=host.uri,
        steps=tuple(step for part in parts for step in part.steps),
        command=(*words("set", vm.name), *given),
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        warnings=tuple(warning for part in parts for warning in part.warnings),
        blockers=(*host_blockers(host), *(blocker for part in parts for blocker in part.blockers)),
    )


def _check_key(key: str) -> None:
    if key in _SETTINGS:
        return
    raise UsageError(f"there is no setting {printable(key, limit=40)!r}", remedy=did_you_mean(key, _SETTINGS))


def _read_target(host: Host, vm: Vm) -> _Target:
    with host.calls("read the settings of", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        inactive = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        live = domain.XMLDesc(0) if vm.is_active else None
        node = connection.getInfo()
    memory = local_memory(host)
    return _Target(
        host=host,
        vm=vm,
        root=parse(inactive),
        next_start=read_config(inactive),
        live=read_config(live) if live is not None else None,
        host_cpus=node[2],
        host_memory_bytes=memory[1] if memory else node[1] * MIB,
    )


# Texts and labels


def _set_title(target: _Target, value: str) -> _Change:
    return _set_text(target, "title", _one_line("title", value.strip()), target.next_start.title, ("--title",))


def _set_description(target: _Target, value: str) -> _Change:
    return _set_text(target, "description", _xml_text("description", value), target.next_start.description, ())


def _set_text(target: _Target, field: str, value: str, before: str, options: tuple[str, ...]) -> _Change:
    command = target.virsh("desc", *target.scope, *options, "--new-desc", value)
    args: dict[str, Json] = {"field": field, "value": value, "before": before}
    return _Change((target.step("vm.set-text", f"Set the {field}", args, command),))


def _xml_text(key: str, value: str) -> str:
    """`value`, refused when libvirt's XML could not hold it, or would change it silently."""
    if len(value) > LONGEST_TEXT:
        raise UsageError(f"the {key} has more than {LONGEST_TEXT} characters")
    if "\r" in value or not fits_xml(value):
        raise UsageError(f"the {key} holds control characters", remedy="Use text, tabs and line breaks only")
    return value


def _one_line(key: str, value: str) -> str:
    if "\n" in value or "\t" in value:
        raise UsageError(f"the {key} must be one line")
    return _xml_text(key, value)


def _set_labels(target: _Target, labels: Mapping[str, str]) -> _Change:
    """Tags and owner live in one metadata element, so they change in one step."""
    now = target.next_start
    tags = _changed_tags(now.tags, labels["tags"]) if "tags" in labels else now.tags
    owner = _one_line("owner", labels["owner"].strip()) if "owner" in labels else now.owner
    args: dict[str, Json] = {
        "tags": list(tags),
        "owner": owner,
        "before": {"tags": list(now.tags), "owner": now.owner},
    }
    text = settings_steps.labels_text(target.root, tags, owner)
    change = ("--remove",) if text is None else ("--key", HVTUI_PREFIX, "--set", text)
    command = target.virsh("metadata", *target.scope, "--uri", HVTUI_NAMESPACE, *change)
    return _Change((target.step("vm.set-labels", f"Set the {' and '.join(sorted(labels))}", args, command),))


def _changed_tags(now: tuple[str, ...], text: str) -> tuple[str, ...]:
    """The tags after "web,prod" (replaces all), or "+web,-old" (adds and removes). Raises UsageError."""
    parts = [part for part in text.replace(",", " ").split() if part]
    signed = [part for part in parts if part[0] in "+-"]
    if not signed:
        return parse_tags(text)
    if len(signed) != len(parts):
        raise UsageError(
            f"{printable(text, limit=60)!r} mixes a new list of tags with changes to the old one",
            remedy="Write web,prod to replace all tags, or +web,-old to change some",
        )
    added = parse_tags(",".join(part[1:] for part in signed if part[0] == "+"))
    removed = {part[1:] for part in signed if part[0] == "-"}
    return tuple(dict.fromkeys(tag for tag in (*now, *added) if tag not in removed))


# Autostart


def _set_autostart(target: _Target, value: str) -> _Change:
    from vm.lifecycle import plan_autostart

    wanted = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}.get(value.lower())
    if wanted is None:
        raise UsageError(f"autostart is on or off, not {printable(value, limit=40)!r}")
    plan = plan_autostart(target.host, target.vm, wanted)
    return _Change(plan.steps, blockers=plan.blockers[len(host_blockers(target.host)) :])


# vCPUs


def _set_vcpus(target: _Target, value: str) -> _Change:
    if not (value.isascii() and value.isdigit() and 0 < len(value) < 6 and 1 <= int(value) <= MOST_VCPUS):
        raise UsageError(f"vcpus is a number from 1 to {MOST_VCPUS}, not {printable(value, limit=40)!r}")
    wanted, now, live = int(value), target.next_start, target.live
    has_headroom = now.vcpus < now.vcpus_max and wanted <= now.vcpus_max
    maximum = now.vcpus_max if has_headroom else wanted
    hot = live is not None and live.vcpus < wanted <= live.vcpus_max
    args: dict[str, Json] = {
        "maximum": maximum,
        "current": wanted,
        "live": wanted if hot else None,
        "before": {"maximum": now.vcpus_max, "current": now.vcpus},
    }
    commands = (target.virsh("setvcpus", "--config", "--maximum", "--count", str(maximum)),) if not has_headroom else ()
    scope = ("--config", "--live") if hot else ("--config",)
    step = target.step(
        "vm.set-vcpus", "Set the vCPUs", args, *commands, target.virsh("setvcpus", *scope, "--count", value)
    )
    warnings = _vcpu_warnings(target, wanted, hot=hot)
    return _Change((step,), warnings, (*_needs_configuration(target), *_vcpu_blockers(target, maximum)))


def _vcpu_warnings(target: _Target, wanted: int, *, hot: bool) -> tuple[str, ...]:
    warnings = []
    if target.live is not None and not hot and target.live.vcpus != wanted:
        warnings.append(f"The number of vCPUs changes {_NEXT_START}: the running VM has room for {_room(target.live)}")
    if wanted > target.host_cpus:
        warnings.append(f"More vCPUs than the host's {target.host_cpus} CPUs make a VM slower, not faster")
    return tuple(warnings)


def _room(live: VmConfig) -> str:
    return f"{live.vcpus_max}, and libvirt takes none away from a running guest"


def _vcpu_blockers(target: _Target, maximum: int) -> tuple[Blocker, ...]:
    if maximum == target.next_start.vcpus_max:
        return ()
    if target.root.find("cpu/numa/cell") is not None:
        return (_divided("its vCPUs are divided over NUMA cells"),)
    group = settings_steps.vcpus_per_socket(target.root)
    if group and maximum % group:
        return (_divided(f"its CPU topology has {group} vCPUs a socket: the number must be a multiple of {group}"),)
    return ()


def _divided(reason: str) -> Blocker:
    return Blocker(reason, "Change that in the XML", "vm.edit")


def _needs_configuration(target: _Target) -> tuple[Blocker, ...]:
    if target.vm.persistent:
        return ()
    return (Blocker.wrong_state("it is transient: it has no configuration for a next start"),)


# Memory


def _set_memory(target: _Target, value: str) -> _Change:
    wanted = parse_size(value) // KIB * KIB
    if wanted < LEAST_MEMORY_BYTES:
        raise UsageError(f"{value} is less memory than any VM can use", remedy="Write it as 512M or 2G")
    now, live = target.next_start, target.live
    has_headroom = now.memory_bytes < now.memory_max_bytes and wanted <= now.memory_max_bytes
    maximum = now.memory_max_bytes if has_headroom else wanted
    ballooned = live is not None and live.has_balloon and wanted <= live.memory_max_bytes
    args: dict[str, Json] = {
        "maximum_bytes": maximum,
        "current_bytes": wanted,
        "live_bytes": wanted if ballooned else None,
        "before": {
            "maximum_bytes": now.memory_max_bytes,
            "current_bytes": now.memory_bytes,
            "live_bytes": live.memory_bytes if live is not None and ballooned else None,
        },
    }
    step = target.step("vm.set-memory", "Set the memory", args, *_memory_commands(target, maximum, wanted, ballooned))
    warnings = _memory_warnings(target, wanted, maximum, ballooned=ballooned)
    return _Change((step,), warnings, (*_needs_configuration(target), *_memory_blockers(target, maximum)))


def _memory_commands(target: _Target, maximum: int, wanted: int, ballooned: bool) -> tuple[str, ...]:
    scope = ("--config", "--live") if ballooned else ("--config",)
    most = () if maximum == target.next_start.memory_max_bytes else (str(maximum // KIB),)
    return (
        *(target.virsh("setmaxmem", "--config", "--size", size) for size in most),
        target.virsh("setmem", *scope, "--size", str(wanted // KIB)),
    )


def _memory_warnings(target: _Target, wanted: int, maximum: int, *, ballooned: bool) -> tuple[str, ...]:
    warnings, live = [], target.live
    if live is not None and not ballooned:
        most = format_bytes(live.memory_max_bytes)
        why = f"the running VM can have at most {most}" if live.has_balloon else "it has no memory balloon"
        warnings.append(f"The memory changes {_NEXT_START}: {why}")
    elif live is not None and wanted < live.memory_bytes:
        warnings.append(
            "The guest gives memory back gradually, and only as far as it can: taking too much makes it slow or end "
            "programs"
        )
    if maximum < target.next_start.memory_max_bytes:
        most = f"{format_bytes(target.next_start.memory_max_bytes)} to {format_bytes(maximum)}"
        warnings.append(f"The most memory that it can be given while it runs goes down from {most}, {_NEXT_START}")
    if wanted > target.host_memory_bytes:
        warnings.append(f"That is more than the host's {format_bytes(target.host_memory_bytes)}")
    return tuple(warnings)


def _memory_blockers(target: _Target, maximum: int) -> tuple[Blocker, ...]:
    if maximum != target.next_start.memory_max_bytes and target.root.find("cpu/numa/cell") is not None:
        return (_divided("its memory is divided over NUMA cells"),)
    return ()


def _set_tags_alone(target: _Target, value: str) -> _Change:
    return _set_labels(target, {"tags": value})


def _set_owner_alone(target: _Target, value: str) -> _Change:
    return _set_labels(target, {"owner": value})


_SETTINGS: Mapping[str, Callable[[_Target, str], _Change]] = {
    "title": _set_title,
    "description": _set_description,
    "tags": _set_tags_alone,
    "owner": _set_owner_alone,
    "autostart": _set_autostart,
    "vcpus": _set_vcpus,
    "memory": _set_memory,
}
SETTINGS = tuple(_SETTINGS)
