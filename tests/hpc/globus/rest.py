"""The compute service's routes, as SDK and endpoint 4.19 use them."""

import asyncio
import hashlib
import json
import time
import uuid

from aiohttp import web
from globus_compute_common import messagepack
from globus_compute_common.messagepack.message_types import Task
from hpc.globus.accounts import Accounts, identity
from hpc.globus.amqp import Post, is_online
from hpc.globus.faults import Refused
from hpc.globus.state import Fact, State

_LARGEST = 10 * 1024 * 1024
"""Bytes of all tasks of one submission."""
_LOCKED_S = 60.0
_NOT_TOLD = ("endpoint", "create_queue", "owner")


class Compute:
    """The service.

    Args:
        state: what it knows.
        accounts: who asks.
        post: the way to the endpoints.
    """

    def __init__(self, state: State, accounts: Accounts, post: Post) -> None:
        self._state = state
        self._accounts = accounts
        self._post = post

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.get("/v2/version", self._version),
            web.post("/v3/functions", self._register_function),
            web.get("/v2/functions/{id}", self._function),
            web.post("/v3/endpoints", self._register_endpoint),
            web.put("/v3/endpoints/{id}", self._register_endpoint),
            web.get("/v2/endpoints/{id}", self._endpoint),
            web.delete("/v2/endpoints/{id}", self._delete_endpoint),
            web.get("/v2/endpoints/{id}/status", self._status),
            web.get("/v3/endpoints/{id}/allowed_functions", self._allowed),
            web.post("/v3/endpoints/{id}/lock", self._lock),
            web.post("/v3/endpoints/{id}/submit", self._submit),
            web.get("/v2/get_amqp_result_connection_url", self._results),
            web.get("/v2/tasks/{id}", self._task),
            web.post("/v2/batch_status", self._tasks),
            web.get("/v2/taskgroup/{id}", self._group),
        ]

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"api": "standin", "min_ep_version": "4.0.0", "min_sdk_version": "4.0.0"})

    # Functions.

    async def _register_function(self, request: web.Request) -> web.Response:
        owner, asked, name = self._accounts.caller(request), await _body(request), str(uuid.uuid4())
        code = str(_field(asked, "function_code"))
        if not asked.get("serialized", True):
            # Plain source: the service wraps it as the SDK's strategy "st" would.
            wrapped = f"st\n{_field(asked, 'function_name')}:{code}"
            code = f"{len(wrapped)}\n{wrapped}"
        self._state.put("function", name, {**asked, "function_code": code, "owner": owner})
        return web.json_response({"function_uuid": name})

    async def _function(self, request: web.Request) -> web.Response:
        self._accounts.caller(request)
        name = _id(request)
        return web.json_response({"function_uuid": name, **self._find("function", name)})

    # Endpoints.

    async def _register_endpoint(self, request: web.Request) -> web.Response:
        owner, asked = self._accounts.caller(request), await _body(request)
        name = _id(request) if "id" in request.match_info else str(uuid.uuid4())
        known = self._state.get("endpoint", name)
        if known is not None and known["owner"] != owner:
            raise Refused(403, "the endpoint is another identity's")
        if known is not None and known.get("locked_until", 0) > time.time():
            raise Refused(423)
        fact = {**(known or {"children": {}}), "owner": owner, "name": _field(asked, "endpoint_name"), "asked": asked}
        self._state.put("endpoint", name, fact)
        url = await asyncio.to_thread(self._open_endpoint, name)
        return web.json_response(
            {
                "endpoint_id": name,
                "command_queue_info": {"connection_url": url, "queue": f"{name}.commands"},
                "heartbeat_queue_info": self._post.publishing("heartbeats", name, url),
            }
        )

    def _open_endpoint(self, name: str) -> str:
        self._post.declare(f"{name}.commands")
        return self._post.endpoint_account(name)

    async def _endpoint(self, request: web.Request) -> web.Response:
        self._accounts.caller(request)
        name = _id(request)
        endpoint = self._find("endpoint", name)
        known = {"uuid": name, "name": endpoint["name"], "owner_id": endpoint["owner"]}
        return web.json_response({**known, "metadata": endpoint["asked"].get("metadata")})

    async def _delete_endpoint(self, request: web.Request) -> web.Response:
        self._own_endpoint(request)
        self._state.drop("endpoint", _id(request))
        return web.json_response({"result": 302})

    async def _status(self, request: web.Request) -> web.Response:
        self._accounts.caller(request)
        endpoint = self._find("endpoint", _id(request))
        word = "online" if is_online(endpoint) else "offline"
        return web.json_response({"status": word, "details": endpoint.get("report", {})})

    async def _allowed(self, request: web.Request) -> web.Response:
        self._accounts.caller(request)
        functions = self._find("endpoint", _id(request))["asked"].get("allowed_functions")
        return web.json_response({"endpoint_id": _id(request), "restricted": bool(functions), "functions": functions})

    async def _lock(self, request: web.Request) -> web.Response:
        self._own_endpoint(request)
        until = time.time() + _LOCKED_S
        self._state.change("endpoint", _id(request), locked_until=until)
        return web.json_response({"endpoint_id": _id(request), "lock_expiration_timestamp": until})

    def _own_endpoint(self, request: web.Request) -> None:
        if self._accounts.caller(request) != self._find("endpoint", _id(request))["owner"]:
            raise Refused(403, "the endpoint is another identity's")

    # Tasks.

    async def _submit(self, request: web.Request) -> web.Response:
        who, asked = self._accounts.caller(request), await _body(request)
        endpoint = self._find("endpoint", _id(request))
        if not self._may_use(who, endpoint):
            raise Refused(403)
        if endpoint.get("locked_until", 0) > time.time():
            raise Refused(423)
        tasks: dict[str, list[str]] = _field(asked, "tasks")
        if sum(len(payload) for payloads in tasks.values() for payload in payloads) > _LARGEST:
            raise Refused(413)
        for function in tasks:
            self._find("function", function)
            allowed = endpoint["asked"].get("allowed_functions")
            if allowed and function not in allowed:
                raise Refused(403, f"Function {function} not permitted on endpoint {_id(request)}")
        group = asked.get("task_group_id") or str(uuid.uuid4())
        known = self._state.get("group", group)
        if known is not None and known["owner"] != who:
            raise Refused(403, "the task group is another identity's")
        self._state.put("group", group, known or {"owner": who})
        sent = await asyncio.to_thread(self._hand_over, _id(request), who, group, asked)
        return web.json_response(
            {
                "tasks": sent,
                "task_group_id": group,
                "request_id": str(uuid.uuid4()),
                "endpoint_id": _id(request),
            }
        )

    def _may_use(self, who: str, endpoint: Fact) -> bool:
        return who == endpoint["owner"] or bool(endpoint["asked"].get("multi_user"))

    def _hand_over(self, endpoint: str, who: str, group: str, asked: Fact) -> dict[str, list[str]]:
        if asked.get("create_queue"):
            self._post.declare(f"tg.{who}.{group}")
        child = self._user_endpoint(endpoint, who, asked)
        sent: dict[str, list[str]] = {}
        for function, payloads in asked["tasks"].items():
            code = self._find("function", function)["function_code"]
            for payload in payloads:
                name = str(uuid.uuid4())
                self._state.put(
                    "task",
                    name,
                    {
                        "task_id": name,
                        "status": "waiting-for-ep",
                        "task_group_id": group,
                        "endpoint": child,
                        "owner": who,
                        "create_queue": bool(asked.get("create_queue")),
                    },
                )
                headers = {"function_uuid": function, "task_uuid": name}
                if asked.get("resource_specification"):
                    headers["resource_specification"] = json.dumps(asked["resource_specification"])
                if asked.get("result_serializers"):
                    headers["result_serializers"] = asked["result_serializers"]
                body = messagepack.pack(Task(task_id=name, task_buffer=code + payload))
                self._post.task(child, body, headers)
                sent.setdefault(function, []).append(name)
        return sent

    def _user_endpoint(self, parent: str, who: str, asked: Fact) -> str:
        """Find or start the user endpoint: one for each identity and configuration."""
        options = asked.get("user_endpoint_config") or {}
        key = hashlib.sha256(json.dumps([who, options], sort_keys=True).encode()).hexdigest()
        with self._state.lock:
            endpoint = self._find("endpoint", parent)
            child = endpoint["children"].setdefault(key, str(uuid.uuid4()))
            self._state.put("endpoint", parent, endpoint)
            if self._state.get("endpoint", child) is None:
                fresh = {"owner": who, "name": f"uep.{parent}.{key[:16]}", "children": {}, "asked": {}}
                self._state.put("endpoint", child, fresh)
        known = self._find("endpoint", child)
        self._post.declare(f"{child}.tasks")
        if not is_online(known) or not known["report"].get("active", True):
            self._post.command(parent, self._start_command(child, who, options, asked))
        return child

    def _start_command(self, child: str, who: str, options: Fact, asked: Fact) -> Fact:
        url = self._post.user_endpoint_account(child)
        credentials = {
            "endpoint_id": child,
            "task_queue_info": {"connection_url": url, "exchange": "", "queue": f"{child}.tasks"},
            "result_queue_info": self._post.publishing("results", child, url),
            "heartbeat_queue_info": self._post.publishing("heartbeats", child, url),
        }
        caller = identity(who)
        return {
            "command": "cmd_start_endpoint",
            "args": [],
            "kwargs": {
                "name": self._find("endpoint", child)["name"],
                "user_opts": options,
                "user_runtime": asked.get("user_runtime") or {},
                "amqp_creds": credentials,
            },
            "globus_effective_identity": who,
            "globus_username": caller["username"],
            "globus_identity_set": [caller],
        }

    async def _results(self, request: web.Request) -> web.Response:
        who = self._accounts.caller(request)
        url = await asyncio.to_thread(self._post.client_account, who)
        return web.json_response({"connection_url": url, "queue_prefix": f"tg.{who}."})

    async def _task(self, request: web.Request) -> web.Response:
        task = self._find("task", _id(request))
        if task["owner"] != self._accounts.caller(request):
            raise Refused(403, "the task is another identity's")
        return web.json_response(_told(task))

    async def _tasks(self, request: web.Request) -> web.Response:
        who, asked = self._accounts.caller(request), await _body(request)
        found = {name: self._state.get("task", name) for name in _field(asked, "task_ids")}
        own = {name: _told(task) for name, task in found.items() if task is not None and task["owner"] == who}
        return web.json_response({"response": "batch", "results": own})

    async def _group(self, request: web.Request) -> web.Response:
        who, name = self._accounts.caller(request), _id(request)
        if self._find("group", name)["owner"] != who:
            raise Refused(403, "the task group is another identity's")
        tasks = [{"id": task} for task, fact in self._state.all("task").items() if fact["task_group_id"] == name]
        return web.json_response({"taskgroup_id": name, "tasks": tasks})

    def _find(self, kind: str, name: str) -> Fact:
        fact = self._state.get(kind, name)
        if fact is None:
            raise Refused(404, f"{kind} {name} could not be resolved", code=f"{kind.upper()}_NOT_FOUND")
        return fact


def _id(request: web.Request) -> str:
    try:
        return str(uuid.UUID(request.match_info["id"]))
    except ValueError:
        raise Refused(422, "value is not a valid uuid") from None


async def _body(request: web.Request) -> Fact:
    try:
        body = await request.json()
    except ValueError:
        raise Refused(400) from None
    if not isinstance(body, dict):
        raise Refused(422, "value is not a valid dict")
    return body


def _field(asked: Fact, name: str) -> Fact:
    if name not in asked:
        raise Refused(422, f"field required: {name}")
    return asked[name]


def _told(task: Fact) -> Fact:
    return {name: value for name, value in task.items() if name not in _NOT_TOLD}
