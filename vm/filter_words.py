"""What the words of the filter language mean, for the pages that explain it (docs/headless.md, docs/keys.md). Data
only; vm.filter has the language itself, and a test compares the two."""

from __future__ import annotations

GRAMMAR = """A filter is any number of terms with spaces between; **every** term must match:

- `web` finds text in the name, an address, the title, the owner or a tag, in whatever case; `web-*` and `db-0?` are
  globs of the whole; `"two words"` in quotes is taken as it is.
- `key:value` looks at one property (table below); `=` instead of `:` wants exactly that value; numbers and sizes also
  take `>`, `>=`, `<`, `<=` and `!=`: `mem>=2G`.
- `key:one,two` matches **one of** several values.
- `-term` is the **opposite**: `-tag:web`, `-is:running`.

A VM whose value is not known (no address yet, not running) does not match. Example:
`state:running tag:web,db mem>2G -name:old-*`
"""
KEYS: dict[str, str] = {
    "state": "running, paused, shutting-down, off, saved, crashed, suspended; the beginning is enough: `state:run`",
    "is": "a property, see below: `is:autostart`",
    "has": "the same as `is`: `has:tpm`",
    "host": "text in the host's name",
    "group": "a whole group of its host: `group:lab`",
    "name": "text in the name: `name:web` or `name:web-*`",
    "uuid": "the beginning of the UUID",
    "reason": "text in libvirt's reason for the state: `reason:error`",
    "ip": "the beginning of an address: `ip:192.168.`",
    "tag": "a whole tag: `tag:web`",
    "owner": "the whole owner",
    "os": "text in libosinfo's id of its system: `os:debian`",
    "title": "text in the title or the description",
    "net": "the whole name of a network or bridge it is in: `net:default`",
    "mac": "the beginning of a MAC address",
    "disk": "text in a disk's source: `disk:/data/`",
    "cpu": "CPU load in percent: `cpu>50` (the console only)",
    "steal": "percent of its time that it waited for a CPU of the host (the console only)",
    "vcpus": "number of virtual CPUs: `vcpus>=4`",
    "checkpoints": "number of checkpoints: `checkpoints>0`",
    "id": "libvirt's number of a running VM",
    "mem": "memory: `mem>2G` (or `memory>2G`)",
    "used": "memory used inside, as the guest tells",
    "read": "bytes read from disks a second: `read>10M` (the console only)",
    "write": "bytes written to disks a second (the console only)",
    "receive": "bytes received from networks a second (the console only)",
    "send": "bytes sent to networks a second (the console only)",
}
FLAGS: dict[str, str] = {
    "active": "running, paused, shutting down or suspended",
    "inactive": "none of these",
    "running": "running",
    "off": "off, without a saved state",
    "paused": "paused",
    "saved": "has a saved state",
    "crashed": "crashed",
    "autostart": "starts with the host",
    "persistent": "is defined",
    "transient": "vanishes when it stops",
    "attention": "in a state nobody asked for (a disk error, a crash)",
    "checkpoint": "has a checkpoint",
    "agent": "its agent answers",
    "emulated": "runs without KVM",
    "passthrough": "has devices of the host",
    "pending": "its next boot differs from what runs",
    "tagged": "has a tag",
    "tpm": "has a TPM",
    "uefi": "boots by UEFI",
}


def page() -> str:
    """The language as Markdown, without a heading."""
    keys = "\n".join(f"| `{key}` | {meaning} |" for key, meaning in KEYS.items())
    flags = "\n".join(f"| `is:{flag}` | {meaning} |" for flag, meaning in FLAGS.items())
    return f"{GRAMMAR}\n| key | meaning |\n| --- | --- |\n{keys}\n\n| property | meaning |\n| --- | --- |\n{flags}\n"
