"""Talks to the inside of a running guest through its agent, the way an administrator of the guest would see it."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import libvirt
import libvirt_qemu

AGENT_TIMEOUT_S = 10


def agent(domain: libvirt.virDomain, command: str, timeout_s: int = AGENT_TIMEOUT_S, **arguments: object) -> Any:
    """The agent's answer. Raises libvirtError when it does not answer."""
    request = {"execute": command, **({"arguments": arguments} if arguments else {})}
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, json.dumps(request), timeout_s, 0))["return"]


def run(domain: libvirt.virDomain, script: str, *, limit_s: float = 10.0) -> str:
    """What a shell inside the guest printed. Raises RuntimeError when it failed."""
    pid = agent(domain, "guest-exec", path="/bin/sh", arg=["-c", script], **{"capture-output": True})["pid"]
    for _ in range(round(limit_s / 0.05)):
        status = agent(domain, "guest-exec-status", pid=pid)
        if status["exited"]:
            break
        time.sleep(0.05)
    output = base64.b64decode(status.get("out-data", "")).decode(errors="replace")
    if status.get("exitcode") != 0:
        raise RuntimeError(f"{script!r} in the guest: {status}")
    return output.strip()


def answers(domain: libvirt.virDomain) -> bool:
    """True when the agent answers now."""
    try:
        agent(domain, "guest-ping", timeout_s=2)
    except libvirt.libvirtError:
        return False
    return True


def boot_id(domain: libvirt.virDomain) -> str:
    """A different one for every boot of the guest's kernel."""
    return run(domain, "cat /proc/sys/kernel/random/boot_id")


def panic(domain: libvirt.virDomain) -> None:
    """Make the guest's kernel panic; returns at once."""
    agent(domain, "guest-exec", path="/bin/sh", arg=["-c", "sleep 0.3; echo c > /proc/sysrq-trigger"])
