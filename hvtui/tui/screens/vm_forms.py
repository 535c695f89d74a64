"""The forms that make something of one VM: a bundle, a template. The plan dialog does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from host.plan import Plan
from host.text import printable
from hvtui.tui import vm_forms
from hvtui.tui.form_fields import Field
from hvtui.tui.screens.form import HOW_TO_MOVE, FormScreen
from hvtui.tui.widgets.page import Row, row
from vm.model import Snapshot, Vm


class _VmForm(FormScreen[Plan]):
    """Made for `vm`, which is planned for as the list has it now."""

    def __init__(self, vm: Vm, fields: Sequence[Field]) -> None:
        super().__init__(fields)
        self.vm = vm

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        found = next((vm for vm in snapshot.vms if vm.key == self.vm.key), None)
        if found is not None:
            is_other = found.state is not self.vm.state
            self.vm = found
            if is_other:
                self.preview_soon()

    @property
    def _vm_name(self) -> str:
        return printable(self.vm.name, limit=60)


class ExportScreen(_VmForm):
    """A bundle of a VM: definition, disks, firmware variables, TPM state, with checksums."""

    SCOPES: ClassVar[tuple[str, ...]] = ("export",)
    FIRST_FIELD = "directory"

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm, vm_forms.export_fields(vm))

    def title_text(self) -> str:
        return f"Export {self._vm_name} to a bundle"

    def begin(self) -> Sequence[Row]:
        return (row("Say where the bundle goes: a directory here.", style="$text-muted", indent=2), HOW_TO_MOVE)

    async def make(self) -> Plan:
        from vm.export import plan_export

        directory, leave_out = vm_forms.export_arguments(self.values())
        host = self.hvtui.host_of(self.vm)
        return await self.hvtui.bridge.call(plan_export, host, self.vm, directory, leave_out=leave_out)

    async def run(self, made: Plan) -> None:
        await self.hvtui.propose([made], done="exported", ask=True, accepted=lambda: self.hvtui.go("fleet"))


class CaptureScreen(_VmForm):
    """A template from a VM: its disks copied whole, the guest's identity taken out of the copy."""

    SCOPES: ClassVar[tuple[str, ...]] = ("capture",)

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm, vm_forms.capture_fields(vm))

    def title_text(self) -> str:
        return f"Make a template from {self._vm_name}"

    def begin(self) -> Sequence[Row]:
        words = "Give the template a name: what will be done stands here. The VM stays as it is."
        return (row(words, style="$text-muted", indent=2), HOW_TO_MOVE)

    async def make(self) -> Plan:
        from vm.template_capture import plan_capture

        request = vm_forms.capture_request(self.values())
        return await self.hvtui.bridge.call(plan_capture, self.hvtui.host_of(self.vm), self.vm, request)

    async def run(self, made: Plan) -> None:
        await self.hvtui.propose([made], done="captured", ask=True, accepted=lambda: self.hvtui.go("fleet"))
