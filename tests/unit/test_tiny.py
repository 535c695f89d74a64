from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.errors import Cancelled, HvtuiError, NotFound, TimedOut, Unsupported
from vm import tiny, tiny_initramfs, tiny_sources
from vm.tiny_initramfs import NEEDED_MODULES, Entry, archive, modules_in_order, tree
from vm.tiny_sources import Packages, library_paths, run


def module(depends: str = "") -> bytes:
    return b"\x7fELF...\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A /lib/modules/RELEASE: virtio_pci needs virtio-ring, in three kinds of files; virtio_net is built in."""
    root = tmp_path / "modules/6.1"
    (root / "kernel/drivers").mkdir(parents=True)
    (root / "modules.builtin").write_text("kernel/drivers/net/virtio_net.ko\n")
    drivers = root / "kernel/drivers"
    (drivers / "virtio-ring.ko").write_bytes(module())
    (drivers / "virtio_pci.ko.xz").write_bytes(lzma.compress(module("virtio_ring,virtio")))
    (drivers / "virtio.ko.gz").write_bytes(gzip.compress(module("virtio_ring")))
    (drivers / "virtio_blk.ko").write_bytes(module("virtio"))
    (drivers / "virtio_console.ko").write_bytes(b"no dependencies noted")
    (drivers / "virtio-rng.ko").write_bytes(module("virtio"))
    return root


def entries_of(packed: bytes) -> dict[str, tuple[int, bytes]]:
    """Unpacks a newc archive: path to mode and contents."""
    data, found, at = gzip.decompress(packed), {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        start = at + 110 + name_size + (-(110 + name_size) % 4)
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[start : start + size])
        at = start + size + (-size % 4)


def test_modules_come_after_what_they_depend_on_and_built_in_ones_not_at_all(modules):
    names = [name for name, _ in modules_in_order(modules)]
    assert names == ["virtio_ring", "virtio", "virtio_pci", "virtio_blk", "virtio_console", "virtio_rng"]


def test_a_kernel_without_a_needed_module_is_refused(modules):
    (modules / "kernel/drivers/virtio_blk.ko").unlink()
    with pytest.raises(NotFound, match="virtio_blk"):
        modules_in_order(modules)


def test_a_module_in_an_unknown_compression_is_refused(modules):
    (modules / "kernel/drivers/virtio_blk.ko").rename(modules / "kernel/drivers/virtio_blk.ko.zst")
    with pytest.raises(NotFound, match=r"virtio_blk\.ko\.zst"):
        modules_in_order(modules)


