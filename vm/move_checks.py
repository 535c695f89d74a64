"""Looks at both hosts of a move and says, check by check, what each kind of move would meet. Reads only.

`examine` reads (vm.move_reading) and judges: the hosts (vm.move_checks_host), the request's options (vm.move_options),
the VM (vm.move_checks_vm), its disks (vm.move_checks_disks). A check names the kinds that it makes impossible; one that
blocks none is a warning.
"""

from __future__ import annotations

from dataclasses import replace

from host.connection import Host
from host.shared_storage import looks_shared
from vm.domain_xml import disk_source
from vm.model import Vm
from vm.move_checks_disks import check_disks, read_boot_files, read_disks
from vm.move_checks_host import check_hosts
from vm.move_checks_vm import check_vm
from vm.move_kinds import ALL
from vm.move_links import ASSUMED
from vm.move_model import Check, Link, MovePicture, MoveRequest
from vm.move_options import Abilities, check_options, read_abilities
from vm.move_reading import SourceReading, TargetReading, read_source, read_target, with_dirty_rate


def examine(
    source: Host, target: Host, vm: Vm, request: MoveRequest, *, link: Link = ASSUMED, measure: bool = True
) -> MovePicture:
    """Everything that a plan needs. `link` is what is known of the way between the hosts; `measure` takes a second to
    see how fast the guest writes to its memory. Raises NotFound, ConnectionLost, Denied."""
    here = read_source(source, vm.uuid, measure=measure)
    there = read_target(target, here, name=here.name)
    paths = [path for path in paths_of(here) if path.startswith("/")]
    likeness = {path: found.is_shared for path, found in looks_shared(source, target, paths).items()}
    here = with_dirty_rate(source, here)  # counted while the target was looked at
    can = read_abilities(source, target, request)
    return judge(here, replace(there, likeness=likeness), request, link=link, can=can)


def paths_of(here: SourceReading) -> tuple[str, ...]:
    """The images whose place matters: those of the disks, and the nearest below each."""
    sources = [disk_source(disk) for disk in here.current.iterfind("devices/disk")]
    return tuple(dict.fromkeys((*filter(None, sources), *here.backing)))


def judge(
    here: SourceReading,
    there: TargetReading,
    request: MoveRequest,
    *,
    link: Link = ASSUMED,
    can: Abilities = Abilities(),  # noqa: B008 - frozen
) -> MovePicture:
    """The picture of what was read; no calls."""
    simulated = simulated_check(here, there)
    disks, boot_files = read_disks(here, there, request), read_boot_files(here, there, request)
    checks = simulated or (
        *check_hosts(here, there),
        *check_options(here, there, request, can),
        *check_vm(here, there, request),
        *check_disks(here, there, request, disks, boot_files),
    )
    return MovePicture(
        vm_uuid=here.uuid,
        vm_name=here.name,
        source_uri=here.host.uri,
        target_uri=there.host.uri,
        source_name=here.host.name,
        target_name=there.host.name,
        is_running=here.is_active,
        memory_bytes=here.memory_bytes,
        dirty_bytes_s=here.dirty_bytes_s,
        disks=disks,
        checks=tuple(checks),
        link=link,
        autostart=here.autostart,
        inactive_xml=here.inactive_xml,
        migratable_xml=here.migratable_xml,
        has_nvram=any(root.find("os/nvram") is not None for root in (here.definition, here.current)),
        has_tpm=here.definition.find("devices/tpm") is not None,
        checkpoints=(*here.snapshots, *here.checkpoints),
        is_persistent=here.is_persistent,
        is_paused=here.is_paused,
        resident_bytes=here.resident_bytes,
        boot_files=boot_files,
    )


def simulated_check(here: SourceReading, there: TargetReading) -> tuple[Check, ...]:
    """libvirt's test driver moves nothing."""
    for reading in (here.host, there.host):
        if reading.driver.lower() != "qemu":
            reason = f"{reading.name} is no host of QEMU ({reading.driver}): nothing can be moved from or to it"
            return (Check("driver", False, reason, "Choose real hosts", ALL, exit_code=8),)
    return ()
