"""Rating hosts for VMs, and the N-1 light: both are pure, and shown while somebody looks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bench.row import Row, limit
from vm.placement import rate, tags_of
from vm.placement_model import Demand, DiskDemand, HostPicture, PoolPicture
from vm.whatif import n_minus_1

HOSTS, PLACED, VMS_EACH = 64, 100, 125
RUNS = 7
GIB = 1024**3
IMAGES = "/var/lib/libvirt/images"


def rows() -> list[Row]:
    hosts = [_host(number) for number in range(HOSTS)]
    demands = [_vm(f"new-{number:03}", host="host-01") for number in range(PLACED)]
    rating_s = _median(lambda: [rate(demand, hosts) for demand in demands])
    light_s = _median(lambda: n_minus_1(hosts))
    return [
        limit(f"place {PLACED} VMs over {HOSTS} hosts", budget=0.1, value=rating_s, unit="s"),
        Row(f"loss of each of {HOSTS} hosts × {VMS_EACH} VMs", budget="–", measured=f"{light_s:.2f} s"),
    ]


def _median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        began_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - began_s)
    return statistics.median(times)


def _vm(name: str, *, host: str) -> Demand:
    return Demand(
        name,
        vcpus=2,
        memory_bytes=2 * GIB,
        cpu_cores=0.4,
        disks=(DiskDemand(20 * GIB, "default", f"{IMAGES}/{name}"),),
        networks=frozenset({"default"}),
        machine="pc-q35-7.2",
        virtualization="kvm",
        tags=frozenset({"anti-affinity/web", "prod"}) if name.endswith("7") else frozenset({"prod"}),
        uuid=name,
        host=host,
    )


def _host(number: int) -> HostPicture:
    name = f"host-{number:02}"
    vms = tuple(_vm(f"{name}-vm-{each:03}", host=name) for each in range(VMS_EACH))
    seen = frozenset(f"host-{other:02}-vm-{each:03}" for other in range(HOSTS) for each in range(VMS_EACH))
    return HostPicture(
        name,
        f"qemu+ssh://{name}/system",
        cpus=64,
        cpu_percent=float(number),
        memory_bytes=512 * GIB,
        memory_free_bytes=(300 - number) * GIB,
        memory_promised_bytes=sum(vm.memory_bytes for vm in vms),
        reserve_memory_bytes=GIB,
        network_percent=5.0,
        pools={"default": PoolPicture("default", 4000 * GIB, 9000 * GIB, IMAGES, seen)},
        networks=frozenset({"default", "lan"}),
        machines=frozenset({"pc-q35-7.2", "pc-i440fx-7.2"}),
        virtualizations=frozenset({"kvm", "qemu"}),
        vms=vms,
        tags=tags_of(vms),
    )
