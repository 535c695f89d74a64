"""What a lab is made of, as one file in its directory that its processes and every user of it read.

DIRECTORY/spec.json         this
DIRECTORY/record.json       the pid and the start time of the lab's first process
DIRECTORY/requests          a pipe: what that process is asked for
DIRECTORY/shared            /srv/shared of every host
DIRECTORY/seat.ssh          root's ssh keys of the seat, from which an administrator reaches every host
DIRECTORY/HOST/run          /run/libvirt of the host, with libvirtd's socket
DIRECTORY/HOST/images       /var/lib/libvirt/images of the host
DIRECTORY/HOST/upper        what the host has changed in its file system
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path("/tmp/hvtui-lab")
BRIDGE = "lab0"
SEAT_ADDRESS = "10.77.0.1"
PREFIX_LENGTH = 24


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One host; `uuid` is what its libvirtd calls the host, `machine_id` what its systemd does."""

    name: str
    address: str
    uuid: str
    machine_id: str


@dataclass(frozen=True, slots=True)
class LabSpec:
    """A whole lab. `tree` is the file system that its hosts start from."""

    name: str
    directory: Path
    tree: Path
    hosts: tuple[HostSpec, ...]

    def write(self) -> None:
        values = {**asdict(self), "directory": str(self.directory), "tree": str(self.tree)}
        (self.directory / "spec.json").write_text(json.dumps(values, indent=2), encoding="utf-8")

    def hosts_file(self) -> str:
        """/etc/hosts of every host and of the seat."""
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", f"{SEAT_ADDRESS} seat"]
        return "\n".join([*lines, *(f"{each.address} {each.name}" for each in self.hosts)]) + "\n"


def read(directory: Path) -> LabSpec:
    """The lab in that directory. Raises OSError when there is none."""
    values = json.loads((directory / "spec.json").read_text(encoding="utf-8"))
    hosts = tuple(HostSpec(**each) for each in values["hosts"])
    return LabSpec(values["name"], directory, Path(values["tree"]), hosts)


def make(name: str, tree: Path, *, hosts: int) -> LabSpec:
    """A lab of that many new hosts, lab1 and so on."""
    specs = [HostSpec(f"lab{n}", f"10.77.0.{10 + n}", str(uuid.uuid4()), uuid.uuid4().hex) for n in range(1, hosts + 1)]
    return LabSpec(name, ROOT / name, tree, tuple(specs))
