"""Two hosts of a test: contexts for single steps of a move, drafts, and looks at both sides."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import libvirt

from host.connection import Host
from host.plan import Plan, Step
from host.steps import StepContext
from vm.domain_xml import read_config
from vm.move_copies import copies_for
from vm.move_model import Link, MoveDisk, MoveDraft, MoveKind, MovePicture, MoveRequest

MARK = "0a1b2c3d"


def context(source: Host, target: Host, notes: list[str] | None = None, *, cancelled: Callable[[], bool] | None = None,
            ) -> StepContext:  # fmt: skip
    """A context for one verb of a move from `source` to `target`, outside of any job."""
    seen = notes if notes is not None else []

    def peer(uri: str) -> Host:
        return {source.uri: source, target.uri: target}[uri]

    return StepContext(source, 1, lambda _fraction, note: seen.append(note), cancelled or (lambda: False), peer=peer)


def draft(source: Host, target: Host, name: str, kind: MoveKind, *disks: MoveDisk, **about: Any) -> MoveDraft:
    """What a plan of `kind` is made from, with the disks as the test says they are."""
    request = about.pop("request", MoveRequest(kind))
    with source.calls("look") as connection:
        domain = connection.lookupByName(name)
        picture = MovePicture(
            vm_uuid=domain.UUIDString(),
            vm_name=name,
            source_uri=source.uri,
            target_uri=target.uri,
            source_name=source.name,
            target_name=target.name,
            is_running=bool(domain.isActive()),
            memory_bytes=int(domain.info()[1]) * 1024,
            dirty_bytes_s=None,
            disks=disks,
            checks=(),
            link=Link(1e8, "assumed"),
            autostart=bool(domain.autostart()),
            inactive_xml=domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE),
            **about,
        )
    return MoveDraft(kind, picture, request, MARK, copies=copies_for(picture, kind, MARK))


def plan(made: MoveDraft, steps: tuple[Step, ...]) -> Plan:
    """A plan of these steps alone."""
    picture = made.picture
    return Plan(
        title=f"Move {picture.vm_name}",
        host_uri=picture.source_uri,
        steps=steps,
        command=("vm", "migrate", picture.vm_name),
        vm_uuid=picture.vm_uuid,
        vm_name=picture.vm_name,
        long=True,
        also_on=(picture.target_uri,),
    )


def disks_of(host: Host, name: str, *, live: bool = False) -> Mapping[str, str]:
    """What each disk of a VM reads, by target."""
    with host.calls("look") as connection:
        flags = 0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE
        return {disk.target: disk.source for disk in read_config(connection.lookupByName(name).XMLDesc(flags)).disks}


def sha256(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def qemu_img(*words: object) -> str:
    """What qemu-img said. Raises CalledProcessError."""
    return subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True, text=True).stdout


def write_pattern(path: Path, image_format: str, pattern: int, offset: str = "1M") -> None:
    """A megabyte of one byte at an offset of an image that no VM uses."""
    command = ["qemu-io", "-f", image_format, "-c", f"write -P {pattern} {offset} 1M", str(path)]
    subprocess.run(command, check=True, capture_output=True)


def holds(path: str | Path, image_format: str, pattern: int, offset: str = "1M") -> bool:
    """Whether the image, with all that it builds on, has a megabyte of that byte there."""
    command = ["qemu-io", "-r", "-f", image_format, "-c", f"read -P {pattern} {offset} 1M", str(path)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    return done.returncode == 0 and "failed" not in done.stdout + done.stderr


def files(host_images: Path) -> set[str]:
    """What lies in a pool's directory."""
    return {path.name for path in host_images.iterdir()}


def arguments(made: MoveDraft, **more: Any) -> dict[str, Any]:
    """The arguments of a step of this move."""
    return {**made.identity, **more}
