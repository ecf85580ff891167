"""Sends requests straight into an application, without a socket and without its lifespan."""

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI


def send(app: FastAPI, method: str, path: str, **arguments: Any) -> httpx.Response:
    """Return the application's reply."""

    async def exchange() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport) as client:
            # Whole, or "//health" would be a host.
            return await client.request(method, f"http://server{path}", **arguments)

    return asyncio.run(exchange())
