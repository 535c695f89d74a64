"""`hvtui host drain` and `hvtui host resume`: vm.drain makes the plans, a set of jobs carries them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from host.errors import Blocked, NotFound
from host.text import printable
from hvtui.cli.grammar import option, verb
from hvtui.cli.output import Column, Format, narrate, write_list, write_text
from hvtui.cli.placing import Hosts, goal_option, stars_text
from hvtui.cli.session import Session
from hvtui.placement_policy import policy_of

if TYPE_CHECKING:
    from vm.drain import DrainOptions, Place
    from vm.drain_model import DrainPlan, Fate

WITHOUT_TARGET = ("save", "shutdown", "stay")

COLUMNS: tuple[Column[Fate], ...] = (
    Column("vm", "The VM's name.", lambda fate: fate.vm, in_table=True),
    Column("uuid", "The VM's UUID.", lambda fate: fate.uuid),
    Column(
        "fate", "live, live-storage, quick, offline, save, shut down or stay.", lambda fate: fate.fate, in_table=True
    ),
    Column("host", "Where it goes, or null.", lambda fate: fate.host or None, in_table=True),
    Column(
        "stars",
        "That host's, or null.",
        lambda fate: fate.stars or None,
        lambda fate: stars_text(fate.stars) if fate.stars else "–",
        in_table=True,
    ),
    Column(
        "predicted_s",
        "How long it takes by itself.",
        lambda fate: round(fate.predicted_s, 1),
        lambda fate: _time(fate.predicted_s) if fate.plan is not None else "–",
        title="TIME",
        right=True,
        in_table=True,
    ),
    Column("running", "True for one that runs now.", lambda fate: fate.is_active),
    Column("why", "Why this and nothing better.", lambda fate: fate.why, in_table=True),
)


@verb(
    "drain",
    click.Argument(["name"]),
    option(
        "--plan", "only_plan", is_flag=True, text="Show each VM's fate, the order and the time, and change nothing."
    ),
    option(
        "--without-target",
        type=click.Choice(WITHOUT_TARGET),
        default="save",
        show_default=True,
        text="What becomes of a running VM that no other host can take.",
    ),
    option("--with-off", is_flag=True, text="Move VMs that are off as well; else they stay."),
    goal_option(),
    text="Empty a host for maintenance: each running VM goes to the host with most stars, in the least disruptive way. "
    "No VM is placed there until 'host resume'. It goes on without this terminal; given again, it does what is left.",
)
def drain(session: Session, name: str, only_plan: bool, without_target: str, with_off: bool, goal: str | None) -> int:
    from vm.drain import plan_drain
    from vm.drain_model import WithoutTarget

    words = [] if without_target == "save" else ["--without-target", without_target]
    words += ["--with-off"] if with_off else []
    words += ["--goal", goal] if goal else []
    with Hosts(session, own=False) as hosts:
        home, others = _places(session, hosts, name)
        options = _options(
            session,
            ("host", "drain", name, *words),
            without_target=WithoutTarget(without_target),
            with_off=with_off,
            policy=policy_of(session.config(), goal),
        )
        planned = plan_drain(home, others, hosts.pictures(), options)
        if only_plan or session.dry_run:
            return _show(session, planned)
        return _carry_out(session, planned, is_wanted=without_target == "stay")


def _carry_out(session: Session, planned: DrainPlan, *, is_wanted: bool) -> int:
    from hvtui.cli.change_set import change_set

    _tell(planned)
    code = change_set(session, lambda: planned.plan_set, ask=True)
    for fate in planned.staying:
        narrate(f"{printable(fate.vm)} runs on {printable(planned.host)} still: {printable(fate.why, limit=300)}")
    return code or (Blocked.exit_code if planned.staying and not is_wanted else 0)


@verb(
    "resume",
    click.Argument(["name"]),
    option("--forget", "forgotten", multiple=True, metavar="VM", text="Do not wait for this VM any more: it stays."),
    text="Take a drained host back into service: every VM that left comes home, and what was shut down or saved runs "
    "again. What cannot come stays where it is, and is said; given again, it does what is left.",
)
def resume(session: Session, name: str, forgotten: tuple[str, ...]) -> int:
    from host import maintenance
    from hvtui.cli.change_set import change_set
    from vm.drain import plan_homecoming

    with Hosts(session, own=False) as hosts:
        home, others = _places(session, hosts, name)
        notes = maintenance.note_of(home.host)
        if notes is None:
            drained = ", ".join(each.name for each in maintenance.read()) or "none"
            raise NotFound("it is not drained", about=name, remedy=f"Drained hosts: {drained}")
        if unknown := set(forgotten) - {guest.name for guest in notes.guests}:
            away = ", ".join(printable(guest.name, limit=60) for guest in notes.guests) or "none"
            raise NotFound("it is not one of those that left", about=min(unknown), remedy=f"These did: {away}")
        command = ("host", "resume", name, *(word for vm in forgotten for word in ("--forget", vm)))
        options = _options(session, command, forgotten=frozenset(forgotten))
        planned = plan_homecoming(home, notes, others, options)
        code = change_set(session, lambda: planned, ask=True)
        left = maintenance.note_of(home.host)
    if left is not None and left.guests and session.wait and not session.dry_run:
        narrate(f"Not back yet: {', '.join(printable(guest.name, limit=60) for guest in left.guests)}")
        return code or Blocked.exit_code
    return code


def _places(session: Session, hosts: Hosts, name: str) -> tuple[Place, list[Place]]:
    """The host of that name (the session's from now on), and the others. Raises NotFound, ConnectionLost, Denied."""
    from hvtui.target import entry_named
    from vm.drain import Place

    places = [Place(entry, host) for entry, host in zip(hosts.entries, hosts.hosts, strict=True)]
    entry = entry_named(name, session.config())
    home = next((place for place in places if place.entry.uri == entry.uri), None) or Place(
        entry, session.open_entry(entry)
    )
    session.settle(home.host)
    home.host.connection()
    return home, [place for place in places if place is not home]


def _options(session: Session, command: tuple[str, ...], **rest: object) -> DrainOptions:
    from functools import partial

    from vm.drain import DrainOptions
    from vm.move_links import link_between

    moves = session.config().moves
    return DrainOptions(
        per_host=moves.per_host,
        per_link=moves.per_link,
        command=command,
        link_of=partial(link_between, session.journal()),
        **rest,  # type: ignore[arg-type]
    )


def _show(session: Session, planned: DrainPlan) -> int:
    if session.output is Format.TABLE and not planned.fates:
        write_text(f"{printable(planned.host)} has no VMs")
        return 0
    write_list(planned.fates, COLUMNS, output=session.output, chosen=session.columns)
    if session.output is Format.TABLE:
        write_text(_sum(planned))
    return 0


def _tell(planned: DrainPlan) -> None:
    """Each fate in a line, before the question."""
    for fate in planned.fates:
        where = f" to {printable(fate.host, limit=60)}" if fate.host and fate.plan is not None else ""
        narrate(f"{printable(fate.vm, limit=60)}: {fate.fate}{where} ({printable(fate.why, limit=200)})")
    narrate(_sum(planned))


def _sum(planned: DrainPlan) -> str:
    if not any(fate.plan is not None for fate in planned.fates) and not planned.staying:
        return f"{printable(planned.host)}: nothing runs there"
    staying = f"; {len(planned.staying)} cannot leave and run on" if planned.staying else ""
    return f"{printable(planned.host)}: about {_time(planned.predicted_s)} in all{staying}"


def _time(value_s: float) -> str:
    from vm.move_forecast import seconds

    return seconds(value_s)
