"""One blocking libvirt call on a daemon thread of its own, so that its step can show progress and be cancelled.

Not a thread pool: a pool is joined at exit, and a guest agent can hold a call for a minute. The call has a connection
of its own, as every thread's calls have (host.connection says why).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from host.errors import HvtuiError
from host.steps import Args, StepContext


class BackgroundCall:
    """Runs `call` on the VM of a step's arguments at once. The caller polls `wait`, then asks `error`."""

    def __init__(self, ctx: StepContext, args: Args, *, doing: str, call: Callable[[Any], object]) -> None:
        self.error: HvtuiError | None = None
        self._ctx, self._args, self._doing, self._call = ctx, args, doing, call
        self._over = threading.Event()
        threading.Thread(target=self._run, name="libvirt-call", daemon=True).start()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` seconds; True when the call has ended."""
        return self._over.wait(timeout_s)

    def raise_error(self) -> None:
        """Raise the HvtuiError of the ended call, if it failed."""
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            with self._ctx.calls(self._doing, self._args["name"]) as connection:
                self._call(connection.lookupByUUIDString(self._args["uuid"]))
        except HvtuiError as error:
            self.error = error
        finally:
            self._over.set()
