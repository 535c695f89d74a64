"""Which VMs a command means, on a host whose VMs were changed before."""

from __future__ import annotations

from host.connection import Host
from hvtui.cli.chosen import listed_vms
from hvtui.cli.session import Session


def session_on(host: Host, **given: object) -> Session:
    session = Session(given=dict(given))
    session._host = host
    return session


def test_a_running_vm_whose_next_boot_differs_has_pending_changes(simulated: Host) -> None:
    with simulated.calls("change") as connection:
        xml = connection.lookupByName("web-01").XMLDesc()
        connection.defineXML(xml.replace("<on_crash>destroy", "<on_crash>restart"))
    found = listed_vms(session_on(simulated, filter="is:pending"), ())
    assert [vm.name for vm in found] == ["web-01"]
    shown = listed_vms(session_on(simulated), ("web-01", "web-02"), pending=True)
    assert [vm.config is not None and vm.config.pending_changes for vm in shown] == [True, False]
