"""skipserve: a server for multimodal LLMs in which each request chooses what is computed."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skipserve.engine.limits import EngineLimits
    from skipserve.errors import SkipserveError
    from skipserve.model_folder import StartError
    from skipserve.offline.answers import Answer
    from skipserve.offline.llava import LLaVA
    from skipserve.offline.questions import Question

__all__ = ["Answer", "EngineLimits", "LLaVA", "Question", "SkipserveError", "StartError"]

_MODULES = {
    "Answer": "skipserve.offline.answers",
    "EngineLimits": "skipserve.engine.limits",
    "LLaVA": "skipserve.offline.llava",
    "Question": "skipserve.offline.questions",
    "SkipserveError": "skipserve.errors",
    "StartError": "skipserve.model_folder",
}

# Not for type checkers: to them, a module with `__getattr__` has every name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what is asked for, and no sooner: the API process does without torch."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Return the names of the module, those that are not imported yet among them."""
    return sorted({*globals(), *__all__})
