"""The filter language of the lists: `state:running tag:web,db cpu>50 -name:old-* "free text"`.

    filter  = { term }                    every term must match
    term    = [ "-" ] ( key op values | values )        "-" turns it round
    op      = ":" (matches)  "=" (is exactly)  and for numbers also  ">"  ">="  "<"  "<="  "!="
    values  = value { "," value }         one of them must match
    value   = word, glob (* ? [...]), or "text in quotes"

Text is compared without regard to case. A VM whose value is not known (its XML was not read yet, it does not run)
does not match. Matching never raises, whatever a VM is called. This module only looks at a Vm; it reads nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from host.errors import UsageError
from host.text import did_you_mean, printable
from host.units import parse_size
from vm.model import Vm, VmConfig, VmState

Test: TypeAlias = Callable[[Vm], bool]
TextTest: TypeAlias = Callable[[str], bool]
TextsTest: TypeAlias = Callable[[Iterable[str]], bool]

_HEAD = re.compile(r"(?P<not>-?)(?:(?P<key>[a-z]+)(?P<op>>=|<=|!=|[:=<>]))?", re.IGNORECASE | re.ASCII)
_VALUE = re.compile(r'"(?P<quoted>[^"]*)(?P<closed>"?)|(?P<word>[^\s,"]+)')
_GLOB = re.compile(r"[*?\[]")
_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)%?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter. `needs_config` is True when it looks at what only the domain XML tells, `needs_addresses` at
    IP addresses, `needs_rates` at what only two readings of the counters tell, `needs_pending` at whether the next
    boot's configuration differs."""

    text: str
    tests: tuple[Test, ...] = ()
    host_tests: tuple[TextTest, ...] = ()
    needs_config: bool = False
    needs_addresses: bool = False
    needs_rates: bool = False
    needs_pending: bool = False
    group_tests: tuple[TextsTest, ...] = ()

    def matches(self, vm: Vm, *, host_name: str | None = None, groups: Collection[str] | None = None) -> bool:
        """True when every term matches. Terms on the host and on its groups are left out where these are not given."""
        for test in self.tests:
            if not test(vm):
                return False
        return self.matches_host(host_name, groups)

    def matches_host(self, name: str | None, groups: Collection[str] | None = None) -> bool:
        """True when every term on the host and its groups matches; one that is not given is not looked at."""
        is_wanted = name is None or all(test(name) for test in self.host_tests)
        return is_wanted and (groups is None or all(test(groups) for test in self.group_tests))


@dataclass(frozen=True, slots=True)
class _Value:
    text: str
    is_quoted: bool


@dataclass(frozen=True, slots=True)
class _Term:
    """One term as written; `column` counts from 1, `end` is where the next one begins. `gap` says what is missing."""

    negated: bool
    key: str
    operator: str
    values: tuple[_Value, ...]
    column: int
    end: int
    gap: str

    def error(self, what: str, remedy: str = "") -> UsageError:
        return UsageError(f"filter, column {self.column}: {what}", remedy=remedy)

    def unfinished(self, what: str, remedy: str = "") -> UsageError:
        return _UnfinishedError(f"filter, column {self.column}: {what}", remedy=remedy)


class _UnfinishedError(UsageError):
    """More typing may still make a valid term of it."""


def parse(text: str, *, lenient: bool = False) -> Filter:
    """The filter for `text`. Raises UsageError with the position and the nearest key or word. `lenient`, for text that
    is being typed, leaves out a last term that is not finished."""
    tests: list[Test] = []
    host_tests: list[TextTest] = []
    group_tests: list[TextsTest] = []
    keys: set[str] = set()
    needs_config = needs_pending = False
    position = len(text) - len(text.lstrip())
    while position < len(text):
        term = _read_term(text, position)
        position = term.end + len(text[term.end :]) - len(text[term.end :].lstrip())
        try:
            _refuse_gap(term, lenient=lenient and term.end == len(text))
            if term.key == "host":
                host_tests.append(_text_test(term, _contains))
            elif term.key == "group":
                group_tests.append(_group_test(term))
            else:
                tests.append(_test(term))
                keys.add(term.key)
                needs_config = needs_config or _needs_config(term)
                needs_pending = needs_pending or _has_flag(term, "pending")
        except _UnfinishedError:
            if not lenient or term.end < len(text):
                raise
    return Filter(
        text,
        tuple(tests),
        tuple(host_tests),
        needs_config,
        needs_addresses=bool(keys & {"", "ip"}),  # free text looks at them too
        needs_rates=bool(keys & RATE_KEYS),
        needs_pending=needs_pending,
        group_tests=tuple(group_tests),
    )


