"""One hypervisor host as a handle: its connections, their health, and their recovery.

A block of calls has its connection for itself (`Host.calls`): libvirt's client before 10.3 corrupts its memory when two
threads call on one connection at once, or when a keepalive goes out during a call (CVE-2024-4418, not fixed in
Debian 12; see docs/architecture.md). A Host therefore keeps a few spare connections beside the main one, which carries
the events, and never uses one again after a block that was long enough for a keepalive. The test driver keeps its world
inside a connection, so a simulated host has only one.

A lost connection is noticed by the close callback, by keepalive (5 s x 3), or by an error of libvirt's RPC domain; the
next use opens it again, or a supervising Host does so by itself with back-off 1 to 30 s. This module holds no VM logic.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import libvirt

from host.errors import ConnectionLost, HvtuiError, UsageError, translate
from host.events import start_event_thread, unsubscribe_all
from host.text import printable

if TYPE_CHECKING:
    import logging

KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
OPEN_TIMEOUT_S = 30.0
LOGIN_TURN_S = 5.0
MOST_SPARES = 4  # idle connections that are kept open: as many as jobs run side by side
WEARS_OUT = libvirt.getVersion() < 10_003_000  # the client library's version: 10.3.0 fixed CVE-2024-4418
RETRY_FIRST_S = 1.0
RETRY_MOST_S = 30.0
SYSTEM_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")


class LinkStatus(StrEnum):
    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Link:
    """The health of a host's connection. `since_s` is a time.monotonic() instant; `error` says why it is lost."""

    status: LinkStatus
    since_s: float
    error: str = ""

    @property
    def is_up(self) -> bool:
        return self.status is LinkStatus.CONNECTED


LinkListener = Callable[[Link], None]


def default_uri() -> str:
    """qemu:///system where this user may use it (root, or a socket of this user's groups), else qemu:///session."""
    if os.geteuid() == 0 or any(_is_for_this_user(path) for path in SYSTEM_SOCKETS):
        return "qemu:///system"
    return "qemu:///session"


def _is_for_this_user(path: str) -> bool:
    """A socket that everybody may write to is guarded by polkit, which lets in the group libvirt."""
    if not os.access(path, os.W_OK):
        return False
    mode = os.stat(path).st_mode  # noqa: PTH116 - pathlib costs start-up time
    return not mode & stat.S_IWOTH or _is_in_group("libvirt")


def _is_in_group(name: str) -> bool:
    import grp

    try:
        return grp.getgrnam(name).gr_gid in os.getgroups()
    except KeyError:
        return False


def _log() -> logging.Logger:
    import logging  # here: it is a twentieth of the start-up time of a short command

    return logging.getLogger(__name__)


def _scheme_and_host(uri: str) -> tuple[str, str]:
    """Most of libvirt's URIs name no host; the parser proper is imported only for those that do."""
    scheme, separator, rest = uri.partition("://")
    if separator and rest.startswith("/"):
        return scheme.lower(), ""
    from urllib.parse import urlsplit

    parts = urlsplit(uri)
    return parts.scheme, parts.hostname or ""


def is_simulated_uri(uri: str) -> bool:
    """True for libvirt's test driver, in process (test:///) or in a daemon (test+unix:///)."""
    return _scheme_and_host(uri)[0].split("+")[0] == "test"


def _first_label(host_name: str) -> str:
    """libvirt tells the name with its domain where it can find one out."""
    return host_name.partition(".")[0].lower()


def is_local_uri(uri: str) -> bool:
    """True when the URI names no other machine. The socket that it may name can lead to one: see `Host.is_local`."""
    scheme, host = _scheme_and_host(uri)
    return scheme.partition("+")[2] in {"", "unix"} and not host


def _for_ssh(uri: str) -> str:
    """ssh must never ask on the terminal that the interface owns (no_tty=1 makes it fail instead), and logs in once a
    host (host.ssh), unless the URI names a command of its own."""
    if "+ssh" not in uri:
        return uri
    from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

    parts = urlsplit(uri)
    if not parts.scheme.endswith("+ssh"):
        return uri
    query = dict(parse_qsl(parts.query))
    if "command" not in query:
        from host.ssh import reusing_command

        query |= {"command": command} if (command := reusing_command()) else {}
    query.setdefault("no_tty", "1")
    return urlunsplit(parts._replace(query=urlencode(query, safe="/")))


