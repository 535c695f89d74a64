"""Keys and actions: each does on a real simulated host what the registry says, alone and in bulk; users rebind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from host.connection import Host
from host.errors import UsageError
from host.journal import Journal
from host.plan import Danger
from hvtui.config import Config, Ui
from hvtui.tui import actions, catalogue, keymap
from hvtui.tui.actions import why_not
from hvtui.tui.app import HvtuiApp
from hvtui.tui.screens.fleet import FleetScreen
from hvtui.tui.screens.plan import PlanScreen
from hvtui.tui.widgets import footer
from hvtui.tui.widgets.command_line import choices
from hvtui.tui.widgets.footer import footer_spans
from hvtui.tui.widgets.grid import Grid
from tests.tui import scenes
from tests.tui.conftest import shown, until
from vm.model import VmState

catalogue.load()


@pytest.fixture(autouse=True)
def own_keys() -> Iterator[None]:
    """No test leaves its keys to the next."""
    yield
    keymap.rebind({})


def _state(app: HvtuiApp, name: str) -> VmState | None:
    vms = app.snapshot.vms if app.snapshot is not None else ()
    return next((vm.state for vm in vms if vm.name == name), None)


async def _on(pilot, name: str) -> Grid:
    """Wait for the list and put the cursor on that VM."""
    app = pilot.app
    await until(pilot, lambda: _state(app, name) is not None)
    grid = app.screen.query_one(Grid)
    assert grid.move_to_vm(next(vm.uuid for vm in app.snapshot.vms if vm.name == name))
    await pilot.pause()
    return grid


def _first(host: Host, state: int) -> str:
    """The name of a plain, persistent VM in that libvirt state."""
    with host.calls("look") as connection:
        return next(
            d.name() for d in connection.listAllDomains()
            if d.state()[0] == state and d.isPersistent() and d.name().isascii() and len(d.name()) < 20
            and not d.hasManagedSaveImage()
        )  # fmt: skip


async def test_s_starts_at_once_and_tells_the_job(app_on: Callable[..., HvtuiApp], simulated: Host, journal: Journal):
    name = _first(simulated, 5)
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await _on(pilot, name)
        await pilot.press("s")
        await until(pilot, lambda: f"started {name} · job 1" in shown(app).text)
        await until(pilot, lambda: _state(app, name) is VmState.RUNNING)
    assert [job.state.value for job in journal.jobs()] == ["done"]


async def test_shut_down_asks_first_and_esc_changes_nothing(
    app_on: Callable[..., HvtuiApp], simulated: Host, journal: Journal
):
    name = _first(simulated, 1)
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await _on(pilot, name)
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen))
        await until(pilot, lambda: "hvtui --headless vm stop" in shown(app).text)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, FleetScreen))
        assert journal.jobs() == ()
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen))
        await pilot.press("enter")
        await until(pilot, lambda: _state(app, name) is VmState.OFF)


async def test_what_can_be_taken_back_says_so_for_one_and_for_several(
    app_on: Callable[..., HvtuiApp], simulated: Host, journal: Journal
):
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await _on(pilot, "build-07")
        await pilot.press("s")  # a start has no way back
        await until(pilot, lambda: shown(app).lines[-2].split("started")[-1].split() == ["build-07", "·", "job", "1"])
        await pilot.press("slash", *"name:web-0*", "enter", "asterisk", "a")
        await until(pilot, lambda: "2 VMs · jobs 2–3 · u undo" in shown(app).lines[-2])


async def test_marked_vms_are_paused_in_one_go(app_on: Callable[..., HvtuiApp], simulated: Host, journal: Journal):
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.snapshot is not None and len(app.snapshot.vms) > 3)
        await pilot.press("slash", *"state:running", "enter", "asterisk")
        marked = {vm.name for vm in app.screen.query_one(Grid).marked}
        assert len(marked) > 1
        await pilot.press("P")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen) or "paused" in shown(app).lines[-2])
        if isinstance(app.screen, PlanScreen):
            await pilot.press("enter")
        await until(pilot, lambda: {_state(app, name) for name in marked} == {VmState.PAUSED})
    assert len(journal.jobs()) == len(marked)


async def test_t_tags_a_vm_and_makes_the_first_one_where_there_is_none(
    app_on: Callable[..., HvtuiApp], simulated: Host
):
    name = _first(simulated, 5)
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await _on(pilot, name)
        await pilot.press("t")
        await until(pilot, lambda: type(app.screen).__name__ == "PromptScreen")
        await pilot.press("ctrl+u", "ctrl+k", *"blue", "enter")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen) or "changed" in shown(app).lines[-2])
        if isinstance(app.screen, PlanScreen):
            await pilot.press("enter")

        def is_tagged() -> bool:
            assert app.snapshot is not None
            vm = next(vm for vm in app.snapshot.vms if vm.name == name)
            return vm.config is not None and "blue" in vm.config.tags

        await until(pilot, is_tagged)
    tiny = actions.action_named("fleet.tiny")
    assert tiny is not None
    assert tiny.applies(actions.Target())
    assert not tiny.applies(actions.Target(vms_there=3)), "a filter that hides all of them makes no host empty"


async def test_t_makes_nothing_where_a_filter_hides_every_vm(app_on: Callable[..., HvtuiApp], simulated: Host):
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.snapshot is not None and bool(app.snapshot.vms))
        await pilot.press("slash", *"xyzzy", "enter", "t")
        await until(pilot, lambda: "tags: no VM is selected" in shown(app).lines[-2])
        assert "tiny" not in shown(app).lines[-1]


async def test_a_key_that_does_not_fit_says_why(app_on: Callable[..., HvtuiApp], simulated: Host):
    name = _first(simulated, 1)
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await _on(pilot, name)
        await pilot.press("s")
        await until(pilot, lambda: f"start: not while {name} is running" in shown(app).lines[-2])


@pytest.mark.parametrize(
    ("key", "screen"),
    [("J", "JobsScreen"), ("E", "EventsScreen"), ("H", "HostScreen"), ("question_mark", "HelpScreen"),
     ("n", "CreateScreen"), ("ctrl+p", "Palette")],
)  # fmt: skip
async def test_the_keys_of_the_screens_open_them_and_esc_comes_back(
    key: str, screen: str, app_on: Callable[..., HvtuiApp], simulated: Host
):
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.snapshot is not None)
        await pilot.press(key)
        await until(pilot, lambda: type(app.screen).__name__ == screen)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, FleetScreen))


async def test_the_colon_line_goes_to_vms_and_runs_actions(app_on: Callable[..., HvtuiApp], simulated: Host):
    name = _first(simulated, 1)
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: _state(app, name) is not None)
        await pilot.press("colon", *name, "enter")
        grid = app.screen.query_one(Grid)
        await until(pilot, lambda: grid.current is not None and grid.current.name == name)
        assert app.focused is grid
        await pilot.press("colon", *"jobs", "enter")
        await until(pilot, lambda: type(app.screen).__name__ == "JobsScreen")
        await pilot.press("colon", *"vms", "enter")
        await until(pilot, lambda: isinstance(app.screen, FleetScreen))
        await pilot.press("colon", *"xyzzy", "enter")
        await until(pilot, lambda: "nothing is called" in shown(app).lines[-2])
        await pilot.press("colon", "j", "escape")
        await until(pilot, lambda: app.focused is grid)


def test_the_colon_line_offers_what_begins_with_the_text_first():
    vms = scenes.varied_vms()
    assert choices("jobs", vms)[0].action_id == "app.jobs"
    assert choices("vm.start", vms)[0].action_id == "vm.start"
    assert choices("vm web-02", vms)[0].text == "web-02"
    assert choices("zzz", vms) == ()


def test_actions_that_are_shown_together_share_a_key_only_when_never_both_apply():
    for scopes in (("fleet", "vm", "app"),):
        by_key: dict[str, list[actions.Action]] = {}
        for action in actions.actions_for(scopes):
            for key in keymap.keys_of(action):
                by_key.setdefault(key, []).append(action)
        shared = {key: {a.id for a in found} for key, found in by_key.items() if len(found) > 1}
        assert shared == {
            "t": {"fleet.tiny", "vm.tags"},
            "d": {"fleet.debian", "fleet.details"},
            "escape": {"fleet.back", "app.back"},
        }


def test_every_action_has_a_way_to_do_it_and_dangerous_ones_a_command():
    for action in actions.all_actions():
        assert (action.plan is None) != (action.handler is None), action.id
        if action.noun == "vm" and action.danger is not Danger.NONE and action.scope == "vm":
            assert action.command, action.id


async def test_users_rebind_keys_by_id(app_on: Callable[..., HvtuiApp], simulated: Host):
    config = Config(ui=Ui(theme="dark", ascii=False), keys={"app.jobs": "f7,ctrl+j", "fleet.last": "$"})
    app = app_on(simulated, config)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.snapshot is not None and bool(app.snapshot.vms))
        await pilot.press("J")
        assert isinstance(app.screen, FleetScreen), "the old key is free"
        await pilot.press("$")
        grid = app.screen.query_one(Grid)
        assert grid.current is grid.shown[-1]
        await pilot.press("f7")
        await until(pilot, lambda: type(app.screen).__name__ == "JobsScreen")


def test_a_key_for_an_unknown_action_is_an_error_with_a_remedy():
    with pytest.raises(UsageError, match=r"^/etc/h\.toml: \[keys\] .*'vm\.strat'\. Did you mean vm\.start\?"):
        keymap.rebind({"vm.strat": "x"}, file="/etc/h.toml")
    with pytest.raises(UsageError, match=r"shows every action's id"):
        keymap.rebind({"xyzzy": "x"})


def _keys(action_id: str) -> tuple[str, ...]:
    action = actions.action_named(action_id)
    assert action is not None
    return keymap.keys_of(action)


def test_a_key_that_a_user_gives_away_is_no_longer_another_actions():
    keymap.rebind({"app.jobs": "s,x", "vm.start": "f5"})
    assert _keys("app.jobs") == ("s", "x")
    assert _keys("vm.start") == ("f5",)
    assert _keys("app.refresh") == ("ctrl+r",)
    assert _keys("jobs.cancel") == (), "the jobs' screen has the keys of the program as well"
    keymap.rebind({"vm.start": "x"})
    assert _keys("jobs.cancel") == ("x",), "it stands on another screen"
    assert _keys("app.refresh") == ("f5", "ctrl+r")


def test_one_key_for_two_actions_that_are_shown_together_is_refused():
    keymap.rebind({"fleet.mark": "y"})
    with pytest.raises(UsageError, match=r"vm\.start and app\.jobs have both the key y"):
        keymap.rebind({"vm.start": "x,y", "app.jobs": "y"})
    assert _keys("fleet.mark") == ("y",), "nothing was changed"
    keymap.rebind({"fleet.tiny": "y", "vm.tags": "y"})
    assert _keys("vm.tags") == ("y",), "never both apply"


def test_keys_are_shown_as_people_write_them():
    shown_keys = {"question_mark": "?", "slash": "/", "ctrl+p": "ctrl+p", "S": "S", "escape": "esc"}
    assert {key: keymap.display(key) for key in shown_keys} == shown_keys
    assert keymap.key_name("?") == "question_mark"


def test_the_footer_shows_keys_that_apply_and_always_fits():
    off = actions.Target(vms=(scenes.resting("a", 1),))
    running = actions.Target(vms=(scenes.running("b", 2, cpu=1),))
    scopes = ("fleet", "vm", "app")
    for width in (10, 40, 80, 200):
        for target in (off, running, actions.Target()):
            text = "".join(part for part, _role in footer_spans(scopes, target, width))
            assert len(text) <= max(width, 7)
            assert "? help" in text
    assert " s start" in "".join(t for t, _ in footer_spans(scopes, off, 80))
    assert " S shut down" in "".join(t for t, _ in footer_spans(scopes, running, 80))


def test_why_not_is_said_for_one_for_many_and_for_none():
    start = actions.action_named("vm.start")
    rename = actions.action_named("vm.rename")
    assert start is not None
    assert rename is not None
    one, two = scenes.running("a", 1, cpu=1), scenes.running("b", 2, cpu=1)
    assert why_not(start, actions.Target()) == "start: no VM is selected"
    assert why_not(start, actions.Target(vms=(one, two))) == "start: none of the marked VMs can"
    assert why_not(rename, actions.Target(vms=(one, two))) == "rename: not for 2 VMs at once"


def test_an_action_without_a_key_has_no_place_in_the_footer():
    keymap.rebind({"app.jobs": "a"})
    spans = footer_spans(("fleet", "vm", "app"), actions.Target(vms=(scenes.resting("a", 1),)), 200)
    keys = [text.strip() for text, role in spans if role == "key"]
    assert "" not in keys
    assert "autostart" not in "".join(text for text, _role in spans)


async def test_what_was_said_is_forgotten_after_a_while_but_not_what_went_wrong(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(footer, "SAID_S", 0.2)
    app = scenes.still_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        app.say("done it", "good")
        await until(pilot, lambda: "done it" in shown(app).lines[-2])
        await until(pilot, lambda: "done it" not in shown(app).lines[-2])
        app.say("it broke", "bad")
        await pilot.pause(0.5)
        assert "it broke" in shown(app).lines[-2]


async def test_the_footer_shows_the_keys_of_the_filter_while_one_types_it():
    app = scenes.still_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("slash", "w")
        assert "shut down" not in shown(app).lines[-1]
        assert "enter keep it" in shown(app).lines[-1]
        await pilot.press("enter")
        await pilot.pause()
        assert "shut down" in shown(app).lines[-1]


async def test_the_colon_line_runs_an_action_on_a_vm_by_name(app_on: Callable[..., HvtuiApp], simulated: Host):
    name = _first(simulated, 5)
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: _state(app, name) is not None)
        await pilot.press("colon", *f"start {name}", "enter")
        await until(pilot, lambda: _state(app, name) is VmState.RUNNING)


def test_the_colon_line_offers_what_applies_first_and_nothing_of_other_screens():
    vms = scenes.varied_vms()
    running = actions.Target(vms=(scenes.running("b", 2, cpu=1),))
    offered = choices("sta", vms, target=running, scopes=frozenset({"fleet", "vm", "app"}))
    ids = [choice.action_id for choice in offered if choice.action_id]
    assert "jobs.restart" not in ids
    assert ids.index("vm.restart") < ids.index("vm.start"), "it runs already"


async def test_the_palette_shows_what_does_not_apply_with_the_reason(app_on: Callable[..., HvtuiApp], simulated: Host):
    name = _first(simulated, 1)
    app = app_on(simulated)
    async with app.run_test(size=(100, 30)) as pilot:
        await _on(pilot, name)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: type(app.screen).__name__ == "Palette")
        await pilot.press(*"discard")
        await until(pilot, lambda: f"not while {name} is running" in shown(app).text)


async def test_the_palette_lists_what_does_not_apply_last_before_anything_is_typed(
    app_on: Callable[..., HvtuiApp], simulated: Host
):
    name = _first(simulated, 1)
    app = app_on(simulated)
    async with app.run_test(size=(100, 60)) as pilot:
        await _on(pilot, name)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: f"not while {name} is running" in shown(app).text)
        lines = shown(app).lines
        start = next(line for line in lines if "  start  " in line)
        assert f"not while {name} is running" in start
        assert lines.index(start) > next(place for place, line in enumerate(lines) if "jobs that run go on" in line)
        last = [action for action in actions.all_actions() if action.scope in {"vm", "app"}]
        last = [action for action in last if not action.applies(app.selected())]
        await pilot.press("up", "enter")
        await until(pilot, lambda: why_not(last[-1], app.selected()) in shown(app).lines[-2])
