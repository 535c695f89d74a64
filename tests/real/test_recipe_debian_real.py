"""The image of the recipe debian, deployed as a template: it boots, cloud-init sets it up, and it grows to its disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from host import jobs
from host.connection import Host
from host.errors import Cancelled
from host.images import inspect
from host.job_model import JobState
from host.journal import Journal
from host.units import GIB, MIB
from tests.support import guest
from tests.support.templates import add_template, made_pool
from vm import deploy, recipe_process, steps
from vm.deploy_request import DeployRequest
from vm.profile_model import GuestNetwork, GuestProfile, GuestUser, HardwareProfile, ProfileNic
from vm.recipe_debian import DebianImage
from vm.template_model import ImageRole, Readiness, Template, TemplateImage

assert steps  # registers the verbs
NAME = "web-01"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE0000000000000000000000000000000000000000000 anna@example.org"
HARDWARE = HardwareProfile("small", vcpus=2, memory_bytes=512 * MIB, disk_bytes=8 * GIB, nics=2 * (ProfileNic("user"),))
USER = GuestUser("anna", ssh_keys=(KEY,), sudo="ALL=(ALL) NOPASSWD:ALL")
NETWORK = GuestNetwork(("192.0.2.10/24",), gateways=("192.0.2.1",), nameservers=("192.0.2.2",))
GUEST = GuestProfile(users=(USER,), network=NETWORK, run=("touch /root/ran",))


@pytest.fixture
def library(real_host: Host, debian_image: DebianImage, tmp_path: Path) -> Iterator[Path]:
    """A library with the image as the template `debian`."""
    with made_pool(real_host, "library", tmp_path / "library") as directory:
        path = directory / "debian.qcow2"
        shutil.copyfile(debian_image.path, path)
        size_bytes, virtual_bytes = path.stat().st_size, inspect(path).virtual_size_bytes
        image = TemplateImage(path.name, ImageRole.DISK, "qcow2", virtual_bytes, size_bytes, "0" * 64)
        template = Template("debian", (image,), readiness=Readiness.CLOUD_INIT, takes_seed=True)
        add_template(real_host, "library", template)
        yield directory


@pytest.mark.timeout(900)
def test_a_deployed_debian_gets_its_name_its_user_and_its_key_and_grows_to_its_disk(
    real_host: Host, journal: Journal, library: Path
):
    request = DeployRequest("debian", (NAME,), HARDWARE, GUEST, ready_timeout_s=800)
    plan_set = deploy.plan_deploy(real_host, request)
    plan_set.raise_if_blocked()
    job = jobs.submit(plan_set.plans[0], real_host, journal)
    assert job.state is JobState.DONE, job.error
    with real_host.calls("look") as connection:
        domain = connection.lookupByName(NAME)
        xml = domain.XMLDesc()
        assert guest.run(domain, "hostname") == NAME
        assert guest.run(domain, "cat /home/anna/.ssh/authorized_keys") == KEY
        assert guest.run(domain, "sudo -u anna sudo -n id -u") == "0"
        addresses = guest.run(domain, "ip -4 -o address show scope global")
        assert "192.0.2.10/24" in addresses
        assert "10.0.2.15/24" in addresses, "the second card has its address by DHCP"
        assert "192.0.2.1" in guest.run(domain, "ip route show default")
        assert "192.0.2.2" in guest.run(domain, "resolvectl dns")
        assert guest.run(domain, "ls /root/ran") == "/root/ran"
        assert guest.run(domain, "systemctl --failed --no-legend --plain") == ""
        assert guest.run(domain, "systemctl is-active ssh systemd-networkd").split() == ["active", "active"]
        assert int(guest.run(domain, "df --output=size -B1 / | tail -1")) > 7 * GIB
        assert guest.run(domain, "cd /etc/ssh; ls ssh_host_*.pub").split() == [
            "ssh_host_ecdsa_key.pub",
            "ssh_host_ed25519_key.pub",
        ]
        children = guest.run(domain, 'grep -c "running \'modules" /var/log/cloud-init-output.log')
        assert int(children) == 2
    assert "seed" not in xml
    assert not [path.name for path in library.iterdir() if "seed" in path.name]


def test_what_a_tool_mounts_goes_with_it_when_it_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """mmdebstrap mounts /proc and /sys in the system that it makes: nothing of it may stay when a build is ended."""
    monkeypatch.setattr(recipe_process, "_GRACE_S", 0.5)
    heard: list[str] = []
    script = f"mount -t tmpfs recipe {tmp_path} && echo mounted >&2; sleep 600"
    with pytest.raises(Cancelled):
        recipe_process.run(["sh", "-c", script], isolated=True, on_line=heard.append, is_cancelled=lambda: bool(heard))
    assert heard == ["mounted"]
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
