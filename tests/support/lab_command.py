"""The command for people: a lab that stays until it is taken down, and a few ways to use it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

import libvirt

from tests.support import lab, lab_guest


def main(arguments: Sequence[str]) -> int:
    chosen = _parser().parse_args(arguments)
    reason = lab.why_not()
    if reason:
        return _fail(reason)
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    if chosen.verb is _up:
        return _up(chosen)
    running = lab.attach(chosen.name)
    if running is None and chosen.verb is not _down:
        return _fail(f"no lab {chosen.name} is up")
    return chosen.verb(chosen, running)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.support.lab", description="A lab of hosts to try hvtui on.")
    verbs = parser.add_subparsers(required=True)

    def add(name: str, verb: object, words: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=words, description=words)
        made.add_argument("--name", default="lab", help="whose lab: several can run at once (default: lab)")
        made.set_defaults(verb=verb)
        return made

    up = add("up", _up, "bring a lab up, or show the one that is up; hosts without power are switched on")
    up.add_argument("--hosts", type=int, choices=[1, 2, 3], default=3)
    add("down", _down, "end it and remove everything of it")
    add("status", _status, "its hosts and their URIs")
    guest = add("guest", _guest, "start a guest that counts seconds, with a disk of 16 MiB")
    guest.add_argument("host")
    guest.add_argument("guest")
    guest.add_argument("--pool", choices=["shared", "default"], default="shared")
    on = add("on", _on, "run a command on a host as root")
    on.add_argument("host")
    on.add_argument("command", nargs=argparse.REMAINDER)
    seat = add("seat", _seat, "run a command in the lab's network: hosts by name, ssh without questions")
    seat.add_argument("command", nargs=argparse.REMAINDER)
    return parser


def _up(chosen: argparse.Namespace) -> int:
    started = time.monotonic()
    running = lab.attach(chosen.name)
    if running is None:
        running = lab.up(chosen.name, hosts=chosen.hosts, owner=None, say=_say)
    for host in running.hosts:
        host.start()
    _say(f"{len(running.hosts)} hosts after {time.monotonic() - started:.1f} s")
    return _status(chosen, running)


def _down(chosen: argparse.Namespace, running: lab.Lab | None) -> int:
    if running is not None:
        running.down()
    lab.remove_leftovers(chosen.name)
    return 0


def _status(_chosen: argparse.Namespace, running: lab.Lab) -> int:
    for host in running.hosts:
        state = f"{host.memory_bytes() / 2**20:.0f} MiB" if host.is_running() else "off"
        _say(f"{host.name}  {host.address}  {state}")
        _say(f"    from here:           {host.uri}")
        _say(f"    between them, seat:  {host.peer_uri}")
    _say(f"at the seat: {running.directory}/seat COMMAND…")
    return 0


def _guest(chosen: argparse.Namespace, running: lab.Lab) -> int:
    os.environ.setdefault("HVTUI_ACCEL", "qemu")
    host = running[chosen.host]
    disk = lab_guest.make_disk(host, chosen.guest, pool=chosen.pool)
    domain = lab_guest.start(host, lab_guest.definition(chosen.guest, disk=disk.path))
    told = lab_guest.counted(domain)
    _say(f"{chosen.guest} runs on {host.name}: disk {disk.path}, boot {told.boot_id}, it has counted {told.count} s")
    return 0


def _on(chosen: argparse.Namespace, running: lab.Lab) -> int:
    return _become([*running[chosen.host].inside(), *chosen.command])


def _seat(chosen: argparse.Namespace, running: lab.Lab) -> int:
    return _become([*running.seat(), *chosen.command])


def _become(command: list[str]) -> int:
    os.execvp(command[0], command)  # noqa: S606


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def _fail(words: str) -> int:
    sys.stderr.write(f"{words}\n")
    return 1
