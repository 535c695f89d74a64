"""The lanes of a move: how many run at once on a host, and over the way from one host to another. Data only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from host.plan import Lane

PER_HOST = 2
PER_LINK = 2


def lanes(
    source_name: str, target_name: str, *, per_host: int = PER_HOST, per_link: int = PER_LINK
) -> tuple[Lane, ...]:
    """The lanes (Plan.lanes) of a plan that moves a VM between two hosts; of one that stays on its host (its disks
    move) that host's only. The limits are those of [moves] in the configuration."""
    hosts = tuple(Lane(f"host:{name}", per_host) for name in dict.fromkeys((source_name, target_name)))
    return hosts if source_name == target_name else (*hosts, Lane(f"link:{source_name}>{target_name}", per_link))


def limited(found: Iterable[Lane], *, per_host: int, per_link: int) -> tuple[Lane, ...]:
    """The lanes of a plan with the limits of the configuration."""
    return tuple(replace(lane, limit=per_host if lane.name.startswith("host:") else per_link) for lane in found)
