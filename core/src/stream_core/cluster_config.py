"""Models, and the clusters that run them, as `stream.yaml` says it. Pure; part of `stream_core.deployment`.

A cluster names a backend: `local` runs workers as processes of this machine, `globus` hands them to an institution's
Globus Compute endpoint, `parsl` submits them to a batch system from a login node. What a backend needs beyond its name
stands in the section of that name. Secrets never do: a section names the file that holds one.
"""

import uuid
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A part of the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Price(Section):
    """What a model costs, in dollars for a million tokens."""

    input: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Of the prompt."""
    output: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Of the answer."""


class ModelConfig(Section):
    """A model as one tier offers it."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    """The name users see, without the tier's prefix."""
    upstream: str = ""
    """The engine's own name for it; the id when empty."""
    context_window: Annotated[int, Field(ge=256)] = 8192
    """Tokens, prompt and answer together."""
    modalities: list[Literal["text", "image", "audio"]] = ["text"]
    capabilities: list[str] = ["tools", "json_schema", "logprobs"]
    tokenizer: Path | None = None
    """Folder with tokenizer.json and tokenizer_config.json, a GGUF file, or OpenAI's *.tiktoken: makes counts exact."""
    price: Price | None = None
    """Needed of the tier "cloud" where `policy.cloud_budget` is set."""
    privacy: str | None = None
    """The most confidential class of text that it may see, where that is less than its tier may; None: as its tier."""
    demo: bool = False
    """Its answers are not to be believed; every surface says so."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs of one engine, for GPU hours; None: what a pool's job has on a cluster of `parsl`, else none."""
    gpu_shared_by: Annotated[float, Field(ge=1)] | None = None
    """Requests that an engine is reckoned to serve at once, among whom its GPU time is shared; None: those at which
    another worker of the pool is started (`max_requests` times `target_load`), without a pool one."""

    @property
    def engine_model(self) -> str:
        """The name to send upstream."""
        return self.upstream or self.id


class PoolConfig(Section):
    """Workers of one model on one cluster."""

    model: ModelConfig
    engine_url: str = ""
    """Attach to a running engine; else `engine_command` starts one."""
    engine_command: list[str] = []
    """`{port}` stands for a free port of the node, `{api_key_file}` for a file with a key drawn for this engine."""
    engine_environment: dict[str, str] = {}
    """The same here, and `{api_key}` for the key itself."""
    engine_ready_path: str = "/health"
    engine_start_timeout_s: Seconds = 600.0
    min_ready: Annotated[int, Field(ge=0)] = 1
    """Workers that are always there; 0: none until somebody asks."""
    max_workers: Annotated[int, Field(ge=1)] = 1
    renewal_surge: Annotated[int, Field(ge=0)] = 1
    """Workers above `max_workers` while a successor takes over before a lease's end; 0 where there is no room."""
    walltime_s: Annotated[float, Field(ge=10)] = 86_400.0
    """How long a worker's job may run; the batch system ends it then."""
    idle_timeout_s: Annotated[float, Field(ge=0)] = 900.0
    """A worker above `min_ready` that had no request for so long is stopped."""
    queue_margin_s: Annotated[float, Field(ge=0)] = 60.0
    """A successor is submitted so much earlier than the cluster's measured queue wait and start-up time ask for."""
    pending_limit_s: Seconds = 86_400.0
    """A job that the batch system has not started within this time is taken back, with a reason."""
    max_failures: Annotated[int, Field(ge=1)] = 10
    """Failed starts in a row after which no further one is tried until `retry_after_s` have passed."""
    retry_after_s: Seconds = 3600.0
    max_requests: Annotated[int, Field(ge=1)] = 256
    """Requests one worker runs at once; the engine queues beyond its own slots. 1: a job for each request."""
    target_load: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Share of `max_requests`, over all ready workers, at which another worker is started."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Nodes of one job, for the budget."""
    cold_start: Literal["wait", "next"] = "wait"
    """A request for a cold model waits for its worker, or goes to the next tier while the worker starts. A request
    that names the tier waits in both cases."""
    cold_wait_s: Seconds = 300.0
    """How long a request waits for a worker."""

    @field_validator("engine_command")
    @classmethod
    def _no_key_in_arguments(cls, command: list[str]) -> list[str]:
        if any("{api_key}" in part for part in command):
            raise ValueError("{api_key} may stand in engine_environment only: everybody on the node can read arguments")
        return command


class GlobusConfig(Section):
    """Backend `globus`: a Globus Compute endpoint."""

    endpoint_id: uuid.UUID
    client_id: uuid.UUID
    """Of the service's own Globus Auth client, which the endpoint must admit."""
    client_secret_file: Path
    function_id: uuid.UUID | None = None
    """Of the function that starts a worker, where the endpoint allows only some: `python -m
    stream_hpc_dispatch.register CLUSTER` registers it. None: registered anew by each run."""
    environment: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")] = "production"
    """Of the Globus SDK. An unknown name means production there; here it is an error."""
    user_endpoint_config: dict[str, Any] = {}
    """For the endpoint's template: partition, account, nodes, walltime. Checked against `user_endpoint_schema`."""
    user_endpoint_schema: Path | None = None
    """JSON schema of the endpoint's template."""
    submit_timeout_s: Seconds = 60.0


class ParslConfig(Section):
    """Backend `parsl`: a batch system, reached from a machine that may submit to it."""

    scheduler: Literal["slurm", "pbspro"]
    partition: str = ""
    """Slurm's partition, PBS Pro's queue."""
    account: str = ""
    qos: str = ""
    cores_per_node: Annotated[int, Field(ge=1)] = 1
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    memory_gb: Annotated[int, Field(ge=1)] | None = None
    """Of one node."""
    scheduler_options: list[str] = []
    """Further lines for the job script, as the batch system reads them: "#SBATCH --constraint=a100"."""
    worker_init: list[str] = []
    """Shell lines before the worker: modules to load, an environment to enter."""
    job_folder: Path | None = None
    """Private folder on a file system that the nodes see, for this program alone; None: `state_dir` of hpc_dispatch."""
    poll_s: Annotated[float, Field(ge=0.1)] = 10.0
    """How often the batch system is asked for all of this cluster's jobs at once."""


class ClusterConfig(Section):
    """One cluster."""

    name: Name
    tier: Name = "hpc"
    backend: Literal["local", "globus", "parsl"] = "local"
    priority: int = 0
    """Among clusters that could answer equally well the one with the highest is asked first."""
    node_hours_per_day: Annotated[float, Field(gt=0)] | None = None
    """Hard limit of node time from 00:00 to 24:00 UTC, over all pools; None: none."""
    worker_command: list[str] = []
    """Starts a worker on this cluster's nodes; empty: `stream-worker`, or for `local` hpc_dispatch's own."""
    globus: GlobusConfig | None = None
    parsl: ParslConfig | None = None
    pools: list[PoolConfig] = []

    @model_validator(mode="after")
    def _section_of_its_backend(self) -> Self:
        for backend, section in (("globus", self.globus), ("parsl", self.parsl)):
            if (self.backend == backend) != (section is not None):
                wanted = "is needed" if self.backend == backend else f"belongs to backend {backend!r}"
                raise ValueError(f"cluster {self.name!r} of backend {self.backend!r}: section {backend!r} {wanted}")
        return self
