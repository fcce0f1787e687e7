"""STREAM's embedded local engine: llama.cpp behind the OpenAI API, in a process of its own."""

VERSION = "0.1.0"
