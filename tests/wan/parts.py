"""The sealed lane across the WAN: worker and engine at the site, broker and relay at the centre, over wss://."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway_hpc import lane
from wan.authority import Authority
from wan.namespaces import CENTRE_ADDRESS, Wan, inside, wan

from stream_core import tickets
from stream_core.testing import programs
from stream_core.testing.broker import run_broker
from stream_core.testing.engine import scripted_engine


@dataclass
class FarLane:
    """The running parts; `lane` is what `gateway_hpc.lane` works with, from inside the centre's namespace."""

    wan: Wan
    lane: lane.Parts
    worker: programs.Program


@contextlib.contextmanager
def far_lane(folder: Path, *, round_trip_ms: float) -> Iterator[FarLane]:
    """Start everything, each part in its namespace, until the block ends."""
    private_pem, public_pem = tickets.new_signing_key()
    (folder / "ticket.pub").write_text(public_pem)
    authority = Authority(folder / "tls")
    certificate, key = authority.issue("relay", CENTRE_ADDRESS)
    with contextlib.ExitStack() as stack:
        between = stack.enter_context(wan(round_trip_ms))
        with inside(between.centre):
            nats_url = stack.enter_context(run_broker())
            env = {
                "STREAM_RELAY__HOST": CENTRE_ADDRESS,
                "STREAM_RELAY__TLS_CERTIFICATE": str(certificate),
                "STREAM_RELAY__TLS_KEY": str(key),
                "STREAM_RELAY__NATS__URL": nats_url,
                "STREAM_RELAY__TICKET_PUBLIC_KEY_FILE": str(folder / "ticket.pub"),
                "STREAM_RELAY__DRAIN_S": "0.2",
            }
            relay = stack.enter_context(programs.start("stream_relay", env=env))
        relay_url = f"wss://{CENTRE_ADDRESS}:{relay.ready['port']}"
        with inside(between.site):
            engine_url = stack.enter_context(scripted_engine())
            parts = lane.Parts(nats_url, engine_url, relay, relay_url, lane.Lease(), private_pem)
            worker = stack.enter_context(lane.worker(parts, ca_file=str(authority.ca_file)))
        yield FarLane(between, parts, worker)
