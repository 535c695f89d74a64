"""Moves by keys: the hosts with their stars, the plan with its forecast, steering one that runs, and its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from host import jobs
from host.job_model import Job, JobState, StepState
from host.journal import Journal
from hvtui.tui import job_text, move_text, plan_text
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.choice import ChoiceScreen
from hvtui.tui.screens.drain import DrainScreen
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.jobs import JobsScreen
from hvtui.tui.screens.move import HostsScreen, MovePlanScreen, MovesScreen
from hvtui.tui.screens.prompt import PromptScreen
from hvtui.tui.screens.whatif import WhatIfScreen
from hvtui.tui.widgets.page import Page
from tests.support.fake_verbs import make_step, plan_of
from tests.tui import fleet_scenes, scenes
from tests.tui.conftest import shown, until
from tests.tui.driving import SIZES, on_screen, picture, status
from tests.tui.many import app_on_many, host_named, running_many, vm_on
from vm.move import plan_of as plan_of_kind
from vm.move_model import Check


@pytest.fixture
def many(tmp_path: Path, journal: Journal) -> HvtuiApp:
    return app_on_many(tmp_path, journal)


@pytest.fixture
def fake_moves(many: HvtuiApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The simulator moves nothing: what was read of both hosts is written by hand, and the job makes a file. Returns
    the requests that plans were made for."""
    asked: list[Any] = []

    def examine(source: Any, target: Any, vm: Any, request: Any, *, link: Any) -> Any:
        asked.append(request)
        checks = () if request.options.eject else (fleet_scenes.MEDIUM,)
        return fleet_scenes.move_picture(
            fleet_scenes.NOT_OFF, *checks, vm_uuid=vm.uuid, vm_name=vm.name, source_uri=source.uri,
            target_uri=target.uri, source_name=source.name, target_name=target.name,
        )  # fmt: skip

    def planned(source: Any, found: Any, kind: Any, _request: Any, *, why_not: Any, command: Any) -> Any:
        blockers = plan_of_kind(source, found, kind, _request).blockers
        made = plan_of([make_step(tmp_path / f"moved-{found.vm_name}")], uri=source.uri, title=f"Move ({kind})")
        return replace(
            made, vm_uuid=found.vm_uuid, vm_name=found.vm_name, command=command, blockers=blockers,
            also_on=(found.target_uri,),
        )  # fmt: skip

    monkeypatch.setattr("vm.move_checks.examine", examine)
    monkeypatch.setattr("vm.move.plan_of", planned)
    return asked


async def ask_where(pilot: Pilot[None], app: HvtuiApp) -> HostsScreen:
    """Press m on web-01 and wait for the stars."""
    assert isinstance(app.screen, FleetScreen)
    app.screen.go_to_vm(vm_on(app, "lab1", "web-01").uuid, "lab1")
    await pilot.press("m")
    dialog = await on_screen(pilot, HostsScreen)
    await until(pilot, lambda: "why" in dialog.query_one("#text", Page).plain)
    return dialog


@SIZES
async def test_m_shows_the_hosts_with_stars_and_the_reasons_of_one(many: HvtuiApp, size: tuple[int, int]) -> None:
    async with running_many(many, size) as pilot:
        await ask_where(pilot, many)
        text = picture(pilot)
        assert all(name in text for name in ("lab1", "lab2", "far1", "★", "it is here"))
        assert "memory left for others" in text or "impossible" in text
        await pilot.press("G")
        await until(pilot, lambda: "why lab" in shown(many).text or "why far1" in shown(many).text)
        await pilot.press("escape")
        await on_screen(pilot, FleetScreen)


async def test_a_chosen_host_leads_to_the_plan_and_enter_moves(
    many: HvtuiApp, fake_moves: list[Any], tmp_path: Path, journal: Journal
) -> None:
    async with running_many(many, (120, 40)) as pilot:
        await ask_where(pilot, many)
        await pilot.press("enter")
        await on_screen(pilot, MovePlanScreen)
        assert "the CD /srv/iso/debian.iso is not on" in picture(pilot)
        await pilot.press("e")
        await until(pilot, lambda: len(fake_moves) == 2 and isinstance(many.screen, MovePlanScreen))
        await until(pilot, lambda: "predicted" in shown(many).text)
        text = picture(pilot)
        assert "live migration, peer to peer" in text and "Looked at on both hosts" in text
        assert "--host lab1 vm migrate --to" in text and "--eject" in text
        await pilot.press("enter")
        await until(pilot, lambda: "moved to" in status(pilot))
    (job,) = journal.jobs()
    assert job.state is JobState.DONE and (tmp_path / "moved-web-01").exists()
    assert job.host_uri == host_named(many, "lab1").uri


async def test_o_offers_the_other_kinds_with_why_not(many: HvtuiApp, fake_moves: list[Any]) -> None:
    async with running_many(many, (120, 40)) as pilot:
        await ask_where(pilot, many)
        await pilot.press("enter")
        await on_screen(pilot, MovePlanScreen)
        await pilot.press("o")
        await on_screen(pilot, ChoiceScreen)
        text = picture(pilot)
        assert "cannot be: it is running, and an offline move needs it off" in " ".join(text.split())
        await pilot.press("G", "enter")
        await until(pilot, lambda: len(fake_moves) == 2 and isinstance(many.screen, MovePlanScreen))
        assert fake_moves[-1].kind == "definition"
        await pilot.press("p")
        await pilot.pause()
        assert isinstance(many.screen, MovePlanScreen), "a copy of a definition has no post-copy"


