"""The manifest of a bundle: written, read back, and refused when no export would have written it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from host.errors import NotFound, UsageError
from vm import bundle
from vm.bundle import MANIFEST, Bundle, BundleFile, Role

UUID = "11111111-2222-3333-4444-555555555555"
DIGEST = "0" * 64
FILES = (
    BundleFile(Role.DOMAIN, "domain.xml", 3, DIGEST),
    BundleFile(Role.DISK, "vda.qcow2", 5, DIGEST, "vda", "qcow2", 1024),
    BundleFile(Role.TPM, "tpm2-00.permall", 5, DIGEST, "tpm2/tpm2-00.permall"),
)
BUNDLE = Bundle("web", UUID, "pc-q35-7.2", "x86_64", "kvm", FILES, left_out={"sda": "/x.iso, a medium in a drive"})


def write(directory: Path, **changes: Any) -> Path:
    """A bundle's directory, its manifest changed: an entry of `files` by its name, anything else by its key."""
    document = json.loads(bundle.to_json(BUNDLE))
    for key, value in changes.items():
        if key == "disk":
            document["files"][1] |= value
        elif key == "vm":
            document["vm"] |= value
        else:
            document[key] = value
    (directory / MANIFEST).write_text(json.dumps(document))
    return directory


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    assert bundle.read(write(tmp_path)) == Bundle(
        "web", UUID, "pc-q35-7.2", "x86_64", "kvm", FILES, left_out=BUNDLE.left_out, directory=tmp_path
    )


def test_a_directory_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=MANIFEST):
        bundle.read(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": "1"},
        {"disk": {"name": "../../etc/shadow"}},
        {"disk": {"name": "/etc/shadow"}},
        {"disk": {"name": ".hidden"}},
        {"disk": {"name": "a\nb"}},
        {"disk": {"name": "domain.xml"}},
        {"disk": {"name": MANIFEST}},
        {"disk": {"name": 7}},
        {"disk": {"target": "../vda"}},
        {"disk": {"target": ""}},
        {"disk": {"format": "vmdk"}},
        {"disk": {"role": "door"}},
        {"disk": {"role": "domain"}},
        {"disk": {"role": "tpm", "target": "../../passwd"}},
        {"disk": {"role": "tpm", "target": "tpm2/.lock"}},
        {"disk": {"role": "nvram", "size_bytes": 2**40}},
        {"disk": {"size_bytes": -1}},
        {"disk": {"size_bytes": 2**80}},
        {"disk": {"size_bytes": 1.5}},
        {"disk": {"size_bytes": True}},
        {"disk": {"sha256": "abc"}},
        {"disk": {"sha256": DIGEST.upper().replace("0", "A")}},
        {"vm": {"uuid": "../x"}},
        {"vm": {"name": "x" * 2000}},
        {"vm": {"name": ["x"]}},
        {"files": {}},
        {"files": []},
        {"files": ["x"]},
        {"files": [{}] * 1000},
        {"left_out": []},
        {"left_out": {"a": 1}},
        {"made_at": {}},
    ],
)
def test_what_no_export_writes_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as raised:
        bundle.read(write(tmp_path, **changes))
    assert MANIFEST in raised.value.cause


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', "[" * 100_000, '{"format": NaN}', '{"format": 1}', "1" * 10_000]
)
def test_what_is_no_manifest_at_all_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UsageError):
        bundle.read(tmp_path)


def test_a_manifest_too_long_or_of_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b" " * (bundle.LARGEST_MANIFEST_BYTES + 1))
    with pytest.raises(UsageError, match="longer"):
        bundle.read(tmp_path)
    (tmp_path / MANIFEST).write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        bundle.read(tmp_path)


def test_links_pipes_and_directories_are_no_files_of_a_bundle(tmp_path: Path) -> None:
    found = bundle.read(write(tmp_path))
    disk = found.of(Role.DISK)[0]
    path = found.path(disk)
    path.symlink_to("/etc/hostname")
    assert "link" in bundle.problem_of(found, disk)
    path.unlink()
    os.mkfifo(path)
    assert "no plain file" in bundle.problem_of(found, disk)
    path.unlink()
    path.mkdir()
    assert "no plain file" in bundle.problem_of(found, disk)
    path.rmdir()
    assert "missing" in bundle.problem_of(found, disk)
    path.write_bytes(b"1234")
    assert "4 bytes and should have 5" in bundle.problem_of(found, disk)
    path.write_bytes(b"12345")
    assert not bundle.problem_of(found, disk)


def test_the_record_of_a_file_is_read_back() -> None:
    assert [bundle.file_from_json(bundle.file_to_json(file)) for file in FILES] == list(FILES)