def test_the_archive_holds_every_file_once_with_its_parents_before_it():
    packed = archive(
        tree(
            busybox=b"BUSYBOX",
            modules=[("virtio", b"M")],
            agent=b"AGENT",
            libraries={"/lib/x86_64-linux-gnu/libc.so.6": b"C", "/lib64/ld.so": b"LD"},
        )
    )
    found = entries_of(packed)
    assert found["bin/busybox"] == (stat.S_IFREG | 0o755, b"BUSYBOX")
    assert found["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert found["etc/modules-in-order"][1] == b"/lib/modules/virtio.ko\n"
    assert found["lib/x86_64-linux-gnu/libc.so.6"][1] == b"C"
    assert stat.S_ISCHR(found["dev/console"][0])
    assert found["init"][1].startswith(b"#!/bin/busybox sh\n")
    order = list(found)
    for path in order:
        parent = str(Path(path).parent)
        assert parent == "." or order.index(parent) < order.index(path)
    assert tiny_initramfs.READY_MARKER.encode() in found["etc/issue"][1]


def test_a_guest_without_an_agent_has_no_agent():
    assert "usr/sbin/qemu-ga" not in entries_of(archive(tree(busybox=b"", modules=[], agent=None, libraries={})))


def test_the_same_parts_give_the_same_archive_bit_for_bit():
    def build() -> bytes:
        return archive(tree(busybox=b"B", modules=[("a", b"1")], agent=None, libraries={}))

    assert build() == build()


@given(st.dictionaries(st.from_regex(r"[a-z]{1,40}", fullmatch=True), st.binary(max_size=200), max_size=8))
def test_whatever_goes_into_the_archive_comes_out_again(files):
    packed = archive(Entry(name, stat.S_IFREG | 0o644, data) for name, data in files.items())
    assert {name: data for name, (_, data) in entries_of(packed).items()} == files


def test_the_newest_readable_kernel_that_can_drive_the_devices_is_taken(modules, tmp_path):
    boot = tmp_path / "boot"
    boot.mkdir()
    for release in ("6.1", "6.9", "6.10"):
        (boot / f"vmlinuz-{release}").write_bytes(b"kernel")
    shutil.copytree(modules, tmp_path / "modules/6.9")
    (tmp_path / "modules/6.9/modules.builtin").unlink()
    found = tiny_sources.host_kernel(boot, tmp_path / "modules")
    assert found is not None
    assert found.release == "6.1"
    assert [path.name for path in sorted(boot.iterdir(), key=tiny_sources._version_key)][-1] == "vmlinuz-6.10"


def test_a_host_without_a_kernel_has_none(tmp_path):
    assert tiny_sources.host_kernel(tmp_path, tmp_path) is None


def test_a_program_with_a_loader_is_not_static(tmp_path):
    assert not tiny_sources.is_static(Path(sys.executable).resolve())
    assert not tiny_sources.is_static(tmp_path / "missing")
    (tmp_path / "text").write_text("#!/bin/sh\n")
    assert not tiny_sources.is_static(tmp_path / "text")


def test_the_hosts_busybox_is_taken_only_when_it_is_static(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_sources, "host_program", lambda *_: Path(sys.executable).resolve())
    assert tiny_sources.host_busybox() is None


def test_programs_in_sbin_are_found_without_sbin_on_the_path(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert tiny_sources.host_program("no-such-program", "sh") is not None
    assert tiny_sources.host_program("no-such-program") is None


LDD = """\
	linux-vdso.so.1 (0x00007ffe)
	libglib-2.0.so.0 => /lib/x86_64-linux-gnu/libglib-2.0.so.0 (0x00007f)
	/lib64/ld-linux-x86-64.so.2 (0x00007f)
"""


def test_libraries_are_read_from_what_ldd_says():
    assert library_paths(LDD) == ["/lib/x86_64-linux-gnu/libglib-2.0.so.0", "/lib64/ld-linux-x86-64.so.2"]


def test_a_missing_library_is_named():
    with pytest.raises(NotFound, match=r"liburing\.so\.2"):
        library_paths("\tliburing.so.2 => not found\n")


def test_a_command_that_fails_says_its_last_words_harmlessly():
    with pytest.raises(HvtuiError, match=r"sh failed: no\\e\[31m luck"):
        run(["sh", "-c", "printf 'no\\033[31m luck\\n' >&2; exit 3"])
    with pytest.raises(HvtuiError, match="exit code 3"):
        run(["sh", "-c", "exit 3"])


def test_a_command_that_is_not_there_is_unsupported():
    with pytest.raises(Unsupported, match="no-such-program"):
        run(["no-such-program"])


def test_a_command_that_takes_too_long_is_ended():
    with pytest.raises(TimedOut):
        run(["sleep", "60"], timeout_s=0.1)


def test_a_command_is_ended_when_the_user_cancels():
    ticks = []
    with pytest.raises(Cancelled):
        run(["sleep", "60"], is_cancelled=lambda: len(ticks) > 1, tick=lambda: ticks.append(1))


@pytest.fixture
def fake_tools(tmp_path, monkeypatch):
    """apt-get, apt-cache and dpkg-deb as small scripts; a file `lists-are-old` makes the first attempts fail."""
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    scripts = {
        "apt-get": """
case "$*" in
    *update*) rm -f "$FAKE/lists-are-old"; echo fetched >> "$FAKE/log" ;;
    *--print-uris*) [ -e "$FAKE/lists-are-old" ] && { echo 'E: no candidate' >&2; exit 100; }
        echo "'http://example.org/p.deb' p_1_amd64.deb 1000 SHA256:0" ;;
    *download*) [ -e "$FAKE/empty" ] || echo deb > p_1_amd64.deb; sleep 0.7 ;;
esac
""",
        "apt-cache": """
case "$*" in
    *depends*) [ -e "$FAKE/alone" ] || printf 'p\\n  Depends: <virtual>\\n  Depends: real-kernel\\n' ;;
    *show*) [ -e "$FAKE/unknown" ] && exit 100; printf 'Package: p\\nVersion: 1.2-3\\n' ;;
esac
""",
        "dpkg-deb": 'mkdir -p "$3/usr/bin"; cp "$FAKE/bin/apt-get" "$3/usr/bin/busybox"\n',
    }
    for name, text in scripts.items():
        (bin_directory / name).write_text("#!/bin/sh\n" + text)
        (bin_directory / name).chmod(0o755)
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{bin_directory}:{os.environ['PATH']}")
    return tmp_path


def packages_in(directory: Path, notes: list[object]) -> Packages:
    directory.mkdir(exist_ok=True)
    return Packages(directory, lambda fraction, note: notes.append((fraction, note)), lambda: False)


def test_a_package_is_downloaded_with_progress_and_unpacked_once(fake_tools):
    notes: list[object] = []
    packages = packages_in(fake_tools / "work", notes)
    root = packages.unpack("some-package")
    assert (root / "usr/bin/busybox").exists()
    assert (0.004, "downloading some-package") in notes
    notes.clear()
    assert packages.unpack("some-package") == root
    assert not notes


def test_old_package_lists_are_fetched_anew_into_a_directory_of_ones_own(fake_tools):
    (fake_tools / "lists-are-old").touch()
    packages_in(fake_tools / "work", []).unpack("some-package")
    assert (fake_tools / "work/lists/partial").is_dir()
    assert (fake_tools / "log").read_text() == "fetched\n"


def test_what_is_not_in_fresh_lists_either_is_an_error(fake_tools):
    (fake_tools / "empty").touch()
    with pytest.raises(NotFound, match="downloaded nothing"):
        packages_in(fake_tools / "work", []).unpack("some-package")


def test_a_metapackage_names_the_real_one(fake_tools):
    packages = packages_in(fake_tools / "work", [])
    assert packages.dependency("linux-image-cloud-amd64") == "real-kernel"
    (fake_tools / "alone").touch()
    with pytest.raises(NotFound, match="depends on nothing"):
        packages.dependency("linux-image-cloud-amd64")


def test_the_version_of_an_unknown_package_is_empty(fake_tools):
    assert tiny_sources.package_version("p") == "1.2-3"
    (fake_tools / "unknown").touch()
    assert tiny_sources.package_version("p") == ""


def test_a_busybox_package_without_a_static_busybox_is_refused(fake_tools, monkeypatch):
    monkeypatch.setattr(tiny_sources, "host_busybox", lambda: None)
    with pytest.raises(NotFound, match="no static busybox"):
        tiny_sources.find_busybox(packages_in(fake_tools / "work", []))
    monkeypatch.setattr(tiny_sources, "is_static", lambda _path: True)
    found = tiny_sources.find_busybox(packages_in(fake_tools / "other", []))
    assert found.name == "busybox"


def test_a_kernel_package_without_the_modules_is_refused(fake_tools, monkeypatch):
    monkeypatch.setattr(tiny_sources, "host_kernel", lambda *_: None)
    with pytest.raises(NotFound, match="no kernel with the modules"):
        tiny_sources.find_kernel(packages_in(fake_tools / "work", []))


@pytest.fixture
def parts(modules, tmp_path, monkeypatch):
    """A host with a kernel, a busybox and an agent of its own."""
    image = tmp_path / "vmlinuz-6.1"
    image.write_bytes(b"KERNEL")
    kernel = tiny_sources.Kernel(image, modules, "6.1")
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"BUSYBOX")
    monkeypatch.setattr(tiny_sources, "host_kernel", lambda *_: kernel)
    monkeypatch.setattr(tiny_sources, "host_busybox", lambda: busybox)
    monkeypatch.setattr(tiny_sources, "find_agent", lambda _packages: tiny_sources.Agent(b"AGENT", {}))
    return image


def test_the_guest_is_built_once_from_the_hosts_own_parts(parts):
    notes: list[object] = []
    guest = tiny.build(lambda fraction, note: notes.append((fraction, note)))
    assert guest.kernel.read_bytes() == b"KERNEL"
    assert guest.has_agent
    assert entries_of(guest.initrd.read_bytes())["usr/sbin/qemu-ga"][1] == b"AGENT"
    assert notes[-1] == (1.0, "built from Linux 6.1")
    notes.clear()
    assert tiny.build(lambda fraction, note: notes.append((fraction, note))) == guest
    assert not notes
    assert tiny.identity() == guest.key


def test_another_kernel_makes_another_guest(parts, monkeypatch):
    first = tiny.build()
    parts.write_bytes(b"ANOTHER KERNEL")
    assert tiny.build().key != first.key


def test_without_an_agent_the_guest_is_built_and_says_so(parts, monkeypatch):
    def missing(_packages):
        raise NotFound("this host lacks the library liburing.so.2")

    monkeypatch.setattr(tiny_sources, "find_agent", missing)
    guest = tiny.build()
    assert not guest.has_agent
    assert "liburing" in guest.note
    assert tiny.find(guest.key) == guest


def test_a_build_that_was_killed_leaves_nothing_that_looks_finished(parts):
    key = tiny.identity()
    left = Path(os.environ["HVTUI_CACHE_DIR"]) / "tiny" / ".work-99999"
    (left / "result").mkdir(parents=True)
    assert tiny.find(key) is None
    tiny.build()
    assert not left.exists()


def test_a_cancelled_build_leaves_nothing(parts):
    with pytest.raises(Cancelled):
        tiny.build(is_cancelled=lambda: True)
    assert [path.name for path in (Path(os.environ["HVTUI_CACHE_DIR"]) / "tiny").iterdir()] == [".lock"]


def test_a_cancel_during_the_agents_download_is_no_missing_agent(parts, monkeypatch):
    def cancelled(_packages):
        raise Cancelled("cancelled by the user")

    monkeypatch.setattr(tiny_sources, "find_agent", cancelled)
    with pytest.raises(Cancelled):
        tiny.build()


def test_a_full_file_system_is_said_with_a_remedy(parts, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device", "/cache/initrd")

    monkeypatch.setattr(tiny_initramfs, "archive", full)
    with pytest.raises(HvtuiError, match="No space left") as caught:
        tiny.build()
    assert "HVTUI_CACHE_DIR" in caught.value.remedy


def test_without_a_kernel_of_ones_own_a_guest_built_before_is_good_enough(parts, monkeypatch):
    built = tiny.build()
    monkeypatch.setattr(tiny_sources, "host_kernel", lambda *_: None)
    assert tiny.identity() == built.key
    shutil.rmtree(built.kernel.parent)
    monkeypatch.setattr(tiny_sources, "package_version", lambda _package: "6.1.1")
    first = tiny.identity()
    monkeypatch.setattr(tiny_sources, "package_version", lambda _package: "6.1.2")
    assert tiny.identity() != first


def test_what_stands_in_the_way_is_said(monkeypatch):
    assert "aarch64" in tiny.obstacle("aarch64")
    monkeypatch.setattr(tiny_sources, "host_kernel", lambda *_: None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert "no apt-get" in tiny.obstacle("x86_64")
    monkeypatch.setattr(shutil, "which", lambda _name: "/usr/bin/apt-get")
    assert tiny.obstacle("x86_64") == ""
    monkeypatch.setattr(tiny.platform, "machine", lambda: "riscv64")
    assert "riscv64" in tiny.obstacle("x86_64")


@pytest.mark.parametrize(
    ("name", "has_host_name"), [("web-01", True), ("日本", False), ("a b", False), ("x" * 64, False)]
)
def test_the_guest_is_called_as_the_vm_where_that_can_be_a_host_name(name, has_host_name):
    assert (f"tiny.hostname={name}" in tiny.kernel_arguments(name)) == has_host_name


def test_the_needed_modules_are_what_the_xml_gives_the_guest():
    assert {"virtio_pci", "virtio_blk", "virtio_net", "virtio_console"} == set(NEEDED_MODULES)


def test_a_guest_does_not_test_its_timer_which_a_busy_host_may_let_fail():
    assert "no_timer_check" in tiny.kernel_arguments("web").split()
