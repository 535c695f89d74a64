"""What a guest says of its readiness, hostile answers among it, and a job that waited in vain."""

from __future__ import annotations

import base64
import json

import libvirt
import libvirt_qemu
import pytest

from host import jobs
from host.errors import TimedOut
from host.job_model import JobState
from host.journal import Journal
from host.plan import Plan, Step
from host.steps import StepVerb, register
from vm import ready_steps
from vm.cloud_init_status import MOST_ERRORS, from_files
from vm.guest_files import AgentAnswer, AgentState, read_guest_files
from vm.ready_console import ANY_LINE, CLOUD_INIT_LINE

RESULT, STATUS = "/run/cloud-init/result.json", "/run/cloud-init/status.json"
DONE = '{"v1": {"datasource": "DataSourceNoCloud [seed=/dev/vdb][dsmode=net]", "errors": []}}'
LINE = b"\r\n[   68.9] cloud-init[611]: Cloud-init v. 22.4.2 finished at Thu, 04 Jan 2024 10:00:00 +0000. Up 68 s\r\n"


# cloud-init's files


def test_before_cloud_init_begins_nothing_is_known():
    assert not from_files(None, None).is_done
    assert from_files(None, None).stage == ""


def test_the_stage_is_told_while_it_works():
    status = from_files(None, '{"v1": {"stage": "modules-config", "init": {"errors": []}}}')
    assert (status.is_done, status.stage) == (False, "modules-config")


def test_a_result_ends_it():
    status = from_files(DONE, '{"v1": {"stage": null}}')
    assert (status.is_done, status.errors, status.has_seed) == (True, (), True)


def test_errors_of_old_and_new_versions_are_told_once_each():
    result = '{"v1": {"datasource": "DataSourceNoCloud", "errors": ["one"]}}'
    status = json.dumps(
        {"v1": {"init": {"errors": ["one"], "recoverable_errors": {"ERROR": ["two"], "WARNING": ["three"]}}}}
    )
    assert from_files(result, status).errors == ("one", "two")
    many = json.dumps({"v1": {"errors": [str(number) for number in range(99)]}})
    assert len(from_files(many, None).errors) == MOST_ERRORS


def test_a_guest_without_a_seed_is_known():
    assert not from_files('{"v1": {"datasource": "DataSourceNone", "errors": []}}', None).has_seed


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"v1": 7}', '{"v2": {}}', "[" * 5000, "\x00"])
def test_what_is_no_result_is_not_ready(text):
    assert not from_files(text, text).is_done


@pytest.mark.parametrize("value", [None, 7, {"a": 1}, [7, None], "text"])
def test_odd_values_in_a_result_are_no_errors(value):
    text = json.dumps({"v1": {"datasource": value, "errors": value, "stage": value}})
    assert from_files(text, text).errors == ()
    assert isinstance(from_files(None, text).stage, str)


def test_what_cloud_init_reported_is_told_with_where_to_look():
    bad = '{"v1": {"datasource": "DataSourceNoCloud", "errors": ["E\\u001b[31m"]}}'
    seen = ready_steps._by_agent(AgentAnswer(AgentState.ANSWERS, {RESULT: bad}))
    assert seen.is_ready
    assert seen.warning.startswith("ready, but cloud-init reported: E")
    assert "\x1b" not in seen.warning
    assert "/var/log/cloud-init.log" in seen.warning


# The console


def test_cloud_inits_last_line_is_recognised():
    assert CLOUD_INIT_LINE.search(LINE)
    assert not CLOUD_INIT_LINE.search(b"Cloud-init v. 22.4.2 running 'modules:final' at Thu")
    assert not CLOUD_INIT_LINE.search(b"tiny: ready")
    assert ANY_LINE.search(b"tiny: ready")


# The agent


