"""The routes that list and show: each calls what knows, and shapes the reply."""

from dataclasses import asdict
from functools import cache
from importlib.metadata import version

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from skipserve.api.errors import error_replies
from skipserve.api.exchange import TheExchange
from skipserve.api.paths import POLICIES
from skipserve.api.serving import Serving, TheServing
from skipserve.api.wire import (
    AutoEntry,
    AutoReply,
    Health,
    ModelEntry,
    ModelList,
    PolicyEntry,
    PolicyList,
    UsageEntry,
    UsageList,
    Version,
)
from skipserve.asking.auto.chooser import AutoChooser
from skipserve.asking.auto.wish import AutoWish
from skipserve.asking.processor import QuestionProcessor
from skipserve.budgets.client import Rights
from skipserve.errors import NotFoundError, UnavailableError
from skipserve_policies.catalog import AUTO_NAME
from skipserve_policies.resolve import ResolvedPolicy

router = APIRouter(responses=error_replies(401, 403, 405, 421))


@router.get("/v1/models")
async def list_models(serving: TheServing, exchange: TheExchange) -> ModelList:
    """List the served model, alone and with each skip policy that may be used: NAME@POLICY."""
    processor, rights = serving.processor, exchange.client.rights
    names = {processor.model_name: processor.default_policy} | {
        f"{processor.model_name}@{policy}": policy
        for policy in (AUTO_NAME, *processor.policies.resolved)
    }
    return ModelList(
        data=tuple(
            _model_entry(serving, *it)
            for it in names.items()
            if (processor.auto.can_choose(rights) if it[1] == AUTO_NAME else rights.has(it[1]))
        )
    )


@router.get("/v1/models/{model_id:path}", responses=error_replies(400, 404))
async def show_model(model_id: str, serving: TheServing, exchange: TheExchange) -> ModelEntry:
    """Show a name that `model` may have: the served model's, alone or as NAME@POLICY."""
    policy = serving.processor.counted_policy(model_id, exchange.client.rights)
    return _model_entry(serving, model_id, policy.name if policy else AUTO_NAME)


def _model_entry(serving: Serving, name: str, policy: str) -> ModelEntry:
    processor, ready = serving.processor, serving.service.ready
    return ModelEntry(
        id=name,
        created=serving.created,
        root=processor.model_name,
        max_model_len=processor.prompts.max_positions,
        skip_policy=policy,
        input_modalities=("text", processor.preprocessor.modality.value),
        weights_digest=ready.weights_digest if ready else None,
        dtype=ready.dtype if ready else None,
        device=ready.device if ready else None,
    )


@router.get(POLICIES)
async def list_skip_policies(serving: TheServing, exchange: TheExchange) -> PolicyList:
    """List the named skip policies that may be used, resolved for the loaded model.

    `saved_ratio` is the share of the full model's FLOPs that is saved on one standard request with
    60 text tokens, one image and an answer of 10 tokens, nothing cached: `saved_for` names it.
    """
    processor, rights = serving.processor, exchange.client.rights
    allowed = (it for it in processor.policies.resolved.values() if rights.has(it.name))
    return PolicyList(
        data=tuple(policy_entry(policy, processor) for policy in allowed),
        auto=_auto_reply(processor.auto, rights),
    )


@router.get(POLICIES + "/{name}", responses=error_replies(400, 404))
async def show_skip_policy(name: str, serving: TheServing, exchange: TheExchange) -> PolicyEntry:
    """Show a named skip policy, resolved for the loaded model, as the list does."""
    policy = serving.processor.wanted_policy(name, None, exchange.client.rights)
    if isinstance(policy, AutoWish):
        raise NotFoundError(
            f"{AUTO_NAME} is no policy: the server chooses one of those that {POLICIES} has under "
            f"{AUTO_NAME}",
            param="skip_policy",
        )
    return policy_entry(policy, serving.processor)


def policy_entry(resolved: ResolvedPolicy, processor: QuestionProcessor) -> PolicyEntry:
    """Return what is told of a named policy."""
    return PolicyEntry(
        name=resolved.name,
        description=resolved.policy.description,
        source=resolved.policy.source,
        digest=resolved.digest,
        layers=resolved.layers,
        scope=resolved.scope,
        saved_ratio=processor.reporter.saved_ratio(resolved),
        saved_for=processor.reporter.saved_for(),
        quality=processor.policies.quality(resolved),
        added=resolved.is_added,
        default=resolved.name == processor.default_policy,
    )


def _auto_reply(auto: AutoChooser, rights: Rights) -> AutoReply:
    terms, band = auto.terms, auto.terms.pressure
    found = sorted(auto.measured(rights), key=lambda it: -it.quality)
    return AutoReply(
        quality=terms.quality,
        min_quality=terms.min_quality,
        unmet=terms.unmet,
        fallback=auto.fallback.name,
        pressure_seconds=band.high,
        relief_seconds=band.low,
        policies=tuple(AutoEntry(name=it.policy.name, quality=it.quality) for it in found),
    )


@router.get("/v1/usage")
async def show_usage(serving: TheServing, exchange: TheExchange) -> UsageList:
    """Show what the key of the request has used; to an admin key, what each has."""
    clients = serving.clients if exchange.client.is_admin else (exchange.client,)
    entries = (
        UsageEntry(key=total.name, requests=total.num_requests, **asdict(total.used))
        for total in await serving.accounts.totals(clients)
    )
    return UsageList(data=tuple(entries))


@router.get("/health", responses=error_replies(503))
async def health(serving: TheServing) -> Health:
    """Say whether the engine lives and makes progress."""
    if not serving.service.is_alive:
        raise UnavailableError("the engine is gone or makes no progress")
    return Health(status="ok")


@router.get("/ready", responses=error_replies(503))
async def ready(serving: TheServing) -> Health:
    """Say whether requests are taken."""
    if (why := serving.admission.why_not_ready) is not None:
        raise UnavailableError(why)
    return Health(status="ready")


@router.get("/metrics", response_class=Response)
async def metrics(serving: TheServing) -> Response:
    """Show the metrics in Prometheus' text format."""
    show = serving.show_metrics
    text = generate_latest(serving.registry) if show is None else await show()
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/version")
async def show_version() -> Version:
    """Say which version runs."""
    return Version(version=_our_version())


@cache
def _our_version() -> str:
    """Return it, read from its files once."""
    return version("skipserve")
