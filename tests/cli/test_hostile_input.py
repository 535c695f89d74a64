"""Hostile and wrong input at the command line: a clear error or a harmless picture, the documented exit code, nothing
changed. `hv` runs each command on a fresh world; the same on a real libvirtd is in tests/real/test_cli_faults_real.py.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata

import pytest

from host.journal import Journal
from host.text import printable
from tests.cli.conftest import Command, Result
from tests.support.hostile_xml import HOSTILE_XML
from tests.support.simulated_world import HOSTILE_NAMES, LONG_NAME, MARKUP_NAME, hostile_domains, world

# What a person, a script or an attacker may type where a name belongs.
STRANGE_REFERENCES = [
    "nobody",
    "",
    " ",
    "-",
    "\x1b[31mred\x1b]0;title\x07",
    "two\nlines",
    "[bold]nobody[/]",
    "вм-日本",
    "\u202eevil",
    "x" * 10_000,
    "../../etc/passwd",
    "'; rm -rf /; '",
    "99999999999999999999",
    "00000000-0000-0000-0000-000000000000",
    "\udcff\udcfe",  # bytes that are no UTF-8, as the shell hands them over
    "%s%n{0}$(id)",
]
VERBS_OF_ONE = ["show", "xml", "console", "edit", "watch"]
VERBS_THAT_CHANGE = ["start", "stop", "restart", "reset", "off", "pause", "resume", "save", "delete", "discard-saved"]


def is_harmless(text: str) -> bool:
    """Nothing in it controls a terminal, hides or turns text around."""
    return all(char == "\n" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for char in text)


def assert_clear_error(result: Result, code: int) -> None:
    assert result.code == code, result
    assert result.err.startswith("hvtui: "), result.err
    assert "Traceback" not in result.err
    assert "internal error" not in result.err
    assert is_harmless(result.out), result.out
    assert is_harmless(result.err), result.err
    assert len(result.err) < 2000


def assert_no_job() -> None:
    with Journal() as journal:
        assert journal.jobs() == ()


@pytest.mark.parametrize("reference", STRANGE_REFERENCES)
@pytest.mark.parametrize("verb", ["show", "start", "delete", "xml"])
def test_an_unknown_vm_of_whatever_name_is_not_found(hv: Command, verb: str, reference: str) -> None:
    assert_clear_error(hv("vm", verb, "--yes", "--", reference), 3)
    assert_no_job()


@pytest.mark.parametrize("verb", [*VERBS_OF_ONE, *VERBS_THAT_CHANGE])
def test_every_verb_says_that_there_is_no_such_vm(hv: Command, verb: str) -> None:
    assert_clear_error(hv("vm", verb, "--yes", "nobody"), 3)
    assert_no_job()


@pytest.mark.parametrize(
    "words", [("set", "nobody", "owner=x"), ("rename", "nobody", "new"), ("autostart", "on", "nobody")]
)
def test_verbs_with_more_words_say_so_too(hv: Command, words: tuple[str, ...]) -> None:
    assert_clear_error(hv("vm", *words, "--yes"), 3)
    assert_no_job()


WRONG_STATE = [
    ("start", "web-01"),
    ("start", "db-01"),
    ("stop", "build-07"),
    ("restart", "build-07"),
    ("reset", "build-07"),
    ("off", "build-07"),
    ("pause", "build-07"),
    ("pause", "db-01"),
    ("resume", "web-01"),
    ("resume", "build-07"),
    ("save", "build-07"),
    ("save", "scratch"),
    ("discard-saved", "build-07"),
    ("delete", "web-01"),
]


@pytest.mark.parametrize(("verb", "name"), WRONG_STATE)
def test_a_wrong_state_is_a_conflict_that_says_the_state(hv: Command, verb: str, name: str) -> None:
    result = hv("vm", verb, "--yes", name)
    assert_clear_error(result, 4)
    assert name in result.err
    assert_no_job()


@pytest.mark.parametrize("name", ["web-01", MARKUP_NAME, LONG_NAME])
def test_a_taken_name_is_a_conflict(hv: Command, name: str) -> None:
    assert hv("vm", "rename", "build-07", "--", name).code in ({4} if name == "web-01" else {2, 4})
    assert_clear_error(hv("vm", "create", "--from", "empty", "--disk", "1G", "--yes", "--", "web-01"), 4)
    assert_no_job()


BAD_NEW_NAMES = ["", " ", "a/b", "two\nlines", "\x1b[31m", "x" * 10_000, "\x9b", ".", "..", "\udcff", "\ufffe", "a\rb"]


@pytest.mark.parametrize("name", BAD_NEW_NAMES)
def test_a_name_that_no_vm_can_have_is_refused(hv: Command, name: str) -> None:
    assert_clear_error(hv("vm", "rename", "--yes", "--", "build-07", name), 2)
    assert_clear_error(hv("vm", "create", "--from", "empty", "--disk", "1G", "--yes", "--", name), 2)
    assert_no_job()


BAD_SETTINGS = [
    "title=two\nlines",
    "title=\x1b[31mred",
    "title=\x00",
    "description=\x1b]0;x\x07",
    "description=\x08\x08",
    "owner=\x1b[2J",
    "owner=a\x00b",
    "tags=<b>",
    "tags=\x1b[31m",
    "tags=" + "x" * 10_000,
    "tags=\udcff",
    "title=\udcff",
    "owner=\ud800",
    "description=\ufffe",
    "memory=-1",
    "memory=1e9999G",
    "vcpus=0",
    "vcpus=1000000000000",
    "autostart=perhaps",
    "\x1b[31m=x",
]


@pytest.mark.parametrize("setting", BAD_SETTINGS)
def test_a_setting_with_control_characters_or_nonsense_is_refused(hv: Command, setting: str) -> None:
    result = hv("vm", "set", "--yes", "--", "build-07", setting)
    assert result.code in {2, 4, 8, 9}, result
    assert_clear_error(result, result.code)
    assert_no_job()


LONG_TEXT = "<b>&amp;</b> [red] 日本語 " * 300


def test_long_and_foreign_text_is_kept_as_it_is_and_shown_harmlessly(hv: Command) -> None:
    for key in ("title", "description", "owner"):
        result = hv("vm", "set", "build-07", f"{key}={LONG_TEXT}", "--dry-run", "-o", "json")
        assert result.code == 0, result
        assert LONG_TEXT.strip() in json.dumps(result.json, ensure_ascii=False)
        done = hv("vm", "set", "build-07", f"{key}={LONG_TEXT}")
        assert done.code == 0, done
        assert is_harmless(done.out + done.err)


@pytest.mark.parametrize("kind", HOSTILE_XML)
def test_hostile_or_malformed_xml_is_refused_in_a_moment(hv: Command, tmp_path, kind: str) -> None:
    path, text = tmp_path / "new.xml", HOSTILE_XML[kind]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for options in ((), ("--dry-run",), ("-o", "json")):
        result = hv("vm", "edit", "build-07", "--file", str(path), "--yes", *options)
        assert_clear_error(result, 2)
        assert "root:" not in result.out + result.err
    assert_no_job()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<name>build-07</name>", "<name>web-01</name>"),
        ("<name>build-07</name>", ""),
        ("<name>build-07</name>", "<name>\u202e</name>"),
        ("<uuid>", "<uuid>0"),
        ("<memory unit='KiB'>", "<memory unit='KiB'>-"),
        ("</domain>", "<nonsense/></domain>"),
        ("<on_crash>destroy", "<on_crash>explode"),
    ],
)
def test_xml_of_another_vm_or_with_nonsense_is_refused(hv: Command, tmp_path, old: str, new: str) -> None:
    path, before = tmp_path / "new.xml", hv("vm", "xml", "build-07").out
    assert old in before
    path.write_text(before.replace(old, new), encoding="utf-8")
    assert_clear_error(hv("vm", "edit", "build-07", "--file", str(path), "--yes"), 2)
    assert_no_job()


@pytest.mark.parametrize(
    "much",
    [
        "<x:a xmlns:x='urn:x'>" + "<x:b>" * 20_000 + "</x:b>" * 20_000 + "</x:a>",
        "<x:a xmlns:x='urn:x'>" + "<x:b>" * 900 + "</x:b>" * 900 + "</x:a>",
        "<x:a xmlns:x='urn:x' " + " ".join(f"a{n}='1'" for n in range(50_000)) + "/>",
        "<x:a xmlns:x='urn:x'>" + "<x:b/>" * 100_000 + "</x:a>",
        "<x:a xmlns:x='urn:x'>" + "x" * (1 << 20) + "</x:a>",
    ],
    ids=["very deep", "deep", "wide", "many", "large"],
)
def test_a_valid_vm_with_far_too_much_in_it_is_refused_or_taken_whole(hv: Command, tmp_path, much: str) -> None:
    path, before = tmp_path / "new.xml", hv("vm", "xml", "web-01").out
    assert "<metadata" in before
    path.write_text(before.replace("</metadata>", f"{much}</metadata>"), encoding="utf-8")
    for options in (("--dry-run",), ("--dry-run", "-o", "json"), ()):
        result = hv("vm", "edit", "web-01", "--file", str(path), "--yes", *options)
        assert result.code in {0, 2}, result.err[:2000]
        assert "Traceback" not in result.err
        assert "internal error" not in result.err
        assert "error of hvtui itself" not in result.err


def test_a_file_that_cannot_be_read_is_an_error_in_words(hv: Command, tmp_path) -> None:
    for path, code in (
        ("/nonexistent/x.xml", 3),
        ("\x1b[31m", 3),
        (str(tmp_path), 1),
        ("/dev/full", 2),
        ("/dev/zero", 2),
    ):
        assert_clear_error(hv("vm", "edit", "build-07", "--file", path, "--yes"), code)


BAD = "/tmp/\udcff"  # as the shell hands over bytes that are no UTF-8
BAD_OPTIONS = [
    ("vm", "list", "--filter", "name:\udcff cpu>x"),
    ("vm", "list", "--columns", BAD),
    ("vm", "list", "-o", BAD),
    ("vm", "stop", "web-01", "--timeout", "nan"),
    ("vm", "stop", "web-01", "--timeout", "1e400"),
    ("vm", "stop", "web-01", "--timeout", "-1"),
    ("vm", "watch", "--interval", "nan"),
    ("job", "show", "9" * 30),
    ("job", "show", BAD),
    ("job", "list", "--limit", "9" * 30),
    *(("vm", "create", "x", "--from", "empty", "--disk", "1G", option, value) for option, value in (
        ("--pool", BAD), ("--network", f"bridge:{BAD}"), ("--cpu", BAD), ("--os", BAD), ("--title", BAD),
        ("--description", "\ufffe"), ("--owner", "\x1b[31m"), ("--tag", "<b>"), ("--memory", "nan"), ("--disk", "-1G"),
        ("--memory", "9" * 30), ("--cpus", "0"),
    )),
    ("vm", "create", "x", "--from", BAD),
    ("vm", "create", "x", "--kernel", BAD),
]  # fmt: skip


@pytest.mark.parametrize("words", BAD_OPTIONS)
def test_a_bad_value_of_an_option_is_a_usage_error(hv: Command, words: tuple[str, ...]) -> None:
    assert_clear_error(hv(*words), 2)
    assert_no_job()


def test_a_uri_of_strange_bytes_is_a_usage_error(hv: Command) -> None:
    for uri in ("test:///\udcff", "\udcff", "qemu+ssh://\udcff/system"):
        assert_clear_error(hv("vm", "list", connect=uri), 2)
        assert_clear_error(hv("vm", "list", "--timeout", "9", connect=uri), 2)


# Hostile text that is there already


@pytest.fixture
def hostile_uri(tmp_path) -> str:
    """A host whose VMs' titles, descriptions, tags, owners, disks and systems are hostile, too."""
    (tmp_path / "hostile.xml").write_text(world(hostile_domains()), encoding="utf-8")
    return f"test://{tmp_path}/hostile.xml"


