"""The recipes: what goes into their guests, the disk, the tools that build it, and what a failed build leaves.

mmdebstrap and apt are played by small programs; the disk is made by the real tools.
"""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import textwrap
import time
from dataclasses import fields
from pathlib import Path

import pytest

from host.errors import Cancelled, HvtuiError, NotFound, Unsupported
from host.image_kinds import ImageKind, recognise
from vm import recipe_debian, recipe_debian_disk, recipe_debian_files, recipe_debian_sources, recipe_process, recipes
from vm.create_request import Firmware
from vm.recipe_debian_files import GuestFile, archive, final_files
from vm.recipe_debian_progress import Teller
from vm.recipes import RECIPES
from vm.template_model import ImageRole, Readiness, Template

UUID = "6b2f6f0e-7e0b-4d41-9a57-0123456789ab"
OS_RELEASE = 'NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
APT_ROWS = (
    ("Debian", "http://mirror.example/debian/", "bookworm", "main", "amd64", "Packages"),
    ("Debian", "http://mirror.example/debian/", "bookworm", "contrib", "amd64", "Packages"),
    ("Debian", "http://anna:secret@mirror.example/debian/", "bookworm-updates", "main", "amd64", "Packages"),
    ("Debian", "http://mirror.example/debian/", "bookworm", "main", "amd64", "Translations"),
    ("Debian", "http://mirror.example/debian/", "trixie", "main", "amd64", "Packages"),
    ("Other", "http://other.example/apt/", "bookworm", "main", "amd64", "Packages"),
    ("Debian", "http://mirror.example/debian/", "bookworm", "main", "i386", "Packages"),
)


def program(path: Path, text: str) -> None:
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian 12 with apt lists and an mmdebstrap that makes a system of a few files at once."""
    directory = tmp_path / "bin"
    directory.mkdir()
    rows = "\n".join("\t".join(row) for row in APT_ROWS)
    program(directory / "apt-get", f"print({rows!r})")
    program(directory / "apt-cache", "print('Package: cloud-init\\nVersion: 22.4.2-1\\n')")
    with tarfile.open(directory / "system.tar", "w") as tar:
        for path, text in SYSTEM.items():
            entry = tarfile.TarInfo(f"./{path}")
            entry.size, entry.mode, entry.uid = len(text), 0o644, 0
            tar.addfile(entry, io.BytesIO(text.encode()))
    program(
        directory / "mmdebstrap",
        """
        import os, pathlib, sys
        here = pathlib.Path(__file__).parent
        (here / "arguments").write_text("\\n".join(sys.argv))
        (here / "sources").write_text(pathlib.Path(sys.argv[-1]).read_text())
        with (here / "runs").open("a") as runs:
            runs.write("x")
        for line in ("I: running apt-get update...", "I: installing remaining packages", "Setting up cloud-init"):
            print(line, file=sys.stderr, flush=True)
        if os.environ.get("FAKE_FAILURE"):
            sys.exit("E: " + os.environ["FAKE_FAILURE"])
        sys.stdout.buffer.write((here / "system.tar").read_bytes())
        """,
    )
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    release = tmp_path / "os-release"
    release.write_text(OS_RELEASE)
    monkeypatch.setattr(recipe_debian_sources, "_OS_RELEASE", release)
    monkeypatch.setattr(recipe_debian_sources, "may_be_root", lambda: ())
    monkeypatch.setattr(recipe_process, "_ISOLATED", recipe_process.WITH_US)  # a user may not have namespaces
    return directory


SYSTEM = {
    "bin/true": "a program",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/hostname": "builder\n",
    "etc/ssh/ssh_host_ed25519_key": "a private key",
    "etc/ssh/sshd_config": "PermitRootLogin no\n",
    "dev/null": "not a device here",
    "var/log/dpkg.log": "a log",
    "var/lib/apt/lists/mirror.example_Packages": "a list",
    "var/lib/dpkg/status": "Package: cloud-init\nStatus: install ok\nVersion: 22.4.2-1\n\nPackage: x\nVersion: 1\n",
}


def no_progress(_fraction: float | None, _words: str) -> None:
    pass


def left_in_cache(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache/debian").iterdir())


def read_in_disk(image: Path, directory: Path, *commands: str) -> list[str]:
    """What debugfs says of the disk's file system."""
    raw, part = directory / "disk.raw", directory / "partition"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
    subprocess.run(
        ["dd", f"if={raw}", f"of={part}", "bs=1M", "skip=1", "conv=sparse", "status=none"], check=True, timeout=60
    )
    told = []
    for command in commands:
        done = subprocess.run(["debugfs", "-R", command, part], check=True, capture_output=True, text=True)
        told.append(done.stdout)
    return told


