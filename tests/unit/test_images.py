"""Disk images by content, free space, and what keeps QEMU's user from a file. Real qemu-img, real files."""

from __future__ import annotations

import json
import os
import pwd
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from host import images
from host.errors import Conflict, Denied, HvtuiError, NotFound, TimedOut, Unsupported, UsageError
from host.file_access import User
from host.images import brief, free_bytes, inspect, path_problems, qemu_user

MIB = 1024**2
STRANGER = User("stranger", 54321, frozenset({54321}))
ROOT = User("root", 0, frozenset({0}))


def create(path: Path, *, size: str = "10M", format_name: str = "qcow2", options: tuple[str, ...] = ()) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", format_name, *options, "--", path, size], check=True)
    return path


def create_overlay(path: Path, backing: str, *, backing_format: str | None = "qcow2") -> Path:
    """An overlay whose backing file need not exist (-u); qemu-img wants a format, so none is cut out afterwards."""
    command = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", backing_format or "raw"]
    subprocess.run([*command, "--", path, "10M"], check=True)
    if backing_format is None:
        _remove_extension(path, 0xE2792ACA)
    return path


def _remove_extension(path: Path, number: int) -> None:
    """Turn the qcow2 header extension `number` into one that QEMU does not know (docs/interop/qcow2.txt)."""
    data = bytearray(path.read_bytes())
    place = data.index(struct.pack(">I", number))
    data[place : place + 4] = struct.pack(">I", 0x12345678)
    path.write_bytes(bytes(data))


# inspect


def test_a_qcow2_image_is_told_by_its_content(tmp_path: Path):
    info = inspect(create(tmp_path / "disk.img"))
    assert (info.format, info.virtual_size_bytes, info.backing) == ("qcow2", 10 * MIB, ())
    assert 0 < info.actual_size_bytes < MIB
    assert not (info.is_iso or info.is_corrupt or info.is_encrypted)


def test_the_other_formats_are_told_too(tmp_path: Path):
    assert inspect(create(tmp_path / "a", format_name="vmdk")).format == "vmdk"
    assert inspect(create(tmp_path / "b", format_name="vdi")).format == "vdi"
    assert inspect(create(tmp_path / "c", format_name="raw")).format == "raw"


def test_an_iso_image_is_recognised(tmp_path: Path):
    iso = tmp_path / "cd.iso"
    iso.write_bytes(b"\0" * 32768 + b"\x01CD001\x01" + b"\0" * 4096)
    info = inspect(iso)
    assert (info.format, info.is_iso) == ("raw", True)


def test_a_path_that_looks_like_an_option_or_a_protocol_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    create(tmp_path / "--help")
    create(tmp_path / "nbd:localhost:1")
    assert inspect("--help").format == "qcow2"
    assert inspect("nbd:localhost:1").format == "qcow2"


def test_an_image_that_another_process_writes_can_be_inspected(tmp_path: Path):
    path = create(tmp_path / "disk.qcow2")
    command = ["qemu-io", "-f", "qcow2", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdin.write(b"read 0 1\n")
        writer.stdin.flush()
        writer.stdout.readline()  # it has the image open now
        assert inspect(path).format == "qcow2"
        writer.stdin.write(b"quit\n")
        writer.stdin.flush()


def test_a_chain_of_backing_files_is_followed(tmp_path: Path):
    (tmp_path / "base").mkdir()
    create(tmp_path / "base/a.qcow2")
    create_overlay(tmp_path / "base/b.qcow2", "a.qcow2")
    create_overlay(tmp_path / "c.qcow2", "base/b.qcow2")
    assert inspect(tmp_path / "c.qcow2").backing == (tmp_path / "base/b.qcow2", tmp_path / "base/a.qcow2")


def test_a_file_named_raw_whose_content_opens_other_files_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="named as a raw image"):
        inspect(create_overlay(tmp_path / "disk.raw", "/etc/passwd", backing_format="raw"))


def test_a_missing_backing_file_is_named(tmp_path: Path):
    with pytest.raises(NotFound) as caught:
        inspect(create_overlay(tmp_path / "a.qcow2", "gone.qcow2"))
    assert caught.value.about == str(tmp_path / "gone.qcow2")


