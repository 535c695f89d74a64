"""The forms that make something of one VM: a bundle, a template. The plan dialog does the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, TypeVar

from textual.widget import Widget

from host.plan import Plan, PlanSet
from host.text import printable
from hvtui.tui import vm_forms
from hvtui.tui.form_fields import Field
from hvtui.tui.screens.form import HOW_TO_MOVE, FormScreen
from hvtui.tui.widgets.page import Row, row
from vm.model import Snapshot, Vm

P = TypeVar("P", Plan, PlanSet)


class _VmForm(FormScreen[P]):
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


class ExportScreen(_VmForm[Plan]):
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


class CaptureScreen(_VmForm[Plan]):
    """A template from a VM: its disks copied whole, the guest's identity taken out of the copy."""

    SCOPES: ClassVar[tuple[str, ...]] = ("capture",)

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm, vm_forms.capture_fields(vm))

    def body(self) -> Iterable[Widget]:
        self.preset("library", self.hvtui.library_at(self.hvtui.host_of(self.vm)))
        return super().body()

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


class CloneScreen(_VmForm[PlanSet]):
    """One clone or several, whole or linked."""

    SCOPES: ClassVar[tuple[str, ...]] = ("clone",)

    def __init__(self, vm: Vm, *, linked: bool = False) -> None:
        kind = vm_forms.LINKED if linked else vm_forms.FULL
        fields = (replace(field, value=kind) if field.key == "disks" else field for field in vm_forms.CLONE_FIELDS)
        super().__init__(vm, tuple(fields))

    def title_text(self) -> str:
        return f"Clone {self._vm_name}"

    def begin(self) -> Sequence[Row]:
        words = "Give the clone a name, or a pattern for many: twin-{}. What will be made stands here."
        return (row(words, style="$text-muted", indent=2), HOW_TO_MOVE)

    async def make(self) -> PlanSet:
        from vm.clone import plan_clone

        wish, host = vm_forms.clone_wish(self.vm.name, self.values()), self.hvtui.host_of(self.vm)
        return await self.hvtui.bridge.call(
            plan_clone, host, self.vm, wish.names,
            linked=wish.linked, start=wish.start, pool=wish.pool, command=wish.command,
        )  # fmt: skip

    async def run(self, made: PlanSet) -> None:
        await self.hvtui.propose_set(made, done="cloned", accepted=lambda: self.hvtui.go("fleet"))


class SizeScreen(_VmForm[Plan]):
    """How much memory and how many vCPUs a VM has."""

    SCOPES: ClassVar[tuple[str, ...]] = ("size",)
    FIRST_FIELD = "memory"

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm, vm_forms.size_fields(vm))

    def title_text(self) -> str:
        return f"Memory and vCPUs of {self._vm_name}"

    def begin(self) -> Sequence[Row]:
        return (*(row(words, style="$text-muted", indent=2) for words in vm_forms.size_words(self.vm)), HOW_TO_MOVE)

    async def make(self) -> Plan:
        from vm.settings import plan_set

        changes = vm_forms.size_changes(self.vm, self.values())
        return await self.hvtui.bridge.call(plan_set, self.hvtui.host_of(self.vm), self.vm, changes)

    async def run(self, made: Plan) -> None:
        await self.hvtui.propose([made], done="changed", ask=True, accepted=self.hvtui.back)
