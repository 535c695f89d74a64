"""Templates as text for their screen: pure functions from a frozen Template to a line or rows. No widget here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC

from textual.content import Content

from host.text import display_width, fit, printable
from host.units import format_bytes
from hvtui.tui.widgets.page import Row, row
from vm.model import Vm
from vm.os_catalogue import OsSupport
from vm.template_model import DEFAULT_LIBRARY, ImageRole, Library, Template
from vm.template_verify import Finding, Verification

_NAME_CELLS = (8, 24)
_OS_CELLS = 12
_LEAST_ABOUT = 8  # cells that a description needs to tell anything
_LONGEST = 400
_MOST_NAMES, _MOST_OTHERS = 8, 12
_LABEL = 12
_FIRMWARE = {"uefi-secure": "secure"}
EMPTY = (
    row(),
    row("No template yet.", style="bold", indent=3),
    row(),
    row("VMs are deployed from templates, many at a time. A first one:", indent=3),
    row(),
    row(Content.assemble(("a", "bold $accent"), "  add one: tiny in seconds, debian in 3 minutes, or an image file"),
        indent=3),
)  # fmt: skip


IN_THE_DEMO = (
    row("The simulated host has no templates.", style="bold", indent=2),
    row("It keeps no file's content, and a template is files. On a real host, T and then a adds one: "
        "tiny in seconds, debian in 3 minutes.", style="$text-muted", indent=2),
)  # fmt: skip


def name_cells(templates: Sequence[Template]) -> int:
    """How wide the column of names is."""
    longest = max((display_width(printable(each.name, limit=60)) for each in templates), default=0)
    return min(max(longest, _NAME_CELLS[0]), _NAME_CELLS[1])


def made_from(template: Template, vms: Sequence[Vm]) -> tuple[Vm, ...]:
    """The VMs that say of themselves that they were made from it."""
    return tuple(vm for vm in vms if vm.config is not None and vm.config.template == template.name)


def head(cells: int, width: int = 80) -> str:
    """The columns' titles, for a list of that width."""
    columns = _columns(" NAME", "OS", "DISK", "VMS", "BOOTS", "READY", "REV", cells)
    return columns + ("  DESCRIPTION" if width - display_width(columns) > _LEAST_ABOUT else "")


def _columns(name: str, system: str, disk: str, vms: str, boots: str, ready: str, revision: str, cells: int) -> str:
    return (
        f"{fit(name, cells + 1)} {fit(system, _OS_CELLS)} {disk:>6} {vms:>4}  {fit(boots, 6)} {fit(ready, 10)}"
        f" {revision:>3}"
    )


def template_line(template: Template, vms: int, cells: int, width: int) -> Content:
    """One line of `width` cells; the first one is the cursor's."""
    name = f" {printable(template.name, limit=60)}"
    columns = _columns(
        name, system(template), _disk(template), str(vms) if vms else "–",
        _FIRMWARE.get(template.firmware.value, template.firmware.value), template.readiness.value,
        str(template.revision), cells,
    )  # fmt: skip
    room = max(width - display_width(columns) - 2, 0)
    about = fit(printable(template.description, limit=200), room) if room + 2 > _LEAST_ABOUT else ""
    plain = Content.assemble(fit(name, cells + 1), (columns[len(fit(name, cells + 1)) :], "$text-muted"))
    return Content.assemble(plain, "  ", (about, "")) if about else plain


def system(template: Template) -> str:
    """Its system in a few letters: "debian 12" of http://debian.org/debian/12."""
    parts = [part for part in template.os_id.rstrip("/").split("/") if part]
    return printable(" ".join(parts[-2:]), limit=40) or "–"


def _disk(template: Template) -> str:
    disk = template.image(ImageRole.DISK)
    return format_bytes(disk.virtual_size_bytes) if disk is not None else "–"