@pytest.mark.parametrize("backing", ["nbd://192.0.2.1/x", "json:{}", "nbd+unix:///x?socket=/y"])
def test_a_backing_file_that_is_not_a_local_file_is_refused(tmp_path: Path, backing: str):
    with pytest.raises(UsageError, match="not a local file"):
        inspect(create_overlay(tmp_path / "a.qcow2", backing))


def test_a_backing_file_without_its_format_is_refused_with_the_remedy(tmp_path: Path):
    create(tmp_path / "base.qcow2")
    path = create_overlay(tmp_path / "a.qcow2", "base.qcow2", backing_format=None)
    with pytest.raises(UsageError, match="qemu-img rebase"):
        inspect(path)


def test_a_circle_of_backing_files_is_refused(tmp_path: Path):
    create_overlay(tmp_path / "a.qcow2", "b.qcow2")
    create_overlay(tmp_path / "b.qcow2", "a.qcow2")
    with pytest.raises(UsageError, match="circle"):
        inspect(tmp_path / "a.qcow2")


def test_an_image_that_keeps_its_data_elsewhere_is_refused(tmp_path: Path):
    path = create(tmp_path / "a.qcow2", options=("-o", f"data_file={tmp_path / 'data'},data_file_raw=on"))
    with pytest.raises(UsageError, match="another file"):
        inspect(path)


def test_a_damaged_image_is_a_clear_error(tmp_path: Path):
    path = tmp_path / "a.qcow2"
    path.write_bytes(b"QFI\xfb\0\0\0\x03" + b"\xff" * 600)
    with pytest.raises(UsageError, match="Is it a disk image"):
        inspect(path)


def test_a_missing_file_a_directory_and_a_pipe_are_refused_without_opening_them(tmp_path: Path):
    with pytest.raises(NotFound):
        inspect(tmp_path / "none")
    with pytest.raises(UsageError, match="not a file"):
        inspect(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a file"):
        inspect(tmp_path / "pipe")


def test_a_file_that_cannot_be_reached_is_denied(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Denied):
        inspect(tmp_path / "file/below")


def fake_tool(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str = "qemu-img") -> None:
    directory.mkdir()
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("echo 'Permission denied' >&2; exit 1", Denied, "cannot open"),
        ("echo 'Failed to get shared \"write\" lock' >&2; exit 1", Conflict, "in use"),
        ("kill -9 $$", UsageError, "too much memory or time"),
        ("echo 'Cannot allocate memory' >&2; exit 1", UsageError, "too much memory or time"),
        ("echo 'not json'", HvtuiError, "no readable answer"),
        ("exec sleep 30", TimedOut, "no answer within"),
    ],
)
def test_each_way_of_qemu_img_to_fail_has_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: type[HvtuiError], words: str
):
    (tmp_path / "disk").write_text("x")
    monkeypatch.setattr(images, "_TIMEOUT_S", 1.0 if error is TimedOut else 60.0)
    fake_tool(tmp_path / "bin", monkeypatch, script)
    with pytest.raises(error, match=words):
        inspect(tmp_path / "disk")


def test_an_answer_that_is_no_object_counts_as_raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "disk").write_text("x")
    fake_tool(tmp_path / "bin", monkeypatch, "echo '[]'")
    assert inspect(tmp_path / "disk").format == "raw"


def test_a_system_without_qemu_img_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "disk").write_text("x")
    fake_tool(tmp_path / "bin", monkeypatch, "shift 3; shift; exec /usr/bin/prlimit -- no-such-tool", "prlimit")
    with pytest.raises(Unsupported, match="apt-get install qemu-utils"):
        inspect(tmp_path / "disk")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="prlimit"):
        inspect(tmp_path / "disk")


def test_qemu_img_runs_under_limits_and_in_plain_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "disk").write_text("x")
    record = tmp_path / "record"
    fake_tool(
        tmp_path / "bin", monkeypatch, f'(ulimit -v; ulimit -t; echo "$LC_ALL"; echo "$@") > {record}; echo "{{}}"'
    )
    inspect(tmp_path / "disk")
    assert record.read_text().splitlines() == [
        str(MIB), "10", "C", f"info --output=json -U -- {tmp_path / 'disk'}",
    ]  # fmt: skip


def test_an_iso_that_vanishes_is_not_one(tmp_path: Path):
    assert not images._is_iso(tmp_path / "gone")


# free_bytes


