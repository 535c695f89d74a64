"""The index of a library: one volume with the contents of all manifests, so that a listing reads one and not hundreds.

It is only ever a shortcut. A manifest's volume name holds a hash of its text and never stands for another text, so an
entry is as good as the manifest exactly when a volume of that name is there; what the index lacks is read from the
manifests themselves, and an index that is missing, damaged or old costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import libvirt

from host import volumes
from host.errors import UsageError
from host.units import MIB
from vm.template_manifest import to_document
from vm.template_model import Template

INDEX_NAME = "hvtui-index.json"
LIMIT_BYTES = 16 * MIB
_VERSION = 1


def index_text(templates: Iterable[Template]) -> str:
    """The index of these templates."""
    import json

    manifests = {each.manifest: to_document(each) for each in templates if each.manifest}
    return json.dumps({"version": _VERSION, "manifests": manifests}, default=_plain, separators=(",", ":"))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def parse_index(text: str) -> dict[str, Mapping[str, Any]]:
    """The manifests' documents by the names of their volumes. Raises UsageError for what is no index."""
    import json

    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError("it is no JSON", about=INDEX_NAME) from error
    manifests = found.get("manifests") if isinstance(found, dict) and found.get("version") == _VERSION else None
    if not isinstance(manifests, dict):
        raise UsageError("it is no index of this version", about=INDEX_NAME)
    return {name: each for name, each in manifests.items() if isinstance(each, dict)}


def read_index(volume: Any | None) -> dict[str, Mapping[str, Any]]:
    """The documents in the index's volume; none where it is missing, damaged, or being written anew. Raises
    libvirtError where the connection is lost."""
    if volume is None:
        return {}
    try:
        return parse_index(volumes.read_volume_text(volume, limit_bytes=LIMIT_BYTES))
    except UsageError:
        return {}
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return {}


def write_index(connection: Any, pool: str, templates: Iterable[Template]) -> str:
    """Write the index anew. Returns why it could not be, or "": the library is whole without it. Raises libvirtError
    where the connection is lost."""
    try:
        volumes.write_text(connection, pool, INDEX_NAME, index_text(templates))
    except libvirt.libvirtError as error:
        if error.get_error_domain() == libvirt.VIR_FROM_RPC:
            raise
        return error.get_error_message() or "the index could not be written"
    return ""