# The disk


def test_the_first_sectors_hold_a_boot_loader_and_one_partition():
    head = recipe_debian_disk.first_sectors(b"\xeb" * 440, b"\x52" * 1000, 0x12345678)
    assert head[:440] == b"\xeb" * 440
    assert head[440:444] == bytes.fromhex("78563412")
    assert head[510:512] == b"\x55\xaa"
    entry = head[446:462]
    assert (entry[0], entry[4]) == (0x80, 0x83)
    start, sectors = int.from_bytes(entry[8:12], "little"), int.from_bytes(entry[12:16], "little")
    assert start * 512 == recipe_debian_disk.PARTITION_START_BYTES
    assert (start + sectors) * 512 == recipe_debian_disk.DISK_BYTES
    assert head[462:510] == b"\0" * 48
    assert head[512:] == b"\x52" * 1000


def test_a_boot_loader_that_would_lie_over_the_partition_is_refused():
    with pytest.raises(HvtuiError, match="does not fit"):
        recipe_debian_disk.first_sectors(b"", b"\0" * recipe_debian_disk.PARTITION_START_BYTES, 1)


def test_the_boot_loader_says_itself_that_it_goes_on_in_the_next_sector(tmp_path: Path):
    """What lets the core be written without an installer: its list of blocks is right as grub-mkimage makes it."""
    core = tmp_path / "core.img"
    command = ["grub-mkimage", "-O", "i386-pc", "-p", "(hd0)", "-o", core, "--", "biosdisk", "normal"]
    subprocess.run(command, check=True)
    first = core.read_bytes()[:512]
    assert int.from_bytes(first[500:508], "little") == 2
    boot = (recipe_debian_disk.GRUB_DIRECTORY / "boot.img").read_bytes()
    assert int.from_bytes(boot[0x5C:0x64], "little") == 1


# The files


def test_the_archive_holds_the_files_as_roots_with_the_directories_before_them():
    files = {"a/b/run": GuestFile("#!/bin/sh\n", is_program=True), "a/l": GuestFile(link="/dev/null")}
    with tarfile.open(fileobj=io.BytesIO(archive(files))) as tar:
        members = tar.getmembers()
    assert [(each.name, each.mode, each.type) for each in members] == [
        ("a", 0o755, tarfile.DIRTYPE),
        ("a/b", 0o755, tarfile.DIRTYPE),
        ("a/b/run", 0o755, tarfile.REGTYPE),
        ("a/l", 0o777, tarfile.SYMTYPE),
    ]
    assert {(each.uid, each.gid, each.mtime) for each in members} == {(0, 0, 0)}


def test_the_menu_and_the_table_of_file_systems_name_the_same_file_system():
    files = final_files(title="Debian 12", uuid=UUID, stages=True)
    assert files["boot/grub/grub.cfg"].text.count(f"root=UUID={UUID}") == 3
    assert files["etc/fstab"].text.startswith(f"UUID={UUID} / ")


def test_a_cloud_init_that_loads_itself_once_is_left_alone():
    plain = final_files(title="", uuid=UUID, stages=False)
    assert not [path for path in plain if "stages" in path]
    assert [path for path in final_files(title="", uuid=UUID, stages=True) if "stages" in path]


def test_the_settings_of_cloud_init_are_yaml_and_know_no_other_cloud():
    import yaml

    settings = yaml.safe_load(final_files(title="", uuid=UUID, stages=True)["etc/cloud/cloud.cfg.d/90_vm.cfg"].text)
    assert settings["datasource_list"] == ["NoCloud", "None"]
    assert settings["manual_cache_clean"] is True
    assert settings["growpart"] == {"mode": "off"}


