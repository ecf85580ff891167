"""What a server is: one of skipserve's, or another one that speaks OpenAI's form."""

from collections.abc import Sequence

from skipserve_client.client import AsyncSkipserveClient
from skipserve_client.command_group import CommandError
from skipserve_client.errors import ApiError, ProtocolError
from skipserve_client.offline import check_known
from skipserve_client.policy_choice import PolicyChoice
from skipserve_client.replies import ModelInfo, PolicyInfo
from skipserve_policies.catalog import load_catalog, parse_inline

# What a server says of a route that it does not have.
_NO_SUCH_ROUTE = {404, 405, 501}


async def policies_of(client: AsyncSkipserveClient) -> Sequence[PolicyInfo] | None:
    """List the skip policies; None where the server is one that has none."""
    try:
        return await client.skip_policies()
    except ProtocolError:
        return None
    except ApiError as error:
        if error.status in _NO_SUCH_ROUTE:
            return None
        raise


async def model_of(client: AsyncSkipserveClient, name: str | None, flag: str) -> ModelInfo:
    """Return the model of a name, or the first that the server lists.

    A server that lists none may have any.

    Raises:
        CommandError: the server has none of that name; `flag` is where it stands.
    """
    try:
        models = await client.models()
    except ApiError as error:
        if name is None or error.status not in _NO_SUCH_ROUTE:
            raise
        return ModelInfo(id=name)
    if name is None and models:
        return models[0]
    for model in models:
        if model.id == name:
            return model
    # Names with a policy in them are many.
    ids = ", ".join(model.id for model in models if "@" not in model.id) or "none"
    raise CommandError(f"{flag} {name or ''}: the server's models are {ids}")


def check_choices(
    choices: Sequence[PolicyChoice], listed: Sequence[PolicyInfo] | None, flag: str
) -> None:
    """Refuse policies that the server does not run, before anything is asked under one.

    Raises:
        CommandError: the server has no policies, lacks one of a name, or has one that does not
            fit its model; `flag` is where they stand.
        PolicyError: one that is spelt out is not of a policy's form.
    """
    if listed is None and choices:
        labels = ", ".join(choice.label for choice in choices)
        raise CommandError(f"{flag} {labels}: the server lists no skip policies")
    names = [policy.name for policy in listed or ()]
    # What a server chooses by itself stands in no list; one that cannot says so.
    for choice in (it for it in choices if not it.is_auto):
        if choice.value != choice.label:
            parse_inline(choice.value, flag)
        elif choice.label not in names and choice.label in load_catalog():
            raise CommandError(f"{flag}: {choice.label} does not fit the server's model")
        else:
            check_known(choice.label, names)
