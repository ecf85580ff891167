"""The engine process: loads a model, then runs what comes over its socket. Knows no HTTP.

Started by `skipserve.service.local` as `python -m skipserve.service.process FD SPEC`, FD an
inherited socket and SPEC an EngineSpec as JSON. It lives as long as its parent holds the socket.
"""

import ctypes
import gc
import logging
import signal
import socket
import sys
from pathlib import Path

from skipserve.engine.loading import load
from skipserve.engine.reports import Failed
from skipserve.errors import EngineError
from skipserve.logging_setup import set_up_logging
from skipserve.model.config import ModelFilesError
from skipserve.service.ipc import pack, spec_from_json
from skipserve.service.loop import EngineLoop

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MIB = 2**20

# What is wrong with the model or the settings: the message says it all.
_EXPECTED = (ModelFilesError, EngineError)

# A sign of life is due several times in the period after which its absence counts as a hang.
_SIGNS_PER_STALL = 4
_MAX_SIGN_SECONDS = 1.0


def main() -> int:
    """Run the process; return its exit status."""
    _live_and_die_with_parent()
    keep_freed_memory()
    spec = spec_from_json(sys.argv[2])
    set_up_logging(as_json=spec.logs_json)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        try:
            engine, ready = load(spec)
        except Exception as error:
            if not isinstance(error, _EXPECTED):
                logger.exception("the model could not be loaded")
            connection.sendall(pack(Failed(None, describe_failure(error, spec.model))))
            return 1
        # What exists now stays. To look through it, as Python now and then does, takes 0.1 s.
        gc.collect()
        gc.freeze()
        connection.sendall(pack(ready))
        sign_seconds = min(_MAX_SIGN_SECONDS, spec.stall_seconds / _SIGNS_PER_STALL)
        EngineLoop(engine, connection, sign_seconds).run()
    return 0


def describe_failure(error: Exception, folder: Path) -> str:
    """Say why loading failed, without the place of the folder: clients may see it."""
    if isinstance(error, _EXPECTED):
        return str(error).replace(str(folder), folder.name)
    return f"the model could not be loaded ({type(error).__name__})"


def _live_and_die_with_parent() -> None:
    """Leave it to the parent when to stop, and be killed with it, even while stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed for what is allocated next.

    Each step makes and frees the same large tensors. Their pages would go back to the system each
    time, and come back one fault at a time: 0.1 to 0.2 ms of a step that samples 200 rows.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 256 * _MIB)
        mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)


if __name__ == "__main__":
    sys.exit(main())
