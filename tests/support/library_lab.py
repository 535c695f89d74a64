"""What the tests of a real library share: hvtui as a process, an empty library, and what must be true of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from host.connection import Host
from host.journal import Journal
from tests.cli.conftest import Result
from tests.cli.test_hostile_input import is_harmless
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.templates import made_pool
from tests.support.terminal import HVTUI
from vm import library as libraries
from vm.library_index import INDEX_NAME
from vm.template_model import Library

NAME = "doomed"
Hv = Callable[..., Result]


@pytest.fixture(name="cache")
def cache_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own: what is prepared must not stay in it."""
    monkeypatch.setenv("HVTUI_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(name="hv")
def hv_fixture(private_daemon: PrivateLibvirtd, journal: Journal, cache: Path) -> Hv:
    """Run hvtui as a process on the private libvirtd; keyword arguments are its environment."""

    def command(*words: str, **environment: str) -> Result:
        done = subprocess.run(
            [*HVTUI, "--headless", *words, "--connect", private_daemon.uri, "--yes"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env={**os.environ, **environment},
        )
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr
        assert is_harmless(done.stderr)
        return Result(done.returncode, done.stdout, done.stderr)

    return command


@pytest.fixture(name="host")
def host_fixture(real_host: Host, tmp_path: Path) -> Iterator[Host]:
    """A host with an empty library."""
    with made_pool(real_host, "library", tmp_path / "library"):
        yield real_host


@pytest.fixture(name="bare_host")
def bare_host_fixture(real_host: Host) -> Iterator[Host]:
    """A host without a library; the one that the test makes is removed with all that is in it."""
    yield real_host
    with contextlib.suppress(libvirt.libvirtError):
        pool = libvirt.open(real_host.uri).storagePoolLookupByName("library")
        for volume in pool.listAllVolumes():
            volume.delete()
        pool.destroy()
        pool.undefine()


def qcow2(path: Path, *options: str, size: str = "8M") -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, "--", str(path), size], check=True)
    return path


@pytest.fixture(name="image")
def image_fixture(tmp_path: Path) -> Path:
    """A qcow2 of 8 MiB with 600 KiB of data."""
    path = qcow2(tmp_path / "disk.qcow2")
    subprocess.run(["qemu-io", "-c", "write -P 7 1M 600k", str(path)], check=True, capture_output=True)
    return path


def stored(host: Host) -> set[str]:
    """The names of the volumes in the library; empty where there is none."""
    try:
        pool = host.connection().storagePoolLookupByName("library")
    except libvirt.libvirtError:
        return set()
    pool.refresh()
    return set(pool.listVolumes())


def whole(host: Host) -> Library:
    """The library; every template in it must have all its images, of the right size."""
    found = libraries.read(host)
    pool = host.connection().storagePoolLookupByName("library")
    for template in found.templates:
        for each in template.images:
            volume = pool.storageVolLookupByName(each.volume)
            data = Path(volume.path()).read_bytes()
            assert hashlib.sha256(data).hexdigest() == each.sha256, f"{template.name} is listed and not whole"
    return found


def listed(host: Host) -> list[str]:
    return [template.name for template in whole(host).templates]


def accounted(host: Host) -> set[str]:
    """The volumes that the library's templates stand for, and its index."""
    found = whole(host)
    names = {each.volume for template in found.templates for each in template.images}
    return names | {template.manifest for template in found.templates} | {INDEX_NAME}


def prepared(cache: Path) -> list[Path]:
    return [path for path in (cache / "templates").rglob("*") if path.is_file()]


def noise(path: Path, size_bytes: int) -> Path:
    raw = path.with_suffix(".raw")
    raw.write_bytes((bytes(510) + b"\x55\xaa" + os.urandom(size_bytes))[: size_bytes // 512 * 512])
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)], check=True)
    return path
