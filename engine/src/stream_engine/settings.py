"""The engine's settings: `STREAM_ENGINE__<FIELD>`, or the section `engine` of `stream.yaml`."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from stream_core.settings import ProgramSettings, program_config


class EngineSettings(ProgramSettings):
    """Everything an operator may decide about the engine; every field has a working default."""

    program: ClassVar[str] = "engine"
    model_config = program_config("engine")

    host: str = "127.0.0.1"
    """Address of the OpenAI API and of the probes."""
    port: int = Field(default=0, ge=0, le=65_535)
    """Port of the OpenAI API; 0 takes a free one."""
    health_port: int = Field(default=0, ge=0, le=65_535)
    """Port of `/livez` and `/readyz`; 0 takes a free one."""
    model: str = "auto"
    """`auto`, `demo`, a path to a GGUF file, or a repository `org/name[:quant or file]` that is on disk already."""
    alias: str = ""
    """The model's name in answers and in `/v1/models`; empty derives it from the file."""
    parallel: int = Field(default=4, ge=1, le=64)
    """Requests that are decoded at the same time; more wait."""
    context: int = Field(default=0, ge=0, le=1_048_576)
    """Context window of each request in tokens; 0 takes the model's own, at most 8,192."""
    batch: int = Field(default=256, ge=32, le=4096)
    """Prompt tokens computed in one go; other requests get their next token between two such steps."""
    threads: int = Field(default=0, ge=0, le=256)
    """Threads that compute; 0 takes one per physical core, and one alone for a model below 100 MB."""
    gpu_layers: int = Field(default=-1, ge=-1)
    """Layers on a GPU; -1 leaves the choice to llama.cpp. The default wheel has no GPU code."""
    prompt_cache_mib: int = Field(default=256, ge=0)
    """Memory for the states of earlier prompts, so that a next turn need not be read again; 0 turns it off."""
    api_key_file: Path | None = None
    """File with the key that callers must send as `Authorization: Bearer`; None asks for none."""
