"""Chooses how guests run on a host: with KVM, emulated by QEMU, or simulated; and says why.

Asked in this order: $HVTUI_ACCEL, the configuration's value, and else (auto) the host itself. Capabilities are not
enough: a host may announce KVM although a stock guest kernel hangs under it (nested virtualization, broken firmware),
so on the local host one start proves it, once a boot of the machine: host.kvm_proof boots a real kernel for some
seconds, and the answer is kept in the cache directory. This module changes no VM and no host.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt

from host.errors import HvtuiError, UsageError
from host.paths import cache_directory

if TYPE_CHECKING:
    from host.connection import Host
    from host.kvm_proof import Outcome

VARIABLE = "HVTUI_ACCEL"
KVM_DEVICE = Path("/dev/kvm")
CPU_INFO = Path("/proc/cpuinfo")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
KERNEL_DIRECTORY = Path("/boot")
EMULATORS = (Path("/usr/bin/qemu-system-x86_64"), Path("/usr/libexec/qemu-kvm"))

_proving = threading.Lock()


class AcceleratorKind(StrEnum):
    """How the CPUs of guests run; the values are libvirt's domain types."""

    KVM = "kvm"
    QEMU = "qemu"  # emulated (TCG)
    TEST = "test"  # libvirt's test driver: nothing runs


@dataclass(frozen=True, slots=True)
class Accelerator:
    """The choice, why, and what to do about it. `is_proved` is True only when a guest was really seen to boot, or
    not to; a choice made by a person or by capabilities alone is not proved."""

    kind: AcceleratorKind
    reason: str
    remedy: str = ""
    is_proved: bool = False

    @property
    def is_emulated(self) -> bool:
        """True when guests run 10 to 50 times slower than with KVM."""
        return self.kind is AcceleratorKind.QEMU


def choose(
    host: Host,
    *,
    configured: str = "auto",
    prove: bool = True,
    kernels: tuple[Path, ...] = (),
    announces_kvm: bool | None = None,
) -> Accelerator:
    """The accelerator for guests on `host`.

    `configured` is the configuration's value (auto, kvm, qemu). With `prove`, a local host that announces KVM boots
    a test guest unless an answer is cached (up to 8 s, once a boot of the machine); without, the cached or the cheap
    answer is given at once. `kernels` are bootable kernel images to prefer for it; else this system's own are tried,
    and where there is none, firmware alone can show that KVM fails.
    `announces_kvm` saves a call where the capabilities are known already. Raises UsageError for an unknown value,
    ConnectionLost, Denied.
    """
    if host.is_simulated:
        return Accelerator(AcceleratorKind.TEST, "libvirt's test driver simulates guests")
    wanted, source = _wanted(configured)
    if wanted != "auto":
        return Accelerator(AcceleratorKind(wanted), f"chosen by {source}")
    local = _local_answer(host) if host.is_local else None
    if local is not None:
        return local
    announced = _announcement(host) if announces_kvm is None else announces_kvm
    if not announced:
        return _NOT_ANNOUNCED
    return _prove(kernels) if host.is_local and prove else _ANNOUNCED


def _wanted(configured: str) -> tuple[str, str]:
    allowed = ("auto", "kvm", "qemu")
    chosen = os.environ.get(VARIABLE, "")
    for value, source in ((chosen, VARIABLE), (configured, "the configuration")):
        if value not in {*allowed, ""}:
            raise UsageError(f"{source} is {value!r}", about="accelerator", remedy="Use auto, kvm or qemu")
        if value not in {"auto", ""}:
            # A front end hands its configuration on in the variable, so that every part and process hears of it.
            return value, f"{VARIABLE} or the configuration" if source == VARIABLE else source
        if value == "auto":
            break  # set on purpose: it overrides the configuration
    return "auto", ""


_ANNOUNCED = Accelerator(AcceleratorKind.KVM, "the host announces KVM")
_NOT_ANNOUNCED = Accelerator(
    AcceleratorKind.QEMU,
    "the host does not announce KVM",
    remedy="Enable virtualization in the host's firmware and load its KVM module",
)


def _announcement(host: Host) -> bool:
    """Whether the host's default kind of guest is KVM."""
    with host.calls("read the host's capabilities", host.name) as connection:
        try:
            xml = connection.getDomainCapabilities(None, None, None, None, 0)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise
            return False
    return ET.fromstring(xml).findtext("domain") == "kvm"  # noqa: S314  libvirt wrote it


