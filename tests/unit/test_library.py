"""Reading a library: in how many calls, and what a bad index, bad manifests and half-made changes do to it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import libvirt
import pytest

from host import job_process, pool_room, volumes
from host.connection import Host, open_host
from host.errors import NotFound, Unsupported, WrongState
from tests.support import libraries
from tests.support.libraries import put, put_index, template
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.rpc_proxy import RpcProxy
from vm import library, template_leftovers
from vm.library_index import INDEX_NAME, LIMIT_BYTES
from vm.template_manifest import to_toml

CALLS_OF_A_READING = 6  # the pool, its XML, whether it is active, its volumes, its room, the index


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateLibvirtd]:
    with PrivateLibvirtd() as running:
        yield running


@pytest.fixture
def proxy(daemon: PrivateLibvirtd) -> Iterator[RpcProxy]:
    with tempfile.TemporaryDirectory(dir="/tmp") as short, RpcProxy(Path(short) / "sock", daemon.socket) as running:
        yield running


@pytest.fixture
def host(daemon: PrivateLibvirtd) -> Iterator[Host]:
    opened = open_host(daemon.uri, name="library")
    yield opened
    opened.close()


@pytest.fixture
def pool(daemon: PrivateLibvirtd, host: Host) -> Iterator[libvirt.virStoragePool]:
    with libraries.pool(host, daemon.images) as made:
        yield made


@pytest.fixture
def directory(daemon: PrivateLibvirtd, pool: libvirt.virStoragePool) -> Path:
    """The pool's directory."""
    return daemon.images


def read(host: Host, pool: libvirt.virStoragePool):
    pool.refresh(0)
    return library.read(host)


def names(found) -> list[str]:
    return [each.name for each in found.templates]


# How many calls


@pytest.mark.parametrize("count", [10, 500])
def test_a_library_is_read_in_the_same_few_calls_whatever_its_size(
    daemon: PrivateLibvirtd, pool: libvirt.virStoragePool, directory: Path, proxy: RpcProxy, count: int
) -> None:
    templates = [template(f"debian-{number:03}") for number in range(count)]
    put(directory, *templates)
    put_index(directory, templates)
    pool.refresh(0)
    counted = open_host(f"qemu+unix:///system?socket={proxy.path}", name="counted")
    assert counted.is_local  # opens it, and asks once for its name
    proxy.taken()
    found = library.read(counted)
    calls = proxy.taken().total()
    counted.close()
    assert found.templates == tuple(templates)
    assert (found.problems, found.others, found.leftovers) == ((), (), ())
    assert calls == CALLS_OF_A_READING


def test_each_manifest_that_the_index_does_not_know_costs_one_call(
    daemon: PrivateLibvirtd, pool: libvirt.virStoragePool, directory: Path, proxy: RpcProxy
) -> None:
    templates = [template(f"debian-{number:03}") for number in range(20)]
    put(directory, *templates)
    put_index(directory, templates[3:])
    pool.refresh(0)
    counted = open_host(f"qemu+unix:///system?socket={proxy.path}", name="counted")
    assert counted.is_local  # opens it, and asks once for its name
    proxy.taken()
    assert library.read(counted).templates == tuple(templates)
    assert proxy.taken().total() == CALLS_OF_A_READING + 3
    counted.close()


# The index is only a shortcut


@pytest.mark.parametrize(
    "index",
    [
        None,
        b"",
        b"{",
        b"\xff\xfe",
        b'{"version": 9, "manifests": {}}',
        b'{"version": 1, "manifests": {}}',
        b'{"version": 1, "manifests": {"debian-12.r1-00000000.template.toml": {}}}',
        b"[" * 100_000,
        b" " * (LIMIT_BYTES + 1),
    ],
    ids=["missing", "empty", "half", "no text", "newer", "old", "of another", "deep", "huge"],
)
def test_a_bad_index_loses_nothing(
    host: Host, pool: libvirt.virStoragePool, directory: Path, index: bytes | None
) -> None:
    templates = (template("debian-12"), template("tiny"))
    put(directory, *templates)
    if index is not None:
        (directory / INDEX_NAME).write_bytes(index)
    found = read(host, pool)
    assert (found.templates, found.problems) == (templates, ())


def test_an_index_that_lies_about_a_manifest_is_not_believed(
    host: Host, pool: libvirt.virStoragePool, directory: Path
) -> None:
    right = template("debian-12")
    put(directory, right)
    put_index(directory, [right])
    text = (directory / INDEX_NAME).read_text().replace("debian-12-0a1b2c3d.qcow2", "../../etc/shadow")
    (directory / INDEX_NAME).write_text(text)
    assert read(host, pool).templates == (right,)


def test_what_the_index_still_names_is_not_listed_when_its_manifest_is_gone(
    host: Host, pool: libvirt.virStoragePool, directory: Path
) -> None:
    gone, left = template("gone"), template("left")
    put(directory, left)
    put_index(directory, [gone, left])
    assert names(read(host, pool)) == ["left"]


# Bad manifests