def _read_term(text: str, start: int) -> _Term:
    head = _HEAD.match(text, start)
    key, operator = (head["key"], head["op"]) if head else (None, None)
    position = head.end() if head else start
    negated = bool(head and head["not"])
    values: list[_Value] = []
    gap = f"{printable(key)}{operator} needs a value" if key else "there is nothing after the -"
    while (found := _VALUE.match(text, position)) is not None:
        values.append(_Value(found["quoted"] if found["word"] is None else found["word"], found["word"] is None))
        position = found.end()
        gap = "" if found["word"] is not None or found["closed"] else "the quote is not closed"
        if text[position : position + 1] != ",":
            break
        position += 1
        gap = "a value is missing after the comma"
    name = (key or "").casefold()
    term = _Term(negated, _ALIASES.get(name, name), operator or ":", tuple(values), start + 1, position, gap)
    if position < len(text) and not text[position].isspace():
        raise UsageError(
            f"filter, column {position + 1}: {printable(text[position])} cannot stand here",
            remedy="Put text with quotes, spaces or commas in one pair of quotes",
        )
    return term


def _refuse_gap(term: _Term, *, lenient: bool) -> None:
    if term.gap and not (lenient and any(value.text for value in term.values)):
        raise term.unfinished(term.gap)


def _test(term: _Term) -> Test:
    test = _positive_test(term)
    return (lambda vm: not test(vm)) if term.negated else test


def _positive_test(term: _Term) -> Test:
    if not term.key:
        _refuse_foreign(term)
        return _free_test(_text_test(term, _contains, negate=False))
    if term.key in {"is", "has"}:
        return _flag_test(term)
    if term.key in _NUMBERS:
        return _number_test(term)
    if term.key == "state":
        return _state_test(term)
    if term.key in _TEXTS:
        texts_of, how = _TEXTS[term.key]
        return _texts_test(texts_of, _text_test(term, how, negate=False))
    near = did_you_mean(term.key, KEYS)
    raise term.error(f"there is no key {term.key!r}", f"{near} (put text with a colon in quotes)".strip())


# Text


def _contains(wanted: str) -> TextTest:
    return lambda text: wanted in text


def _equals(wanted: str) -> TextTest:
    return lambda text: wanted == text


def _refuse_foreign(term: _Term) -> None:
    """Say how it is written here to those who write it as elsewhere; in quotes it is text like any other."""
    first = term.values[0]
    if first.is_quoted or len(term.values) > 1:
        return
    if first.text.startswith("!") and len(first.text) > 1:
        shown = printable(first.text[1:], limit=40)
        raise term.error("the opposite is written with a - in front", f"Write -{shown} (put text with a ! in quotes)")
    word = first.text.casefold()
    if word in _FOREIGN_WORDS:
        raise term.unfinished(
            f"{word!r} is no operator here", f"{_FOREIGN_WORDS[word]} (put the word itself in quotes)"
        )


_FOREIGN_WORDS = {
    "or": "One of several values is written with commas: state:running,paused",
    "and": "Leave it out: every term must match",
    "not": "The opposite is written with a - in front: -tag:web",
}


def _starts(wanted: str) -> TextTest:
    return lambda text: text.startswith(wanted)


def _glob(pattern: str) -> TextTest:
    from fnmatch import translate

    found = re.compile(translate(pattern)).match
    return lambda text: found(text) is not None


def _text_matcher(value: _Value, how: Callable[[str], TextTest]) -> TextTest:
    wanted = value.text.casefold()
    return _glob(wanted) if _GLOB.search(wanted) and not value.is_quoted else how(wanted)


def _any_of(matchers: Iterable[TextTest]) -> TextTest:
    choices = tuple(matchers)
    if len(choices) == 1:
        return choices[0]
    return lambda text: any(choice(text) for choice in choices)


