"""What the debian recipe puts into its guests, and what it leaves out: the files, and nothing that writes them.

The guests are made to be ready soon, also on an emulated processor, where a boot is bound by how much code runs:

- cloud-init is loaded once for its four stages and not four times (`_STAGES`): loading it is half of its work.
- The partition is grown by two commands and not by a script of a thousand lines.
- The initial RAM disk holds the virtio drivers alone; units that do nothing for a VM are masked.
- No RSA host key is made: it takes longer than everything else that the first boot does for ssh.

A guest keeps its identity when its seed has been taken away: with `manual_cache_clean` cloud-init stays with what it
read at the first boot. To make a template of such a guest, run `cloud-init clean` in it, as hvtui's capture does.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

PACKAGES = (
    *("linux-image-cloud-amd64", "systemd-sysv", "udev", "dbus", "systemd-resolved", "netplan.io", "iproute2"),
    *("cloud-init", "cloud-guest-utils", "fdisk", "e2fsprogs", "openssh-server", "qemu-guest-agent"),
    *("netbase", "ca-certificates", "sudo", "tzdata", "zstd", "less", "nano-tiny"),
)
# Told in a template's origin; a newer one makes a new image.
TOLD_PACKAGES = ("linux-image-cloud-amd64", "cloud-init", "systemd", "openssh-server", "qemu-guest-agent")

_DPKG = "etc/dpkg/dpkg.cfg.d/while-built"
# Not unpacked while the image is built; packages that are installed later come whole.
_DPKG_OPTIONS = """\
path-exclude=/usr/share/man/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/locale/*/LC_MESSAGES/*
force-unsafe-io
force-confold
"""
# What was made while packages were installed and belongs to one machine, as tar's patterns.
NOT_KEPT = (
    *("./dev/*", "./proc/*", "./sys/*", "./run/*", "./tmp/*", "./var/tmp/*"),
    *("./etc/machine-id", "./var/lib/dbus/machine-id", "./etc/hostname", "./etc/.resolv.conf.systemd-resolved.bak"),
    *("./etc/ssh/ssh_host_*", "./var/lib/systemd/random-seed", "./var/lib/systemd/catalog/database"),
    *("./etc/apt/apt.conf.d/99mmdebstrap", f"./{_DPKG}", "./etc/apt/trusted.gpg.d/*"),
    *("./var/lib/apt/lists/*", "./var/cache/apt/*.bin", "./var/cache/apt/archives/*.deb", "./var/cache/debconf/*-old"),
    *("./var/lib/dpkg/*-old", "./var/log/*.log", "./var/log/apt/*", "./var/log/journal/*", "./initrd.img.old"),
    *("./vmlinuz.old", "./root/.*history"),
    # mmdebstrap unpacks the essential packages without asking dpkg.
    *("./usr/share/man/*", "./usr/share/locale/*/LC_MESSAGES/*", "./usr/share/doc/*/*.gz"),
)