def test_free_space_is_what_this_user_may_use(tmp_path: Path):
    status = os.statvfs(tmp_path)
    assert free_bytes(tmp_path) == pytest.approx(status.f_bavail * status.f_frsize, rel=0.05)


def test_free_space_of_a_directory_to_be_made_is_that_of_its_parent(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert free_bytes(tmp_path / "not/yet") == pytest.approx(free_bytes(tmp_path), rel=0.05)
    assert free_bytes(tmp_path / "file/below") > 0


def test_free_space_that_may_not_be_seen_is_denied(tmp_path: Path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(Denied):
        free_bytes(loop)


# path_problems


@pytest.fixture
def open_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that anybody may pass to; pytest's own are private."""
    directory = Path(f"/var/tmp/hvtui-test-{os.getpid()}")
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    yield directory
    subprocess.run(["rm", "-rf", "--", directory], check=True)


def test_a_path_open_to_all_has_no_problem(open_path: Path):
    (open_path / "disk.qcow2").write_text("")
    assert path_problems(open_path / "disk.qcow2", user=STRANGER) == ()


def test_each_closed_directory_on_the_way_is_named_with_the_remedy(open_path: Path):
    (open_path / "a/b").mkdir(parents=True)
    (open_path / "a").chmod(0o700)
    (open_path / "a/b").chmod(0o700)
    (open_path / "a/b/disk").write_text("")
    assert path_problems(open_path / "a/b/disk", user=STRANGER) == (
        f"stranger may not pass through {open_path}/a. Allow it: setfacl -m u:stranger:x {open_path}/a",
        f"stranger may not pass through {open_path}/a/b. Allow it: setfacl -m u:stranger:x {open_path}/a/b",
    )


def test_a_closed_directory_behind_a_symbolic_link_is_found(open_path: Path):
    (open_path / "closed").mkdir(mode=0o700)
    (open_path / "closed/disk").write_text("")
    (open_path / "link").symlink_to("closed/../closed/disk")
    (open_path / "absolute").symlink_to(open_path / "link")
    problems = path_problems(open_path / "absolute", user=STRANGER)
    assert len(problems) == 1
    assert f"pass through {open_path}/closed." in problems[0]


def test_an_unreadable_file_is_named(open_path: Path):
    disk = open_path / "disk"
    disk.write_text("")
    disk.chmod(0o600)
    assert path_problems(disk, user=STRANGER) == (
        f"stranger may not read {disk}. Allow it: setfacl -m u:stranger:r {disk}",
    )
    disk.chmod(0o644)
    assert path_problems(disk, user=STRANGER) == ()
    assert "read and write" in path_problems(disk, user=STRANGER, write=True)[0]


def test_the_owner_and_the_group_count(open_path: Path):
    disk = open_path / "disk"
    disk.write_text("")
    status = disk.stat()
    disk.chmod(0o640)
    assert path_problems(disk, user=User("owner", status.st_uid, frozenset()), write=True) == ()
    assert path_problems(disk, user=User("member", 54321, frozenset({status.st_gid}))) == ()
    assert path_problems(disk, user=User("member", 54321, frozenset({status.st_gid})), write=True) != ()


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("entries", "is_allowed"),
    [
        ([(0x02, 5, 54321), (0x04, 0, NOBODY), (0x10, 7, NOBODY), (0x20, 0, NOBODY)], True),
        ([(0x02, 5, 54321), (0x04, 0, NOBODY), (0x10, 2, NOBODY), (0x20, 7, NOBODY)], False),  # the mask takes it
        ([(0x02, 7, 99), (0x04, 0, NOBODY), (0x08, 1, 54321), (0x10, 7, NOBODY), (0x20, 0, NOBODY)], True),
        ([(0x04, 0, NOBODY), (0x08, 0, 54321), (0x10, 7, NOBODY), (0x20, 7, NOBODY)], False),
        ([(0x02, 7, 99), (0x04, 0, NOBODY), (0x10, 7, NOBODY), (0x20, 1, NOBODY)], True),
    ],
)
def test_an_acl_decides_before_the_mode(open_path: Path, entries: list[tuple[int, int, int]], is_allowed: bool):
    directory = open_path / "directory"
    directory.mkdir()
    os.setxattr(directory, "system.posix_acl_access", acl((0x01, 7, NOBODY), *entries))
    (directory / "disk").write_text("")
    (directory / "disk").chmod(0o644)
    assert (path_problems(directory / "disk", user=STRANGER) == ()) is is_allowed


def test_an_acl_of_an_unknown_version_is_left_to_the_mode(open_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getxattr", lambda *_: struct.pack("<I", 9))
    (open_path / "disk").write_text("")
    assert path_problems(open_path / "disk", user=STRANGER) == ()


def test_a_missing_file_a_circle_and_a_blind_spot_are_told(open_path: Path):
    (open_path / "loop").symlink_to("loop")
    (open_path / "file").write_text("")
    assert path_problems(open_path / "none", user=ROOT) == (f"{open_path}/none does not exist",)
    assert "circle of symbolic links" in path_problems(open_path / "loop", user=ROOT)[0]
    assert "cannot be looked at: Not a directory" in path_problems(open_path / "file/x", user=ROOT)[0]
    assert path_problems(open_path / "n" / ".." / "x", user=STRANGER) == (f"{open_path}/n does not exist",)


def test_what_vanishes_during_the_walk_is_left_to_the_walks_own_words(open_path: Path):
    assert images._may_quietly(STRANGER, open_path / "gone", images.Access.READ)


def test_root_passes_everywhere(open_path: Path):
    (open_path / "closed").mkdir(mode=0o700)
    (open_path / "closed/disk").write_text("")
    (open_path / "closed/disk").chmod(stat.S_IRUSR)
    assert path_problems(open_path / "closed/disk", user=ROOT, write=True) == ()


# whom QEMU runs as


@pytest.fixture
def qemu_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "qemu.conf"
    file.write_text("# comment\n")
    monkeypatch.setattr(images, "QEMU_CONFIGURATION", file)
    return file


def test_a_session_runs_qemu_as_this_user():
    assert qemu_user("qemu:///session").uid == os.geteuid()


def test_the_user_of_qemu_conf_comes_first(qemu_conf: Path):
    qemu_conf.write_text('#user = "x"\nuser = "daemon"  # why\n')
    assert qemu_user().name == "daemon"
    qemu_conf.write_text('user = "+0"\n')
    assert qemu_user().is_root


def test_without_a_setting_the_distributions_user_is_taken(qemu_conf: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "QEMU_USERS", ("no-such-user", "daemon"))
    assert qemu_user() == User("daemon", pwd.getpwnam("daemon").pw_uid, qemu_user().gids)
    qemu_conf.unlink()
    monkeypatch.setattr(images, "QEMU_USERS", ())
    assert qemu_user().is_root


def test_libvirt_gives_the_file_to_qemu_unless_that_is_switched_off(
    open_path: Path, qemu_conf: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(images, "QEMU_USERS", ("daemon",))
    disk = open_path / "disk"
    disk.write_text("")
    disk.chmod(0o600)
    assert path_problems(disk) == ()
    qemu_conf.write_text("dynamic_ownership = 0\n")
    assert path_problems(disk) == (f"daemon may not read {disk}. Allow it: setfacl -m u:daemon:r {disk}",)


def test_an_image_description_is_json_that_this_qemu_writes(tmp_path: Path):
    """The keys that inspect reads are those of the installed qemu-img."""
    path = create_overlay(tmp_path / "a.qcow2", "b.qcow2")
    output = subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True).stdout
    assert {"format", "virtual-size", "actual-size", "backing-filename", "backing-filename-format"} <= set(
        json.loads(output)
    )


def test_what_qemu_img_says_is_told_once_on_one_line_without_its_name_and_path():
    told = "qemu-img: Could not open '/a b.vhdx': Could not open '/a b.vhdx': Invalid argument\n"
    assert brief(told, "/a b.vhdx") == "Could not open it: Invalid argument"
    assert brief("ERROR refcount block 1 is outside image\n", "/x") == "refcount block 1 is outside image"
    lines = "".join(f"ERROR: counting reference: offset 0x{n}e0000 size {n}\n" for n in range(1, 6))
    assert brief(lines, "/x") == "counting reference: offset 0x1e0000 size 1 (and 4 more)"
    log = "qemu-img: VHDX image file '/x' opened read-only, but contains a log.\nTo replay it:\n  qemu-img check\n"
    assert "\\n" not in brief(log, "/x")
