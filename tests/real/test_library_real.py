"""The library on a real libvirtd: what comes in whole, what is refused before the first byte, who needs what."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from host import jobs
from host.connection import Host
from host.errors import HvtuiError
from host.job_model import JobState
from host.journal import Journal
from host.units import MIB
from tests.support.library_lab import (  # noqa: F401 - the fixtures are found by their names
    NAME,
    Hv,
    accounted,
    bare_host_fixture,
    cache_fixture,
    host_fixture,
    hv_fixture,
    image_fixture,
    listed,
    noise,
    prepared,
    qcow2,
    stored,
    whole,
)
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import library as libraries
from vm import steps
from vm.library_index import INDEX_NAME, parse_index
from vm.template_add import AddRequest, plan_add

assert steps  # registers the verbs


# What comes in


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_qcow2_is_stored_as_it_is_and_the_index_knows_it(hv: Hv, host: Host, image: Path, cache: Path) -> None:
    result = hv("template", "add", "web", "--from", str(image), "--sha256", sha256(image), "--tag", "a", "--seed")
    assert result.code == 0, result
    (template,) = whole(host).templates
    assert template.images[0].sha256 == sha256(image)
    assert (template.images[0].virtual_size_bytes, template.takes_seed) == (8 * MIB, True)
    pool = host.connection().storagePoolLookupByName("library")
    assert "qcow2" in pool.storageVolLookupByName(template.images[0].volume).XMLDesc()
    index = Path(libraries.read(host).path) / INDEX_NAME
    assert list(parse_index(index.read_text())) == [template.manifest]
    assert prepared(cache) == []


def disk_bytes() -> bytes:
    """A raw disk with a partition table's mark."""
    return bytes(510) + b"\x55\xaa" + b"data" * 1024 + bytes(2 * MIB)


@pytest.mark.parametrize("kind", ["raw", "vmdk", "vdi", "vhdx", "vpc", "raw.xz"])
def test_every_format_becomes_a_qcow2_with_the_same_disk(
    hv: Hv, host: Host, tmp_path: Path, cache: Path, kind: str
) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(disk_bytes().ljust(4 * MIB, b"\0"))
    source = tmp_path / "any-name"
    if kind == "raw.xz":
        source.write_bytes(lzma.compress(raw.read_bytes()))
    elif kind == "raw":
        source.write_bytes(raw.read_bytes())
    else:
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, str(raw), str(source)], check=True)
    result = hv("template", "add", "web", "--from", str(source))
    assert result.code == 0, result
    (template,) = whole(host).templates
    assert template.disk_bus == ("sata" if kind in {"vmdk", "vdi", "vhdx", "vpc"} else "virtio")
    volume = Path(libraries.read(host).path) / template.images[0].volume
    back = tmp_path / "back"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(volume), str(back)], check=True)
    assert back.read_bytes()[: 4 * MIB] == raw.read_bytes()
    assert prepared(cache) == []


def test_a_volume_of_the_library_becomes_a_template_in_place_and_stays_when_that_is_taken_back(
    hv: Hv, host: Host, image: Path
) -> None:
    assert hv("template", "add", "first", "--from", str(image)).code == 0
    loose = Path(libraries.read(host).path) / "loose.qcow2"
    loose.write_bytes(image.read_bytes())
    raw = loose.with_name("loose.raw")
    raw.write_bytes(disk_bytes())
    assert hv("template", "add", "loose", "--from", "vol:loose.qcow2", "--sha256", sha256(image)).code == 0
    assert hv("template", "add", "raw", "--from", "vol:loose.raw").code == 0
    assert listed(host) == ["first", "loose", "raw"]
    adopted = libraries.find(host, "loose")[1]
    assert adopted.images[0].volume == "loose.qcow2"
    assert hv("template", "add", "again", "--from", "vol:loose.qcow2").code == 4
    wrong = hv("template", "add", "wrong", "--from", "vol:loose.raw", "--sha256", "0" * 64)
    assert wrong.code == 2, wrong
    undone = hv("job", "undo", "2")
    assert undone.code == 0, undone
    assert listed(host) == ["first", "raw"]
    assert loose.read_bytes() == image.read_bytes()
    assert hv("template", "remove", "raw").code == 0
    assert {"loose.qcow2", "loose.raw"} <= stored(host)