ALL_COLUMNS = "name,state,title,description,tags,owner,os,disks,nics"


@pytest.mark.parametrize(
    "words",
    [
        ("vm", "list"),
        ("vm", "list", "--details"),
        ("vm", "list", "--columns", ALL_COLUMNS),
        ("vm", "list", "-o", "json", "--details"),
        ("vm", "list", "-o", "jsonl", "--details"),
        ("vm", "show", "*"),
        ("vm", "show", "*", "-o", "json"),
        ("vm", "watch", "--once", "--interval", "0.1"),
        ("host", "overview"),
        ("host", "overview", "-o", "json"),
        ("vm", "off", "*", "--dry-run"),
        ("vm", "delete", "*", "--off", "--dry-run"),
        ("vm", "delete", "*", "--off", "--dry-run", "-o", "json"),
        ("vm", "pause", "*", "--yes"),
        ("vm", "set", "*", "tags=", "--dry-run"),
    ],
)
def test_hostile_text_of_others_is_harmless_in_every_picture(
    hv: Command, hostile_uri: str, words: tuple[str, ...]
) -> None:
    result = hv(*words, connect=hostile_uri)
    assert result.code in {0, 4, 2}, result.err
    assert "Traceback" not in result.err
    assert "internal error" not in result.err
    assert is_harmless(result.out), words
    assert is_harmless(result.err), words


