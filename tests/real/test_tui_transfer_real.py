"""A VM is carried out of a real libvirtd and into it again by keys alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from host.connection import Host
from tests.support import bundles
from tests.support.bundles import NAME, disk_of, image, plain_vm, same_disk
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.terminal import Tui


@pytest.fixture
def contents(tmp_path: Path) -> Path:
    return bundles.bootable(tmp_path / "contents.raw")


@pytest.fixture
def tui(real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path) -> Iterator[Tui]:
    """The interface with the VM `boxed`, which is off."""
    disk = image(contents, private_daemon.images / "boxed.qcow2", "qcow2")
    plain_vm(real_host, str(disk), "qcow2")
    shown = Tui(private_daemon.uri, columns=120, rows=40, HOME=str(tmp_path))
    yield shown
    shown.close()


def test_a_vm_is_exported_and_imported_under_another_name_by_keys(
    tui: Tui, real_host: Host, private_daemon: PrivateLibvirtd, contents: Path, tmp_path: Path
) -> None:
    tui.type("X")
    tui.wait_for("the disk vda")
    tui.type("\x13")
    tui.wait_for("enter do it")
    tui.type("\r")
    tui.wait_for(f"exported {NAME}")
    assert (tmp_path / NAME / "hvtui-bundle.json").is_file()
    tui.type("i")
    tui.wait_for("Import a virtual machine")
    tui.type(f"{tmp_path}/{NAME}")
    tui.wait_for("found in order")
    tui.type("\t")
    tui.wait_until(lambda: "▎" in tui.line_with("  name "), "the field of the name")
    tui.type("twin")
    tui.wait_for("the name twin is free")
    tui.type("\x13")
    tui.wait_for("enter do it")
    tui.type("\r")
    tui.wait_for("imported twin")
    tui.wait_until(lambda: tui.row("twin"), "the list to have it")
    assert same_disk(disk_of(private_daemon, "twin"), contents)
