"""Changes of a library, run in this process on a real libvirtd: what they leave, and what is taken back."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from host import job_process, jobs
from host.connection import Host, open_host
from host.errors import Conflict, HvtuiError, UsageError
from host.job_model import Job, JobState
from host.journal import Journal
from host.plan import Plan, Step
from host.units import GIB, MIB
from tests.support import libraries
from tests.support.private_libvirtd import PrivateLibvirtd
from vm import library, recipes, steps, template_add, template_prepare, template_steps
from vm.create_request import Firmware
from vm.library_index import INDEX_NAME
from vm.recipes import Built, BuiltFile
from vm.template_add import AddRequest, OriginKind, plan_add
from vm.template_change import plan_edit, plan_remove
from vm.template_model import ImageRole, Readiness, Template
from vm.template_prepare import Means
from vm.template_verify import Finding, verify

assert steps  # registers the verbs


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateLibvirtd]:
    with PrivateLibvirtd() as running:
        yield running


@pytest.fixture
def host(daemon: PrivateLibvirtd) -> Iterator[Host]:
    opened = open_host(daemon.uri, name="library")
    with libraries.pool(opened, daemon.images):
        yield opened
    opened.close()


@pytest.fixture
def directory(host: Host, daemon: PrivateLibvirtd) -> Path:
    """The library's directory."""
    return daemon.images


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal() as opened:
        yield opened


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return qcow2(tmp_path / "disk.qcow2")


def qcow2(path: Path, *options: str, size: str = "4M") -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, "--", str(path), size], check=True)
    return path


def raw_disk(path: Path) -> Path:
    path.write_bytes((bytes(510) + b"\x55\xaa").ljust(MIB, b"\0"))
    return path


def run(plan: Plan, host: Host, journal: Journal) -> Job:
    job = jobs.submit(plan, host, journal)
    assert job.state is JobState.DONE, job.error
    return job


def add(host: Host, journal: Journal, source: Path | str, name: str = "web", **more) -> Job:
    return run(plan_add(host, AddRequest(name, str(source), **more)), host, journal)


def found(host: Host, name: str = "web") -> Template:
    return library.find(host, name)[1]


def names(host: Host) -> list[str]:
    return [template.name for template in library.read(host).templates]


def stored(host: Host) -> set[str]:
    pool = host.connection().storagePoolLookupByName("library")
    pool.refresh()
    return set(pool.listVolumes())


def failing(plan: Plan) -> Plan:
    """The plan with a last step that cannot be done."""
    return replace(plan, steps=(*plan.steps, Step("create.remove-volume", "Fail", {})))


# Added


def test_what_was_asked_for_wins_over_what_was_found(host: Host, journal: Journal, image: Path) -> None:
    more = {
        "description": "D",
        "firmware": Firmware.UEFI,
        "takes_seed": True,
        "tags": ("a",),
        "disk_bus": "scsi",
        "hardware_profile": "hw",
    }
    add(host, journal, image, **more)
    made = found(host)
    assert (made.description, made.firmware, made.takes_seed, made.tags) == ("D", Firmware.UEFI, True, ("a",))
    assert (made.disk_bus, made.hardware_profile, made.origin) == ("scsi", "hw", "the qcow2 file disk.qcow2")
    assert made.readiness is Readiness.CLOUD_INIT, "who takes a seed tells when cloud-init is done"
    assert made.created_at is not None


def test_a_recipe_brings_its_own_facts_and_all_its_images(
    host: Host, journal: Journal, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"kernel")
    files = (BuiltFile(image, ImageRole.DISK, "qcow2"), BuiltFile(kernel, ImageRole.KERNEL, "raw"))
    built = Built(files, {"description": "made", "readiness": "agent", "takes_seed": True, "kernel_arguments": "quiet"})
    monkeypatch.setattr(recipes, "build", lambda *_arguments: built)
    monkeypatch.setattr(recipes, "obstacles", lambda _recipe: ())
    add(host, journal, "tiny", kind=OriginKind.RECIPE, takes_seed=False)
    made = found(host)
    assert [(each.role, each.format) for each in made.images] == [(ImageRole.DISK, "qcow2"), (ImageRole.KERNEL, "raw")]
    assert (made.readiness, made.takes_seed, made.kernel_arguments) == (Readiness.AGENT, False, "quiet")
    assert image.exists(), "what a recipe keeps in the cache is copied"


