"""Deleting VMs on libvirt's test driver: what goes, what stays, and which disks may never go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from host import jobs
from host.connection import Host, open_host
from host.errors import Blocked, Conflict, NotFound, UsageError, WrongState
from host.job_model import JobState
from host.plan import Danger, Step
from tests.support.running import do, done, submit, undo
from tests.support.simulated_world import HOSTILE_NAMES, domain, uuid_of, world
from vm import inventory
from vm.delete import DiskUse, disk_uses, file_uses, plan_delete

IMAGES = "/var/lib/libvirt/images"
VNC = "<graphics type='vnc' port='-1' autoport='yes' passwd='sesame'/>"


def volume(host: Host, name: str, *, backing: str = "", kind: str = "qcow2") -> str:
    """Make a volume in the simulated pool; returns its path."""
    base = f"<backingStore><path>{backing}</path><format type='qcow2'/></backingStore>" if backing else ""
    xml = (
        f"<volume><name>{name}</name><capacity>1048576</capacity><allocation>4096</allocation>"
        f"<target><path>{IMAGES}/{name}</path><format type='{kind}'/></target>{base}</volume>"
    )
    with host.calls("make a volume") as connection:
        return str(connection.storagePoolLookupByName("default").createXML(xml, 0).path())


def volumes(host: Host) -> set[str]:
    with host.calls("list volumes") as connection:
        return set(connection.storagePoolLookupByName("default").listVolumes())


def exists(host: Host, name: str) -> bool:
    try:
        inventory.find(host, name)
    except NotFound:
        return False
    return True


@pytest.fixture
def disks(open_world: Callable[[str], Host]) -> Host:
    """VMs with disks of every kind that matters, and their volumes."""
    others = (
        f"<disk type='file'><source file='{IMAGES}/shareable.qcow2'/><target dev='vdb'/><shareable/></disk>"
        f"<disk type='file'><source file='{IMAGES}/read-only.qcow2'/><target dev='vdc'/><readonly/></disk>"
        "<disk type='block' device='disk'><source dev='/dev/sdz'/><target dev='vdd'/></disk>"
        "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>"
        f"<disk type='file' device='cdrom'><source file='{IMAGES}/debian.iso'/><target dev='sdb' bus='sata'/></disk>"
        "<disk type='network' device='disk'><source protocol='nbd' name='x'><host name='192.0.2.9'/></source>"
        "<target dev='vde'/></disk>"
        "<disk type='volume' device='disk'><source pool='default' volume='by-name.qcow2'/><target dev='vdf'/></disk>"
        "<disk type='volume' device='disk'><source pool='default' volume='missing'/><target dev='vdg'/></disk>"
        f"<disk type='file' device='disk'><source file='{IMAGES}/as-disk.iso'/><target dev='vdh'/></disk>"
    )
    host = open_world(
        world(
            [
                domain("own", disks=[f"{IMAGES}/own.qcow2"]),
                domain("mixed", disks=[f"{IMAGES}/mixed.qcow2"], devices=others),
                domain("left", disks=[f"{IMAGES}/common.qcow2"]),
                domain("right", disks=[f"{IMAGES}/./common.qcow2"], state="running"),
                domain("base", disks=[f"{IMAGES}/base.qcow2"]),
                domain("outside", disks=["/srv/outside.qcow2"]),
            ]
        )
    )
    for name in ("own", "mixed", "shareable", "read-only", "by-name", "common", "base"):
        volume(host, f"{name}.qcow2")
    volume(host, "as-disk.iso", kind="iso")
    volume(host, "child.qcow2", backing=f"{IMAGES}/base.qcow2")
    return host


def uses(host: Host, name: str) -> dict[str, DiskUse]:
    return {use.target: use for use in disk_uses(host, inventory.find(host, name))}


# Disks


def test_a_disk_that_nothing_else_uses_is_removable(disks: Host) -> None:
    use = uses(disks, "own")["vda"]
    assert use.removable
    assert (use.path, use.pool, use.volume) == (f"{IMAGES}/own.qcow2", "default", "own.qcow2")
    assert use.size_bytes is not None


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("vdb", "shared"),
        ("vdc", "only reads"),
        ("vdd", "block device"),
        ("sda", "empty"),
        ("sdb", "installation medium"),
        ("vde", "no image file"),
        ("vdg", "no active storage pool"),
        ("vdh", "ISO image"),
    ],
)
def test_a_disk_that_must_stay_says_why_and_blocks_the_plan(disks: Host, target: str, reason: str) -> None:
    use = uses(disks, "mixed")[target]
    assert reason in use.keep_reason
    assert not use.removable
    plan = plan_delete(disks, inventory.find(disks, "mixed"), remove_disks=[target])
    with pytest.raises(Blocked, match=reason):
        plan.raise_if_blocked()


def test_a_volume_named_by_its_pool_is_found(disks: Host) -> None:
    use = uses(disks, "mixed")["vdf"]
    assert use.removable
    assert use.path == f"{IMAGES}/by-name.qcow2"


def test_a_disk_that_another_vm_uses_names_that_vm(disks: Host) -> None:
    use = uses(disks, "left")["vda"]
    assert use.used_by == ("right",)
    assert use.keep_reason == "right uses it too"


def test_an_image_that_others_build_on_names_them(disks: Host) -> None:
    use = uses(disks, "base")["vda"]
    assert use.built_on_by == (f"{IMAGES}/child.qcow2",)
    assert "builds on it" in use.keep_reason


def test_an_image_that_no_pool_knows_stays(disks: Host) -> None:
    assert "no active storage pool" in uses(disks, "outside")["vda"].keep_reason


@pytest.mark.parametrize("where", ["snapshot", "nvram", "qemu"])
def test_a_path_named_anywhere_in_another_vm_counts_as_used(open_world: Callable[[str], Host], where: str) -> None:
    path = f"{IMAGES}/own.qcow2"
    other = {
        "snapshot": domain("other", snapshots=["one"]).replace(
            "<os><type arch='i686'>hvm</type></os></domain>",
            "<os><type arch='i686'>hvm</type></os><devices><disk type='file' device='disk'>"
            f"<source file='{path}'/><target dev='vda'/></disk></devices></domain>",
        ),
        "nvram": domain(
            "other", devices=f"<filesystem type='mount'><source dir='{path}'/><target dir='x'/></filesystem>"
        ),
        "qemu": domain("other").replace("<devices>", f"<description>file={path},format=raw</description><devices>"),
    }[where]
    host = open_world(world([domain("own", disks=[path]), other]))
    volume(host, "own.qcow2")
    assert uses(host, "own")["vda"].used_by == ("other",)


def test_a_disk_that_the_vm_does_not_have_is_a_usage_error(disks: Host) -> None:
    with pytest.raises(UsageError, match="no disk") as caught:
        plan_delete(disks, inventory.find(disks, "own"), remove_disks=["/etc/passwd"])
    assert "vda" in caught.value.remedy


def test_every_way_to_name_a_disk_means_the_same_disk(disks: Host) -> None:
    plan = plan_delete(disks, inventory.find(disks, "own"), remove_disks=["vda", f"{IMAGES}/own.qcow2"])
    assert [step.verb for step in plan.steps] == ["vm.check-delete", "vm.undefine", "vm.remove-disk"]
    assert plan.command == ("vm", "delete", "--disk", f"{IMAGES}/own.qcow2", "own")


# Plans


def test_disks_stay_unless_they_are_asked_for(disks: Host) -> None:
    plan = plan_delete(disks, inventory.find(disks, "own"))
    assert plan.danger is Danger.DESTRUCTIVE
    assert plan.keeps == (f"the disk {IMAGES}/own.qcow2",)
    assert plan.losses == ("the VM own: its configuration",)
    done(plan, disks)
    assert not exists(disks, "own")
    assert "own.qcow2" in volumes(disks)


def test_a_disk_that_is_asked_for_goes_and_is_named_with_its_size(disks: Host) -> None:
    plan = plan_delete(disks, inventory.find(disks, "own"), remove_disks=["vda"])
    assert plan.losses[-1].startswith(f"the disk {IMAGES}/own.qcow2, ")
    assert plan.losses[-1].endswith("used by nothing else")
    assert not plan.keeps
    job = done(plan, disks)
    assert not exists(disks, "own")
    assert "own.qcow2" not in volumes(disks)
    assert "for good" in jobs.plan_undo(job, disks).blockers[0].reason


def test_a_mixed_vm_keeps_all_its_other_disks(disks: Host) -> None:
    before = volumes(disks)
    plan = plan_delete(disks, inventory.find(disks, "mixed"), remove_disks=["vda", "vdf"])
    assert any("cdrom" in kept and "debian.iso" in kept for kept in plan.keeps)
    done(plan, disks)
    assert volumes(disks) == before - {"mixed.qcow2", "by-name.qcow2"}


def test_all_disks_means_those_that_can_go_and_each_other_one_says_why_it_stays(disks: Host) -> None:
    plan = plan_delete(disks, inventory.find(disks, "mixed"), all_disks=True)
    plan.raise_if_blocked()
    assert plan.command == ("vm", "delete", "--all-disks", "mixed")
    kept = {use.source: use.keep_reason for use in uses(disks, "mixed").values() if not use.removable and use.source}
    told = {warning.split()[2]: warning for warning in plan.warnings}
    assert kept
    for source, reason in kept.items():
        assert "debian.iso" in source or reason in told[source]
    before = volumes(disks)
    done(plan, disks)
    assert volumes(disks) == before - {"mixed.qcow2", "by-name.qcow2"}


def test_the_plan_for_a_disk_outside_of_every_pool_holds_no_command_that_could_not_work(disks: Host) -> None:
    target = next(use.target for use in uses(disks, "mixed").values() if use.source and not use.volume)
    plan = plan_delete(disks, inventory.find(disks, "mixed"), remove_disks=[target])
    assert plan.blockers
    assert not any("--pool ''" in command for step in plan.steps for command in step.commands)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_vm_with_a_hostile_name_can_be_deleted(simulated: Host, name: str) -> None:
    done(plan_delete(simulated, inventory.find(simulated, name), off=True), simulated)
    assert not exists(simulated, name)


@pytest.mark.parametrize("name", ["web-02", "db-01", "panicked"])
def test_a_vm_that_runs_is_not_deleted_unless_it_is_turned_off(simulated: Host, name: str) -> None:
    vm = inventory.find(simulated, name)
    plan = plan_delete(simulated, vm)
    assert plan.blockers[0].action_id == "vm.off"
    with pytest.raises(WrongState):
        plan.raise_if_blocked()
    forced = plan_delete(simulated, vm, off=True)
    assert not forced.blockers
    if vm.is_active:
        assert "turned off first" in forced.warnings[0]
        assert [step.verb for step in forced.steps] == ["vm.check-delete", "vm.off", "vm.undefine"]
        done(forced, simulated)
        assert not exists(simulated, name)


def test_a_transient_vm_has_nothing_to_delete(simulated: Host) -> None:
    with pytest.raises(WrongState, match="transient"):
        plan_delete(simulated, inventory.find(simulated, "scratch"), off=True).raise_if_blocked()


def test_a_saved_state_and_checkpoints_are_named_and_go(simulated: Host) -> None:
    saved = plan_delete(simulated, inventory.find(simulated, "build-08"))
    assert "saved state" in saved.losses[1]
    assert "--managed-save" in saved.steps[-1].commands[0]
    job = done(saved, simulated)
    assert "saved state" in jobs.plan_undo(job, simulated).blockers[0].reason
    snapshots = plan_delete(simulated, inventory.find(simulated, "web-01"), off=True)
    assert "1 checkpoint (before-upgrade)" in snapshots.losses[1]
    done(snapshots, simulated)
    assert not exists(simulated, "build-08")
    assert not exists(simulated, "web-01")


def test_a_host_opened_read_only_shows_the_plan_and_denies_it(simulated_uri: str) -> None:
    host = open_host(simulated_uri, read_only=True)
    plan = plan_delete(host, inventory.find(host, "build-07"))
    assert plan.blockers
    assert plan.blockers[0].exit_code == 5
    host.close()


# Undo, rollback, and what changes between plan and run


def test_a_deletion_that_lost_nothing_can_be_undone(open_world: Callable[[str], Host]) -> None:
    host = open_world(world([domain("plain", tags=["a"], disks=[f"{IMAGES}/x.qcow2"])]))
    with host.calls("read") as connection:
        connection.lookupByName("plain").setAutostart(1)
        before = connection.lookupByName("plain").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    job = done(plan_delete(host, inventory.find(host, "plain")), host)
    undone = jobs.plan_undo(job, host)
    again = done(undone, host)
    vm = inventory.find(host, "plain")
    assert (vm.uuid, vm.autostart) == (uuid_of("plain"), True)
    with host.calls("read") as connection:
        assert connection.lookupByName("plain").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == before
    assert "vm delete" in jobs.plan_undo(again, host).blockers[0].reason


def test_an_undefine_done_twice_is_done_and_a_rollback_defines_it_again(simulated: Host) -> None:
    step = plan_delete(simulated, inventory.find(simulated, "build-07")).steps[-1]
    result = do(simulated, step)
    assert do(simulated, step)["changed"] is False
    undo(simulated, step, result)
    undo(simulated, step, result)
    assert inventory.find(simulated, "build-07").uuid == uuid_of("build-07")
    undo(simulated, step, None)
    assert exists(simulated, "build-07")


def test_a_rollback_gives_the_password_back(open_world: Callable[[str], Host]) -> None:
    host = open_world(world([domain("guarded", devices=VNC, disks=[f"{IMAGES}/gone.qcow2"])]))
    volume(host, "gone.qcow2")
    plan = plan_delete(host, inventory.find(host, "guarded"), remove_disks=["vda"])
    assert "sesame" not in str(plan)
    before = plan.steps[-1]
    broken = Step(before.verb, before.title, {**before.args, "pool": "no such pool"}, before.commands)
    job = submit(replace(plan, steps=(*plan.steps[:-1], broken)), host)
    assert job.state is JobState.FAILED
    with host.calls("read") as connection:
        assert "sesame" in connection.lookupByName("guarded").XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)


def test_a_deletion_of_a_vm_with_a_password_says_why_it_cannot_be_undone(
    open_world: Callable[[str], Host], tmp_path: Path
) -> None:
    host = open_world(world([domain("guarded", devices=VNC)]))
    job = done(plan_delete(host, inventory.find(host, "guarded")), host)
    assert "password" in jobs.plan_undo(job, host).blockers[0].reason
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "world" not in path.name)
    assert b"sesame" not in stored


def test_a_defined_again_vm_is_rolled_back_only_when_it_was_made_here(simulated: Host) -> None:
    undefine = plan_delete(simulated, inventory.find(simulated, "build-07")).steps[-1]
    again = Step("vm.define-again", "", {**undefine.args})
    assert do(simulated, again) == {"changed": False}
    undo(simulated, again, {"changed": False})
    assert exists(simulated, "build-07")
    do(simulated, undefine)
    result = do(simulated, again)
    undo(simulated, again, result)
    undo(simulated, again, result)
    assert not exists(simulated, "build-07")


def test_a_vm_started_after_the_plan_is_not_deleted(simulated: Host) -> None:
    plan = plan_delete(simulated, inventory.find(simulated, "build-07"))
    with simulated.calls("start") as connection:
        connection.lookupByName("build-07").create()
    job = submit(plan, simulated)
    assert (job.state, job.exit_code) == (JobState.FAILED, 4)
    with pytest.raises(WrongState, match="started in the meantime"):
        do(simulated, plan.steps[-1])
    assert exists(simulated, "build-07")


def test_a_disk_used_since_the_plan_stays_and_so_does_the_vm(disks: Host) -> None:
    plan = plan_delete(disks, inventory.find(disks, "own"), remove_disks=["vda"])
    with disks.calls("define") as connection:
        connection.defineXML(domain("late", disks=[f"{IMAGES}/own.qcow2"]))
    job = submit(plan, disks)
    assert job.state is JobState.FAILED
    assert "late uses it too" in job.error
    with pytest.raises(Conflict, match="late uses it too"):
        do(disks, plan.steps[-1])
    assert exists(disks, "own")
    assert "own.qcow2" in volumes(disks)


def test_a_disk_removed_twice_is_done(disks: Host) -> None:
    plan = plan_delete(disks, inventory.find(disks, "own"), remove_disks=["vda"])
    do(disks, plan.steps[1])
    assert do(disks, plan.steps[2]) == {"changed": True}
    assert do(disks, plan.steps[2]) == {"changed": False}


def test_a_volume_that_became_another_file_stays(disks: Host) -> None:
    step = plan_delete(disks, inventory.find(disks, "own"), remove_disks=["vda"]).steps[-1]
    with pytest.raises(Conflict, match="another file"):
        do(disks, step, volume="common.qcow2")
    assert "common.qcow2" in volumes(disks)


# What an import brought besides disks


@pytest.fixture
def imported(open_world: Callable[[str], Host]) -> Host:
    """Two VMs with kernels in the pool: one that an import made for it, and one of the administrator's own."""
    boot = "<kernel>{0}</kernel><initrd>{1}</initrd>"
    own = domain("twin", disks=[f"{IMAGES}/twin.qcow2"]).replace(
        "</os>", boot.format(f"{IMAGES}/twin-0a1b2c3d-kernel", f"{IMAGES}/twin-0a1b2c3d-initrd") + "</os>"
    )
    others = domain("other", disks=[f"{IMAGES}/other.qcow2"]).replace(
        "</os>", boot.format(f"{IMAGES}/vmlinuz", f"{IMAGES}/twin-0a1b2c3d-initrd") + "</os>"
    )
    host = open_world(world([own, others]))
    for name in ("twin.qcow2", "other.qcow2"):
        volume(host, name)
    for name in ("twin-0a1b2c3d-kernel", "twin-0a1b2c3d-initrd", "vmlinuz"):
        volume(host, name, kind="raw")
    return host


