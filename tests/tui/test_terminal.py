"""The real program on a pseudo-terminal: whatever ends it, and whatever its window does, the terminal is as before."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.simulated_world import world
from tests.support.terminal import HVTUI, Terminal

FLEET = "backup"  # the first VM of the demo
SMALLEST, LARGEST = (20, 5), (200, 60)


@pytest.fixture
def opened() -> Iterator[Callable[..., Terminal]]:
    """A function that opens the demo on a terminal; `shown` waits for its list."""
    terminals: list[Terminal] = []

    def make(*, shown: bool = True, columns: int = 80, rows: int = 24, **environment: str) -> Terminal:
        terminals.append(Terminal(*HVTUI, "--demo", columns=columns, rows=rows, **environment))
        if shown:
            terminals[-1].wait_for(FLEET)
        return terminals[-1]

    yield make
    for each in terminals:
        each.close()


@pytest.mark.parametrize("key", ["q", "\x11", "\x03"], ids=["q", "ctrl+q", "ctrl+c"])
def test_a_key_that_quits_restores_the_terminal(opened: Callable[..., Terminal], key: str) -> None:
    terminal = opened()
    terminal.type(key)
    assert terminal.exit_code() == 0
    terminal.assert_restored()


SIGNALS = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_restores_the_terminal_and_is_told_by_the_exit_code(
    opened: Callable[..., Terminal], number: signal.Signals
) -> None:
    terminal = opened()
    terminal.signal(number)
    assert terminal.exit_code() == 128 + number
    terminal.assert_restored()


@pytest.mark.parametrize(
    ("key", "sign"),
    [
        ("D", "Delete backup"),
        ("n", "New virtual machine"),
        ("e", "<name>backup</name>"),
        ("?", "This list"),
        (":", "go "),
    ],
)
def test_a_signal_in_a_dialog_restores_the_terminal(opened: Callable[..., Terminal], key: str, sign: str) -> None:
    terminal = opened(rows=60)
    terminal.type(key)
    terminal.wait_for(sign)
    terminal.signal(signal.SIGTERM)
    assert terminal.exit_code() == 143
    terminal.assert_restored()


def test_a_signal_during_the_start_leaves_no_half_set_terminal(opened: Callable[..., Terminal]) -> None:
    for step in range(12):
        terminal = opened(shown=False)
        time.sleep(0.06 * step)
        terminal.signal(signal.SIGTERM)
        assert terminal.exit_code() in {143, -signal.SIGTERM}
        terminal.assert_restored()


def test_a_closed_window_ends_the_program(opened: Callable[..., Terminal]) -> None:
    terminal = opened()
    terminal.hang_up()
    assert terminal.process.wait(60) == 128 + signal.SIGHUP


def test_a_closed_window_ends_the_program_while_much_is_written(opened: Callable[..., Terminal]) -> None:
    terminal = opened(columns=LARGEST[0], rows=LARGEST[1])
    terminal.type("jk" * 200)
    terminal.hang_up()
    # It answers the 400 keys first; the limit only tells a program that hangs from one on a busy machine.
    assert terminal.process.wait(60) == 128 + signal.SIGHUP


def test_a_stopped_program_goes_on_and_paints_the_screen_anew(opened: Callable[..., Terminal]) -> None:
    terminal = opened()
    terminal.signal(signal.SIGSTOP)
    terminal.blank()
    terminal.signal(signal.SIGCONT)
    terminal.wait_for(FLEET)
    terminal.type("q")
    assert terminal.exit_code() == 0
    terminal.assert_restored()


def test_a_storm_of_sizes_ends_with_the_picture_of_the_last_one(opened: Callable[..., Terminal]) -> None:
    terminal = opened()
    sizes = random.Random(7)  # noqa: S311 - sizes, not secrets
    for _ in range(50):
        columns = sizes.randint(SMALLEST[0], LARGEST[0])
        terminal.resize(columns, sizes.randint(SMALLEST[1], LARGEST[1]))
        terminal.type("j")
    terminal.resize(*SMALLEST)
    terminal.wait_until(lambda: "help" in terminal.lines[-1], "the smallest picture")
    terminal.resize(*LARGEST)
    terminal.wait_until(lambda: "help" in terminal.lines[-1], "the largest picture")
    terminal.wait_until(lambda: "30 VMs" in terminal.lines[1], "its top")
    terminal.resize(80, 24)
    terminal.wait_until(lambda: "help" in terminal.lines[-1] and "30 VMs" in terminal.lines[1], "the usual picture")
    terminal.type("q")
    assert terminal.exit_code() == 0
    terminal.assert_restored()


@pytest.mark.parametrize(
    ("key", "sign"),
    [
        ("n", "New virtual machine"),
        ("J", "No job yet"),
        ("E", "Nothing has happened"),
        ("H", "connection"),
        ("?", "─ Keys ─"),
        ("D", "Delete backup"),
        ("e", "<name>backup</name>"),
        ("/", "esc clear it"),
        (":", "go   VMs"),
        ("\x10", "▔▔▔"),
    ],
)
def test_every_screen_survives_every_size(opened: Callable[..., Terminal], key: str, sign: str) -> None:
    terminal = opened()
    terminal.type(key)
    terminal.wait_for(sign)
    for columns, rows in ((1, 1), SMALLEST, (80, 3), (20, 60), LARGEST, (80, 24)):
        terminal.resize(columns, rows)
        time.sleep(0.1)
    terminal.wait_for(sign)
    terminal.type("\x1b")
    terminal.wait_until(lambda: sign not in terminal.text and "30 VMs" in terminal.lines[1], "the list")
    terminal.signal(signal.SIGTERM)  # a key could still be taken for the rest of an escape sequence
    assert terminal.exit_code() == 143
    terminal.assert_restored()


def test_what_is_opened_beside_a_line_is_not_written_over(opened: Callable[..., Terminal]) -> None:
    terminal = opened()
    terminal.type("/")
    terminal.wait_for("/name  state:running  tag:web")


def test_keys_are_actions_on_an_empty_host_after_another_screen(tmp_path: Path) -> None:
    (tmp_path / "empty.xml").write_text(world([]))
    terminal = Terminal(*HVTUI, "--connect", f"test://{tmp_path}/empty.xml")
    try:
        terminal.wait_for("try one now")
        terminal.type("J")
        terminal.wait_for("No job yet")
        terminal.type("\x1b")
        terminal.wait_for("try one now")
        terminal.type("t")
        terminal.wait_for("Create tiny")
    finally:
        terminal.close()
