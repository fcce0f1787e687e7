"""Names that people know for models that are worth having, with their licences."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue."""

    pick: str
    """`org/name:quant` on the hub."""
    licence: str
    """As the model's maker states it; the repository's own card decides."""
    size_gb: float
    """Of the file, in 10^9 bytes, roughly."""


ENTRIES: Final[dict[str, Entry]] = {
    "smollm2:360m": Entry("bartowski/SmolLM2-360M-Instruct-GGUF:Q8_0", "Apache-2.0", 0.4),
    "qwen2.5:0.5b": Entry("Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M", "Apache-2.0", 0.5),
    "llama3.2:1b": Entry("bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", "Llama 3.2 Community License", 0.8),
    "qwen2.5:1.5b": Entry("Qwen/Qwen2.5-1.5B-Instruct-GGUF:Q4_K_M", "Apache-2.0", 1.1),
    "llama3.2:3b": Entry("bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", "Llama 3.2 Community License", 2.0),
    "qwen2.5:3b": Entry("Qwen/Qwen2.5-3B-Instruct-GGUF:Q4_K_M", "Qwen Research License", 2.1),
    "phi3.5-mini": Entry("bartowski/Phi-3.5-mini-instruct-GGUF:Q4_K_M", "MIT", 2.4),
    "qwen2.5:7b": Entry("bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M", "Apache-2.0", 4.7),
}