def test_the_scripts_for_the_guest_are_programs(tmp_path: Path):
    for path, file in final_files(title="", uuid=UUID, stages=True).items():
        if not file.is_program:
            continue
        if "python" in file.text.splitlines()[0]:
            compile(file.text, path, "exec")
        else:
            subprocess.run(["sh", "-n"], input=file.text, text=True, check=True)


# The stages of cloud-init


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two scripts with their pipes here, and a cloud-init that notes what it is told and fails in `config`."""
    package = tmp_path / "cloudinit/cmd"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    code = """
    import os
    def main(words):
        with open({log!r}, "a") as log:
            log.write(f"{{os.getppid()}} {{' '.join(words)}}\\n")
        return 3 if "--mode=config" in words else None
    """
    (package / "main.py").write_text(textwrap.dedent(code.format(log=str(tmp_path / "log"))))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    files = recipe_debian_files.final_files(title="", uuid=UUID, stages=True)
    for name in ("serve", "stage"):
        text = files[f"usr/local/lib/cloud-init-stages/{name}"].text
        text = text.replace("/run/cloud-init-stages", str(tmp_path / "pipes"))
        text = text.replace("/run/cloud-init", str(tmp_path / "run")).replace(
            "#!/usr/bin/python3", f"#!{sys.executable}"
        )
        (tmp_path / name).write_text(text.replace("/usr/bin/cloud-init", str(tmp_path / "cloud-init")))
        (tmp_path / name).chmod(0o755)
    program(tmp_path / "cloud-init", f"open({str(tmp_path / 'log')!r}, 'a').write('alone\\n')")
    return tmp_path


def stage(directory: Path, *words: str) -> int:
    return subprocess.run([directory / "stage", *words], check=False, timeout=30).returncode


def test_the_stages_run_as_children_of_one_process_and_their_exit_codes_come_back(stages: Path):
    (stages / "pipes").mkdir()
    server = subprocess.Popen([stages / "serve"])
    try:
        deadline = time.monotonic() + 30
        while not (stages / "pipes/final.answer").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert stage(stages, "local", "init", "--local") == 0
        assert stage(stages, "network", "init") == 0
        assert stage(stages, "config", "modules", "--mode=config") == 3
        assert stage(stages, "final", "modules", "--mode=final") == 0
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
    assert (stages / "log").read_text().splitlines() == [
        f"{server.pid} cloud-init init --local",
        f"{server.pid} cloud-init init",
        f"{server.pid} cloud-init modules --mode=config",
        f"{server.pid} cloud-init modules --mode=final",
    ]
    assert not (stages / "pipes").exists()
    assert (stages / "run/enabled").exists()


def test_without_that_process_a_stage_runs_cloud_init_itself(stages: Path):
    assert stage(stages, "local", "init", "--local") == 0
    assert (stages / "log").read_text() == "alone\n"


# Sources and progress


def test_the_sources_are_the_machines_own_without_passwords_and_without_others(tools: Path):
    found = recipe_debian_sources.release()
    lines = recipe_debian_sources.sources(found).splitlines()
    assert [line.partition("] ")[2] for line in lines] == [
        "http://mirror.example/debian/ bookworm main contrib",
        "http://mirror.example/debian/ bookworm-updates main",
    ]
    assert all(line.startswith("deb [arch=amd64") for line in lines)
    assert "secret" not in "".join(lines)


def test_a_machine_without_sources_of_its_release_is_told_where_to_name_one(tools: Path):
    program(tools / "apt-get", "")
    with pytest.raises(NotFound, match=r"sources\.list"):
        recipe_debian_sources.sources(recipe_debian_sources.release())


def test_progress_only_grows_and_counts_packages():
    told: list[tuple[float | None, str]] = []
    teller = Teller(lambda fraction, words: told.append((fraction, words)))
    for line in (
        "I: running apt-get update...",
        "Get:1 http://mirror.example bookworm InRelease",
        "I: installing remaining packages inside the chroot...",
        "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
        *("Get:1 http://mirror.example a", "Get:2 http://mirror.example b", "Unpacking a", "Unpacking b"),
        *("Setting up a", "Setting up b", "Setting up more than was said"),
        "I: running apt-get update...",
    ):
        teller.hear(line)
    fractions = [fraction for fraction, _ in told if fraction is not None]
    assert fractions == sorted(fractions)
    assert told[1] == (0.28, "installing the system")
    assert fractions[-2] == pytest.approx(0.78)


# Running tools


def test_a_tool_that_fails_says_its_last_words_harmlessly():
    script = "import sys; print('I: fine', file=sys.stderr); sys.exit('E: no \\x1b[31mroom')"
    with pytest.raises(HvtuiError, match=r"failed: E: no \\e\[31mroom"):
        recipe_process.run([sys.executable, "-c", script])


def test_a_tool_that_is_not_there_is_unsupported():
    with pytest.raises(Unsupported, match="no-such-tool is not installed"):
        recipe_process.run(["no-such-tool"])


def test_one_tools_output_goes_into_another_and_each_failure_counts(tmp_path: Path):
    target = tmp_path / "copy"
    write = ["sh", "-c", "echo words; echo heard >&2"]
    heard: list[str] = []
    recipe_process.run(write, into=["dd", f"of={target}", "status=none"], on_line=heard.append)
    assert target.read_text() == "words\n"
    assert heard == ["heard"]
    with pytest.raises(HvtuiError, match="false failed"):
        recipe_process.run(["false"], into=["cat"])
    with pytest.raises(HvtuiError, match="false failed"):
        recipe_process.run(["true"], into=["false"])


def test_a_cancel_ends_the_tool_and_what_it_started(tmp_path: Path):
    pid_file = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {pid_file}; echo started >&2; wait"
    heard: list[str] = []
    with pytest.raises(Cancelled):
        recipe_process.run(["sh", "-c", script], on_line=heard.append, is_cancelled=lambda: bool(heard))
    assert is_gone(int(pid_file.read_text()))


def test_a_tool_ends_when_the_process_that_started_it_is_killed(tmp_path: Path):
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; exec sleep 600"
    code = f"from vm import recipe_process; recipe_process.run(['sh', '-c', {script!r}])"
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert is_gone(int(pid_file.read_text()))


def is_gone(pid: int) -> bool:
    """Wait until there is no such process, or only what its parent has not noticed yet."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


