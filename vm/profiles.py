"""Profiles for whoever uses them: reading and writing TOML (vm.profile_toml), and overriding single values
(vm.profile_settings). vm.profile_store keeps them in the library. Pure.
"""

from __future__ import annotations

from vm.profile_settings import SETTINGS, override
from vm.profile_toml import (
    KINDS,
    Profile,
    check_guest,
    check_hardware,
    kind_of,
    name_in,
    parse,
    parse_guest,
    parse_hardware,
    to_document,
    to_toml,
)

__all__ = [
    "KINDS",
    "SETTINGS",
    "Profile",
    "check_guest",
    "check_hardware",
    "kind_of",
    "name_in",
    "override",
    "parse",
    "parse_guest",
    "parse_hardware",
    "to_document",
    "to_toml",
]
