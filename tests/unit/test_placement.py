"""Placement: stars, reasons, what makes a host impossible, and the loss of a host."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm.placement import can_be, rate, tags_of, with_vm, without_vm
from vm.placement_model import Demand, DiskDemand, Goal, HostPicture, Policy, PoolPicture, Weights
from vm.placement_reasons import obstacles
from vm.whatif import n_minus_1, whatif

GIB = 1024**3
IMAGES = "/var/lib/libvirt/images"
SHARED = "/srv/shared"


def pool(
    name: str = "default", *, free: int = 500, of: int = 1000, directory: str = IMAGES, volumes: str = ""
) -> PoolPicture:
    return PoolPicture(name, free * GIB, of * GIB, directory, frozenset(volumes.split()))


def host(name: str = "lab1", **rest: object) -> HostPicture:
    values: dict[str, object] = {
        "uri": f"qemu+ssh://{name}/system",
        "cpus": 8,
        "cpu_percent": 0.0,
        "memory_bytes": 64 * GIB,
        "memory_free_bytes": 60 * GIB,
        "pools": {"default": pool()},
        "networks": frozenset({"default"}),
        "machines": frozenset({"pc-q35-7.2"}),
        "virtualizations": frozenset({"kvm", "qemu"}),
    }
    picture = HostPicture(name, **(values | rest))  # type: ignore[arg-type]
    return replace(picture, tags=tags_of(picture.vms)) if picture.vms else picture


def vm(name: str = "web", **rest: object) -> Demand:
    values: dict[str, object] = {
        "vcpus": 2,
        "memory_bytes": 4 * GIB,
        "uuid": f"uuid of {name}",
        "networks": frozenset({"default"}),
        "machine": "pc-q35-7.2",
        "virtualization": "kvm",
    }
    return Demand(name, **(values | rest))  # type: ignore[arg-type]


def stars(demand: Demand, *pictures: HostPicture, goal: Goal = Goal.BALANCE) -> dict[str, float]:
    return {rating.host: rating.stars for rating in rate(demand, pictures, Policy(goal))}


def test_balancing_prefers_the_emptier_host_and_consolidating_the_fuller_one() -> None:
    empty, half = host("lab1"), host("lab2", memory_promised_bytes=32 * GIB, cpu_percent=50.0)
    assert [rating.host for rating in rate(vm(), [half, empty])] == ["lab1", "lab2"]
    assert [rating.host for rating in rate(vm(), [half, empty], Policy(Goal.CONSOLIDATE))] == ["lab2", "lab1"]


def test_consolidating_stops_where_the_cpu_is_used_up() -> None:
    busy, half = host("lab1", cpu_percent=96.0), host("lab2", cpu_percent=50.0)
    assert rate(vm(), [busy, half], Policy(Goal.CONSOLIDATE))[0].host == "lab2"


def test_a_weight_of_nothing_leaves_a_resource_out() -> None:
    busy, idle = host("lab1", cpu_percent=90.0), host("lab2", memory_promised_bytes=20 * GIB)
    assert rate(vm(), [busy, idle])[0].host == "lab2"
    assert rate(vm(), [busy, idle], Policy(weights=Weights(cpu=0.0)))[0].host == "lab1"


@pytest.mark.parametrize(
    ("change", "of_vm", "reason"),
    [
        ({"is_reachable": False, "problem": "no route to host"}, {}, "it does not answer: no route to host"),
        ({"is_drained": True}, {}, "it is drained for maintenance"),
        ({"memory_promised_bytes": 61 * GIB}, {}, "it has 3.0G of memory for VMs left, and the VM needs 4.0G"),
        ({"memory_free_bytes": 2 * GIB}, {}, "it has 2.0G of memory for VMs left"),
        ({"memory_promised_bytes": 58 * GIB, "reserve_memory_bytes": 4 * GIB}, {}, "it has 2.0G of memory"),
        ({"networks": frozenset()}, {}, "it has no active network default"),
        ({"machines": frozenset({"pc"})}, {}, "it does not know the machine type pc-q35-7.2"),
        ({"virtualizations": frozenset({"qemu"})}, {}, "it has no kvm"),
        ({"cpus": 1}, {}, "it has 1 CPUs, and the VM 2 vCPUs"),
        ({}, {"refused": {"lab1": "its CPU cannot be the EPYC"}}, "its CPU cannot be the EPYC"),
        ({}, {"own_devices": 1, "host": "lab2"}, "the VM has devices of lab2 itself"),
        ({}, {"disks": (DiskDemand(600 * GIB, "default", "/x/y"),)}, "has 500G free, and the VM needs 600G"),
        ({"pools": {}}, {"disks": (DiskDemand(1, "fast", "/x/y"),)}, "it has no active storage pool fast"),
        (
            {},
            {"disks": (DiskDemand(1, "default", "/x/y"),), "needs_its_disks": True},
            "it does not see the disk /x/y",
        ),
    ],
)
def test_an_impossible_host_has_no_stars_and_says_why(
    change: dict[str, object], of_vm: dict[str, object], reason: str
) -> None:
    (rating,) = rate(vm(**of_vm), [host(**change)])
    assert (rating.stars, rating.is_possible) == (0, False)
    assert reason in rating.why_not
    assert rating.reasons[0].startswith("- impossible, because ")


def test_what_is_not_known_of_a_host_makes_nothing_impossible() -> None:
    bare = host(machines=frozenset(), virtualizations=frozenset(), cpu_percent=None, memory_free_bytes=None)
    (rating,) = rate(vm(), [bare])
    assert rating.stars == 4.5
    assert "= its CPU load is not known" in rating.reasons


def test_two_disks_that_fit_one_by_one_do_not_fit_together() -> None:
    disks = (DiskDemand(300 * GIB, "default", "/x/a"), DiskDemand(300 * GIB, "default", "/x/b"))
    (rating,) = rate(vm(disks=disks), [host()])
    assert "its storage pool default has 500G free, and the VM needs 600G" in rating.why_not


def test_a_host_that_sees_the_disks_is_better_than_one_that_needs_copies() -> None:
    disk = DiskDemand(400 * GIB, "shared", f"{SHARED}/web.qcow2")
    sees = host("lab2", pools={"shared": pool("shared", directory=SHARED, volumes="web.qcow2")})
    ratings = rate(vm(disks=(disk,)), [host("lab1"), sees])
    assert [rating.host for rating in ratings] == ["lab2", "lab1"]
    assert "+ it sees the VM's disks: nothing to copy" in ratings[0].reasons
    assert "- 400G of disks to copy into default, which is then 90% full" in ratings[1].reasons


def test_the_host_where_the_vm_is_counts_it_once() -> None:
    there = vm(host="lab1", memory_bytes=40 * GIB)
    full = host(memory_promised_bytes=40 * GIB, memory_free_bytes=4 * GIB, vms=(there,))
    (rating,) = rate(there, [full])
    assert rating.is_possible
    assert rating.reasons[:2] == ("= the VM is here now", "= 24.0G of 64.0G memory left for others")


def test_vms_to_be_apart_get_one_star_at_most_on_a_host_of_another() -> None:
    mate = vm("web-01", tags=frozenset({"anti-affinity/web"}))
    found = rate(vm("web-02", tags=mate.tags), [host("lab1", vms=(mate,)), host("lab2")])
    assert [(rating.host, rating.stars) for rating in found] == [("lab2", 5.0), ("lab1", 1.0)]
    assert "- web-01 runs here, and anti-affinity/web keeps them apart (1 star at most)" in found[1].reasons


def test_vms_that_belong_together_get_two_stars_at_most_elsewhere() -> None:
    mate = vm("db-01", tags=frozenset({"affinity/db"}))
    found = rate(vm("db-02", tags=mate.tags), [host("lab1", vms=(mate,)), host("lab2")])
    assert [(rating.host, rating.stars) for rating in found] == [("lab1", 5.0), ("lab2", 2.0)]
    assert "+ db-01 runs here, and affinity/db keeps them together" in found[0].reasons
    assert "- its affinity/db is on lab1 (2 stars at most)" in found[1].reasons


def test_nobody_is_apart_from_itself_or_from_a_vm_that_is_off() -> None:
    own = vm(tags=frozenset({"anti-affinity/web"}), host="lab1")
    off = vm("old", tags=own.tags, is_active=False)
    assert stars(own, host("lab1", vms=(own, off))) == {"lab1": 5.0}


def test_a_host_with_moves_up_to_its_limit_costs_half_a_star() -> None:
    found = rate(vm(), [host("lab1", moves=2), host("lab2", moves=1)])
    assert [(rating.host, rating.stars) for rating in found] == [("lab2", 5.0), ("lab1", 4.5)]
    assert "- 2 moves run here already: it would have to wait" in found[1].reasons


def test_equal_hosts_are_in_the_order_of_their_names_with_the_vms_own_first() -> None:
    assert [rating.host for rating in rate(vm(), [host("c"), host("b"), host("a")])] == ["a", "b", "c"]
    assert rate(vm(memory_bytes=0, vcpus=1, host="b"), [host("a"), host("b")])[0].host == "b"


AMOUNTS = st.integers(0, 80).map(lambda number: number * GIB)
PICTURES = st.builds(
    lambda name, **rest: host(name, **rest),
    st.sampled_from(["lab1", "lab2", "lab3"]),
    cpu_percent=st.none() | st.floats(0, 100),
    memory_promised_bytes=AMOUNTS,
    memory_free_bytes=st.none() | AMOUNTS,
    reserve_memory_bytes=st.integers(0, 4).map(lambda number: number * GIB),
    network_percent=st.none() | st.floats(0, 300),
    is_drained=st.booleans(),
    is_reachable=st.booleans(),
    moves=st.integers(0, 3),
    pools=st.sampled_from([{}, {"default": pool()}, {"fast": pool("fast", free=1)}]),
)
DEMANDS = st.builds(
    vm,
    vcpus=st.integers(1, 16),
    memory_bytes=AMOUNTS,
    cpu_cores=st.floats(0, 8),
    host=st.sampled_from(["", "lab1", "lab2"]),
    is_active=st.booleans(),
    needs_its_disks=st.booleans(),
    own_devices=st.integers(0, 1),
    disks=st.lists(
        st.builds(DiskDemand, AMOUNTS, st.sampled_from(["default", "fast", ""]), st.sampled_from(["", "/x/y"])),
        max_size=2,
    ).map(tuple),
    tags=st.sets(st.sampled_from(["affinity/a", "anti-affinity/a", "prod"])).map(frozenset),
)


@given(demand=DEMANDS, pictures=st.lists(PICTURES, max_size=4), goal=st.sampled_from(list(Goal)))
def test_stars_are_in_half_steps_and_none_means_a_reason(
    demand: Demand, pictures: list[HostPicture], goal: Goal
) -> None:
    found = rate(demand, pictures, Policy(goal))
    assert len(found) == len(pictures)
    assert [rating.stars for rating in found] == sorted((rating.stars for rating in found), reverse=True)
    for rating in found:
        assert 0 <= rating.stars <= 5
        assert (rating.stars * 2).is_integer()
        assert (rating.stars == 0) == bool(rating.why_not)
        assert rating.reasons
        assert all(reason[:2] in {"+ ", "- ", "= "} for reason in rating.reasons)


@given(demand=DEMANDS, picture=PICTURES)
def test_what_is_decided_quickly_is_what_is_explained(demand: Demand, picture: HostPicture) -> None:
    assert can_be(demand, picture) == (not obstacles(demand, picture))


@given(demand=DEMANDS, picture=PICTURES)
def test_a_vm_that_comes_and_goes_leaves_the_memory_as_it_was(demand: Demand, picture: HostPicture) -> None:
    coming = replace(demand, host="elsewhere")
    there = with_vm(picture, coming)
    assert [each.name for each in there.vms] == ["web"]
    gone = without_vm(there, coming)
    assert gone.memory_promised_bytes == picture.memory_promised_bytes
    assert gone.memory_free_bytes == picture.memory_free_bytes
    assert gone.vms == picture.vms


def running(name: str, gib: int, *disks: str, **rest: object) -> Demand:
    return vm(name, memory_bytes=gib * GIB, disks=tuple(DiskDemand(0, "shared", disk) for disk in disks), **rest)


def lab(name: str, gib: int, *vms: Demand, sees: str = "") -> HostPicture:
    there = tuple(replace(each, host=name) for each in vms)
    pools = {"shared": pool("shared", directory=SHARED, volumes=sees)}
    promised = sum(each.memory_bytes for each in there if each.is_active)
    return host(
        name, memory_bytes=gib * GIB, memory_free_bytes=None, memory_promised_bytes=promised, vms=there, pools=pools
    )


def test_the_vms_of_a_lost_host_go_where_room_is_the_largest_first() -> None:
    lost = lab("lab1", 64, running("small", 2), running("large", 10), running("off", 30, is_active=False))
    found = whatif([lost, lab("lab2", 11), lab("lab3", 4)], "lab1")
    assert (found.placed, found.unplaced, found.is_ok) == ({"large": "lab2", "small": "lab3"}, {}, True)


def test_a_vm_whose_disk_nobody_else_sees_has_no_place() -> None:
    lost = lab("lab1", 64, running("here", 2, "/only/here.qcow2"), running("there", 2, f"{SHARED}/there.qcow2"))
    found = whatif([lost, lab("lab2", 64, sees="there.qcow2")], "lab1")
    assert found.placed == {"there": "lab2"}
    assert found.unplaced == {"here": "lab2: it does not see the disk /only/here.qcow2"}


def test_vms_to_be_apart_come_up_apart_where_that_is_possible() -> None:
    tags = frozenset({"anti-affinity/web"})
    lost = lab("lab1", 64, running("web-01", 2, tags=tags), running("web-02", 2, tags=tags))
    found = whatif([lost, lab("lab2", 64), lab("lab3", 20)], "lab1")
    assert sorted(found.placed.values()) == ["lab2", "lab3"]
    found = whatif([lost, lab("lab2", 64)], "lab1")
    assert sorted(found.placed.values()) == ["lab2", "lab2"]


def test_one_light_for_the_loss_of_any_host() -> None:
    full = lab("lab1", 64, running("a", 40), running("b", 10))
    spare = lab("lab2", 64)
    assert n_minus_1([full, spare]).text == "N-1: any host may fail"
    assert n_minus_1([full]).text == "N-1: there is only one host"
    assert not n_minus_1([full]).is_ok
    small = lab("lab2", 20)
    assert n_minus_1([full, small]).text == "N-1: without lab1 1 VM has no place"
    silent = replace(spare, is_reachable=False)
    assert n_minus_1([spare, silent]).text == "N-1: not known, lab2 did not answer"


@given(
    sizes=st.lists(st.lists(st.integers(1, 30), max_size=6), min_size=2, max_size=4),
    room=st.integers(16, 64),
)
def test_no_host_is_ever_given_more_than_it_has(sizes: list[list[int]], room: int) -> None:
    pictures = [
        lab(f"lab{number}", room, *(running(f"vm{number}-{index}", size) for index, size in enumerate(those)))
        for number, those in enumerate(sizes)
    ]
    for picture in pictures:
        found = whatif(pictures, picture.name)
        assert set(found.placed) | set(found.unplaced) == {each.name for each in picture.vms}
        by_name = {each.name: each for each in picture.vms}
        for other in pictures:
            came = sum(by_name[name].memory_bytes for name, where in found.placed.items() if where == other.name)
            before = other.memory_promised_bytes
            assert came == 0 or before + came <= other.memory_bytes