HOSTILE = {
    "huge": b"x" * 10_000_000,
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "half": to_toml(template("bad")).encode()[:100],
    "of another": to_toml(template("other")).encode(),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_manifest_is_a_problem_and_hides_no_other(
    host: Host, pool: libvirt.virStoragePool, directory: Path, content: bytes
) -> None:
    good = template("good")
    put(directory, good)
    (directory / "bad.r1-00000000.template.toml").write_bytes(content)
    found = read(host, pool)
    assert found.templates == (good,)
    (problem,) = found.problems
    assert problem.startswith("bad.r1-00000000.template.toml: ")
    assert len(problem) < 500


def test_names_with_escapes_are_harmless_to_show(host: Host, pool: libvirt.virStoragePool, directory: Path) -> None:
    """libvirt itself leaves out names with control characters, and no others."""
    (directory / "\u202ered.r1-00000000.template.toml").write_text("x")
    (directory / "\u202e.iso").write_text("x")
    found = read(host, pool)
    assert found.templates == ()
    assert found.problems
    assert all(problem.isprintable() for problem in found.problems)
    assert len(found.others) == 2


def test_a_template_whose_image_is_gone_is_told(host: Host, pool: libvirt.virStoragePool, directory: Path) -> None:
    put(directory, template("debian-12"), with_images=False)
    found = read(host, pool)
    assert names(found) == ["debian-12"]
    assert found.problems == ("debian-12: its image debian-12-0a1b2c3d.qcow2 is not in the pool",)


def test_the_newest_revision_counts_and_the_others_are_leftovers(
    host: Host, pool: libvirt.virStoragePool, directory: Path
) -> None:
    old, new = template("debian-12", revision=9), template("debian-12", revision=10)
    put(directory, old, new)
    found = read(host, pool)
    assert found.templates == (new,)
    assert found.leftovers == (old.manifest,)
    assert found.problems == ()


def test_an_older_revision_counts_where_the_newest_is_a_half(
    host: Host, pool: libvirt.virStoragePool, directory: Path
) -> None:
    old = template("debian-12")
    put(directory, old)
    half = "debian-12.r2-00000000.template.toml"
    (directory / half).write_text("name = ")
    found = read(host, pool)
    assert found.templates == (old,)
    assert found.leftovers == (half,)
    assert len(found.problems) == 1


def test_two_of_one_revision_are_told(host: Host, pool: libvirt.virStoragePool, directory: Path) -> None:
    first = template("debian-12")
    second = replace(first, description="another", manifest="")
    second = replace(second, manifest=library_name(second))
    put(directory, first, second)
    found = read(host, pool)
    assert len(found.templates) == 1
    assert "has the revision of" in found.problems[0]


def library_name(each) -> str:
    from vm.template_manifest import manifest_name

    return manifest_name(each)


def test_what_no_template_uses_is_listed_apart(host: Host, pool: libvirt.virStoragePool, directory: Path) -> None:
    put(directory, template("debian-12"))
    put_index(directory, [])
    (directory / "debian.iso").write_bytes(b"x")
    (directory / "web.r1-00000000.hardware.toml").write_bytes(b"x")
    assert read(host, pool).others == ("debian.iso",)


# No library, and none that can be used


def test_a_host_without_a_library_has_none(host: Host) -> None:
    found = library.read(host, "nowhere")
    assert not found.exists
    with pytest.raises(NotFound, match="no such library"):
        library.find(host, "debian-12", "nowhere")


def test_a_library_that_is_not_active_says_how_to_start_it(host: Host, daemon: PrivateLibvirtd, tmp_path: Path) -> None:
    xml = libraries.POOL.format(name="asleep", path=tmp_path)
    asleep = host.connection().storagePoolDefineXML(xml, 0)
    try:
        assert not library.read(host, "asleep").is_active
        with pytest.raises(WrongState, match="pool-start"):
            library.find(host, "debian-12", "asleep")
    finally:
        asleep.undefine()


def test_a_pool_without_files_is_no_library(open_world) -> None:
    world = open_world("<node><pool type='logical'><name>vg</name><source><device path='/dev/x'/></source>"
        "<target><path>/dev/vg</path></target></pool></node>")  # fmt: skip
    with pytest.raises(Unsupported, match="logical"):
        library.read(world, "vg")


def test_a_name_that_is_not_there_names_the_nearest(host: Host, pool: libvirt.virStoragePool, directory: Path) -> None:
    put(directory, template("debian-12"))
    pool.refresh(0)
    with pytest.raises(NotFound, match="Did you mean debian-12"):
        library.find(host, "debian12")
    assert library.find(host, "debian-12")[1] == template("debian-12")


def test_a_template_that_cannot_be_read_says_why_when_it_is_asked_for(
    host: Host, pool: libvirt.virStoragePool, directory: Path
) -> None:
    (directory / "bad.r1-00000000.template.toml").write_text("x")
    pool.refresh(0)
    with pytest.raises(NotFound, match="not the one that its name stands for"):
        library.find(host, "bad")


# Records of changes


def put_record(directory: Path, name: str, **values: object) -> None:
    (directory / name).write_text(json.dumps(values))


def test_the_record_of_a_dead_process_is_a_leftover_and_that_of_a_living_one_is_not(
    host: Host, pool: libvirt.virStoragePool, directory: Path
) -> None:
    here = os.uname().nodename
    living = job_process.claim_of(os.getppid())
    put_record(directory, "a-00000001.unfinished", machine=here, claim="boot 1 2 -", deed="adding it", volumes=[])
    put_record(directory, "b-00000002.unfinished", machine=here, claim=living, deed="adding it", volumes=[])
    put_record(directory, "c-00000003.unfinished", machine="elsewhere", claim="boot 1 2 -", volumes=[])
    put_record(directory, "d-00000004.unfinished")
    found = read(host, pool)
    assert found.leftovers == ("a-00000001.unfinished", "d-00000004.unfinished")
    assert found.problems[0] == "a: adding it was not finished; the next change clears up after it"
    assert found.others == ()


def test_a_process_finds_its_own_record_alive(host: Host, pool: libvirt.virStoragePool) -> None:
    with host.calls("test") as connection:
        name = template_leftovers.record_name("web", "0a1b2c3d")
        template_leftovers.write_record(connection, "library", name, deed="adding it", volume_names=["x"])
        volume = volumes.find_volume(connection.storagePoolLookupByName("library"), name)
        record = template_leftovers.read_record(volume)
        assert record.template == "web"
        assert record.volumes == ("x",)
        assert not record.is_dead
        template_leftovers.remove_record(connection, "library", name)
        template_leftovers.remove_record(connection, "library", name)
    assert library.read(host).others == ()


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 50_000, '{"volumes": 3}', '{"volumes": ["../x", "/etc/x", 3]}'])
def test_a_record_that_is_damaged_or_hostile_names_no_volumes(
    host: Host, pool: libvirt.virStoragePool, directory: Path, text: str
) -> None:
    (directory / "a-00000001.unfinished").write_text(text)
    pool.refresh(0)
    record = template_leftovers.read_record(pool.storageVolLookupByName("a-00000001.unfinished"))
    assert record.volumes == ()
    assert record.is_dead