async def test_marked_vms_move_as_a_set_each_in_its_own_way(
    many: HvtuiApp, fake_moves: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_scenes, "MEDIUM", Check("medium", True, ""))
    async with running_many(many, (120, 40)) as pilot:
        screen = many.screen
        assert isinstance(screen, FleetScreen)
        for name in ("web-01", "web-02"):
            screen.go_to_vm(vm_on(many, "lab1", name).uuid, "lab1")
            await pilot.press("space")
        await pilot.press("m")
        dialog = await on_screen(pilot, HostsScreen)
        await until(pilot, lambda: "why" in dialog.query_one("#text", Page).plain)
        await pilot.press("enter")
        await on_screen(pilot, MovesScreen)
        text = picture(pilot)
        assert "web-01" in text and "web-02" in text and text.count("predicted") == 2
        await pilot.press("enter")
        await until(pilot, lambda: "moved to" in status(pilot) and "2 VMs" in status(pilot))
    assert (tmp_path / "moved-web-01").exists() and (tmp_path / "moved-web-02").exists()


async def test_without_another_host_m_says_how_one_becomes_known(
    app_on: Callable[..., HvtuiApp], simulated: Any
) -> None:
    from tests.tui.driving import go_to, running

    app = app_on(simulated)
    async with running(app) as pilot:
        await go_to(pilot, "web-01")
        await pilot.press("m")
        await until(pilot, lambda: "there is no other host" in status(pilot))


@SIZES
async def test_a_running_move_shows_its_progress_and_its_keys(size: tuple[int, int]) -> None:
    app = fleet_scenes.many_app(shown_jobs=(fleet_scenes.moving(),))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        assert "memory, round 3: 236M of 908M" in status(pilot)
        await pilot.press("J")
        await on_screen(pilot, JobsScreen)
        text = " ".join(app.screen.query_one("#text", Page).plain.split())
        assert all(words in text for words in ("w bandwidth", "l downtime limit", "o post-copy", "Q quick now"))
        picture(pilot)


async def test_a_move_that_does_not_converge_offers_the_ways_out() -> None:
    stuck = fleet_scenes.moving("round 9: …; it does not come to an end: hvtui job tune 231 --quick", postcopy=False)
    app = fleet_scenes.many_app(shown_jobs=(stuck,))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        line = status(pilot)
        assert "does not come to an end" in line and "Q quick now" in line and "x cancel" in line
        assert "post-copy" not in line


@pytest.mark.parametrize(
    ("key", "answer", "wish"),
    [("w", "20M", {"bandwidth": "20M"}), ("l", "500ms", {"downtime": "500ms"}), ("o", "", {"postcopy": "yes"}),
     ("Q", "", {"quick": "yes"})],
)  # fmt: skip
async def test_the_keys_of_a_running_move_tell_it_what_is_wanted(
    key: str, answer: str, wish: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, dict[str, str]]] = []

    def wished(job_id: int, _journal: Journal, **wishes: str) -> None:
        told.append((job_id, wishes))

    monkeypatch.setattr(jobs, "wish", wished)
    app = fleet_scenes.many_app(shown_jobs=(fleet_scenes.moving(),))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("J")
        await on_screen(pilot, JobsScreen)
        await pilot.press(key)
        await until(pilot, lambda: not isinstance(app.screen, JobsScreen))
        if answer:
            await on_screen(pilot, PromptScreen)
            await pilot.press(*"nonsense", "enter")
            assert isinstance(app.screen, PromptScreen)
            await pilot.press(*["backspace"] * 8, *answer)
        await pilot.press("enter")
        await until(pilot, lambda: told == [(231, wish)])


def test_a_finished_move_stands_beside_its_forecast_with_its_hosts() -> None:
    job = fleet_scenes.moved()
    lines = [row.text.plain for row in job_text.job_rows(job, now=scenes.NOW)]
    assert any(line.startswith("predicted ") for line in lines)
    assert any("the guest stood still 43 ms, 931M sent" in line for line in lines)
    where = [row.text.plain.split() for row in move_text.where_rows(job, fleet_scenes.snapshots().values())]
    assert where == [["lab1", "running"], ["lab2", "not", "there"]]
    assert move_text.outcome_figures(job) == "stood still 43 ms"


def queued(journal: Journal, app: HvtuiApp, directory: Path, count: int) -> list[Job]:
    uri = host_named(app, "lab1").uri
    plans = [replace(plan_of([make_step(directory / f"q{n}")], uri=uri), vm_name=f"q{n}") for n in range(count)]
    return [jobs.create(plan, journal) for plan in plans]