class Host:
    """A hypervisor host. Open it with `open_host`; every method is safe from any thread."""

    def __init__(self, *, uri: str, name: str, read_only: bool) -> None:
        self.uri = uri
        self.name = name
        self.read_only = read_only
        self.is_simulated = is_simulated_uri(uri)
        self._main: libvirt.virConnect | None = None
        self._spares: list[libvirt.virConnect] = []
        self._is_main_taken = False
        self._held = threading.local()  # .connection: the one that this thread has for itself
        # Lost last: another thread may still be inside a call on it, so it is closed at the next loss.
        self._dead: libvirt.virConnect | None = None
        self._opening = threading.Lock()
        # The first ssh login serves those that follow (host.ssh); many at once would be many logins, and sshd refuses.
        self._login_turn = threading.Lock()
        self._state_lock = threading.Lock()
        self._link = Link(LinkStatus.CONNECTING, time.monotonic())
        self._listeners: list[LinkListener] = []
        self._closed = threading.Event()
        self._wake = threading.Event()
        self._supervisor: threading.Thread | None = None

    @cached_property
    def is_local(self) -> bool:
        """Whether the hypervisor runs on this machine, so that its paths and its memory are this process's too.
        Of a URI that names a socket (ssh can forward one, a container has its own) the host's name tells, which is
        asked once. Raises ConnectionLost, Denied, only for such a URI."""
        if not is_local_uri(self.uri) or "socket=" not in self.uri:
            return is_local_uri(self.uri)
        with self.calls("ask for the name of", self.name) as connection:
            return _first_label(connection.getHostname()) == _first_label(os.uname().nodename)

    @cached_property
    def identity(self) -> str:
        """The same for every URI that leads to the same system driver: the machine's UUID, and its name, since boards
        of some makers share a UUID. Empty where only the URI tells (a session, a simulated host). Asked once. Raises
        ConnectionLost, Denied."""
        if self.is_simulated or not self.uri.partition("?")[0].endswith("/system"):
            return ""
        with self.calls("ask for the identity of", self.name) as connection:
            _, _, rest = connection.getCapabilities().partition("<uuid>")
            uuid = rest.partition("</uuid>")[0].strip()
            return f"{uuid}@{_first_label(connection.getHostname())}" if uuid else ""

    @property
    def link(self) -> Link:
        """The health of the interface's connection, without any call."""
        return self._link

    def connection(self) -> libvirt.virConnect:
        """The main connection, opened or reopened if need be: to subscribe on, and to see whether the host answers.
        Make calls in a block of `calls`. Raises ConnectionLost, Denied."""
        return self._connection("main")

    @contextmanager
    def calls(self, doing: str, about: str = "") -> Iterator[libvirt.virConnect]:
        """A connection that is this thread's alone for a block of libvirt calls (a block inside a block has the same
        one). Errors are translated (host.errors); a lost connection is noted and opened again at the next use.
        Objects of the connection (domains, streams) must not be called after the block or on other threads."""
        with self._leased() as connection:
            try:
                yield connection
            except libvirt.libvirtError as error:
                problem = translate(error, doing, about)
                is_lost = isinstance(problem, ConnectionLost) and not _is_alive(connection)
                if is_lost and self._main is connection:
                    self.lost(problem)
                raise problem from error

    @contextmanager
    def long_calls(self, doing: str, about: str = "") -> Iterator[libvirt.virConnect]:
        """As `calls`, for a call that may last for minutes (a migration): on a connection of its own without keepalive,
        since each keepalive that goes out meanwhile may corrupt the memory of an old client. It does not notice that
        the host is gone: look at the host on others beside it."""
        connection = self._connection("main") if self.is_simulated else self._opened(keepalive=False)
        try:
            yield connection
        except libvirt.libvirtError as error:
            raise translate(error, doing, about) from error
        finally:
            if not self.is_simulated:
                self._close_soon(connection)

    def reserve_main(self) -> None:
        """Keep the main connection for the thread that works in `main_calls` blocks; call it once, before them."""
        self._is_main_taken = True

    @contextmanager
    def main_calls(self) -> Iterator[libvirt.virConnect]:
        """As a block of `calls` for the one thread that reserved the main connection."""
        with self._holding(self._connection("main"), "main") as connection:
            yield connection

    @contextmanager
    def _leased(self) -> Iterator[libvirt.virConnect]:
        held = getattr(self._held, "connection", None)
        if held is not None:
            yield held
        elif self.is_simulated:
            yield self._connection("main")
        else:
            connection, role = self._take()
            with self._holding(connection, role):
                yield connection

    @contextmanager
    def _holding(self, connection: libvirt.virConnect, role: str) -> Iterator[libvirt.virConnect]:
        started_s = time.monotonic()
        self._held.connection = connection
        try:
            yield connection
        finally:
            self._held.connection = None
            is_worn = WEARS_OUT and time.monotonic() - started_s >= KEEPALIVE_INTERVAL_S
            self._give_back(connection, role, is_worn=is_worn)

    def _take(self) -> tuple[libvirt.virConnect, str]:
        with self._state_lock:
            use_main, self._is_main_taken = not self._is_main_taken, True
            spares = [] if use_main else [self._spares.pop() for _ in range(len(self._spares))]
        if use_main:
            try:
                return self._connection("main"), "shared main"
            except HvtuiError:
                self._is_main_taken = False
                raise
        alive = [spare for spare in spares if _is_alive(spare)]
        chosen = alive.pop() if alive else None
        with self._state_lock:
            self._spares += alive
        return chosen if chosen is not None else self._connection("spare"), "spare"

    def _give_back(self, connection: libvirt.virConnect, role: str, *, is_worn: bool) -> None:
        with self._state_lock:
            if role == "shared main":
                self._is_main_taken = False
            is_main = self._main is connection
            is_kept = role == "spare" and not is_worn and not self._closed.is_set() and len(self._spares) < MOST_SPARES
            if is_kept:
                self._spares.append(connection)
            if is_main and is_worn and not self.is_simulated:
                self._main = None
        if is_main and is_worn and not self.is_simulated:
            self._set_link(LinkStatus.CONNECTING)
            self._wake.set()
            self._close_soon(connection)
        elif role == "spare" and not is_kept:
            self._close_soon(connection)

    def _close_soon(self, connection: libvirt.virConnect) -> None:
        """Not on this thread: closing talks to the daemon."""
        threading.Thread(target=_close_all, args=([connection],), name=f"close-{self.name}", daemon=True).start()

    def on_link(self, listener: LinkListener) -> None:
        """Call `listener` (on whichever thread notices) at each change of the link; it must not block."""
        self._listeners.append(listener)

    def lost(self, error: HvtuiError) -> None:
        """Tell the Host that the main connection is lost, so that the next use opens a new one."""
        with self._state_lock:
            dead, self._main = self._main, None
            long_dead = None
            if dead is not None:
                long_dead, self._dead = self._dead, dead
        if long_dead is not None:
            self._close_soon(long_dead)
        self._set_link(LinkStatus.LOST, error.cause)
        self._wake.set()

    def supervise(self) -> None:
        """Keep the interface's connection open from a daemon thread, with back-off; returns at once."""
        if self._supervisor is None:
            self._supervisor = threading.Thread(target=self._keep_open, name=f"link-{self.name}", daemon=True)
            self._supervisor.start()

    def close(self) -> None:
        """Close the connections without waiting for a daemon that does not answer (at most 0.5 s)."""
        self._closed.set()
        self._wake.set()
        with self._state_lock:
            connections = [c for c in (self._main, self._dead, *self._spares) if c is not None]
            self._main, self._dead, self._spares = None, None, []
        self._set_link(LinkStatus.CLOSED)
        closer = threading.Thread(target=_close_all, args=(connections,), daemon=True)
        closer.start()
        closer.join(0.5)

    def _connection(self, role: str) -> libvirt.virConnect:
        if role == "spare":
            return self._opened()
        if (connection := self._main) is not None:
            return connection
        with self._opening:
            return self._main if self._main is not None else self._open_main()

    def _open_main(self) -> libvirt.virConnect:
        try:
            connection = self._opened()
        except HvtuiError as problem:
            self._set_link(LinkStatus.LOST, problem.cause)
            raise
        with self._state_lock:
            is_wanted = not self._closed.is_set()
            if is_wanted:
                self._main = connection
        if not is_wanted:
            _close_all([connection])
            raise ConnectionLost("the connection was closed", about=self.name)
        self._set_link(LinkStatus.CONNECTED)
        return connection

    def _opened(self, *, keepalive: bool = True) -> libvirt.virConnect:
        """A new connection, with keepalive unless told otherwise. Raises ConnectionLost, Denied."""
        if self._closed.is_set():
            raise ConnectionLost("the connection was closed", about=self.name)
        start_event_thread()
        is_turn = "+ssh" in self.uri and self._login_turn.acquire(timeout=LOGIN_TURN_S)
        try:
            connection = _open_in_time(_for_ssh(self.uri), self._closed, read_only=self.read_only)
        finally:
            if is_turn:
                self._login_turn.release()

        def closed(_connection: Any, reason: int, _opaque: Any) -> None:
            words = ("an error", "the daemon closed it", "keepalive timed out", "closed here")
            why = words[reason] if 0 <= reason < len(words) else str(reason)
            if self._main is connection:
                self.lost(ConnectionLost(f"connection lost: {why}", about=self.name))

        try:
            connection.registerCloseCallback(closed, None)
            if keepalive:
                connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        except libvirt.libvirtError:
            _log().debug("%s: the driver has no keepalive", self.uri)  # in-process drivers cannot lose the link
        return connection

    def _keep_open(self) -> None:
        delay_s = RETRY_FIRST_S
        while not self._closed.is_set():
            try:
                self.connection()
                delay_s = RETRY_FIRST_S
                self._wake.wait()
            except HvtuiError:
                self._wake.wait(delay_s)
                delay_s = min(delay_s * 2, RETRY_MOST_S)
            self._wake.clear()

    def _set_link(self, status: LinkStatus, error: str = "") -> None:
        with self._state_lock:
            if self._link.status is status and self._link.error == error:
                return
            since_s = self._link.since_s if self._link.status is status else time.monotonic()
            self._link = link = Link(status, since_s, error)
        for listener in list(self._listeners):
            listener(link)


