"""Manifests: what is written can be read again, and what somebody else wrote is a clear error and never a guess."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host.errors import UsageError
from tests.support import libraries
from vm.library_index import index_text, parse_index
from vm.template_manifest import (
    check_template_name,
    from_document,
    from_toml,
    manifest_name,
    name_of_text,
    parse_manifest_name,
    template_name_problem,
    text_hash,
    to_toml,
    volume_name_problem,
)
from vm.template_model import ImageRole, Template, TemplateImage

WHOLE = libraries.template("debian-12")


def named(text: str, name: str = "debian-12", revision: int = 1) -> str:
    """The volume's name that this text would have."""
    return f"{name}.r{revision}-{text_hash(text)}.template.toml"


def changed(old: str, new: str) -> tuple[str, str]:
    """A whole manifest with something else in it, and its name."""
    text = to_toml(WHOLE)
    assert old in text
    text = text.replace(old, new)
    return text, named(text)


def test_a_template_is_the_same_after_writing_and_reading() -> None:
    assert from_toml(to_toml(WHOLE), WHOLE.manifest) == WHOLE


def test_a_template_is_the_same_after_the_index() -> None:
    documents = parse_index(index_text([WHOLE]))
    assert from_document(documents[WHOLE.manifest], WHOLE.manifest) == WHOLE


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(description=st.text(max_size=300), tags=st.lists(st.text(min_size=1, max_size=20), max_size=5))
def test_any_text_survives(description: str, tags: list[str]) -> None:
    try:
        description.encode()
        "".join(tags).encode()
    except UnicodeEncodeError:
        return
    made = replace(WHOLE, description=description, tags=tuple(tags), manifest="")
    text = to_toml(made)
    name = name_of_text(made, text)
    assert from_toml(text, name) == replace(made, manifest=name)


def test_a_template_without_anything_but_images_can_be_stored() -> None:
    image = TemplateImage("x-00000000.qcow2", ImageRole.DISK, "qcow2", 1, 1, "0" * 64)
    made = Template("x", (image,))
    assert from_toml(to_toml(made), manifest_name(made)) == replace(made, manifest=manifest_name(made))


def test_the_name_tells_revision_and_hash() -> None:
    made = replace(WHOLE, revision=42, manifest="")
    name, revision, digits = parse_manifest_name(manifest_name(made)) or ("", 0, "")
    assert (name, revision, digits) == ("debian-12", 42, text_hash(to_toml(made)))


@pytest.mark.parametrize(
    "name",
    [
        "debian-12.template.toml",
        "debian-12.r0-00000000.template.toml",
        "debian-12.r1-0000000.template.toml",
        "debian-12.r1-0000000g.template.toml",
        ".r1-00000000.template.toml",
        "../x.r1-00000000.template.toml",
        "a/b.r1-00000000.template.toml",
        "\x1b[31m.r1-00000000.template.toml",
        "x.r1-00000000.template.toml\n",
        "x" * 65 + ".r1-00000000.template.toml",
        "x.hardware.toml",
        "disk.qcow2",
        "",
    ],
)
def test_other_names_are_no_manifests(name: str) -> None:
    assert parse_manifest_name(name) is None


def test_a_half_manifest_is_known_by_its_name() -> None:
    text = to_toml(WHOLE)
    with pytest.raises(UsageError, match="not the one that its name stands for"):
        from_toml(text[: len(text) // 2], WHOLE.manifest)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("format = 1", "format = 2", "format is 2"),
        ('kind = "template"', 'kind = "hardware"', "kind"),
        ('name = "debian-12"', 'name = "debian-13"', "is not that of the volume's name"),
        ("revision = 1", "revision = 2", "is not that of the volume's name"),
        ("takes_seed = true", "take_seed = true", "Did you mean takes_seed?"),
        ("takes_seed = true", 'takes_seed = "yes"', "takes_seed"),
        ('firmware = "uefi"', 'firmware = "uefy"', "Did you mean uefi"),
        ('readiness = "cloud-init"', "readiness = 3", "readiness"),
        ('role = "disk"', 'role = "floppy"', "role"),
        ('format = "qcow2"', 'format = "raw"', "Did you mean qcow2|Known: qcow2"),
        ("virtual_size_bytes = 2147483648", "virtual_size_bytes = -1", "out of range"),
        ("virtual_size_bytes = 2147483648", f"virtual_size_bytes = {2**80}", "out of range"),
        ("virtual_size_bytes = 2147483648", "virtual_size_bytes = 1.5", "virtual_size_bytes"),
        ('sha256 = "', 'sha256 = "zz', "64 hexadecimal digits"),
        ('volume = "debian-12-0a1b2c3d.qcow2"', 'volume = "../../etc/shadow"', "it is a path"),
        ('volume = "debian-12-0a1b2c3d.qcow2"', 'volume = "/etc/shadow"', "it is a path"),
        ('volume = "debian-12-0a1b2c3d.qcow2"', 'volume = ""', "no file's name"),
        ('volume = "debian-12-0a1b2c3d.qcow2"', 'volume = "\\u001b[31m"', "no file here"),
        ('description = "for tests"', f'description = "{"x" * 5000}"', "5000 characters"),
        ("created_at = 2024", "created_at = 20x24", "not valid TOML"),
    ],
)
def test_what_is_not_exactly_right_names_the_file_and_the_key(old: str, new: str, told: str) -> None:
    text, name = changed(old, new)
    with pytest.raises(UsageError, match=told) as caught:
        from_toml(text, name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "x", "= ", "[" * 5000, "images = 3", 'format = 1\nkind = "template"', "\x00", "format = 1\nimages = []"],
)
def test_what_is_no_manifest_at_all_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        from_toml(text, named(text))


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_document_of_an_index_is_a_template_or_refused(document: object) -> None:
    text = json.dumps({"version": 1, "manifests": {WHOLE.manifest: document}})
    for name, each in parse_index(text).items():
        with pytest.raises(UsageError):
            from_document(each, name)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": 2}', '{"version": 1, "manifests": []}', "[" * 9000]
)
def test_what_is_no_index_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_index(text)


@pytest.mark.parametrize("name", ["debian-12", "a", "A.b_c+d-e", "x" * 64, "12"])
def test_names_of_templates(name: str) -> None:
    assert check_template_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "-x", "x-", ".x", "a b", "a/b", "ü", "x" * 65, "a\n", "\x1b[31m", "a*", "..", "a:b"]
)
def test_what_cannot_be_a_templates_name(name: str) -> None:
    assert template_name_problem(name)
    with pytest.raises(UsageError):
        check_template_name(name)


def test_volumes_are_plain_file_names() -> None:
    assert volume_name_problem("disk 1.qcow2") == ""
    assert all(volume_name_problem(name) for name in ("", ".", "..", "a/b", "a\\b", "a\x00b", "x" * 256))
