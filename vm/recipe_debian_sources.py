"""Where the debian recipe takes its packages from: the release and the sources that this machine itself uses.

apt is asked, so that every form of its configuration counts. Only the distribution's own archives are taken: what else
the machine is set up for has keys and packages that a guest does not need.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from host.errors import HvtuiError, NotFound
from vm.tiny_sources import run

_FORMAT = "$(ORIGIN)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(ARCHITECTURE)\t$(CREATED_BY)"
_ARCHITECTURE = "amd64"
_SUITES = ("", "-updates", "-security")
_COMPONENTS = frozenset({"main", "contrib", "non-free", "non-free-firmware"})
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")  # the guest has it at the same place
_OS_RELEASE = Path("/etc/os-release")


@dataclass(frozen=True, slots=True)
class Release:
    """The distribution of this machine; `codename` such as "bookworm", `version` such as "12"."""

    distribution: str
    codename: str
    version: str
    title: str


def release(file: Path | None = None) -> Release:
    """What this machine runs, from its os-release file; empty words for what it does not say."""
    values: dict[str, str] = {}
    try:
        text = (file or _OS_RELEASE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition("=")
        values[key] = value.strip("\"'")
    name, version = values.get("NAME", "Debian").split(" ")[0], values.get("VERSION_ID", "")
    title = f"{name} {version or values.get('VERSION_CODENAME', '')}".strip()
    return Release(values.get("ID", ""), values.get("VERSION_CODENAME", ""), version, title)


def sources(found: Release) -> str:
    """The lines of a sources.list with this machine's own archives of its release, without passwords. Raises NotFound
    when apt knows of none, Unsupported when there is no apt."""
    rows = [line.split("\t") for line in run(["apt-get", "indextargets", "--format", _FORMAT]).splitlines()]
    signed = f" signed-by={_KEYRING}" if _KEYRING.exists() else ""
    parts: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if len(row) == 6 and _is_taken(row, found):
            parts.setdefault((_without_password(row[1]), row[2]), []).append(row[3])
    if not any(suite == found.codename for _, suite in parts):
        raise NotFound(
            f"apt knows no archive of {found.title} ({found.codename})",
            remedy="Name one in /etc/apt/sources.list, then run apt-get update",
        )
    options = f"[arch={_ARCHITECTURE}{signed}]"
    return "".join(f"deb {options} {uri} {suite} {' '.join(each)}\n" for (uri, suite), each in parts.items())


def _is_taken(row: list[str], found: Release) -> bool:
    """Origins are known from the lists alone: where there are none yet, the names of suites and components decide."""
    origin, uri, suite, component, architecture, kind = row
    return (
        kind == "Packages"
        and architecture == _ARCHITECTURE
        and component in _COMPONENTS
        and suite in {f"{found.codename}{ending}" for ending in _SUITES}
        and origin.lower() in ("", found.distribution)
        and not uri.startswith("cdrom:")
    )


def _without_password(uri: str) -> str:
    return re.sub(r"(?<=://)[^/@]*@", "", uri)


def versions(packages: tuple[str, ...]) -> Mapping[str, str]:
    """The versions that the machine's package lists offer now; nothing where it has no lists."""
    try:
        output = run(["apt-cache", "show", "--no-all-versions", "--", *packages])
    except HvtuiError:
        return {}
    found = re.findall(r"^Package: (\S+)$.*?^Version: (\S+)$", output, re.MULTILINE | re.DOTALL)
    return dict(found)


def installed_versions(tree: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """The versions in a system's own list of packages."""
    status = (tree / "var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")
    found = {}
    for block in status.split("\n\n"):
        match = re.search(r"^Package: (\S+)$.*?^Version: (\S+)$", block, re.MULTILINE | re.DOTALL)
        if match and match[1] in packages:
            found[match[1]] = match[2]
    return {name: found[name] for name in packages if name in found}


def may_be_root() -> tuple[str, ...] | None:
    """The words before a command that let it see and make files of other users: none for root, a user namespace for
    a user who has subordinate ids, or None where neither is to be had."""
    if os.geteuid() == 0:
        return ()
    words = ("unshare", "--user", "--map-auto", "--map-root-user", "--")
    try:
        run([*words, "true"])
    except HvtuiError:
        return None
    return words