# Building


def test_an_image_is_built_once_and_holds_nothing_of_the_machine_that_built_it(tools: Path, tmp_path: Path):
    told: list[str] = []
    built = recipe_debian.build(lambda _fraction, words: told.append(words))
    again = recipe_debian.build(no_progress)
    assert built == again
    assert (tools / "runs").read_text() == "x"
    assert recognise(built.path) is ImageKind.QCOW2
    assert (built.title, built.version) == ("Debian 12", "12")
    assert "cloud-init 22.4.2-1" in built.origin
    assert told[-1] == "built from Debian 12"
    assert "installing the system" in told
    assert left_in_cache(tmp_path) == [".lock", built.key]
    assert "mirror.example" in (tools / "sources").read_text()
    assert "mirror.example" not in (tools / "arguments").read_text()
    ssh, identity, hostname, device, log, menu = read_in_disk(
        built.path, tmp_path, "ls -p /etc/ssh", "stat /etc/machine-id", "cat /etc/hostname", "ls -p /dev",
        "ls -p /var/log", "cat /boot/grub/grub.cfg",
    )  # fmt: skip
    assert "sshd_config" in ssh
    assert "ssh_host" not in ssh
    assert "Size: 0" in identity
    assert hostname == "localhost\n"
    assert "null" not in device
    assert "dpkg.log" not in log
    assert "root=UUID=" in menu


def test_newer_packages_make_a_new_image_and_no_lists_make_none(tools: Path):
    before = recipe_debian.build(no_progress)
    program(tools / "apt-cache", "print('Package: cloud-init\\nVersion: 22.4.2-2\\n')")
    assert recipe_debian.identity() != before.key
    program(tools / "apt-cache", "raise SystemExit(100)")
    assert recipe_debian.identity() == before.key


def test_another_recipe_makes_another_image(tools: Path, monkeypatch: pytest.MonkeyPatch):
    before = recipe_debian.identity()
    monkeypatch.setattr(recipe_debian, "PACKAGES", ("linux-image-cloud-amd64",))
    assert recipe_debian.identity() != before


