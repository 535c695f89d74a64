"""The tiny guest built from the distribution's packages, as on a host without a kernel of its own."""

from __future__ import annotations

import gzip

from host import jobs
from host.job_model import JobState
from vm import tiny, tiny_sources
from vm.create import plan_create, tiny_request
from vm.create_steps import tiny_volume_names


def test_the_guest_comes_from_packages_where_the_host_has_no_kernel(tmp_path, monkeypatch, tiny_guest):
    """Downloads what the machine may lack; the result is the same as that of the build before, bit for bit."""
    monkeypatch.setenv("HVTUI_CACHE_DIR", str(tmp_path / "fresh-cache"))
    notes: list[str] = []
    built = tiny.build(lambda _fraction, note: notes.append(note))
    assert built.has_agent, built.note
    assert notes[-1].startswith("built from Linux ")
    assert built.key == tiny.identity()
    assert gzip.decompress(built.initrd.read_bytes())[:6] == b"070701"
    assert tiny_sources.is_static(tiny_sources.host_busybox() or tmp_path)
    if built.key == tiny_guest.key:
        assert built.initrd.read_bytes() == tiny_guest.initrd.read_bytes()
    assert sorted(path.name for path in (tmp_path / "fresh-cache/tiny").iterdir()) == [".lock", built.key]


def test_a_half_uploaded_kernel_is_uploaded_again_and_a_whole_one_is_not(real_host, journal, tiny_guest):
    def make(name: str) -> dict[str, object]:
        job = jobs.submit(plan_create(real_host, only_defined(name)), real_host, journal)
        assert job.state is JobState.DONE, job.error
        return dict(job.steps[0].result or {})

    kernel, initrd = tiny_volume_names(tiny_guest.key)
    assert make("one")["made"] == [kernel, initrd]
    assert make("two")["made"] == []
    with real_host.calls("damage") as connection:
        volume = connection.storagePoolLookupByName("default").storageVolLookupByName(kernel)
        stream = connection.newStream(0)
        volume.upload(stream, 0, 5, 0)
        stream.send(b"wrong")
        stream.finish()
        volume_two = connection.storagePoolLookupByName("default").storageVolLookupByName(initrd)
        volume_two.resize(volume_two.info()[1] + 512)
    assert make("three")["made"] == [kernel, initrd]
    undone = jobs.submit(jobs.plan_undo(journal.jobs()[0], real_host), real_host, journal)
    assert undone.state is JobState.DONE
    with real_host.calls("look") as connection:
        left = connection.storagePoolLookupByName("default").listVolumes()
    assert sorted(left) == sorted([kernel, initrd]), "other VMs boot from it"


def only_defined(name: str):
    from dataclasses import replace

    return replace(tiny_request(name), network="none", start=False)
