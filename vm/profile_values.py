"""Checks of single values of profiles: ssh keys, hashes of passwords, names, addresses, zones. Pure.

Each returns the value, tidied where several spellings mean the same, or raises UsageError with what is wrong and what
to do; none repeats what may be secret.
"""

from __future__ import annotations

import ipaddress
import re

from host.errors import UsageError
from host.text import did_you_mean, printable

HASH_REMEDY = "Give a hash: mkpasswd -m sha-512, or openssl passwd -6"
KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
LONGEST_LINE = 10_000

_CRYPT = r"[./0-9A-Za-z]"
# crypt(5): the methods that it does not call obsolete. What it calls so can be searched through in no time.
_HASH = re.compile(
    rf"\$6\$(rounds=\d{{1,9}}\$)?[^$:\s]{{1,16}}\${_CRYPT}{{86}}"
    rf"|\$5\$(rounds=\d{{1,9}}\$)?[^$:\s]{{1,16}}\${_CRYPT}{{43}}"
    rf"|\$g?y\${_CRYPT}{{1,22}}\${_CRYPT}{{1,86}}\${_CRYPT}{{43}}"
    rf"|\$7\${_CRYPT}{{11,97}}\${_CRYPT}{{43}}"
    rf"|\$2[abxy]\$\d{{2}}\${_CRYPT}{{53}}",
    re.ASCII,
)
_OLD_HASH = re.compile(r"\$(1|md5|sha1|3)[$,]", re.ASCII)
_KEY = re.compile(r"(?:.*\s)?(?P<type>[a-z0-9-]+(?:@openssh\.com)?)\s+(?P<data>AAAA[A-Za-z0-9+/]+={0,2})(?:\s.*)?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
_PACKAGE = re.compile(r"[a-z0-9A-Z][a-zA-Z0-9+._:-]*(?:=[a-zA-Z0-9.+~:_-]+|/[a-z0-9-]+)?", re.ASCII)
_LOCALE = re.compile(r"(C|POSIX|[a-z]{2,3}(_[A-Z]{2})?)(\.[A-Za-z0-9-]+)?(@[a-z]+)?", re.ASCII)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}", re.ASCII)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", re.ASCII)
_PROFILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)


def _shown(text: str) -> str:
    return repr(printable(text, limit=60))


def one_line(text: str) -> str:
    """Text of one line without control characters."""
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise UsageError(f"{_shown(text)} is not one line", remedy="Write it on one line")
    if len(text) > LONGEST_LINE:
        raise UsageError("the text is too long", remedy=f"At most {LONGEST_LINE} characters")
    return text


def profile_name(text: str) -> str:
    """The name of a profile: a part of a file's name."""
    if not _PROFILE_NAME.fullmatch(text):
        raise UsageError(f"{_shown(text)} cannot be a profile's name", remedy="Use letters, digits, . _ and -")
    return text


def ssh_key(text: str) -> str:
    """A public key as in authorized_keys: options, type, data, comment."""
    line = text.strip()
    if "PRIVATE KEY" in line:
        raise UsageError("this is a private key", remedy="Give its public half, the file with .pub")
    one_line(line)
    match = _KEY.fullmatch(line)
    if match is None or match["type"] not in KEY_TYPES:
        raise UsageError(
            f"{_shown(line)} is no ssh public key", remedy="Give the line of a .pub file: ssh-ed25519 AAAA… name"
        )
    if not _is_of_type(match["data"], match["type"]):
        raise UsageError(f"the ssh key {_shown(line[:40])} is damaged", remedy="Copy the whole line of the .pub file")
    return line


def _is_of_type(data: str, kind: str) -> bool:
    """True when the key's own bytes (RFC 4253, 6.6) begin with its type and end with a whole field."""
    import base64
    import binascii

    try:
        blob = base64.b64decode(data, validate=True)
    except binascii.Error:
        return False
    fields: list[bytes] = []
    while blob:
        length = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + length:
            return False
        fields.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return len(fields) > 1 and fields[0] == kind.encode()


