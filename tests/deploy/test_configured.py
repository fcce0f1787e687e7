"""What the manifests tell the programs: settings that exist, a deployment that is valid, time enough to drain."""

import os

from deploy.rendered import config_texts, containers, environment, name_of, pod_of

from stream_core.deployment import parse
from stream_engine.settings import EngineSettings
from stream_gateway.settings import GatewaySettings
from stream_hpc_dispatch.settings import DispatchSettings
from stream_judge.settings import JudgeSettings
from stream_relay.settings import RelaySettings
from stream_summarizer.settings import SummarizerSettings

SETTINGS = {
    "engine": EngineSettings,
    "gateway": GatewaySettings,
    "judge": JudgeSettings,
    "summarizer": SummarizerSettings,
    "hpc-dispatch": DispatchSettings,
    "relay": RelaySettings,
}
DRAIN = {
    "gateway": lambda settings: settings.grace_s + 2,  # the server's own last writes
    "judge": lambda settings: settings.drain_s,
    "summarizer": lambda _: 10.0,  # serve_grpc's
    # Handing over, or ending the workers.
    "hpc-dispatch": lambda settings: settings.leader_lease_s if settings.keep_workers else settings.stop_grace_s,
    "relay": lambda settings: settings.drain_s,
}


def settings_of(container, monkeypatch):
    """Read a container's settings as its program does, but for the file, which is tested below."""
    for name in list(os.environ):
        if name.startswith("STREAM_"):
            monkeypatch.delenv(name)
    for name, value in environment(container).items():
        if name != "STREAM_CONFIG":
            monkeypatch.setenv(name, value.replace("$(POD_IP)", "192.0.2.1"))
    return SETTINGS[container["name"]].read()


def ours(rendered):
    """(workload, container) of our own programs."""
    for workload in rendered.workloads:
        for container in containers(workload):
            if container["name"] in SETTINGS:
                yield workload, container


def test_every_variable_is_a_setting(rendered, monkeypatch):
    """The programs' own settings classes read what the manifests set; each is of one program alone."""
    for _, container in ours(rendered):
        with monkeypatch.context() as patch:
            settings_of(container, patch)
        prefix = f"STREAM_{container['name'].upper().replace('-', '_')}__"
        for name in environment(container):
            assert name.startswith(prefix) or name == "STREAM_CONFIG"


def test_there_is_time_to_drain(rendered, monkeypatch):
    """The grace period holds the pause before the signal, the drain, and five seconds."""
    for workload, container in ours(rendered):
        if container["name"] == "engine":
            continue
        with monkeypatch.context() as patch:
            drain = DRAIN[container["name"]](settings_of(container, patch))
        pause = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
        assert pod_of(workload)["terminationGracePeriodSeconds"] >= pause + drain + 5, name_of(workload)


def test_the_deployment_is_valid(rendered):
    """`stream.yaml` of each overlay is read without an error."""
    texts = {text for workload in rendered.workloads for text in config_texts(rendered, workload) if "tiers:" in text}
    assert texts or rendered.overlay.endswith("/outside")
    for text in texts:
        deployment, _ = parse(text)
        assert {cluster.tier for cluster in deployment.clusters} == {
            tier.name for tier in deployment.tiers if tier.kind == "hpc"
        }


def test_probes_ask_the_port_of_the_program(rendered, monkeypatch):
    """A probe's port is one that the program's settings name."""
    for _, container in ours(rendered):
        if container["name"] == "engine":
            continue
        with monkeypatch.context() as patch:
            settings = settings_of(container, patch)
        numbers = {port["name"]: port["containerPort"] for port in container["ports"]}
        main = getattr(settings, "port", None) or int(settings.listen.rpartition(":")[2])
        assert numbers == {**numbers, "metrics": settings.metrics_port}
        assert main in numbers.values()
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert numbers[container[kind]["httpGet"]["port"]] in {settings.metrics_port, main}
