"""Plans that replace a VM's whole XML, as a person edited it. The text is hostile until libvirt has validated it.

A secret in the new text (a VNC password) goes through host.secrets; those in force stay when the text has none, since
the text that was handed out had none either. This module changes nothing; vm.edit_steps has the verb.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

import libvirt

from host import secrets
from host.connection import Host
from host.errors import UsageError
from host.plan import Blocker, Json, Plan, Step
from host.text import printable
from vm import edit_steps
from vm.commands import host_blockers, identity, virsh, words
from vm.domain_xml import parse, to_text
from vm.model import Vm
from vm.redact import extract


def editable_xml(host: Host, vm: Vm) -> str:
    """The XML that the next start uses, without secrets. Raises NotFound, ConnectionLost."""
    with host.calls("read the XML of", vm.name) as connection:
        domain = connection.lookupByUUIDString(vm.uuid)
        return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


def plan_edit(host: Host, vm: Vm, new_xml: str) -> Plan:
    """Replace the VM's XML by `new_xml`. Raises UsageError for XML that is malformed, of another VM, or not valid."""
    root = parse(new_xml)
    _check_identity(root, vm)
    given = extract(root)
    before = editable_xml(host, vm)
    # Kept as the person wrote it unless a secret had to come out: comments and layout make the diff readable.
    after = to_text(root) if given else new_xml
    _check_schema(host, after)
    title = f"Change the XML of {vm.name}"
    args: dict[str, Json] = {
        **identity(vm),
        "xml": after,
        "before": before,
        "secrets": {key: secrets.offer(value) for key, value in given.items()},
    }
    return Plan(
        title=title,
        host_uri=host.uri,
        steps=(Step(edit_steps.VERB, title, args, (virsh(host.uri, "edit", vm.name),)),),
        command=words("edit", vm.name, "--file", "FILE"),
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        warnings=_warnings(vm, before, after, given),
        blockers=(*host_blockers(host), *_blockers(vm)),
        xml_before=before,
        xml_after=after,
    )


def _check_identity(root: Element, vm: Vm) -> None:
    uuid = root.findtext("uuid", "").strip()
    if uuid.replace("-", "").lower() != vm.uuid.replace("-", ""):
        shown = printable(uuid, limit=60) or "missing"
        raise UsageError(f"the uuid must stay {vm.uuid}: it is {shown}", about=vm.name, remedy="Put it back")
    name = root.findtext("name", "")
    if name != vm.name:
        shown = printable(name, limit=60) or "missing"
        remedy = "Put it back; 'vm rename' changes a name"
        raise UsageError(f"the name must stay as it is, not {shown!r}", about=vm.name, remedy=remedy)


def _warnings(vm: Vm, before: str, after: str, given: dict[str, str]) -> tuple[str, ...]:
    warnings = []
    if after.strip() == before.strip() and not given:
        warnings.append("Nothing is different")
    if vm.is_active:
        warnings.append("It is running: the change takes effect at the next start")
    if vm.has_saved_state and not vm.is_active:
        warnings.append("Its saved state keeps the old configuration: the change takes effect at the start after that")
    return tuple(warnings)


def _blockers(vm: Vm) -> tuple[Blocker, ...]:
    if vm.persistent:
        return ()
    remedy = "Define it first (virsh dumpxml and virsh define)"
    return (Blocker.wrong_state("it is transient: it has no configuration to change", remedy=remedy),)


def _check_schema(host: Host, xml: str) -> None:
    """Validate the XML here, with the libvirt library of this process, when the host's libvirt has the same schema.

    libvirt's only call that validates is a define: so the XML is defined on a test driver of its own, which lives and
    ends inside this process. What else that driver thinks of another driver's VM does not matter.
    """
    with host.calls("read the version of libvirt") as connection:
        if not host.is_simulated and connection.getLibVersion() != libvirt.getVersion():
            return  # the host's libvirt validates it when it defines it
    scratch = libvirt.open("test:///default")
    try:
        scratch.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_XML_INVALID_SCHEMA:
            raise UsageError(f"the XML is not a valid domain: {_complaint(error)}") from error
    finally:
        scratch.close()


def _complaint(error: libvirt.libvirtError) -> str:
    """The schema's complaints on one line, without the path of the schema."""
    lines = [line.strip() for line in str(error.get_error_message()).splitlines()]
    told = [line for line in lines[1:] if line and not line.endswith("failed to validate content")]
    return printable("; ".join(told or lines), limit=500)
