"""What Ray Serve runs: replicas with an engine, ingresses with our application, and one ledger."""

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import yaml
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from skipserve.app import build, build_engine
from skipserve.budgets.client import Resource, Use
from skipserve.engine.limits import EngineSpec
from skipserve.logging_setup import set_up_logging
from skipserve.model_folder import StartError
from skipserve.ray.budgets import SharedAccounts, SharedBudgets, Who
from skipserve.ray.engine import Answering, end_with
from skipserve.ray.handle import ServeHandle
from skipserve.ray.news import EngineNews, NewsBoard
from skipserve.ray.options import Options
from skipserve.ray.owner import LedgerOwner
from skipserve.ray.pages import Pages, pack_page
from skipserve.ray.remote import Crew, RemoteEngines
from skipserve.ray.switch import Switch
from skipserve.service.observer import Observer
from skipserve.settings import LogFormat, Settings

logger = logging.getLogger("skipserve")
_pack = msgspec.msgpack.encode
_TELL_SECONDS = 1.0
# Metrics are told less often: a page is a hundred kilobytes.
_TELLS_PER_PAGE = 5


class Ledger:
    """What there is only one of for all replicas: who is there, their metrics, what keys use."""

    def __init__(self) -> None:
        self._board = NewsBoard()
        self._budgets = SharedBudgets()

    async def hear_engine(self, name: str, news: bytes, page: bytes | None) -> None:
        """Hear how an engine stands."""
        self._board.hear(name, _read(news, EngineNews), page)

    async def hear_ingress(self, name: str, page: bytes | None) -> bytes:
        """Hear that an ingress lives, and tell it what engines there are."""
        self._board.hear(name, None, page)
        self._budgets.keep(self._board.names)
        return _pack(self._board.crew)

    async def leave(self, name: str) -> None:
        """Hear that a replica ends."""
        self._board.leave(name)

    async def pages(self) -> dict[str, bytes]:
        """Return the metrics of all replicas, by name."""
        return self._board.pages

    async def open(self, ingress: str, ticket: str, who: bytes) -> bytes:
        """Count a request as under way: see `SharedBudgets`, as for those that follow."""
        return _pack(self._budgets.open(ingress, ticket, _read(who, Who)))

    async def reserve(self, ticket: str, bounds: bytes) -> bytes:
        """Reserve the most that a request may cost."""
        return _pack(self._budgets.reserve(ticket, _read(bounds, list[dict[Resource, int]])))

    async def close(self, ticket: str, used: bytes) -> None:
        """Let a request that has ended pay."""
        self._budgets.close(ticket, _read(used, Use | None))

    async def count(self, who: bytes, used: bytes) -> None:
        """Count a request that has ended."""
        self._budgets.count(_read(who, Who), _read(used, Use | None))

    async def totals(self, owners: list[bytes]) -> bytes:
        """Return what clients have used."""
        return _pack(self._budgets.totals(owners))


class _Teller:
    """Says when a page is due."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._num_told = 0

    def page(self) -> bytes | None:
        """Return the metrics where it is time to tell them."""
        is_due = self._num_told % _TELLS_PER_PAGE == 0
        self._num_told += 1
        return pack_page(self._registry) if is_due else None


class Engine:
    """A replica with an engine, in a process of that; ends with it.

    Args:
        options: how the application runs.
        ledger: hears how the engine stands.
    """

    # Serve sends no requests before it has returned.
    async def __init__(self, options: Options, ledger: DeploymentHandle[Any]) -> None:  # type: ignore[misc]
        self._name = _replica_name()
        self._ledger = ledger
        settings = options.read_settings()
        _set_up_logging(settings)
        self._service, registry = build_engine(settings)
        self._answering = Answering(self._service, self._name)
        await self._service.start()
        await self._service.wait_ready()
        self._tasks = [
            asyncio.create_task(end_with(self._service, os._exit)),
            asyncio.create_task(self._tell(_Teller(registry))),
        ]

    async def stream(
        self, frame: bytes, route: tuple[bytes, bytes, tuple[str, ...]]
    ) -> AsyncGenerator[bytes, None]:
        """Run the request of a call and yield messages.

        Args:
            frame: the call.
            route: what the router has placed it by.
        """
        async with aclosing(self._answering.answer(frame)) as messages:
            async for message in messages:
                yield message

    async def close(self) -> None:
        """Let the engine's process end, and say so."""
        for task in self._tasks:
            task.cancel()
        await self._service.close(grace_seconds=0)
        with contextlib.suppress(Exception):
            await self._ledger.leave.remote(f"engine-{self._name}")

    async def __del__(self) -> None:
        """Close: Serve calls it where the replica ends."""
        await self.close()

    async def _tell(self, teller: _Teller) -> None:
        while True:
            news = EngineNews(self._service.ready, self._service.why_not_ready is None)
            try:
                await self._ledger.hear_engine.remote(
                    f"engine-{self._name}", _pack(news), teller.page()
                )
            except Exception as error:  # noqa: BLE001 (the ledger is back soon, or all ends)
                logger.warning("the ledger does not hear: %r", error)
            await asyncio.sleep(_TELL_SECONDS)


