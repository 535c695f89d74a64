"""The program as a process: what it imports, streams, closed pipes, terminals, and signals."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Command, environment
from tests.support.simulated_world import many

HEAVY = {"textual", "rich", "asyncio", "pydantic"}
UNUSED_BY_LISTS = {"sqlite3", "psutil", "subprocess", "tempfile", "concurrent.futures", "urllib.parse"}
UNUSED_PARTS = ("hvtui.tui", "host.j", "host.statistics", "host.facts", "vm.lifecycle", "vm.snapshot")


def imported_by(*words: str, uri: str) -> set[str]:
    code = (
        "import sys, os\n"
        "from hvtui.__main__ import run\n"
        f"code = run({words!r})\n"
        "sys.stdout.flush()\n"
        "sys.stderr.write(' '.join(sys.modules))\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment(HVTUI_URI=uri)
    )
    return set(done.stderr.split())


def test_a_list_loads_no_interface_and_nothing_it_does_not_use(simulated_uri: str) -> None:
    modules = imported_by("--headless", "vm", "list", "-o", "json", uri=simulated_uri)
    assert "hvtui.cli.vm" in modules
    assert not modules & HEAVY
    assert not modules & UNUSED_BY_LISTS
    assert not {name for name in modules if name.startswith(UNUSED_PARTS)}


@pytest.mark.parametrize("words", [("vm", "start", "build-07"), ("job", "list"), ("host", "show"), ("vm", "--help")])
def test_no_headless_command_loads_the_interface(words: tuple[str, ...], simulated_uri: str) -> None:
    assert not imported_by(*words, uri=simulated_uri) & HEAVY


def test_a_process_writes_data_to_stdout_and_words_to_stderr(process: Command) -> None:
    result = process("--headless", "vm", "start", "build-07", "-o", "json")
    assert result.code == 0
    assert result.json[0]["result"] == "done"
    failed = process("vm", "start", "nobody", "-o", "json")
    assert (failed.code, failed.out) == (3, "")
    assert failed.err.startswith("hvtui: nobody: ")


def test_without_a_terminal_hvtui_alone_prints_the_overview(process: Command) -> None:
    result = process()
    assert result.code == 0
    assert "13 VMs" in result.out
    assert "\x1b" not in result.out + result.err


def test_the_version_and_the_help_need_no_hypervisor(process: Command) -> None:
    assert process("--version").out.startswith("hvtui ")
    for words in ((), ("vm",), ("vm", "create"), ("host",), ("job",), ("completion",)):
        result = process(*words, "--help", HVTUI_URI="nonsense:///x")
        assert result.code == 0
        assert "Common options" in result.out


def test_common_options_work_in_any_position(process: Command, simulated_uri: str) -> None:
    wanted = process("vm", "list", "-o", "json").out
    for words in (
        ("-o", "json", "vm", "list"),
        ("vm", "-o", "json", "list"),
        ("--headless", "--connect", simulated_uri, "vm", "list", "--output", "json"),
        ("-o", "table", "vm", "list", "-ojson"),
    ):
        assert process(*words).out == wanted


def test_a_reader_that_leaves_ends_the_command_quietly(simulated_uri: str, tmp_path: Path) -> None:
    (tmp_path / "many.xml").write_text(many(2000), encoding="utf-8")
    command = subprocess.Popen(
        [sys.executable, "-m", "hvtui", "--connect", f"test://{tmp_path}/many.xml", "vm", "list", "-o", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert command.stdout is not None
    command.stdout.readline()
    command.stdout.close()
    assert command.stderr is not None
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait(30) == 141


def test_a_full_disk_is_an_error_and_not_a_success(simulated_uri: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hvtui", "--connect", simulated_uri, "vm", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            check=False,
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr


class Streaming:
    """A streaming command as a process."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hvtui", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )

    def lines(self) -> Iterator[dict[str, object]]:
        assert self.process.stdout is not None
        return (json.loads(line) for line in self.process.stdout)

    def close(self) -> None:
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def streaming(simulated_uri: str) -> Iterator[Callable[..., Streaming]]:
    started: list[Streaming] = []

    def start(*words: str) -> Streaming:
        started.append(Streaming("--connect", simulated_uri, *words))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_watch_once_tells_every_state_and_ends(process: Command) -> None:
    result = process("vm", "watch", "--once", "--interval", "0.2")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0
    assert {line["vm"] for line in lines if line["kind"] == "state"} >= {"web-01", "build-07"}
    assert {line["vm"] for line in lines if line["kind"] == "rates"} >= {"web-01"}


def test_the_simulated_hosts_rates_move(process: Command) -> None:
    lines = process("--demo", "vm", "watch", "--count", "1", "--interval", "0.5", HVTUI_URI="").out.splitlines()
    rates = [json.loads(line) for line in lines if '"rates"' in line]
    assert any(line["cpu_percent"] for line in rates)


