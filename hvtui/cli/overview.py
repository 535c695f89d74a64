"""`hvtui --headless` alone: the host in a screenful, and what to do next. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from host.errors import HvtuiError
from host.facts import read_facts
from host.job_model import Job, JobState
from host.load import read_load
from host.text import printable
from host.units import format_bytes
from hvtui.cli.grammar import verb
from hvtui.cli.host import SETTLE_S, facts_record, load_record, share
from hvtui.cli.output import Format, complain, paint, write_json, write_records, write_text
from hvtui.cli.session import Session
from vm import inventory
from vm.model import Vm

if TYPE_CHECKING:
    from host.facts import NodeFacts
    from host.load import HostLoad
    from host.plan import Json

MOST_LINES = 10
WATCHED = (JobState.RUNNING, JobState.QUEUED, JobState.INTERRUPTED)
FIRST_STEPS = """No virtual machine yet. First steps:
  hvtui vm create web --from tiny       a tiny Linux made from this system's own kernel, in seconds
  hvtui vm create NAME --from IMAGE     from a disk image or an ISO: --memory 2G --cpus 2 --disk 20G
  hvtui vm console web                  its serial console (ctrl+] leaves)
  hvtui                                 the console for the keyboard, in a terminal
  hvtui --demo                          the same on a simulated host with about 30 VMs"""
NEXT_STEPS = "hvtui in a terminal opens the console; hvtui vm list, hvtui vm --help and hvtui --help say more"


@verb("overview", text="The host, its VMs by state, what needs attention, and jobs that run or were interrupted.")
def overview(session: Session) -> int:
    return show_overview(session)


def show_overview(session: Session) -> int:
    """Write the overview; returns the exit code. Raises ConnectionLost and Denied with what to do."""
    opened = session.host()
    facts = read_facts(opened, configured=session.config().accelerator)
    load = read_load(opened, settle_s=SETTLE_S)
    vms = inventory.read(opened)
    jobs = _jobs(session, opened.uri)
    if session.output is Format.TABLE:
        write_text(_text(opened.name, facts, load, vms, jobs))
        return 0
    values: dict[str, Json] = {
        "host": facts_record(opened.name, opened.uri, facts),
        "load": load_record(load),
        "vms": {"total": len(vms), **Counter(vm.state.value for vm in vms)},
        "attention": [{"vm": vm.name, "uuid": vm.uuid, "state": vm.state.value, "reason": vm.state_reason}
                      for vm in vms if vm.needs_attention],
        "jobs": [{"id": job.id, "state": job.state.value, "title": job.title, "progress": round(job.progress, 4)}
                 for job in jobs],
    }  # fmt: skip
    if session.output is Format.JSON:
        write_json(values)
    else:
        write_records([values], session.output)
    return 0


def _jobs(session: Session, uri: str) -> Sequence[Job]:
    """What runs or was left half-done here. An overview without a journal is better than none."""
    try:
        journal = session.journal()
        journal.recover()
        return journal.jobs(limit=MOST_LINES, states=WATCHED, host_uri=uri)
    except HvtuiError as error:
        complain(str(error))
        return ()


def _text(name: str, facts: NodeFacts, load: HostLoad, vms: Sequence[Vm], jobs: Sequence[Job]) -> str:
    lines = [_host_line(name, facts), _load_line(facts, load)]
    if facts.accelerator == "qemu":
        lines.append(f"  note: guests are emulated here, 10 to 50 times slower: {printable(facts.accelerator_reason)}")
    lines += ["", _states_line(vms)] if vms else ["", FIRST_STEPS]
    attention = [vm for vm in vms if vm.needs_attention]
    for vm in attention[:MOST_LINES]:
        reason = f" ({printable(vm.state_reason)})" if vm.state_reason else ""
        lines.append(f"  {paint('!', 'red')} {printable(vm.name, limit=40)}: {vm.state}{reason}")
    if len(attention) > MOST_LINES:
        lines.append(f"  … and {len(attention) - MOST_LINES} more")
    lines += [_job_line(job) for job in jobs]
    return "\n".join([*lines, *(["", NEXT_STEPS] if vms else [])])


def _host_line(name: str, facts: NodeFacts) -> str:
    where = printable(facts.host_name or name, limit=60)
    versions = f"{facts.driver} {facts.hypervisor_version}".strip()
    return f"{paint(where, 'bold')}   {versions}, libvirt {facts.libvirt_version}   {facts.accelerator}"


def _load_line(facts: NodeFacts, load: HostLoad) -> str:
    cpu = "" if load.cpu_percent is None else f" {load.cpu_percent:.0f}%"
    memory = share(load.memory_used_bytes, load.memory_total_bytes)
    if memory == "–":
        memory = format_bytes(facts.memory_bytes)
    disk = share(load.disk_used_bytes, load.disk_total_bytes)
    model = f" ({printable(facts.cpu_model, limit=50)})" if facts.cpu_model else ""
    return f"  {facts.cpus} CPUs{model}{cpu}   memory {memory}" + ("" if disk == "–" else f"   disk {disk}")


def _states_line(vms: Sequence[Vm]) -> str:
    states = Counter(vm.state.value for vm in vms)
    return f"{len(vms)} VM{'s' if len(vms) != 1 else ''}: " + ", ".join(f"{n} {s}" for s, n in states.most_common())


def _job_line(job: Job) -> str:
    title = printable(job.title, limit=60)
    if job.state is JobState.INTERRUPTED:
        return f"  {paint('!', 'red')} job {job.id} was interrupted: {title}. 'hvtui job show {job.id}' says what to do"
    return f"  job {job.id} {job.state} {job.progress:.0%}: {title}"