class Ingress:
    """A replica with our application, whose engines are elsewhere.

    Args:
        options: how the application runs.
        engines: the way to them.
        ledger: knows which there are.
    """

    def __init__(
        self, options: Options, engines: DeploymentHandle[Any], ledger: DeploymentHandle[Any]
    ) -> None:
        self._options = options
        self._handle = ServeHandle(engines)
        self._ledger = ledger
        self._name = f"ingress-{_replica_name()}"
        self._accounts = SharedAccounts(LedgerOwner(ledger, self._name))
        self._crew = Crew()
        self._folder = tempfile.TemporaryDirectory(prefix="skipserve-")
        settings = options.read_settings()
        _set_up_logging(settings)
        self._switch = Switch(self._build(settings))

    async def __serve_build_asgi_app__(self) -> Switch:
        """Return what answers requests; Serve asks once."""
        return self._switch

    async def reconfigure(self, user_config: dict[str, Any] | None) -> None:
        """Serve with other skip policies from now on: those under `policies`, as in a file of them.

        What cannot be served is logged, and what was served before stays.

        Raises:
            ValueError: something else is to be changed.
        """
        if not user_config:
            return
        if user_config.keys() != {"policies"}:
            raise ValueError(f"user_config takes policies and nothing else: {sorted(user_config)}")
        path = Path(self._folder.name) / "policies.yaml"
        path.write_text(yaml.safe_dump(user_config["policies"]))
        try:
            app = self._build(self._options.read_settings(policies=path))
        except StartError as error:
            logger.error("the policies stay as they were: %s", error)
            return
        await self._switch.exchange(app)
        logger.info("other policies are served from now on")

    def _build(self, settings: Settings) -> FastAPI:
        """Return an application with a way to the engines of its own.

        Raises:
            StartError: it cannot be served.
        """

        def connect(_: EngineSpec, observer: Observer) -> RemoteEngines:
            patience = self._options.patience
            return RemoteEngines(self._handle, look, patience, observer, self._crew)

        async def look() -> Crew:
            packed = await self._ledger.hear_ingress.remote(self._name, teller.page())
            crew: Crew = _read(packed, Crew)
            # The next application knows it from its first request on.
            self._crew = replace(crew, takes=crew.takes or self._options.starts_from_none)
            return self._crew

        built = build(settings, connect)
        teller = _Teller(built.serving.registry)
        for warning in built.warnings:
            logger.warning(warning)
        built.app.state.serving = replace(
            built.serving, show_metrics=self._show_metrics, accounts=self._accounts
        )
        return built.app

    async def _show_metrics(self) -> bytes:
        pages: dict[str, bytes] = await self._ledger.pages.remote()
        registry: CollectorRegistry = self._switch.app.state.serving.registry
        pages[self._name] = pack_page(registry)
        return await asyncio.to_thread(generate_latest, Pages(pages, self._name))


def _read(packed: bytes, type_: Any) -> Any:
    return msgspec.msgpack.decode(packed, type=type_)


def _set_up_logging(settings: Settings) -> None:
    set_up_logging(as_json=settings.log_format is LogFormat.JSON)


def _replica_name() -> str:
    """Return what Serve calls this replica; where it plays all of them itself, there is one."""
    try:
        return str(serve.get_replica_context().replica_tag)
    except RayServeException:
        return "local"
