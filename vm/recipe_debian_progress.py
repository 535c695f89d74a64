"""How far mmdebstrap is, from what it and the tools under it say. Knows nothing of what is built."""

from __future__ import annotations

import re
from collections.abc import Callable

Progress = Callable[[float | None, str], None]

# What mmdebstrap says when a part begins, the words for people, and where on the way that part lies.
_PARTS = (
    ("I: running apt-get update", "reading the distribution's package lists", 0.0, 0.04),
    ("I: downloading packages", "downloading the essential packages", 0.04, 0.10),
    ("I: extracting archives", "unpacking the essential packages", 0.10, 0.16),
    ("I: installing essential", "installing the essential packages", 0.16, 0.28),
    ("I: installing remaining", "installing the system", 0.28, 0.78),
    ("I: cleaning", "cleaning up", 0.78, 0.79),
    ("I: creating tarball", "collecting the files", 0.79, 0.84),
)
_COUNTED = re.compile(r"^(Get:\d+ |Unpacking |Setting up )")
_TOTAL = re.compile(r"(\d+) newly installed")
_STEPS = 3  # each package is got, unpacked and set up


class Teller:
    """Turns lines into progress. Fractions only grow."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._fraction = 0.0
        self._words = ""
        self._start, self._end = 0.0, 0.0
        self._seen, self._total = 0, 0

    def at(self, fraction: float, words: str) -> None:
        """Say that a part begins."""
        self._fraction, self._words = max(self._fraction, fraction), words
        self._progress(self._fraction, words)

    def hear(self, line: str) -> None:
        """Take a line of mmdebstrap's output."""
        for marker, words, start, end in _PARTS:
            if line.startswith(marker):
                self._start, self._end, self._seen, self._total = start, end, 0, 0
                self.at(start, words)
                return
        total = _TOTAL.search(line)
        if total:
            self._seen, self._total = 0, int(total[1]) * _STEPS
        elif self._total and _COUNTED.match(line):
            self._seen = min(self._seen + 1, self._total)
            self.at(self._start + (self._end - self._start) * self._seen / self._total, self._words)
