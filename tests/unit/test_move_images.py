"""Which images a move copies, where its memory goes, and how a copy comes to build on another: pure."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from host.errors import UsageError
from host.qcow2_header import backing_name, cluster_bytes, rebased
from vm.move_copies import copies_for
from vm.move_disks import copy_bases_step, copy_disks_step, forget_disks_step, images_of, make_disks_step
from vm.move_model import Link, MoveDisk, MoveDraft, MoveKind, MoveOptions, MovePicture, MoveRequest
from vm.move_quick import hand_over_steps, places

POOL = {"target_pool": "default", "target_pool_path": "/there"}
CHAIN = MoveDisk("vda", "disk", "/here/web.qcow2", "qcow2", 1 << 30, backing=("/here/mid.qcow2", "/here/base.qcow2"),
                 **POOL)  # type: ignore[arg-type]  # fmt: skip
MARK = "0a1b2c3d"


def draft(
    *disks: MoveDisk, kind: MoveKind = MoveKind.QUICK, shared: tuple[str, ...] = (), **options: object
) -> MoveDraft:
    picture = MovePicture(
        vm_uuid="u", vm_name="web", source_uri="qemu+ssh://a/system", target_uri="qemu+ssh://b/system",
        source_name="a", target_name="b", is_running=True, memory_bytes=1 << 30, dirty_bytes_s=None, disks=disks,
        checks=(), link=Link(1e8, "assumed"),
    )  # fmt: skip
    request = MoveRequest(kind, options=replace(MoveOptions(), **options))  # type: ignore[arg-type]
    return MoveDraft(kind, picture, request, MARK, copies=copies_for(picture, kind, MARK), shared=shared)


def test_a_chain_is_copied_from_below_and_each_copy_builds_on_the_one_before() -> None:
    assert [(image["source_path"], image["path"], image["backing"]) for image in images_of(draft(CHAIN))] == [
        ("/here/base.qcow2", f"/there/base.moved-{MARK}.qcow2", ""),
        ("/here/mid.qcow2", f"/there/mid.moved-{MARK}.qcow2", f"/there/base.moved-{MARK}.qcow2"),
        ("/here/web.qcow2", f"/there/web.moved-{MARK}.qcow2", f"/there/mid.moved-{MARK}.qcow2"),
    ]


def test_a_base_that_the_target_has_is_not_copied() -> None:
    disk = replace(CHAIN, backing=("/here/base.qcow2",), target_backing="/here/base.qcow2")
    (image,) = images_of(draft(disk))
    assert (image["source_path"], image["backing"]) == ("/here/web.qcow2", "/here/base.qcow2")


def test_two_disks_on_one_base_get_one_copy_of_it() -> None:
    other = replace(CHAIN, target="vdb", source_path="/here/data.qcow2")
    assert [image["source_path"] for image in images_of(draft(CHAIN, other))] == [
        "/here/base.qcow2", "/here/mid.qcow2", "/here/web.qcow2", "/here/data.qcow2",
    ]  # fmt: skip


def test_what_a_guest_wrote_into_a_raw_disk_names_no_base() -> None:
    disk = replace(CHAIN, format="raw", backing=("/etc/shadow",))
    assert [image["source_path"] for image in images_of(draft(disk))] == ["/here/web.qcow2"]


def test_bases_are_copied_while_the_guest_runs_and_its_own_disks_while_it_stands_still() -> None:
    made = draft(CHAIN)
    (bases,) = copy_bases_step(made)
    carry = next(step for step in hand_over_steps(made) if step.verb == "move.carry")
    assert bases.args["while_running"] is True
    assert [image["source_path"] for image in bases.args["images"]] == ["/here/base.qcow2", "/here/mid.qcow2"]  # type: ignore[union-attr, index, call-overload]
    assert [image["source_path"] for image in carry.args["images"]] == ["/here/web.qcow2"]  # type: ignore[union-attr, index, call-overload]


def test_disks_left_behind_are_removed_unless_they_are_to_be_kept_and_their_bases_never() -> None:
    (step,) = forget_disks_step(draft(CHAIN))
    assert step.args["paths"] == ["/here/web.qcow2"]
    assert forget_disks_step(draft(CHAIN, keep_source_disks=True)) == ()


def test_shared_disks_leave_nothing_to_make_to_copy_or_to_forget() -> None:
    made = draft(replace(CHAIN, is_shared=True), shared=("/here",))
    assert make_disks_step(made) == copy_disks_step(made) == forget_disks_step(made) == ()
    assert places(made) == (f"/here/web.moved-{MARK}.save",) * 2


def test_memory_goes_beside_the_disks_of_each_host_where_they_share_nothing() -> None:
    assert places(draft(CHAIN)) == (f"/here/web.moved-{MARK}.save", f"/there/web.moved-{MARK}.save")
    assert places(draft())[0].startswith("/var/lib/libvirt/qemu/save/")


def test_a_name_with_a_slash_makes_no_path() -> None:
    made = draft()
    odd = replace(made, picture=replace(made.picture, vm_name="../../etc/x"))
    assert "/../" not in places(odd)[0]


# Headers


def head(backing: str, room: int = 512) -> bytes:
    name = backing.encode()
    fixed = struct.pack(">4sIQIIQI", b"QFI\xfb", 3, 304, len(name), 9, 1 << 20, 0)
    return (fixed.ljust(304, b"\0") + name).ljust(room, b"\0")


def test_a_copy_builds_on_another_path_longer_or_shorter() -> None:
    for path in ("/b", "/there/" + "long" * 30 + ".qcow2"):
        changed = rebased(head("/here/base.qcow2"), path)
        assert backing_name(changed) == path
        assert len(changed) == 512
        assert changed[:8] == head("")[:8]


def test_a_path_that_does_not_fit_into_the_header_is_refused() -> None:
    with pytest.raises(UsageError, match="no room"):
        rebased(head("/here/base.qcow2"), "/" + "x" * 300)


def test_what_builds_on_nothing_is_not_changed() -> None:
    alone = struct.pack(">4sIQIIQI", b"QFI\xfb", 3, 0, 0, 16, 1 << 20, 0).ljust(512, b"\0")
    assert backing_name(alone) == ""
    with pytest.raises(UsageError, match="no other file"):
        rebased(alone, "/x")
    with pytest.raises(UsageError, match="no qcow2"):
        rebased(b"\0" * 512, "/x")
    assert (cluster_bytes(alone), cluster_bytes(b"\0" * 512)) == (65536, 0)
