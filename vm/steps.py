"""Imports every module that registers step verbs: whoever runs journalled steps imports this one."""

from __future__ import annotations

from vm import (
    capture_steps,
    clone_steps,
    create_steps,
    create_wait,
    delete_steps,
    deploy_steps,
    edit_steps,
    export_steps,
    import_disk_steps,
    import_steps,
    lifecycle_steps,
    move_disk_steps,
    move_hold_steps,
    move_quick_steps,
    paravirtual_steps,
    profile_steps,
    ready_steps,
    settings_steps,
    template_steps,
)

__all__ = [
    "capture_steps",
    "clone_steps",
    "create_steps",
    "create_wait",
    "delete_steps",
    "deploy_steps",
    "edit_steps",
    "export_steps",
    "import_disk_steps",
    "import_steps",
    "lifecycle_steps",
    "move_disk_steps",
    "move_hold_steps",
    "move_quick_steps",
    "paravirtual_steps",
    "profile_steps",
    "ready_steps",
    "settings_steps",
    "template_steps",
]