# Refused before the first byte


@pytest.fixture
def nothing_made(host: Host, journal: Journal, cache: Path) -> Iterator[None]:
    """Fails when the test has left anything, a job included."""
    yield
    assert stored(host) == set()
    assert journal.jobs() == ()
    assert prepared(cache) == []


@pytest.mark.usefixtures("nothing_made")
def test_what_is_no_whole_image_is_refused_before_anything_is_made(
    hv: Hv, host: Host, tmp_path: Path, image: Path
) -> None:
    shadow = qcow2(tmp_path / "shadow.qcow2", "-b", "/etc/shadow", "-F", "raw")
    hidden = tmp_path / "hidden.raw"
    hidden.write_bytes(shadow.read_bytes())
    chained = qcow2(tmp_path / "chained.qcow2", "-b", str(image), "-F", "qcow2")
    outside = qcow2(tmp_path / "outside.qcow2", "-o", f"data_file={tmp_path}/data.raw,data_file_raw=on")
    truncated = tmp_path / "truncated.qcow2"
    truncated.write_bytes(image.read_bytes()[: 512 * 1024])
    flipped = tmp_path / "flipped.qcow2"
    data = bytearray(image.read_bytes())
    data[65536:65600] = b"\xff" * 64
    flipped.write_bytes(data)
    secret = tmp_path / "secret"
    secret.write_text("geheim")
    words = ["--object", f"secret,id=s,file={secret}", "-o", "encrypt.format=luks,encrypt.key-secret=s"]
    encrypted = qcow2(tmp_path / "encrypted.qcow2", *words)
    text = tmp_path / "text"
    text.write_text("hello " * 1000)
    os.mkfifo(tmp_path / "fifo")
    wrong = (
        shadow,
        hidden,
        chained,
        outside,
        truncated,
        flipped,
        encrypted,
        text,
        tmp_path / "fifo",
        tmp_path / "none",
    )
    for path in wrong:
        for is_raw in (False, True):
            if is_raw and path is text:
                continue  # who says so gets it
            plan = plan_add(host, AddRequest("web", str(path), is_raw=is_raw))
            with pytest.raises(HvtuiError) as caught:
                plan.raise_if_blocked()
            assert caught.value.exit_code in {2, 3, 5, 9}, (path, caught.value)
            assert path.name in str(caught.value)
    dry = hv("template", "add", "web", "--from", str(shadow), "--dry-run")
    result = hv("template", "add", "web", "--from", str(shadow))
    assert dry.code == result.code == 2
    assert "/etc/shadow" in result.err


@pytest.mark.usefixtures("nothing_made")
def test_wrong_words_are_refused_before_anything_is_made(hv: Hv, image: Path) -> None:
    for words, code in (
        (("../x", "--from", str(image)), 2),
        (("web", "--from", str(image), "--sha256", "12"), 2),
        (("web", "--from", str(image), "--max-size", "1M"), 2),
        (("web", "--from", "https://example.org/x.qcow2"), 2),
        (("web", "--from", "vol:x"), 3),
        (("web", "--from", str(image), "--library", "no/where"), 2),
        (("web", "--from", str(image), "--description", "x" * 5000), 2),
        (("web", "--from", str(image), "--firmware", "coreboot"), 2),
    ):
        result = hv("template", "add", *words)
        assert result.code == code, (words, result)


def test_a_wrong_checksum_uploads_nothing(hv: Hv, host: Host, image: Path, cache: Path) -> None:
    result = hv("template", "add", "web", "--from", str(image), "--sha256", "0" * 64)
    assert result.code == 2
    assert sha256(image) in result.err
    assert stored(host) == set()
    assert prepared(cache) == []


