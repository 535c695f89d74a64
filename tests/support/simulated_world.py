"""Worlds for libvirt's test driver: the XML files behind test:///FILE and test+unix:///FILE.

`domain` makes one <domain>, `world` makes the file's text. `VARIED` is the fixture of about a dozen VMs that the shared
`simulated` host shows. It holds no pytest fixture.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

HVTUI_NAMESPACE = "https://hvtui.org/xmlns/domain/1"
OSINFO_NAMESPACE = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
TEST_NAMESPACE = "http://libvirt.org/schemas/domain/test/1.0"

RUN_STATES = {"running": 1, "paused": 3, "off": 5, "crashed": 6}

MARKUP_NAME = "[red]bold[reset] <b>&amp;"
ESCAPE_NAME = "evil\u202etxt\u009b31m"
WIDE_NAME = "日本語-вм-1"
GLOB_NAME = "star*[x]"
LONG_NAME = "long-" + "n" * 10_000
HOSTILE_NAMES = (MARKUP_NAME, ESCAPE_NAME, WIDE_NAME, GLOB_NAME, LONG_NAME)


def uuid_of(name: str) -> str:
    """The uuid that `domain` gives to that name, the same in each run."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def domain(
    name: str,
    *,
    state: str = "off",
    saved: bool = False,
    transient: bool = False,
    title: str = "",
    description: str = "",
    tags: Sequence[str] = (),
    owner: str = "",
    os_id: str = "",
    memory_mib: int = 512,
    vcpus: int = 1,
    disks: Sequence[str] = (),
    networks: Sequence[str] = (),
    devices: str = "",
    snapshots: Sequence[str] = (),
) -> str:
    """One <domain type='test'> in `state` (a key of RUN_STATES); `disks` are paths, `networks` network names."""
    return f"""
<domain type='test' xmlns:test='{TEST_NAMESPACE}'>
  <name>{escape(name)}</name>
  <uuid>{uuid_of(name)}</uuid>
  {f"<title>{escape(title)}</title>" if title else ""}
  {f"<description>{escape(description)}</description>" if description else ""}
  {_metadata(tags, owner, os_id)}
  <memory unit='MiB'>{memory_mib}</memory>
  <currentMemory unit='MiB'>{memory_mib}</currentMemory>
  <vcpu>{vcpus}</vcpu>
  <os><type arch='i686'>hvm</type><boot dev='hd'/></os>
  <clock offset='utc'/>
  <devices>
    {"".join(_disk(index, path) for index, path in enumerate(disks))}
    {"".join(_nic(name, index, network) for index, network in enumerate(networks))}
    {devices}
  </devices>
  <test:runstate>{RUN_STATES[state]}</test:runstate>
  {"<test:hasmanagedsave/>" if saved else ""}
  {"<test:transient/>" if transient else ""}
  {"".join(_snapshot(name, each) for each in snapshots)}
</domain>"""


def _metadata(tags: Sequence[str], owner: str, os_id: str) -> str:
    own = "".join(f"<hvtui:tag>{escape(tag)}</hvtui:tag>" for tag in tags)
    own += f"<hvtui:owner>{escape(owner)}</hvtui:owner>" if owner else ""
    parts = f"<hvtui:vm xmlns:hvtui='{HVTUI_NAMESPACE}'>{own}</hvtui:vm>" if own else ""
    if os_id:
        parts += f"<l:libosinfo xmlns:l='{OSINFO_NAMESPACE}'><l:os id={quoteattr(os_id)}/></l:libosinfo>"
    return f"<metadata>{parts}</metadata>" if parts else ""


def _disk(index: int, path: str) -> str:
    target = f"vd{chr(ord('a') + index)}"
    kind = "qcow2" if path.endswith(".qcow2") else "raw"
    return (
        f"<disk type='file' device='disk'><driver name='test' type='{kind}'/><source file={quoteattr(path)}/>"
        f"<target dev='{target}' bus='virtio'/></disk>"
    )


def _nic(name: str, index: int, network: str) -> str:
    digits = uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}/{index}").hex
    mac = f"52:54:00:{digits[0:2]}:{digits[2:4]}:{digits[4:6]}"
    return (
        f"<interface type='network'><mac address='{mac}'/><source network={quoteattr(network)}/>"
        "<model type='virtio'/></interface>"
    )


