"""The headless commands against virsh."""

from __future__ import annotations

import subprocess
from pathlib import Path

import libvirt

from bench.measure import medians_s, run_s
from bench.row import Row, against
from tests.support import simulated_world
from tests.support.private_libvirtd import PrivateLibvirtd

HVTUI = str(Path(__file__).parents[1] / ".venv/bin/hvtui")
RUNS = 11
GUEST = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"""


def rows(daemon: PrivateLibvirtd, directory: Path) -> list[Row]:
    many, hundred = directory / "many.xml", directory / "hundred.xml"
    many.write_text(simulated_world.many(500), encoding="utf-8")
    off = (simulated_world.domain(f"vm-{index:04}") for index in range(100))
    hundred.write_text(simulated_world.world(off), encoding="utf-8")
    simulated, started = daemon.test_uri(many), daemon.test_uri(hundred)
    with _few_guests(daemon):
        listed = [_list(simulated, "500 simulated VMs"), _list(daemon.uri, "3 QEMU VMs")]
    with _few_guests(daemon, count=100):
        described = _bulk(daemon.uri, "describe", ["vm", "show", "bench-*", "-o", "json"], "dominfo", "bench-")
    names = ["vm", "start", "vm-*"]
    return [*listed, described, _bulk(started, "start", names, "start", "vm-")]


def _list(uri: str, where: str) -> Row:
    own, other = medians_s(
        [
            lambda: run_s([HVTUI, "--headless", "vm", "list", "-o", "json", "--connect", uri]),
            lambda: run_s(["virsh", "-c", uri, "list", "--all"]),
        ],
        RUNS,
    )
    return against(f"`vm list -o json`, {where}", budget=4.0, own_s=own, other_s=other, other="`virsh list --all`")


def _bulk(uri: str, word: str, arguments: list[str], virsh_verb: str, prefix: str) -> Row:
    def loop() -> float:
        return sum(run_s(["virsh", "-c", uri, virsh_verb, f"{prefix}{index:04}"]) for index in range(100))

    own, other = medians_s([lambda: run_s([HVTUI, "--headless", *arguments, "--connect", uri]), loop], 3)
    return against(
        f"{word} 100 VMs by one command", budget=0.5, own_s=own, other_s=other, other=f"100 × `virsh {virsh_verb}`"
    )


class _few_guests:  # noqa: N801  a context manager
    """Defined QEMU VMs, bench-0000 and so on, that never start."""

    def __init__(self, daemon: PrivateLibvirtd, *, count: int = 3) -> None:
        self._connection = libvirt.open(daemon.uri)
        self._names = [f"bench-{index:04}" for index in range(count)]

    def __enter__(self) -> None:
        for name in self._names:
            self._connection.defineXML(GUEST.format(name=name))

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            self._connection.lookupByName(name).undefine()
        self._connection.close()


def loaded_modules(uri: str) -> list[str]:
    """Which of the modules that the command line must not load it loaded."""
    heavy = ("textual", "rich", "asyncio", "pydantic")
    code = (
        "import sys; sys.argv = ['hvtui', '--headless', 'vm', 'list', '--connect', sys.argv[1]]\n"
        "from hvtui.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print(*[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    command = [str(Path(HVTUI).with_name("python")), "-c", code, uri]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr.split()
