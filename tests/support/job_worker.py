"""A process of its own that creates and runs jobs of fake verbs: `python -m tests.support.job_worker WHAT ARGUMENT`."""

from __future__ import annotations

import sys
from pathlib import Path

from host import jobs
from host.connection import open_host
from host.errors import Busy
from host.journal import Journal
from host.runner import run_job, run_set
from tests.support import fake_verbs


def main(what: str, argument: str) -> int:
    """Run one of: `job ID`, `set ID` (the runner processes), `three DIRECTORY`, `race DIRECTORY`, `start DIRECTORY`."""
    if what == "job":
        return run_job(int(argument)).exit_code
    if what == "set":
        return max(job.exit_code for job in run_set(int(argument)))
    journal, host = Journal(), open_host(fake_verbs.URI)
    plan = fake_verbs.plan_three(Path(argument))
    if what == "three":
        return jobs.submit(plan, host, journal).exit_code
    if what == "start":
        jobs.start_detached(plan, host, journal, program=(sys.executable, "-m", "tests.support.job_worker", "job"))
        return 0
    sys.stdin.readline()  # the race begins when the test says so
    try:
        jobs.create(plan, journal)
    except Busy as error:
        return error.exit_code
    sys.stdin.readline()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
