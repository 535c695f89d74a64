"""Runs every benchmark and writes docs/benchmarks.md. Needs root, for the private libvirtd."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench import calls, command_line, many_hosts, moves, peer, placement, provisioning, report, screen
from bench.row import Row
from tests.support.private_libvirtd import PrivateLibvirtd, why_not

PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"


def main() -> int:
    reason = why_not()
    if reason:
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="hvtui-bench-") as name, PrivateLibvirtd() as daemon:
        directory = Path(name)
        print("bench: installing virtui-manager", file=sys.stderr)
        rival = peer.install(directory / "virtui-manager")
        rows: list[Row] = []
        for part in (
            lambda: command_line.rows(daemon, directory),
            lambda: screen.rows(daemon, directory, rival),
            lambda: calls.rows(daemon, directory),
            lambda: many_hosts.rows(daemon, directory),
            placement.rows,
            lambda: provisioning.rows(daemon, directory),
            lambda: moves.rows(directory),
        ):
            for row in part():
                print(f"  {row.what}: {row.measured} ({row.budget}) {row.compared}", file=sys.stderr)
                rows.append(row)
    PAGE.write_text(report.page(rows, rival), encoding="utf-8")
    print(report.table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
