"""The thread that reads keys: it rests until a key comes, and loses none."""

from __future__ import annotations

import selectors
import time
from typing import Any

import pytest

from hvtui.tui import driver
from tests.support.terminal import HVTUI, Terminal


def test_keys_and_a_lone_escape_arrive_after_a_long_rest() -> None:
    terminal = Terminal(*HVTUI, "--demo")
    try:
        terminal.wait_for("backup")
        time.sleep(driver.AWAKE_S + 3 * driver.TICK_S)
        terminal.type("?")
        terminal.wait_for("─ Keys ─")
        time.sleep(driver.AWAKE_S + 3 * driver.TICK_S)
        terminal.type("\x1b")
        terminal.wait_until(lambda: "─ Keys ─" not in terminal.text, "the list without the help")
        time.sleep(driver.AWAKE_S + 3 * driver.TICK_S)
        terminal.type("q")
        assert terminal.exit_code() == 0
    finally:
        terminal.close()


def test_at_rest_it_waits_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []

    class Selector:
        """Nothing to read twice, then the sign to end."""

        def __enter__(self) -> Selector:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def register(self, descriptor: int, _events: int) -> None:
            self.last = descriptor

        def select(self, timeout_s: float | None) -> list[tuple[Any, int]]:
            waits.append(timeout_s)
            if timeout_s is not None:
                clock[0] += driver.AWAKE_S / 2
                return []
            return [(selectors.SelectorKey("", self.last, 0, None), 0)]

    clock = [0.0]
    monkeypatch.setattr(driver.selectors, "SelectSelector", Selector)
    monkeypatch.setattr(driver.time, "monotonic", lambda: clock[0])
    thread = driver.TerminalDriver.__new__(driver.TerminalDriver)
    thread.fileno, thread._wake_reader, thread._debug = 100, 101, False
    thread.run_input_thread()
    assert waits == [driver.TICK_S, driver.TICK_S, None]
