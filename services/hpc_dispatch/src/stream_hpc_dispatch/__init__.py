"""STREAM's dispatch: owns worker leases, starts and watches pilot jobs, publishes the pool to the gateways."""

import os

VERSION = "0.1.0"

# gRPC reads both when it is imported, which is after this.
# Workers are forked and at once replaced by exec: gRPC's fork handlers could only log that they can't run.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Its own lines go past our JSON log, and say about a busy port what we say better; "info" brings them back.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
