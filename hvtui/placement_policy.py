"""What the stars of hosts are given for, from the configuration and what a command says. Decides nothing else."""

from __future__ import annotations

from hvtui.config import Config
from vm.placement_model import Goal, Policy, Weights


def policy_of(config: Config, goal: str | None = None) -> Policy:
    """The policy of [placement]; `goal` takes precedence over the one there."""
    wanted = goal or config.placement.goal
    return Policy(Goal(wanted) if wanted else Goal.BALANCE, Weights(**config.placement.weights))