def template_rows(
    template: Template, vms: Sequence[Vm], *, support: str = "", verified: Verification | None = None
) -> list[Row]:
    """Everything about one template."""
    linked = [vm.name for vm in vms if vm.config is not None and vm.config.is_linked]
    copies = [vm.name for vm in vms if vm.config is None or not vm.config.is_linked]
    rows = [row(printable(template.name, limit=100), style="bold", indent=1)]
    rows += [row(printable(template.description, limit=_LONGEST), indent=3)] if template.description else []
    rows += _verdict_rows(verified) if verified is not None else []
    rows += _fact("system", template.os_id)
    rows += _fact("support", support)
    rows += _fact("boots by", f"{template.firmware.value}, {template.disk_bus} disk, {template.nic_model} card")
    seed = "; takes a cloud-init seed" if template.takes_seed else ""
    rows += _fact("ready", f"{_READY[template.readiness.value]}{seed}")
    for image in template.images:
        sizes = f"{format_bytes(image.virtual_size_bytes)}, {format_bytes(image.size_bytes)} stored"
        rows += _fact(image.role.value, f"{image.volume}  {image.format}, {sizes}")
    rows += _fact("arguments", template.kernel_arguments)
    rows += _fact("linked VMs", _names(linked) or "none")
    rows += _fact("copies", _names(copies))
    rows += _fact("profiles", ", ".join(each for each in (template.hardware_profile, template.guest_profile) if each))
    rows += _fact("tags", ", ".join(template.tags))
    made = f", {template.created_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if template.created_at else ""
    return [*rows, *_fact("from", f"{template.origin or 'unknown'}{made}, revision {template.revision}")]


_READY = {
    "cloud-init": "when cloud-init has finished",
    "agent": "when its agent answers",
    "serial": "when its serial console says so",
    "none": "nobody knows: running is ready",
}


def _fact(label: str, text: str) -> list[Row]:
    if not text:
        return []
    margin = Content.styled("   " + fit(label, _LABEL), "$text-muted")
    return [Row(Content(printable(text, limit=_LONGEST)), margin, _LABEL + 3)]


def _names(names: Collection[str]) -> str:
    shown = ", ".join(printable(name, limit=40) for name in sorted(names)[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")


def _verdict_rows(verified: Verification) -> list[Row]:
    if verified.is_good:
        return [row("verified: its images are what they were", mark="✓", style="$text-success")]
    return [
        row(f"{printable(image.volume, limit=80)} is {image.finding.value}: {printable(image.detail, limit=300)}",
            mark="×", style="$text-error")
        for image in verified.images
        if image.finding is not Finding.GOOD
    ]  # fmt: skip


def support_words(found: OsSupport) -> str:
    """Whether somebody still mends a system, and what osinfo-db says beside that."""
    ends = f" until {found.end_date.isoformat()}" if found.end_date else ""
    drivers = "" if found.virtio_disk or found.virtio_scsi else "no paravirtual disk driver of its own"
    state = f"{found.name}: {found.state.value}{ends}"
    return ". ".join(part for part in (state, drivers, found.note) if part)


def library_rows(library: Library) -> list[Row]:
    """What is wrong in the library, and what else lies there."""
    rows = [row(printable(problem, limit=_LONGEST), mark="!", style="$text-warning") for problem in library.problems]
    if library.others:
        names = ", ".join(printable(name, limit=60) for name in library.others[:_MOST_OTHERS])
        more = len(library.others) - _MOST_OTHERS
        shown = f"also in the library: {names}" + (f" and {more} more" if more > 0 else "")
        rows.append(row(shown, style="$text-disabled", indent=3))
    free = f", {format_bytes(library.free_bytes)} free" if library.free_bytes is not None else ""
    name = "" if library.pool == DEFAULT_LIBRARY else f" {printable(library.pool, limit=40)}"
    where = f"library{name}: {printable(library.path, limit=120)}{free}"
    return [*rows, row(where, style="$text-disabled", indent=3)]
