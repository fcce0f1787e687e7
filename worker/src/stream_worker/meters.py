"""What a worker tells of itself on its health port, which is on loopback: the pool's sums are at hpc_dispatch."""

from stream_core.metrics import Gauge, describe_process, single
from stream_worker import VERSION
from stream_worker.serve import Service


def watch(service: Service) -> None:
    """Let be read what a worker has at the moment."""
    describe_process("worker", VERSION)
    Gauge("stream_worker_running", "Requests under way.", single(lambda: service.desk.running))
    Gauge("stream_worker_served_total", "Requests begun.", single(lambda: service.served), kind="counter")
    Gauge("stream_worker_stalls_total", "Waits for credit.", single(lambda: service.stalls), kind="counter")
    Gauge("stream_worker_connects_total", "Relays that welcomed it.", single(lambda: service.connects), kind="counter")