def test_an_imported_kernel_goes_with_all_disks_and_one_that_others_use_stays(imported: Host) -> None:
    plan = plan_delete(imported, inventory.find(imported, "twin"), all_disks=True)
    assert plan.title == "Delete twin and 1 disk"
    assert any(loss.startswith(f"the kernel {IMAGES}/twin-0a1b2c3d-kernel") for loss in plan.losses)
    assert any("initrd stays: other uses it too" in warning for warning in plan.warnings)
    assert submit(plan, imported).state is JobState.DONE
    assert volumes(imported) == {"other.qcow2", "twin-0a1b2c3d-initrd", "vmlinuz"}


def test_an_imported_kernel_stays_with_the_disks(imported: Host) -> None:
    done(plan_delete(imported, inventory.find(imported, "twin")), imported)
    assert "twin-0a1b2c3d-kernel" in volumes(imported)


def test_a_kernel_of_the_administrators_own_is_not_offered(imported: Host) -> None:
    assert {use.target for use in file_uses(imported, inventory.find(imported, "other"))} == {"vda", "initrd"}


# The bases of linked clones


@pytest.fixture
def clones(open_world: Callable[[str], Host]) -> Host:
    """An origin and its clone on a base with hvtui's name, and a VM on an image of somebody else's."""
    names = {"origin": "origin-1a2b3c4d-vda", "twin": "twin-5e6f7a8b-vda", "other": "other-9a8b7c6d-vda"}
    host = open_world(world([domain(name, disks=[f"{IMAGES}/{disk}.qcow2"]) for name, disk in names.items()]))
    base, alien = volume(host, "origin-0f0f0f0f.qcow2"), volume(host, "people.qcow2")
    for name, disk in names.items():
        volume(host, f"{disk}.qcow2", backing=alien if name == "other" else base)
    return host


