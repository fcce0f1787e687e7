"""The judge's settings: `STREAM_JUDGE__<FIELD>`, or the section `judge` of `stream.yaml`."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from stream_core.settings import ProgramSettings, TlsFiles, program_config
from stream_judge.curves import STANDARD_POSITIONS

Position = Annotated[float, Field(ge=-1.0, le=3.0, allow_inf_nan=False)]


class JudgeSettings(ProgramSettings):
    """Everything an operator may decide about the judge; only the certificates have no default."""

    program: ClassVar[str] = "judge"
    model_config = program_config("judge")

    listen: str = "127.0.0.1:0"
    """host:port of the gRPC service; port 0 takes a free one."""
    tls: TlsFiles
    good_enough: float | None = Field(default=None, gt=0, lt=1)
    """Probability that separates LOW, MEDIUM and HIGH; None takes `policy.good_enough` of the deployment."""
    tier_positions: dict[str, Position] = Field(default_factory=lambda: dict(STANDARD_POSITIONS))
    """How strong a tier is on the line local 0, hpc 1, cloud 2; other tiers are placed by their order."""
    weights_file: Path | None = None
    """Weights of the institution's own; None takes those that come with the program."""
    cache_entries: int = Field(default=8192, ge=0, le=1_000_000)
    """Verdicts that are remembered, at about 1.5 kB each; 0 remembers none."""
    max_request_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Of one request; a larger one is refused."""
    drain_s: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Seconds that running calls get when the program is told to stop."""
