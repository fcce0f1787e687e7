"""Engines of this machine: servers on their default ports, and what the embedded engine says of itself."""

import json
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from stream_cli.effective import EngineFacts
from stream_cli.engines import KNOWN, Default, ask, demo_tokenizer, facts_from, find_server, list_facts, offered
from stream_core.errors import ConfigError


@pytest.fixture
def serve():
    """Starts HTTP servers that answer every GET alike; gives their ports and what they were asked."""
    servers = []

    def start(status, body):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.server.asked.append((self.path, self.headers.get("Authorization")))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return server.server_port, server.asked

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def model_list(*names, **more):
    return json.dumps({"object": "list", "data": [{"id": name, **more} for name in names]}).encode()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"data": [{"id": "llama3.2:3b"}]}, (("llama3.2:3b", 4096),)),
        ({"data": [{"id": "m", "max_model_len": 32768}]}, (("m", 32768),)),
        ({"data": [{"id": "m", "max_model_len": "big"}]}, (("m", 4096),)),
        ({"data": [{"id": "m", "max_model_len": 8}]}, (("m", 4096),)),
        ({"data": [{"id": "nomic-embed-text"}, {"id": "chat"}]}, (("chat", 4096),)),
        ({"data": [{"id": ""}, {"id": 7}, {}, "x", {"id": "y" * 201}]}, ()),
        ({"data": None}, ()),
        ({"data": {}}, ()),
        ({}, ()),
        ([], ()),
        (None, ()),
        ("text", ()),
    ],
)
def test_what_a_model_list_offers(answer, expected):
    """Models that can chat, with their window where the server says it; any other answer offers nothing."""
    assert offered(answer, 4096) == expected


def test_the_first_known_server_with_a_model_is_taken(serve):
    """Order of preference decides, not who answers first; servers without a model are passed by."""
    empty, _ = serve(200, model_list())
    page, _ = serve(200, b"<html>")
    locked, _ = serve(401, model_list("secret"))
    good, asked = serve(200, model_list("a", "b"))
    other, _ = serve(200, model_list("c"))
    ports = {"E": empty, "P": page, "L": locked, "G": good, "O": other}
    found = find_server(skip_port=1, known=tuple(Default(title, port, 2048) for title, port in ports.items()))
    assert (found.title, found.base_url) == ("G", f"http://127.0.0.1:{good}/v1")
    assert found.models == (("a", 2048), ("b", 2048))
    assert asked == [("/v1/models", None)]


def test_our_own_port_is_not_asked(serve):
    """The gateway is no engine for itself."""
    port, asked = serve(200, model_list("a"))
    assert find_server(skip_port=port, known=(Default("x", port, 2048),)) is None
    assert asked == []


def test_nobody_there_is_none():
    """A closed port offers nothing, and is asked without a long wait."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert find_server(skip_port=1, known=(Default("x", port, 2048),)) is None
    assert ask(port, "/")[0] == 0


def test_a_server_that_does_not_answer_holds_nothing_up():
    """A port that accepts and says nothing counts as nobody after the probe's limit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert ask(listener.getsockname()[1], "/", timeout_s=0.05)[0] == 0


def test_default_ports_differ():
    """Each known server is asked at a port of its own, Ollama first."""
    assert KNOWN[0].title == "Ollama"
    assert len({default.port for default in KNOWN}) == len(KNOWN)


def test_facts_of_the_ready_file():
    """The engine's ready file becomes model, window, demo mark and capabilities, with the demo's tokenizer."""
    record = {"model": "stream-demo", "context": 8192, "demo": True, "source": "demo", "capabilities": ["tools"]}
    facts = facts_from(record)
    assert facts == EngineFacts(
        model="stream-demo",
        context=8192,
        demo=True,
        source="demo",
        capabilities=("tools",),
        tokenizer=demo_tokenizer(),
    )
    assert (Path(facts.tokenizer) / "tokenizer.json").exists()
    assert facts_from(record | {"demo": False, "path": "/m.gguf"}).tokenizer == ""


@pytest.mark.parametrize("record", [{}, {"model": "m", "demo": False, "source": "x", "context": "big"}])
def test_facts_that_are_missing_are_an_error(record):
    """A ready file that does not say what we need stops the start with words."""
    with pytest.raises(ConfigError, match="does not say what it serves"):
        facts_from(record)


@pytest.mark.process
def test_the_engine_lists_what_it_would_serve(tmp_path):
    """Without any model on the machine, the engine's own list names the demo model."""
    environ = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "STREAM_MODELS_DIR": str(tmp_path)}
    facts = list_facts(sys.executable, environ, tmp_path)
    assert (facts.demo, facts.source, facts.context) == (True, "demo", 8192)
    assert list_facts(sys.executable, environ, tmp_path, facts.model) == facts
    with pytest.raises(ConfigError, match="has no model nothing-like-it"):
        list_facts(sys.executable, environ, tmp_path, "nothing-like-it")


def test_an_engine_that_does_not_list_is_an_error(tmp_path):
    """Its last words stand in the error."""
    with pytest.raises(ConfigError, match="does not list its models"):
        list_facts("/bin/false", {}, tmp_path)
