"""Backend `globus` before it asks anybody: what of its section is refused, and how failures are put into words."""

import json
import threading
import uuid

import pytest

from stream_core.cluster_config import ClusterConfig
from stream_core.errors import ConfigError
from stream_hpc_dispatch.clusters import globus_pilot, globus_words, open_cluster
from stream_hpc_dispatch.clusters.base import JobHandle
from stream_hpc_dispatch.clusters.globus_jobs import TaskState, end_of, group_of, read_handle

ROOT = __file__.rpartition("/tests/")[0]
SHIPPED = f"{ROOT}/deploy/hpc/globus/user_config_schema.json"
LEASE = "0f" * 16


def opened(tmp_path, **section):
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o600)
    known = {"endpoint_id": str(uuid.uuid4()), "client_id": str(uuid.uuid4()), "client_secret_file": str(secret)}
    config = ClusterConfig.model_validate({"name": "site", "backend": "globus", "globus": {**known, **section}})
    return open_cluster(config, command=[], state_dir=tmp_path, stop_grace_s=1.0)


@pytest.mark.parametrize("name", ["production", "preview", "sandbox", "test", "integration", "staging"])
def test_known_environments_lead_where_they_say(tmp_path, name):
    assert opened(tmp_path, environment=name).backend == "globus"


def test_an_unknown_environment_is_not_production(tmp_path):
    with pytest.raises(ConfigError, match="unknown environment 'produktion'; known: production, ") as caught:
        opened(tmp_path, environment="produktion")
    assert caught.value.param == "clusters.site.globus.environment"


def test_an_environment_that_the_sdk_leads_elsewhere_is_refused(tmp_path, monkeypatch):
    """The SDK of another version, or one that was tampered with."""
    monkeypatch.setattr("globus_compute_sdk.sdk.client.get_web_service_url", lambda _: "https://elsewhere.example")
    with pytest.raises(ConfigError, match=r"web service is https://elsewhere\.example, not https://compute\.api"):
        opened(tmp_path)


def test_the_secret_goes_to_globus_auth_alone(tmp_path, monkeypatch):
    """A variable of the environment that the SDK obeys would send the client's secret to anybody."""
    monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_AUTH", "https://auth.example/")
    with pytest.raises(ConfigError, match=r"send the client's secret to https://auth\.example/, not to https://auth\."):
        opened(tmp_path)
    with pytest.raises(ConfigError, match="not to one on loopback"):
        opened(tmp_path, environment="local")


def test_local_needs_its_token_service(tmp_path, monkeypatch):
    monkeypatch.delenv("GLOBUS_SDK_SERVICE_URL_AUTH", raising=False)
    with pytest.raises(ConfigError, match="GLOBUS_SDK_SERVICE_URL_AUTH"):
        opened(tmp_path, environment="local")


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        ({"walltime": "12 hours"}, ".walltime", "does not match"),
        ({"walltime": "12:00:00", "gpus": 17}, ".gpus", "17 is greater than the maximum of 16"),
        ({"walltime": "12:00:00", "partition": "a b; rm"}, ".partition", "does not match"),
        ({"walltime": "12:00:00", "worker_init": "curl"}, "", "'worker_init' was unexpected"),
        ({}, "", "'walltime' is a required property"),
    ],
)
def test_what_does_not_fit_the_endpoints_template_is_refused(tmp_path, config, path, words):
    """Before anything is submitted; the message says where in the section it stands."""
    with pytest.raises(ConfigError, match=words) as caught:
        opened(tmp_path, user_endpoint_config=config, user_endpoint_schema=SHIPPED)
    assert caught.value.param == f"clusters.site.globus.user_endpoint_config{path}"


