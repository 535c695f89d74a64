"""What shall be deployed, as a person or a script asked for it. Data only; vm.deploy makes the plans."""

from __future__ import annotations

from dataclasses import dataclass

from vm.profile_model import GuestProfile, HardwareProfile
from vm.template_model import DEFAULT_LIBRARY


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """`names` are the new VMs' (vm.name_patterns expands a pattern). linked: overlays on the template's disk, else full
    copies. user_data is free cloud-init user data besides the guest profile's; it may hold secrets. `hardware` and
    `guest` are complete: the template's defaults, a named profile and single settings are merged already.
    """

    template: str
    names: tuple[str, ...]
    hardware: HardwareProfile
    guest: GuestProfile
    library: str = DEFAULT_LIBRARY
    pool: str = "default"
    linked: bool = True
    user_data: str = ""
    start: bool = True
    wait_ready: bool = True
    ready_timeout_s: float = 600.0
    title: str = ""
    tags: tuple[str, ...] = ()
    owner: str = ""
    command: tuple[str, ...] = ()  # the words of the command that asks for it; secrets left out
