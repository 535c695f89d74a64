"""Random moves of several guests over three hosts, with random faults: no guest is lost, and none runs twice.

HVTUI_SOAK=100 makes a hundred moves, HVTUI_SOAK_SEED repeats those of a run. Run it with -s to see each as it ends.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from tests.support.lab import Lab
from tests.support.lab_saved import SavedGuests
from tests.support.soak import Record, Soak
from tests.support.soak_watch import Watch
from tests.support.soak_world import SoakGuest, World

MOVES = int(os.environ.get("HVTUI_SOAK", "0")) or 13
IS_LONG = "HVTUI_SOAK" in os.environ
MOST_S = 60.0 * MOVES if IS_LONG else 75.0  # no move begins later
# How long a fault lasts at most: libvirt gives a silent peer up after 30 s.
MOST_HOLD_S = 36.0 if IS_LONG else 3.0


@pytest.fixture
def world(lab: Lab, guests: SavedGuests) -> Iterator[World]:
    made = World(lab, guests)
    made.add_guest("g1", lab["lab1"], "shared")
    made.add_guest("g2", lab["lab2"], "default")
    made.add_guest("g3", lab["lab3"], "shared")
    made.add_guest("g4", lab["lab1"], "default")
    yield made
    made.close()


def say(words: object) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def say_sums(records: list[Record], guests: list[SoakGuest]) -> None:
    """How often each kind of move and each fault was drawn, how the jobs ended, how long all took."""
    say(f"{len(records)} moves in {sum(record.seconds for record in records):.0f} s")
    say(f"kinds: {sums(record.kind for record in records)}")
    say(f"faults: {sums(record.fault for record in records)}")
    say(f"first ends: {sums(record.ends[0].split(' (')[0] if record.ends else 'none' for record in records)}")
    say(f"ends: {sums(record.ends[-1].split(' (')[0] if record.ends else 'none' for record in records)}")
    say(f"guests that died in the emulator and were told of: {sum(guest.deaths for guest in guests)}")


def sums(words: Iterable[str]) -> str:
    return ", ".join(f"{number} {word}" for word, number in Counter(words).most_common())


@pytest.mark.flaky(reruns=0)  # a guest that is lost once is lost
@pytest.mark.timeout(MOST_S + 900)
def test_no_guest_is_lost_or_doubled_by_random_moves_with_random_faults(world: World):
    seed = os.environ.get("HVTUI_SOAK_SEED") or f"{random.SystemRandom().randrange(10**6):06}"
    say(f"\nHVTUI_SOAK_SEED={seed}")
    records: list[Record] = []
    until_s = time.monotonic() + MOST_S
    with Watch(world.lab.hosts) as watch:
        soak = Soak(world, watch, seed, most_hold_s=MOST_HOLD_S)
        while len(records) < MOVES and time.monotonic() < until_s:
            records.append(soak.move(len(records) + 1))
            say(records[-1])
    say_sums(records, world.guests)
    wrong = [str(record) for record in records if record.wrong]
    assert not wrong, "\n".join([f"HVTUI_SOAK_SEED={seed}", *wrong])
    assert records
