"""Messages on their way to the engine's loop: a request waits until its grammar is compiled."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from skipserve.engine.request import Grammar, Request
from skipserve.grammar.fault import GrammarFaultError
from skipserve.grammar.matcher import Grammars
from skipserve.service.messages import Cancel, Submit, ToEngine

logger = logging.getLogger(__name__)


class Arrivals:
    """Passes messages on in their order, but for requests whose grammars are not there yet.

    These are compiled in a thread of their own, while steps run: others do not wait for them.

    Args:
        grammars: of the engine; None where it has none.
        pass_on: hears of each message; from any thread.
    """

    def __init__(self, grammars: Grammars | None, pass_on: Callable[[ToEngine], None]) -> None:
        self._grammars = grammars
        self._pass_on = pass_on
        self._compiler = ThreadPoolExecutor(1, "grammars")
        self._lock = threading.Lock()
        # By request, what is kept back for it.
        self._held: dict[str, list[ToEngine]] = {}

    def take(self, message: ToEngine) -> None:
        """Take the next message."""
        grammar = _grammar(message.request) if isinstance(message, Submit) else None
        with self._lock:
            if isinstance(message, Submit) and grammar is not None and self._lacks(grammar):
                self._held[message.request.id] = [message]
                self._compiler.submit(self._compile, message.request.id, grammar)
            elif isinstance(message, Cancel) and message.request_id in self._held:
                self._held[message.request_id].append(message)
            else:
                self._pass_on(message)

    def _lacks(self, grammar: Grammar) -> bool:
        return self._grammars is not None and not self._grammars.knows(grammar.text)

    def _compile(self, request_id: str, grammar: Grammar) -> None:
        assert self._grammars is not None
        try:
            self._grammars.start(grammar.text)
        except GrammarFaultError:
            pass  # the engine finds it again, and says so
        except Exception:
            logger.exception("a grammar could not be compiled")
        with self._lock:
            for message in self._held.pop(request_id):
                self._pass_on(message)


def _grammar(request: Request) -> Grammar | None:
    adjustments = request.sampling.adjustments
    return adjustments.grammar if adjustments is not None else None
