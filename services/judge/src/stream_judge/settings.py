"""The judge's settings: `STREAM_JUDGE__<FIELD>`, or the section `judge` of `stream.yaml`."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream_core.settings import ServiceSettings, TlsFiles, program_config
from stream_judge.curves import STANDARD_POSITIONS

Position = Annotated[float, Field(ge=-1.0, le=3.0, allow_inf_nan=False)]


class LlmSettings(BaseModel):
    """A language model as judge: any server that speaks OpenAI's API and tells log-probabilities."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = ""
    """With its /v1; on this machine or inside the institution, since it sees every question that it judges."""
    model: str = ""
    api_key_file: Path | None = None
    privacy: str = "public"
    """The most confidential class of text that it may see; of what is beyond, the learned scorer judges."""
    prompt_file: Path | None = None
    """None takes the one that comes with the program, `prompts/grade.txt`."""
    deadline_s: float = Field(default=1.0, gt=0, le=30, allow_inf_nan=False)
    """After which the learned score answers; `gateway.judge_deadline_ms` must be longer."""
    characters: int = Field(default=6000, ge=200, le=100_000)
    """Of the question that the model gets to read; of the four turns before it 600 each."""
    fields: dict[str, object] = Field(default_factory=dict)
    """More fields of the request, such as {"guided_choice": ["A", "B", "C"]} for vLLM."""


class JudgeSettings(ServiceSettings):
    """Everything an operator may decide about the judge; only the certificates have no default."""

    program: ClassVar[str] = "judge"
    model_config = program_config("judge")

    listen: str = "127.0.0.1:0"
    """host:port of the gRPC service; port 0 takes a free one."""
    tls: TlsFiles
    backend: Literal["learned", "llm", "cascade"] = "learned"
    """Who judges: the learned scorer; a language model; or that only where the learned scorer is unsure."""
    llm: LlmSettings = LlmSettings()
    cascade_band: float = Field(default=0.1, ge=0, le=1)
    """The language model is asked when the learned P(local) lies this near `good_enough`."""
    good_enough: float | None = Field(default=None, gt=0, lt=1)
    """Middle of the cascade's band; None takes `policy.good_enough` of the deployment."""
    tier_positions: dict[str, Position] = Field(default_factory=lambda: dict(STANDARD_POSITIONS))
    """How strong a tier is on the line local 0, hpc 1, cloud 2; other tiers are placed by their order."""
    weights_file: Path | None = None
    """Weights of the institution's own; None takes those that come with the program."""
    calibration_file: Path | None = None
    """What `stream judge calibrate` wrote."""
    cache_entries: int = Field(default=8192, ge=0, le=1_000_000)
    """Verdicts that are remembered, at about 1.5 kB each; 0 remembers none."""
    max_request_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Of one request; a larger one is refused."""
    drain_s: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Seconds that running calls get when the program is told to stop."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.backend != "learned" and not (self.llm.base_url and self.llm.model):
            raise ValueError(f"backend {self.backend!r} needs llm.base_url and llm.model")
        return self
