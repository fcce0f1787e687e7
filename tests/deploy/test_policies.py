"""Rules that hold for every overlay: what pods may do, how they start and end, and what stands in no manifest."""

import re

import pytest
from deploy.rendered import (
    K8S,
    SERVICES,
    Rendered,
    config_texts,
    containers,
    environment,
    labels_of,
    name_of,
    pod_of,
    ports,
    selects,
    why_no_kubectl,
)

needs_kubectl = pytest.mark.skipif(bool(why_no_kubectl()), reason=why_no_kubectl())

SIGNALS = {
    "gateway": "stream_gateway_open_streams",
    "judge": "cpu",
    "summarizer": "stream_summarizer_queue",
    "hpc-dispatch": "cpu",
    "relay": "stream_relay_connections",
}
OPERATORS = {"campus.key", "cloud.key", "globus.secret"}
"""Files that the operator puts there: keys that others gave the institution."""
CONFIGURATION = {"nats.conf", "stream.yaml"}
"""What comes from a ConfigMap into the same folder."""
FULL = ["production", "production-postgres"]
"""Overlays with all that scales."""


def test_every_service_has_the_same_files():
    """Who knows one folder knows all five."""
    wanted = {f"{name}.yaml" for name in ("deployment", "service", "hpa", "pdb", "netpol", "serviceaccount")}
    for service in SERVICES:
        found = {path.name for path in (K8S / "base" / service).iterdir()} - {"kustomization.yaml", "ingress.yaml"}
        assert found == wanted, service


