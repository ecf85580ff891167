"""The routes: each reads its request, calls what does the work, and shapes the reply."""

from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from skipserve.api.admission import Permit
from skipserve.api.auth import get_key_digest
from skipserve.api.body import JsonRoute
from skipserve.api.chat import ChatWriter, read_chat
from skipserve.api.exchange import CHAT_PATH, Exchange, get_exchange
from skipserve.api.serving import Serving, get_serving
from skipserve.api.wire import (
    ChatForm,
    ChatReply,
    ErrorReply,
    Health,
    ModelEntry,
    ModelList,
    PolicyEntry,
    PolicyList,
    Version,
)
from skipserve.errors import UnavailableError

POLICIES_PATH = "/v1/skip_policies"
TheServing = Annotated[Serving, Depends(get_serving)]


def _errors(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {status: {"model": ErrorReply} for status in statuses}


router = APIRouter(responses=_errors(401, 403, 405, 421), route_class=JsonRoute)


async def _permit(serving: TheServing) -> AsyncIterator[Permit]:
    """Hold a permit in the server until the reply is sent.

    Not a plain generator: that would be left in a thread, which a cancelled request never awaits.
    """
    with serving.admission.admit() as permit:
        yield permit


@router.post(
    CHAT_PATH,
    response_model=ChatReply,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **_errors(400, 404, 408, 413, 415, 422, 500, 503),
    },
)
async def chat_completions(
    form: ChatForm,
    serving: TheServing,
    permit: Annotated[Permit, Depends(_permit)],
    key_digest: Annotated[bytes | None, Depends(get_key_digest)],
    exchange: Annotated[Exchange, Depends(get_exchange)],
    x_skip_policy: Annotated[str | None, Header()] = None,
) -> Response:
    """Answer a question about images, under the skip policy that the request names."""
    exchange.ask(key_digest)
    exchange.wants_stream = bool(form.stream)
    await serving.prepare(read_chat(form, x_skip_policy), exchange, permit)
    tells_usage = bool(form.stream_options and form.stream_options.include_usage)
    writer = ChatWriter(exchange, exchange.arrived_at // 10**9, tells_usage)
    return await serving.respond(exchange, permit, writer)


@router.get("/v1/models")
async def list_models(serving: TheServing) -> ModelList:
    """List the served model, alone and with each skip policy: NAME@POLICY."""
    processor, ready = serving.processor, serving.service.ready
    names = {processor.model_name: processor.terms.default_policy} | {
        f"{processor.model_name}@{policy}": policy for policy in processor.policies.resolved
    }
    entries = (
        ModelEntry(
            id=name,
            created=serving.created,
            root=processor.model_name,
            max_model_len=processor.prompts.max_positions,
            skip_policy=policy,
            weights_digest=ready.weights_digest if ready else None,
            dtype=ready.dtype if ready else None,
            device=ready.device if ready else None,
        )
        for name, policy in names.items()
    )
    return ModelList(data=tuple(entries))


@router.get(POLICIES_PATH)
async def list_skip_policies(serving: TheServing) -> PolicyList:
    """List the named skip policies, resolved for the loaded model.

    `saved_ratio` is the share of the full model's FLOPs that is saved on one standard request with
    60 text tokens, one image and an answer of 10 tokens, nothing cached: `saved_for` names it.
    """
    policies, saved_for = serving.processor.policies, serving.processor.reporter.saved_for()
    entries = (
        PolicyEntry(
            name=resolved.name,
            description=resolved.policy.description,
            source=resolved.policy.source,
            digest=resolved.digest,
            layers=resolved.layers,
            scope=resolved.scope,
            saved_ratio=serving.processor.reporter.saved_ratio(resolved),
            saved_for=saved_for,
            quality=policies.quality(resolved),
        )
        for resolved in policies.resolved.values()
    )
    return PolicyList(data=tuple(entries))


@router.get("/health", responses=_errors(503))
async def health(serving: TheServing) -> Health:
    """Say whether the engine lives and makes progress."""
    if not serving.service.is_alive:
        raise UnavailableError("the engine is gone or makes no progress")
    return Health(status="ok")


@router.get("/ready", responses=_errors(503))
async def ready(serving: TheServing) -> Health:
    """Say whether requests are taken."""
    if (why := serving.admission.why_not_ready) is not None:
        raise UnavailableError(why)
    return Health(status="ready")


@router.get("/metrics", response_class=Response)
async def metrics(serving: TheServing) -> Response:
    """Show the metrics in Prometheus' text format."""
    return Response(generate_latest(serving.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/version")
async def show_version() -> Version:
    """Say which version runs."""
    return Version(version=version("skipserve"))
