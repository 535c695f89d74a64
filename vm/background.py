"""One blocking libvirt call on a daemon thread of its own, so that its step can show progress and be cancelled.

Not a thread pool: a pool is joined at exit, and a guest agent can hold a call for a minute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import libvirt


class BackgroundCall:
    """Runs `call` at once. The caller polls `wait`, then asks `error`."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.error: libvirt.libvirtError | None = None
        self._call = call
        self._over = threading.Event()
        threading.Thread(target=self._run, name="libvirt-call", daemon=True).start()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` seconds; True when the call has ended."""
        return self._over.wait(timeout_s)

    def raise_error(self) -> None:
        """Raise the libvirtError of the ended call, if it failed."""
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._call()
        except libvirt.libvirtError as error:
            self.error = error
        finally:
            self._over.set()
