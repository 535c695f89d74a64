"""`hvtui vm migrate` and `hvtui job tune` where nothing can be moved: what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from host import jobs
from host.errors import UsageError
from host.journal import Journal
from host.plan import Plan, Step
from hvtui.cli.session import Session
from hvtui.cli.vm_migrate import _duration, request_of, target_entry
from tests.cli.conftest import Command
from vm.move_model import MoveKind, Stuck

GIVEN = {
    "kind": "auto", "bandwidth": None, "downtime": None, "auto_converge": True, "connections": 1, "compress": False,
    "tls": False, "tunnelled": False, "postcopy": False, "direct": False, "migrate_uri": "", "if_stuck": "ask",
    "patience": 300.0, "keep_disks": False, "eject": False, "peer_uri": "", "pools": (),
}  # fmt: skip


def test_a_simulated_vm_is_not_moved(hv: Command, simulated_file: Path):
    result = hv("vm", "migrate", "web-01", "--to", f"test://{simulated_file}")

    assert result.code == 8
    assert "nothing can be moved" in result.err


def test_an_unknown_host_is_named_with_those_there_are(hv: Command):
    result = hv("vm", "migrate", "web-01", "--to", "nowhere")

    assert result.code == 3
    assert "no such host" in result.err and "local" in result.err


@pytest.mark.parametrize(
    "words",
    [
        ("--bandwidth", "fast"),
        ("--downtime", "0"),
        ("--patience", "never"),
        ("--connections", "0"),
        ("--kind", "storage"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(hv: Command, words: tuple[str, str]):
    assert hv("vm", "migrate", "web-01", "--to", "local", *words).code == 2


def test_what_is_no_move_cannot_be_tuned(hv: Command):
    hv("vm", "autostart", "on", "web-01")
    newest = hv("job", "list", "-o", "json").json[0]["id"]

    result = hv("job", "tune", str(newest), "--quick")

    assert result.code == 8
    assert "no live move" in result.err


def test_post_copy_is_refused_for_a_move_that_was_begun_without_it(hv: Command, simulated_uri: str):
    step = Step("move.live", "Migrate it live", {"postcopy": False})
    with Journal() as journal:
        job = jobs.create(Plan("Move a", simulated_uri, (step,), ("vm", "migrate", "a")), journal)

    refused = hv("job", "tune", str(job.id), "--postcopy")

    assert (refused.code, "it was begun without post-copy" in refused.err) == (8, True)
    assert hv("job", "tune", str(job.id), "--quick").code == 0


def test_a_tune_without_a_wish_says_what_there_is(hv: Command):
    result = hv("job", "tune", "1")

    assert result.code == 2
    assert "--bandwidth, --downtime, --postcopy or --quick" in result.err


def test_the_options_become_the_request_and_the_entry_says_how_hosts_reach_each_other(config_file: Path):
    config_file.write_text(
        '[[host]]\nname = "b"\nuri = "qemu+ssh://root@b/system"\nmigration_address = "192.0.2.7"\n', encoding="utf-8"
    )
    entry = target_entry(Session(), "b")

    request = request_of({**GIVEN, "kind": "quick", "if_stuck": "cancel", "pools": ("fast", "vdb=slow")}, entry)

    assert request.kind is MoveKind.QUICK
    assert request.peer_uri == "qemu+ssh://root@b/system"
    assert request.options.migrate_uri == "tcp://192.0.2.7"
    assert request.options.stuck is Stuck.CANCEL
    assert request.pools == {"": "fast", "vdb": "slow"}
    assert target_entry(Session(), "qemu+ssh://root@b/system").name == "b"


@pytest.mark.parametrize(("text", "wanted_s"), [("5m", 300.0), ("90", 90.0), ("1.5h", 5400.0), ("30s", 30.0)])
def test_a_patience_is_read(text: str, wanted_s: float):
    assert _duration(text) == wanted_s


@pytest.mark.parametrize("text", ["", "m", "-1", "nan", "inf"])
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(UsageError, match="is no time"):
        _duration(text)
