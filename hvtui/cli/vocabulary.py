"""Words that people bring from virsh and other programs, and what they are called here. Data and pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from host.text import did_you_mean

# virsh's word, or another program's -> the verb of `hvtui vm`.
VM_WORDS: Mapping[str, str] = {
    "boot": "start",
    "run": "start",
    "up": "start",
    "restore": "start",
    "shutdown": "stop",
    "poweroff": "off",
    "destroy": "off",
    "kill": "off",
    "reboot": "restart",
    "suspend": "pause",
    "unpause": "resume",
    "managedsave": "save",
    "managedsave-remove": "discard-saved",
    "undefine": "delete",
    "remove": "delete",
    "rm": "delete",
    "define": "create",
    "new": "create",
    "provision": "deploy",
    "domrename": "rename",
    "mv": "rename",
    "setmem": "set",
    "setvcpus": "set",
    "setmaxmem": "set",
    "desc": "set",
    "ls": "list",
    "ps": "list",
    "status": "list",
    "info": "show",
    "get": "show",
    "describe": "show",
    "inspect": "show",
    "view": "show",
    "dominfo": "show",
    "domstate": "show",
    "domid": "show",
    "domuuid": "show",
    "domname": "show",
    "domblklist": "show",
    "domiflist": "show",
    "domifaddr": "show",
    "snapshot-list": "show",
    "dumpxml": "xml",
    "cat": "xml",
    "domstats": "watch",
    "top": "watch",
    "event": "watch",
    "ttyconsole": "console",
}
HOST_WORDS: Mapping[str, str] = {
    "nodeinfo": "show",
    "capabilities": "show",
    "info": "show",
    "version": "show",
    "nodememstats": "show",
    "nodecpustats": "show",
    "event": "events",
    "watch": "events",
    "status": "overview",
}
JOB_WORDS: Mapping[str, str] = {
    "ls": "list",
    "info": "show",
    "status": "show",
    "get": "show",
    "log": "show",
    "wait": "watch",
    "stop": "cancel",
    "abort": "cancel",
    "kill": "cancel",
    "retry": "restart",
    "revert": "undo",
}
PROFILE_WORDS: Mapping[str, str] = {
    "ls": "list",
    "info": "show",
    "get": "show",
    "cat": "show",
    "export": "show",
    "create": "add",
    "new": "add",
    "import": "add",
    "set": "edit",
    "delete": "remove",
    "rm": "remove",
    "validate": "check",
    "verify": "check",
}
TEMPLATE_WORDS: Mapping[str, str] = {
    "ls": "list",
    "info": "show",
    "get": "show",
    "describe": "show",
    "inspect": "show",
    "create": "add",
    "new": "add",
    "import": "add",
    "upload": "add",
    "define": "add",
    "set": "edit",
    "update": "edit",
    "delete": "remove",
    "rm": "remove",
    "undefine": "remove",
    "check": "verify",
}
WORDS: Mapping[str, Mapping[str, str]] = {
    "profile": PROFILE_WORDS,
    "vm": VM_WORDS,
    "host": HOST_WORDS,
    "job": JOB_WORDS,
    "template": TEMPLATE_WORDS,
}
READING = frozenset({"list", "show", "xml", "watch", "overview", "events", "console"})
_READING_STARTS = ("dom", "get", "info", "list", "ls", "show", "stat", "view", "print", "read")


def nearest_verb(noun: str, word: str, verbs: Iterable[str]) -> str:
    """A hint at the verb of `noun` that `word` means; one that changes something is never given for a word that
    sounds as if it only read."""
    known = list(verbs)
    meant = WORDS.get(noun, {}).get(word.casefold())
    if meant is not None:
        return f"That is called {meant} here: 'hvtui {noun} {meant}'"
    sounds_harmless = word.casefold().startswith(_READING_STARTS)
    near = [verb for verb in known if verb in READING] if sounds_harmless and noun in WORDS else known
    return did_you_mean(word, near)


def nearest_noun(word: str, nouns: Mapping[str, Iterable[str]]) -> str:
    """A hint at the noun (with its verbs) that `word` means, or at the noun whose verb it is."""
    said = word.casefold()
    for noun, verbs in nouns.items():
        verb = said if said in verbs else WORDS.get(noun, {}).get(said)
        if verb is not None:
            return f"Write 'hvtui {noun} {verb}'"
    return did_you_mean(word, nouns)
