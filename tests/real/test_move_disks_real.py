"""A moving VM's disks, between two real libvirtds: made, copied with their chain, taken back, left behind."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from host.connection import Host
from host.errors import Cancelled, Conflict, HvtuiError, NotFound, WrongState
from host.images import inspect
from host.steps import verb_named
from tests.support.moves import (
    MARK,
    arguments,
    context,
    draft,
    files,
    holds,
    qemu_img,
    sha256,
    write_pattern,
)
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import move_disk_steps
from vm.move_model import MoveDisk, MoveDraft, MoveKind

assert move_disk_steps  # registers the verbs
VM = """
<domain type='qemu'><name>web</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='q35'>hvm</type></os>
<devices>
  <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{images}/web.qcow2'/>
    <target dev='vda' bus='virtio'/></disk>
  <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{images}/web.raw'/>
    <target dev='vdb' bus='virtio'/></disk>
</devices></domain>
"""


@pytest.fixture
def web(real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd) -> str:
    """A VM that is off: vda builds on a base, vdb is raw and full of holes."""
    images = private_daemon.images
    qemu_img("create", "-q", "-f", "qcow2", images / "base.qcow2", "64M")
    write_pattern(images / "base.qcow2", "qcow2", 0x11, "1M")
    # The base by a path of its own directory, as people make them: it must not be looked for in another one.
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", images / "web.qcow2")
    write_pattern(images / "web.qcow2", "qcow2", 0x22, "8M")
    qemu_img("create", "-q", "-f", "raw", images / "web.raw", "256M")
    write_pattern(images / "web.raw", "raw", 0x33, "100M")
    with real_host.calls("define") as connection:
        connection.storagePoolLookupByName("default").refresh()
        connection.defineXML(VM.format(images=images))
    return "web"


def disks(source: PrivateLibvirtd, target: PrivateLibvirtd) -> tuple[MoveDisk, ...]:
    there = {"target_pool": "default", "target_pool_path": str(target.images)}
    here = source.images
    return (
        MoveDisk("vda", "disk", f"{here}/web.qcow2", "qcow2", 64 << 20, backing=(f"{here}/base.qcow2",), **there),  # type: ignore[arg-type]
        MoveDisk("vdb", "disk", f"{here}/web.raw", "raw", 256 << 20, **there),  # type: ignore[arg-type]
    )


@pytest.fixture
def made(web: str, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd,
         second_daemon: PrivateLibvirtd) -> MoveDraft:  # fmt: skip
    return draft(real_host, second_host, web, MoveKind.OFFLINE, *disks(private_daemon, second_daemon))


def copies(made: MoveDraft) -> list[dict[str, Any]]:
    return [asdict(copy) for copy in made.copies]


def images(made: MoveDraft, source: PrivateLibvirtd) -> list[dict[str, Any]]:
    vda, vdb = made.copies
    base = {"source_path": f"{source.images}/base.qcow2", "pool": "default", "volume": f"base.moved-{MARK}.qcow2",
            "path": str(Path(vda.path).with_name(f"base.moved-{MARK}.qcow2"))}  # fmt: skip
    return [
        base,
        {"source_path": vda.source_path, "pool": vda.pool, "volume": vda.volume, "path": vda.path,
         "backing": base["path"]},
        {"source_path": vdb.source_path, "pool": vdb.pool, "volume": vdb.volume, "path": vdb.path},
    ]  # fmt: skip


def test_disks_are_made_with_format_and_size_made_again_and_taken_back(
    made: MoveDraft, real_host: Host, second_host: Host, second_daemon: PrivateLibvirtd
) -> None:
    verb, ctx = verb_named("move.make-disks"), context(real_host, second_host)
    args = arguments(made, copies=copies(made))
    for _ in range(2):
        verb.do(ctx, args)
        assert files(second_daemon.images) == {f"web.moved-{MARK}.qcow2", f"web.moved-{MARK}.raw"}
    found = [inspect(copy.path) for copy in made.copies]
    assert [each.format for each in found] == ["qcow2", "raw"]
    assert [each.virtual_size_bytes for each in found] == [64 << 20, 256 << 20]
    assert not any(each.backing for each in found)
    for _ in range(2):
        assert verb.rollback is not None
        verb.rollback(ctx, args, None)
        assert files(second_daemon.images) == set()


def test_a_disk_is_made_on_the_image_below_it_when_the_target_has_that(
    made: MoveDraft, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd
) -> None:
    base = f"{private_daemon.images}/base.qcow2"  # both see this directory
    args = arguments(made, copies=[{**copies(made)[0], "backing": base, "backing_format": "qcow2"}])
    verb_named("move.make-disks").do(context(real_host, second_host), args)
    assert [str(path) for path in inspect(made.copies[0].path).backing] == [base]


def test_a_chain_is_copied_whole_and_verified_and_builds_on_its_copies(
    made: MoveDraft, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd
) -> None:
    notes: list[str] = []
    args = arguments(made, images=images(made, private_daemon))
    for _ in range(2):
        result = verb_named("move.copy-disks").do(context(real_host, second_host, notes), args)
    vda, vdb = made.copies
    here, there = private_daemon.images, second_daemon.images
    base = there / f"base.moved-{MARK}.qcow2"
    assert [str(path) for path in inspect(vda.path).backing] == [str(base)]
    assert (sha256(base), sha256(vdb.path)) == (sha256(here / "base.qcow2"), sha256(here / "web.raw"))
    sums: Any = result["sha256"]
    assert sums[vdb.path] == sha256(vdb.path)
    assert holds(vda.path, "qcow2", 0x11, "1M")
    assert holds(vda.path, "qcow2", 0x22, "8M")
    assert holds(vdb.path, "raw", 0x33, "100M")
    assert Path(vdb.path).stat().st_blocks * 512 < 16 << 20
    qemu_img("check", vda.path)
    assert any("reading it back" in note for note in notes)
    rollback = verb_named("move.copy-disks").rollback
    assert rollback is not None
    rollback(context(real_host, second_host), args, None)
    assert files(there) == set()
    assert files(here) == {"base.qcow2", "web.qcow2", "web.raw"}


def test_a_copy_that_is_cancelled_ends_soon_and_leaves_what_its_rollback_removes(
    made: MoveDraft, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd, second_daemon: PrivateLibvirtd
) -> None:
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 2

    args = arguments(made, images=images(made, private_daemon))
    with pytest.raises(Cancelled):
        verb_named("move.copy-disks").do(context(real_host, second_host, cancelled=cancelled), args)
    rollback = verb_named("move.copy-disks").rollback
    assert rollback is not None
    rollback(context(real_host, second_host), args, None)
    assert files(second_daemon.images) == set()


def test_a_disk_that_is_not_there_is_named(
    made: MoveDraft, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd
) -> None:
    image = {**images(made, private_daemon)[2], "source_path": f"{private_daemon.images}/gone.raw"}
    with pytest.raises(NotFound, match=r"gone\.raw"):
        verb_named("move.copy-disks").do(context(real_host, second_host), arguments(made, images=[image]))


def test_disks_stay_until_the_vm_is_whole_at_the_target_and_go_only_when_nobody_else_needs_them(
    made: MoveDraft, real_host: Host, second_host: Host, private_daemon: PrivateLibvirtd
) -> None:
    here = private_daemon.images
    verb, ctx = verb_named("move.forget-disks"), context(real_host, second_host)
    paths = [f"{here}/web.qcow2", f"{here}/web.raw", f"{here}/base.qcow2"]
    args = arguments(made, copies=copies(made), paths=paths)
    with pytest.raises(Conflict, match="still defined"):
        verb.do(ctx, args)
    with real_host.calls("undefine") as connection:
        text = connection.lookupByName("web").XMLDesc()
        connection.lookupByName("web").undefine()
    with pytest.raises(NotFound, match="not at second"):
        verb.do(ctx, args)
    for copy in made.copies:
        text = text.replace(copy.source_path, copy.path)
    with second_host.calls("define") as connection:
        connection.defineXML(text)
    with pytest.raises(HvtuiError, match="does not use its copied disk"):  # they were never copied
        verb.do(ctx, args)
    verb_named("move.copy-disks").do(ctx, arguments(made, images=images(made, private_daemon)))
    with real_host.calls("define") as connection:  # another VM builds on the base
        qemu_img("create", "-q", "-f", "qcow2", "-b", here / "base.qcow2", "-F", "qcow2", here / "other.qcow2")
        connection.storagePoolLookupByName("default").refresh()
    for _ in range(2):
        result = verb.do(ctx, args)
        assert list(result["kept"]) == [f"{here}/base.qcow2"]  # type: ignore[arg-type]
        assert "other.qcow2" in str(result["warning"])
        assert files(here) == {"base.qcow2", "other.qcow2"}


def test_nothing_is_taken_back_at_the_target_once_the_guest_is_there(
    made: MoveDraft, real_host: Host, second_host: Host
) -> None:
    verb, ctx = verb_named("move.make-disks"), context(real_host, second_host)
    args = arguments(made, copies=copies(made))
    verb.do(ctx, args)
    with second_host.calls("run") as connection:
        text = made.picture.inactive_xml
        for copy in made.copies:
            text = text.replace(copy.source_path, copy.path)
        connection.createXML(text).suspend()
    assert verb.rollback is not None
    with pytest.raises(WrongState, match="is at second already"):
        verb.rollback(ctx, args, None)
    before = [Path(copy.path).stat().st_ino for copy in made.copies]
    verb.do(ctx, args)  # a restarted job: it makes nothing anew below a running guest
    assert [Path(copy.path).stat().st_ino for copy in made.copies] == before
