"""Templates: many linked VMs, full copies, a large image added, a large library listed."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import libvirt

from bench.command_line import HVTUI
from bench.measure import environment_with, run_s
from bench.row import Row, against, limit
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.rpc_proxy import RpcProxy

COUNT = 50
CLONES = 3
RUNS = 3
TEMPLATE_BYTES = 64 * 1024**2
COPY_BYTES = 2 * 1024**3
COPIES = 7
IMAGE_BYTES = 10 * 1024**3
IMAGE_DATA_BYTES = 1024**3
LIBRARY = 500
MIB = 1024**2


def rows(daemon: PrivateLibvirtd, directory: Path) -> list[Row]:
    """The rows of the page; everything that is made lies below `directory` and in the daemon's own directories."""
    bench = _Provisioning(daemon, directory)
    return [*bench.linked(), bench.full_copy(), bench.memory(), bench.listing()]


class _Provisioning:
    """Makes templates in a private daemon, and what they are compared with."""

    def __init__(self, daemon: PrivateLibvirtd, directory: Path) -> None:
        self._uri = daemon.uri
        self._socket = daemon.socket
        self._directory = directory
        self._environment = {
            "HVTUI_STATE_DIR": str(directory / "state"),
            "HVTUI_CACHE_DIR": str(directory / "cache"),
            "HVTUI_ACCEL": "qemu",
        }
        self._connection = libvirt.open(daemon.uri)
        for name in ("library", "default"):
            (directory / name).mkdir()
            self._pool(name, directory / name)

    def linked(self) -> list[Row]:
        """50 VMs defined at once, against a script of the bare calls, and against virt-clone."""
        self._add("small", self._image("small.qcow2", TEMPLATE_BYTES))
        base = self._stored("small")
        own, bare = [], []
        for _ in range(RUNS):
            own.append(self._deploy("small", "own-{:02}", "-n", str(COUNT), "--linked"))
            self._remove_vms("own-")
            bare.append(self._script(base))
            self._remove_vms("bare-")
        own_s = statistics.median(own)
        what = f"define {COUNT} linked VMs from a template"
        first = against(what, budget=1.3, own_s=own_s, other_s=statistics.median(bare), other="qemu-img and define")
        return [first, self._against_virt_clone(what, own_s)]

    def _against_virt_clone(self, what: str, own_s: float) -> Row:
        if not shutil.which("virt-clone"):
            return Row(what, "≤ 0.2× virt-clone", f"{own_s:.2f} s", note="virt-clone is not installed")
        self._deploy("small", "origin", "--full")
        times = [
            self._run("virt-clone", "-q", "--connect", self._uri, "-o", "origin", "-n", f"clone-{number}", "--file",
                      str(self._directory / "default" / f"clone-{number}.qcow2"))
            for number in range(CLONES)
        ]  # fmt: skip
        self._remove_vms("clone-")
        self._remove_vms("origin")
        loop_s = statistics.median(times) * COUNT
        return against(what, budget=0.2, own_s=own_s, other_s=loop_s, other=f"{COUNT} × virt-clone")

    def _script(self, base: Path) -> float:
        lines = ["set -e"]
        for number in range(COUNT):
            disk, file = self._directory / "default" / f"bare-{number}.qcow2", self._directory / f"bare-{number}.xml"
            file.write_text(_DOMAIN.format(name=f"bare-{number}", disk=disk), encoding="utf-8")
            lines.append(f"qemu-img create -q -f qcow2 -F qcow2 -b {base} {disk}")
            lines.append(f"virsh -q -c {self._uri} define {file}")
        script = self._directory / "bare.sh"
        script.write_text("\n".join(lines), encoding="utf-8")
        return self._run("bash", str(script))

    def full_copy(self) -> Row:
        """The throughput of full copies, against cp of the same file: what 2 GiB take longer than 64 MiB, in memory
        (/dev/shm), since the disk of a rented machine has another speed from one second to the next."""
        with tempfile.TemporaryDirectory(prefix="hvtui-bench-", dir="/dev/shm") as name:
            pool = Path(name)
            self._pool("memory", pool)
            for size_bytes in (TEMPLATE_BYTES, COPY_BYTES):
                self._add(f"copied-{size_bytes}", self._image(f"copied-{size_bytes}.qcow2", size_bytes, pool), "memory")
            rounds = [self._copies(pool) for _ in range(COPIES)]
            self._connection.storagePoolLookupByName("memory").destroy()
        own_s, other_s = (statistics.median(times) for times in zip(*rounds, strict=True))
        added = (COPY_BYTES - TEMPLATE_BYTES) // MIB
        what = f"throughput of a full copy (time for {added} MiB more, in memory)"
        return against(what, budget=round(1 / 0.9, 2), own_s=own_s, other_s=other_s, other="`cp --sparse=always`")

    def _copies(self, pool: Path) -> tuple[float, float]:
        """Seconds that the large image takes longer than the small one, of hvtui and of cp."""
        own, other = [], []
        for size_bytes in (TEMPLATE_BYTES, COPY_BYTES):
            (base,) = pool.glob(f"copied-{size_bytes}-*.qcow2")
            other.append(self._run("cp", "--sparse=always", "--", str(base), str(pool / "copy")))
            (pool / "copy").unlink()
            command = ("copy", "--full", "--library", "memory", "--pool", "memory")
            own.append(self._deploy(f"copied-{size_bytes}", *command))
            self._remove_vms("copy", "memory")
        return own[1] - own[0], other[1] - other[0]

    def memory(self) -> Row:
        """The most memory while a large raw image is added, against a small one."""
        few = self._memory_of_adding("few", 64 * MIB, 32 * MIB)
        most = self._memory_of_adding("most", IMAGE_BYTES, IMAGE_DATA_BYTES)
        what = f"memory while an image of {IMAGE_BYTES // 1024**3} GiB is added"
        row = limit(what, budget=few + 10, value=most, unit="MiB")
        return Row(what, "≤ 10 MiB more than one of 64 MiB", row.measured, f"{few:.1f} MiB", most / few, row.kept)

    def _memory_of_adding(self, name: str, size_bytes: int, data_bytes: int) -> float:
        path = self._directory / f"{name}.raw"
        with path.open("wb") as file:
            file.write(bytes(510) + b"\x55\xaa")
            for _ in range(data_bytes // MIB):
                file.write(os.urandom(MIB))
                file.seek((size_bytes - data_bytes) // (data_bytes // MIB), os.SEEK_CUR)
            file.truncate(size_bytes)
        job = self._hvtui("template", "add", name, "--from", str(path), "--no-wait", "-o", "json")
        number = json.loads(job)[0]["job"]
        most = _most_memory_mib(number)
        self._hvtui("job", "watch", str(number))
        path.unlink()
        return most

    def listing(self) -> Row:
        """Calls of `template list` with 500 images in the library."""
        few = self._calls_of_listing("list-1")
        pool = self._connection.storagePoolLookupByName("library")
        for number in range(LIBRARY):
            xml = f"<volume><name>loose-{number}.qcow2</name><capacity>1048576</capacity><target><format type='qcow2'/>"
            pool.createXML(f"{xml}</target></volume>", 0)
        many = self._calls_of_listing("list-2")
        return Row(
            f"libvirt calls of `template list`, {LIBRARY} more images",
            "a constant", f"{many} calls", f"{few} calls without them", many / few, many == few,
        )  # fmt: skip

    def _calls_of_listing(self, name: str) -> int:
        with RpcProxy(self._directory / f"{name}.sock", self._socket) as proxy:
            uri = f"qemu+unix:///system?socket={proxy.path}"
            run_s([HVTUI, "--headless", "template", "list", "-o", "json", "--connect", uri], self._environment)
            return proxy.taken().total()

    # What they are made with

    def _pool(self, name: str, directory: Path) -> None:
        xml = f"<pool type='dir'><name>{name}</name><target><path>{directory}</path></target></pool>"
        self._connection.storagePoolDefineXML(xml, 0).create(0)

    def _image(self, name: str, size_bytes: int, directory: Path | None = None) -> Path:
        raw, path = self._directory / f"{name}.raw", (directory or self._directory) / name
        with raw.open("wb") as file:
            for _ in range(size_bytes // MIB):
                file.write(os.urandom(MIB))
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "--", raw, path], check=True)
        raw.unlink()
        return path

    def _add(self, name: str, path: Path, library: str = "library") -> None:
        self._hvtui("template", "add", name, "--from", str(path), "--library", library, "--yes")
        path.unlink()

    def _stored(self, name: str) -> Path:
        (path,) = (self._directory / "library").glob(f"{name}-*.qcow2")
        return path

    def _deploy(self, template: str, *words: str) -> float:
        started_s = time.monotonic()
        self._hvtui("vm", "deploy", template, *words, "--no-start", "--set", "network=none", "--yes")
        return time.monotonic() - started_s

    def _hvtui(self, *words: str) -> str:
        command = [HVTUI, "--headless", *words, "--connect", self._uri]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment_with(self._environment)
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def _run(self, *command: str) -> float:
        return run_s(list(command), self._environment)

    def _remove_vms(self, prefix: str, pool: str = "default") -> None:
        for domain in self._connection.listAllDomains(0):
            if domain.name().startswith(prefix):
                domain.undefine()
        for volume in self._connection.storagePoolLookupByName(pool).listAllVolumes(0):
            if volume.name().startswith(prefix):
                volume.delete(0)


_DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>1024</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><disk type='file' device='disk'>
<driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"""


def _most_memory_mib(job: int) -> float:
    """The most resident memory of the job's runner process, watched until it ends."""
    most, deadline_s = 0.0, time.monotonic() + 600
    pid = None
    while time.monotonic() < deadline_s:
        pid = pid or _runner(job)
        if pid is not None:
            try:
                status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            except OSError:
                return most
            found = [line for line in status.splitlines() if line.startswith("VmHWM:")]
            if not found:
                return most
            most = int(found[0].split()[1]) / 1024
        time.sleep(0.02)
    raise TimeoutError(f"job {job} did not end")


def _runner(job: int) -> int | None:
    """The process id of `hvtui --headless job run JOB`."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[-4:-1] == [b"job", b"run", str(job).encode()]:
                return int(entry.name)
    return None