def test_watch_of_some_tells_of_those(process: Command) -> None:
    result = process("vm", "watch", "web-*", "--count", "1", "--interval", "0.2", "-o", "csv")
    assert result.out.splitlines()[0].startswith('"at","kind","vm"')
    assert "db-01" not in result.out
    assert process("vm", "watch", "nobody", "--once").code == 3


def test_watch_flushes_each_line_and_ends_on_ctrl_c(streaming: Callable[..., Streaming]) -> None:
    watch = streaming("vm", "watch", "--no-rates")
    assert next(watch.lines())["kind"] == "state"
    watch.process.send_signal(signal.SIGINT)
    assert watch.process.wait(60) == 130
    assert watch.process.stderr is not None
    assert b"Traceback" not in watch.process.stderr.read()


def test_a_silent_stream_ends_when_its_reader_leaves(streaming: Callable[..., Streaming]) -> None:
    events = streaming("host", "events")
    time.sleep(1.0)
    assert events.process.stdout is not None
    events.process.stdout.close()
    assert events.process.wait(60) == 141
    assert events.process.stderr is not None
    assert events.process.stderr.read() == b""


class Terminal:
    """A command on a pseudo-terminal of its own, as a person sees it."""

    def __init__(self, *words: str, **changes: str) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execve(  # noqa: S606 - the child of the pty
                sys.executable, [sys.executable, "-m", "hvtui", *words], environment(TERM="xterm-256color", **changes)
            )
        self.seen = ""

    def read_until(self, text: str, timeout_s: float = 30.0) -> str:
        """Everything seen, once `text` is part of it."""
        until_s = time.monotonic() + timeout_s
        while text not in self.seen:
            ready, _, _ = select.select([self.terminal], [], [], until_s - time.monotonic())
            assert ready, f"{text!r} never came: {self.seen!r}"
            try:
                self.seen += os.read(self.terminal, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"{text!r} never came: {self.seen!r}") from None
        return self.seen

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def end(self) -> int:
        """What is left to read, and the exit code."""
        while True:
            try:
                chunk = os.read(self.terminal, 65536)
            except OSError:
                break
            self.seen += chunk.decode(errors="replace")
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(simulated_uri: str) -> Callable[..., Terminal]:
    return lambda *words, **changes: Terminal("--connect", simulated_uri, *words, **changes)