def test_a_name_is_taken_once(hv: Hv, host: Host, image: Path) -> None:
    assert hv("template", "add", "web", "--from", str(image)).code == 0
    before = stored(host)
    assert hv("template", "add", "web", "--from", str(image)).code == 4
    assert stored(host) == before


def test_an_image_that_is_swapped_after_the_plan_is_not_taken(
    host: Host, journal: Journal, image: Path, cache: Path, tmp_path: Path
) -> None:
    plan = plan_add(host, AddRequest("web", str(image)))
    image.unlink()
    qcow2(image, "-b", "/etc/shadow", "-F", "raw")
    job = jobs.submit(plan, host, journal)
    assert job.state is JobState.FAILED
    assert "/etc/shadow" in job.error
    assert stored(host) == set()


def test_what_guests_would_build_on_is_looked_at_as_it_is_stored(
    host: Host, journal: Journal, image: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file changes between the last look at it and the upload."""
    from vm import template_steps

    upload = template_steps.volumes.upload

    def swap_first(*arguments, **more):
        image.unlink()
        qcow2(image, "-b", "/etc/shadow", "-F", "raw")
        return upload(*arguments, **more)

    plan = plan_add(host, AddRequest("web", str(image)))
    monkeypatch.setattr(template_steps.volumes, "upload", swap_first)
    job = jobs.submit(plan, host, journal)
    assert job.state is JobState.FAILED
    assert "builds on another file" in job.error
    assert stored(host) == set()


@pytest.fixture
def small_library(private_daemon: PrivateLibvirtd, host: Host) -> Iterator[Path]:
    """A library on a file system of 24 MiB of its own."""
    inside = private_daemon.directory / "small"
    inside.mkdir()
    enter = ("nsenter", "--mount", f"--target={private_daemon.libvirtd_pids()[0]}", "--")
    subprocess.run([*enter, "mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(inside)], check=True)
    xml = f"<pool type='dir'><name>small</name><target><path>{inside}</path></target></pool>"
    pool = host.connection().storagePoolDefineXML(xml)
    pool.create()
    yield inside
    pool.destroy()
    pool.undefine()
    subprocess.run([*enter, "umount", str(inside)], check=True)
    inside.rmdir()


@pytest.mark.usefixtures("small_library")
def test_a_library_that_is_too_full_is_said_before_and_leaves_nothing_when_it_fills_up(
    hv: Hv, host: Host, journal: Journal, tmp_path: Path, cache: Path
) -> None:
    large, small = noise(tmp_path / "large.qcow2", 30 * MIB), noise(tmp_path / "small.qcow2", 6 * MIB)
    result = hv("template", "add", "web", "--from", str(large), "--library", "small")
    assert result.code == 9
    assert "24.0M free" in result.err or "24M free" in result.err, result
    plan = plan_add(host, AddRequest("web", str(small), library="small"))
    noise(small, 30 * MIB)
    job = jobs.submit(plan, host, journal)
    assert job.state is JobState.FAILED
    assert "No space left" in job.error
    assert host.connection().storagePoolLookupByName("small").listVolumes() == []
    assert prepared(cache) == []


def test_a_cache_that_is_too_full_is_said_before(hv: Hv, host: Host, tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(disk_bytes() + os.urandom(8 * MIB))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=True)
    try:
        result = hv("template", "add", "web", "--from", str(raw), HVTUI_CACHE_DIR=str(small))
        assert result.code == 9
        assert str(small) in result.err
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert stored(host) == set()


# Linked VMs, verification, undo


DOMAIN = """<domain type='qemu'><name>{name}</name><memory>65536</memory><os><type>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>
<target dev='vda' bus='virtio'/></disk></devices></domain>"""


def test_a_template_stays_while_a_vm_is_linked_to_it(hv: Hv, host: Host, image: Path, tmp_path: Path) -> None:
    assert hv("template", "add", "web", "--from", str(image)).code == 0
    base = Path(libraries.read(host).path) / libraries.find(host, "web")[1].images[0].volume
    overlay = qcow2(tmp_path / "linked.qcow2", "-b", str(base), "-F", "qcow2")
    domain = host.connection().defineXML(DOMAIN.format(name="linked-vm", path=overlay))
    result = hv("template", "remove", "web")
    assert (result.code, "linked-vm" in result.err) == (4, True), result
    assert hv("job", "undo", "1").code == 4
    shown = hv("template", "show", "web", "-o", "json").json
    assert shown[0]["linked"] == ["linked-vm"]
    assert listed(host) == ["web"]
    assert hv("template", "remove", "web", "--keep-images").code == 0
    assert base.exists()
    kept = journal_id(hv)
    assert hv("job", "undo", kept).code == 0
    assert listed(host) == ["web"]
    domain.undefine()
    overlay.unlink()
    assert hv("template", "remove", "web").code == 0
    assert not base.exists()


def journal_id(hv: Hv) -> str:
    """The newest job."""
    return str(hv("job", "list", "-o", "json").json[0]["id"])


def test_verify_tells_what_changed_what_is_gone_and_what_is_good(hv: Hv, host: Host, image: Path) -> None:
    for name in ("good", "gone", "changed", "cut"):
        assert hv("template", "add", name, "--from", str(image)).code == 0
    assert hv("template", "verify").code == 0
    directory = Path(libraries.read(host).path)
    path = {each.name: directory / each.images[0].volume for each in libraries.read(host).templates}
    with path["changed"].open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"\xff")
    os.truncate(path["cut"], 1000)
    path["gone"].unlink()
    host.connection().storagePoolLookupByName("library").refresh()
    result = hv("template", "verify", "-o", "json")
    assert result.code == 1
    found = {each["template"]: (each["result"], each["structure_checked"]) for each in result.json}
    assert found == {
        "good": ("good", True),
        "gone": ("missing", False),
        "changed": ("changed", False),
        "cut": ("changed", False),
    }
    assert hv("template", "verify", "good").code == 0
    assert "is not in the pool" in hv("template", "list").err


def test_edits_are_undone_and_never_lose_the_template(hv: Hv, host: Host, image: Path) -> None:
    assert hv("template", "add", "web", "--from", str(image), "--description", "one").code == 0
    before = libraries.find(host, "web")[1]
    assert hv("template", "edit", "web", "description=two", "seed=yes", "tags=a,b", "os=").code == 0
    edited = libraries.find(host, "web")[1]
    assert (edited.revision, edited.description, edited.takes_seed, edited.tags) == (2, "two", True, ("a", "b"))
    assert hv("template", "edit", "web", "description=two").code == 4
    assert hv("template", "edit", "web", "colour=red").code == 2
    assert hv("job", "undo", journal_id_of_edit(hv)).code == 0
    again = libraries.find(host, "web")[1]
    assert (again.revision, again.description, again.takes_seed) == (3, "one", False)
    assert again.images == before.images
    assert stored(host) == accounted(host)


def journal_id_of_edit(hv: Hv) -> str:
    found = [job for job in hv("job", "list", "-o", "json").json if job["title"].startswith("Change the template")]
    return str(found[0]["id"])


def test_an_add_is_taken_back_whole(hv: Hv, host: Host, image: Path) -> None:
    assert hv("template", "add", "web", "--from", str(image)).code == 0
    undone = hv("job", "undo", "1")
    assert undone.code == 0, undone
    assert listed(host) == []
    assert stored(host) <= {INDEX_NAME}


def test_lists_are_true_in_every_format(hv: Hv, host: Host, image: Path) -> None:
    assert hv("template", "add", "web", "--from", str(image), "--description", "a \x1b[31mred one").code == 0
    assert hv("template", "list", "-o", "json").json[0]["description"] == "a \x1b[31mred one"
    (line,) = hv("template", "list", "-o", "jsonl").out.splitlines()
    assert json.loads(line)["name"] == "web"
    for output in ("table", "csv"):
        told = hv("template", "list", "-o", output).out
        assert "\\e[31mred" in told
        assert "\x1b" not in told
    assert hv("template", "list", "--columns", "name,disk_bytes", "-o", "csv").out.splitlines()[1] == f'"web",{8 * MIB}'
