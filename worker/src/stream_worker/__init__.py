"""STREAM's worker: runs beside the engine on the cluster's node and brings its tokens out."""

VERSION = "0.1.0"
