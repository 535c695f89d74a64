"""What a change of an XML document is, and what is only another way to write it."""

from __future__ import annotations

from hvtui.xml_changes import canonical_lines, xml_changes
from vm.domain_xml import parse, set_tags, to_text

LIBVIRT = """<domain type='test'>
  <name>web</name>
  <memory unit='KiB'>1048576</memory>
  <metadata>
    <app:x xmlns:app='urn:app' app:y='1'/>
  </metadata>
  <devices>
    <disk type='file' device='disk'>
      <source file='/a &amp; b'/>
    </disk>
  </devices>
</domain>
"""


def test_another_way_to_write_it_is_no_change() -> None:
    assert xml_changes(LIBVIRT, to_text(parse(LIBVIRT))) == []
    assert xml_changes(LIBVIRT, LIBVIRT.replace("type='file' device='disk'", 'device="disk"   type="file"')) == []


def test_only_the_line_that_changed_is_told() -> None:
    root = parse(LIBVIRT)
    memory = root.find("memory")
    assert memory is not None
    memory.text = "2097152"
    changed = [line for line in xml_changes(LIBVIRT, to_text(root)) if line[0] in "+-"]
    assert changed == ['-  <memory unit="KiB">1048576</memory>', '+  <memory unit="KiB">2097152</memory>']


def test_a_namespace_is_told_where_it_begins() -> None:
    root = parse(LIBVIRT)
    set_tags(root, ("prod",))
    changed = [line for line in xml_changes(LIBVIRT, to_text(root)) if line[0] in "+-"]
    assert [line[0] for line in changed] == ["+"] * len(changed)
    assert "xmlns=" in changed[0]
    assert canonical_lines(LIBVIRT)[4] == '    <x xmlns="urn:app" y="1"/>'


def test_what_is_no_xml_is_compared_as_it_is() -> None:
    assert xml_changes('a = "1"\n', 'a = "2"\n') == ["@@ -1 +1 @@", '-a = "1"', '+a = "2"']
