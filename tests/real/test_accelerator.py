"""The proof of KVM with a real kernel and a real QEMU, and facts of a real libvirtd."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest

from host import accelerator
from host.accelerator import AcceleratorKind, choose
from host.connection import Host
from host.facts import read_defaults, read_facts
from host.kvm_proof import Outcome, try_boot, try_firmware
from vm import tiny

EMULATOR = Path("/usr/bin/qemu-system-x86_64")


@pytest.fixture(scope="module")
def kernel(tiny_guest: tiny.TinyGuest) -> Path:
    """A stock kernel of the distribution."""
    return tiny_guest.kernel


def emulators_running(directory: Path) -> set[str]:
    """The test guests whose files are there: other tests may be running theirs."""
    found = subprocess.run(["pgrep", "-f", f"{directory}/hvtui-proof-"], capture_output=True, text=True, check=False)
    return set(found.stdout.split())


def test_a_stock_kernel_boots_the_test_guest(kernel: Path):
    assert try_boot(EMULATOR, kernel, accelerator="tcg", limit_s=60) is Outcome.BOOTED


def test_firmware_alone_says_its_first_word():
    assert try_firmware(EMULATOR, accelerator="tcg", limit_s=60) is Outcome.BOOTED


def test_a_kernel_that_panics_or_does_not_load_does_not_count_as_booted(tmp_path: Path):
    (tmp_path / "kernel").write_bytes(b"\0" * 4096)
    assert try_boot(EMULATOR, tmp_path / "kernel", accelerator="tcg", limit_s=5) is not Outcome.BOOTED


def test_the_proof_of_this_machine_agrees_with_the_choice_and_leaves_no_emulator(
    kernel: Path, real_host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whatever this machine can: a guest that boots means KVM, any other means emulation, and nothing runs on."""
    monkeypatch.setenv("HVTUI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HVTUI_ACCEL", "auto")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    chosen = choose(real_host, kernels=(kernel,))
    assert emulators_running(tmp_path) == set()
    if not chosen.is_proved:
        assert "KVM" in chosen.reason or str(accelerator.KVM_DEVICE) in chosen.reason or "CPU" in chosen.reason
        return
    again = try_boot(EMULATOR, kernel)
    assert chosen.kind is (AcceleratorKind.KVM if again is Outcome.BOOTED else AcceleratorKind.QEMU)
    assert choose(real_host, prove=False) == chosen


def test_a_real_libvirtd_tells_what_guests_can_have(real_host: Host):
    facts = read_facts(real_host)
    assert (facts.driver, facts.accelerator) == ("QEMU", "qemu")
    assert facts.default_machine in facts.machine_types
    assert facts.default_machine.startswith("pc-q35-")
    assert {"bios", "uefi"} <= set(facts.firmware)
    assert "tpm-crb" in facts.tpm_models
    assert facts.memory_bytes > 2**30


def test_a_guest_of_a_real_libvirtd_can_be_made_from_its_defaults(real_host: Host):
    defaults = read_defaults(real_host)
    xml = f"""<domain type='{defaults.virtualization}'><name>from-defaults</name><memory unit='MiB'>64</memory>
      <os><type arch='{defaults.architecture}' machine='{defaults.machine}'>hvm</type></os>
      <cpu mode='{defaults.cpu_mode}'/><devices><emulator>{defaults.emulator}</emulator></devices></domain>"""
    with real_host.calls("start a guest") as connection:
        guest = connection.createXML(xml)
        assert guest.isActive()
        guest.destroy()
