"""One run of a command: the common options as given, and the host, journal and configuration opened when first used.

It never prints. Closing is the outermost edge's work (hvtui.__main__).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from host.paths import configuration_file
from hvtui.cli.output import Format

if TYPE_CHECKING:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from host.connection import Host
    from host.host_list import HostEntry
    from host.journal import Journal
    from hvtui.config import Config


ACCELERATOR_VARIABLE = "HVTUI_ACCEL"


class Session:
    """The common options (grammar.py documents them) and what they lead to. `open_screen` starts the TUI."""

    def __init__(
        self, *, open_screen: Callable[[Session], int] | None = None, given: dict[str, Any] | None = None
    ) -> None:
        self.open_screen = open_screen
        self.given: dict[str, Any] = given or {}
        self._host: Host | None = None
        self._hosts: tuple[Host, ...] = ()
        self._journal: Journal | None = None
        self._config: Config | None = None
        self._directory: TemporaryDirectory[str] | None = None

    @property
    def output(self) -> Format:
        return Format(self.given.get("output") or Format.TABLE)

    @property
    def dry_run(self) -> bool:
        return bool(self.given.get("dry_run"))

    @property
    def yes(self) -> bool:
        return bool(self.given.get("yes"))

    @property
    def wait(self) -> bool:
        return self.given.get("wait") is not False

    @property
    def read_only(self) -> bool:
        return bool(self.given.get("read_only"))

    @property
    def timeout_s(self) -> float | None:
        """What --timeout says, in seconds; None when it was not given."""
        return self.given.get("timeout")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in (self.given.get("columns") or "").split(",") if name.strip())

    @property
    def filter_text(self) -> str:
        return self.given.get("filter") or ""

    def config(self) -> Config:
        """The configuration, read once. Raises UsageError naming the file and the key."""
        if self._config is None:
            from hvtui.config import load_config

            self._config = load_config()
            if self._config.accelerator != "auto" and not os.environ.get(ACCELERATOR_VARIABLE):
                # host.accelerator looks there, in this process and in those of detached jobs.
                os.environ[ACCELERATOR_VARIABLE] = self._config.accelerator
        return self._config

    def _own_config(self) -> Config | None:
        """The configuration where there is a file: without one, a short command need not load what reads it."""
        return self.config() if configuration_file() is not None else None

    @property
    def is_many(self) -> bool:
        """True when the options name more than one host: `entries` and `hosts` are those, and `host` is none."""
        if self._host is not None or self.given.get("demo"):
            return False
        names = self.given.get("host") or ()
        return bool(self.given.get("all_hosts") or self.given.get("group") or len(names) > 1)

    @property
    def has_other_hosts(self) -> bool:
        """True when the configuration has hosts and nothing says which is meant, so that it is this machine."""
        from hvtui.target import ENVIRONMENT

        options = ("host", "connect", "group", "all_hosts", "demo")
        if any(map(self.given.get, options)) or any(map(os.environ.get, ENVIRONMENT)):
            return False
        config = self._own_config()
        return bool(config is not None and config.hosts)

    def entries(self) -> tuple[HostEntry, ...]:
        """The hosts that --host, --group or --all-hosts name; all without any. Raises UsageError, NotFound."""
        from hvtui.target import choose_entries

        names, groups = self.given.get("host") or (), self.given.get("group") or ()
        everything = bool(self.given.get("all_hosts")) or not (names or groups)
        if self.given.get("connect"):
            from host.errors import UsageError

            raise UsageError("--connect names one host, and other options name more", remedy="Leave one of them out")
        return choose_entries(names, groups, self.config(), everything=everything)

    def hosts(self) -> tuple[Host, ...]:
        """A Host for each of `entries`, not connected yet. Raises UsageError, NotFound."""
        if not self._hosts:
            self._hosts = tuple(self.open_entry(entry) for entry in self.entries())
        return self._hosts

    def console_hosts(self) -> tuple[Host, ...]:
        """The hosts that the console shows side by side: those of the options, else all of the configuration; none
        where one host is meant. Raises UsageError, NotFound."""
        if not self.is_many:
            names_one = any(self.given.get(each) for each in ("connect", "host", "demo")) or os.environ.get("HVTUI_URI")
            if names_one or (config := self._own_config()) is None or not config.hosts:
                return ()
        hosts = self.hosts()
        if len(hosts) == 1:
            self.settle(hosts[0])
            _connect(hosts[0], self.timeout_s)
            return ()
        return hosts

    def open_entry(self, entry: HostEntry) -> Host:
        """A Host for an entry of the list, not connected yet; the caller closes it. Raises UsageError."""
        return self._opened(entry.uri, entry.name)

    def settle(self, host: Host) -> None:
        """Let the command go on with this one of `hosts`."""
        self._host = host

    def host(self) -> Host:
        """The host, connected. Raises ConnectionLost or Denied with what to do, TimedOut, UsageError, NotFound."""
        if self.is_many:
            from host.errors import UsageError

            raise UsageError("this command works on one host", remedy="Name it with one --host")
        if self._host is None:
            self._own_config()  # a wrong one is told before anything is done, whatever the command
            host = self._demo() if self.given.get("demo") else self._chosen_host()
            self._host = host
            _connect(host, self.timeout_s)
        return self._host

    def library(self, given: str | None = None, host: Host | None = None) -> str:
        """The storage pool of templates: what --library gave, else what the configuration says of the host meant (of
        `host`, where there are several). Raises what `host` does."""
        from hvtui.target import library_of

        if given:
            return given
        meant = host or self.host()
        return library_of(meant.name, meant.uri, self._own_config())

    def journal(self) -> Journal:
        """The journal of jobs, opened once. Raises HvtuiError when the state directory cannot be used."""
        if self._journal is None:
            from host.journal import RETAINED_JOBS, Journal

            config = self._own_config()
            path = self._private_path() if self.given.get("demo") else None
            self._journal = Journal(path, keep=config.jobs.keep if config else RETAINED_JOBS)
        return self._journal

    def close(self) -> None:
        """Close the connections without waiting for daemons that do not answer."""
        if self._host is not None and self._host not in self._hosts:
            self._host.close()
        _close_all(self._hosts)
        if self._directory is not None:
            self._directory.cleanup()

    def _private_path(self) -> Path:
        """Where the simulated host's jobs are kept: they go with its world, and need no permission."""
        from pathlib import Path
        from tempfile import TemporaryDirectory

        self._directory = TemporaryDirectory(prefix="hvtui-demo-")
        return Path(self._directory.name) / "journal.db"

    def _demo(self) -> Host:
        from vm.demo import demo_host

        return demo_host()

    def _chosen_host(self) -> Host:
        from hvtui.target import choose_target

        names = self.given.get("host") or ()
        return self._opened(*choose_target(self.given.get("connect"), names[0] if names else None, self.config))

    def _opened(self, uri: str, name: str | None) -> Host:
        from host.connection import open_host

        try:
            return open_host(uri, name=name, read_only=self.read_only)
        except ValueError as error:
            from host.errors import UsageError

            raise UsageError(f"{uri!r} is no URI: {error}", remedy="For example qemu:///system") from error


def _close_all(hosts: Sequence[Host]) -> None:
    """Side by side: each may take half a second."""
    threads = [threading.Thread(target=host.close, name="close", daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _connect(host: Host, timeout_s: float | None) -> None:
    """Open the connection; a time limit shorter than the Host's own leaves the attempt behind."""
    from host.errors import ConnectionLost, Denied, HvtuiError, TimedOut

    problems: list[HvtuiError] = []

    def connect() -> None:
        try:
            host.connection()
        except HvtuiError as problem:
            problems.append(problem)

    if timeout_s is None:
        connect()
    else:
        opener = threading.Thread(target=connect, name="connect", daemon=True)
        opener.start()
        opener.join(timeout_s)
        if opener.is_alive():
            raise TimedOut(f"no answer from {host.uri} within {timeout_s:g} s", remedy="Is it frozen or overloaded?")
    if problems and not isinstance(problems[0], ConnectionLost | Denied):
        raise problems[0]
    if problems:
        from hvtui.cli.diagnose import explain

        raise explain(problems[0], host) from problems[0]
