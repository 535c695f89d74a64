"""The process of a long job: started so that it outlives the terminal, and what runs in it.

Where systemd is process 1 the runner gets a scope of its own, so that no session's end takes it along; elsewhere it
is a new process session. It reads the job (and the host's URI) from the journal. This module runs no step itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from host import job_process
from host.errors import HvtuiError
from host.job_model import Job
from host.job_schema import journal_errors
from host.journal import Journal

if TYPE_CHECKING:
    import subprocess

    from host.connection import Host

START_TIMEOUT_S = 15.0
LOG_TAIL_CHARACTERS = 500
# -P: a directory that happens to be the current one must not provide the modules of a runner that may be root's.
PROGRAM = (sys.executable, "-P", "-m", "hvtui", "--headless", "job", "run")
SET_PROGRAM = (*PROGRAM[:-1], "run-set")


def launch(
    job_id: int, journal: Journal, program: Sequence[str] = PROGRAM, *, members: Sequence[int] = ()
) -> HvtuiError | None:
    """Start the process of a QUEUED job (or, with the number of a set, of these QUEUED members of it) and wait until it
    has taken one. Returns why it did not start, if so."""
    job_ids = members or (job_id,)
    for prefix in dict.fromkeys((scope_command(job_id), ())):
        process = _start((*prefix, *program, str(job_id)), job_id, journal)
        if process is not None and _has_begun(process, job_ids, journal):
            return None
    log = journal.log_path(job_id)
    told = log.read_text(encoding="utf-8", errors="replace").strip()[-LOG_TAIL_CHARACTERS:] if log.exists() else ""
    return HvtuiError(f"the runner process did not start: {told or 'it said nothing'}", remedy=f"See {log}")


def run_job(job_id: int) -> Job:
    """What the runner process does: run the QUEUED job on its host. The caller has imported the verbs (vm.steps).

    Raises NotFound, WrongState, JournalFailed.
    """
    from host import jobs

    with _alone(job_id) as (host, journal):
        return jobs.run(job_id, host, journal)


def run_set(set_id: int) -> tuple[Job, ...]:
    """What the one runner process of a set does: run its QUEUED members. The caller has imported the verbs.

    Raises NotFound, JournalFailed.
    """
    from host import job_sets

    with _alone(set_id) as (host, journal):
        return job_sets.run_set(set_id, host, journal)


@contextmanager
def _alone(job_id: int) -> Iterator[tuple[Host, Journal]]:
    """The job's host and journal, in a process that the loss of a terminal does not end."""
    from host.connection import open_host

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Journal() as journal:
        host = open_host(journal.job(job_id).host_uri)
        try:
            yield host, journal
        finally:
            host.close()
        _remove_if_empty(journal.log_path(job_id))


def _remove_if_empty(log: Path) -> None:
    with suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()


def scope_command(job_id: int, *, root: Path = Path("/"), is_root: bool | None = None) -> tuple[str, ...]:
    """The systemd-run call that puts a runner into a scope of its own; empty where that does not help.

    A scope of a user's own manager ends with the user's last session unless lingering is on, whereas a process session
    outlives it by default (KillUserProcesses=no in logind.conf(5)).
    """
    if not (root / "run/systemd/system").is_dir():  # the test of sd_booted(3)
        return ()
    if os.geteuid() == 0 if is_root is None else is_root:
        manager: tuple[str, ...] = ()
    elif (root / "var/lib/systemd/linger" / job_process.user_name()).exists():
        manager = ("--user",)
    else:
        return ()
    unit = f"--unit=hvtui-job-{job_id}-{os.urandom(4).hex()}"
    return ("systemd-run", *manager, "--scope", "--quiet", "--collect", unit, "--")


def _start(command: Sequence[str], job_id: int, journal: Journal) -> subprocess.Popen[bytes] | None:
    """The process; None when there is no such program."""
    import subprocess

    log = journal.log_path(job_id)
    with journal_errors(journal.path):
        log.parent.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "HVTUI_STATE_DIR": str(journal.path.parent.resolve())},
        )
    except OSError as error:
        os.write(handle, f"{command[0]}: {error.strerror}\n".encode())
        return None
    finally:
        os.close(handle)
    threading.Thread(target=process.wait, name=f"reap-{process.pid}", daemon=True).start()
    return process


def _has_begun(process: subprocess.Popen[bytes], job_ids: Sequence[int], journal: Journal) -> bool:
    # systemd-run --scope becomes the runner (exec): the process id stays.
    claim = job_process.claim_of(process.pid)
    journal.hand_over(job_ids, claim)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        has_ended = process.poll() is not None
        if not journal.are_untouched(job_ids, claim):
            return True
        if has_ended:
            return False
        time.sleep(0.02)
    return True
