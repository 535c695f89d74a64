"""`hvtui host`: the noun, and what one host is and how busy it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from host.units import format_bytes
from hvtui.cli.grammar import Noun, Verbs, verb
from hvtui.cli.output import Format, plain, write_facts, write_json, write_records
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from host.facts import NodeFacts
    from host.load import HostLoad
    from host.plan import Json

VERBS: Verbs = {
    "list": ("hvtui.cli.host_list:list_", "List the configured hosts, and which of them answer."),
    "add": ("hvtui.cli.host_list:add", "Add a host to the configuration."),
    "remove": ("hvtui.cli.host_list:remove", "Take a host out of the configuration."),
    "test": ("hvtui.cli.host_test:test", "Try each leg to hosts, and between them."),
    "overview": ("hvtui.cli.overview:overview", "The host, its VMs by state, and what needs attention."),
    "show": ("hvtui.cli.host:show", "Hardware, versions, load, and what guests can have here."),
    "drain": ("hvtui.cli.host_drain:drain", "Empty a host for maintenance."),
    "resume": ("hvtui.cli.host_drain:resume", "Take a drained host back, and bring its VMs home."),
    "whatif": ("hvtui.cli.host_whatif:whatif", "What if a host died now: where would its VMs fit?"),
    "events": ("hvtui.cli.host_events:events", "Stream what happens to VMs as JSON lines."),
}
SETTLE_S = 0.2  # CPU load is the difference of two readings

host = Noun("host", verbs=VERBS, help="The hosts of the configuration; this one, or that of --host or --connect.")


def facts_record(name: str, uri: str, facts: NodeFacts) -> dict[str, Json]:
    """The JSON object of a host: its name here, its URI, and every fact."""
    from dataclasses import asdict

    values = asdict(facts)
    values["numa"] = [
        {"id": cell.id, "cpus": list(cell.cpus), "memory_bytes": cell.memory_bytes} for cell in facts.numa
    ]
    return {"name": name, "uri": uri, **values}


def load_record(load: HostLoad) -> dict[str, Json]:
    """The JSON object of a host's load."""
    return {
        "cpu_percent": None if load.cpu_percent is None else round(load.cpu_percent, 1),
        "memory_used_bytes": load.memory_used_bytes,
        "memory_total_bytes": load.memory_total_bytes,
        "disk_used_bytes": load.disk_used_bytes,
        "disk_total_bytes": load.disk_total_bytes,
    }


@verb("show", text="Show the host's hardware and versions, its load, and what guests can have on it.")
def show(session: Session) -> None:
    from host.facts import read_facts
    from host.load import read_load

    opened = session.host()
    facts = read_facts(opened, configured=session.config().accelerator)
    load = read_load(opened, settle_s=SETTLE_S)
    values = {**facts_record(opened.name, opened.uri, facts), "load": load_record(load)}
    if session.output is Format.JSON:
        write_json(values)
    elif session.output is not Format.TABLE:
        write_records([values], session.output)
    else:
        write_facts(_lines(values, load))


def _lines(values: dict[str, Json], load: HostLoad) -> list[tuple[str, str]]:
    shown = {key: value for key, value in values.items() if key != "load" and value}
    lines = [(key.removesuffix("_bytes"), _fact(key, value)) for key, value in shown.items()]
    cpu = "–" if load.cpu_percent is None else f"{load.cpu_percent:.0f}%"
    used = ("memory used", share(load.memory_used_bytes, load.memory_total_bytes))
    return [*lines, ("cpu load", cpu), used, ("disk used", share(load.disk_used_bytes, load.disk_total_bytes))]


def _fact(key: str, value: Json) -> str:
    return format_bytes(value) if key.endswith("_bytes") and isinstance(value, int) else plain(value)


def share(used_bytes: int | None, total_bytes: int | None) -> str:
    """ "1.2G of 31G", or a dash where it is not known."""
    if used_bytes is None or total_bytes is None:
        return "–"
    return f"{format_bytes(used_bytes)} of {format_bytes(total_bytes)}"
