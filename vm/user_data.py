"""Free cloud-init user data: what they may be, whether they parse, and how several become one.

They come from people and files: they are read under limits, and what they hold may be secret, so that no error repeats
more of them than a line and a column. `#include` is refused: what a guest fetches when it boots is neither what was
checked nor there for the next VM; `#part-handler` and `#cloud-config-archive` have simpler forms. Only `read_file`
reads anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from host.errors import NotFound, UsageError
from host.text import did_you_mean, printable
from host.units import MIB

LARGEST_BYTES = MIB  # no datasource carries more
DEEPEST = 64
MOST_NODES = 100_000  # with every alias expanded, as the guest will
_NODE_CHARACTERS = 64  # a long text counts as several nodes
CLOUD_CONFIG = "text/cloud-config"
MULTIPART = "multipart/mixed"

# The first word of the first line, or the line itself -> the MIME type of the part.
KINDS = {
    "#cloud-config": CLOUD_CONFIG,
    "#!": "text/x-shellscript",
    "#cloud-boothook": "text/cloud-boothook",
    "## template: jinja": "text/jinja2",
}
_REFUSED = {
    "#include": "Put in what it would fetch: a guest must get what was checked here",
    "#include-once": "Put in what it would fetch: a guest must get what was checked here",
    "#part-handler": "Write a script (#!) or #cloud-config",
    "#cloud-config-archive": "Write its parts as a MIME multipart, or give them one by one",
    "#cloud-config-jsonp": "Write #cloud-config",
}
_BEGINNINGS = "The first line says what it is: #cloud-config, or #!/bin/sh for a script"
# The first part to name a value keeps it, lists of later parts come before those of earlier ones.
MERGE_RULES = "dict(no_replace,recurse_list)+list(prepend)+str()"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of user data. `name` orders scripts: cloud-init runs them in the order of their names."""

    kind: str
    text: str
    name: str


def read_file(path: str) -> str:
    """The checked text of a file of this machine. Raises NotFound, UsageError naming the file."""
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise NotFound(f"cannot read the user data: {error.strerror}", about=path) from error
    except (RuntimeError, ValueError) as error:  # ~nobody, or a path that none can be
        raise NotFound("cannot read the user data: there is no such path", about=path) from error
    return checked_text(data, about=path)


def checked_text(data: bytes, *, about: str) -> str:
    """What was read, as text. Raises UsageError as `check_user_data`, and for what is not UTF-8."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("the user data are not UTF-8 text", about=about) from error
    check_user_data(text, about=about)
    return text


def check_user_data(text: str, *, about: str = "user data") -> None:
    """Raise UsageError unless cloud-init can take `text`: the kind is known, the size and YAML are in order. A YAML
    error names line and column. `about` names the source in errors."""
    kind_of(text, about=about)


def kind_of(text: str, *, about: str = "user data") -> str:
    """The MIME type of checked user data. Raises UsageError as `check_user_data`."""
    if len(_encoded(text, about)) > LARGEST_BYTES:
        _refuse("they are larger than 1 MiB", about, "Let the guest fetch large files itself")
    if "\0" in text:
        _refuse("they hold a null byte, so they are no text", about, _BEGINNINGS)
    start = text.lstrip()
    first = start.split("\n", 1)[0]
    if start.lower().startswith(("content-type:", "mime-version:")):
        _check_multipart(text, about)
        return MULTIPART
    kind = _kind_of_line(first, about)
    if kind == CLOUD_CONFIG:
        _check_cloud_config(text, about)
    elif kind == KINDS["#!"] and first.endswith("\r"):
        _refuse("the script has Windows line ends", about, "Convert it: sed -i 's/\\r$//' FILE")
    return kind


def combine(parts: Sequence[Part]) -> str:
    """User data of all the parts: that of the only one as it is, else a MIME multipart. Where two parts of
    #cloud-config set one value the later part wins; their lists are joined in the order of the parts. The same parts
    give the same text."""
    if len(parts) == 1:
        return parts[0].text
    import hashlib
    from email.mime.base import MIMEBase
    from email.mime.multipart import MIMEMultipart
    from email.mime.text import MIMEText

    digest = hashlib.sha256("\0".join(part.text for part in parts).encode()).hexdigest()
    whole = MIMEMultipart(boundary=f"==={digest[:32]}===")
    for part in reversed(parts):  # see MERGE_RULES: the first one to name a value keeps it
        if part.kind == MULTIPART:
            inner: MIMEBase = _inner_multipart(part.text)
        else:
            inner = MIMEText(part.text, part.kind.partition("/")[2], "utf-8")
            inner.add_header("Content-Disposition", "attachment", filename=part.name)
        if part.kind in {CLOUD_CONFIG, KINDS["## template: jinja"]}:
            inner["Merge-Type"] = MERGE_RULES
        whole.attach(inner)
    return whole.as_string()


def _inner_multipart(text: str) -> Any:
    from email import message_from_string

    return message_from_string(text)


def _encoded(text: str, about: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        _refuse("they are not UTF-8 text", about, _BEGINNINGS)


def _kind_of_line(first: str, about: str) -> str:
    line = first.strip()
    word = line.split(maxsplit=1)[0] if line else ""
    if word in _REFUSED:
        _refuse(f"{word} is not taken", about, _REFUSED[word])
    if line.startswith("#!"):
        return KINDS["#!"]
    if line.lower().startswith("## template: jinja"):
        return KINDS["## template: jinja"]
    if word in KINDS:
        return KINDS[word]
    problem, remedy = "the first line does not say what they are", _BEGINNINGS
    if word.startswith("#") and len(word) > 1:
        problem = f"the first line is {printable(word, limit=40)!r}"
        remedy = did_you_mean(word, KINDS, otherwise=_BEGINNINGS)
    raise UsageError(problem, about=about, remedy=remedy)


def _refuse(problem: str, about: str, remedy: str) -> NoReturn:
    raise UsageError(problem, about=about, remedy=remedy)


def _check_multipart(text: str, about: str) -> None:
    """Check each part of a MIME multipart: its type, else its first line, says what it is."""
    from email import message_from_string

    message = message_from_string(text.lstrip())
    leaves = [part for part in message.walk() if not part.is_multipart()]
    if not message.is_multipart() or message.defects:
        _refuse("they are no MIME multipart", about, "cloud-init devel make-mime writes one")
    for number, leaf in enumerate(leaves, 1):
        where = f"{about}, part {number}"
        payload = leaf.get_payload(decode=True)
        inner = payload.decode(errors="replace") if isinstance(payload, bytes) else ""
        kind = leaf.get_content_type()
        if kind in {"text/x-include-url", "text/x-include-once-url"}:
            _refuse("#include is not taken", where, _REFUSED["#include"])
        if kind == "text/part-handler":
            _refuse("#part-handler is not taken", where, _REFUSED["#part-handler"])
        if kind == CLOUD_CONFIG:
            _check_cloud_config(inner, where)
        elif kind in {"text/plain", "text/x-not-multipart"}:
            kind_of(inner, about=where)


# YAML


def _check_cloud_config(text: str, about: str) -> None:
    """Raise UsageError unless the text is YAML of one mapping, not too deep and, with its aliases expanded, not too
    large. The shape is looked at before anything is built from it."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_shape(yaml.parse(text, Loader=loader), about)
        value = yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader, both of them
    except yaml.YAMLError as error:
        _refuse(_yaml_problem(error), about, "Check the indentation and the quotes there")
    except (ValueError, OverflowError, TypeError) as error:  # of a date, a number or a key that Python has no room for
        _refuse(printable(f"a value cannot be read: {error}", limit=160), about, "Put it in quotes")
    if value is not None and not isinstance(value, dict):
        remedy = "#cloud-config is made of keys and their values: packages: [nginx]"
        _refuse("the YAML is not a mapping", about, remedy)
    odd = [key for key in value or {} if not isinstance(key, str)]
    if odd:
        _refuse(f"{printable(repr(odd[0]), limit=40)} is no key of #cloud-config", about, "Keys are words: packages:")


