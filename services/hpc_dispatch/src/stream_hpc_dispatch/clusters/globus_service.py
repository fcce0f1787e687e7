"""The calls to Globus Compute's web service, each of which blocks; they run in threads that nobody waits for.

The SDK's `Executor` is not used. It dies with the first submission that fails, its futures may never resolve, its
threads hold the program's end, it repeats a submission that may have been taken, and it deserialises what an endpoint
sends by dill, which runs it. What is used: the SDK's client for batches and source text, and globus_sdk's clients of
the same service, with no repetition but that of a request whose token had ended.
"""

import asyncio
import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import globus_sdk
from globus_compute_sdk import Client
from globus_compute_sdk.sdk.batch import Batch
from globus_compute_sdk.serialize import ComputeSerializer, JSONData
from globus_sdk.config import get_service_url
from globus_sdk.transport import (
    RequestsTransport,
    RetryCheckCollection,
    RetryCheckResult,
    RetryConfig,
    RetryContext,
)

from stream_core.cluster_config import GlobusConfig
from stream_core.errors import ConfigError
from stream_core.settings import read_secret
from stream_hpc_dispatch.clusters import globus_words
from stream_hpc_dispatch.clusters.globus_jobs import TaskState

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_TEST_STAGES: Final = ("sandbox", "test", "integration", "staging")
_ADDRESSES: Final = {
    "production": ("https://compute.api.globus.org", "https://auth.globus.org/"),
    "preview": ("https://compute.api.preview.globus.org", "https://auth.preview.globus.org/"),
    **{
        stage: (f"https://compute.api.{stage}.globuscs.info", f"https://auth.{stage}.globuscs.info/")
        for stage in _TEST_STAGES
    },
    "local": ("http://localhost:5000", ""),
}
"""Web service and Globus Auth of each environment; where `local` has its tokens from is told by the environment
variable GLOBUS_SDK_SERVICE_URL_AUTH."""
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}
ASK_S: Final = 10.0
"""What a question may take, for each of connecting and reading: it is asked again anyway."""
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_REQUEST_TIMEOUT: Final = 408
_FIRST_SERVER_FAULT: Final = 500
_JSON: Final = "globus_compute_sdk.serialize.JSONData"
_BATCH: Final = 100
"""Tasks asked for at once."""


class ServiceFault(Exception):
    """A call failed."""

    def __init__(self, words: str, *, refused: bool, status: int = 0) -> None:
        super().__init__(words)
        self.words = words
        """For an operator."""
        self.refused = refused
        """The service said no, so nothing was done. Else it may have been."""
        self.status = status


class ComputeService:
    """One endpoint of the service.

    Args:
        config: of the cluster.
        where: its place in the deployment, for errors.

    Raises:
        ConfigError: the environment is unknown or leads elsewhere, or the secret can't be read.
    """

    def __init__(self, config: GlobusConfig, where: str) -> None:
        self._config = config
        _check_environment(config.environment, where)
        app = globus_sdk.ClientApp(
            "STREAM hpc_dispatch",
            client_id=config.client_id,
            client_secret=read_secret(config.client_secret_file),
            config=globus_sdk.GlobusAppConfig(token_storage="memory", environment=config.environment),  # noqa: S106
        )
        self._serializer = ComputeSerializer(strategy_data=JSONData)
        self._client = Client(environment=config.environment, app=app, do_version_check=False)
        address = self._client.web_service_address
        if address != _ADDRESSES[config.environment][0]:
            expected = _ADDRESSES[config.environment][0]
            raise ConfigError(f"the SDK's web service is {address}, not {expected}", param=f"{where}.environment")
        self._asking = globus_sdk.ComputeClientV2(app=app, base_url=address, **_manners(ASK_S))
        self._submitting = globus_sdk.ComputeClientV3(app=app, base_url=address, **_manners(config.submit_timeout_s))
        # A session is not made for two threads at once.
        self._asking_lock, self._submitting_lock = threading.Lock(), threading.Lock()

    def register(self, source: str, name: str) -> str:
        """Register a function by its source text; its id.

        Raises:
            ServiceFault: it was not.
        """
        data = {"function_name": name, "function_code": source, "serialized": False, "meta": {}}
        with self._submitting_lock:
            return str(_asked(lambda: self._submitting.register_function(data))["function_uuid"])

    def submit(self, group: uuid.UUID, function: str, arguments: list[Any]) -> str:
        """Hand one task over; its id.

        Raises:
            ServiceFault: it was refused, or nobody knows.
        """
        batch = Batch(
            group,
            user_endpoint_config=self._config.user_endpoint_config or None,
            serializer=self._serializer,
            result_serializers=[_JSON],
            user_runtime=None,
        )
        batch.add(function, tuple(arguments))
        with self._submitting_lock:
            answer = _asked(lambda: self._submitting.submit(self._config.endpoint_id, batch.prepare()))
        try:
            return str(uuid.UUID(answer["tasks"][function][0]))
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ServiceFault("Globus Compute's answer names no task", refused=False) from error

    def tasks_of(self, group: uuid.UUID) -> list[str]:
        """List the tasks of a group; empty when the service knows none.

        Raises:
            ServiceFault: it can't be asked.
        """
        try:
            with self._asking_lock:
                answer = _asked(lambda: self._asking.get_task_group(group))
        except ServiceFault as fault:
            if fault.status == _NOT_FOUND:
                return []
            raise
        return [str(task["id"]) for task in answer.get("tasks", [])]

    def states(self, tasks: Iterable[str]) -> dict[str, TaskState]:
        """Tell the states of tasks; one that the service does not know is missing.

        Raises:
            ServiceFault: it can't be asked.
        """
        wanted = list(tasks)
        found: dict[str, TaskState] = {}
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            with self._asking_lock:
                answer = _asked(lambda part=part: self._asking.get_task_batch(part))  # type: ignore[misc]
            found |= {name: _state(told) for name, told in answer.get("results", {}).items()}
        return found

    def endpoint_status(self) -> str:
        """Ask whether the endpoint is "online" or "offline".

        Raises:
            ServiceFault: nobody knows.
        """
        with self._asking_lock:
            return str(_asked(lambda: self._asking.get_endpoint_status(self._config.endpoint_id)).get("status", ""))


