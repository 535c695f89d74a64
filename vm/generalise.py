"""Takes a guest's identity out of an image that is nobody's but a template's: machine-id, host keys, logs, leases.

virt-sysprep does it, where it is installed and the image is a file of this machine; it runs the image's file systems in
a small VM of its own, so that a hostile one reaches nothing here. Where it cannot be used there is no pretence: the
guest can do it itself before (GUEST_COMMANDS), or the template keeps the identity and says so. No VM's own disk is ever
given to it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from host.connection import Host
from host.errors import Cancelled, HvtuiError
from host.text import printable
from vm.recipe_process import WITH_US

TOOL = "virt-sysprep"
PACKAGE = "libguestfs-tools"
# What the guest can do itself, as root, as the last thing before it is shut down.
GUEST_COMMANDS = (
    "cloud-init clean --machine-id --logs --seed",
    "rm -f /etc/ssh/ssh_host_* /root/.bash_history /var/lib/dhcp/*.leases /etc/udev/rules.d/70-persistent-net.rules",
    "truncate -s 0 /etc/machine-id",
)
# What cloud-init has made and would take for its own on another machine; addresses bound to the MAC are in there.
_DELETED = (
    "/var/lib/cloud/*",
    "/var/log/cloud-init*.log",
    "/etc/netplan/50-cloud-init.yaml",
    "/etc/network/interfaces.d/50-cloud-init",
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/root/.bash_history",
    "/home/*/.bash_history",
)
MACHINE_ID = "/etc/machine-id"
_LIMIT_S = 3600.0
_POLL_S = 0.2
_LONGEST_OUTPUT_BYTES = 64 * 1024


def obstacle(host: Host, path: str) -> tuple[str, str]:
    """Why an image that will be at `path` of the host cannot be generalised from here, and the remedy; both are empty
    when it can."""
    if not host.is_local or host.is_simulated:
        return "the library is on another host, and its images cannot be generalised from here", "Run hvtui there"
    if shutil.which(TOOL) is None:
        return f"{TOOL} is not installed on this machine", f"Install it: apt-get install {PACKAGE}"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"you may not write to {printable(path, limit=120)}, which {TOOL} has to", "Run hvtui as root"
    return "", ""


def in_the_guest() -> str:
    """How the guest does it itself, in one sentence."""
    return f"in the guest, as root, before it is shut down: {' && '.join(GUEST_COMMANDS)}"


def sysprep_command(paths: Sequence[str]) -> list[str]:
    """The command that generalises the qcow2 images of one guest, its disks in order."""
    words = [TOOL, "--quiet", "--no-network"]
    for deleted in _DELETED:
        words += ["--delete", deleted]
    # It empties the machine-id, and then fills an empty one in before it does these: emptied last, it stays empty.
    words += ["--touch", MACHINE_ID, "--truncate", MACHINE_ID]
    for path in paths:
        words += ["--format", "qcow2", "--add", path]
    return words


def generalise(
    paths: Sequence[str], *, progress: Callable[[float | None, str], None], is_cancelled: Callable[[], bool]
) -> None:
    """Run virt-sysprep on the images of one guest; it ends with this process, and running it again is harmless. Raises
    Cancelled, and HvtuiError with what it said when it failed, for example because it finds no operating system."""
    with tempfile.TemporaryFile() as output:
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        try:
            process = subprocess.Popen(
                [*WITH_US, *sysprep_command(paths)], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=environment, start_new_session=True, cwd="/",
            )  # fmt: skip
        except OSError as error:
            raise HvtuiError(f"{TOOL} cannot be run: {error.strerror}", about=Path(paths[0]).name) from error
        try:
            _wait(process, progress, is_cancelled)
        finally:
            _end(process)
        if process.returncode:
            output.seek(max(output.seek(0, os.SEEK_END) - _LONGEST_OUTPUT_BYTES, 0))
            raise _failed(output.read().decode("utf-8", "replace"), paths)


def _wait(
    process: subprocess.Popen[bytes], progress: Callable[[float | None, str], None], is_cancelled: Callable[[], bool]
) -> None:
    until_s = time.monotonic() + _LIMIT_S
    while process.poll() is None:
        if is_cancelled():
            raise Cancelled("cancelled by the user")
        if time.monotonic() > until_s:
            raise HvtuiError(f"{TOOL} was not done within an hour", remedy="Is there no KVM? Generalise in the guest")
        progress(None, f"{TOOL} takes its identity away")
        time.sleep(_POLL_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    """It runs a VM of its own: all of its session goes."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failed(output: str, paths: Sequence[str]) -> HvtuiError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if "error" in line] or lines[-1:]
    remedy = f"Do it {in_the_guest()}; then give --generalised. Or keep it as it is: --keep-identity"
    return HvtuiError(printable(f"{TOOL}: {'; '.join(told[:3])}", limit=400), about=Path(paths[0]).name, remedy=remedy)
