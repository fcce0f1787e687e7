"""Network policies: deny by default, and exactly the flows that the programs are configured for."""

import re
from urllib.parse import urlsplit

from deploy.rendered import config_texts, containers, environment, name_of, ports, selects

NAME = r"([a-z][a-z0-9-]*)(?:\.[a-z0-9-]+)*"
ADDRESS = re.compile(rf"(?:(?P<scheme>[a-z]+)://(?:[^@/\s\"]*@)?/?)?(?<![\w.]){NAME}:(?P<port>\d{{2,5}})\b")
OUTSIDE = re.compile(r"(?:https|wss|tls)://[a-z0-9.-]+\.example(?:\.edu)?(?::(\d+))?|https://api\.[a-z.]+")


def dials(rendered, workload):
    """(host, port) of other workloads that its variables and its own configuration name."""
    services = {service["metadata"]["name"]: service for service in rendered.of("Service")}
    texts = [value for each in containers(workload) for value in environment(each).values()]
    if name_of(workload) in {"nats", "gateway"}:
        texts += config_texts(rendered, workload)
    for text in texts:
        for host, port in re.findall(rf"(?<![\w.-]){NAME}:(\d{{2,5}})\b", text):
            for service in [services.get(host) or services.get("nats-nodes" if host.startswith("nats-") else "")]:
                if service is not None:
                    target = next(each for each in rendered.workloads if selects(service["spec"]["selector"], each))
                    [name] = {p["targetPort"] for p in service["spec"]["ports"] if p["port"] == int(port)}
                    yield name_of(target), ports(target)[name]


def peers(rendered, rules, way):
    """(workload or other peer, port number or name) of each rule of a policy."""
    for rule in rules:
        assert rule.get(way), "a rule without peers is open to all"
        for peer in rule[way]:
            labels = peer.get("podSelector", {}).get("matchLabels", {})
            named = [name_of(each) for each in rendered.workloads if labels and selects(labels, each)]
            if "namespaceSelector" in peer:
                named = [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]]
            if "ipBlock" in peer:
                named = [peer["ipBlock"]["cidr"]]
            for name in named:
                for port in rule["ports"]:
                    yield name, port["port"]


def allowed_in(rendered, workload):
    """(from whom, port number) that policies let in."""
    numbers = ports(workload)
    for policy in rendered.policies_of(workload):
        for name, port in peers(rendered, policy["spec"].get("ingress", []), "from"):
            yield name, numbers[port] if isinstance(port, str) else port


def allowed_out(rendered, workload):
    """(to whom, port number) that policies let out."""
    for policy in rendered.policies_of(workload):
        yield from peers(rendered, policy["spec"].get("egress", []), "to")


def test_nothing_is_allowed_by_default(rendered):
    """One policy for all pods denies both ways but for names; each workload has one of its own, both ways."""
    default = rendered.named("NetworkPolicy", "default-deny")["spec"]
    assert default["podSelector"] == {}
    assert default["policyTypes"] == ["Ingress", "Egress"]
    assert not default.get("ingress")
    assert {port["port"] for rule in default["egress"] for port in rule["ports"]} == {53}
    for workload in rendered.workloads:
        own = rendered.named("NetworkPolicy", name_of(workload))["spec"]
        assert own["policyTypes"] == ["Ingress", "Egress"]
        assert selects(own["podSelector"]["matchLabels"], workload)


def test_every_open_port_is_let_in(rendered):
    """A port that nobody may reach would not be opened."""
    for workload in rendered.workloads:
        assert {port for _, port in allowed_in(rendered, workload)} == set(ports(workload).values()), name_of(workload)


def test_what_is_dialled_is_allowed_at_both_ends(rendered):
    """Each address in a pod's configuration is let out of it, and into the pod behind it."""
    for workload in rendered.workloads:
        for target, port in set(dials(rendered, workload)):
            assert (target, port) in set(allowed_out(rendered, workload)), f"{name_of(workload)} -> {target}:{port}"
            other = next(each for each in rendered.workloads if name_of(each) == target)
            assert (name_of(workload), port) in set(allowed_in(rendered, other)), f"{target}:{port}"


def test_nothing_else_is_allowed_between_pods(rendered):
    """Each flow from pod to pod that a policy lets through is one that a configuration names."""
    own = {name_of(each) for each in rendered.workloads}
    for workload in rendered.workloads:
        wanted = set(dials(rendered, workload))
        if name_of(workload) == "hpc-dispatch":
            wanted.add(("hpc-dispatch", 50051))  # the other replicas, by the address that each tells the broker
        let_out = {flow for flow in allowed_out(rendered, workload) if flow[0] in own}
        assert let_out == wanted, name_of(workload)
        for other in rendered.workloads:
            let_in = {(name_of(other), port) for name, port in allowed_in(rendered, other) if name == name_of(workload)}
            assert let_in == {flow for flow in wanted if flow[0] == name_of(other)}, f"{name_of(workload)} -> {other}"


def test_what_is_outside_is_called_over_tls_alone(rendered):
    """Addresses beyond the cluster are reached on 443, and those of other institutions' brokers on the leaf port."""
    for workload in rendered.workloads:
        for peer, port in allowed_out(rendered, workload):
            if "/" in peer:
                assert port in {443, 7422}
        for text in config_texts(rendered, workload):
            for address in re.findall(r"\b(?:http|ws|nats)://[^\s\"',\]]+", text):
                assert (urlsplit(address).hostname or "").startswith("127."), f"{address} is not sealed"


def test_who_judges_and_who_relays_reaches_nothing_outside(rendered):
    """The judge calls nobody, the relay its broker alone: what sees prompts, or faces the world, can't send them on."""
    for workload in rendered.workloads:
        if name_of(workload) == "judge":
            assert not set(allowed_out(rendered, workload)) - {("kube-system", 53)}
        if name_of(workload) == "relay":
            assert set(allowed_out(rendered, workload)) - {("kube-system", 53)} == {("nats", 4222)}
