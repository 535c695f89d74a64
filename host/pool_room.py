"""How much room a storage pool has now. Reads only."""

from __future__ import annotations

import os
from collections.abc import Sequence

from host.connection import Host


def free_bytes(host: Host, path: str, info: Sequence[int]) -> int:
    """The free bytes of the pool over `path`, of which libvirt says `info` (`virStoragePool.info()`).

    libvirt counts only when it refreshes a pool, so the file system itself is asked where it is this machine's. A
    daemon may see another one there than this process (a container's, a socket that leads to another host): one of
    another size is not asked.
    """
    capacity_bytes, counted_bytes = int(info[1]), int(info[3])
    if not path.startswith("/") or not host.is_local or host.is_simulated:
        return counted_bytes
    try:
        status = os.statvfs(path)
    except OSError:  # libvirt sees what this user may not
        return counted_bytes
    is_the_same = status.f_blocks * status.f_frsize == capacity_bytes
    return status.f_bavail * status.f_frsize if is_the_same else counted_bytes
