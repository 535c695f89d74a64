"""`vm create`: from the options to the request, and what is refused before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from host.errors import UsageError
from host.units import GIB, MIB
from hvtui.cli.vm_create import create, request
from tests.cli.conftest import Command
from vm.create_request import CreateRequest, Firmware, Graphics, SourceKind, tiny_request


def asked(*words: str) -> CreateRequest:
    """The request that a command line means."""
    given: dict[str, Any] = create.make_context("create", ["web", *words]).params
    given.pop("keep_failed")
    return request(given.pop("name"), **given)


def test_tiny_keeps_the_tiny_guests_own_defaults() -> None:
    assert asked("--from", "tiny") == tiny_request("web")
    assert asked("--from", "tiny", "--memory", "256M", "--no-start").memory_bytes == 256 * MIB


def test_every_option_reaches_the_request() -> None:
    wanted = asked(
        *("--from", "/images/web.qcow2", "--memory", "4G", "--cpus", "3", "--disk", "20G", "--pool", "fast"),
        *("--network", "bridge:br0", "--firmware", "uefi", "--tpm", "--cpu", "host-model", "--graphics", "loopback"),
        *("--tag", "web", "--tag", "prod", "--owner", "alice", "--title", "T", "--autostart", "--no-start"),
    )
    assert wanted == CreateRequest(
        name="web",
        source=SourceKind.IMAGE,
        image="/images/web.qcow2",
        memory_bytes=4 * GIB,
        vcpus=3,
        disk_bytes=20 * GIB,
        pool="fast",
        network="bridge:br0",
        firmware=Firmware.UEFI,
        tpm=True,
        cpu_mode="host-model",
        graphics=Graphics.LOOPBACK,
        tags=("web", "prod"),
        owner="alice",
        title="T",
        autostart=True,
        start=False,
    )


def test_the_kind_of_source_is_seen_from_what_is_named(tmp_path) -> None:
    assert asked("--from", "/iso/debian.ISO").source is SourceKind.ISO
    assert asked("--from", "empty").source is SourceKind.EMPTY
    wanted = asked("--kernel", "/boot/vmlinuz", "--initrd", "/boot/initrd", "--cmdline", "quiet")
    assert (wanted.source, wanted.kernel, wanted.initrd) == (SourceKind.KERNEL, "/boot/vmlinuz", "/boot/initrd")
    assert wanted.kernel_arguments == "quiet"


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk.qcow2").touch()
    monkeypatch.chdir(tmp_path)
    assert asked("--from", "disk.qcow2").image == str(tmp_path / "disk.qcow2")


@pytest.mark.parametrize("words", [(), ("--from", "http://x/y"), ("--from", "tiny", "--kernel", "/k")])
def test_an_unclear_source_is_a_usage_error(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        asked(*words)


def test_a_size_needs_a_unit(hv: Command) -> None:
    result = hv("vm", "create", "web", "--from", "empty", "--memory", "2")
    assert result.code == 2
    assert "2G" in result.err


def test_a_taken_name_is_refused_before_anything_is_made(hv: Command) -> None:
    assert hv("vm", "create", "web-01", "--from", "empty").code == 4
    assert hv("job", "list", "-o", "json").json == []


def test_a_dry_run_shows_what_would_be_made(hv: Command) -> None:
    result = hv("vm", "create", "new", "--from", "empty", "--disk", "1G", "--dry-run", "-o", "json")
    assert result.code in {0, 9}
    assert result.json[0]["vm_name"] == "new"
    assert result.json[0]["steps"]


def test_an_address_is_to_be_downloaded_first(hv: Command) -> None:
    result = hv("vm", "create", "web", "--from", "https://example.org/debian.qcow2")
    assert result.code == 2
    assert "Download it first" in result.err


@pytest.mark.parametrize("name", ["nothing.qcow2", "nothing.iso", "tinny"])
def test_a_named_file_that_is_not_there_is_not_found(hv: Command, name: str) -> None:
    assert hv("vm", "create", "web", "--from", name).code == 3


def test_what_it_boots_must_be_said(hv: Command) -> None:
    result = hv("vm", "create", "web")
    assert result.code == 2
    assert "?." not in result.err
    assert "tiny" in result.err