def _text_test(term: _Term, how: Callable[[str], TextTest], *, negate: bool = True) -> TextTest:
    """The test of one text, in whatever case. Only ":" and "=" make sense for text."""
    if term.operator not in {":", "="}:
        raise term.error(f"{term.key} is text and cannot be compared with {term.operator}", f"Write {term.key}:…")
    matches = _any_of(_text_matcher(value, _equals if term.operator == "=" else how) for value in term.values)
    if negate and term.negated:
        return lambda text: not matches(text.casefold())
    if _is_plain_search(term, how):  # the commonest filter by far, without a call more a text
        wanted = term.values[0].text.casefold()
        return lambda text: wanted in text.casefold()
    return lambda text: matches(text.casefold())


def _is_plain_search(term: _Term, how: Callable[[str], TextTest]) -> bool:
    value = term.values[0]
    is_plain = value.is_quoted or not _GLOB.search(value.text)
    return len(term.values) == 1 and how is _contains and term.operator == ":" and is_plain


# Plain loops: a list of 10,000 VMs is filtered again at each key, and a generator a VM would take half of the time.


def _free_test(matches: TextTest) -> Test:
    """Free text looks at the name, the addresses, the title, the owner and the tags."""

    def test(vm: Vm) -> bool:
        if matches(vm.name):
            return True
        config = vm.config
        texts = vm.addresses if config is None else (*vm.addresses, config.title, config.owner, *config.tags)
        for text in texts:  # noqa: SIM110
            if text and matches(text):
                return True
        return False

    return test


def _texts_test(texts_of: Callable[[Vm], Iterable[str]], matches: TextTest) -> Test:
    def test(vm: Vm) -> bool:
        for text in texts_of(vm):  # noqa: SIM110
            if matches(text):
                return True
        return False

    return test


def _group_test(term: _Term) -> TextsTest:
    matches = _text_test(term, _equals, negate=False)
    return lambda groups: any(matches(group) for group in groups) is not term.negated


def _of_config(read: Callable[[VmConfig], Iterable[str]]) -> Callable[[Vm], Iterable[str]]:
    return lambda vm: read(vm.config) if vm.config is not None else ()


_TEXTS: dict[str, tuple[Callable[[Vm], Iterable[str]], Callable[[str], TextTest]]] = {
    "name": (lambda vm: (vm.name,), _contains),
    "uuid": (lambda vm: (vm.uuid,), _starts),
    "reason": (lambda vm: (vm.state_reason,), _contains),
    "ip": (lambda vm: vm.addresses, _starts),
    "tag": (_of_config(lambda config: config.tags), _equals),
    "owner": (_of_config(lambda config: (config.owner,)), _equals),
    "os": (_of_config(lambda config: (config.os_id,)), _contains),
    "title": (_of_config(lambda config: (config.title, config.description)), _contains),
    "net": (_of_config(lambda config: [nic.source for nic in config.nics]), _equals),
    "mac": (_of_config(lambda config: [nic.mac for nic in config.nics]), _starts),
    "disk": (_of_config(lambda config: [disk.source for disk in config.disks]), _contains),
}


def _state_test(term: _Term) -> Test:
    """A state matches by its beginning, so that `state:run` filters while one types."""
    matches = _text_test(term, _starts, negate=False)
    states = frozenset(state for state in VmState if matches(state.value) or matches(state.value.replace(" ", "-")))
    if not states:
        names = [state.value.replace(" ", "-") for state in VmState]
        raise term.error(f"no state is called {_shown(term)}", did_you_mean(term.values[0].text, names))
    return lambda vm: vm.state in states


# Flags

_FLAGS: dict[str, Test] = {
    "active": lambda vm: vm.is_active,
    "inactive": lambda vm: not vm.is_active,
    "running": lambda vm: vm.state is VmState.RUNNING,
    "off": lambda vm: vm.state is VmState.OFF,
    "paused": lambda vm: vm.state is VmState.PAUSED,
    "saved": lambda vm: vm.has_saved_state,
    "crashed": lambda vm: vm.state is VmState.CRASHED,
    "autostart": lambda vm: vm.autostart,
    "persistent": lambda vm: vm.persistent,
    "transient": lambda vm: not vm.persistent,
    "attention": lambda vm: vm.needs_attention,
    "checkpoint": lambda vm: vm.checkpoints > 0,
}


