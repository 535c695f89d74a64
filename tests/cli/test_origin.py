"""What `vm show` and `vm list` tell of how a VM came to be, and of what its next start gets."""

from __future__ import annotations

from datetime import UTC, datetime

from hvtui.cli.vm_origin import origin_record, origin_words
from tests.cli.conftest import Command
from vm.domain_xml import read_config
from vm.origin import Origin
from vm.template_mark import TemplateMark

MARK = TemplateMark("debian", 3, "library", True, "web", "web", settings=("memory=192M",))
ORIGIN = Origin(MARK, "/library/debian-1a2b3c4d.qcow2", 7, "Deploy web-01", datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
XML = "<domain><memory>{most}</memory><currentMemory>{now}</currentMemory><vcpu>{vcpus}</vcpu></domain>"


def test_an_origin_is_told_in_words_and_as_an_object() -> None:
    words = origin_words(ORIGIN)
    assert words == (
        "debian revision 3 of library (linked), profile web, memory=192M set at its deployment, "
        "builds on /library/debian-1a2b3c4d.qcow2, by job 7 on 2026-01-02 03:04: Deploy web-01"
    )
    record = origin_record(ORIGIN)
    assert (record["template"], record["builds_on"], record["job"]) == ("debian", "/library/debian-1a2b3c4d.qcow2", 7)
    assert origin_record(Origin(job=1))["template"] is None


def test_the_column_is_there_for_show_alone(hv: Command) -> None:
    name = hv("vm", "list", "-o", "json").json[0]["name"]
    assert "made_from" in hv("vm", "show", name, "-o", "json").json[0]
    assert hv("vm", "show", name, "--columns", "made_from", "-o", "json").json == [{"made_from": None}]
    assert "template" in hv("vm", "list", "--columns", "name,template", "-o", "json").json[0]
    assert hv("vm", "list", "--columns", "made_from").code == 2


def test_what_the_next_start_gets_is_told_only_where_it_is_something_else() -> None:
    now, then = XML.format(most=2048, now=1024, vcpus=1), XML.format(most=2048, now=2048, vcpus=2)
    same, other = read_config(now, inactive_xml=now), read_config(now, inactive_xml=then)
    assert (same.next_memory_bytes, same.next_vcpus) == (0, 0)
    assert (other.next_memory_bytes, other.next_vcpus) == (2048 * 1024, 2)
