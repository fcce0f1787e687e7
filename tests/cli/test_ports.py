"""Free ports, and the gateway's own."""

import socket

import pytest

from stream_cli.ports import free_ports, require_free
from stream_core.errors import ConfigError


def test_ports_are_free_and_differ():
    """Each can be bound, all at once."""
    ports = free_ports(6)
    assert len(set(ports)) == 6
    sockets = [socket.create_server(("127.0.0.1", port)) for port in ports]
    for each in sockets:
        each.close()


def test_more_ports_than_there_are_is_an_error():
    """The error prints how many were free and how many are needed."""
    with pytest.raises(ConfigError, match="1001 are needed"):
        free_ports(1001)


def test_a_busy_port_is_named_with_the_option():
    """One line: the port, and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1 port {port} .*--port or STREAM_PORT"):
            require_free("127.0.0.1", port)
    require_free("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused():
    """Listening needs an address of this machine."""
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1 port 80"):
        require_free("192.0.2.1", 80)
