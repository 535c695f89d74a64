"""A bootable disk image from a directory tree, without loop devices, mounts or a boot loader's installer.

The disk has a BIOS partition table with one ext4 partition at 1 MiB. GRUB's first sector is the disk's first, and the
rest of GRUB lies right behind it, where its first sector looks for it; its menu is a file of the tree. Commands that
must see the tree's owners are run with the words `as_root` before them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from host.errors import HvtuiError
from host.units import GIB, KIB, MIB
from vm.recipe_process import IsCancelled, run

GRUB_DIRECTORY = Path("/usr/lib/grub/i386-pc")
DISK_BYTES = 3 * GIB  # the image holds what is used of it; a VM's own disk may be larger
PARTITION_START_BYTES = 1 * MIB
# A grub.cfg is read by `normal`; keystatus, ls, cat and the like are for people who hold Shift down.
_GRUB_MODULES = (
    *("biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile", "test", "keystatus"),
    *("serial", "terminal", "ls", "cat", "echo", "reboot", "halt"),
)
_GRUB_PREFIX = "(hd0,msdos1)/boot/grub"
_SECTOR_BYTES = 512
_BOOT_CODE_BYTES = 440
_LINUX_PARTITION = 0x83
# A third of the size of the plain image; reading it costs less than reading three times as much would.
_COMPRESSION = ("-c", "-o", "compression_type=zstd", "-W", "-m", "4")
# What GRUB 2.06 can read, whatever the mke2fs of this machine would choose.
_MKE2FS_CONF = """\
[defaults]
    base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
    default_mntopts = acl,user_xattr
    enable_periodic_fsck = 0
    blocksize = 4096
    inode_size = 256
    inode_ratio = 16384
[fs_types]
    ext4 = {
        features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
    }
"""


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """What makes the disk: `tree` its files, `uuid` its file system's, `work` a directory for parts."""

    tree: Path
    uuid: str
    work: Path
    as_root: Sequence[str] = ()


def layout() -> tuple[object, ...]:
    """What decides the disk besides its files: part of the recipe's hash."""
    return (DISK_BYTES, PARTITION_START_BYTES, _GRUB_MODULES, _MKE2FS_CONF, _COMPRESSION)


def make_qcow2(plan: DiskPlan, target: Path, *, is_cancelled: IsCancelled) -> None:
    """Write the disk of `plan` to `target`. Raises HvtuiError with the words of the tool that failed, Cancelled."""
    raw = plan.work / "disk.raw"
    _make_file_system(plan, raw, is_cancelled)
    _make_bootable(plan, raw, is_cancelled)
    run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *_COMPRESSION, "--", str(raw), str(target)],
        is_cancelled=is_cancelled,
    )
    raw.unlink()


def _make_file_system(plan: DiskPlan, raw: Path, is_cancelled: IsCancelled) -> None:
    configuration = plan.work / "mke2fs.conf"
    configuration.write_text(_MKE2FS_CONF, encoding="ascii")
    with raw.open("wb") as file:
        file.truncate(DISK_BYTES)
    extended = f"offset={PARTITION_START_BYTES},root_owner=0:0,lazy_itable_init=0,hash_seed={plan.uuid}"
    options = ["-t", "ext4", "-F", "-q", "-m", "1", "-L", "root", "-U", plan.uuid, "-E", extended, "-d", str(plan.tree)]
    size = f"{(DISK_BYTES - PARTITION_START_BYTES) // KIB}k"
    run(
        [*plan.as_root, "mke2fs", *options, "--", str(raw), size],
        environment={"MKE2FS_CONFIG": str(configuration)},
        is_cancelled=is_cancelled,
    )


def _make_bootable(plan: DiskPlan, raw: Path, is_cancelled: IsCancelled) -> None:
    core = plan.work / "core.img"
    options = ["-O", "i386-pc", "-d", str(GRUB_DIRECTORY), "-p", _GRUB_PREFIX, "-o", str(core)]
    run(["grub-mkimage", *options, "--", *_GRUB_MODULES], is_cancelled=is_cancelled)
    boot_code = (GRUB_DIRECTORY / "boot.img").read_bytes()[:_BOOT_CODE_BYTES]
    signature = int(plan.uuid[:8], 16)
    with raw.open("r+b") as file:
        file.write(first_sectors(boot_code, core.read_bytes(), signature))


def first_sectors(boot_code: bytes, core: bytes, signature: int) -> bytes:
    """The first sector with its partition table, and GRUB's core behind it, whose own list of blocks says that it
    goes on in the sector after its first. Raises HvtuiError when the core does not fit before the partition."""
    if len(core) > PARTITION_START_BYTES - _SECTOR_BYTES:
        raise HvtuiError(f"GRUB's core of {len(core)} bytes does not fit before the first partition")
    start, sectors = PARTITION_START_BYTES // _SECTOR_BYTES, (DISK_BYTES - PARTITION_START_BYTES) // _SECTOR_BYTES
    no_cylinders = b"\xfe\xff\xff"  # "see the sector numbers": what every tool writes for disks of today
    entry = struct.pack("<B3sB3sII", 0x80, no_cylinders, _LINUX_PARTITION, no_cylinders, start, sectors)
    head = boot_code.ljust(_BOOT_CODE_BYTES, b"\0") + struct.pack("<IH", signature, 0) + entry
    return head.ljust(_SECTOR_BYTES - 2, b"\0") + b"\x55\xaa" + core
