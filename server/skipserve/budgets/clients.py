"""All whom a server answers, by their keys."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from skipserve.budgets.client import Client
from skipserve.budgets.keys import KeyEntry, KeysFileError, digest_of_key
from skipserve.digests import digest_of

logger = logging.getLogger(__name__)


class Clients:
    """Finds whoever has a key, in the same time whichever it is.

    Args:
        keys: of clients that have no name.
        isolates: whether each key has a cache of its own; None for where there are several.
        read: returns what the keys file says; None where there is no file.

    Raises:
        KeysFileError: the file cannot be used.
    """

    def __init__(
        self,
        keys: Iterable[str] = (),
        isolates: bool | None = None,
        read: Callable[[], Sequence[KeyEntry]] | None = None,
    ) -> None:
        self._isolates = isolates
        self._unnamed = {digest_of_key(key): Client(digest_of(digest_of_key(key))) for key in keys}
        self._named: dict[str, Client] = {}
        self._by_digest: dict[bytes, Client] = dict(self._unnamed)
        self._read = read
        if read is not None:
            self.follow(read())

    @property
    def are_wanted(self) -> bool:
        """Whether a key is wanted of whoever asks."""
        return bool(self._by_digest)

    @property
    def have_file(self) -> bool:
        """Whether there is a keys file."""
        return self._read is not None

    @property
    def are_isolated(self) -> bool:
        """Whether each key has a cache of its own."""
        return self.are_several if self._isolates is None else self._isolates

    @property
    def are_several(self) -> bool:
        """Whether there are several who do not know of each other."""
        return len(self._unnamed) + len(self._named) > 1

    @property
    def names(self) -> Collection[str]:
        """The names in the keys file."""
        return self._named.keys()

    def __iter__(self) -> Iterator[Client]:
        """Yield all who have keys, those without a name last."""
        yield from self._named.values()
        yield from self._unnamed.values()

    async def reload(self) -> None:
        """Do as the keys file says now; where it cannot be used, as it said before."""
        if self._read is None:
            return
        try:
            entries = await asyncio.to_thread(self._read)
        except KeysFileError as error:
            logger.error("%s; the keys stay as they were", error)
        else:
            self.follow(entries)
            logger.info("the keys file was read again: %d names", len(entries))

    def follow(self, entries: Sequence[KeyEntry]) -> None:
        """Do from now on as a keys file says. Who has kept its name keeps what it has used."""
        self._named = dict(self._followed(entries))
        self._by_digest = dict(self._unnamed)
        for entry in entries:
            for digest in entry.sha256:
                self._by_digest[bytes.fromhex(digest)] = self._named[entry.name]

    def find(self, digest: bytes) -> Client | None:
        """Return whoever has the key of a digest."""
        found = None
        for known, client in self._by_digest.items():
            if secrets.compare_digest(digest, known):
                found = client
        return found

    def isolation(self, client: Client) -> bytes | None:
        """Return what a client's cache is kept apart by; None where all share one."""
        owner = client.owner
        return owner if self.are_isolated and isinstance(owner, bytes) else None

    def tells_cached(self, client: Client) -> bool:
        """Whether a client may hear what was found in a cache: nothing of what others ask."""
        return self.isolation(client) is not None or not self.are_several

    def _followed(self, entries: Sequence[KeyEntry]) -> Iterator[tuple[str, Client]]:
        for entry in entries:
            client = self._named.get(entry.name)
            if client is None:
                client = Client.of_entry(entry)
            else:
                client.follow(entry)
            yield entry.name, client