def test_json_keeps_the_true_text_and_csv_is_harmless(hv: Command, hostile_uri: str) -> None:
    records = {each["name"]: each for each in hv("vm", "list", "-o", "json", "--details", connect=hostile_uri).json}
    assert set(records) == {*HOSTILE_NAMES, "plain"}
    assert records["plain"]["title"].startswith("\u009b2J\u202e[red]<b>")
    text = hv("vm", "list", "-o", "csv", "--columns", "name,owner", connect=hostile_uri).out
    rows = list(csv.reader(io.StringIO(text)))
    assert {row[0] for row in rows[1:]} == {printable(name) for name in (*HOSTILE_NAMES, "plain")}
    assert is_harmless(text)


def test_hostile_names_are_harmless_in_the_lists_and_logs_of_jobs(hv: Command) -> None:
    for name in HOSTILE_NAMES:
        hv("vm", "pause" if name.startswith("evil") else "start", "--yes", "--", name)
    with Journal() as journal:
        assert {job.vm_name for job in journal.jobs()} == set(HOSTILE_NAMES)
        numbers = [str(job.id) for job in journal.jobs()]
    for words in (("job", "list"), ("job", "list", "-o", "json"), *(("job", "show", number) for number in numbers)):
        result = hv(*words)
        assert result.code == 0, result
        assert is_harmless(result.out + result.err), words
