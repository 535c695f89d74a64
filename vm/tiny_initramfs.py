"""The contents of the tiny guest's initial RAM disk: which modules, which files, and the archive itself.

Pure functions over bytes: the same inputs give the same archive, bit for bit. Finding the inputs is the work of
vm.tiny_sources, keeping the result that of vm.tiny.
"""

from __future__ import annotations

import gzip
import lzma
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from host.errors import NotFound

READY_MARKER = "tiny: ready"
AGENT_PORT = "org.qemu.guest_agent.0"

NEEDED_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console")
# button and evdev let acpid see the power button; the pvpanic pair tells the host of a crash.
WANTED_MODULES = ("virtio_balloon", "virtio_rng", "virtio_scsi", "sd_mod", "button", "evdev", "pvpanic_mmio")

_DIRECTORIES = (
    *("bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "lib", "lib/modules", "proc", "root", "run", "sbin", "sys"),
    *("tmp", "usr", "usr/bin", "usr/lib", "usr/sbin", "var"),
)

_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s
export PATH=/sbin:/usr/sbin:/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/virtio-ports
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
ln -s /run /var/run
while read -r module; do insmod "$module"; done < /etc/modules-in-order
for port in /sys/class/virtio-ports/*; do
    [ -s "$port/name" ] && ln -s "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done
name=$(sed -n 's/.*tiny\\.hostname=\\([A-Za-z0-9-]*\\).*/\\1/p' /proc/cmdline)
hostname "${name:-tiny}"
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
    ip link set eth0 up
    udhcpc -b -i eth0 -s /etc/udhcpc -x "hostname:$(hostname)" >/dev/null 2>&1 &
fi
[ -e /dev/input/event0 ] && acpid -c /etc/acpi -l /run/acpid.log -p /run/acpid.pid 2>/dev/null
{
    echo '::respawn:/etc/agent'
    echo 'ttyS0::respawn:-/bin/sh'
    [ -e /sys/class/tty/tty1 ] && echo 'tty1::respawn:-/bin/sh'
    echo '::ctrlaltdel:/sbin/reboot'
} > /etc/inittab
cat /etc/issue
exec /sbin/init
"""

_ISSUE = f"""
  A tiny Linux made by hvtui from this system's own kernel and busybox.
  Everything lives in memory: nothing is kept when it stops. 'poweroff' stops it.

{READY_MARKER}
"""

# With the agent missing, init must not start this ten times a second.
_AGENT = f"""\
#!/bin/sh
port=/dev/virtio-ports/{AGENT_PORT}
[ -x /usr/sbin/qemu-ga ] && [ -e "$port" ] || exec sleep 10
exec /usr/sbin/qemu-ga -m virtio-serial -p "$port" -t /run >/run/qemu-ga.log 2>&1
"""

# What the guest agent runs for a shutdown: "shutdown -h -P|-H|-r +0 MESSAGE".
_SHUTDOWN = """\
#!/bin/sh
for word in "$@"; do
    case "$word" in
        -r) exec reboot ;;
        -H) exec halt ;;
    esac
done
exec poweroff
"""

_UDHCPC = """\
#!/bin/sh
case "$1" in
    deconfig) ip address flush dev "$interface" ;;
    bound|renew)
        ip address replace "$ip/${mask:-24}" dev "$interface"
        for gateway in $router; do ip route replace default via "$gateway" dev "$interface"; break; done
        : > /etc/resolv.conf
        for server in $dns; do echo "nameserver $server" >> /etc/resolv.conf; done ;;
