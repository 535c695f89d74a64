"""A guest's memory in a file, on its way from one host to another: where it is, whether it is whole, what it says.

The file lies in a directory that both hosts see, or in one of each host. Its name carries the mark of the plan. This
module starts no guest.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from host import volumes
from host.paths import state_directory
from host.steps import Args, StepContext
from vm import host_files
from vm.create_steps import or_none
from vm.move_sides import operation_of

_NO_VOLUME = frozenset({libvirt.VIR_ERR_NO_STORAGE_VOL})
_SAVING = libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE
_SECURE = libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE


def is_saving(domain: Any) -> bool:
    """Whether libvirt is writing the guest's memory to a file: a call that a killed process made goes on."""
    return bool(operation_of(domain) == _SAVING)


def whole_image(connection: Any, path: str) -> str:
    """The XML of the saved guest, with its secrets; empty when there is no file, or one that was not finished (libvirt
    gives it the mark "partial" until its end). Raises libvirtError when the connection is lost."""
    try:
        return str(connection.saveImageGetXMLDesc(path, _SECURE))
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return ""


def remove_file(ctx: StepContext, path: str, *, mark: str) -> None:
    """Remove a file of this job's own from the host of `ctx`. Raises HvtuiError."""
    directory, name = host_files.split(path)
    with host_files.directory_pool(ctx, directory, mark=mark) as pool:
        if pool is None:
            return
        with ctx.calls("remove", name) as connection:
            volume = or_none(connection.storagePoolLookupByName(pool).storageVolLookupByName, name, missing=_NO_VOLUME)
            if volume is not None:
                volumes.delete(volume)


# When the guest stopped: kept in a file, since whoever completes a move may be another process than the one that began


@dataclass(frozen=True, slots=True)
class Stop:
    """Seconds of this machine's own clock, which counts while it sleeps, and the boot that it counts from."""

    at_s: float
    boot: str
    was_running: bool


def note_stop(args: Args, *, is_running: bool) -> None:
    """Remember that the guest stops now, and whether it runs until then (it may be paused)."""
    _note(_path(args), f"{now_s()!r} {_boot()} {is_running:d}")


def note_life(args: Args) -> None:
    """Remember that the guest goes on at the target now. From here on its disks leave its saved memory behind, which
    would destroy them if it were restored again."""
    _note(_life_path(args), _boot())


def has_lived(args: Args) -> bool:
    """Whether the guest has gone on at the target, wherever it is by now."""
    return _life_path(args).exists()


def was_running(args: Args) -> bool:
    """Whether the guest ran when it was saved. False when nobody noted that on this machine."""
    stop = _read_stop(args)
    return stop is not None and stop.was_running


def _note(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(f"{path.suffix}.new")
    temporary.write_text(text, encoding="ascii")
    temporary.replace(path)


def stood_still_s(args: Args) -> float | None:
    """Seconds since the guest was stopped; None when nobody noted that on this machine since its start."""
    stop = _read_stop(args)
    if stop is None or stop.boot != _boot():
        return None
    return now_s() - stop.at_s


def forget_stop(args: Args) -> None:
    """The move is over."""
    _path(args).unlink(missing_ok=True)
    _life_path(args).unlink(missing_ok=True)


def now_s() -> float:
    """This machine's clock, which no change of the time of day moves."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _read_stop(args: Args) -> Stop | None:
    try:
        at, boot, is_running = _path(args).read_text(encoding="ascii").split(" ")
        return Stop(float(at), boot, is_running == "1")
    except (OSError, ValueError):
        return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _path(args: Args) -> Path:
    return state_directory() / "moves" / os.path.basename(f"{args['mark']}.stop")  # noqa: PTH119 - a name, no path


def _life_path(args: Args) -> Path:
    return _path(args).with_suffix(".life")
