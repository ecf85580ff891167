"""What all replicas of an application tell of themselves, in one place. No Ray."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from skipserve.engine.reports import Ready
from skipserve.ray.remote import Crew

# Without a word for so long, a replica counts as gone.
_SILENT_SECONDS = 10.0


@dataclass(frozen=True)
class EngineNews:
    """How an engine's replica stands.

    Attributes:
        ready: what it has loaded; None until then.
        takes: whether it takes requests.
    """

    ready: Ready | None
    takes: bool


@dataclass
class _Heard:
    """The last words of a replica."""

    at: float
    news: EngineNews | None = None
    page: bytes = b""


@dataclass
class NewsBoard:
    """Hears replicas, and forgets those that have fallen silent.

    Args:
        clock: the time in seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _heard: dict[str, _Heard] = field(default_factory=dict, init=False)
    _ready: Ready | None = field(default=None, init=False)

    def hear(self, name: str, news: EngineNews | None, page: bytes | None = None) -> None:
        """Hear a replica.

        Args:
            name: its name.
            news: how it stands; None of an ingress.
            page: its metrics; None for those that it showed last.
        """
        heard = self._heard.setdefault(name, _Heard(self.clock()))
        heard.at, heard.news = self.clock(), news
        if page is not None:
            heard.page = page
        if news is not None and news.ready is not None:
            self._ready = news.ready
        self._forget()

    def leave(self, name: str) -> None:
        """Hear that a replica ends."""
        self._heard.pop(name, None)

    @property
    def names(self) -> set[str]:
        """The replicas that there are."""
        self._forget()
        return set(self._heard)

    @property
    def crew(self) -> Crew:
        """What is known of the engines; what they loaded is known when all are gone, too."""
        self._forget()
        engines = list(self._engines())
        loaded = [it.ready for it in engines if it.ready is not None]
        ready = min(loaded, key=lambda it: it.num_cache_tokens, default=self._ready)
        return Crew(ready, any(it.takes for it in engines))

    @property
    def pages(self) -> dict[str, bytes]:
        """The metrics of all, by name."""
        self._forget()
        return {name: heard.page for name, heard in self._heard.items() if heard.page}

    def _engines(self) -> Iterator[EngineNews]:
        return (it.news for it in self._heard.values() if it.news is not None)

    def _forget(self) -> None:
        now = self.clock()
        for name in [it for it, heard in self._heard.items() if now - heard.at > _SILENT_SECONDS]:
            del self._heard[name]
