"""STREAM's gateway: the OpenAI API, routing, streaming."""

__version__ = "0.1.0"
