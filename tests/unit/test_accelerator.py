"""How the accelerator is chosen: by a person, by capabilities, by obstacles, and by the proof and its cache.

No guest is booted here (tests/real/test_accelerator.py does): the proof's emulator is a script that says what it saw.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from host import accelerator, kvm_proof
from host.accelerator import AcceleratorKind, choose, own_kernels
from host.connection import Host, open_host
from host.errors import ConnectionLost, NotFound, Unsupported, UsageError
from host.kvm_proof import TOKEN, Outcome, try_boot, try_firmware
from tests.support.failing_connection import FailingConnection

KVM, QEMU, TEST = AcceleratorKind.KVM, AcceleratorKind.QEMU, AcceleratorKind.TEST


class Announcing:
    """A connection that announces one kind of guest and counts how often it is asked."""

    def __init__(self, kind: str) -> None:
        self.asked = 0
        self._kind = kind

    def getDomainCapabilities(self, *_: object) -> str:  # noqa: N802  the binding's name
        self.asked += 1
        return f"<domainCapabilities><domain>{self._kind}</domain></domainCapabilities>"


@pytest.fixture(autouse=True)
def no_choice_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HVTUI_ACCEL", raising=False)


@pytest.fixture
def host_announcing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Host]:
    def make(kind: str, uri: str = "qemu:///system") -> Host:
        host = open_host(uri)
        connection = Announcing(kind)
        monkeypatch.setattr(host, "_connection", lambda _role: connection)
        monkeypatch.setattr(host, "asked", lambda: connection.asked, raising=False)
        return host

    return make


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a KVM device, a kernel, and an emulator script that says nothing."""
    for name, text in (("kvm", ""), ("cpuinfo", "flags\t\t: fpu svm\n"), ("boot_id", "first\n")):
        (tmp_path / name).write_text(text)
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-6.1").write_text("kernel")
    monkeypatch.setattr(accelerator, "KVM_DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(accelerator, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(accelerator, "BOOT_ID", tmp_path / "boot_id")
    monkeypatch.setattr(accelerator, "KERNEL_DIRECTORY", tmp_path / "boot")
    monkeypatch.setattr(accelerator, "EMULATORS", (tmp_path / "qemu",))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    emulate(tmp_path, f"echo {TOKEN.decode()}; exec sleep 60")
    return tmp_path


def emulate(machine: Path, script: str) -> None:
    """What the emulator does; each start of it leaves a line in the file `starts`."""
    (machine / "qemu").write_text(f'#!/bin/sh\necho "$@" >> {machine / "starts"}\n{script}\n')
    (machine / "qemu").chmod(0o755)


def starts(machine: Path) -> int:
    file = machine / "starts"
    return len(file.read_text().splitlines()) if file.exists() else 0


# a person's choice


def test_a_simulated_host_simulates_whatever_is_configured(simulated: Host, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HVTUI_ACCEL", "kvm")
    assert choose(simulated, configured="qemu").kind is TEST


def test_the_environment_comes_before_the_configuration(host_announcing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HVTUI_ACCEL", "qemu")
    chosen = choose(host_announcing("kvm"), configured="kvm")
    assert (chosen.kind, chosen.is_proved, chosen.reason) == (QEMU, False, "chosen by HVTUI_ACCEL or the configuration")
    assert chosen.is_emulated


def test_the_configuration_comes_before_the_hosts_own_answer(host_announcing):
    chosen = choose(host_announcing("qemu"), configured="kvm")
    assert (chosen.kind, chosen.reason) == (KVM, "chosen by the configuration")


def test_auto_in_the_environment_overrides_the_configuration(host_announcing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HVTUI_ACCEL", "auto")
    assert choose(host_announcing("kvm", "qemu+ssh://lab2/system"), configured="qemu").kind is KVM


@pytest.mark.parametrize("place", ["environment", "configuration"])
def test_an_unknown_value_is_refused(host_announcing, monkeypatch: pytest.MonkeyPatch, place: str):
    if place == "environment":
        monkeypatch.setenv("HVTUI_ACCEL", "xen")
    with pytest.raises(UsageError, match="is 'xen'"):
        choose(host_announcing("kvm"), configured="auto" if place == "environment" else "xen")


# capabilities


def test_a_remote_host_is_believed_and_never_tried(machine: Path, host_announcing):
    chosen = choose(host_announcing("kvm", "qemu+ssh://lab2/system"))
    assert (chosen.kind, chosen.is_proved, starts(machine)) == (KVM, False, 0)


def test_a_host_that_does_not_announce_kvm_emulates(machine: Path, host_announcing):
    for uri in ("qemu+ssh://lab2/system", "qemu:///system"):
        chosen = choose(host_announcing("qemu", uri))
        assert (chosen.kind, starts(machine)) == (QEMU, 0)
        assert chosen.is_emulated


def test_an_announcement_that_is_known_costs_no_call(host_announcing):
    host = host_announcing("kvm", "qemu+ssh://lab2/system")
    assert choose(host, announces_kvm=False).kind is QEMU
    assert host.asked() == 0


def test_a_driver_without_domain_capabilities_announces_nothing(simulated: Host, monkeypatch: pytest.MonkeyPatch):
    host = open_host("qemu+ssh://lab2/system")
    monkeypatch.setattr(host, "_connection", lambda _role: simulated.connection())
    assert choose(host).kind is QEMU


def test_a_lost_connection_is_an_error(simulated: Host, monkeypatch: pytest.MonkeyPatch):
    host = open_host("qemu+ssh://lab2/system")
    connection = FailingConnection(simulated.connection(), "getDomainCapabilities", domain=libvirt.VIR_FROM_RPC)
    monkeypatch.setattr(host, "_connection", lambda _role: connection)
    with pytest.raises(ConnectionLost):
        choose(host)


# obstacles of this machine


@pytest.mark.parametrize(
    ("flags", "reason", "remedy"),
    [
        ("flags : fpu sse2", "no vmx or svm flag", "nested virtualization"),
        ("flags : fpu vmx", "does not exist", "modprobe kvm_intel"),
        ("flags : fpu svm", "does not exist", "modprobe kvm_amd"),
        ("Features : fp asimd", "does not exist", "modprobe kvm"),
        (None, "does not exist", "modprobe kvm"),
    ],
)
def test_a_machine_without_the_device_says_why_and_what_to_do(
    machine: Path, host_announcing, flags: str | None, reason: str, remedy: str
):
    (machine / "kvm").unlink()
    if flags is None:
        (machine / "cpuinfo").unlink()
    else:
        (machine / "cpuinfo").write_text(flags)
    host = host_announcing("kvm")
    chosen = choose(host)
    assert chosen.kind is QEMU
    assert reason in chosen.reason
    assert remedy in chosen.remedy
    assert (host.asked(), starts(machine)) == (0, 0)


def test_a_user_who_may_not_open_the_device_is_told_for_his_own_session(
    machine: Path, host_announcing, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "access", lambda path, _mode: path != machine / "kvm")
    chosen = choose(host_announcing("kvm", "qemu:///session"))
    assert (chosen.kind, "usermod -aG kvm" in chosen.remedy) == (QEMU, True)


def test_a_user_who_may_not_open_the_device_believes_the_system_daemon(
    machine: Path, host_announcing, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "access", lambda path, _mode: path != machine / "kvm")
    chosen = choose(host_announcing("kvm"))
    assert (chosen.kind, chosen.is_proved, starts(machine)) == (KVM, False, 0)


# the proof


def test_a_guest_that_boots_proves_kvm(machine: Path, host_announcing):
    chosen = choose(host_announcing("kvm"))
    assert (chosen.kind, chosen.is_proved) == (KVM, True)
    assert "-accel kvm" in (machine / "starts").read_text()


def test_a_guest_that_stays_silent_means_emulation(machine: Path, host_announcing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kvm_proof.try_boot, "__kwdefaults__", {"accelerator": "kvm", "limit_s": 0.2})
    emulate(machine, "exec sleep 60")
    chosen = choose(host_announcing("kvm"))
    assert (chosen.kind, chosen.is_proved) == (QEMU, True)
    assert chosen.reason == ("KVM is announced, but a test guest did not boot within 8 s")
    assert "kvm-proof.json" in chosen.remedy


def test_a_guest_that_cannot_start_means_emulation(machine: Path, host_announcing):
    emulate(machine, "exit 1")
    chosen = choose(host_announcing("kvm"))
    assert (chosen.kind, "could not start" in chosen.reason) == (QEMU, True)


def test_the_proof_is_made_once(machine: Path, host_announcing):
    host = host_announcing("kvm")
    first = choose(host)
    assert choose(host) == choose(host, prove=False) == first
    assert (starts(machine), host.asked()) == (1, 1)


def test_threads_that_ask_together_make_one_proof(machine: Path, host_announcing):
    host = host_announcing("kvm")
    threads = [threading.Thread(target=choose, args=(host,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert starts(machine) == 1


@pytest.mark.parametrize("change", ["boot", "emulator", "kernel"])
def test_the_proof_is_made_again_after_a_change(
    machine: Path, host_announcing, monkeypatch: pytest.MonkeyPatch, change: str
):
    host = host_announcing("kvm")
    choose(host)
    if change == "boot":
        (machine / "boot_id").write_text("second")
    elif change == "emulator":
        emulate(machine, f"echo upgraded; echo {TOKEN.decode()}")
    else:
        monkeypatch.setattr("platform.release", lambda: "6.99")
    choose(host)
    assert starts(machine) == 2


def test_reading_never_starts_a_guest(machine: Path, host_announcing):
    chosen = choose(host_announcing("kvm"), prove=False)
    assert (chosen.kind, chosen.is_proved, starts(machine)) == (KVM, False, 0)


def test_a_kernel_that_is_given_is_preferred(machine: Path, host_announcing):
    given = machine / "given-kernel"
    given.write_text("kernel")
    choose(host_announcing("kvm"), kernels=(machine / "none", given))
    assert f"-kernel {given} " in (machine / "starts").read_text()


def test_without_an_emulator_for_the_test_guest_capabilities_are_believed(
    machine: Path, host_announcing, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    chosen = choose(host_announcing("kvm"))
    assert (chosen.kind, chosen.is_proved, starts(machine)) == (KVM, False, 0)


def test_without_a_kernel_firmware_that_fails_proves_that_kvm_does_not_work(machine: Path, host_announcing):
    (machine / "boot/vmlinuz-6.1").unlink()
    emulate(machine, "exit 1")
    chosen = choose(host_announcing("kvm"))
    assert (chosen.kind, chosen.is_proved) == (QEMU, True)
    assert "-kernel" not in (machine / "starts").read_text()


def test_without_a_kernel_firmware_that_runs_proves_nothing_and_is_tried_again_with_one(machine: Path, host_announcing):
    kernel = machine / "boot/vmlinuz-6.1"
    kernel.unlink()
    emulate(machine, f"echo 'SeaBIOS (version 1)'; echo {TOKEN.decode()}; exec sleep 60")
    host = host_announcing("kvm")
    assert (choose(host).kind, choose(host).is_proved) == (KVM, False)
    kernel.write_text("kernel")
    assert choose(host).is_proved


def test_a_proof_that_could_not_be_made_says_nothing_about_kvm(
    machine: Path, host_announcing, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(machine))  # no timeout(1)
    chosen = choose(host_announcing("kvm"))
    assert (chosen.kind, chosen.is_proved) == (KVM, False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": 1}', '{"outcome": "booted", "key": "other"}', "\x00"])
def test_a_cache_that_is_not_ours_is_no_answer(machine: Path, host_announcing, tmp_path: Path, text: str):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "kvm-proof.json").write_text(text)
    assert choose(host_announcing("kvm")).is_proved
    assert starts(machine) == 1


def test_an_unknown_outcome_in_the_cache_is_no_answer(machine: Path, host_announcing, tmp_path: Path):
    choose(host_announcing("kvm"))
    file = tmp_path / "cache/kvm-proof.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "outcome": "exploded"}))
    choose(host_announcing("kvm"))
    assert starts(machine) == 2


def test_a_cache_that_cannot_be_written_only_costs_a_second_proof(
    machine: Path, host_announcing, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    host = host_announcing("kvm")
    monkeypatch.setattr(Path, "write_text", full)
    assert choose(host).is_proved
    assert choose(host).is_proved
    assert starts(machine) == 2


def test_a_machine_without_a_boot_id_has_no_key(machine: Path):
    (machine / "boot_id").unlink()
    assert accelerator._proof_key() == ""


def test_the_newest_kernel_comes_first_and_hvtuis_own_are_found(machine: Path, tmp_path: Path):
    older, newer = machine / "boot/vmlinuz-6.1", machine / "boot/vmlinuz-6.2"
    newer.write_text("kernel")
    own = tmp_path / "cache/tiny/abc/vmlinuz"
    own.parent.mkdir(parents=True)
    own.write_text("kernel")
    gone = machine / "boot/vmlinuz-gone"
    gone.symlink_to("nowhere")
    for age_s, path in ((300, older), (200, own), (100, newer)):
        os.utime(path, (1_000_000 - age_s, 1_000_000 - age_s))
    assert own_kernels() == [newer, own, older, gone]


# host.kvm_proof


def boot_script(tmp_path: Path, script: str, *, limit_s: float = 5.0) -> Outcome:
    emulator = tmp_path / "emulator"
    emulator.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\n{script}\n")
    emulator.chmod(0o755)
    return try_boot(emulator, tmp_path / "kernel", limit_s=limit_s)


def is_alive(tmp_path: Path) -> bool:
    """Whether the emulator lives on; one that was killed takes a moment to be gone."""
    status = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    for _ in range(200):
        try:
            if status.read_text().rpartition(")")[2].split()[0] in "ZX":
                return False
        except OSError:
            return False
        time.sleep(0.01)
    return True


def test_a_token_in_pieces_is_recognised_and_the_emulator_ended(tmp_path: Path):
    half = TOKEN.decode()[:9]
    rest = TOKEN.decode()[9:]
    assert boot_script(tmp_path, f"printf '%s' noise-{half}; sleep 0.2; printf '%s' {rest}; exec sleep 60") == "booted"
    assert not is_alive(tmp_path)


def test_an_emulator_that_says_nothing_is_ended(tmp_path: Path):
    assert boot_script(tmp_path, "trap '' TERM; sleep 60 & wait", limit_s=0.3) is Outcome.SILENT
    assert not is_alive(tmp_path)


def test_an_emulator_that_talks_for_ever_is_ended(tmp_path: Path):
    assert boot_script(tmp_path, "while :; do echo still booting; done", limit_s=0.3) is Outcome.SILENT
    assert not is_alive(tmp_path)


def test_an_emulator_that_ends_is_told_apart(tmp_path: Path):
    assert boot_script(tmp_path, "echo kernel panic; exit 1") is Outcome.ENDED


def test_an_interrupted_proof_ends_the_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        while not (tmp_path / "pid").exists():
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(kvm_proof, "_read_until", interrupted)
    with pytest.raises(KeyboardInterrupt):
        boot_script(tmp_path, "exec sleep 60")
    assert not is_alive(tmp_path)


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="timeout"):
        try_boot(tmp_path / "emulator", tmp_path / "kernel")
    with pytest.raises(NotFound, match="timeout"):
        try_firmware(tmp_path / "emulator")


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Unsupported, match="No space left"):
        try_boot(tmp_path / "emulator", tmp_path / "kernel")


def test_the_test_guests_files_are_a_valid_archive_with_a_runnable_program(tmp_path: Path):
    (tmp_path / "initrd").write_bytes(kvm_proof.initial_file_system())
    with (tmp_path / "initrd").open("rb") as archive:
        listing = subprocess.run(["busybox", "cpio", "-t"], stdin=archive, capture_output=True, check=True).stdout
    assert listing.decode().split() == ["dev", "dev/console", "init"]
    assert kvm_proof.init_program().startswith(b"\x7fELF")