def test_pods_run_as_nobody_and_confined(rendered):
    """Non-root with a fixed id, and the runtime's own seccomp profile."""
    for workload in rendered.workloads:
        context = pod_of(workload)["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == context["runAsGroup"] == 10001
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_containers_can_gain_nothing(rendered):
    """No escalation, no capability, no writable root, nothing of the host."""
    for workload in rendered.workloads:
        for container in containers(workload, with_init=True):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, f"{name_of(workload)}/{container['name']}"
            assert not any("hostPort" in port for port in container.get("ports", []))
        pod = pod_of(workload)
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys()
        assert not any("hostPath" in volume for volume in pod.get("volumes", []))


def test_volumes_in_memory_or_on_the_node_are_bounded(rendered):
    """A program that fills its temporary folder evicts itself, not its neighbours."""
    for workload in rendered.workloads:
        for volume in pod_of(workload)["volumes"]:
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": "none"}), f"{name_of(workload)}/{volume['name']}"


def test_pods_hold_no_token_of_the_cluster(rendered):
    """Each workload has an account of its own, without a token, and no variables of other services."""
    accounts = {account["metadata"]["name"]: account for account in rendered.of("ServiceAccount")}
    for workload in rendered.workloads:
        pod = pod_of(workload)
        assert pod["serviceAccountName"] == name_of(workload)
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert accounts[name_of(workload)]["automountServiceAccountToken"] is False
    assert not rendered.of("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


def test_resources_are_asked_for_and_bounded(rendered):
    """Each container asks for processor and memory, and its memory ends somewhere."""
    for workload in rendered.workloads:
        for container in containers(workload, with_init=True):
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys()
            assert "memory" in resources["limits"]


def test_every_container_is_probed(rendered):
    """Startup, readiness and liveness; over HTTP on a port that the container has."""
    for workload in rendered.workloads:
        for container in containers(workload):
            names = {port["name"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container[kind]
                assert "exec" in probe or probe["httpGet"]["port"] in names
            # A liveness probe that fails while the program is only busy would make things worse.
            assert (
                container["livenessProbe"]["periodSeconds"] * container["livenessProbe"].get("failureThreshold", 3)
                >= 15
            )


def test_images_are_pinned(rendered):
    """A tag that says a version, or a digest."""
    for workload in rendered.workloads:
        for container in containers(workload, with_init=True):
            assert re.search(r":\d+\.\d+[\w.-]*$|@sha256:[0-9a-f]{64}$", container["image"]), container["image"]


def test_pods_spread(rendered):
    """Over machines and zones, so that one of them does not take a service with it."""
    for workload in rendered.workloads:
        constraints = pod_of(workload)["topologySpreadConstraints"]
        assert "kubernetes.io/hostname" in {each["topologyKey"] for each in constraints}
        for each in constraints:
            assert selects(each["labelSelector"]["matchLabels"], workload)


def test_every_workload_has_a_disruption_budget(rendered):
    """A drained machine takes one pod of a service at a time."""
    for workload in rendered.workloads:
        budgets = [
            each
            for each in rendered.of("PodDisruptionBudget")
            if each["spec"]["selector"]["matchLabels"].items() <= labels_of(workload).items()
        ]
        assert [each["spec"]["maxUnavailable"] for each in budgets] == [1], name_of(workload)


def test_a_rollout_never_has_fewer_pods(rendered):
    """The new pod is ready before the old one is told to stop."""
    for workload in rendered.of("Deployment"):
        assert workload["spec"]["strategy"] == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        }


@needs_kubectl
@pytest.mark.parametrize("overlay", FULL)
def test_each_service_scales_on_its_own_signal(overlay):
    """Streams, processor, queue, connections; dispatch is fixed at two. The number is the autoscaler's alone."""
    rendered = Rendered(overlay)
    scalers = {each["spec"]["scaleTargetRef"]["name"]: each["spec"] for each in rendered.of("HorizontalPodAutoscaler")}
    for name, signal in SIGNALS.items():
        scaler = scalers.pop(name)
        [metric] = scaler["metrics"]
        assert signal == (metric["pods"]["metric"]["name"] if metric["type"] == "Pods" else metric["resource"]["name"])
        assert scaler["minReplicas"] >= 2
        assert "replicas" not in rendered.named("Deployment", name)["spec"]
    assert not scalers
    dispatch = next(
        each for each in rendered.of("HorizontalPodAutoscaler") if each["metadata"]["name"] == "hpc-dispatch"
    )
    assert dispatch["spec"]["minReplicas"] == dispatch["spec"]["maxReplicas"] == 2


@needs_kubectl
def test_one_machine_has_one_of_each():
    """Without autoscalers the number stands in the manifest."""
    rendered = Rendered("single-node")
    assert not rendered.of("HorizontalPodAutoscaler")
    assert {name_of(each): each["spec"]["replicas"] for each in rendered.workloads} == dict.fromkeys(
        [*SIGNALS, "nats"], 1
    )


def test_no_secret_stands_in_a_manifest(rendered):
    """No Secret object, no variable that holds one: only paths of files."""
    assert not rendered.of("Secret")
    for workload in rendered.workloads:
        for container in containers(workload, with_init=True):
            for name, value in environment(container).items():
                if re.search(r"PASSWORD|SECRET|TOKEN|SEED|(^|_)KEY(_|$)", name):
                    assert value.startswith("/"), name
    for config in rendered.of("ConfigMap"):
        for text in config["data"].values():
            assert not re.search(r"-----BEGIN|\bS[UAO][A-Z2-7]{56}\b|\b[0-9a-f]{64}\b|\bsk-[\w-]{8,}", text)


def test_services_and_ingresses_lead_somewhere(rendered):
    """A Service's port is a port of its pods by name; an Ingress' backend is a port of a Service."""
    for service in rendered.of("Service"):
        for port in service["spec"]["ports"]:
            leads = [each for each in rendered.workloads if selects(service["spec"]["selector"], each)]
            assert [ports(each)[port["targetPort"]] for each in leads]
    for ingress in rendered.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                offered = {port["name"] for port in rendered.named("Service", backend["name"])["spec"]["ports"]}
                assert backend["port"]["name"] in offered


def test_ingresses_wait_long_and_buffer_nothing(rendered):
    """A stream may be silent for minutes and its tokens are not collected; the way to the pod is verified TLS."""
    for ingress in rendered.of("Ingress"):
        notes = {
            key.removeprefix("nginx.ingress.kubernetes.io/"): value
            for key, value in ingress["metadata"]["annotations"].items()
        }
        assert notes["proxy-buffering"] == notes["proxy-request-buffering"] == "off"
        assert int(notes["proxy-read-timeout"]) >= 3600
        assert int(notes["proxy-send-timeout"]) >= 3600
        assert (notes["backend-protocol"], notes["proxy-ssl-verify"]) == ("HTTPS", "on")
        assert all(host for tls in ingress["spec"]["tls"] for host in tls["hosts"])
        paths = [path["path"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
        assert all(path.startswith("/v1") for path in paths), "probes and metrics stay inside"


def test_grpc_services_are_headless(rendered):
    """A gRPC client keeps its connections: only who sees every pod can take turns."""
    for service in rendered.of("Service"):
        if any(port["name"] == "grpc" for port in service["spec"]["ports"]):
            assert service["spec"]["clusterIP"] == "None"


def test_the_namespace_demands_it_of_everyone(rendered):
    """Pod security `restricted` is enforced."""
    [namespace] = rendered.of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {each["metadata"]["namespace"] for each in rendered.objects if each["kind"] != "Namespace"} == {"stream"}


def test_every_secret_file_is_made(rendered, made_secrets):
    """What variables and configuration expect under a mounted Secret is there after `make k8s-secrets`."""
    outside = rendered.overlay.endswith("/outside")
    for workload in rendered.workloads:
        for volume in pod_of(workload)["volumes"]:
            sources = [volume, *volume.get("projected", {}).get("sources", [])]
            secret = next((each["secret"] for each in sources if "secret" in each), None)
            if secret is None:
                continue
            name = secret.get("secretName") or secret["name"]
            folder = (made_secrets.outside if outside else made_secrets.folder) / name.removeprefix("stream-")
            for container in containers(workload, with_init=True):
                for mount in container["volumeMounts"]:
                    if mount["name"] == volume["name"]:
                        for path in expected(rendered, workload, container, mount["mountPath"]):
                            assert (folder / path).exists() or path in OPERATORS, f"{name}: {path}"


def expected(rendered, workload, container, mount):
    """Names of files below a mount that a container's variables, arguments and configuration speak of."""
    texts = [*environment(container).values(), *container.get("command", []), *container.get("args", [])]
    if name_of(workload) in {"nats", "gateway"}:  # the others read no keys from the file that they share
        texts += config_texts(rendered, workload)
    return {name for text in texts for name in re.findall(rf"{mount}/([\w.-]+\.?[\w-]+)", text)} - CONFIGURATION
