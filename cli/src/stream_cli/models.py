"""`stream models`: the embedded engine's own commands, as child processes with our input, output and exit code."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from stream_core.errors import ConfigError


def run(module: str, arguments: list[str], home: Path) -> int:
    """Run a command of the engine and return its exit code.

    Args:
        module: of the package stream_engine.
        arguments: passed on.
        home: STREAM_HOME, where models are kept unless STREAM_MODELS_DIR says otherwise.

    Raises:
        ConfigError: the engine is not installed.
    """
    if find_spec("stream_engine") is None:
        raise ConfigError(f"stream_engine is not installed beside {sys.executable}; run `make up`")
    environment = {**os.environ, "STREAM_HOME": str(home.expanduser().absolute())}
    try:
        return subprocess.run(
            [sys.executable, "-m", f"stream_engine.{module}", *arguments], env=environment, check=False
        ).returncode
    except KeyboardInterrupt:
        return 130  # the terminal's Ctrl-C reached the child as well
