"""`hvtui vm place`: every host's stars for a VM, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from host.text import printable
from hvtui.cli.grammar import name_argument, verb
from hvtui.cli.output import Column, Format, write_list, write_text
from hvtui.cli.placing import Hosts, goal_option, rate, stars_text
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from vm.placement import Rating

COLUMNS: tuple[Column[Rating], ...] = (
    Column("host", "The host's name.", lambda rating: rating.host, in_table=True),
    Column(
        "stars",
        "0 (impossible) to 5, in half steps.",
        lambda rating: rating.stars,
        lambda rating: stars_text(rating.stars),
        in_table=True,
    ),
    Column("is_here", "True for the host where the VM is.", lambda rating: rating.host == rating.demand.host),
    Column("reasons", "Why, each with + (for it), - (against it) or = in front.", lambda rating: list(rating.reasons)),
    Column("why_not", "What makes the host impossible, or null.", lambda rating: rating.why_not or None),
)


@verb(
    "place",
    name_argument(),
    goal_option(),
    text="Rate every host of the list for a VM: 0 to 5 stars, with the reasons. 'vm migrate NAME --to best' takes the "
    "first that is not its own. VMs with the same tag affinity/NAME belong together, with anti-affinity/NAME apart.",
)
def place(session: Session, name: str, goal: str) -> None:
    from hvtui.cli.chosen import one_vm

    vm = one_vm(session, name, config=True)
    with Hosts(session) as hosts:
        ratings = rate(hosts.demand_of(vm), hosts.pictures(), goal)
    if session.output is not Format.TABLE or session.columns:
        write_list(ratings, COLUMNS, output=session.output, chosen=session.columns)
        return
    for rating in ratings:
        write_text(f"{stars_text(rating.stars)}  {printable(rating.host, limit=60)}")
        for reason in rating.reasons:
            write_text(f"         {printable(reason, limit=200)}")
