"""Remedies name the keys of this interface, not the commands of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host import jobs
from host.connection import Host
from host.job_rules import busy, what_now
from host.journal import Journal
from host.plan import Plan
from hvtui.tui import catalogue, keymap
from hvtui.tui.app import HvtuiApp
from hvtui.tui.key_words import in_keys
from hvtui.tui.screens.jobs import JobsScreen
from hvtui.tui.screens.plan import PlanScreen
from tests.support.fake_verbs import make_step, plan_of
from tests.tui import scenes
from tests.tui.conftest import until
from tests.tui.driving import on_screen, picture, running, status
from vm.commands import hint

catalogue.load()
App = Callable[..., HvtuiApp]


@pytest.fixture(autouse=True)
def own_keys() -> Iterator[None]:
    """No test leaves its keys to the next."""
    yield
    keymap.rebind({})


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("See it with 'hvtui job show 7'", "See it with J (job 7)"),
        ("or see it with 'hvtui job list'", "or see it with J"),
        (f"Look with {hint('console', 'web-1')}, or {hint('off', 'web-1')}", "Look with c, or O"),
        (f"Press {hint('reset', 'web-1')}", "Press :reset"),
        (f"Boot it: {hint('start', 'web', '--discard-saved')}", "Boot it: 'hvtui vm start --discard-saved web'"),
        ("Use 'hvtui vm console' in a shell", "Use 'hvtui vm console' in a shell"),
        (f"Stop {hint('stop', 'a b')}", "Stop 'hvtui vm stop 'a b''"),
        ("'hvtui job frobnicate 7'", "'hvtui job frobnicate 7'"),
    ],
)
def test_a_command_that_a_key_does_is_told_as_that_key(told: str, shown: str):
    assert in_keys(told) == shown


def test_what_to_do_about_a_job_names_no_command():
    for job in scenes.jobs():
        for told in (what_now(job), busy(job, about="web").remedy):
            assert "hvtui" not in in_keys(told)
    assert in_keys(what_now(scenes.jobs()[3])).startswith(
        "Complete it with R on job 193 (J), or take it back with b on"
    )


def test_the_keys_are_those_that_the_user_chose():
    keymap.rebind({"app.jobs": "f7", "jobs.cancel": "f8"})
    assert in_keys("Stop it with 'hvtui job cancel 7'") == "Stop it with f8 on job 7 (f7)"


def making(file: Path, host: Host) -> Plan:
    return plan_of([make_step(file)], uri=host.uri)


async def test_a_blocked_plan_names_the_key(app_on: App, simulated: Host, journal: Journal, tmp_path: Path):
    first = jobs.submit(making(tmp_path / "one", simulated), simulated, journal)
    jobs.submit(jobs.plan_undo(first, simulated), simulated, journal)
    async with running(app_on(simulated)) as pilot:
        await pilot.press("J")
        await on_screen(pilot, JobsScreen)
        await until(pilot, lambda: "undone" in picture(pilot))
        await pilot.press("j", "u")
        await on_screen(pilot, PlanScreen)
        assert "See it with J (job 2)" in picture(pilot)


async def test_an_error_in_the_status_line_names_the_key(app_on: App, simulated: Host, journal: Journal):
    async with running(app_on(simulated), (120, 40)) as pilot:
        pilot.app.say("it is busy. Wait for it with 'hvtui job watch 3'", "bad")  # type: ignore[attr-defined]
        await until(pilot, lambda: "Wait for it with J (job 3)" in status(pilot))