def test_a_build_that_failed_says_why_and_leaves_nothing(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAKE_FAILURE", "Unable to locate package cloud-init")
    with pytest.raises(HvtuiError, match="Unable to locate package cloud-init"):
        recipe_debian.build(no_progress)
    assert left_in_cache(tmp_path) == [".lock"]


def test_a_build_that_was_killed_leaves_nothing_that_looks_finished(tools: Path, tmp_path: Path):
    key = recipe_debian.identity()
    half = tmp_path / "cache/debian/.work-1/result"
    half.mkdir(parents=True)
    (half / "disk.qcow2").write_bytes(b"QFI\xfb")
    assert recipe_debian.find(key) is None
    recipe_debian.build(no_progress)
    assert left_in_cache(tmp_path) == [".lock", key]


def test_a_cancelled_build_leaves_nothing(tools: Path, tmp_path: Path):
    with pytest.raises(Cancelled):
        recipe_debian.build(no_progress, is_cancelled=lambda: True)
    assert left_in_cache(tmp_path) == [".lock"]


def test_who_waits_for_another_builder_can_cancel(tools: Path, tmp_path: Path):
    import fcntl

    directory = tmp_path / "cache/debian"
    directory.mkdir(parents=True)
    told: list[str] = []
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Cancelled):
            recipe_debian.build(lambda _fraction, words: told.append(words), is_cancelled=lambda: bool(told))
    assert "waiting for another process" in told[0]


def test_a_full_file_system_is_said_with_a_remedy(tools: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recipe_debian, "_lay_over", full)
    with pytest.raises(HvtuiError, match=r"No space left.*HVTUI_CACHE_DIR"):
        recipe_debian.build(no_progress)


def test_what_stands_in_the_way_is_said_with_its_remedy(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert recipes.obstacle(RECIPES["debian"]) == ""
    monkeypatch.setattr(recipe_debian_sources, "may_be_root", lambda: None)
    assert "root" in recipes.obstacle(RECIPES["debian"])
    monkeypatch.setattr(recipe_process, "path_with_tools", lambda: str(tools))
    monkeypatch.setattr(recipe_debian, "path_with_tools", lambda: str(tools))
    assert "apt-get install e2fsprogs" in recipes.obstacle(RECIPES["debian"])
    (tmp_path / "os-release").write_text("NAME=Fedora\nID=fedora\nVERSION_ID=40\n")
    assert "Fedora 40" in recipes.obstacle(RECIPES["debian"])


# What templates take


def test_what_recipes_say_are_values_of_a_templates_fields(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kernel = tmp_path / "vmlinuz"
    kernel.touch()
    guest = recipes_guest(kernel)
    monkeypatch.setattr("vm.tiny.build", lambda *_words, **_named: guest)
    known = {field.name for field in fields(Template)}
    for name, recipe in RECIPES.items():
        directory = tmp_path / f"work-{name}"
        directory.mkdir()
        built = recipes.build(recipe, directory)
        assert {file.role for file in built.files} == set(recipe.roles)
        assert all(file.path.exists() and file.format in ("qcow2", "raw") for file in built.files)
        assert set(built.facts) <= known
        Firmware(built.facts["firmware"])
        Readiness(built.facts["readiness"])
        assert built.facts["takes_seed"] is (name == "debian")


def recipes_guest(kernel: Path):
    from vm.tiny import TinyGuest

    return TinyGuest("0123-4567", kernel, kernel, has_agent=True)


def test_the_tiny_template_has_a_small_disk_and_takes_its_name_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from vm.deploy_xml import kernel_arguments

    kernel = tmp_path / "vmlinuz"
    kernel.touch()
    monkeypatch.setattr("vm.tiny.build", lambda *_words, **_named: recipes_guest(kernel))
    built = recipes.build(RECIPES["tiny"], tmp_path)
    disk = next(file.path for file in built.files if file.role is ImageRole.DISK)
    assert recognise(disk) is ImageKind.QCOW2
    assert disk.stat().st_size < 1024**2
    assert stat.S_ISREG(disk.stat().st_mode)
    arguments = kernel_arguments(str(built.facts["kernel_arguments"]), "web-01")
    assert arguments.split()[-1] == "tiny.hostname=web-01"