def _snapshot(vm_name: str, name: str) -> str:
    kept = (  # without it libvirt prints a warning about an "older snapshot"
        f"<domain type='test'><name>{escape(vm_name)}</name><uuid>{uuid_of(vm_name)}</uuid>"
        "<memory unit='MiB'>512</memory><os><type arch='i686'>hvm</type></os></domain>"
    )
    return (
        f"<test:domainsnapshot><name>{escape(name)}</name><creationTime>1700000000</creationTime>"
        f"<state>shutoff</state>{kept}<active>1</active></test:domainsnapshot>"
    )


def world(domains: Iterable[str]) -> str:
    """The text of a file for the test driver that holds these domains, one network and one pool."""
    return f"""<node>
  {"".join(domains)}
  <network><name>default</name><bridge name='virbr0'/><ip address='192.0.2.1' netmask='255.255.255.0'/></network>
  <pool type='dir'><name>default</name><target><path>/var/lib/libvirt/images</path></target></pool>
  <cpu><mhz>2400</mhz><model>x86</model><nodes>2</nodes><sockets>1</sockets><cores>4</cores><threads>2</threads>
    <active>16</active></cpu>
  <memory>67108864</memory>
</node>"""


def many(count: int) -> str:
    """A world of `count` plain VMs, vm-0000 and so on, each third one running."""
    states = ("running", "off", "off")
    return world(
        domain(f"vm-{index:04}", state=states[index % 3], disks=[f"/img/vm-{index:04}.qcow2"], networks=["default"])
        for index in range(count)
    )


AGENT_CHANNEL = "<channel type='pty'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
CDROM = "<disk type='file' device='cdrom'><target dev='sdc' bus='sata'/><readonly/></disk>"

VARIED = (
    domain(
        "web-01",
        state="running",
        title="Front page",
        description="Serves the shop.\nAsk Alice.",
        tags=["web", "prod"],
        owner="alice",
        os_id="http://debian.org/debian/12",
        memory_mib=2048,
        vcpus=2,
        disks=["/var/lib/libvirt/images/web-01.qcow2"],
        networks=["default"],
        devices=AGENT_CHANNEL + "<console type='pty'/>",
        snapshots=["before-upgrade"],
    ),
    domain("web-02", state="running", tags=["web"], owner="alice", memory_mib=2048, vcpus=2),
    domain("db-01", state="paused", tags=["db", "prod"], owner="bob", memory_mib=4096, vcpus=4),
    domain(
        "files",
        state="running",
        owner="bob",
        disks=["/img/files.qcow2", "/img/files-data.raw"],
        networks=["default", "default"],
        devices=CDROM,
    ),
    domain("build-07", tags=["build"], memory_mib=4096, disks=["/img/build-07.qcow2"]),
    domain("build-08", saved=True, tags=["build"], memory_mib=4096),
    domain("panicked", state="crashed", owner="alice"),
    domain("scratch", state="running", transient=True),
    domain(MARKUP_NAME, title="[blink]<i>", tags=["web"]),
    domain(ESCAPE_NAME, state="running", description="\u009b2J"),
    domain(WIDE_NAME, owner="日本"),
    domain(GLOB_NAME),
    domain(LONG_NAME),
)


EVIL = "\u009b2J\u202e[red]<b>\u200b\ue000"


def hostile_domains() -> list[str]:
    """VMs with hostile names, and one with a plain one, of which every other text is hostile, too."""
    return [
        domain(
            name,
            state="running" if number % 2 else "off",
            title=f"{EVIL}{'t' * 5000}",
            description=f"{EVIL}\nnext line\t{'d' * 10_000}",
            tags=[EVIL, "x" * 5000],
            owner=EVIL,
            os_id=f"http://{EVIL}",
            disks=[f"/img/{EVIL}.qcow2", f"/img/{'p' * 3000}.raw"],
            networks=["default"],
            snapshots=[f"s{number}"],
        )
        for number, name in enumerate((*HOSTILE_NAMES, "plain"))
    ]


def write_varied(path: Path) -> Path:
    """Write the varied world to `path` and return it."""
    path.write_text(world(VARIED), encoding="utf-8")
    return path