def _yaml_problem(error: Any) -> str:
    """What is wrong and where; never the line itself, which may hold a password."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    position = getattr(error, "position", None)
    if mark is None and position is not None:
        where = f"character {position + 1}: "
    return printable(f"the YAML does not parse, {where}{problem}", limit=200)


def _check_shape(events: Iterable[Any], about: str) -> None:
    """Refuse what is too deep, refers to itself, or grows too large with its aliases expanded."""
    import yaml

    shape = _Shape(about)
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            shape.begin_document()
        elif isinstance(event, yaml.CollectionStartEvent):
            shape.begin_collection(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            shape.end_collection()
        elif isinstance(event, yaml.ScalarEvent):
            shape.add(1 + len(event.value) // _NODE_CHARACTERS, event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            shape.add_alias(event)


class _Shape:
    """How large a YAML document is, while its events come in."""

    def __init__(self, about: str) -> None:
        self._about = about
        self._documents = 0
        self._sizes: dict[str, int] = {}  # of the nodes that have an anchor, with their aliases expanded
        self._open: list[tuple[str | None, int]] = []  # collections: anchor, and nodes so far

    def begin_document(self) -> None:
        self._documents += 1
        if self._documents > 1:
            _refuse("the YAML is more than one document", self._about, "Take the lines --- out")

    def begin_collection(self, event: Any) -> None:
        self._open.append((event.anchor, 1))
        if len(self._open) > DEEPEST:
            problem = f"the YAML is nested too deep at line {event.start_mark.line + 1}"
            _refuse(problem, self._about, f"Nest at most {DEEPEST} levels")

    def end_collection(self) -> None:
        anchor, nodes = self._open.pop()
        self.add(nodes, anchor)

    def add_alias(self, event: Any) -> None:
        if event.anchor not in self._sizes:  # unknown, or of a collection that is still open
            problem = f"the YAML's alias at line {event.start_mark.line + 1} refers to nothing before it"
            _refuse(problem, self._about, "Write it out")
        self.add(self._sizes[event.anchor], None)

    def add(self, nodes: int, anchor: str | None) -> None:
        """A node that is complete."""
        if nodes > MOST_NODES:
            _refuse("the YAML grows too large when its aliases are expanded", self._about, "Write it without aliases")
        if anchor is not None:
            self._sizes[anchor] = nodes
        if self._open:
            outer, so_far = self._open.pop()
            self._open.append((outer, so_far + nodes))