def _state(told: dict[str, Any]) -> TaskState:
    status = str(told.get("status", "unknown")).lower()
    if "exception" in told:
        return TaskState("failed", exception=str(told["exception"]))
    if status != "success":
        return TaskState(status, exception=str(told.get("reason", "")))
    if "result" not in told:
        return TaskState(status, exception="the service keeps its result no more")
    # Never by the SDK: what says of itself that it is code or a pickle would be run.
    kind, _, text = str(told["result"]).partition("\n")
    try:
        if f"{kind}\n" != JSONData.identifier:
            return TaskState(
                status, exception=f"its result is not the JSON that was asked for, but of kind {kind[:8]!r}"
            )
        return TaskState(status, result=json.loads(text))
    except ValueError:
        return TaskState(status, exception="its result is not the JSON that was asked for")


async def in_thread(call: Callable[..., _T], *arguments: Any, timeout_s: float) -> _T:
    """Run a blocking call in a thread of its own, which does not hold the program's end.

    Raises:
        ServiceFault: as the call does, or it took too long; then it may still come to an end.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: ServiceFault | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: _T | None = None
        failed: ServiceFault | None = None
        try:
            result = call(*arguments)
        except ServiceFault as fault:
            failed = fault
        except Exception as error:  # noqa: BLE001  (what we do not understand is one cluster's fault, not all of them's)
            _log.exception("a call to Globus Compute failed in a way that nobody expected")
            words = f"a call to Globus Compute failed: {type(error).__name__}: {globus_words.shorten(str(error))}"
            failed = ServiceFault(words, refused=False)
        try:
            loop.call_soon_threadsafe(settle, result, failed)
        except RuntimeError:
            _log.debug("a call ended after this program's loop")

    threading.Thread(target=run, name="globus-compute", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            return await future
    except TimeoutError as error:
        raise ServiceFault(f"Globus Compute did not answer within {timeout_s:g} s", refused=False) from error


def _asked(call: Callable[[], globus_sdk.GlobusHTTPResponse]) -> Any:
    """Make a request; its answer, or a fault in our words."""
    try:
        return call().data
    except globus_sdk.GlobusAPIError as error:
        told = error.raw_json or {}
        said = str(told.get("reason") or error.message or error.code or error.http_reason or "")
        status = error.http_status
        words = globus_words.refusal(status, said)
        refused = status < _FIRST_SERVER_FAULT and status != _REQUEST_TIMEOUT
        raise ServiceFault(words, refused=refused, status=status) from error
    except globus_sdk.NetworkError as error:
        cause = error.underlying_exception
        words = f"Globus Compute can't be reached: {globus_words.shorten(str(cause or error))}"
        raise ServiceFault(words, refused=False) from error


def _manners(timeout_s: float) -> dict[str, Any]:
    return {
        "transport": RequestsTransport(http_timeout=timeout_s),
        "retry_config": RetryConfig(max_retries=1, checks=_only_with_a_new_token()),
    }


def _only_with_a_new_token() -> RetryCheckCollection:
    """Repeat a request only after 401, once, with a new token: any other one may have been carried out."""

    def check(context: RetryContext) -> RetryCheckResult:
        if context.response is not None and context.response.status_code == _UNAUTHORIZED:
            return RetryCheckResult.no_decision
        return RetryCheckResult.do_not_retry

    checks = RetryCheckCollection()
    checks.register_check(check)
    return checks


def _check_environment(environment: str, where: str) -> None:
    """See to it that the SDK means what the file says: a name that it does not know is production to it."""
    if environment not in _ADDRESSES:
        known = ", ".join(_ADDRESSES)
        raise ConfigError(f"unknown environment {environment!r}; known: {known}", param=f"{where}.environment")
    expected = _ADDRESSES[environment][1]
    try:
        auth = get_service_url("auth", environment)
    except ValueError as error:
        words = "environment 'local' needs GLOBUS_SDK_SERVICE_URL_AUTH, the URL of its Globus Auth"
        raise ConfigError(words, param=f"{where}.environment") from error
    fits = auth == expected if expected else urlsplit(auth).hostname in _LOOPBACK
    if not fits:
        wanted = expected or "one on loopback"
        raise ConfigError(
            f"the SDK would send the client's secret to {auth}, not to {wanted}", param=f"{where}.environment"
        )