esac
"""

_SCRIPTS = {
    "init": _INIT,
    "etc/agent": _AGENT,
    "etc/udhcpc": _UDHCPC,
    "etc/acpi/PWRF/00000080": "#!/bin/sh\nexec poweroff\n",
    "sbin/shutdown": _SHUTDOWN,
}
_TEXTS = {
    "etc/issue": _ISSUE,
    "etc/os-release": 'NAME="hvtui tiny"\nID=tiny\nPRETTY_NAME="tiny (a guest built by hvtui)"\n',
    "etc/passwd": "root::0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/profile": "export PATH=/sbin:/usr/sbin:/bin:/usr/bin HOME=/root PS1='\\h:\\w\\$ '\ncd\n",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive: `path` without a leading slash, the full mode with its type, the contents."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def recipe() -> str:
    """Everything in this module that decides what the guest is; its hash names what was built by it."""
    return repr((_SCRIPTS, _TEXTS, _DIRECTORIES, NEEDED_MODULES, WANTED_MODULES))


def module_files(modules: Path) -> dict[str, Path]:
    """Module name (with underscores) to file, below /lib/modules/RELEASE."""
    found = sorted((modules / "kernel").rglob("*.ko*"))
    return {path.name.split(".ko")[0].replace("-", "_"): path for path in found}


def builtin_modules(modules: Path) -> frozenset[str]:
    """The names of the modules that are part of the kernel image itself. Raises OSError."""
    lines = (modules / "modules.builtin").read_text(encoding="utf-8").split()
    return frozenset(Path(line).name.removesuffix(".ko").replace("-", "_") for line in lines)


def read_module(path: Path) -> bytes:
    """A kernel module, decompressed. Raises NotFound for a compression that Python cannot read, OSError."""
    data = path.read_bytes()
    if path.name.endswith(".ko"):
        return data
    if path.name.endswith(".xz"):
        return lzma.decompress(data)
    if path.name.endswith(".gz"):
        return gzip.decompress(data)
    raise NotFound(f"cannot read the compressed kernel module {path}")


def modules_in_order(modules: Path, read: Callable[[Path], bytes] = read_module) -> list[tuple[str, bytes]]:
    """Each needed or wanted module with what it depends on before it. Raises NotFound when a needed one is missing.

    The dependencies come from the modules' own .modinfo: a package that was only unpacked has no modules.dep.
    """
    files, builtin = module_files(modules), builtin_modules(modules)
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in builtin or name in ordered:
            return
        if name not in files:
            raise NotFound(f"the kernel has no module {name}", about=str(modules))
        data = read(files[name])
        for dependency in _dependencies(data):
            add(dependency)
        ordered[name] = data

    for name in NEEDED_MODULES:
        add(name)
    for name in WANTED_MODULES:
        if name in files:
            add(name)
    return list(ordered.items())


def _dependencies(module: bytes) -> list[str]:
    match = re.search(rb"\0depends=([\w,-]*)\0", module)
    names = match[1].decode("ascii").split(",") if match else []
    return [name.replace("-", "_") for name in names if name]


def tree(
    *, busybox: bytes, modules: Iterable[tuple[str, bytes]], agent: bytes | None, libraries: Mapping[str, bytes]
) -> list[Entry]:
    """Every file of the guest. `libraries` maps absolute paths, as the agent's loader wants them, to contents."""
    entries = [Entry(path, stat.S_IFDIR | 0o755) for path in _DIRECTORIES]
    entries.append(Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    entries += [_program(path, text.encode()) for path, text in _SCRIPTS.items()]
    entries += [Entry(path, stat.S_IFREG | 0o644, text.encode()) for path, text in _TEXTS.items()]
    entries.append(_program("bin/busybox", busybox))
    entries.append(Entry("bin/sh", stat.S_IFLNK | 0o777, b"busybox"))
    order = []
    for name, data in modules:
        entries.append(Entry(f"lib/modules/{name}.ko", stat.S_IFREG | 0o644, data))
        order.append(f"/lib/modules/{name}.ko\n")
    entries.append(Entry("etc/modules-in-order", stat.S_IFREG | 0o644, "".join(order).encode()))
    if agent is not None:
        entries.append(_program("usr/sbin/qemu-ga", agent))
        entries += [_program(path.lstrip("/"), data) for path, data in sorted(libraries.items())]
    return _with_parents(entries)


def _program(path: str, data: bytes) -> Entry:
    return Entry(path, stat.S_IFREG | 0o755, data)


def _with_parents(entries: list[Entry]) -> list[Entry]:
    known = {entry.path for entry in entries}
    result: list[Entry] = []
    for entry in entries:
        for parent in reversed(Path(entry.path).parents[:-1]):
            if str(parent) not in known:
                known.add(str(parent))
                result.append(Entry(str(parent), stat.S_IFDIR | 0o755))
        result.append(entry)
    return result


def archive(entries: Iterable[Entry]) -> bytes:
    """The gzip-compressed newc archive (Documentation/driver-api/early-userspace/buffer-format.rst in Linux)."""
    parts = [_record(number, entry) for number, entry in enumerate(entries, start=1)]
    parts.append(_record(0, Entry("TRAILER!!!", 0)))
    return gzip.compress(b"".join(parts), compresslevel=6, mtime=0)


def _record(number: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
