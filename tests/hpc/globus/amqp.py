"""The stand-in's side of AMQP: queues, users with rights on their own queues alone, results and heartbeats.

queue or exchange     | written by               | read by
----------------------+--------------------------+---------------------------
<endpoint>.commands   | the service              | that endpoint
<user endpoint>.tasks | the service              | that user endpoint
results, heartbeats   | endpoints, under own key | the service
tg.<identity>.<group> | the service              | clients of that identity
"""

import contextlib
import json
import secrets
import threading
import time
from urllib.parse import quote

import pika
import pika.exceptions
import requests
from globus_compute_common import messagepack
from globus_compute_common.messagepack.message_types import EPStatusReport, Result
from hpc.globus.state import Fact, State
from pika.adapters.blocking_connection import BlockingChannel

_NOTHING = "^$"
_RETRY_S = 0.2
_TRIES = 100


def heartbeat_age_limit(endpoint: Fact) -> float:
    """Seconds without heartbeat after which an endpoint is offline."""
    return 2.0 * float(endpoint.get("report", {}).get("heartbeat_period") or 0)


def is_online(endpoint: Fact) -> bool:
    """Whether its heartbeats come."""
    return time.time() - endpoint.get("heard", 0) < heartbeat_age_limit(endpoint)


class Post:
    """Publishes, consumes, makes users.

    Args:
        state: what is known.
        port: of the broker, for AMQP.
        management: URL of its HTTP interface.
        account: name and password of the service itself.
    """

    def __init__(self, state: State, port: int, management: str, account: tuple[str, str]) -> None:
        self._state = state
        self._port = port
        self._management = management
        self._account = account
        self._lock = threading.Lock()
        self._channel: BlockingChannel | None = None
        threading.Thread(target=self._consume, daemon=True).start()

    # What is handed out.

    def endpoint_account(self, endpoint: str) -> str:
        """Make the user that an endpoint's parent process connects as; its URL."""
        own = {"read": rf"^{endpoint}\.commands$", "write": "^heartbeats$"}
        return self._make(f"core-{endpoint}", own, {"heartbeats": rf"^{endpoint}\.heartbeats$"})

    def user_endpoint_account(self, endpoint: str) -> str:
        """Make the user that a user endpoint connects as; its URL."""
        own = {"read": rf"^{endpoint}\.tasks$", "write": "^(results|heartbeats)$"}
        topics = {name: rf"^{endpoint}\.{name}$" for name in ("results", "heartbeats")}
        return self._make(f"user-{endpoint}", own, topics)

    def client_account(self, identity: str) -> str:
        """Make the user that reads the results of one identity; its URL."""
        return self._make(f"client-{identity}", {"read": rf"^tg\.{identity}\.", "write": _NOTHING}, {})

    def publishing(self, exchange: str, endpoint: str, url: str) -> Fact:
        """Tell an endpoint how to publish."""
        kwargs = {
            "exchange": exchange,
            "routing_key": f"{endpoint}.{exchange}",
            "mandatory": True,
            "properties": {"delivery_mode": 2, "app_id": "standin"},
        }
        return {"connection_url": url, "exchange": exchange, "queue": exchange, "queue_publish_kwargs": kwargs}

    # What the service itself does.

    def declare(self, queue: str) -> None:
        """Make a queue that outlives the broker."""
        self._with_channel(lambda channel: channel.queue_declare(queue, durable=True))

    def command(self, endpoint: str, command: Fact) -> None:
        """Send an endpoint a command; it drops those that are older than 180 s."""
        properties = pika.BasicProperties(delivery_mode=2, content_type="application/json", timestamp=int(time.time()))
        self._publish(f"{endpoint}.commands", json.dumps(command).encode(), properties)

    def task(self, endpoint: str, body: bytes, headers: Fact) -> None:
        """Send a user endpoint a task."""
        self._publish(f"{endpoint}.tasks", body, pika.BasicProperties(delivery_mode=2, headers=headers))

    def _publish(self, queue: str, body: bytes, properties: pika.BasicProperties) -> None:
        self._with_channel(lambda channel: channel.basic_publish("", queue, body, properties))

    def _with_channel(self, use: object) -> None:
        """Do one thing on the service's channel, again on a new one when it broke."""
        with self._lock:
            for left in reversed(range(_TRIES)):
                try:
                    if self._channel is None or not self._channel.is_open:
                        self._channel = self._connect()
                        self._channel.confirm_delivery()
                    use(self._channel)  # type: ignore[operator]
                except (pika.exceptions.AMQPError, OSError):
                    self._channel = None
                    if not left:
                        raise
                    time.sleep(_RETRY_S)
                else:
                    return

    def _connect(self) -> BlockingChannel:
        # Without heartbeats: between two uses of this connection nobody reads it.
        credentials = pika.PlainCredentials(*self._account)
        parameters = pika.ConnectionParameters("127.0.0.1", self._port, credentials=credentials, heartbeat=0)
        return pika.BlockingConnection(parameters).channel()

    def _consume(self) -> None:
        while True:
            with contextlib.suppress(pika.exceptions.AMQPError, OSError):
                channel = self._connect()
                for name, take in (("results", self._take_result), ("heartbeats", self._take_heartbeat)):
                    channel.exchange_declare(name, exchange_type="topic", durable=True)
                    channel.queue_declare(name, durable=True)
                    channel.queue_bind(name, name, routing_key="#")
                    channel.basic_consume(name, _acknowledged(take))
                channel.start_consuming()
            time.sleep(_RETRY_S)

    def _take_result(self, body: bytes) -> None:
        result = messagepack.unpack(body)
        if isinstance(result, Result):
            self.finish(str(result.task_id), result)

    def finish(self, task_id: str, result: Result) -> None:
        """Note a task's end, and tell whoever waits for its group."""
        data = {"exception": result.data} if result.is_error else {"result": result.data}
        task = self._state.change(
            "task",
            task_id,
            status="failed" if result.is_error else "success",
            completion_t=str(time.time()),
            details=result.details,
            **data,
        )
        if task is not None and task["create_queue"]:
            queue = f"tg.{task['owner']}.{task['task_group_id']}"
            properties = pika.BasicProperties(delivery_mode=2, timestamp=int(time.time()), headers={})
            self._publish(queue, messagepack.pack(result), properties)

    def _take_heartbeat(self, body: bytes) -> None:
        report = messagepack.unpack(body)
        if not isinstance(report, EPStatusReport):
            return
        endpoint = str(report.endpoint_id)
        told = json.loads(json.dumps(report.global_state, default=str))
        self._state.change("endpoint", endpoint, heard=time.time(), report=told)
        waiting = [task for task in self._state.all("task").items() if task[1]["endpoint"] == endpoint]
        waiting = [(name, task) for name, task in waiting if "completion_t" not in task]
        for name, _ in waiting:
            if error := report.global_state.get("error"):
                details = {"code": "ENDPOINT_START", "user_message": error}
                self.finish(name, Result(task_id=name, data=error, error_details=details))
            elif told.get("active"):
                self._state.change("task", name, status="waiting-for-nodes")

    def _make(self, user: str, rights: Fact, topics: Fact) -> str:
        """Make a user, once, by the broker's own interface."""
        with self._state.lock:
            known = self._state.get("account", user)
            if known is None:
                known = {"password": secrets.token_hex(16)}
                self._ask(f"users/{user}", {"password": known["password"], "tags": ""})
                self._ask(f"permissions/%2F/{user}", {"configure": _NOTHING, **rights})
                for exchange, key in topics.items():
                    body = {"exchange": exchange, "write": key, "read": _NOTHING}
                    self._ask(f"topic-permissions/%2F/{user}", body)
                self._state.put("account", user, known)
        return f"amqp://{quote(user)}:{known['password']}@127.0.0.1:{self._port}/%2F"

    def _ask(self, path: str, body: Fact) -> None:
        for left in reversed(range(_TRIES)):
            try:
                answer = requests.put(f"{self._management}/{path}", json=body, auth=self._account, timeout=10)
            except requests.ConnectionError:
                if not left:
                    raise
                time.sleep(_RETRY_S)
            else:
                answer.raise_for_status()
                return


def _acknowledged(take: object) -> object:
    def on_message(channel: BlockingChannel, method: object, _: object, body: bytes) -> None:
        take(body)  # type: ignore[operator]
        channel.basic_ack(method.delivery_tag)  # type: ignore[attr-defined]

    return on_message
