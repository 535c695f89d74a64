"""Fits the devices of an imported VM to a host: what the host lacks is replaced or left out, and a finding says so.

Only devices that hvtui knows stay, and none that reaches into the host: no device, directory, socket or file of it. At
the end `foreign_paths` looks for any path of the host that is left, which then keeps the VM from being imported. Pure
functions on parsed XML; disks and network cards are in vm.import_disks and vm.import_nics.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from xml.etree.ElementTree import Element, SubElement

from host.errors import Unsupported
from host.text import printable
from vm.import_report import Findings
from vm.import_surroundings import Surroundings

RANDOM_SOURCES = frozenset({"/dev/urandom", "/dev/random", "/dev/hwrng"})
_KEPT = frozenset(
    {
        "emulator", "disk", "controller", "interface", "serial", "parallel", "console", "channel", "input", "graphics",
        "sound", "audio", "video", "watchdog", "memballoon", "rng", "tpm", "panic", "vsock", "hub", "iommu", "memory",
        "redirdev", "smartcard",
    }
)  # fmt: skip
_LISTEN_ANYWHERE = frozenset({"127.0.0.1", "0.0.0.0", "::1", "::"})  # noqa: S104 - compared, not bound
_OWN_TYPES = frozenset({"pty", "null", "vc", "stdio"})  # of a character device, without anything of the host
_TEXTS = frozenset({"title", "description", "metadata", "name", "cmdline"})  # of a person or of the guest


def fit_devices(root: Element, around: Surroundings, findings: Findings, *, is_copy: bool) -> None:
    """Make the devices of the domain `root`, but for disks and network cards, ones that the host has."""
    devices = root.find("devices")
    if devices is None:
        return
    for device in list(devices):
        if device.tag not in _KEPT:
            devices.remove(device)
            findings.changed(_left_out(device))
    _fit_graphics(devices, around, findings, is_copy=is_copy)
    _fit_video(devices, around, findings)
    has_spice = devices.find("graphics[@type='spice']") is not None
    for device in list(devices):
        if device.tag in {"serial", "parallel", "console"}:
            _fit_character(device, findings)
        elif device.tag in {"channel", "redirdev", "smartcard", "audio"}:
            _fit_channel(devices, device, findings, has_spice=has_spice)
        elif device.tag in {"input", "memory"}:
            _leave_if_of_host(devices, device, findings)
        elif device.tag == "rng":
            _fit_random(device, findings)
        elif device.tag == "vsock" and is_copy:
            _new_context(device)
    for log in [parent for parent in devices.iter() if parent.find("log") is not None]:
        for each in log.findall("log"):
            log.remove(each)
            findings.changed("what a console prints is not written to a file of the host")
    _fit_tpm(devices, around, findings)


def _left_out(device: Element) -> str:
    tag, kind = printable(str(device.tag).rpartition("}")[2], limit=40), printable(device.get("type", ""), limit=20)
    if device.tag == "hostdev":
        address = device.find("source/address")
        where = "" if address is None else " " + ":".join(address.attrib.values())
        return (
            f"a {kind} device of its old host ({printable(where.strip(), limit=60)}) is left out: give it one of here"
        )
    if device.tag == "filesystem":
        source = device.find("source")
        shown = printable(" ".join(source.attrib.values()) if source is not None else "", limit=120)
        return f"the directory {shown}, which its old host shared with it, is left out"
    return f"its <{tag}> is left out: it is bound to its old host"


# Screens


def _fit_graphics(devices: Element, around: Surroundings, findings: Findings, *, is_copy: bool) -> None:
    kept: list[Element] = []
    for graphics in devices.findall("graphics"):
        kind = graphics.get("type", "")
        if kind in {"sdl", "desktop", "dbus", "rdp"} or (around.graphics and kind not in around.graphics):
            devices.remove(graphics)
            findings.changed(f"its screen is reached by VNC here, not by {printable(kind, limit=20)}")
            if not kept and devices.find("graphics") is None:
                kept.append(SubElement(devices, "graphics", type="vnc"))
                SubElement(kept[-1], "listen", type="socket")
            continue
        kept.append(graphics)
        _fit_listening(graphics, around, findings, is_copy=is_copy)
        for renderer in [each for each in graphics.findall("gl") if each.get("rendernode")]:
            graphics.remove(renderer)
            findings.changed("its screen is drawn without a graphics card of its old host")


def _fit_listening(graphics: Element, around: Surroundings, findings: Findings, *, is_copy: bool) -> None:
    graphics.attrib.pop("socket", None)
    for listen in [graphics, *graphics.findall("listen")]:
        listen.attrib.pop("socket", None)
        address = listen.get("address", "") if listen.tag == "listen" else listen.get("listen", "")
        network = listen.get("network", "")
        if network and network not in around.networks:
            listen.attrib.pop("network")
            listen.set("type", "address")
            listen.set("address", "127.0.0.1")
            findings.changed(f"its screen listens on 127.0.0.1: there is no network {printable(network, limit=40)}")
        elif address and address not in _LISTEN_ANYWHERE:
            listen.set("listen" if listen.tag == "graphics" else "address", "127.0.0.1")
            if listen.tag == "graphics":
                findings.changed(f"its screen listens on 127.0.0.1, not on {printable(address, limit=60)}")
    if is_copy and graphics.get("autoport") == "no":
        for name in ("port", "tlsPort", "websocket"):
            if graphics.get(name):
                graphics.set(name, "-1")
        graphics.set("autoport", "yes")
        findings.changed("its screen's port is chosen at each start: the old one may be taken")


def _fit_video(devices: Element, around: Surroundings, findings: Findings) -> None:
    for model in devices.findall("video/model"):
        for acceleration in [each for each in model.findall("acceleration") if each.get("rendernode")]:
            model.remove(acceleration)
        wanted = model.get("type", "")
        if around.video_models and wanted not in around.video_models:
            best = next((each for each in ("virtio", "vga") if each in around.video_models), "none")
            model.attrib.clear()
            model.set("type", best)
            findings.changed(f"its video card is {best}: this host has no {printable(wanted, limit=20)}")


# Lines and channels


def _fit_character(device: Element, findings: Findings) -> None:
    kind = device.get("type", "")
    for name in ("tty", "path"):
        device.attrib.pop(name, None)
    if kind in _OWN_TYPES:
        for source in device.findall("source"):
            device.remove(source)
        return
    device.set("type", "pty")
    for child in list(device):
        if child.tag in {"source", "protocol"}:
            device.remove(child)
    findings.changed(f"its {device.tag} line is a console, not {printable(kind, limit=20)} of its old host")


def _fit_channel(devices: Element, device: Element, findings: Findings, *, has_spice: bool) -> None:
    kind = device.get("type", "")
    if kind == "unix" and device.tag == "channel":
        for source in device.findall("source"):  # libvirt chooses a socket of its own
            device.remove(source)
    elif kind == "spicevmc" or (device.tag == "audio" and kind == "spice"):
        if not has_spice:
            devices.remove(device)
            findings.changed(f"a {device.tag} of SPICE is left out: it has no SPICE screen here")
    elif device.tag == "audio":
        if kind != "none":
            number = device.get("id", "1")
            device.clear()
            device.set("id", number)
            device.set("type", "none")
            findings.changed(f"its sound is not heard: {printable(kind, limit=20)} is bound to its old host")
    elif kind not in {"pty", "qemu-vdagent"}:
        devices.remove(device)
        findings.changed(f"its {device.tag} to {printable(kind, limit=20)} of its old host is left out")


def _leave_if_of_host(devices: Element, device: Element, findings: Findings) -> None:
    is_memory = device.tag == "memory"
    if (
        device.get("model") in {"dimm", "virtio-mem"}
        if is_memory
        else device.get("type") in {"mouse", "tablet", "keyboard"}
    ):
        return
    devices.remove(device)
    findings.changed(f"its {device.tag} of a file or device of its old host is left out")


def _fit_random(device: Element, findings: Findings) -> None:
    backend = device.find("backend")
    if backend is None or backend.get("model") == "builtin":
        return
    if backend.get("model") == "random" and (backend.text or "").strip() in {*RANDOM_SOURCES, ""}:
        return
    device.remove(backend)
    SubElement(device, "backend", model="random").text = "/dev/urandom"
    findings.changed("its random numbers come from /dev/urandom")


def _new_context(device: Element) -> None:
    for cid in device.findall("cid"):
        cid.attrib.clear()
        cid.set("auto", "yes")


# TPM


def _fit_tpm(devices: Element, around: Surroundings, findings: Findings) -> None:
    for tpm in devices.findall("tpm"):
        backend = tpm.find("backend")
        if backend is None or backend.get("type") != "emulator":
            devices.remove(tpm)
            findings.changed("the TPM of its old host is left out: a guest that needs one can get a virtual one")
            continue
        for source in backend.findall("source"):
            backend.remove(source)
        if not around.tpm_models:
            remedy = "Install it: apt-get install swtpm swtpm-tools"
            findings.block("this host cannot emulate a TPM", remedy, exit_code=Unsupported.exit_code)
        elif tpm.get("model") not in around.tpm_models:
            findings.changed(f"its TPM is of the model {around.tpm_models[0]}")
            tpm.set("model", around.tpm_models[0])
        else:
            findings.ok("a TPM can be emulated")


# What is left


def foreign_paths(root: Element, known: Collection[str]) -> Iterator[str]:
    """Each path of the host that the definition still names, with its element; `known` are those that it may."""
    for element in _elements(root):
        for value in (*element.attrib.values(), element.text or ""):
            text = value.strip()
            if text.startswith("/") and text not in known and text not in RANDOM_SOURCES:
                yield f"{printable(text, limit=120)} in <{printable(str(element.tag), limit=40)}>"


def _elements(element: Element) -> Iterator[Element]:
    if element.tag in _TEXTS:
        return
    yield element
    for child in element:
        yield from _elements(child)
