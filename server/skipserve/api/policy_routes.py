"""The routes that show what a skip policy would run and, for admin keys, add and remove some."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from skipserve.api.body import JsonRoute
from skipserve.api.errors import error_replies
from skipserve.api.exchange import TheExchange
from skipserve.api.forms.policies import (
    AddPolicyForm,
    PlanTable,
    PolicyPreview,
    RemovedPolicy,
    ResolvePolicyForm,
)
from skipserve.api.forms.shared import as_choice
from skipserve.api.paths import POLICIES, RESOLVE
from skipserve.api.routes import policy_entry
from skipserve.api.serving import TheServing
from skipserve.api.wire import PolicyEntry
from skipserve.asking.auto.wish import AutoWish
from skipserve.asking.policy_changes import PolicyChanges
from skipserve.asking.processor import QuestionProcessor
from skipserve.asking.question import PolicyChoice
from skipserve.budgets.client import Rights
from skipserve.errors import FeatureOffError, InvalidRequestError, KeyScopeError
from skipserve_policies.catalog import AUTO_NAME

router = APIRouter(
    responses=error_replies(400, 401, 403, 405, 409, 421, 429, 500), route_class=JsonRoute
)


async def _changes(serving: TheServing, exchange: TheExchange) -> PolicyChanges:
    """Return what changes policies, for whoever may.

    Raises:
        FeatureOffError: nobody may, and what would switch it on.
        KeyScopeError: the key is no admin's.
    """
    if serving.changes is None:
        raise FeatureOffError(
            "adding and removing skip policies is switched off on this server: "
            "--added-policies FILE switches it on"
        )
    if not serving.clients.have_file:
        raise FeatureOffError(
            "only admin keys add and remove skip policies, and this server has none: "
            "--api-keys-file FILE names them, with admin: true"
        )
    if not exchange.client.is_admin:
        raise KeyScopeError("only admin keys add and remove skip policies, and this is none")
    return serving.changes


TheChanges = Annotated[PolicyChanges, Depends(_changes)]


@router.post(
    POLICIES,
    status_code=201,
    responses={200: {"model": PolicyEntry}, **error_replies(408, 413, 415, 503)},
)
async def add_skip_policy(
    form: AddPolicyForm,
    serving: TheServing,
    exchange: TheExchange,
    changes: TheChanges,
    response: Response,
) -> PolicyEntry:
    """Add a named skip policy, which requests may ask for at once: 200 if it is there already."""
    added = await changes.add(form.name, form.policy, exchange.client.name)
    if not added.is_new:
        response.status_code = 200
    return policy_entry(added.policy, serving.processor)


@router.delete(POLICIES + "/{name}", responses=error_replies(404))
async def remove_skip_policy(
    name: str, exchange: TheExchange, changes: TheChanges
) -> RemovedPolicy:
    """Remove a named skip policy that was added so, once no request under it waits or runs."""
    await changes.remove(name, exchange.client.name)
    return RemovedPolicy(name=name)


@router.post(RESOLVE, responses=error_replies(404, 408, 413, 415, 503))
async def resolve_skip_policy(
    form: ResolvePolicyForm, serving: TheServing, exchange: TheExchange
) -> PolicyPreview:
    """Show what a skip policy, named or spelt out, would run on the loaded model and cost."""
    return await asyncio.to_thread(
        _preview, serving.processor, as_choice(form.skip_policy), form.model, exchange.client.rights
    )


def _preview(
    processor: QuestionProcessor, given: PolicyChoice | None, model: str | None, rights: Rights
) -> PolicyPreview:
    policy = processor.wanted_policy(given, model, rights)
    if isinstance(policy, AutoWish):
        raise InvalidRequestError(
            f"{AUTO_NAME} is chosen for each request, and runs nothing by itself; name one of "
            f"{POLICIES}",
            param="skip_policy",
        )
    return PolicyPreview(
        scope=policy.scope,
        skip=processor.reporter.standard_report(policy),
        quality=processor.policies.quality(policy),
        runs=PlanTable.of(policy.plan),
    )
