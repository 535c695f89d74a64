"""`hvtui job tune`: what is wanted of a move that is under way; its step grants it (vm.move_progress)."""

from __future__ import annotations

from typing import Any

import click

from host.errors import Unsupported, UsageError
from hvtui.cli.grammar import job_argument, option, verb
from hvtui.cli.output import write_text
from hvtui.cli.session import Session
from hvtui.cli.vm_migrate import MILLISECONDS, RATE


@verb(
    "tune",
    job_argument(),
    option("--bandwidth", type=RATE, metavar="RATE", text="At most so much a second, such as 100M."),
    option("--downtime", type=MILLISECONDS, metavar="TIME", text="At most so long without the guest: 300ms."),
    option(
        "--postcopy",
        is_flag=True,
        text="Run the guest at the target now; fetch the rest of its memory on demand (of a move begun with "
        "--postcopy).",
    ),
    option("--quick", is_flag=True, text="Give the live move up and take Quick Migration."),
    text="Change a live move while it runs. 'hvtui job watch ID' shows what came of it.",
)
def tune(session: Session, job_id: int, **given: Any) -> None:
    from host import jobs

    wishes = _wishes(given)
    if not wishes:
        raise UsageError("what shall change?", remedy="Give --bandwidth, --downtime, --postcopy or --quick")
    if given["postcopy"] and given["quick"]:
        raise click.UsageError("--postcopy and --quick exclude each other")
    journal = session.journal()
    live = next((step for step in journal.job(job_id).plan.steps if step.verb == "move.live"), None)
    if live is None:
        raise Unsupported("it is no live move", about=f"job {job_id}", remedy="See 'hvtui job show'")
    if given["postcopy"] and not live.args.get("postcopy"):
        remedy = "Only a move that was begun with --postcopy can; --quick is for any"
        raise Unsupported("it was begun without post-copy", about=f"job {job_id}", remedy=remedy)
    jobs.wish(job_id, journal, **wishes)
    write_text(f"Job {job_id} was told; see what comes of it with 'hvtui job watch {job_id}'")


def _wishes(given: dict[str, Any]) -> dict[str, str]:
    wishes = {}
    if given["bandwidth"]:
        wishes["bandwidth"] = f"{given['bandwidth']}B"
    if given["downtime"]:
        wishes["downtime"] = f"{given['downtime']}ms"
    for name in ("postcopy", "quick"):
        if given[name]:
            wishes[name] = "yes"
    return wishes