def test_the_base_of_linked_clones_stays_while_one_of_them_does(clones: Host) -> None:
    plan = plan_delete(clones, inventory.find(clones, "origin"), all_disks=True)
    (kept,) = plan.keeps
    assert "origin-0f0f0f0f.qcow2: twin builds on it; it goes with the last of them" in kept
    assert done(plan, clones)
    assert "origin-0f0f0f0f.qcow2" in volumes(clones)


def test_the_last_vm_on_a_base_takes_it_along_and_names_it(clones: Host) -> None:
    assert done(plan_delete(clones, inventory.find(clones, "twin"), all_disks=True), clones)
    plan = plan_delete(clones, inventory.find(clones, "origin"), all_disks=True)
    assert any("the base" in loss and "origin-0f0f0f0f.qcow2" in loss for loss in plan.losses)
    assert done(plan, clones)
    assert volumes(clones) == {"people.qcow2", "other-9a8b7c6d-vda.qcow2"}


def test_deletions_that_were_planned_together_leave_no_base_behind(clones: Host) -> None:
    plans = [plan_delete(clones, inventory.find(clones, name), all_disks=True) for name in ("origin", "twin")]
    assert all(done(plan, clones) for plan in plans)
    assert volumes(clones) == {"people.qcow2", "other-9a8b7c6d-vda.qcow2"}


def test_a_base_that_hvtui_did_not_make_stays_and_is_told(clones: Host) -> None:
    plan = plan_delete(clones, inventory.find(clones, "other"), all_disks=True)
    assert plan.keeps == (f"the base {IMAGES}/people.qcow2: it is none of hvtui's making",)
    assert done(plan, clones)
    assert "people.qcow2" in volumes(clones)


def test_the_image_of_a_template_is_no_base_to_be_removed(clones: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from vm import delete_bases
    from vm.template_model import ImageRole, Library, Template, TemplateImage

    image = TemplateImage("origin-0f0f0f0f.qcow2", ImageRole.DISK, "qcow2", 1, 1, "0" * 64)
    library = Library("default", IMAGES, templates=(Template("debian", (image,)),))
    monkeypatch.setattr(delete_bases.libraries, "read_here", lambda _connection, _pool: library)
    for name in ("twin", "origin"):
        plan = plan_delete(clones, inventory.find(clones, name), all_disks=True)
        assert not any("origin-0f0f0f0f" in line for line in (*plan.losses, *plan.keeps))
        assert done(plan, clones)
    assert "origin-0f0f0f0f.qcow2" in volumes(clones)
