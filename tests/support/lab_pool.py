"""The labs of a test run: two at most, shared by its processes, each used by one test at a time.

Every host has some of the kernel's inotify instances, of which all of root's programs have 128 together: a lab for each
process of a run on a large machine would be too many. The labs end with the run's main process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from tests.support import lab, lab_reset
from tests.support.lab import Lab

_LABS = 2
_HOSTS = 3
_LOOK_S = 0.1


@contextlib.contextmanager
def borrowed() -> Iterator[Lab]:
    """A lab for one test, brought up now where there is none yet; waits while all are in use. Afterwards it is as it
    was, or, where that does not succeed, it ends and the next test gets a new one."""
    with _free_place() as name:
        found = _there(name) or lab.up(name, hosts=_HOSTS, owner=_main_process())
        try:
            yield found
            lab_reset.reset(found)
        except BaseException:
            found.down()
            raise


def _there(name: str) -> Lab | None:
    found = lab.attach(name)
    if found is not None and not (found.directory / "complete").exists():
        found.down()  # who brought it up was killed
        return None
    return found


def _main_process() -> int:
    """The process that runs the tests, or that started the one that does."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


@contextlib.contextmanager
def _free_place() -> Iterator[str]:
    names = [f"test-{_main_process()}-{number}" for number in range(_LABS)]
    with contextlib.ExitStack() as stack:
        while not (taken := next((name for name in names if _is_taken(name, stack)), "")):
            time.sleep(_LOOK_S)
        yield taken


def _is_taken(name: str, stack: contextlib.ExitStack) -> bool:
    """Take that place now, until the end of `stack`, if it is free."""
    with contextlib.suppress(BlockingIOError):
        stack.enter_context(lab.lock_now(f"{name}.use"))
        return True
    return False
