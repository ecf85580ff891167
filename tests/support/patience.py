"""How long tests wait: limits that follow the machine, and what else runs on it.

A limit is there for what hangs. It is set for an idle machine, and counts time that passes the more
slowly the less this machine gives. Pytest ends a test at such a limit: most waits need no other.
"""

import signal
import threading
import time
from typing import Any

import pytest
import pytest_timeout

# So many rounds of arithmetic take so long on the machine for which limits are set. Longer than a
# scheduler's turn: a process that has slept gets its first one at once.
_ROUNDS = 800_000
_ROUNDS_SECONDS = 0.032
# Past this a machine does not run the tests.
_SLOWEST = 50.0
# A limit looks so often how fast the machine is.
_LOOK_SECONDS = 10.0


def slowness() -> float:
    """Return how many times as long as planned something takes here and now; at least 1."""
    begun = time.perf_counter()
    total = 0
    for number in range(_ROUNDS):
        total += number * number % 7
    return min(max((time.perf_counter() - begun) / _ROUNDS_SECONDS, 1.0), _SLOWEST)


class Patience:
    """Time that runs out more slowly on a slow machine.

    Args:
        seconds: how long it lasts on the machine for which limits are set.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._looked = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether it has run out; the more often one asks, the better it follows."""
        passed = time.monotonic() - self._looked
        # Nothing is measured that could not decide.
        if passed >= min(self._left, _LOOK_SECONDS):
            self._left -= passed / slowness()
            self._looked = time.monotonic()
        return self._left <= 0


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: Any, settings: pytest_timeout.Settings) -> bool | None:
    """Let pytest-timeout's limit follow the machine; it rings once more where cleaning up hangs."""
    if settings.method != "signal" or threading.current_thread() is not threading.main_thread():
        return None
    patience = Patience(settings.timeout)
    look_seconds = min(_LOOK_SECONDS, settings.timeout)

    def look(*_: object) -> None:
        nonlocal patience
        __tracebackhide__ = True
        signal.setitimer(signal.ITIMER_REAL, look_seconds)
        if patience.is_over:
            patience = Patience(settings.timeout)
            pytest_timeout.timeout_sigalrm(item, settings)

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.cancel_timeout = cancel
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, look_seconds)
    return True
