"""What a plan changes in an XML document, as lines that both front ends show: both documents are written the same way
first, so that quotes, layout and the order of attributes are no changes. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def xml_changes(before: str, after: str, *, context: int = 3) -> list[str]:
    """The unified diff without file headers, to be made harmless where it is shown; empty when nothing differs. Texts
    that are no domain XML (a manifest, a draft that does not parse) are compared as they are."""
    from difflib import unified_diff

    from host.errors import HvtuiError

    try:
        old, new = canonical_lines(before), canonical_lines(after)
    except HvtuiError:
        old, new = before.splitlines(), after.splitlines()
    return list(unified_diff(old, new, lineterm="", n=context))[2:]


def canonical_lines(xml: str) -> list[str]:
    """A domain XML, an element a line, attributes by name. Raises UsageError for what is no domain XML."""
    from vm.domain_xml import parse

    return list(_lines(parse(xml), 0, ""))


def _lines(element: Element, depth: int, namespace: str) -> Iterator[str]:
    """`namespace` is the one of the element around it, which is not told again."""
    from xml.sax.saxutils import escape, quoteattr

    own, name = _split(element.tag)
    attributes = {_split(key)[1]: value for key, value in element.attrib.items()}
    if own != namespace:
        attributes["xmlns"] = own
    told = "".join(f" {key}={quoteattr(value)}" for key, value in sorted(attributes.items()))
    text, margin = (element.text or "").strip(), "  " * depth
    parts = text.splitlines()
    if not len(element) and len(parts) <= 1:
        yield f"{margin}<{name}{told}>{escape(text)}</{name}>" if text else f"{margin}<{name}{told}/>"
        return
    yield f"{margin}<{name}{told}>"
    yield from (f"{margin}  {escape(line)}" for line in parts)
    for child in element:
        yield from _lines(child, depth + 1, own)
        yield from (f"{margin}  {escape(line)}" for line in (child.tail or "").strip().splitlines())
    yield f"{margin}</{name}>"


def _split(tag: str) -> tuple[str, str]:
    """Namespace and name of "{namespace}name"; the first is empty for a plain name."""
    namespace, found, name = tag.removeprefix("{").partition("}")
    return (namespace, name) if found else ("", tag)