# Who needs a template


LINKED = """<domain type='qemu'><name>{name}</name><memory>65536</memory><os><type>hvm</type></os>
<metadata>{metadata}</metadata>
<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>
<target dev='vda' bus='virtio'/></disk></devices></domain>"""
MARK = ("<hvtui:vm xmlns:hvtui='{}'><hvtui:template name='debian-12' revision='1' library='library' linked='yes'/>"
    "</hvtui:vm>")  # fmt: skip


def overlay(path: Path, base: Path) -> Path:
    import subprocess

    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), "--", str(path), "1M"]
    subprocess.run(words, check=True)
    return path


def test_a_vm_on_an_overlay_needs_the_template_and_so_does_an_overlay_of_that(
    host: Host, pool: libvirt.virStoragePool, directory: Path
) -> None:
    made = template("debian-12")
    put(directory, made, template("unused"))
    first = overlay(directory / "first.qcow2", directory / made.images[0].volume)
    second = overlay(directory / "second.qcow2", first)
    lonely = overlay(directory / "lonely.qcow2", directory / made.images[0].volume)
    defined = host.connection().defineXML(LINKED.format(name="web", path=second, metadata=""))
    try:
        found = read(host, pool)
        assert library.linked_vms(host, found, found.templates[0]) == (str(lonely), "web")
        assert library.linked_vms(host, found, found.templates[1]) == ()
    finally:
        defined.undefine()


def test_a_vm_that_says_it_is_linked_counts_where_its_disk_cannot_be_looked_at(
    host: Host, pool: libvirt.virStoragePool, directory: Path
) -> None:
    from vm.domain_xml import HVTUI_NAMESPACE

    put(directory, template("debian-12"))
    metadata = MARK.format(HVTUI_NAMESPACE)
    far = host.connection().defineXML(LINKED.format(name="far", path="/mnt/away/far.qcow2", metadata=metadata))
    try:
        found = read(host, pool)
        assert library.linked_vms(host, found, found.templates[0]) == ("far",)
    finally:
        far.undefine()


def test_the_room_is_that_of_now_and_not_of_the_last_refresh(
    host: Host, pool: libvirt.virStoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, capacity_bytes, _, counted_bytes = pool.info()
    here = SimpleNamespace(f_blocks=capacity_bytes // 4096, f_frsize=4096, f_bavail=3)
    another = SimpleNamespace(f_blocks=capacity_bytes // 4096 + 1, f_frsize=4096, f_bavail=3)
    for seen, free_bytes in ((here, 3 * 4096), (another, counted_bytes)):
        monkeypatch.setattr(pool_room.os, "statvfs", lambda _path, seen=seen: seen)
        assert library.read(host, pool.name()).free_bytes == free_bytes


def test_an_empty_library_is_named_with_the_way_to_another(host: Host, pool: libvirt.virStoragePool) -> None:
    with pytest.raises(NotFound) as caught:
        library.find(host, "web", pool.name())
    assert "--library names another" in caught.value.remedy
    with pytest.raises(NotFound) as missing:
        library.find(host, "web", "golden")
    assert "'hvtui template add --library golden' makes it" in missing.value.remedy
