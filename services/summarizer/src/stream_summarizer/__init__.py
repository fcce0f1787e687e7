"""STREAM's summarizer: a conversation in, one that fits a model's context window out."""

__version__ = "0.1.0"
