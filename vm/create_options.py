"""The options of `hvtui vm create` that mean a CreateRequest: the equivalent command line of a plan. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from host.units import GIB, KIB, MIB
from vm.create_request import CreateRequest, SourceKind, tiny_request


def options(request: CreateRequest) -> tuple[str, ...]:
    """The options, without those that have their default value."""
    return tuple(_options(request))


def _options(request: CreateRequest) -> Iterator[str]:
    is_tiny = request.source is SourceKind.TINY
    default = tiny_request(request.name) if is_tiny else CreateRequest(request.name)
    if request.source is SourceKind.KERNEL:
        yield from ("--kernel", request.kernel)
        yield from _given("--initrd", request.initrd)
        yield from _given("--cmdline", request.kernel_arguments)
    else:
        yield from ("--from", request.image or request.iso or request.source.value)
    if request.memory_bytes != default.memory_bytes:
        yield from ("--memory", _size(request.memory_bytes))
    if request.vcpus != default.vcpus:
        yield from ("--cpus", str(request.vcpus))
    if request.disk_bytes:
        yield from ("--disk", _size(request.disk_bytes))
    texts = {
        "--pool": (request.pool, default.pool),
        "--disk-format": (request.disk_format, default.disk_format),
        "--network": (request.network, default.network),
        "--firmware": (request.firmware.value, default.firmware.value),
        "--cpu": (request.cpu_mode, default.cpu_mode),
        "--graphics": (request.graphics.value, default.graphics.value),
        "--os": (request.os_id, ""),
        "--title": (request.title, ""),
        "--description": (request.description, ""),
        "--owner": (request.owner, ""),
    }
    for option, (value, usual) in texts.items():
        if value != usual:
            yield from (option, value)
    for tag in request.tags:
        yield from ("--tag", tag)
    switches = {"--tpm": request.tpm, "--autostart": request.autostart, "--no-start": not request.start}
    yield from (switch for switch, is_on in switches.items() if is_on)
    if request.start and request.wait_ready != default.wait_ready:
        yield "--wait" if request.wait_ready else "--no-wait"


def _given(option: str, value: str) -> tuple[str, ...]:
    return (option, value) if value else ()


def _size(size_bytes: int) -> str:
    """The size in the largest unit that gives a whole number."""
    for unit, factor in (("G", GIB), ("M", MIB), ("K", KIB)):
        if size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"
