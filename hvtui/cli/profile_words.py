"""How commands tell of a setting that is wrong: as the option that it was given by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from host.errors import UsageError


@contextmanager
def told_as_options() -> Iterator[None]:
    """UsageError about "memory=" is raised about "--set memory"."""
    try:
        yield
    except UsageError as error:
        if not error.about.endswith("="):
            raise
        raise UsageError(error.cause, about=f"--set {error.about[:-1]}", remedy=error.remedy) from None
