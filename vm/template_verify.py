"""Looks whether a template's images are what they were: every byte is read again and its SHA-256 compared. Reads only.

The bytes come through libvirt, so it works on any host. Where the files are on this machine, qemu-img looks at their
structure too: what was damaged before the template was added has a right SHA-256 for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from host import volumes
from host.connection import Host
from host.errors import HvtuiError, NotFound
from host.text import printable
from vm.template_model import Library, Template, TemplateImage

Progress: TypeAlias = Callable[[float | None, str], None]


class Finding(StrEnum):
    """What was found of an image."""

    GOOD = "good"
    MISSING = "missing"
    CHANGED = "changed"  # its bytes are others than those that were stored
    DAMAGED = "damaged"  # qemu-img says that its structure is wrong
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class ImageVerdict:
    """What was found of one image; `detail` says more in words. `is_checked`: qemu-img looked at it, too."""

    volume: str
    finding: Finding
    detail: str = ""
    is_checked: bool = False


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found of a template."""

    template: str
    images: tuple[ImageVerdict, ...]

    @property
    def is_good(self) -> bool:
        return all(image.finding is Finding.GOOD for image in self.images)


def verify(
    host: Host,
    library: Library,
    template: Template,
    progress: Progress = lambda _fraction, _note: None,
    *,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Verification:
    """Read the template's images again and compare them. Raises ConnectionLost, Cancelled; what is wrong with an image
    is in the verdict."""
    total_bytes = sum(image.size_bytes for image in template.images) or 1
    done_bytes = 0
    verdicts = []
    for image in template.images:

        def report(fraction: float | None, _note: str, before: int = done_bytes, size: int = image.size_bytes) -> None:
            progress(min((before + (fraction or 0.0) * size) / total_bytes, 1.0), f"reading {template.name}")

        verdicts.append(_verdict(host, library, image, report, is_cancelled))
        done_bytes += image.size_bytes
    return Verification(template.name, tuple(verdicts))


def _verdict(
    host: Host, library: Library, image: TemplateImage, progress: Progress, is_cancelled: Callable[[], bool]
) -> ImageVerdict:
    from host.errors import Cancelled, ConnectionLost

    try:
        stored = volumes.download(
            host,
            library.pool,
            image.volume,
            lambda _data: None,
            size_bytes=image.size_bytes,
            progress=progress,
            is_cancelled=is_cancelled,
        )
    except (ConnectionLost, Cancelled):
        raise
    except NotFound:
        return ImageVerdict(image.volume, Finding.MISSING, "it is not in the pool")
    except HvtuiError as error:
        return ImageVerdict(image.volume, Finding.UNREADABLE, error.cause)
    if stored.size_bytes != image.size_bytes:
        detail = f"it has {stored.size_bytes} bytes, and {image.size_bytes} were stored"
        return ImageVerdict(image.volume, Finding.CHANGED, detail)
    if stored.sha256 != image.sha256:
        return ImageVerdict(image.volume, Finding.CHANGED, f"its SHA-256 is {stored.sha256}")
    return _checked(host, library, image)


def _checked(host: Host, library: Library, image: TemplateImage) -> ImageVerdict:
    path = Path(library.path) / image.volume
    if image.format != "qcow2" or not host.is_local or host.is_simulated or not _is_readable(path):
        return ImageVerdict(image.volume, Finding.GOOD)
    from host.image_convert import check_source
    from host.image_kinds import ImageKind

    try:
        check_source(path, ImageKind.QCOW2, limit_bytes=2**63 - 1)
    except HvtuiError as error:
        return ImageVerdict(image.volume, Finding.DAMAGED, printable(error.cause), is_checked=True)
    return ImageVerdict(image.volume, Finding.GOOD, is_checked=True)


def _is_readable(path: Path) -> bool:
    import os

    return os.access(path, os.R_OK)
