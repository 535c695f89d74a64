"""A guest whose kernel lies on its host alone, as that of a tiny VM does: it takes its kernel along, in every kind."""

from __future__ import annotations

import libvirt

from host.job_model import JobState
from tests.support import guest as inside
from tests.support.lab import Lab
from tests.support.lab_guest import PLACE
from tests.support.lab_host import LabHost
from tests.support.lab_saved import RunningGuest, SavedGuests
from tests.support.live_moves import Pair, runs_at_the_source_alone, runs_at_the_target_alone, states, volumes
from tests.support.waiting import wait_for
from vm.domain_xml import parse
from vm.move_model import MoveKind

OWN = "/var/lib/libvirt/images"
SAVED = "/srv/shared/saved/with-a-kernel-of-its-own"
FILES = {"vmlinuz", "initrd"}


def with_a_kernel_of_its_own(guests: SavedGuests, host: LabHost) -> RunningGuest:
    """A guest that runs, with disk, kernel and initial RAM disk in a directory of its host."""
    guest = guests.start(host, pool="default")
    host.run(["cp", f"{PLACE}/vmlinuz", f"{PLACE}/initrd", f"{OWN}/"])
    connection = guest.domain.connect()
    connection.storagePoolLookupByName("default").refresh()
    definition = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace(f">{PLACE}/", f">{OWN}/")
    guest.domain.save(SAVED)
    connection.defineXML(definition)
    connection.restoreFlags(SAVED, definition, 0)
    host.run(["rm", SAVED])
    return guest


def boots_from(host: LabHost, name: str = "count") -> list[str]:
    """The kernel and the initial RAM disk of its definition, by their names in the host's own directory."""
    root = parse(host.connect().lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    paths = [root.findtext(f"os/{tag}", "") for tag in ("kernel", "initrd")]
    assert all(path.startswith(f"{OWN}/") for path in paths), paths
    return [path.rpartition("/")[2] for path in paths]


def moved(pair: Pair, kind: MoveKind) -> None:
    job = pair.run(pair.plan("count", kind))
    assert job.state is JobState.DONE, job.error


def test_it_takes_its_kernel_along(lab: Lab, guests: SavedGuests) -> None:
    there, on, back = Pair(lab, "lab1", "lab2"), Pair(lab, "lab2", "lab3"), Pair(lab, "lab3", "lab1")
    guest = with_a_kernel_of_its_own(guests, there.here)

    moved(there, MoveKind.LIVE_STORAGE)
    runs_at_the_target_alone(there, guest)
    assert set(boots_from(there.there)) < volumes(there.there)
    assert volumes(there.here) == FILES  # they may be a template's, or other VMs'

    moved(on, MoveKind.QUICK)
    runs_at_the_target_alone(on, guest)
    assert set(boots_from(on.there)) < volumes(on.there)
    assert volumes(on.here) == set()  # what the first move brought was its own

    guest.on(on.there).destroy()
    moved(back, MoveKind.OFFLINE)
    assert states(back, "count") == ("gone", "off")
    assert volumes(back.here) == set()
    domain = guest.on(back.there)
    domain.create()
    wait_for(lambda: inside.answers(domain), what="the agent of the guest that booted from its copied kernel")
    for pair in (there, on, back):
        pair.close()


def test_a_move_that_fails_leaves_no_kernel_at_the_target(lab: Lab, guests: SavedGuests) -> None:
    pair = Pair(lab)
    guest = with_a_kernel_of_its_own(guests, pair.here)
    plan = pair.plan("count", MoveKind.LIVE_STORAGE)
    twin = "<domain type='qemu'><name>count</name><memory>1024</memory><os><type>hvm</type></os></domain>"
    pair.there.connect().defineXML(twin)

    job = pair.run(plan)

    assert job.state is JobState.FAILED
    pair.there.connect().lookupByName("count").undefine()
    runs_at_the_source_alone(pair, guest)
    assert volumes(pair.there) == set()
    pair.close()