def test_a_recipe_that_cannot_be_built_here_says_why(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "obstacles", lambda _recipe: ("no kernel here",))
    plan = plan_add(host, AddRequest("web", "tiny", kind=OriginKind.RECIPE, sha256="0" * 64))
    assert [blocker.reason for blocker in plan.blockers] == ["a recipe has no checksum to compare", "no kernel here"]


def test_an_appliance_keeps_its_firmware_and_the_order_of_its_disks(
    host: Host, journal: Journal, tmp_path: Path
) -> None:
    sizes = {"b.vmdk": "3M", "a.vmdk": "5M"}
    for name, size in sizes.items():
        words = [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "vmdk",
            "-o",
            "subformat=streamOptimized",
            str(tmp_path / name),
            size,
        ]
        subprocess.run(words, check=True)
    (tmp_path / "x.ovf").write_text(OVF)
    ova = tmp_path / "appliance"
    with tarfile.open(ova, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("x.ovf", *sizes):
            archive.add(tmp_path / name, arcname=name)
    add(host, journal, ova)
    made = found(host)
    assert [each.virtual_size_bytes for each in made.images] == [3 * MIB, 5 * MIB]
    assert made.images[1].volume == made.images[0].volume.replace(".qcow2", "-2.qcow2")
    assert (made.firmware, made.disk_bus, made.nic_model) == (Firmware.UEFI, "sata", "e1000e")


OVF = """<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vmw="http://www.vmware.com/schema/ovf">
<References><File ovf:href="a.vmdk" ovf:id="f1"/><File ovf:href="b.vmdk" ovf:id="f2"/></References>
<DiskSection><Disk ovf:diskId="d1" ovf:fileRef="f1" ovf:capacity="5242880"/>
<Disk ovf:diskId="d2" ovf:fileRef="f2" ovf:capacity="3145728"/></DiskSection>
<VirtualSystem ovf:id="vm"><VirtualHardwareSection>
<Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/d2</rasd:HostResource>
<rasd:InstanceID>8</rasd:InstanceID><rasd:ResourceType>17</rasd:ResourceType></Item>
<Item><rasd:AddressOnParent>1</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/d1</rasd:HostResource>
<rasd:InstanceID>9</rasd:InstanceID><rasd:ResourceType>17</rasd:ResourceType></Item>
<vmw:Config vmw:key="firmware" vmw:value="efi"/></VirtualHardwareSection></VirtualSystem></Envelope>"""


def test_a_failed_add_is_rolled_back_to_nothing(host: Host, journal: Journal, image: Path) -> None:
    before = stored(host)
    job = jobs.submit(failing(plan_add(host, AddRequest("web", str(image)))), host, journal)
    assert job.state is JobState.FAILED
    assert stored(host) - {INDEX_NAME} == before
    assert names(host) == []


def test_a_failed_add_of_a_volume_leaves_that(host: Host, journal: Journal, directory: Path, image: Path) -> None:
    (directory / "loose.qcow2").write_bytes(image.read_bytes())
    plan = plan_add(host, AddRequest("web", "loose.qcow2", kind=OriginKind.VOLUME))
    job = jobs.submit(failing(plan), host, journal)
    assert job.state is JobState.FAILED
    assert stored(host) - {INDEX_NAME} == {"loose.qcow2"}


def test_a_name_that_was_taken_after_the_plan_fails_and_leaves_the_other(
    host: Host, journal: Journal, image: Path
) -> None:
    late = plan_add(host, AddRequest("web", str(image)))
    add(host, journal, image, description="first")
    before = stored(host)
    job = jobs.submit(late, host, journal)
    assert (job.state, job.exit_code) == (JobState.FAILED, 4)
    assert stored(host) == before
    assert found(host).description == "first"


def test_a_template_is_changed_by_one_job_at_a_time(host: Host, journal: Journal, image: Path) -> None:
    plans = [plan_add(host, AddRequest("web", str(image))) for _ in range(2)]
    jobs.create(plans[0], journal)
    with pytest.raises(HvtuiError, match="job 1"):
        jobs.create(plans[1], journal)
    jobs.create(plan_add(host, AddRequest("other", str(image))), journal)


def test_what_was_prepared_and_is_gone_fails_with_words(host: Host, journal: Journal, image: Path) -> None:
    plan = plan_add(host, AddRequest("web", str(image)))
    without = replace(plan, steps=tuple(step for step in plan.steps if step.verb != "template.prepare"))
    job = jobs.submit(without, host, journal)
    assert "is gone" in job.error
    assert "again" in job.remedy


def test_an_image_that_vanishes_before_the_manifest_is_stored_fails(
    host: Host, journal: Journal, image: Path, directory: Path
) -> None:
    plan = plan_add(host, AddRequest("web", str(image)))
    (upload,) = [step for step in plan.steps if step.verb == "template.upload"]
    name = template_steps.image_name("web", str(upload.args["mark"]), ImageRole.DISK)
    gone = Step("create.remove-volume", "Somebody removes it", {"pool": "library", "name": name})
    place = plan.steps.index(upload) + 1
    job = jobs.submit(replace(plan, steps=(*plan.steps[:place], gone, *plan.steps[place:])), host, journal)
    assert job.state is JobState.FAILED
    assert "not in the pool any more" in job.error
    assert names(host) == []


# Said before


def blocked(host: Host, source: Path | str, **more) -> str:
    return "; ".join(each.reason for each in plan_add(host, AddRequest("web", str(source), **more)).blockers)


def test_missing_tools_are_said_before(host: Host, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_add.shutil, "which", lambda _tool: None)
    assert "qemu-img is not installed" in blocked(host, image)
    zst = image.with_name("x")
    zst.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    assert "zstd is not installed" in blocked(host, zst)


def test_a_simulated_host_and_a_read_only_one_take_nothing(host: Host, image: Path, simulated: Host) -> None:
    assert "keeps no contents" in blocked(simulated, image)
    host.read_only = True
    assert "read-only" in blocked(host, image)


def test_volumes_that_cannot_be_a_template_are_said_before(host: Host, directory: Path, image: Path) -> None:
    qcow2(directory / "linked.qcow2", "-b", str(image), "-F", "qcow2")
    (directory / "text").write_text("hello" * 1000)
    (directory / "cd").write_bytes(bytes(32769) + b"CD001" + bytes(100_000))
    for name, told in {
        "linked.qcow2": "it builds on another file",
        "text": "nothing that is known",
        "cd": "an installation medium",
        "linked.qcow": "there is no volume",
    }.items():
        assert told in blocked(host, name, kind=OriginKind.VOLUME), name


def test_texts_that_no_manifest_can_hold_are_refused(host: Host, image: Path) -> None:
    for more in ({"description": "\udcff"}, {"description": "x" * 5000}, {"tags": ("x",) * 100}, {"sha256": "z" * 64}):
        with pytest.raises(UsageError):
            plan_add(host, AddRequest("web", str(image), **more))


def test_a_system_is_named_by_its_short_id_too(host: Host, image: Path) -> None:
    plan = plan_add(host, AddRequest("web", str(image), os_id="debian11"))
    assert "http://debian.org/debian/11" in plan.command
    unknown = plan_add(host, AddRequest("web", str(image), os_id="debian99"))
    assert "http://debian.org/debian/99" in unknown.command
    assert "nearest" in unknown.warnings[0]
    assert plan_add(host, AddRequest("web", str(image), os_id="beos5")).warnings


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"hello" * 1000, "--raw"),
        (bytes(32769) + b"CD001" + bytes(9000), "installation medium"),
        (b"\x1f\x8b\x08" + bytes(9), "not a disk"),
    ],
)
def test_what_is_no_disk_says_what_to_do(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        template_prepare.disk_kind(path, is_raw=False)
    assert told in str(caught.value)


def test_only_a_person_may_say_that_a_disk_is_raw(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * MIB)
    means = Means(tmp_path, GIB, lambda _fraction, _note: None, lambda: False)
    with pytest.raises(UsageError):
        template_prepare.from_file(path, means)
    (file,) = template_prepare.from_file(path, replace(means, is_raw=True)).files
    assert (file.format, file.virtual_size_bytes) == ("qcow2", MIB)
    hidden = qcow2(tmp_path / "hidden", "-b", "/etc/shadow", "-F", "raw")
    with pytest.raises(UsageError, match="/etc/shadow"):
        template_prepare.from_file(hidden, replace(means, is_raw=True))


def test_directories_of_last_week_are_removed_and_newer_ones_are_not() -> None:
    old, new = template_prepare.fresh_directory("00000001"), template_prepare.fresh_directory("00000002")
    os.utime(old, (0, 0))
    template_prepare.save("00000002", "x.json", {"a": 1})
    template_prepare.fresh_directory("00000003")
    assert not old.exists()
    assert template_prepare.load("00000002", "x.json") == {"a": 1}
    assert new.exists()


# Changed and removed


def test_an_edit_that_fails_gives_the_old_manifest_back(host: Host, journal: Journal, image: Path) -> None:
    add(host, journal, image)
    before, volumes_before = found(host), stored(host)
    plan = plan_edit(host, *library.find(host, "web"), {"description": "new", "seed": "yes", "firmware": "uefi"})
    assert jobs.submit(failing(plan), host, journal).state is JobState.FAILED
    assert found(host) == before
    assert stored(host) == volumes_before


def test_an_edit_and_its_undo_and_the_undo_of_that(host: Host, journal: Journal, image: Path) -> None:
    add(host, journal, image, description="one")
    job = run(plan_edit(host, *library.find(host, "web"), {"description": "two", "tags": "b, a,b"}), host, journal)
    assert (found(host).description, found(host).tags, found(host).revision) == ("two", ("b", "a"), 2)
    undo = run(jobs.plan_undo(job, host), host, journal)
    assert (found(host).description, found(host).revision) == ("one", 3)
    run(jobs.plan_undo(undo, host), host, journal)
    assert (found(host).description, found(host).revision) == ("two", 4)
    assert len(stored(host)) == 3, "image, manifest, index"


def test_an_edit_of_what_was_edited_in_the_meantime_is_a_conflict(host: Host, journal: Journal, image: Path) -> None:
    add(host, journal, image)
    late = plan_edit(host, *library.find(host, "web"), {"description": "late"})
    late_removal = plan_remove(host, *library.find(host, "web"))
    run(plan_edit(host, *library.find(host, "web"), {"description": "first"}), host, journal)
    for plan in (late, late_removal):
        job = jobs.submit(plan, host, journal)
        assert (job.state, job.exit_code) == (JobState.FAILED, 4), job.error
    assert found(host).description == "first"


def test_wrong_settings_name_the_nearest(host: Host, journal: Journal, image: Path) -> None:
    add(host, journal, image)
    here, made = library.find(host, "web")
    for changes, told in (
        ({"descripton": "x"}, "Did you mean description"),
        ({"firmware": "uefy"}, "Did you mean uefi"),
        ({"seed": "perhaps"}, "neither yes nor no"),
        ({"description": "x" * 5000}, "5000 characters"),
    ):
        with pytest.raises(UsageError) as caught:
            plan_edit(host, here, made, changes)
        assert told in str(caught.value)
    assert plan_edit(host, here, made, {"seed": "no"}).blockers[0].reason == "that is what it says already"


def test_a_removal_whose_image_came_into_use_is_rolled_back_to_a_whole_template(
    host: Host, journal: Journal, image: Path, directory: Path
) -> None:
    add(host, journal, image)
    before = stored(host)
    plan = plan_remove(host, *library.find(host, "web"))
    overlay = qcow2(directory / "overlay.qcow2", "-b", str(directory / found(host).images[0].volume), "-F", "qcow2")
    job = jobs.submit(plan, host, journal)
    assert (job.state, job.exit_code) == (JobState.FAILED, 4)
    assert "overlay.qcow2" in job.error
    skipped = replace(plan, steps=tuple(step for step in plan.steps if step.verb != "template.withdraw"))
    assert "needs the image" in jobs.submit(skipped, host, journal).error
    overlay.unlink()
    assert stored(host) == before
    assert names(host) == ["web"]


def test_a_removal_that_lost_images_is_not_rolled_back_to_half_a_template(
    host: Host, journal: Journal, image: Path
) -> None:
    add(host, journal, image)
    job = jobs.submit(failing(plan_remove(host, *library.find(host, "web"))), host, journal)
    assert job.state is JobState.FAILED
    assert names(host) == []
    assert stored(host) == {INDEX_NAME}


def test_images_that_no_vm_uses_are_named_as_such_and_go_where_that_is_asked_for(
    host: Host, journal: Journal, image: Path, directory: Path
) -> None:
    add(host, journal, image)
    base = qcow2(directory / "gone.qcow2", "-b", str(directory / found(host).images[0].volume), "-F", "qcow2")
    leaf = qcow2(directory / "a-leaf.qcow2", "-b", str(base), "-F", "qcow2")
    (blocker,) = plan_remove(host, *library.find(host, "web")).blockers
    assert "images that no VM uses" in blocker.reason
    assert "--with-unused-overlays" in blocker.remedy
    plan = plan_remove(host, *library.find(host, "web"), unused_overlays=True)
    assert plan.blockers == ()
    assert [str(path) in " ".join(plan.losses) for path in (base, leaf)] == [True, True]
    run(plan, host, journal)
    assert (base.exists(), leaf.exists(), names(host)) == (False, False, [])


def test_an_image_on_the_template_that_came_into_use_in_the_meantime_stays(
    host: Host, journal: Journal, image: Path, directory: Path
) -> None:
    add(host, journal, image)
    base = qcow2(directory / "kept.qcow2", "-b", str(directory / found(host).images[0].volume), "-F", "qcow2")
    plan = plan_remove(host, *library.find(host, "web"), unused_overlays=True)
    leaf = qcow2(directory / "new.qcow2", "-b", str(base), "-F", "qcow2")
    job = jobs.submit(plan, host, journal)
    assert (job.state, job.exit_code) == (JobState.FAILED, 4)
    assert base.exists()
    assert names(host) == ["web"]
    leaf.unlink()
    base.unlink()


def test_removing_twice_is_harmless_and_cannot_be_undone(host: Host, journal: Journal, image: Path) -> None:
    add(host, journal, image)
    plan = plan_remove(host, *library.find(host, "web"))
    job = run(plan, host, journal)
    run(plan, host, journal)
    undo = jobs.plan_undo(job, host)
    assert "removed for good" in undo.blockers[0].reason


def test_a_template_whose_images_are_kept_comes_back_by_an_undo(host: Host, journal: Journal, image: Path) -> None:
    add(host, journal, image)
    before = found(host)
    job = run(plan_remove(host, *library.find(host, "web"), keep_images=True), host, journal)
    assert library.read(host).others == (before.images[0].volume,)
    undo = run(jobs.plan_undo(job, host), host, journal)
    assert found(host) == before
    run(jobs.plan_undo(undo, host), host, journal)
    add(host, journal, image, name="next")
    assert before.images[0].volume in stored(host), "what was kept is no leftover"


# What dead changes left


def test_only_what_a_dead_change_wrote_down_and_nobody_uses_is_removed(
    host: Host, journal: Journal, image: Path, directory: Path
) -> None:
    add(host, journal, image, name="whole")
    listed = found(host, "whole").images[0].volume
    for name in ("left.qcow2", "used.qcow2", "mine.qcow2"):
        qcow2(directory / name)
    qcow2(directory / "user.qcow2", "-b", str(directory / "used.qcow2"), "-F", "qcow2")
    (directory / "dead.r1-00000000.template.toml").write_text("half")
    record = {"machine": os.uname().nodename, "claim": "boot 1 2 -", "deed": "adding it"}
    record["volumes"] = ["left.qcow2", "used.qcow2", listed, "gone.qcow2", "../mine.qcow2"]
    (directory / "dead-0a1b2c3d.unfinished").write_text(json.dumps(record))
    stored(host)
    plan = plan_add(host, AddRequest("next", str(image)))
    assert plan.steps[0].verb == "template.tidy"
    run(plan, host, journal)
    left = stored(host)
    assert {"used.qcow2", "user.qcow2", "mine.qcow2", listed} <= left
    assert left.isdisjoint({"left.qcow2", "dead.r1-00000000.template.toml", "dead-0a1b2c3d.unfinished"})
    assert names(host) == ["next", "whole"]
    assert library.read(host).problems == ()


def test_a_record_that_came_to_life_again_is_left_alone(
    host: Host, journal: Journal, image: Path, directory: Path
) -> None:
    record = {"machine": os.uname().nodename, "claim": "boot 1 2 -", "volumes": ["x.qcow2"]}
    path = directory / "other-0a1b2c3d.unfinished"
    path.write_text(json.dumps(record))
    qcow2(directory / "x.qcow2")
    stored(host)
    plan = plan_add(host, AddRequest("next", str(image)))
    path.write_text(json.dumps({**record, "claim": job_process.claim_of(os.getppid())}))
    run(plan, host, journal)
    assert {path.name, "x.qcow2"} <= stored(host)


# Verified


def test_verification_tells_each_kind_of_harm(host: Host, journal: Journal, image: Path, directory: Path) -> None:
    add(host, journal, image)
    here, made = library.find(host, "web")
    told: list[float] = []
    assert verify(host, here, made, lambda fraction, _note: told.append(fraction or 0.0)).is_good
    assert told[-1] == 1.0
    path = directory / made.images[0].volume

    def finding() -> Finding:
        (verdict,) = verify(host, here, made).images
        assert verdict.detail
        return verdict.finding

    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\xff")
    assert finding() is Finding.CHANGED
    path.write_bytes(good + b"x")
    assert finding() is Finding.CHANGED
    path.unlink()
    assert finding() is Finding.UNREADABLE, "libvirt does not know yet that it is gone"
    stored(host)
    assert finding() is Finding.MISSING


def test_an_image_that_was_damaged_before_it_was_added_is_told(host: Host, directory: Path, image: Path) -> None:
    import hashlib

    data = bytearray(image.read_bytes())
    data[65536:65600] = b"\xff" * 64
    made = libraries.template("web")
    wrong = replace(made.images[0], size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (directory / wrong.volume).write_bytes(data)
    stored(host)
    (verdict,) = verify(host, library.read(host), replace(made, images=(wrong,))).images
    assert (verdict.finding, verdict.is_checked) == (Finding.DAMAGED, True)


# Looked at as it is stored


def test_what_does_not_stand_alone_is_refused_as_it_is_stored(host: Host, directory: Path, image: Path) -> None:
    qcow2(directory / "linked.qcow2", "-b", str(image), "-F", "qcow2")
    raw_disk(directory / "raw")
    stored(host)
    with host.calls("test") as connection:
        for name, told in {"linked.qcow2": "builds on another file", "raw": "no qcow2"}.items():
            with pytest.raises(UsageError, match=told):
                template_steps.check_stored(connection, "library", name)


def test_what_a_vm_uses_already_is_not_taken_back(host: Host, journal: Journal, image: Path, directory: Path) -> None:
    mark = "0a1b2c3d"
    name = template_steps.image_name("web", mark, ImageRole.DISK)
    qcow2(directory / name)
    qcow2(directory / "overlay.qcow2", "-b", str(directory / name), "-F", "qcow2")
    stored(host)
    context = template_steps.StepContext(host, 1, lambda _fraction, _note: None, lambda: False)
    args = {"pool": "library", "name": "web", "mark": mark}
    with pytest.raises(Conflict, match=r"overlay\.qcow2"):
        template_steps._remove_uploaded(context, args, {"made": [name]})
    assert name in stored(host)
