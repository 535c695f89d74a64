"""`hvtui vm import`: a bundle (vm.import_bundle), or bare disks and appliances (vm.import_disk); and what follows an
import, `hvtui vm paravirtual`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from host.errors import NotFound, UsageError
from host.text import printable
from host.units import parse_size
from hvtui.cli.change import change
from hvtui.cli.chosen import one_vm
from hvtui.cli.grammar import name_argument, option, verb
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from host.plan import Plan
    from vm.import_disk import DiskImportRequest
    from vm.import_report import ImportRequest

MANIFEST = "hvtui-bundle.json"


@verb(
    "import",
    click.Argument(["sources"], nargs=-1, required=True, metavar="SOURCE...", type=click.Path(path_type=Path)),
    option("--name", metavar="NAME", text="Another name than the old one."),
    option("--pool", metavar="NAME", default="default", text="The storage pool of its disks."),
    option(
        "--network",
        "networks",
        multiple=True,
        metavar="[OLD=]NEW",
        text="What its cards are connected to: a network's name, bridge:NAME, user or none; for a bundle, what takes "
        "OLD's place (may be repeated).",
    ),
    option("--start/--no-start", "start", default=False, text="Start it at once, or not (the default)."),
    option("--max-size", metavar="SIZE", text="The largest disk that is taken, as 8T (4T unless given)."),
    option("--restore/--copy", "restore", default=None, text="A bundle: keep its identity, or a copy (the default)."),
    option("--register", is_flag=True, text="A bundle: use its disks where they lie, on this machine."),
    option("--memory", metavar="SIZE", text="A disk: memory, as 2G."),
    option("--cpus", type=click.IntRange(min=1), metavar="N", text="A disk: virtual CPUs."),
    option("--firmware", type=click.Choice(["auto", "bios", "uefi", "uefi-secure"]), text="A disk: how it boots."),
    option("--bus", type=click.Choice(["auto", "virtio", "scsi", "sata", "ide"]), text="A disk: what it hangs on."),
    option("--os", "os_id", metavar="ID", text="A disk: libosinfo's id of its system."),
    option("--tpm", is_flag=True, text="A disk: a virtual TPM 2.0."),
    option("--raw", is_flag=True, text="A disk: it is raw, though nothing in it says so."),
    text="Import a VM: a bundle that 'vm export' made, or disks of another product (VHD, VHDX, VMDK, VDI, qcow2, raw), "
    "or an OVA; compressed ones too. --dry-run compares them with this host and says what would be otherwise.",
)
def import_(session: Session, sources: tuple[Path, ...], **given: Any) -> int:
    gone = next((path for path in sources if not path.expanduser().exists()), None)
    if gone is not None:
        raise NotFound("no such file or directory", about=str(gone))
    made = _bundle(sources, given) if _is_bundle(sources) else _disks(sources, given)
    name, make = made
    host = session.host()

    def plan() -> Plan:
        return make(host)

    return change(session, [(name, None, plan)])


def _is_bundle(sources: tuple[Path, ...]) -> bool:
    return len(sources) == 1 and (sources[0].is_dir() or sources[0].name == MANIFEST)


def _limit(given: dict[str, Any]) -> dict[str, int]:
    return {"limit_bytes": parse_size(given["max_size"])} if given["max_size"] else {}


def _refuse(given: dict[str, Any], names: tuple[str, ...], what: str) -> None:
    for name in names:
        if given[name]:
            shown = {"os_id": "os"}.get(name, name)
            raise UsageError(f"--{shown} is for {what}")


def _bundle(sources: tuple[Path, ...], given: dict[str, Any]) -> tuple[str, Callable[[Any], Plan]]:
    from vm.import_bundle import plan_import
    from vm.import_report import ImportRequest

    _refuse(given, ("memory", "cpus", "firmware", "bus", "os_id", "tpm", "raw"), "disks: a bundle tells it itself")
    request: ImportRequest = ImportRequest(
        directory=sources[0].parent if sources[0].name == MANIFEST else sources[0],
        name=given["name"] or "",
        restore=bool(given["restore"]),
        register=given["register"],
        pool=given["pool"],
        networks=dict(_mapping(text) for text in given["networks"]),
        start=given["start"],
        **_limit(given),
    )
    return request.name or request.directory.absolute().name, lambda host: plan_import(host, request)


def _mapping(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        shown = printable(text, limit=60)
        raise UsageError(f"{shown!r} does not say what takes whose place", remedy="Write --network OLD=NEW")
    return old, new


def _disks(sources: tuple[Path, ...], given: dict[str, Any]) -> tuple[str, Callable[[Any], Plan]]:
    from vm.create_request import Firmware
    from vm.import_disk import DiskImportRequest, plan_import_disk

    _refuse(given, ("restore", "register"), "bundles")
    if len(given["networks"]) > 1:
        raise UsageError("a disk's VM has one card", remedy="Give --network once")
    request: DiskImportRequest = DiskImportRequest(
        sources=sources,
        name=given["name"] or "",
        pool=given["pool"],
        network=given["networks"][0] if given["networks"] else "auto",
        memory_bytes=parse_size(given["memory"]) if given["memory"] else 0,
        vcpus=given["cpus"] or 0,
        firmware=Firmware(given["firmware"] or "auto"),
        bus="" if given["bus"] in {None, "auto"} else given["bus"],
        os_id=given["os_id"] or "",
        tpm=given["tpm"],
        is_raw=given["raw"],
        start=given["start"],
        **_limit(given),
    )
    return request.name or sources[0].name, lambda host: plan_import_disk(host, request)


@verb(
    "paravirtual",
    name_argument(),
    option("--now", is_flag=True, text="Switch at once: its guest is known to have virtio's drivers (a Linux, say)."),
    text="Switch an imported VM from emulated disks and cards to paravirtual ones (virtio). Its guest is first started "
    "with a small disk and a card more; when its agent sees them (--timeout, 1800 s), the others are switched.",
)
def paravirtual(session: Session, name: str, now: bool) -> int:
    from vm.paravirtual import WAIT_TIMEOUT_S, plan_paravirtual

    vm, host = one_vm(session, name, config=True), session.host()
    plan = plan_paravirtual(host, vm, now=now, timeout_s=session.timeout_s or WAIT_TIMEOUT_S)
    unchanged = () if plan.steps else (vm.uuid,)
    return change(session, [(vm.name, vm.uuid, lambda: plan)], own_waiting=session.wait, unchanged=unchanged)