def _local_answer(host: Host) -> Accelerator | None:
    """What this machine tells without a call: an obstacle, or the proof made before; None when it tells nothing."""
    obstacle = _local_obstacle(is_session=host.uri.endswith("/session"))
    if obstacle is not None:
        return obstacle
    known = _cached()
    return _verdict(known) if known is not None else None


def _local_obstacle(*, is_session: bool) -> Accelerator | None:
    if not KVM_DEVICE.exists():
        return _without_device()
    if is_session and not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return Accelerator(
            AcceleratorKind.QEMU,
            f"this user may not open {KVM_DEVICE}",
            remedy="Join the group kvm (usermod -aG kvm USER) and log in again",
        )
    return None


def _without_device() -> Accelerator:
    flags = _cpu_flags()
    if flags and not flags & {"vmx", "svm"}:
        return Accelerator(
            AcceleratorKind.QEMU,
            "the CPU offers no virtualization (no vmx or svm flag)",
            remedy="Enable it in the firmware; in a virtual machine, enable nested virtualization on its host",
        )
    module = {"vmx": "kvm_intel", "svm": "kvm_amd"}.get("".join(flags & {"vmx", "svm"}), "kvm")
    return Accelerator(
        AcceleratorKind.QEMU,
        f"{KVM_DEVICE} does not exist",
        remedy=f"Load the kernel module: modprobe {module}",
    )


def _cpu_flags() -> set[str]:
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def _prove(kernels: tuple[Path, ...]) -> Accelerator:
    from host import kvm_proof

    with _proving:
        known = _cached()  # another thread may have made the proof while this one waited
        if known is not None:
            return _verdict(known)
        emulator = _emulator()
        if emulator is None or not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
            return _ANNOUNCED
        kernel = next((path for path in (*kernels, *own_kernels()) if os.access(path, os.R_OK)), None)
        try:
            outcome = kvm_proof.try_boot(emulator, kernel) if kernel else kvm_proof.try_firmware(emulator)
        except HvtuiError:
            return _ANNOUNCED  # the proof itself could not be made, which says nothing about KVM
        if kernel is None and outcome is kvm_proof.Outcome.BOOTED:
            return _ANNOUNCED  # firmware that runs is no proof for a kernel: tried again when there is one
        _remember(outcome)
    return _verdict(outcome)


def _verdict(outcome: Outcome) -> Accelerator:
    from host.kvm_proof import TIME_LIMIT_S, Outcome

    if outcome is Outcome.BOOTED:
        return Accelerator(AcceleratorKind.KVM, "a test guest booted with KVM", is_proved=True)
    failure = f"did not boot within {TIME_LIMIT_S:.0f} s" if outcome is Outcome.SILENT else "could not start"
    return Accelerator(
        AcceleratorKind.QEMU,
        f"KVM is announced, but a test guest {failure}",
        remedy=f'Set accelerator = "kvm" to use KVM all the same; remove {_cache_file()} to test again',
        is_proved=True,
    )


def _emulator() -> Path | None:
    """The QEMU that can run the test guest, which is made for x86_64 only."""
    return next((path for path in EMULATORS if path.exists()), None) if platform.machine() == "x86_64" else None


def own_kernels() -> list[Path]:
    """Kernel images of this system that may be there, newest first: the distribution's, then those in hvtui's cache."""
    found = [*KERNEL_DIRECTORY.glob("vmlinuz-*"), *cache_directory().glob("tiny/[!.]*/vmlinuz")]
    return sorted(found, key=_modified_s, reverse=True)


def _modified_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _cache_file() -> Path:
    return cache_directory() / "kvm-proof.json"


def _proof_key() -> str:
    """What the answer depends on. The emulator's size and time stand for its version, without starting it."""
    emulator = _emulator()
    if emulator is None:
        return ""
    try:
        boot_id = BOOT_ID.read_text(encoding="ascii").strip()
        status = emulator.stat()
    except OSError:
        return ""
    return f"{platform.release()} {boot_id} {emulator} {status.st_size} {status.st_mtime_ns}"


def _cached() -> Outcome | None:
    from host.kvm_proof import Outcome

    try:
        kept = json.loads(_cache_file().read_text(encoding="utf-8"))
        return Outcome(kept["outcome"]) if kept["key"] == _proof_key() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no answer yet, or a file that is not ours


def _remember(outcome: Outcome) -> None:
    file = _cache_file()
    partial = file.with_suffix(f".{os.getpid()}")
    try:
        partial.write_text(json.dumps({"key": _proof_key(), "outcome": outcome}), encoding="utf-8")
        partial.replace(file)
    except OSError:
        partial.unlink(missing_ok=True)  # a full or read-only cache only costs a second proof
