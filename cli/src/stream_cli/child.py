"""Become another program, after tying its life to its parent's; run with `python -I -S`, so stdlib only.

On Linux the kernel then sends SIGTERM when the parent dies, however it dies. A `preexec_fn` would do the same without
this file, but it runs Python between fork and exec, while asyncio's child watchers are threads that may hold locks;
this exec costs about 10 ms.
"""

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replace this process by the command. Arguments: the parent's pid, then the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  (not needed elsewhere)

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:
        sys.exit("the program that started this one is gone")
    try:
        os.execv(command[0], command)  # noqa: S606  (no shell is meant)
    except OSError as error:
        sys.exit(f"can't start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
