"""What a live move is made of: copies, definitions, forecasts, progress, flags. Pure functions."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any
from xml.etree.ElementTree import fromstring

import libvirt
import pytest

from host.errors import UsageError
from vm.move_copies import boot_copies_for, copies_for, is_of_a_move, marked_name, shared_directories
from vm.move_flags import flags_of, parameters_of
from vm.move_forecast import forecast, in_words
from vm.move_lanes import lanes, limited
from vm.move_live import live_step
from vm.move_model import Link, MoveDisk, MoveDraft, MoveKind, MoveOptions, MovePicture, MoveRequest
from vm.move_progress import Moment, bytes_a_second, grant, mib_a_second, milliseconds, moment_of, words_of
from vm.move_sides import mark_in, with_mark, without_mark
from vm.move_xml import fitted, sources

MIB = 1024**2
MARK = "0a1b2c3d"
VDA = MoveDisk("vda", "disk", "/images/web.qcow2", "qcow2", 100 * MIB, 10 * MIB, is_shared=False,
               target_pool="default", target_pool_path="/srv")  # fmt: skip


def picture(*disks: MoveDisk, **changes: Any) -> MovePicture:
    link = Link(100 * MIB, "measured by job 7")
    usual = MovePicture("u", "web", "a://", "b://", "lab1", "lab2", is_running=True, memory_bytes=1000 * MIB,
                        dirty_bytes_s=0.0, disks=disks, checks=(), link=link)  # fmt: skip
    return replace(usual, **changes)


# Copies


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("web.qcow2", "web.moved-0a1b2c3d.qcow2"),
        ("web.moved-ffffffff.qcow2", "web.moved-0a1b2c3d.qcow2"),
        ("web", "web.moved-0a1b2c3d"),
        ("a.b.qcow2", "a.b.moved-0a1b2c3d.qcow2"),
    ],
)
def test_a_copy_carries_the_mark_of_its_move_and_no_older_one(name: str, marked: str):
    assert marked_name(name, MARK) == marked


def test_only_what_the_target_does_not_see_is_copied():
    disks = (
        VDA,
        replace(VDA, target="vdb", is_shared=True),
        replace(VDA, target="sda", device="cdrom"),
        replace(VDA, target="vdc", is_network=True, source_path="rbd://x/y"),
    )

    (copy,) = copies_for(picture(*disks), MoveKind.LIVE_STORAGE, MARK)

    assert (copy.target, copy.path) == ("vda", "/srv/web.moved-0a1b2c3d.qcow2")
    assert not copies_for(picture(*disks), MoveKind.LIVE, MARK)


def test_a_copy_builds_on_an_image_that_the_target_has_only_when_all_can():
    linked = replace(VDA, backing=("/lib/base.qcow2",), target_backing="/lib/base.qcow2", backing_format="qcow2")
    alone = replace(VDA, target="vdb", backing=("/other/base.qcow2",))

    (copy,) = copies_for(picture(linked), MoveKind.LIVE_STORAGE, MARK)
    both = copies_for(picture(linked, alone), MoveKind.LIVE_STORAGE, MARK)

    assert (copy.backing, copy.backing_format) == ("/lib/base.qcow2", "qcow2")
    assert [each.backing for each in both] == ["", ""]


def test_the_directories_of_disks_that_change_hands_are_to_be_proved_shared():
    disks = (replace(VDA, is_shared=True), replace(VDA, target="sda", device="cdrom", source_path="/isos/a.iso"))

    assert shared_directories(picture(*disks), MoveKind.LIVE) == ("/images",)
    assert shared_directories(picture(VDA), MoveKind.LIVE) == ("/images",)
    assert shared_directories(picture(VDA), MoveKind.LIVE_STORAGE) == ()


# Definitions

XML = """<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>web</name><devices>
<disk type='volume' device='disk'><driver name='qemu' type='raw'/><source pool='p' volume='v' index='1'/>
<backingStore type='file'><source file='/base'/></backingStore><target dev='vda'/></disk>
<disk type='file' device='cdrom'><source file='/a.iso'/><target dev='sda'/></disk>
</devices><qemu:commandline><qemu:arg value='-foo'/></qemu:commandline></domain>"""
COPY = {"target": "vda", "path": "/srv/x.qcow2", "format": "qcow2"}


def test_a_definition_is_fitted_to_copied_disks_and_keeps_what_it_does_not_know():
    text = fitted(XML, [COPY], emptied=["sda"], mark=MARK)
    root = fromstring(text)  # noqa: S314 - the test's own

    assert sources(text) == {"vda": "/srv/x.qcow2", "sda": ""}
    disk = root.find("devices/disk")
    assert disk is not None
    assert disk.get("type") == "file" and disk.find("backingStore") is None
    assert "qemu:arg" in text
    assert mark_in(root) == MARK


def test_files_that_it_boots_from_lie_elsewhere_too_and_are_no_disks_for_libvirt():
    kernel = replace(VDA, target="kernel", device="file", source_path="/images/a.moved-ffffffff.vmlinuz", format="raw")
    (copy,) = boot_copies_for(picture(VDA, boot_files=(kernel,)), MoveKind.LIVE, MARK)
    text = fitted("<domain><os><kernel>/x</kernel><initrd>/y</initrd></os></domain>", [asdict(copy)])

    assert copy.path == "/srv/a.moved-0a1b2c3d.vmlinuz"
    assert fromstring(text).findtext("os/kernel") == copy.path  # noqa: S314 - the test's own
    assert fromstring(text).findtext("os/initrd") == "/y"  # noqa: S314 - the test's own
    assert flags_of({**ARGS, "copies": [asdict(copy)]}) == flags_of({**ARGS, "copies": []})
    assert boot_copies_for(picture(boot_files=(kernel,)), MoveKind.DEFINITION, MARK) == ()
    assert [is_of_a_move(path) for path in (kernel.source_path, "/images/hvtui-tiny-1.vmlinuz")] == [True, False]


def test_a_mark_is_taken_out_without_a_trace_of_others():
    root = fromstring("<domain><metadata><x xmlns='urn:x'/></metadata></domain>")  # noqa: S314 - the test's own

    assert mark_in(with_mark(with_mark(root, "11111111"), MARK)) == MARK
    assert mark_in(without_mark(root)) == ""
    assert root.find("metadata/{urn:x}x") is not None


# Forecasts


def test_an_idle_guest_takes_as_long_as_its_memory_does():
    found = forecast(picture(), MoveKind.LIVE)

    assert found.converges
    assert 10 < found.total_s < 12
    assert found.downtime_s < 0.2


def test_a_guest_that_writes_takes_more_rounds_and_one_that_writes_too_fast_never_ends():
    busy = forecast(picture(dirty_bytes_s=50.0 * MIB), MoveKind.LIVE)
    wild = forecast(picture(dirty_bytes_s=200.0 * MIB), MoveKind.LIVE)

    assert busy.converges and busy.total_s > 15 and busy.transfer_bytes > 1500 * MIB
    assert not wild.converges
    assert "may not come to an end" in in_words(wild)[-1]


def test_copied_disks_and_a_limit_take_their_time():
    live = forecast(picture(VDA), MoveKind.LIVE)
    copied = forecast(picture(VDA), MoveKind.LIVE_STORAGE)
    slow = forecast(picture(), MoveKind.LIVE, MoveOptions(bandwidth_bytes_s=10 * MIB))

    assert copied.transfer_bytes == live.transfer_bytes + 10 * MIB
    assert slow.total_s > 9 * live.total_s


def test_a_quick_move_stands_still_for_all_of_it():
    found = forecast(picture(), MoveKind.QUICK)

    assert found.downtime_s > 5
    assert in_words(found)[0].startswith("predicted ")
    assert "measured by job 7" in in_words(found)[0]


# Progress


def test_zero_totals_are_the_preparation():
    assert words_of(moment_of({"type": 2, "time_elapsed": 10, "memory_total": 0})) == "preparing"
    assert moment_of({}).fraction is None


def test_a_moment_says_how_much_is_left_and_how_fast():
    moment = moment_of(
        {"data_total": 128 * MIB, "data_remaining": 32 * MIB, "memory_bps": 10 * MIB, "memory_dirty_rate": 256,
         "memory_page_size": 4096, "memory_iteration": 3, "auto_converge_throttle": 20, "downtime": 40}
    )  # fmt: skip

    assert moment.fraction == 0.75
    assert words_of(moment) == (
        "32M of 128M left, 10M/s, downtime 40 ms, dirty 1M/s, guest slowed by 20%, memory, round 3"
    )


@pytest.mark.parametrize(("text", "wanted"), [("300ms", 300), ("0.5s", 500), ("20", 20), (" 2 S ", 2000)])
def test_a_downtime_is_read(text: str, wanted: int):
    assert milliseconds(text) == wanted


@pytest.mark.parametrize("text", ["", "0", "-1s", "soon", "nan", "1e9s"])
def test_what_is_no_downtime_is_refused(text: str):
    with pytest.raises(UsageError, match="is no downtime"):
        milliseconds(text)


def test_a_bandwidth_is_read_with_or_without_its_second():
    assert bytes_a_second("100M/s") == bytes_a_second("100M") == 100 * MIB
    assert mib_a_second(100) == 1


class _Domain:
    """Records what libvirt is told."""

    def __init__(self, error: libvirt.libvirtError | None = None) -> None:
        self.told: list[tuple[str, int, int]] = []
        self._error = error

    def migrateSetMaxSpeed(self, speed: int, flags: int) -> None:  # noqa: N802 - libvirt's name
        self.told.append(("speed", speed, flags))

    def migrateSetMaxDowntime(self, downtime: int, flags: int) -> None:  # noqa: N802 - libvirt's name
        self.told.append(("downtime", downtime, flags))

    def migrateStartPostCopy(self, _flags: int) -> None:  # noqa: N802 - libvirt's name
        raise self._error or AssertionError


def test_wishes_become_calls():
    domain = _Domain()

    assert grant(domain, "bandwidth", "50M") == "bandwidth limited to 50M/s"
    assert grant(domain, "downtime", "1s") == "downtime limited to 1000 ms"
    in_postcopy = libvirt.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY
    assert domain.told == [("speed", 50, 0), ("speed", 50, in_postcopy), ("downtime", 1000, 0)]


def test_a_wish_that_cannot_be_granted_is_told_and_nothing_more():
    assert "is not a size" in grant(_Domain(), "bandwidth", "much")
    assert "cannot be changed" in grant(_Domain(libvirt.libvirtError("no post-copy")), "postcopy", "yes")
    assert grant(_Domain(), "colour", "red") == ""


# Flags

ARGS: dict[str, Any] = {
    "persistent": True, "proved_shared": False, "auto_converge": False, "connections": 1, "compress": False,
    "tls": False, "tunnelled": False, "postcopy": False, "copies": [],
}  # fmt: skip


def test_libvirts_safety_check_is_left_out_only_for_what_was_proved_shared():
    assert not flags_of(ARGS) & libvirt.VIR_MIGRATE_UNSAFE
    assert flags_of({**ARGS, "proved_shared": True}) & libvirt.VIR_MIGRATE_UNSAFE


def test_a_transient_vm_stays_one():
    flags = flags_of({**ARGS, "persistent": False})

    assert not flags & (libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE)


@pytest.mark.parametrize(
    ("backing", "flag"),
    [("", libvirt.VIR_MIGRATE_NON_SHARED_DISK), ("/base", libvirt.VIR_MIGRATE_NON_SHARED_INC)],
)
def test_disks_are_copied_whole_or_above_what_they_build_on(backing: str, flag: int):
    assert flags_of({**ARGS, "copies": [{"target": "vda", "backing": backing}]}) & flag


class _Defined:
    """A domain whose definition is asked for."""

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 - libvirt's name
        return "<domain/>"


@pytest.mark.parametrize(("connections", "method"), [(1, "xbzrle"), (4, "zstd")])
def test_memory_is_compressed_in_the_way_that_its_connections_can(connections: int, method: str):
    own = {"compress": True, "connections": connections, "postcopy": True, "bandwidth_bytes_s": 8 * MIB}
    args = {**ARGS, "mark": MARK, "migrate_uri": "", **own}

    told = parameters_of(args, _Defined())

    assert told[libvirt.VIR_MIGRATE_PARAM_COMPRESSION] == method
    assert told[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] == told[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] == 8


def test_a_moment_without_an_end_has_no_downtime():
    assert Moment().downtime_s is None


def test_the_limits_of_the_configuration_are_those_of_the_lanes():
    found = limited(lanes("lab1", "lab2"), per_host=5, per_link=3)

    assert [(lane.name, lane.limit) for lane in found] == [("host:lab1", 5), ("host:lab2", 5), ("link:lab1>lab2", 3)]


def test_the_virsh_line_of_a_move_with_disks_names_both_definitions_that_it_takes():
    found = picture(VDA)
    copies = copies_for(found, MoveKind.LIVE_STORAGE, MARK)

    (line,) = live_step(MoveDraft(MoveKind.LIVE_STORAGE, found, MoveRequest(), MARK, copies=copies)).commands

    assert "--copy-storage-all --migrate-disks vda --xml web-at-lab2.xml --persistent-xml web-at-lab2.xml" in line
