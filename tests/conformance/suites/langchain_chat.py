"""LangChain's own integration tests for chat models, with ChatOpenAI as the client."""

import base64
import os

import httpx
import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    """The suite downloads its picture from the internet; this is another one."""
    monkeypatch.setattr(httpx, "get", lambda url, **_: httpx.Response(200, content=PIXEL))


class TestStream(ChatModelIntegrationTests):
    """ChatOpenAI against our server."""

    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {"model": os.environ["OPENAI_MODEL"], "stream_usage": True, "max_retries": 0}

    @property
    def supports_image_inputs(self):
        return True

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_model_override(self):
        return True

    @property
    def model_override_value(self):
        return "play-two"

    @property
    def enable_vcr_tests(self):
        return False
