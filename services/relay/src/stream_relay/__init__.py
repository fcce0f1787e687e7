"""STREAM's relay: bridges workers' WebSockets onto NATS. It holds no keys and cannot decrypt."""

VERSION = "0.1.0"
