"""libvirt's errors become hvtui's, with a cause, a remedy and an exit code."""

from __future__ import annotations

from threading import Thread

import libvirt
import pytest

from host import errors
from host.errors import Blocked, HvtuiError, UsageError, libvirt_errors, translate
from host.plan import Blocker, Plan


def libvirt_error(code: int, message: str = "it broke", domain: int = libvirt.VIR_FROM_QEMU) -> libvirt.libvirtError:
    error = libvirt.libvirtError("call() failed")
    error.err = (code, domain, message, libvirt.VIR_ERR_ERROR, "", None, None, 0, 0)
    return error


@pytest.mark.parametrize(
    ("code", "message", "kind", "exit_code"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, "no domain", errors.NotFound, 3),
        (libvirt.VIR_ERR_DOM_EXIST, "exists", errors.NameTaken, 4),
        (libvirt.VIR_ERR_OPERATION_FAILED, "domain 'a' already exists with uuid", errors.NameTaken, 4),
        (libvirt.VIR_ERR_OPERATION_FAILED, "something else", HvtuiError, 1),
        (libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running", errors.WrongState, 4),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock", errors.Busy, 4),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, "agent timed out", errors.TimedOut, 7),
        (libvirt.VIR_ERR_OPERATION_DENIED, "read only access", errors.Denied, 5),
        (libvirt.VIR_ERR_AUTH_FAILED, "no", errors.Denied, 5),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Cannot open /x: Permission denied", errors.Denied, 5),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Failed to connect socket to '/run/x'", errors.ConnectionLost, 6),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "No space left on device", HvtuiError, 1),
        (libvirt.VIR_ERR_NO_SUPPORT, "not supported", errors.Unsupported, 8),
        (libvirt.VIR_ERR_XML_ERROR, "bad XML", errors.UsageError, 2),
        (libvirt.VIR_ERR_OPERATION_ABORTED, "aborted", errors.Cancelled, 130),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "odd", HvtuiError, 1),
    ],
)
def test_a_code_becomes_a_kind_with_its_exit_code(
    code: int, message: str, kind: type[HvtuiError], exit_code: int
) -> None:
    error = translate(libvirt_error(code, message), "start", "web-01")

    assert type(error) is kind
    assert error.exit_code == exit_code
    assert str(error).startswith("web-01: cannot start: ")
    assert message in str(error)


def test_a_full_disk_is_something_to_make_room_on() -> None:
    error = translate(libvirt_error(libvirt.VIR_ERR_SYSTEM_ERROR, "cannot write: No space left on device"), "x")

    assert error.remedy == "Make room there"


def test_any_error_of_the_rpc_layer_is_a_lost_connection() -> None:
    error = translate(
        libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed", libvirt.VIR_FROM_RPC), "x"
    )

    assert isinstance(error, errors.ConnectionLost)
    assert error.remedy


def test_a_refusal_by_the_rpc_layer_stays_a_refusal() -> None:
    error = translate(libvirt_error(libvirt.VIR_ERR_AUTH_FAILED, "polkit", libvirt.VIR_FROM_RPC), "connect")

    assert isinstance(error, errors.Denied)


def test_the_message_of_an_error_cannot_control_the_terminal() -> None:
    error = translate(libvirt_error(libvirt.VIR_ERR_NO_DOMAIN, "no domain \x1b[2J" + "x" * 5000), "find", "a\x1bb\nc")

    assert "\x1b" not in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


def test_a_block_translates_what_it_meets_and_keeps_the_cause() -> None:
    with pytest.raises(errors.NotFound) as caught, libvirt_errors("find", "web-01"):
        raise libvirt_error(libvirt.VIR_ERR_NO_DOMAIN)

    assert isinstance(caught.value.__cause__, libvirt.libvirtError)


def test_an_error_without_details_is_told_too() -> None:
    made: list[libvirt.libvirtError] = []
    # On a thread of its own: the constructor takes the thread's last error, which an earlier call may have left.
    thread = Thread(target=lambda: made.append(libvirt.libvirtError("call() failed")))
    thread.start()
    thread.join()
    assert "call() failed" in str(translate(made[0], "start"))


def test_every_exit_code_of_the_tree_is_the_documented_one() -> None:
    tree = errors.__doc__ or ""
    for kind in (each for each in HvtuiError.__subclasses__() if each.__module__ == errors.__name__):
        line = next(line for line in tree.splitlines() if f"── {kind.__name__} " in line)
        assert str(kind.exit_code) in line


def test_a_cause_that_is_a_question_gets_no_second_stop() -> None:
    assert str(errors.UsageError("what should it boot?", remedy="Say it")) == "what should it boot? Say it"
    assert str(errors.UsageError("no memory", remedy="Say it")) == "no memory. Say it"


def test_a_plan_that_only_a_damaged_file_blocks_ends_as_wrong_usage():
    damaged = Blocker("the image is damaged", exit_code=UsageError.exit_code)
    with pytest.raises(UsageError):
        Plan("Add", "test:///default", (), (), blockers=(damaged,)).raise_if_blocked()
    with pytest.raises(Blocked):
        Plan("Add", "test:///default", (), (), blockers=(damaged, Blocker("no room"))).raise_if_blocked()
