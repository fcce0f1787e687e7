"""Trace contexts as they travel, and tracing that is off, or can't be on."""

import logging
import subprocess
import sys

import pytest

from stream_core import trace_context, tracing
from stream_core.errors import ConfigError
from stream_core.settings import TraceSettings
from stream_core.trace_context import CURRENT, TraceContext

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_a_context_travels():
    """What one program writes the next one reads, with the decision to record and other systems' words."""
    for sampled in (True, False):
        context = TraceContext(int(TRACE, 16), int(SPAN, 16), sampled, "vendor=1")
        assert trace_context.read(context.headers()) == context
        assert trace_context.of_metadata([("x", b"y"), *context.headers().items()]) == context
    assert context.headers() == {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "vendor=1"}


@pytest.mark.parametrize(
    ("parent", "valid"),
    [
        (PARENT, True),
        (PARENT.replace("00-", "cc-", 1), True),
        (PARENT.replace("00-", "ff-", 1), False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (PARENT.upper(), False),
        (PARENT + "-more", False),
        (PARENT + "\n", False),
        ("junk", False),
        ("", False),
    ],
)
def test_junk_is_no_context(parent, valid):
    """Another version is read as far as it is known; anything that is not of the form is nothing."""
    assert (trace_context.read({"traceparent": parent}) is not None) is valid


@pytest.mark.parametrize("state", ["x" * 513, "line\nbreak", "ä=1"])
def test_a_state_that_could_do_harm_is_dropped(state):
    """It is others' text, and goes into headers: the context itself stays."""
    found = trace_context.read({"traceparent": PARENT, "tracestate": state})
    assert found is not None
    assert found.state == ""


def test_off_is_off():
    """Without an endpoint a span does nothing, a caller's context goes on, and no SDK is loaded with a program."""
    parent = trace_context.read({"traceparent": PARENT})
    span = tracing.root("request", parent)
    assert not span.recorded
    assert span.context is parent
    assert tracing.root("request", None).context is None
    with trace_context.current(parent), tracing.step("a") as inner:
        assert not inner.recorded
        assert trace_context.outgoing() == {"traceparent": PARENT}
    assert CURRENT.get() is None
    code = "import sys, stream_gateway.__main__, stream_worker.__main__, stream_judge.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not [
        name for name in done.stdout.split() if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))
    ]


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://collector:4318/v1/traces", "https:// is wanted"),
        ("https://user:pass@collector/v1/traces", "put a token into headers_file"),
        ("collector:4318", "https:// is wanted"),
    ],
)
def test_spans_never_travel_in_clear(endpoint, words, monkeypatch, caplog):
    """Beyond this machine only TLS: a service does not start, a worker goes on without and says so."""
    with pytest.raises(ConfigError, match=words):
        tracing.configure("test", TraceSettings(endpoint=endpoint))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
    with caplog.at_level(logging.WARNING):
        tracing.configure("test", TraceSettings(), required=False)
    assert words in caplog.text
    assert not tracing.enabled()


def test_headers_come_from_a_file(tmp_path):
    """A collector's token stands in no variable and no argument; a line that is none is named by its number alone."""
    file = tmp_path / "headers"
    file.write_text("authorization=Bearer secret\nnonsense\n")
    settings = TraceSettings(endpoint="http://127.0.0.1:9/v1/traces", headers_file=file)
    with pytest.raises(ConfigError, match="line 2 is not `name=value`") as raised:
        tracing.configure("test", settings)
    assert "secret" not in str(raised.value)