@pytest.mark.parametrize("text", ["{", '{"type": 7}', ""])
def test_a_schema_that_is_none(tmp_path, text):
    schema = tmp_path / "schema.json"
    schema.write_text(text)
    with pytest.raises(ConfigError, match="is no JSON schema") as caught:
        opened(tmp_path, user_endpoint_schema=str(schema))
    assert caught.value.param == "clusters.site.globus.user_endpoint_schema"


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "stream_hpc_dispatch.clusters.globus", None)
    with pytest.raises(ConfigError, match=r"needs the extra stream-hpc-dispatch\[globus\]"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("exception", "words"),
    [
        (
            "Traceback from final attempt\n  File x\nerrors.ManagerLost: loss of manager 7 on host n1\n------",
            "the batch system ended the job: cancelled, walltime reached, or a node failed (errors.ManagerLost: loss",
        ),
        ("MaxResultSizeExceeded(15581488, 10485760)", "it ended; its log was too long to send (MaxResult"),
        ("ScalingFailed: sbatch: error: invalid account", "the endpoint's batch system did not take the job (Scaling"),
        ("a\n" * 2_000 + "last words", "last words"),
        ("x" * 5_000, "x" * 399 + "…"),
        ("", "the endpoint says that it failed, and not why"),
    ],
)
def test_failures_in_words(exception, words):
    assert globus_words.task_failure(exception).startswith(words)


@pytest.mark.parametrize(
    ("result", "exit_code", "reason"),
    [
        ({"exit_code": -15, "tail": "t", "host": "n1", "error": ""}, -15, ""),
        ({"exit_code": None, "tail": "", "host": "n1", "error": "no such file"}, None, "no such file (on n1)"),
        ({"exit_code": "0", "tail": 7}, None, ""),
        (["anything"], None, "its result is not what was asked for"),
        (None, None, "its result is not what was asked for"),
    ],
)
def test_a_result_is_a_clusters_word(result, exit_code, reason):
    """Whatever a cluster answers, it is an end."""
    ended = end_of(TaskState("success", result))
    assert (ended.exit_code, ended.reason) == (exit_code, reason)
    assert isinstance(ended.tail, str)


def test_a_result_that_would_run_code_is_not_opened():
    """The SDK would: a result says of itself how it is to be read."""
    from stream_hpc_dispatch.clusters.globus_service import _state  # noqa: PLC0415  (its SDK is an extra)

    state = _state({"status": "success", "result": "st\nf:raise SystemExit\n"})
    assert "not the JSON" in end_of(state).reason
    assert "not the JSON" in end_of(_state({"status": "success", "result": "00\ngASVAAA="})).reason
    assert end_of(_state({"status": "success", "result": '11\n{"exit_code": 3}'})).exit_code == 3
    assert "keeps its result no more" in end_of(_state({"status": "success"})).reason


async def test_what_nobody_expected_is_one_clusters_fault(caplog):
    """An SDK that raises anything else ends no other cluster, and is not taken for a refusal."""
    from stream_hpc_dispatch.clusters.globus_service import ServiceFault, in_thread  # noqa: PLC0415

    with pytest.raises(ServiceFault, match="ZeroDivisionError") as caught:
        await in_thread(lambda: 1 / 0, timeout_s=10)
    assert not caught.value.refused
    assert "nobody expected" in caplog.text
    with pytest.raises(ServiceFault, match=r"did not answer within 0\.01 s") as caught:
        await in_thread(threading.Event().wait, timeout_s=0.01)
    assert not caught.value.refused


@pytest.mark.parametrize("status", ["received", "waiting-for-ep", "waiting-for-nodes", "running", "unknown", ""])
def test_a_task_that_has_not_ended(status):
    assert end_of(TaskState(status)) is None


def test_a_lease_names_its_task_group():
    """For ever the same one: later versions must find what this one has started."""
    assert str(group_of(LEASE)) == "91906d2b-0fee-5967-a55f-959a0a70d0d2"
    assert group_of(LEASE) != group_of("1f" * 16)


@pytest.mark.parametrize("handle", [None, "", "a b", f"{'1f' * 16} - 7.0", f"{LEASE} no-uuid 7.0", f"{LEASE} - soon"])
def test_a_handle_of_another_job_is_none(handle):
    assert read_handle(LEASE, handle and JobHandle(handle), 1.0) is None


def test_the_function_stands_alone():
    """Its text alone is executed elsewhere: it runs here the same way, and returns plain JSON."""
    scope = {}
    exec(globus_pilot.source(), scope)  # noqa: S102  (as an endpoint does it)
    result = scope[globus_pilot.FUNCTION](["sh", "-c", "cat; exit 3"], "the job", 2e9, 3)
    assert json.loads(json.dumps(result)) | {"host": ""} == {"exit_code": 3, "tail": "job", "host": "", "error": ""}
