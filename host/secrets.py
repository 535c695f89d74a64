"""Secrets that a step needs (a VNC password, say) but that must never reach the journal, a log or an argument list.

A step's arguments and results carry a reference, {"$secret": "ID"}. The value lies in STATE/secrets/JOB/ID (0600, in a
directory of mode 0700) from the creation of the job until it is over for good; the runner puts the values in place of
the references just before it calls a verb. Planning keeps values in memory only, so that a plan that is merely shown
leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from host.errors import HvtuiError, NotFound
from host.paths import state_directory

KEY = "$secret"
Reference: TypeAlias = dict[str, str]

_offered: dict[str, str] = {}


def offer(value: str) -> Reference:
    """For plan_* functions: a reference to `value`, which is stored when the plan becomes a job (in this process)."""
    name = _new_name()
    _offered[name] = value
    return {KEY: name}


def save(value: str, *, job_id: int) -> Reference:
    """For a running step: store `value` at once, for its result (rollback may need it). Raises HvtuiError."""
    name = _new_name()
    _write(_directory(job_id, None), name, value)
    return {KEY: name}


def references(data: object) -> Iterator[str]:
    """The ids of all references in JSON data."""
    name = _referred(data)
    if name is not None:
        yield name
    elif isinstance(data, Mapping):
        for item in data.values():
            yield from references(item)
    elif isinstance(data, list | tuple):
        for item in data:
            yield from references(item)


def keep(data: object, *, job_id: int, state: Path | None = None) -> None:
    """Store every secret offered in `data` for the job. Raises NotFound for one that this process did not offer."""
    for name in references(data):
        if name not in _offered:
            raise NotFound("a secret of this plan is gone", remedy="Give the command again")
        _write(_directory(job_id, state), name, _offered[name])


def forget(data: object) -> None:
    """Drop the offered secrets of `data` from memory: they are stored now."""
    for name in references(data):
        _offered.pop(name, None)


def missing(data: object, *, job_id: int, state: Path | None = None) -> bool:
    """True when a secret that `data` refers to is not stored for the job."""
    return any(not (_directory(job_id, state) / name).is_file() for name in references(data))


def resolve(data: Any, *, job_id: int, state: Path | None = None) -> Any:
    """`data` with each reference replaced by its value. Raises NotFound."""
    name = _referred(data)
    if name is not None:
        return _read(_directory(job_id, state) / name)
    if isinstance(data, Mapping):
        return {key: resolve(item, job_id=job_id, state=state) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [resolve(item, job_id=job_id, state=state) for item in data]
    return data


def remove(job_id: int, *, state: Path | None = None) -> None:
    """Remove the secrets of a job that is over for good."""
    directory = _directory(job_id, state)
    try:
        for path in directory.iterdir():
            path.unlink(missing_ok=True)
        directory.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failed("remove", directory, error) from error


def jobs_with_secrets(state: Path | None = None) -> tuple[int, ...]:
    """The ids of the jobs for which secrets are stored."""
    try:
        names = [path.name for path in ((state or state_directory()) / "secrets").iterdir()]
    except OSError:
        return ()
    return tuple(sorted(int(name) for name in names if name.isdigit()))


def purge(living: Collection[int], *, state: Path | None = None) -> None:
    """Remove the secrets of all jobs but the `living` ones."""
    for job_id in jobs_with_secrets(state):
        if job_id not in living:
            remove(job_id, state=state)


def _referred(data: object) -> str | None:
    """The id, if `data` is a reference; text that somebody else made never becomes a path."""
    name = data.get(KEY) if isinstance(data, Mapping) and len(data) == 1 else None
    return name if isinstance(name, str) and len(name) == 32 and name.isascii() and name.isalnum() else None


def _new_name() -> str:
    return os.urandom(16).hex()


def _directory(job_id: int, state: Path | None) -> Path:
    return (state or state_directory()) / "secrets" / str(job_id)


def _write(directory: Path, name: str, value: str) -> None:
    try:
        directory.parent.mkdir(mode=0o700, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(value)
    except OSError as error:
        raise _failed("store", directory, error) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogatepass")
    except OSError as error:
        remedy = "A job's secrets are removed when it is over: give the command again"
        raise NotFound("a secret of this job is gone", remedy=remedy) from error


def _failed(doing: str, directory: Path, error: OSError) -> HvtuiError:
    return HvtuiError(f"cannot {doing} a secret: {error.strerror}", about=str(directory))
