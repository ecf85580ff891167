"""Ray Serve's router for engines: asks `placing` where a request goes, and knows nothing else.

Ray pickles this module by value: it holds no state, and plain data alone passes through it.
"""

import logging
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from skipserve.ray.placing import Bound, Replicas, Route, place

logger = logging.getLogger("ray.serve")


class EngineRouter(RequestRouter):
    """Sends a request where what it asks about is warm, unless that engine is too busy."""

    def initialize_state(self, **bound: Any) -> None:
        """Take how busy an engine may be, as `Bound` has it."""
        self._bound = Bound(**bound)
        self._known = Replicas(())

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the replica that takes a request, then the others that may.

        An error here would only be logged, and the request would wait for ever.
        """
        if pending_request is None:
            return [candidate_replicas]
        # Without it, the loop that asks would never sleep.
        pending_request.routing_context.should_backoff = True
        try:
            return self._choose(candidate_replicas, pending_request)
        except Exception:
            logger.exception("a request could not be placed by what it asks about")
            return [candidate_replicas]

    def _choose(
        self, candidates: list[RunningReplica], pending: PendingRequest
    ) -> list[list[RunningReplica]]:
        content, policy, avoided = pending.kwargs["route"]
        named = {it.replica_id.unique_id: it for it in candidates}
        names = tuple(sorted(named))
        if names != self._known.names:
            self._known = Replicas(names)
        loads = [self.replica_queue_len_cache.get(named[it].replica_id) or 0 for it in names]
        out = [place_ for place_, name in enumerate(names) if name in avoided]
        first = place(self._known, Route(content, policy), loads, self._bound, out)
        if first is None:
            return []
        others = [named[it] for it in names if it != names[first] and it not in avoided]
        return [[named[names[first]]], others]
