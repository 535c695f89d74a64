"""Hosts rated for a template, and the best of them taken, on two real libvirtds of which one has the template."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host.connection import Host
from hvtui.__main__ import run
from tests.cli.conftest import Result
from tests.support.templates import add_tiny, made_pool
from vm.tiny import TinyGuest


@pytest.fixture
def hosts(
    real_host: Host, second_host: Host, config_file: Path, tiny_guest: TinyGuest, tmp_path: Path
) -> Iterator[None]:
    """one, without a library, and two, which has `tiny`."""
    uris = {"one": real_host.uri, "two": second_host.uri}
    config_file.write_text("".join(f'[[host]]\nname = "{name}"\nuri = "{uri}"\n' for name, uri in uris.items()))
    with made_pool(second_host, "library", tmp_path / "library") as directory:
        add_tiny(second_host, tiny_guest, directory)
        yield


@pytest.fixture
def hv(hosts: None, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run one command in this process, with both hosts in its configuration."""

    def command(*words: str) -> Result:
        capsys.readouterr()
        code = run([*words])
        told = capsys.readouterr()
        return Result(code, told.out, told.err)

    return command


def test_only_a_host_that_has_the_template_gets_stars_for_it(hv: Callable[..., Result]) -> None:
    result = hv("vm", "place", "tiny", "--template", "--set", "memory=64M", "-o", "json")
    assert result.code == 0, result.err
    found = {row["host"]: row for row in result.json}
    assert list(found) == ["two", "one"]
    assert found["two"]["stars"] > 0
    assert found["one"]["why_not"] == "it has no template tiny"
    huge = hv("vm", "place", "tiny", "--template", "--set", "memory=64T", "-o", "json")
    assert {row["stars"] for row in huge.json} == {0}


def test_a_deployment_goes_to_the_best_host(hv: Callable[..., Result], real_host: Host, second_host: Host) -> None:
    words = ("--set", "memory=64M", "--set", "network=user", "--no-start", "--pool", "default")
    result = hv("vm", "deploy", "tiny", "web-{}", "-n", "2", "--host", "best", *words)
    assert result.code == 0, result.err
    assert "two is the best host" in result.err
    assert names(second_host) == {"web-1", "web-2"}
    assert names(real_host) == set()
    nowhere = hv("vm", "deploy", "nothing", "x", "--host", "best")
    assert nowhere.code == 3
    assert "no host of the list has this template" in nowhere.err


def names(host: Host) -> set[str]:
    with host.calls("look") as connection:
        return {domain.name() for domain in connection.listAllDomains()}