def _config_flag(test: Callable[[VmConfig], object]) -> Test:
    return lambda vm: vm.config is not None and bool(test(vm.config))


_CONFIG_FLAGS: dict[str, Test] = {
    "agent": _config_flag(lambda config: config.agent_connected),
    "emulated": _config_flag(lambda config: config.is_emulated),
    "passthrough": _config_flag(lambda config: config.host_devices),
    "pending": _config_flag(lambda config: config.pending_changes),
    "tagged": _config_flag(lambda config: config.tags),
    "tpm": _config_flag(lambda config: config.has_tpm),
    "uefi": _config_flag(lambda config: config.firmware == "uefi"),
}
_ALL_FLAGS = _FLAGS | _CONFIG_FLAGS


def _flag_test(term: _Term) -> Test:
    if term.operator not in {":", "="}:
        raise term.error(f"{term.key} cannot be compared with {term.operator}", f"Write {term.key}:running")
    tests = tuple(_flag(term, value.text.casefold()) for value in term.values)
    return lambda vm: any(test(vm) for test in tests)


def _flag(term: _Term, name: str) -> Test:
    if name in _ALL_FLAGS:
        return _ALL_FLAGS[name]
    what = f"{term.key}: does not know {printable(name, limit=40)!r}"
    remedy = did_you_mean(name, _ALL_FLAGS)
    if any(flag.startswith(name) for flag in _ALL_FLAGS):
        raise term.unfinished(what, remedy)
    raise term.error(what, remedy)


def _needs_config(term: _Term) -> bool:
    """Free text does too: it looks at tags and titles."""
    if term.key in {"is", "has"}:
        return _has_flag(term, *_CONFIG_FLAGS)
    return not term.key or term.key in CONFIG_KEYS


def _has_flag(term: _Term, *flags: str) -> bool:
    return term.key in {"is", "has"} and any(value.text.casefold() in flags for value in term.values)


# Numbers

_NUMBERS: dict[str, Callable[[Vm], float | None]] = {
    "cpu": lambda vm: vm.rates.cpu_percent,
    "steal": lambda vm: vm.rates.steal_percent,
    "vcpus": lambda vm: vm.vcpus or None,
    "checkpoints": lambda vm: vm.checkpoints,
    "id": lambda vm: vm.domain_id,
    "mem": lambda vm: vm.memory_bytes or None,
    "used": lambda vm: vm.memory_used_bytes,
    "read": lambda vm: vm.rates.disk_read_bytes_s,
    "write": lambda vm: vm.rates.disk_write_bytes_s,
    "receive": lambda vm: vm.rates.net_receive_bytes_s,
    "send": lambda vm: vm.rates.net_send_bytes_s,
}
_SIZES = frozenset({"mem", "used", "read", "write", "receive", "send"})
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ":": lambda a, b: a == b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}


def _number_test(term: _Term) -> Test:
    value_of, compare = _NUMBERS[term.key], _COMPARE[term.operator]
    limits = tuple(_number(term, value.text) for value in term.values)

    def test(vm: Vm) -> bool:
        value = value_of(vm)
        return value is not None and any(compare(value, limit) for limit in limits)

    return test


def _number(term: _Term, text: str) -> float:
    found = _NUMBER.fullmatch(text)
    if found is not None and (term.key not in _SIZES or float(found[1]) == 0):
        return float(found[1])
    if term.key not in _SIZES:
        raise term.unfinished(f"{printable(text, limit=40)!r} is not a number", f"Write it as {term.key}>50")
    try:
        return parse_size(text)
    except UsageError as error:
        raise term.unfinished(f"{printable(text, limit=40)!r} is not a size", error.remedy) from error


# What there is

FLAGS: tuple[str, ...] = tuple(_ALL_FLAGS)
KEYS: tuple[str, ...] = ("state", "is", "has", "host", "group", *_TEXTS, *_NUMBERS)
_ALIASES = {"memory": "mem"}
RATE_KEYS = frozenset({"cpu", "steal", "read", "write", "receive", "send"})
CONFIG_KEYS = frozenset({"tag", "owner", "os", "title", "net", "mac", "disk"})


def _shown(term: _Term) -> str:
    return ", ".join(repr(printable(value.text, limit=40)) for value in term.values)
