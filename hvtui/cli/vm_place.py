"""`hvtui vm place`: every host's stars for a VM or a template, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from host.errors import UsageError
from host.text import printable
from hvtui.cli.grammar import LIBRARY_HELP, name_argument, option, verb
from hvtui.cli.output import Column, Format, write_list, write_text
from hvtui.cli.placing import Hosts, goal_option, stars_text
from hvtui.cli.session import Session
from hvtui.placement_policy import policy_of

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
    option("--template", is_flag=True, text="NAME is a template: rate the hosts for a new VM made of it."),
    option("--profile", "profiles", multiple=True, metavar="NAME|FILE", text="With --template: as for 'vm deploy'."),
    option("--set", "settings", multiple=True, metavar="KEY=VALUE", text="With --template: as for 'vm deploy'."),
    option("--library", metavar="POOL", text=LIBRARY_HELP),
    goal_option(),
    text="Rate every host of the list for a VM: 0 to 5 stars, with the reasons. 'vm migrate NAME --to best' takes the "
    "first that is not its own. VMs with the same tag affinity/NAME belong together, with anti-affinity/NAME apart.",
)
def place(session: Session, name: str, template: bool, goal: str | None, **given: Any) -> None:
    ratings = _for_template(session, name, goal, given) if template else _for_vm(session, name, goal, given)
    if session.output is not Format.TABLE or session.columns:
        write_list(ratings, COLUMNS, output=session.output, chosen=session.columns)
        return
    for rating in ratings:
        write_text(f"{stars_text(rating.stars)}  {printable(rating.host, limit=60)}")
        for reason in rating.reasons:
            write_text(f"         {printable(reason, limit=200)}")


def _for_vm(session: Session, name: str, goal: str | None, given: Mapping[str, Any]) -> tuple[Rating, ...]:
    from hvtui.cli.chosen import one_vm
    from vm.placement import rate

    if any(given.values()):
        raise UsageError("--profile, --set and --library go with --template", remedy="A VM that exists needs none")
    vm = one_vm(session, name, config=True)
    with Hosts(session) as hosts:
        return rate(hosts.demand_of(vm), hosts.pictures(), policy_of(session.config(), goal))


def _for_template(session: Session, name: str, goal: str | None, given: Mapping[str, Any]) -> tuple[Rating, ...]:
    from hvtui.cli.vm_deploy_best import NEW, rated

    wanted = {**NEW, **given, "template": name, "pattern": name}
    with Hosts(session, own=False) as hosts:
        return rated(session, hosts, wanted, policy_of(session.config(), goal))
