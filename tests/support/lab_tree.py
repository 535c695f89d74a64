"""The file system that every lab host starts from: a Debian with libvirt, QEMU and ssh, made by mmdebstrap.

It is built once in the cache, under a lock, and appears there by one rename, so that a build that was killed leaves
nothing that looks finished. A host never writes into it: it is the lower layer of the host's overlay.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vm import recipe_debian_sources

PACKAGES = (
    *("systemd-sysv", "systemd-resolved", "dbus", "udev", "procps", "ca-certificates", "python3"),
    *("iproute2", "iputils-ping", "nftables", "iptables", "dnsmasq-base", "openssh-server", "openssh-client", "chrony"),
    *("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils", "ovmf", "swtpm", "swtpm-tools"),
)
# Without certificates libvirtd refuses to start its network sockets. What else is masked would only use the CPU.
MASKED = (
    *("libvirtd-tls.socket", "libvirtd-tcp.socket", "console-getty.service", "systemd-networkd-wait-online.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "e2scrub_all.timer"),
)
ENABLED = ("systemd-networkd.service", "systemd-resolved.service", "ssh.service", "libvirtd.service")

QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
security_default_confined = 0
cgroup_controllers = [ ]
namespaces = [ ]
max_core = 0
"""
_SETTINGS = f"""\
set -e
systemctl --root="$1" enable {" ".join(ENABLED)}
systemctl --root="$1" mask {" ".join(MASKED)}
systemctl --root="$1" set-default multi-user.target
rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/machine-id "$1"/var/lib/dbus/machine-id
rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin
cat > "$1"/etc/libvirt/qemu.conf <<'END'
{QEMU_CONF}END
"""
WORK_PREFIX = ".work-"
_UNUSED_S = 7 * 24 * 3600.0
_BUILD_TIMEOUT_S = 1800.0


def why_not() -> str:
    """Why the tree cannot be built here; empty when it can, or when it is there already."""
    if find() is not None:
        return ""
    found = recipe_debian_sources.release()
    if found.distribution != "debian" or not found.codename:
        return f"lab hosts are made from Debian's packages, and this is {found.title}"
    return "" if shutil.which("mmdebstrap") else "not installed: mmdebstrap"


def identity() -> str:
    """The key of the tree that `build` would make now."""
    text = repr((sorted(PACKAGES), _SETTINGS))
    return f"{recipe_debian_sources.release().codename}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def find() -> Path | None:
    """The built tree, or None."""
    tree = directory() / identity()
    return tree if tree.is_dir() else None


def build(say: Callable[[str], None] = lambda _words: None) -> Path:
    """The tree, built now if it is not there yet (two to three minutes). Raises RuntimeError, NotFound."""
    with locked():
        found = find()
        if found is not None:
            (found.parent / f"{found.name}.used").touch()
            return found
        _remove_old()
        say("building the lab hosts' file system: two to three minutes, once")
        work = directory() / f"{WORK_PREFIX}{os.getpid()}"
        work.mkdir()
        try:
            _install(work)
            (directory() / f"{identity()}.used").touch()
            (work / "tree").rename(directory() / identity())
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return directory() / identity()


def _install(work: Path) -> None:
    found = recipe_debian_sources.release()
    (work / "sources.list").write_text(recipe_debian_sources.sources(found), encoding="utf-8")
    (work / "settings").write_text(_SETTINGS, encoding="utf-8")
    with (work / "log").open("wb") as log:
        # What it mounts and starts ends with it, and it ends with this process.
        done = subprocess.run(
            [
                *("setpriv", "--pdeathsig", "KILL", "--"),
                *("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"),
                *("mmdebstrap", "--mode=root", "--variant=minbase", "--architectures=amd64"),
                f"--include={','.join(PACKAGES)}",
                '--aptopt=Acquire::Languages "none"',
                "--dpkgopt=path-exclude=/usr/share/doc/*",
                "--dpkgopt=path-exclude=/usr/share/man/*",
                "--dpkgopt=path-exclude=/usr/share/locale/*",
                f'--customize-hook=sh {work}/settings "$1"',
                *("--", found.codename, str(work / "tree"), str(work / "sources.list")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=work,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    if done.returncode:
        words = (work / "log").read_text(errors="replace").splitlines()[-15:]
        raise RuntimeError("mmdebstrap failed:\n" + "\n".join(words))


def directory() -> Path:
    """Beside the other things that are built once; a test's own HVTUI_CACHE_DIR does not count."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hvtui"
    path = cache / "lab"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One builder at a time of what is kept there; the kernel frees the lock of a process that dies."""
    with (directory() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_old() -> None:
    """Remove what killed builds left, and trees of other recipes that nobody has started a host from for a week."""
    for path in directory().glob(f"{WORK_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)
    for stamp in directory().glob("*.used"):
        if time.time() - stamp.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(stamp.with_suffix(""), ignore_errors=True)
            stamp.unlink()