def test_a_deletion_wants_the_name_typed(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("vm", "delete", "build-07")
    assert "kept" in shell.read_until("Type build-07 to go on: ")
    shell.type("build-07\n")
    assert shell.end() == 0
    assert "Delete build-07: done" in shell.seen


def test_another_name_is_a_no(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("vm", "delete", "build-07")
    shell.read_until("Type build-07 to go on: ")
    shell.type("build-08\n")
    assert shell.end() == 130
    assert "nothing was changed" in shell.seen


def test_several_deletions_want_the_word_and_their_number(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("vm", "delete", "build-*")
    shell.read_until("Type delete 2 to go on: ")
    shell.type("delete 2\n")
    assert shell.end() == 0


def test_ctrl_c_and_end_of_input_at_the_question_change_nothing(terminal: Callable[..., Terminal]) -> None:
    for key in ("\x03", "\x04"):
        shell = terminal("vm", "discard-saved", "build-08")
        shell.read_until("Go on? [y/N] ")
        shell.type(key)
        assert shell.end() == 130
        assert "Traceback" not in shell.seen


def test_a_terminal_gets_colour_unless_no_color(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("vm", "list", "web-01")
    assert shell.end() == 0
    assert "\x1b[1mNAME" in shell.seen
    plain = terminal("vm", "list", "web-01", NO_COLOR="1")
    assert plain.end() == 0
    assert "\x1b" not in plain.seen


def test_everything_of_many_vms_fits_a_terminal(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("vm", "list", "web-*", "--details", NO_COLOR="1")
    assert shell.end() == 0
    lines = shell.seen.split("\r\n")
    assert max(map(len, lines)) < 200
    assert [line.split()[1] for line in lines if line.startswith("name ")] == ["web-01", "web-02"]


def test_the_editor_is_opened_and_its_change_shown_and_confirmed(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    shell = terminal("vm", "edit", "build-07", EDITOR="sed -i s/<on_crash>destroy/<on_crash>restart/", VISUAL="")
    assert "restart</on_crash>" in shell.read_until("Go on? [y/N] ")
    shell.type("y\n")
    assert shell.end() == 0
    unchanged = terminal("vm", "edit", "build-07", EDITOR="true", VISUAL="")
    assert unchanged.end() == 0
    assert "Nothing changed" in unchanged.seen
    failed = terminal("vm", "edit", "build-07", EDITOR="false", VISUAL="")
    assert failed.end() == 1
    missing = terminal("vm", "edit", "build-07", EDITOR="/nonexistent/editor", VISUAL="")
    assert missing.end() == 2


BREAK = "sed -i s/<on_crash>/<on_crush>/"


def test_xml_that_is_wrong_can_be_edited_again_as_it_was_typed(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    editor = tmp_path / "editor"
    editor.write_text(
        "#!/bin/sh\nif grep -q on_crush $1; then sed -i s/on_crush/on_crash/g $1; echo mended;\n"
        "else sed -i 's/<on_crash>destroy/<on_crush>restart/' $1; fi\n"
    )
    editor.chmod(0o755)
    shell = terminal("vm", "edit", "build-07", EDITOR=str(editor), VISUAL="", TMPDIR=str(tmp_path))
    shell.read_until("Try again? [y,n]")
    shell.type("y\n")
    assert "restart</on_crash>" in shell.read_until("Go on? [y/N] ")
    shell.type("y\n")
    assert shell.end() == 0
    assert list(tmp_path.glob("hvtui-*")) == []


@pytest.mark.parametrize("answer", ["n\n", "\x03", "\x04"])
def test_wrong_xml_that_is_not_edited_again_is_kept_in_a_file(
    terminal: Callable[..., Terminal], tmp_path: Path, answer: str
) -> None:
    shell = terminal("vm", "edit", "build-07", EDITOR=BREAK, VISUAL="", TMPDIR=str(tmp_path))
    shell.read_until("Try again? [y,n]")
    shell.type(answer)
    assert shell.end() == 130
    (kept,) = tmp_path.glob("hvtui-*/*.xml")
    assert f"Your text is in {kept}" in shell.seen
    assert "<on_crush>" in kept.read_text(encoding="utf-8")


@pytest.mark.parametrize("editor", ["false", "true", "/nonexistent/editor"])
def test_an_unchanged_text_is_left_nowhere(terminal: Callable[..., Terminal], tmp_path: Path, editor: str) -> None:
    shell = terminal("vm", "edit", "build-07", EDITOR=editor, VISUAL="", TMPDIR=str(tmp_path))
    shell.end()
    assert list(tmp_path.glob("hvtui-*")) == []


def test_a_text_whose_change_was_refused_at_the_question_is_kept(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    editor = "sed -i s/<on_crash>destroy/<on_crash>restart/"
    shell = terminal("vm", "edit", "build-07", EDITOR=editor, VISUAL="", TMPDIR=str(tmp_path))
    shell.read_until("Go on? [y/N] ")
    shell.type("n\n")
    assert shell.end() == 130
    assert len(list(tmp_path.glob("hvtui-*/*.xml"))) == 1


def test_completion_offers_vms_jobs_columns_and_words(process: Command) -> None:
    def offers(line: str) -> list[str]:
        words = line.split(" ")
        result = process(
            _HVTUI_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), HVTUI_DEBUG=""
        )
        assert result.err == ""
        return [each.partition(",")[2] for each in result.out.splitlines() if each]

    assert {"web-01", "web-02"} <= set(offers("hvtui vm start web"))
    assert "autostart" in offers("hvtui vm auto")
    assert "name,state" in offers("hvtui vm list --columns name,st")
    assert "web-01" in offers("hvtui vm set web")
    assert offers("hvtui vm set web-01 mem") == ["memory="]
    assert offers("hvtui vm set web-01 owner=x ti") == ["title="]
    assert "web-01" in offers("hvtui vm console ")
    assert not {"build-07", "build-08"} & set(offers("hvtui vm console "))
    assert offers("hvtui vm create x --from t") == ["tiny"]
    process("vm", "start", "build-07")
    assert "1" in offers("hvtui job show ")
    assert offers("hvtui --connect nonsense:///x vm start ") == []


@pytest.mark.parametrize("option", ["--from /boot/vm", "--kernel /boot/vm", "--initrd ./i"])
def test_completion_lets_the_shell_complete_files(process: Command, option: str) -> None:
    line = f"hvtui vm create x {option}"
    told = process(_HVTUI_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(line.split()) - 1))
    assert told.out.startswith("file,")
    edit = "hvtui vm edit web-01 --file ./x"
    assert process(_HVTUI_COMPLETE="bash_complete", COMP_WORDS=edit, COMP_CWORD="5").out.startswith("file,")


def test_each_shell_has_its_completion_script(process: Command) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_HVTUI_COMPLETE" in process("completion", shell).out
    assert process("completion", "tcsh").code == 2


def test_the_reference_page_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/headless_reference.py", "--check"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
