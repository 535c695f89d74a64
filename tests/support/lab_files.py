"""The files in which a lab host differs from the tree it starts from: its names, its addresses, its keys."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.lab_spec import PREFIX_LENGTH, SEAT_ADDRESS, HostSpec, LabSpec

# The cable's loss must not take the address away: after it is plugged in again, what waited goes on.
_NETWORK = """\
[Match]
Name=host0
[Network]
Address={address}/{prefix}
Gateway={gateway}
LinkLocalAddressing=no
IPv6AcceptRA=no
ConfigureWithoutCarrier=yes
IgnoreCarrierLoss=yes
"""


# Nobody answers on a host's console. These two would use up the kernel's inotify instances: 128 for all hosts together.
_MASKED = ("systemd-ask-password-console.path", "systemd-ask-password-wall.path")


def make_keys(spec: LabSpec) -> None:
    """A key for root and one of sshd for every host, and root's of the seat."""
    for name in _names(spec):
        _ssh_directory(spec, name).mkdir(mode=0o700)
        _make_key(_ssh_directory(spec, name) / "id_ed25519", f"root@{name}")
    for host in spec.hosts:
        _make_key(spec.directory / host.name / "ssh_host_ed25519_key", host.name)
    authorized = "".join((_ssh_directory(spec, name) / "id_ed25519.pub").read_text() for name in _names(spec))
    for name in _names(spec):
        _write(_ssh_directory(spec, name) / "authorized_keys", authorized, mode=0o600)
        _write(_ssh_directory(spec, name) / "known_hosts", _known_hosts(spec))


def write_host(root: Path, spec: LabSpec, host: HostSpec) -> None:
    """Write a host's own files below `root`, its file system."""
    _write(root / "etc/hostname", f"{host.name}\n")
    _write(root / "etc/machine-id", f"{host.machine_id}\n")
    _write(root / "etc/hosts", spec.hosts_file())
    network = _NETWORK.format(address=host.address, prefix=PREFIX_LENGTH, gateway=SEAT_ADDRESS)
    _write(root / "etc/systemd/network/10-host0.network", network)
    for unit in _MASKED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    with (root / "etc/libvirt/libvirtd.conf").open("a", encoding="utf-8") as file:
        file.write(f'\nhost_uuid = "{host.uuid}"\n')
    key = spec.directory / host.name / "ssh_host_ed25519_key"
    _write(root / "etc/ssh/ssh_host_ed25519_key", key.read_text(), mode=0o600)
    _write(root / "etc/ssh/ssh_host_ed25519_key.pub", key.with_suffix(".pub").read_text())
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    for path in _ssh_directory(spec, host.name).iterdir():
        _write(root / "root/.ssh" / path.name, path.read_text(), mode=path.stat().st_mode & 0o777)


def _names(spec: LabSpec) -> list[str]:
    return ["seat", *(host.name for host in spec.hosts)]


def _ssh_directory(spec: LabSpec, name: str) -> Path:
    return spec.directory / f"{name}.ssh"


def _known_hosts(spec: LabSpec) -> str:
    lines = []
    for host in spec.hosts:
        kind, key, _comment = (spec.directory / host.name / "ssh_host_ed25519_key.pub").read_text().split()
        lines.append(f"{host.name},{host.address} {kind} {key}\n")
    return "".join(lines)


def _make_key(path: Path, comment: str) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        stdin=subprocess.DEVNULL,
        check=True,
    )


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