def _open_in_time(uri: str, closed: threading.Event, *, read_only: bool) -> libvirt.virConnect:
    """A new connection. A daemon that accepts but never answers (frozen) holds libvirt's open() for ever, and keepalive
    begins only afterwards: so it runs in a thread that can be left behind. Raises ConnectionLost, Denied."""
    if "\0" in uri or any("\ud800" <= char <= "\udfff" for char in uri):
        raise UsageError(f"{printable(uri, limit=200)} is not a URI: it holds bytes that are no text")
    opened: list[libvirt.virConnect] = []
    failed: list[libvirt.libvirtError] = []
    over = threading.Event()
    lock = threading.Lock()
    given_up = False

    def work() -> None:
        try:
            connection = libvirt.openReadOnly(uri) if read_only else libvirt.open(uri)
            with lock:
                if not given_up:
                    opened.append(connection)
                    return
            _close_all([connection])
        except libvirt.libvirtError as error:
            failed.append(error)
        finally:
            over.set()

    threading.Thread(target=work, name="open", daemon=True).start()
    until_s = time.monotonic() + OPEN_TIMEOUT_S
    while not over.wait(min(0.5, OPEN_TIMEOUT_S)) and not closed.is_set() and time.monotonic() < until_s:
        pass
    with lock:
        given_up = not opened
    if failed:
        _refuse_unusable(uri, failed[0])
        raise translate(failed[0], f"connect to {uri}") from failed[0]
    if closed.is_set():
        _close_all(opened)
        raise ConnectionLost("the connection was closed")
    if not opened:
        cause = f"cannot connect to {uri}: it accepts connections but did not answer in {OPEN_TIMEOUT_S:g} s"
        raise ConnectionLost(cause, remedy="Is it frozen or overloaded? hvtui reconnects by itself")
    return opened[0]