async def test_waiting_jobs_are_paused_resumed_and_put_first(many: HvtuiApp, journal: Journal, tmp_path: Path) -> None:
    async with running_many(many) as pilot:
        first, last = queued(journal, many, tmp_path, 2)
        await pilot.press("J")
        await on_screen(pilot, JobsScreen)
        await until(pilot, lambda: len(many.jobs) == 2)
        await pilot.press("p")
        await until(pilot, lambda: journal.job(last.id).is_paused)
        await until(pilot, lambda: "paused" in shown(many).line_with(f" {last.id}  "))
        await pilot.press("p")
        await until(pilot, lambda: not journal.job(last.id).is_paused)
        await pilot.press("f")
        await until(pilot, lambda: f"job {last.id} is first now" in status(pilot))
        assert not journal.job(first.id).is_paused


@SIZES
async def test_what_a_waiting_job_waits_for_is_told(size: tuple[int, int]) -> None:
    app = fleet_scenes.many_app(shown_jobs=fleet_scenes.waiting_jobs())
    async with app.run_test(size=size) as pilot:
        await pilot.press("J")
        await on_screen(pilot, JobsScreen)
        text = picture(pilot)
        assert "waits: 2 moves run on lab2 already" in text and "paused" in text


@SIZES
async def test_a_drain_shows_each_vm_s_fate_before_anything_happens(size: tuple[int, int]) -> None:
    app = fleet_scenes.many_app()
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.push_screen(DrainScreen(fleet_scenes.drain_plan()))
        await on_screen(pilot, DrainScreen)
        text = picture(pilot)
        assert "lab1: 4 leave or stop, in about 1 min 41 s, 2 stay, 1 of them runs on" in " ".join(text.split())
        lines = [line for line in text.splitlines() if "│" in line]
        vpn = next(place for place, line in enumerate(lines) if "vpn" in line)
        assert vpn < next(place for place, line in enumerate(lines) if "web-01" in line), "what cannot leave is first"
        assert "same as  hvtui --headless host drain lab1" in text


async def test_m_on_a_host_of_the_tree_drains_it_and_brings_it_back(many: HvtuiApp, journal: Journal) -> None:
    from host import maintenance

    async with running_many(many) as pilot:
        await pilot.press("h", "j", "j")
        await pilot.press("M")
        await on_screen(pilot, DrainScreen)
        assert "lab1" in picture(pilot)
        many.pop_screen()
        maintenance.begin(host_named(many, "lab1").uri, "lab1")
        jobs.submit(plan_of([], uri=host_named(many, "lab1").uri), host_named(many, "lab1"), journal)
        await until(pilot, lambda: "drained" in shown(many).text)
        await pilot.press("M")
        await until(pilot, lambda: "Take lab1 back into service" in shown(many).text)
        await pilot.press("enter")
        await until(pilot, lambda: maintenance.read() == ())
        await until(pilot, lambda: "drained" not in shown(many).text.replace("drain/resume", ""))


async def test_m_means_no_host_without_one(many: HvtuiApp) -> None:
    async with running_many(many) as pilot:
        await pilot.press("M")
        await until(pilot, lambda: "choose a host in the tree of hosts first" in status(pilot))


async def test_the_light_tells_whether_any_host_may_fail(many: HvtuiApp) -> None:
    async with running_many(many) as pilot:
        await until(pilot, lambda: "N-1 ✓" in shown(many).lines[0])
        await pilot.press("W")
        await on_screen(pilot, WhatIfScreen)
        await until(pilot, lambda: "any host may fail" in shown(many).text)
        assert "If lab1 died now" in picture(pilot) and "would come up on" in picture(pilot)


@SIZES
async def test_what_would_have_no_place_stands_first_with_why(size: tuple[int, int]) -> None:
    app = fleet_scenes.many_app()
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        assert "N-1 ×" in shown(app).lines[0]
        await pilot.press("W")
        await on_screen(pilot, WhatIfScreen)
        text = " ".join(app.screen.query_one("#text", Page).plain.split())
        assert "without shop1 1 VM has no place" in text and "till" in text
        assert "not known: no answer within 15 s" in text
        picture(pilot)


def test_what_is_only_for_a_move_that_is_given_up_is_one_line_of_its_plan_and_job():
    plan, sight = fleet_scenes.move_sight()
    told = [each.text.plain for each in move_text.move_rows(plan, sight)]
    assert sum(words.startswith(plan_text.INSTEAD) for words in told) == 0
    assert [words for words in told if "only if it becomes a quick move" in words] == [plan_text.instead_words(4)]
    assert [each.text.plain for each in plan_text.details_rows([plan])].count(plan.steps[4].title) == 1
    job = fleet_scenes.moving()
    folded = [each.text.plain for each in job_text.job_rows(job, now=scenes.NOW)]
    assert plan_text.instead_words(4) in folded
    at = next(index for index, step in enumerate(job.steps) if step.title.startswith(plan_text.INSTEAD))
    begun = tuple(
        replace(step, state=StepState.RUNNING) if place == at else step for place, step in enumerate(job.steps)
    )
    told = [each.text.plain for each in job_text.job_rows(replace(job, steps=begun), now=scenes.NOW)]
    assert sum(words.startswith(plan_text.INSTEAD) for words in told) == 4
