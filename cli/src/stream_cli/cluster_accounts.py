"""The broker's accounts in Kubernetes: one for each service, joined by the sealed frames' subjects alone. Pure.

In an account nothing of another can be seen, JetStream's streams and buckets included. What crosses is exported by
name: OPEN and the like from gateways and hpc_dispatch to relays, frames and announcements back. Inside its account a
service may still use its own subjects only, so that a subject which somebody forgot is refused, not open.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from stream_cli.broker import permissions
from stream_core.wire import subjects

USERS: Final = {"gateway": "GATEWAY", "hpc_dispatch": "DISPATCH", "summarizer": "SUMMARIZER", "relay": "RELAY"}
"""Services that speak to the broker, and their accounts."""
BACKUPS: Final = {"backup of gateway": "GATEWAY", "backup of dispatch": "DISPATCH"}
"""Who packs the streams of an account, and which; the summarizer's are a cache."""
LEAF: Final = "leaf"
"""The user of a leaf node outside: it may do what a relay may."""
OUTER_RELAY: Final = "outer relay"
"""The user of relays outside, at their leaf node."""
_EXPORTS: Final = {
    "GATEWAY": [(subjects.ALL_LEASES_IN, ["RELAY"])],
    "DISPATCH": [(subjects.ALL_LEASES_IN, ["RELAY"])],
    "RELAY": [(subjects.ALL_GATEWAYS, ["GATEWAY"]), (subjects.ALL_LEASES_OUT, ["DISPATCH"])],
}
_IMPORTS: Final = {
    "GATEWAY": [("RELAY", subjects.ALL_GATEWAYS)],
    "DISPATCH": [("RELAY", subjects.ALL_LEASES_OUT)],
    "RELAY": [("GATEWAY", subjects.ALL_LEASES_IN), ("DISPATCH", subjects.ALL_LEASES_IN)],
}
_JETSTREAM: Final = frozenset({"GATEWAY", "DISPATCH", "SUMMARIZER"})


def accounts(public_keys: Mapping[str, str]) -> str:
    """Write the part of nats-server's configuration that says who may do what. It holds no secret.

    Args:
        public_keys: "U..." of each of `USERS` and `BACKUPS`, and of `LEAF`.
    """
    made: dict[str, Any] = {}
    for service, account in USERS.items():
        exports = [{"stream": subject, "accounts": others} for subject, others in _EXPORTS.get(account, [])]
        imports = [{"stream": {"account": other, "subject": what}} for other, what in _IMPORTS.get(account, [])]
        made[account] = {"users": [_user(public_keys[service], service)], "exports": exports, "imports": imports}
        if account in _JETSTREAM:
            made[account]["jetstream"] = "enabled"
    for user, account in BACKUPS.items():
        made[account]["users"].append(_user(public_keys[user], "backup"))
    made["RELAY"]["users"].append(_user(public_keys[LEAF], "relay"))
    return _written(made)


def leaf_accounts(public_keys: Mapping[str, str]) -> str:
    """Write the same for the leaf node outside, which knows relays alone.

    Args:
        public_keys: "U..." of `OUTER_RELAY`.
    """
    return _written({"RELAY": {"users": [_user(public_keys[OUTER_RELAY], "relay")]}})


def _user(public_key: str, service: str) -> dict[str, Any]:
    return {"nkey": public_key, "permissions": permissions(service)}


def _written(made: Mapping[str, Any]) -> str:
    # nats-server reads JSON as its own format.
    return f"accounts: {json.dumps({**made, 'SYS': {}}, indent=2)}\nsystem_account: SYS\n"
