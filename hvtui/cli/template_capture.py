"""`hvtui template capture`: vm.template_capture makes the plan."""

from __future__ import annotations

import click

from host.errors import UsageError
from hvtui.cli.change import change
from hvtui.cli.chosen import one_vm
from hvtui.cli.grammar import option, verb
from hvtui.cli.session import Session
from hvtui.cli.template import LIBRARY
from vm.template_model import Readiness


@verb(
    "capture",
    click.Argument(["name"], metavar="NAME"),
    option("--from", "origin", metavar="VM", required=True, text="The VM, which must be off."),
    option(
        "--keep-identity", is_flag=True, text="Keep machine-id, SSH host keys, logs: every VM made from it has them."
    ),
    option("--generalised", is_flag=True, text="The guest has taken its identity away itself."),
    option("--description", metavar="TEXT", text="Free text."),
    option(
        "--readiness", type=click.Choice([each.value for each in Readiness]), text="How a guest tells that it is ready."
    ),
    option("--seed/--no-seed", "takes_seed", default=None, text="Its guests take a cloud-init seed."),
    option("--tag", "tags", multiple=True, metavar="TAG", text="A tag (may be repeated)."),
    LIBRARY,
    text="Make a template from a VM that is off: its disks are copied whole into the library, and virt-sysprep takes "
    "the guest's identity out of the copy. The VM stays as it is.",
)
def capture(
    session: Session,
    name: str,
    origin: str,
    keep_identity: bool,
    generalised: bool,
    description: str | None,
    readiness: str | None,
    takes_seed: bool | None,
    tags: tuple[str, ...],
    library: str | None,
) -> int:
    from vm.template_capture import CaptureRequest, Identity, plan_capture

    if keep_identity and generalised:
        raise UsageError("--keep-identity and --generalised contradict each other", remedy="Give one of them")
    identity = Identity.KEPT if keep_identity else Identity.GONE if generalised else Identity.REMOVED
    request = CaptureRequest(
        name,
        library=session.library(library),
        identity=identity,
        description=description,
        readiness=Readiness(readiness) if readiness else None,
        takes_seed=takes_seed,
        tags=tags,
    )
    vm, host = one_vm(session, origin), session.host()
    return change(session, [(name, None, lambda: plan_capture(host, vm, request))])
