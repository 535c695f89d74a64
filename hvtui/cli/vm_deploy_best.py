"""`hvtui vm deploy --host best`: the host with most stars among those that have the template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from host.errors import NotFound
from host.many_hosts import ask_all
from host.text import printable
from hvtui.cli.output import narrate
from hvtui.cli.placing import Hosts, best_of, stars_text
from hvtui.cli.placing import rate as rate_hosts
from hvtui.cli.session import Session
from hvtui.cli.vm_deploy import request
from vm import library
from vm.placement_model import together
from vm.placement_reading import TIMEOUT_S, demand_of_template


def settle(session: Session, given: Mapping[str, Any]) -> None:
    """Let the command go on with the best host for all the VMs that it asks for. Raises NotFound (no host has the
    template, or there is no host), Conflict (none can take them), and what `request` does."""
    name, pool = given["template"], given["library"]
    with Hosts(session, own=False) as hosts:
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
        demand = replace(together(demands), refused=lacking)
        pictures = hosts.pictures()
        entry = best_of(demand, hosts.entries, pictures)
        best = rate_hosts(demand, pictures)[0]
    narrate(f"{printable(entry.name, limit=60)} is the best host: {stars_text(best.stars)}")
    session.given["host"] = (entry.name,)
    session.settle(session.open_entry(entry))