class Domain:
    """A running VM whose channel is connected, for what reads it through libvirt."""

    state = "connected"

    def XMLDesc(self, _flags):  # noqa: N802 - libvirt's name
        target = f"<target type='virtio' name='org.qemu.guest_agent.0' state='{self.state}'/>"
        return f"<domain><devices><channel type='unix'>{target}</channel></devices></domain>"


def failing(message):
    error = libvirt.libvirtError(message)
    error.err = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, message, 2, "", "", "", -1, -1)
    return error


@pytest.fixture
def agent(monkeypatch):
    """Files of a guest by path; a command in `refused` is answered by that error."""
    files, refused, asked = {}, {}, []

    def command(_domain, text, _timeout, _flags):
        request = json.loads(text)
        name, arguments = request["execute"], request.get("arguments", {})
        asked.append(name)
        if name in refused:
            raise failing(refused[name])
        if name == "guest-file-open":
            if arguments["path"] not in files:
                raise failing("internal error: unable to execute QEMU agent command 'guest-file-open': failed to open")
            return json.dumps({"return": list(files).index(arguments["path"])})
        if name == "guest-file-read":
            value = list(files.values())[arguments["handle"]]
            data = value if isinstance(value, dict) else {"buf-b64": base64.b64encode(value.encode()).decode()}
            return json.dumps({"return": data})
        return '{"return": {}}'

    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", command)
    return files, refused, asked


def test_files_are_read_and_closed_and_missing_ones_left_out(agent):
    files, _, asked = agent
    files[STATUS] = "text"
    assert read_guest_files(Domain(), (RESULT, STATUS)) == AgentAnswer(AgentState.ANSWERS, {STATUS: "text"})
    assert asked.count("guest-file-close") == 1


def test_an_agent_that_may_not_read_files_says_so(agent):
    _, refused, _ = agent
    refused["guest-file-open"] = "unable to execute QEMU agent command 'guest-file-open': The command has been disabled"
    assert read_guest_files(Domain(), (RESULT,)).state is AgentState.REFUSES


def test_an_agent_that_does_not_answer_is_absent(agent, monkeypatch):
    _, refused, asked = agent
    refused["guest-ping"] = "Guest agent is not responding: agent not available for now"
    assert read_guest_files(Domain(), (RESULT,)).state is AgentState.ABSENT
    monkeypatch.setattr(Domain, "state", "disconnected")
    asked.clear()
    assert read_guest_files(Domain(), (RESULT,)).state is AgentState.ABSENT
    assert asked == []


@pytest.mark.parametrize("answer", [{"buf-b64": "%%%"}, {"buf-b64": 7}, {}, {"buf-b64": "/////w=="}])
def test_an_agents_nonsense_is_no_result(agent, answer):
    files, _, _ = agent
    files[RESULT] = answer
    found = read_guest_files(Domain(), (RESULT,))
    assert not from_files(found.files.get(RESULT), None).is_done


# A job that waited in vain


def test_a_job_that_waited_in_vain_keeps_what_it_made_and_waits_again(simulated, tmp_path):
    made, patience = tmp_path / "made", tmp_path / "patience"

    def make(_ctx, _args):
        made.touch()
        return {}

    def wait(ctx, _args):
        if not patience.exists():
            raise TimedOut(
                "not ready", about="web", remedy=f"Wait again with 'hvtui job restart {ctx.job_id}'", keeps=True
            )
        return {}

    register(StepVerb("test.make-for-wait", make, lambda *_: made.unlink(), lambda *_: None))
    register(StepVerb("test.wait-in-vain", wait, None, lambda *_: None))
    steps = (Step("test.make-for-wait", "Make"), Step("test.wait-in-vain", "Wait"))
    journal = Journal(tmp_path / "journal.db")
    job = jobs.submit(Plan("Wait", simulated.uri, steps, ("vm",), vm_name="web"), simulated, journal)
    assert (job.state, job.exit_code, job.kept) == (JobState.FAILED, 7, True)
    assert made.exists()
    patience.touch()
    assert jobs.restart(job.id, simulated, journal).state is JobState.DONE
