"""`skipserve policies add` and `remove`: change which policies a running server has."""

from pathlib import Path
from typing import Annotated

import typer

from skipserve_client.calls import DEFAULT_URL
from skipserve_client.client import SkipserveClient
from skipserve_client.command_group import CommandError
from skipserve_client.options import ApiKey, AsJson, PoliciesFile, Url, print_json
from skipserve_client.policy_choice import read_policy
from skipserve_policies.catalog import load_added, nearest_names, parse_inline
from skipserve_policies.schema import SkipPolicy


def add_policy(
    name: Annotated[str, typer.Argument(help="What the policy is called from now on.")],
    policy: Annotated[
        str | None,
        typer.Argument(help="The policy as JSON; if left out, the file has it under this name."),
    ] = None,
    policies_file: PoliciesFile = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Add a skip policy to a running server, for all requests and for good; wants an admin key."""
    spelt_out = _spelt_out(name, policy, policies_file)
    with SkipserveClient(url, api_key) as client:
        info = client.add_skip_policy(name, spelt_out)
    if as_json:
        print_json(info)
    else:
        typer.echo(f"added {info.name} (digest {info.digest})")


def remove_policy(
    name: Annotated[str, typer.Argument(help="A policy that was added so.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Remove a skip policy that was added to a running server; wants an admin key."""
    with SkipserveClient(url, api_key) as client:
        client.remove_skip_policy(name)
    if as_json:
        print_json({"name": name, "deleted": True})
    else:
        typer.echo(f"removed {name}")


def _spelt_out(name: str, text: str | None, file: Path | None) -> SkipPolicy:
    if (text is None) == (file is None):
        raise CommandError("give the policy as JSON, or with --policies-file a file that names it")
    if file is not None:
        policies = load_added(file, taken=())
        if name not in policies:
            nearest = ", ".join(nearest_names(name, policies)) or "none"
            raise CommandError(f"{file} has no policy {name!r}; the nearest are {nearest}")
        return policies[name]
    choice = read_policy(text or "", "POLICY")
    if choice.value == choice.label:
        raise CommandError(f"POLICY is a policy as JSON, not the name {choice.label!r}")
    return parse_inline(choice.value, "POLICY")
