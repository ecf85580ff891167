"""Which server a load is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skipserve_client.client import AsyncSkipserveClient
from skipserve_client.discovery import model_of, policies_of
from skipserve_client.errors import ClientError
from skipserve_client.replies import ModelInfo, PolicyInfo


@dataclass(frozen=True)
class ServerInfo:
    """What is known of a server.

    Attributes:
        model: the one that is asked.
        policies: None where the server is none of skipserve's.
        version: the server's, where it says.
    """

    model: ModelInfo
    policies: Sequence[PolicyInfo] | None
    version: str | None

    @property
    def is_skipserve(self) -> bool:
        """Whether it knows skip policies."""
        return self.policies is not None

    @property
    def unnamed(self) -> str:
        """What a request is called that names no policy: the default one, or the model."""
        defaults = (policy.name for policy in self.policies or () if policy.default)
        return next(defaults, self.model.id)

    def as_json(self) -> dict[str, Any]:
        """Return what records say of the server."""
        told = self.model.model_dump(mode="json")
        return {"is_skipserve": self.is_skipserve, "version": self.version, "model": told}


async def look_at(url: str, api_key: str | None, model: str | None) -> ServerInfo:
    """Ask a server what it is.

    Raises:
        ClientError: it cannot be reached, or refuses to tell.
        CommandError: it has no such model.
    """
    async with AsyncSkipserveClient(url, api_key) as client:
        return ServerInfo(
            await model_of(client, model, "--model"),
            await policies_of(client),
            await _version_of(client),
        )


async def _version_of(client: AsyncSkipserveClient) -> str | None:
    try:
        return await client.version()
    except ClientError:
        return None
