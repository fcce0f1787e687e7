"""The nightly backup: its pods keep to the rules, and its users may pack their own account's streams and no other's."""

import time
from pathlib import Path
from typing import Any

import pytest
from deploy.rendered import Rendered, environment, pod_of, selects, why_no_kubectl

from stream_cli.cluster_secrets import Installation, make
from stream_core import bus
from stream_core.settings import NatsSettings
from stream_core.testing.broker import Broker
from stream_gateway.backup.loading import load
from stream_gateway.backup.saving import save
from stream_gateway.settings import GatewaySettings

OVERLAY = Rendered("production-backup")


@pytest.fixture
def job() -> dict[str, Any]:
    """The job's template, which is shaped as a workload is."""
    if reason := why_no_kubectl():
        pytest.skip(reason)
    return dict(OVERLAY.named("CronJob", "backup")["spec"]["jobTemplate"])


def test_its_pods_keep_to_the_rules(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """No rights, no token, no privilege; memory is bounded; settings exist; what it dials lets it in."""
    pod = pod_of(job)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert container["image"].startswith("registry.example/stream/gateway:")
        with monkeypatch.context() as patch:
            for name, value in environment(container).items():
                patch.setenv(name, value)
            GatewaySettings.read()
    dialled = [
        target["podSelector"].get("matchLabels")
        for policy in OVERLAY.policies_of(job)
        for rule in policy["spec"].get("egress", [])
        for target in rule.get("to", [])
        if "podSelector" in target
    ]
    for labels in ({"app.kubernetes.io/name": name} for name in ("nats", "postgres")):
        assert labels in dialled
        called = next(each for each in OVERLAY.workloads if selects(labels, each))
        allowed = [
            source["podSelector"]["matchLabels"]
            for policy in OVERLAY.policies_of(called)
            for rule in policy["spec"].get("ingress", [])
            for source in rule["from"]
            if "podSelector" in source
        ]
        assert any(selects(each, job) for each in allowed), labels
    assert OVERLAY.services_of(job) == [], "nobody is led to it"


@pytest.mark.process
async def test_each_user_packs_its_own_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """hpc_dispatch's leases go out and come back by the users that `make k8s-secrets` makes; gateways' are not seen."""
    installation = Installation(tmp_path / "secrets")
    make(installation, now=time.time())
    nats = tmp_path / "nats"
    nats.mkdir()
    broker = Broker(nats, (installation.place("nats") / "accounts.conf").read_text())
    broker.start()
    try:

        async def connected(service: str) -> Any:
            seed = installation.place(service) / "nats.seed"
            return await bus.connect(NatsSettings(url=broker.url, nkey_file=seed), name=service)

        dispatch = await connected("hpc_dispatch")
        bucket = await dispatch.jetstream().create_key_value(bucket="stream-leases", history=1)
        await bucket.put("lease", b"sealed")
        for name in ("CA", "CERTIFICATE", "KEY"):
            monkeypatch.setenv(f"STREAM_GATEWAY__TLS__{name}", "none")
        monkeypatch.setenv("STREAM_GATEWAY__NATS__URL", broker.url)
        settings = {}
        for account in ("gateway", "dispatch"):
            monkeypatch.setenv(
                "STREAM_GATEWAY__NATS__NKEY_FILE", str(tmp_path / "secrets" / "backup" / f"{account}.seed")
            )
            settings[account] = GatewaySettings.read()
        manifest = await save(settings["dispatch"], tmp_path / "dispatch")
        assert [stream.name for stream in manifest.streams] == ["KV_stream-leases"]
        assert (await save(settings["gateway"], tmp_path / "gateway")).streams == []
        await bucket.put("lease", b"newer")
        await load(settings["dispatch"], tmp_path / "dispatch", replace=True)
        assert (await bucket.get("lease")).value == b"sealed"
        await bus.close(dispatch)
    finally:
        broker.stop()
