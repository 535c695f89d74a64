"""Boots a test guest under KVM for some seconds, to see whether guests can run at all.

It is a kernel image of this system with an initial file system of one program: under 200 bytes that write a token to
the serial port and switch the machine off. Without a kernel, only QEMU's firmware is started, which shows that KVM
fails but not that it works for a kernel. QEMU gets no disk, no network and no display, and it always ends here: killed
when the answer is there or the time is up, and by timeout(1) should this process die first.
"""

from __future__ import annotations

import os
import selectors
import signal
import struct
import subprocess
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import IO

from host.errors import NotFound, Unsupported

TIME_LIMIT_S = 8.0
TOKEN = b"hvtui-guest-is-alive"
FIRMWARE_TOKEN = b"SeaBIOS"  # its first line on QEMU's debug port
_MEMORY_MIB = 128
_LOAD_ADDRESS = 0x400000
_ELF_HEADERS_BYTES = 64 + 56


class Outcome(StrEnum):
    """What the test guest did."""

    BOOTED = "booted"
    SILENT = "silent"  # it did not reach its first program in time
    ENDED = "ended"  # QEMU refused to start, or the kernel gave up


def try_boot(emulator: Path, kernel: Path, *, accelerator: str = "kvm", limit_s: float = TIME_LIMIT_S) -> Outcome:
    """Whether `kernel` reaches its first program within `limit_s` seconds.

    Raises NotFound when the emulator or timeout(1) is missing, and Unsupported when there is no room for the guest's
    files: neither says anything about KVM.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="hvtui-proof-") as directory:
            initrd = Path(directory) / "initrd"
            initrd.write_bytes(initial_file_system())
            guest = ["-serial", "stdio", "-kernel", str(kernel), "-initrd", str(initrd)]
            guest += ["-append", "console=ttyS0 quiet panic=-1"]
            return _watch(_command(emulator, accelerator, limit_s) + guest, TOKEN, limit_s)
    except FileNotFoundError as error:
        raise _missing(emulator, error) from error
    except OSError as error:
        raise Unsupported(f"cannot make a test guest: {error.strerror}", about=tempfile.gettempdir()) from error


def try_firmware(emulator: Path, *, accelerator: str = "kvm", limit_s: float = TIME_LIMIT_S) -> Outcome:
    """Whether QEMU's firmware says its first word within `limit_s` seconds. Raises NotFound as `try_boot`."""
    debug_port = ["-chardev", "stdio,id=debug", "-device", "isa-debugcon,iobase=0x402,chardev=debug"]
    try:
        return _watch(_command(emulator, accelerator, limit_s) + debug_port, FIRMWARE_TOKEN, limit_s)
    except FileNotFoundError as error:
        raise _missing(emulator, error) from error


def _missing(emulator: Path, error: FileNotFoundError) -> NotFound:
    return NotFound(f"cannot start a test guest: {error.strerror}", about=str(error.filename or emulator))


def _command(emulator: Path, accelerator: str, limit_s: float) -> list[str]:
    return [
        *("timeout", "--kill-after=1", f"{limit_s + 2:.0f}"),
        *(str(emulator), "-accel", accelerator, "-cpu", "max", "-m", str(_MEMORY_MIB), "-nodefaults"),
        *("-no-user-config", "-no-reboot", "-display", "none"),
    ]


def _watch(command: list[str], token: bytes, limit_s: float) -> Outcome:
    # A session of its own: killing its group ends timeout and QEMU together.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        if process.stdout is None:
            return Outcome.ENDED
        return _read_until(token, process.stdout, time.monotonic() + limit_s)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all of it has ended by itself
    finally:
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _read_until(token: bytes, stream: IO[bytes], deadline_s: float) -> Outcome:
    seen = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while selector.select(max(deadline_s - time.monotonic(), 0)):
            chunk = os.read(stream.fileno(), 4096)
            seen = seen[-len(token) :] + chunk
            if token in seen:
                return Outcome.BOOTED
            if not chunk:
                return Outcome.ENDED
            if time.monotonic() > deadline_s:
                break  # it talks, but does not get there
    return Outcome.SILENT


def initial_file_system() -> bytes:
    """A cpio archive (newc) with /dev/console and /init: what a kernel needs to show that it runs programs."""
    console_device = (5, 1)
    archive = _cpio_entry("dev", 0o040755)
    archive += _cpio_entry("dev/console", 0o020600, device=console_device)
    archive += _cpio_entry("init", 0o100755, data=init_program())
    return archive + _cpio_entry("TRAILER!!!", 0)


def _cpio_entry(name: str, mode: int, *, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    name_bytes = name.encode("ascii") + b"\0"
    # inode, mode, uid, gid, links, time, size, device (major, minor), its own device (major, minor), name size, check
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name_bytes), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name_bytes
    return _padded(header) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def init_program() -> bytes:
    """A static x86_64 ELF program: write(1, TOKEN), then reboot(POWER_OFF), for ever."""
    message = TOKEN + b"\n"
    write = _set_registers(rax=1, rdi=1, rsi=0, rdx=len(message))
    power_off = _set_registers(rax=169, rdi=0xFEE1DEAD, rsi=672274793, rdx=0x4321FEDC)
    code_bytes = 2 * (len(write) + 2) + 2
    message_address = _LOAD_ADDRESS + _ELF_HEADERS_BYTES + code_bytes
    write = _set_registers(rax=1, rdi=1, rsi=message_address, rdx=len(message))
    syscall, jump_to_itself = b"\x0f\x05", b"\xeb\xfe"
    body = write + syscall + power_off + syscall + jump_to_itself + message
    return _elf_headers(_ELF_HEADERS_BYTES + len(body)) + body


def _set_registers(*, rax: int, rdi: int, rsi: int, rdx: int) -> bytes:
    """`mov r32, imm32` for each of a system call's registers; it clears the upper half."""
    return b"".join(
        opcode + struct.pack("<I", value)
        for opcode, value in ((b"\xb8", rax), (b"\xbf", rdi), (b"\xbe", rsi), (b"\xba", rdx))
    )


def _elf_headers(file_bytes: int) -> bytes:
    entry = _LOAD_ADDRESS + _ELF_HEADERS_BYTES
    identity = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    # executable, x86_64, version, entry, program headers at 64, no sections, flags, sizes and counts of headers
    header = identity + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    readable_executable = 5
    segment = (1, readable_executable, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, file_bytes, file_bytes, 0x1000)
    return header + struct.pack("<IIQQQQQQ", *segment)