def _refuse_unusable(uri: str, error: libvirt.libvirtError) -> None:
    """Raise UsageError for an error that says that no driver of libvirt takes such a URI: it never will."""
    code, message = error.get_error_code(), error.get_error_message() or ""
    is_unknown = code == libvirt.VIR_ERR_NO_CONNECT and "no connection driver" in message
    if is_unknown or (code == libvirt.VIR_ERR_INTERNAL_ERROR and "URI path" in message):
        cause = f"cannot connect to {printable(uri, limit=200)}: {printable(message, limit=300)}"
        raise UsageError(cause, remedy="Write it as qemu:///system or qemu+ssh://USER@HOST/system") from error


def _is_alive(connection: libvirt.virConnect) -> bool:
    """False when its socket is closed; asks nobody. An error of a handle from an older connection says nothing about
    this one."""
    try:
        return bool(connection.isAlive() == 1)
    except libvirt.libvirtError:
        return False


def _close_all(connections: list[libvirt.virConnect]) -> None:
    """Close them for good. A callback that is still registered keeps a connection open, and its events coming."""
    for connection in connections:
        unsubscribe_all(connection)
        try:
            connection.close()
        except libvirt.libvirtError:
            _log().debug("closing a connection failed")  # it was dead already


def open_host(uri: str, *, name: str | None = None, read_only: bool = False) -> Host:
    """A Host for `uri`; nothing is opened yet, so this cannot fail. `name` defaults to the URI's host or 'local'."""
    return Host(uri=uri, name=name or _scheme_and_host(uri)[1] or "local", read_only=read_only)
