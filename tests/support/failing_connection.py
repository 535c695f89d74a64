"""A connection of libvirt's test driver of which one call fails with a libvirt error of choice."""

from __future__ import annotations

from typing import Any, NoReturn

import libvirt


def libvirt_error(code: int, domain: int, message: str) -> libvirt.libvirtError:
    """An error as the binding raises it."""
    error = libvirt.libvirtError(message)
    error.err = (code, domain, message, 2, None, None, None, 0, 0)
    return error


class FailingConnection:
    """`connection` itself, but its call `name` raises."""

    def __init__(
        self,
        connection: Any,
        name: str,
        *,
        code: int = libvirt.VIR_ERR_INTERNAL_ERROR,
        domain: int = libvirt.VIR_FROM_QEMU,
    ) -> None:
        self._connection = connection
        self._name = name
        self._error = libvirt_error(code, domain, f"{name} failed")

    def __getattr__(self, name: str) -> Any:
        return self._fail if name == self._name else getattr(self._connection, name)

    def _fail(self, *_: Any) -> NoReturn:
        raise self._error
