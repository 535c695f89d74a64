"""Hosts rated for VMs that are yet to be made of a template, and `hvtui vm deploy --host best`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from host.errors import NotFound
from host.many_hosts import ask_all
from host.text import printable
from hvtui.cli.output import narrate
from hvtui.cli.placing import Hosts, best_of, stars_text
from hvtui.cli.session import Session
from hvtui.cli.vm_deploy import request
from hvtui.placement_policy import policy_of
from vm import library
from vm.placement import Rating, rate
from vm.placement_model import Policy, together
from vm.placement_reading import TIMEOUT_S, demand_of_template

# Of a VM that is yet to be asked for: the options of `vm deploy` that `request` wants.
NEW = {
    "count": None,
    "first": None,
    "profiles": (),
    "settings": (),
    "user_data": None,
    "until": None,
    "no_start": True,
    "linked": None,
    "pool": None,
    "title": None,
    "tags": (),
    "owner": None,
    "library": None,
}


def settle(session: Session, given: Mapping[str, Any]) -> None:
    """Let the command go on with the best host for all the VMs that it asks for. Raises as `rated`, and Conflict when
    no host can take them."""
    with Hosts(session, own=False) as hosts:
        ratings = rated(session, hosts, given, policy_of(session.config()))
        entry = best_of(ratings, hosts.entries)
    narrate(f"{printable(entry.name, limit=60)} is the best host: {stars_text(ratings[0].stars)}")
    session.given["host"] = (entry.name,)
    session.settle(session.open_entry(entry))


def rated(session: Session, hosts: Hosts, given: Mapping[str, Any], policy: Policy) -> tuple[Rating, ...]:
    """Every host's rating, the best first, for the VMs together that `vm deploy` with these options would make. Raises
    NotFound (no host has the template, or there is no host), and what `request` does."""
    name, pool = given["template"], given["library"]
    found = ask_all(
        hosts.hosts,
        lambda host: library.find(host, name, session.library(pool, host))[1],
        timeout_s=session.timeout_s or TIMEOUT_S,
    )
    having = [(answer.host, answer.value) for answer in found if answer.value is not None]
    if not having:
        told = "; ".join(f"{answer.host.name}: {answer.error}" for answer in found) or "no host is configured"
        raise NotFound(f"no host of the list has this template ({told})", about=name)
    host, template = having[0]
    session.settle(host)
    wanted = request(session, **given)
    demands = [replace(demand_of_template(template, wanted), name=each) for each in wanted.names]
    lacking = {answer.host.name: f"it has no template {name}" for answer in found if answer.value is None}
    return rate(replace(together(demands), refused=lacking), hosts.pictures(), policy)