_STAGE_DIRECTORY = "usr/local/lib/cloud-init-stages"
_UNITS = "etc/systemd/system"
_MASKED = (
    *("e2scrub_reap.service", "e2scrub_all.timer", "systemd-pstore.service", "systemd-repart.service"),
    *("systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "sys-kernel-debug.mount"),
    *("sys-kernel-tracing.mount", "dev-hugepages.mount", "systemd-update-utmp-runlevel.service"),
    *("systemd-network-generator.service", "cloud-init-hotplugd.socket"),
)
_NOT_STARTED = ("timers.target.wants/apt-daily.timer", "timers.target.wants/apt-daily-upgrade.timer")
_STARTED = {
    "multi-user.target.wants": ("systemd-networkd.service", "systemd-resolved.service"),
    "sockets.target.wants": ("systemd-networkd.socket",),
    "network-online.target.wants": ("systemd-networkd-wait-online.service",),
}

_INITRAMFS = """\
# Only what a VM boots from. A disk on another bus: name its driver in /etc/initramfs-tools/modules and run
# update-initramfs -u
MODULES=list
COMPRESS=zstd
FSTYPE=ext4
"""
_INITRAMFS_MODULES = "virtio_pci\nvirtio_blk\nvirtio_scsi\nsd_mod\n"

# no_timer_check: emulated on a busy host the kernel may see no tick of its timer while it tests it, and hangs.
_GRUB = """\
# Written once: /vmlinuz and /initrd.img are links that follow the newest kernel. Hold Shift for the menu.
set default=0
if keystatus --shift; then set timeout=-1; else set timeout=0; fi
menuentry "{title}" {{
    linux /vmlinuz root=UUID={uuid} ro no_timer_check console=tty0 console=ttyS0 quiet
    initrd /initrd.img
}}
menuentry "{title}, with messages" {{
    linux /vmlinuz root=UUID={uuid} ro no_timer_check console=tty0 console=ttyS0
    initrd /initrd.img
}}
menuentry "{title}, the kernel before" {{
    linux /vmlinuz.old root=UUID={uuid} ro no_timer_check console=tty0 console=ttyS0
    initrd /initrd.img.old
}}
"""

_CLOUD = """\
# A seed or nothing: other clouds are not looked for.
datasource_list: [NoCloud, None]
# What the seed said stays true when it has been taken away.
manual_cache_clean: true
ssh_genkeytypes: [ed25519, ecdsa]
locale: C.UTF-8
# grow-root.service does both.
growpart: {mode: 'off'}
resize_rootfs: false
# The kernel's own boot loader needs no care, and these are for other distributions and clouds: grub-dpkg, snap, lxd,
# landscape, puppet, chef, mcollective, salt-minion, rightscale, byobu, fan, hotplug.
cloud_init_modules: [seed_random, bootcmd, write-files, growpart, resizefs, disk_setup, mounts, set_hostname,
    update_hostname, update_etc_hosts, ca-certs, users-groups, ssh]
cloud_config_modules: [ssh-import-id, keyboard, locale, set-passwords, apt-configure, ntp, timezone, runcmd]
cloud_final_modules: [package-update-upgrade-install, write-files-deferred, scripts-vendor, scripts-per-once,
    scripts-per-boot, scripts-per-instance, scripts-user, phone-home, final-message, power-state-change]
# Cloud-init's own writer for networkd and the one for ifupdown want to know a card's name: netplan finds it by address.
system_info:
  network:
    renderers: [netplan, networkd]
"""

# A link that nothing answers on must not hold up a boot for two minutes, and no link at all not for a moment.
_WAIT_ONLINE = """\
[Unit]
ConditionPathExistsGlob=/sys/class/net/e*

[Service]
ExecStart=
ExecStart=-/lib/systemd/systemd-networkd-wait-online --any --timeout=30
"""

# A VM has two hundred devices that no rule has anything to say of: consoles that nobody opens, modules, drivers.
_UDEV_TRIGGER = """\
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add --prioritized-subsystem=block,net --subsystem-nomatch=tty \\
    --subsystem-nomatch=vc
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=tty --sysname-match=ttyS* --sysname-match=hvc*
"""

_GROW_ROOT_SERVICE = """\
[Unit]
Description=Grow the root file system to its disk
DefaultDependencies=no
Conflicts=shutdown.target
After=systemd-remount-fs.service
Before=local-fs.target shutdown.target

[Service]
Type=oneshot
ExecStart=/usr/local/lib/grow-root
"""
_GROW_ROOT = """\
#!/bin/sh
# Grows the root partition, the last of its disk, and its file system. Does nothing where there is no room behind it.
set -e
while read -r _ _ device _ target rest; do
    [ "$target" = / ] && root=$device
done < /proc/self/mountinfo
part=/sys/dev/block/$root
[ -e "$part/partition" ] || exit 0
read -r number < "$part/partition"
read -r start < "$part/start"
read -r sectors < "$part/size"
read -r total < "$part/../size"
[ $((total - start - sectors)) -gt 4096 ] || exit 0
disk=$(readlink -f "$part/..") part=$(readlink -f "$part")
echo ',+' | sfdisk --quiet --no-reread --no-tell-kernel -N "$number" "/dev/${disk##*/}"
partx --update --nr "$number" "/dev/${disk##*/}"
resize2fs "/dev/${part##*/}"
"""

_STAGES = '''\
#!/usr/bin/python3
"""Runs the stages of cloud-init in children of one process that has loaded it: loading it once and not four times
takes a third off the boot of an emulated machine. Each stage is asked for through a named pipe by `stage`, and its exit
code is the answer. Where this process is not there, `stage` runs cloud-init itself."""

import contextlib
import gc
import importlib
import os
import select
import shutil
import socket
import sys

# A schema tells of unknown keys and nothing else: `cloud-init schema --system` does so too, when it is asked.
sys.modules["jsonschema"] = None

from cloudinit.cmd.main import main

PIPES = "/run/cloud-init-stages"
STAGES = {
    "local": ("init", "--local"),
    "network": ("init",),
    "config": ("modules", "--mode=config"),
    "final": ("modules", "--mode=final"),
}
OFTEN_USED = ("cloudinit.distros.debian", "cloudinit.net.networkd", "cloudinit.sources.DataSourceNoCloud")


def run(words):
    child = os.fork()
    if child == 0:
        code = 1
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        try:
            code = main(["cloud-init", *words])
        except SystemExit as end:
            code = end.code
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1 if code else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ready():
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", address.replace("@", "\\0", 1))


def serve():
    asked, answers = {}, {}
    for stage in STAGES:
        for kind, opened in (("ask", asked), ("answer", answers)):
            path = f"{PIPES}/{stage}.{kind}"
            os.mkfifo(path, 0o600)
            opened[stage] = os.open(path, os.O_RDWR)
    ready()
    while asked:
        for number in select.select(list(asked.values()), [], [])[0]:
            stage = next(name for name, each in asked.items() if each == number)
            os.read(number, 64)
            code = run(STAGES[stage])
            os.write(answers[stage], b"%d\\n" % (code if code >= 0 else 1))
            if stage == "final":
                asked.clear()


os.environ.setdefault("TZ", ":/etc/localtime")
for module in OFTEN_USED:
    with contextlib.suppress(ImportError):
        importlib.import_module(module)
gc.freeze()
os.makedirs("/run/cloud-init", exist_ok=True)
with open("/run/cloud-init/enabled", "w"):
    pass
try:
    serve()
finally:
    select.select([], [], [], 0.5)  # the last answer is read from a pipe that is still open
    shutil.rmtree(PIPES, ignore_errors=True)
'''
_STAGE = """\
#!/bin/sh
# stage NAME ARGUMENT...: asks the process that has cloud-init loaded to run a stage, or else runs it.
pipes=/run/cloud-init-stages
name=$1
shift
if [ -p "$pipes/$name.ask" ]; then
    exec 3< "$pipes/$name.answer"
    echo run > "$pipes/$name.ask"
    read -r code <&3 && exit "$code"
    exit 1
fi
exec /usr/bin/cloud-init "$@"
"""
_STAGES_SERVICE = f"""\
[Unit]
Description=Load cloud-init once for all of its stages
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=notify
ExecStart=/{_STAGE_DIRECTORY}/serve
Nice=-15
RuntimeDirectory=cloud-init-stages
RemainAfterExit=yes
TimeoutStartSec=120
KillMode=process
TasksMax=infinity
StandardOutput=journal+console
SyslogIdentifier=cloud-init
"""
_STAGE_DROP_IN = f"""\
[Unit]
Wants=cloud-init-stages.service
After=cloud-init-stages.service

[Service]
ExecStart=
ExecStart=/{_STAGE_DIRECTORY}/stage {{words}}
"""
_STAGE_UNITS = {
    "cloud-init-local": "local init --local",
    "cloud-init": "network init",
    "cloud-config": "config modules --mode=config",
    "cloud-final": "final modules --mode=final",
}


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file of the guest; `link` is where a symbolic link leads."""

    text: str = ""
    link: str = ""
    is_program: bool = False


def early_files() -> dict[str, GuestFile]:
    """What must be there before packages are installed, by path without a leading slash."""
    return {
        _DPKG: GuestFile(_DPKG_OPTIONS),
        "etc/initramfs-tools/conf.d/vm": GuestFile(_INITRAMFS),
        "etc/initramfs-tools/modules": GuestFile(_INITRAMFS_MODULES),
    }


def final_files(*, title: str, uuid: str, stages: bool) -> dict[str, GuestFile]:
    """What is laid over the installed system. `stages`: its cloud-init loads itself anew for each stage, which newer
    ones (24.3) do not."""
    files = {
        "boot/grub/grub.cfg": GuestFile(_GRUB.format(title=title, uuid=uuid)),
        "etc/fstab": GuestFile(f"UUID={uuid} / ext4 errors=remount-ro 0 1\n"),
        "etc/machine-id": GuestFile(),
        "etc/hostname": GuestFile("localhost\n"),
        "etc/hosts": GuestFile("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
        "etc/default/locale": GuestFile("LANG=C.UTF-8\n"),
        "etc/resolv.conf": GuestFile(link="../run/systemd/resolve/stub-resolv.conf"),
        "etc/cloud/cloud.cfg.d/90_vm.cfg": GuestFile(_CLOUD),
        "usr/local/lib/grow-root": GuestFile(_GROW_ROOT, is_program=True),
        f"{_UNITS}/grow-root.service": GuestFile(_GROW_ROOT_SERVICE),
        f"{_UNITS}/local-fs.target.wants/grow-root.service": GuestFile(link="../grow-root.service"),
        f"{_UNITS}/systemd-networkd-wait-online.service.d/soon.conf": GuestFile(_WAIT_ONLINE),
        f"{_UNITS}/systemd-udev-trigger.service.d/few.conf": GuestFile(_UDEV_TRIGGER),
    }
    for target, units in _STARTED.items():
        files |= {f"{_UNITS}/{target}/{unit}": GuestFile(link=f"/lib/systemd/system/{unit}") for unit in units}
    files |= {f"{_UNITS}/{unit}": GuestFile(link="/dev/null") for unit in _MASKED}
    return files | (_stage_files() if stages else {})


def _stage_files() -> dict[str, GuestFile]:
    files = {
        f"{_STAGE_DIRECTORY}/serve": GuestFile(_STAGES, is_program=True),
        f"{_STAGE_DIRECTORY}/stage": GuestFile(_STAGE, is_program=True),
        f"{_UNITS}/cloud-init-stages.service": GuestFile(_STAGES_SERVICE),
    }
    for unit, words in _STAGE_UNITS.items():
        files[f"{_UNITS}/{unit}.service.d/stages.conf"] = GuestFile(_STAGE_DROP_IN.format(words=words))
    return files


def not_kept() -> tuple[str, ...]:
    """tar's patterns of what does not come into the image."""
    return (*NOT_KEPT, *(f"./{_UNITS}/{unit}" for unit in _NOT_STARTED))


def archive(files: Mapping[str, GuestFile]) -> bytes:
    """A tar archive of the files and the directories that lead to them, all of them root's."""
    written = io.BytesIO()
    known: set[str] = set()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, file in sorted(files.items()):
            for parent in _parents(path):
                if parent not in known:
                    known.add(parent)
                    tar.addfile(_entry(parent, tarfile.DIRTYPE, 0o755))
            _add(tar, path, file)
    return written.getvalue()


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _add(tar: tarfile.TarFile, path: str, file: GuestFile) -> None:
    if file.link:
        entry = _entry(path, tarfile.SYMTYPE, 0o777)
        entry.linkname = file.link
        tar.addfile(entry)
        return
    data = file.text.encode()
    entry = _entry(path, tarfile.REGTYPE, 0o755 if file.is_program else 0o644)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = kind, mode
    entry.uname = entry.gname = "root"
    return entry
