"""The way to the engines by Ray Serve's handle: what it raises becomes one of two errors."""

import contextlib
import logging
from collections.abc import AsyncGenerator
from contextvars import Context
from typing import Any

from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from skipserve.ray.placing import Route
from skipserve.ray.remote import FullError, LostError

logger = logging.getLogger(__name__)


class ServeHandle:
    """Calls a deployment of engines.

    Args:
        handle: of the deployment.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        # A message by value costs a quarter of one in Ray's object store.
        self._handle = handle.options(method_name="stream", stream=True, _by_reference=False)

    async def call(
        self, frame: bytes, route: Route, avoided: tuple[str, ...]
    ) -> AsyncGenerator[bytes, None]:
        """Have an engine run a request, and yield its messages; closing the generator cancels it.

        Args:
            frame: the call.
            route: what decides which engine takes it.
            avoided: the names of those that may not.

        Raises:
            FullError: none has room.
            LostError: the engine is gone.
        """
        # In a context of its own: Serve tells calls apart by the HTTP request that they are made
        # in, and two of one request would wait for each other.
        placed = (route.content, route.policy, avoided)
        # A stream has no type that says so.
        response: Any = Context().run(self._handle.remote, frame, route=placed)
        is_over = False
        try:
            async for message in response:
                yield message
            is_over = True
        except BackPressureError as error:
            is_over = True
            raise FullError from error
        except Exception as error:
            is_over = True
            logger.warning("a call of an engine was lost: %r", error)
            raise LostError from error
        finally:
            if not is_over:
                # What it may raise says that there is nothing left to cancel.
                with contextlib.suppress(Exception):
                    response.cancel()
