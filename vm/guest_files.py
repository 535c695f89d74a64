"""Reads small text files of a running guest through its agent, without writing there. Makes libvirt calls only.

Every answer is the guest's own and not trusted: it is read with limits. Each call may wait a few seconds.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import libvirt

from vm.domain_xml import read_config

LARGEST_BYTES = 64 * 1024
_PATIENCE_S = 3  # below the interval of keepalive (host.connection)
_DISABLED = ("has been disabled", "CommandNotFound", "has not been found", "not enabled", "not allowed")


class AgentState(StrEnum):
    ABSENT = "absent"  # no channel, or nobody answers at its other end
    REFUSES = "refuses"  # the guest forbids its agent to read files
    ANSWERS = "answers"


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """`files` are those that are there, by their paths."""

    state: AgentState
    files: Mapping[str, str] = field(default_factory=dict)


def read_guest_files(domain: Any, paths: Sequence[str]) -> AgentAnswer:
    """The files' text as the agent reads it; without paths, whether it answers at all. Raises libvirtError for a lost
    connection only."""
    if not read_config(domain.XMLDesc(0)).agent_connected:
        return AgentAnswer(AgentState.ABSENT)
    files: dict[str, str] = {}
    try:
        _ask(domain, "guest-ping")
        for path in paths:
            text = _read(domain, path)
            if text is not None:
                files[path] = text
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        is_refused = any(word in (error.get_error_message() or "") for word in _DISABLED)
        return AgentAnswer(AgentState.REFUSES if is_refused else AgentState.ABSENT)
    return AgentAnswer(AgentState.ANSWERS, files)


def _read(domain: Any, path: str) -> str | None:
    """The file's text; None when it cannot be opened: it is not there."""
    try:
        handle = _ask(domain, "guest-file-open", path=path, mode="r")
    except libvirt.libvirtError as error:
        message = error.get_error_message() or ""
        if "guest-file-open" in message and not any(word in message for word in _DISABLED):
            return None
        raise
    try:
        answer = _ask(domain, "guest-file-read", handle=handle, count=LARGEST_BYTES)
    finally:
        _ask(domain, "guest-file-close", handle=handle)
    text = answer.get("buf-b64", "") if isinstance(answer, dict) else ""
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "replace")
    except (ValueError, TypeError):
        return ""


def _ask(domain: Any, command: str, **arguments: object) -> Any:
    import libvirt_qemu

    request = {"execute": command, **({"arguments": arguments} if arguments else {})}
    answer = libvirt_qemu.qemuAgentCommand(domain, json.dumps(request), _PATIENCE_S, 0)
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return found.get("return") if isinstance(found, dict) else None
