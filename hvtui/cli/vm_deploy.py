"""`hvtui vm deploy` and `hvtui vm unseed`: from the options to a DeployRequest; vm.deploy makes the plans."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from host.errors import NotFound, UsageError
from hvtui.cli.grammar import LIBRARY_HELP, names_argument, option, verb
from hvtui.cli.profile_words import told_as_options
from hvtui.cli.session import Session

if TYPE_CHECKING:
    from vm.deploy_request import DeployRequest

READY, STARTED, DEFINED = "ready", "started", "defined"
READY_TIMEOUT_S = 600.0
BEST = "best"  # hvtui.cli.placing's
UNTIL_HELP = "When a VM counts as done: ready (its guest says so, and its seed is gone), started, or defined."


@verb(
    "deploy",
    click.Argument(["template"], metavar="TEMPLATE"),
    click.Argument(["pattern"], metavar="NAME", required=False),
    option("-n", "--count", type=click.IntRange(min=1), default=None, metavar="N", text="How many."),
    option("--first", type=click.IntRange(min=0), default=None, metavar="N", text="The first one's number (1)."),
    option("--linked/--full", default=None, text="Overlays on the template's disk (the default), or copies."),
    option("--profile", "profiles", multiple=True, metavar="NAME|FILE", text="A hardware or guest profile."),
    option("--set", "settings", multiple=True, metavar="KEY=VALUE", text="One value over the profiles: memory=2G."),
    option("--user-data", metavar="FILE", text="Cloud-init user data besides the profile's; - reads standard input."),
    option("--pool", metavar="NAME", text="The storage pool of the new disks."),
    option("--library", metavar="POOL", text=LIBRARY_HELP),
    option("--until", type=click.Choice([READY, STARTED, DEFINED]), text=UNTIL_HELP),
    option("--no-start", is_flag=True, text="The same as --until defined."),
    option("--title", metavar="TEXT", text="A short title."),
    option("--tag", "tags", multiple=True, metavar="TAG", text="A tag (may be repeated)."),
    option("--owner", metavar="NAME", text="Who they belong to."),
    option("--keep-failed", is_flag=True, text="When one fails, keep what was made of it, to restart its job."),
    text="Make VMs from a template, many at once. NAME may hold a field for the number:\n"
    "hvtui vm deploy debian 'web-{:02}' -n 20\n--host best chooses the host of the list with most stars that has the "
    "template.",
)
def deploy(session: Session, keep_failed: bool, **given: Any) -> int:
    from hvtui.cli.change_set import change_set
    from vm.deploy import plan_deploy

    if session.given.get("host") == (BEST,):
        from hvtui.cli.vm_deploy_best import settle

        settle(session, given)
    return change_set(
        session,
        lambda: plan_deploy(session.host(), request(session, **given)),
        own_waiting=True,
        keep_failed=keep_failed,
    )


def request(
    session: Session,
    *,
    template: str,
    pattern: str | None,
    count: int | None,
    first: int | None,
    profiles: Sequence[str],
    settings: Sequence[str],
    user_data: str | None,
    until: str | None,
    no_start: bool,
    **given: Any,
) -> DeployRequest:
    """The request that the options mean. Raises NotFound, UsageError, ConnectionLost, Denied."""
    from vm.deploy_defaults import read_parts
    from vm.deploy_options import of_set
    from vm.deploy_request import DeployRequest
    from vm.name_patterns import expand

    if no_start and until not in {None, DEFINED}:
        raise UsageError(f"--no-start and --until {until} contradict each other", remedy="Give one of them")
    until = DEFINED if no_start else until or READY
    library = session.library(given["library"])
    text = read_user_data(user_data) if user_data else ""
    with told_as_options():
        parts = read_parts(session.host(), template, library=library, profiles=profiles, settings=settings)
    wanted = pattern or parts.guest.name_pattern
    if not wanted:
        raise UsageError("nothing says what the VM is called", remedy="Give a name, or a pattern: 'web-{:02}' -n 20")
    asked = {
        **given, "count": count, "first": first, "profiles": profiles, "settings": settings, "user_data": user_data,
        "until": until if until != READY else None,
    }  # fmt: skip
    changes = {**{key: value for key, value in given.items() if value not in (None, ())}, "library": library}
    return DeployRequest(
        template=template,
        names=expand(wanted, count or 1, 1 if first is None else first),
        hardware=parts.hardware,
        guest=parts.guest,
        user_data=text,
        start=until != DEFINED,
        wait_ready=until == READY,
        ready_timeout_s=session.timeout_s or READY_TIMEOUT_S,
        command=of_set(template, wanted, asked),
        **changes,
    )


def read_user_data(path: str) -> str:
    """The text of a file, or of standard input for "-". Raises NotFound, UsageError naming the file."""
    from vm.user_data import LARGEST_BYTES, checked_text, read_file

    if path != "-":
        return read_file(path)
    try:
        data = sys.stdin.buffer.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise NotFound(f"cannot read the user data: {error.strerror}", about=path) from error
    return checked_text(data, about=path)


@verb(
    "unseed",
    names_argument(required=True),
    option("--now", is_flag=True, text="Do not wait until the guest has read it."),
    text="Take the seed away from VMs that were deployed without waiting for their guests.",
)
def unseed(session: Session, names: tuple[str, ...], now: bool) -> int:
    from hvtui.cli.change import change_vms
    from hvtui.cli.chosen import chosen_vms
    from vm.unseed import READY_TIMEOUT_S, plan_unseed

    limit_s = session.timeout_s or READY_TIMEOUT_S
    vms = chosen_vms(session, names)
    return change_vms(
        session, vms, lambda host, vm: plan_unseed(host, vm, wait=not now, timeout_s=limit_s), own_waiting=True
    )