def password_hash(text: str) -> str:
    """The hash of a password, as crypt(5) makes it. The text itself never gets into an error."""
    if _OLD_HASH.match(text):
        raise UsageError("the hash is of a method that is broken", remedy=HASH_REMEDY)
    if not _HASH.fullmatch(text):
        raise UsageError("it is not the hash of a password, and plain passwords are not taken", remedy=HASH_REMEDY)
    return text


def user_name(text: str) -> str:
    if not _USER.fullmatch(text):
        raise UsageError(f"{_shown(text)} cannot be a user's name", remedy="Small letters, digits, _ and -, at most 32")
    return text


def group_name(text: str) -> str:
    if not _USER.fullmatch(text):
        raise UsageError(f"{_shown(text)} cannot be a group's name", remedy="Small letters, digits, _ and -")
    return text


def sudo_rule(text: str) -> str:
    """What stands behind the user's name in sudoers."""
    if text and "=" not in one_line(text):
        raise UsageError(f"{_shown(text)} is no rule of sudo", remedy="For example ALL=(ALL) NOPASSWD:ALL")
    return text


def shell_path(text: str) -> str:
    if not one_line(text).startswith("/") or " " in text or ":" in text:
        raise UsageError(f"{_shown(text)} is no shell's path", remedy="For example /bin/bash")
    return text


def package_name(text: str) -> str:
    """A package, perhaps with =version or /release."""
    if not _PACKAGE.fullmatch(text):
        raise UsageError(f"{_shown(text)} is no package's name", remedy="For example nginx, or nginx=1.22.1-9")
    return text


def locale_name(text: str) -> str:
    if not _LOCALE.fullmatch(text):
        raise UsageError(f"{_shown(text)} is no locale", remedy="For example en_GB.UTF-8 or C.UTF-8")
    return text


def time_zone(text: str) -> str:
    """A zone of the tz database, as far as this machine knows it."""
    if not _ZONE.fullmatch(text):
        raise UsageError(f"{_shown(text)} is no time zone", remedy="For example Europe/Berlin or UTC")
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        if known:
            nearest = did_you_mean(text, sorted(known), otherwise="timedatectl list-timezones lists them")
            raise UsageError(f"there is no time zone {_shown(text)}", remedy=nearest) from None
    return text


def domain_name(text: str) -> str:
    if len(text) > 190 or not all(map(_LABEL.fullmatch, text.split("."))):
        raise UsageError(f"{_shown(text)} is no domain", remedy="For example lab.example.org")
    return text.lower()


def network_address(text: str) -> str:
    """An address with the length of its network's prefix, "198.51.100.10/24"."""
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        found = None
    if found is None or "/" not in text or found.ip.is_multicast or found.ip.is_unspecified or found.ip.is_loopback:
        raise UsageError(f"{_shown(text)} is no address of a network card", remedy="For example 198.51.100.10/24")
    subnet = found.network
    is_reserved = subnet.prefixlen < subnet.max_prefixlen - 1 and found.ip == subnet.network_address
    if is_reserved or (subnet.version == 4 and subnet.prefixlen < 31 and found.ip == subnet.broadcast_address):
        raise UsageError(
            f"{found.ip} is no host's address in {subnet}", remedy="Take one between the first and the last"
        )
    return found.with_prefixlen


def host_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UsageError(f"{_shown(text)} is no address", remedy="For example 198.51.100.1") from None


def hardware_word(text: str) -> str:
    """The name of a machine type, a CPU model or mode: q35, pc-q35-9.0, host-model."""
    if not _WORD.fullmatch(text):
        raise UsageError(f"{_shown(text)} cannot be its name", remedy="Letters, digits, . _ + and -")
    return text


def network_name(text: str) -> str:
    """What a card is plugged into: auto, none, user, bridge:NAME or a network's name."""
    if not text or text.strip() != text or "/" in text or text == "bridge:" or printable(text) != text:
        raise UsageError(f"{_shown(text)} is no network", remedy="A network's name, bridge:NAME, user, none or auto")
    return text
