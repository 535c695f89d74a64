"""Everything the screen shows of one host at one instant. Data only; vm.feed makes it, vm.model offers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from host.connection import Link
    from host.facts import NodeFacts
    from host.load import HostLoad
    from vm.model import Vm


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the screen shows of one host at one instant. A new one replaces it; nothing in it changes.

    `read_at_s` is the time.monotonic() instant of the last successful reading; while `link` is not up, the data are
    stale since then. `facts` is None until they were read once.
    """

    host_name: str
    uri: str
    vms: tuple[Vm, ...]
    load: HostLoad
    link: Link
    read_at_s: float
    facts: NodeFacts | None = None
