"""What a target lacks, or has already, and what keeps a VM on its host: the plan says all of it, each with what to do,
and nothing changes. Few guests with much that is in the way of each."""

from __future__ import annotations

import libvirt
import pytest

from host.errors import HvtuiError
from host.plan import Plan
from tests.support import lab_guest, lab_setup
from tests.support.lab_saved import SavedGuests
from tests.support.live_moves import Pair, runs_at_the_source_alone, states, volumes
from vm import inventory
from vm.move import plan_move
from vm.move_model import MoveKind, MoveRequest


def reasons(plan: Plan) -> str:
    """Why the plan cannot run; checks that it does not, and that each reason has a remedy."""
    with pytest.raises(HvtuiError):
        plan.raise_if_blocked()
    assert not plan.steps
    assert all(blocker.remedy for blocker in plan.blockers), plan.blockers
    return "; ".join(f"{blocker.reason} | {blocker.remedy}" for blocker in plan.blockers)


def test_a_running_guest_stays_whole_where_the_target_lacks_its_network_or_has_its_name_or_uuid(
    pair: Pair, guests: SavedGuests
):
    guest = guests.start(pair.here)
    there = pair.there.connect()

    there.networkLookupByName("default").destroy()
    assert "the network default is not active on lab2 | Start it" in reasons(pair.plan("count"))
    there.networkLookupByName("default").undefine()
    assert "lab2 has no network default | Define it there" in reasons(pair.plan("count", MoveKind.QUICK))
    lab_setup.set_up(pair.there)

    other = there.defineXML(lab_guest.definition("count"))
    plan = pair.plan("count")
    assert "lab2 has another VM named count | Rename one of them" in reasons(plan)
    with pytest.raises(HvtuiError, match="another VM named count"):
        pair.run(plan)
    assert other.UUIDString() != guest.domain.UUIDString() and states(pair, "count") == ("running", "off")
    other.undefine()

    twin = there.defineXML(lab_guest.definition("twin", uuid=guest.domain.UUIDString()))
    says = "lab2 has a definition with the same UUID (twin), which is not running"
    assert says in reasons(pair.plan("count", MoveKind.QUICK))
    twin.undefine()

    runs_at_the_source_alone(pair, guest)
    assert lab_guest.disk_checksum(pair.here, guest.disk.path) == guest.disk.checksum


CD = "<disk type='file' device='cdrom'><source file='{}'/><target dev='hda' bus='ide'/><readonly/></disk>"
CARD = "<interface type='network'><source network='only-here'/></interface>"
CPU = (
    "<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model>"
    "<feature policy='require' name='avx512f'/></cpu>"
)
HOST_DEVICE = (
    "<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x00' slot='0x1f'"
    " function='0x0'/></source></hostdev>"
)
ISO = "/var/lib/libvirt/images/system.iso"


def defined(pair: Pair, *, pool: str = "shared", more: str = "", cache: str = "none") -> libvirt.virDomain:
    """A VM with a processor and a CD that the target has not, and a network that only its own host has."""
    here = pair.here.connect()
    disk = lab_guest.make_disk(pair.here, "count", pool=pool)
    pair.here.run(["truncate", "-s", "1M", ISO])
    here.networkDefineXML("<network><name>only-here</name></network>").create()
    for each in here.listAllStoragePools():
        each.refresh()
    xml = lab_guest.definition("count", disk=disk.path, cache=cache, more=CD.format(ISO) + CARD + more)
    return here.defineXML(xml.replace("<on_crash>", f"{CPU}<on_crash>"))


HAS_NOT = (
    "lab2 cannot give the guest the CPU that it runs with (qemu64)",
    "a CD is in its drive hda that lab2 has not",
    "lab2 has no network only-here | Define it there",
)


def test_a_running_vm_is_told_all_that_is_in_its_way(pair: Pair):
    defined(pair, cache="unsafe").create()

    for kind in (MoveKind.LIVE, MoveKind.QUICK):
        told = reasons(pair.plan("count", kind))
        assert not [words for words in (*HAS_NOT, "its disk vda has the cache mode 'unsafe'") if words not in told]
    assert "a CD is in its drive" not in reasons(pair.plan("count", eject=True))
    assert states(pair, "count") == ("running", "gone")
    assert ISO in pair.here.connect().lookupByName("count").XMLDesc()


def test_a_vm_that_is_off_is_told_all_that_is_in_its_way(pair: Pair):
    domain = defined(pair, pool="default", more=HOST_DEVICE)
    # What a newer QEMU made, libvirt reads from its own files without asking this one.
    pair.here.run(["sed", "-i", "s/machine='[^']*'/machine='pc-i440fx-99.0'/", "/etc/libvirt/qemu/count.xml"])
    pair.here.restart_libvirtd()
    elsewhere = MoveRequest(peer_uri=pair.there.peer_uri, pools={"": "nowhere"})
    vm = inventory.find(pair.source, "count")

    told = reasons(plan_move(pair.source, pair.target, vm, elsewhere))
    assert "lab2 has no storage pool nowhere" in told and "a CD is in its drive hda that lab2 has not" in told
    for pool in pair.there.connect().listAllStoragePools():
        pool.destroy()
    plan = pair.plan("count")

    told = reasons(plan)
    wanted = (
        "lab2 has no network only-here | Define it there",
        "lab2 does not know the machine type pc-i440fx-99.0",
        "lab2 has no place for a copy of its disk vda: no pool is alike",
    )
    assert not [words for words in wanted if words not in told]
    assert any("it has a device of its host: it may not start" in warning for warning in plan.warnings)
    assert "it has a device of its host: they cannot go along" in reasons(pair.plan("count", MoveKind.LIVE))
    assert states(pair, "count") == ("off", "gone")
    assert volumes(pair.here) == {"count.qcow2", "system.iso"} and volumes(pair.there) == set()
    assert domain.UUIDString() == vm.uuid


def test_checkpoints_in_files_of_their_own_go_with_no_move(pair: Pair):
    disk = lab_guest.make_disk(pair.here, "count")
    domain = pair.here.connect().defineXML(lab_guest.definition("count", disk=disk.path))
    for host in (pair.here, pair.there):
        host.connect().storagePoolLookupByName("shared").refresh()
    assert pair.plan("count").steps
    xml = (
        "<domainsnapshot><name>before</name><disks><disk name='vda' snapshot='external'>"
        "<source file='/srv/shared/images/before.qcow2'/></disk></disks></domainsnapshot>"
    )
    domain.snapshotCreateXML(xml, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)

    assert "in files of their own (before)" in reasons(pair.plan("count"))
