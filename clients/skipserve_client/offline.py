"""What can be said about a model and its skip policies without a server or the model's weights."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from skipserve_client.command_group import CommandError
from skipserve_client.policy_choice import PolicyChoice
from skipserve_client.replies import PolicyInfo, SavedFor
from skipserve_policies.catalog import nearest_names, parse_inline
from skipserve_policies.cost import (
    PolicyCost,
    Saving,
    compare,
    make_request,
    parse_prompt,
    request_shape,
    saving,
    standard_request,
)
from skipserve_policies.named import load_policies
from skipserve_policies.quality import load_measured
from skipserve_policies.resolve import PolicyError, ResolvedPolicy, resolve_for
from skipserve_policies.schema import Quality, SkipPolicy
from skipserve_policies.sizes import KNOWN_MODELS, ModelSizes

# Models that ship with the server, and where in its package what is known of them lies; what one
# lacks that goes on from another is the other's.
SHIPPED = {
    "demo": ("demo",),
    "smolvqa": ("pretrained/smolvqa",),
    "smolvqa-patches": ("pretrained/smolvqa-patches",),
    "smolvqa-half-blocks": ("pretrained/smolvqa-half-blocks", "pretrained/smolvqa"),
    "smolvqa-wanda-50": ("pretrained/smolvqa-wanda-50", "pretrained/smolvqa"),
}
# What names a model whose files are at hand, for people.
MODELS = f"{', '.join([*KNOWN_MODELS, *SHIPPED])}, or a folder"


def model_sizes(model: str) -> ModelSizes:
    """Return the sizes of a published model, of one that ships, or of a folder with a config.json.

    Raises:
        CommandError: there is no such model.
    """
    if model in KNOWN_MODELS:
        return KNOWN_MODELS[model]
    places = [it / "config.json" if it.is_dir() else it for it in _folders(model)]
    file = next((it for it in places if it.exists()), places[0])
    try:
        return ModelSizes.from_config(json.loads(file.read_text()))
    except OSError as error:
        raise CommandError(f"no model {model!r}: give {MODELS} that holds a config.json") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(f"{file} is not the configuration of a LLaVA model: {error}") from error


def _folders(model: str) -> list[Path]:
    """Find where a model's files lie, the first before the others.

    Those of one that ships are in the server's package, which is not imported.
    """
    if model not in SHIPPED:
        return [Path(model)]
    spec = find_spec("skipserve")
    if spec is None or spec.origin is None:
        raise CommandError(f"{model} comes with the server: pip install 'skipserve[server]'")
    return [Path(spec.origin).parent / place for place in SHIPPED[model]]


def _folder(model: str) -> Path | None:
    """Find the folder that says which policies a model brings; a published one has none."""
    return None if model in KNOWN_MODELS else _folders(model)[0].resolve()


@dataclass(frozen=True)
class PolicyListing:
    """Policies resolved for one model.

    Attributes:
        policies: those that fit.
        misfits: those that ship and do not, with the reason.
        faults: a line for each that was asked for, or stands in the user's file, and does not.
    """

    policies: tuple[PolicyInfo, ...]
    misfits: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the form that `skipserve policies --json` prints."""
        data = [policy.model_dump(mode="json") for policy in self.policies]
        return {"object": "list", "data": data, "misfits": dict(self.misfits)}


def listed_policies(listed: Sequence[PolicyInfo], choices: Sequence[PolicyChoice]) -> PolicyListing:
    """Return what a server lists, or of that what is asked for.

    Raises:
        CommandError: the server lists none of that name, or one is spelt out.
    """
    by_name = {policy.name: policy for policy in listed}
    for choice in choices:
        if choice.value != choice.label:
            raise CommandError("a policy of your own is resolved with --model, not by a server")
        check_known(choice.label, by_name)
    names = [choice.label for choice in choices] or list(by_name)
    return PolicyListing(tuple(by_name[name] for name in names))


def offline_policies(
    model: str, policies_file: Path | None, choices: Sequence[PolicyChoice] = ()
) -> PolicyListing:
    """Resolve the policies that are asked for, or all of the catalog, for a model.

    Raises:
        CommandError: there is no such model, or no such policy.
        PolicyError: the file of policies, or that of measured quality, cannot be used.
    """
    sizes, folder = model_sizes(model), _folder(model)
    measured = {} if folder is None else load_measured(folder, folder.name)
    named = load_policies(folder, policies_file)
    wanted = dict(_policy(choice, named.by_name) for choice in choices) or named.by_name
    tolerated = named.shipped.keys() - {named.default, *(choice.label for choice in choices)}
    request, saved_for = standard_request(sizes), standard_shape(sizes)
    fitting: list[PolicyInfo] = []
    misfits: dict[str, str] = {}
    for name, policy in wanted.items():
        try:
            resolved = resolve_for(name, policy, sizes)
        except PolicyError as error:
            misfits[name] = str(error)
            continue
        saved = saving(sizes, resolved.plan, request, resolved.reduction, resolved.narrowing)
        quality = measured.get(resolved.digest, ())
        info = _policy_info(resolved, saved, saved_for, quality, is_default=name == named.default)
        fitting.append(info)
    return PolicyListing(
        tuple(fitting),
        {name: reason for name, reason in misfits.items() if name in tolerated},
        tuple(
            _misfit(name, sizes, reason)
            for name, reason in misfits.items()
            if name not in tolerated
        ),
    )


def standard_shape(sizes: ModelSizes) -> SavedFor:
    """Return the shape of the request that a list of policies quotes."""
    return SavedFor(**asdict(request_shape(sizes, standard_request(sizes))))


def _policy(choice: PolicyChoice, catalog: Mapping[str, SkipPolicy]) -> tuple[str, SkipPolicy]:
    """Return what is asked for, by name.

    Raises:
        CommandError: the catalog holds none of that name.
        PolicyError: one that is spelt out is not of a policy's form.
    """
    if choice.value != choice.label:
        return choice.label, parse_inline(choice.value, "a policy spelt out as JSON")
    check_known(choice.label, catalog)
    return choice.label, catalog[choice.label]


def check_known(name: str, names: Iterable[str]) -> None:
    """Refuse a name that is not among those that there are, and tell the nearest.

    Raises:
        CommandError: it is not.
    """
    known = list(names)
    if name not in known:
        raise CommandError(
            f"there is no skip policy {name!r}; the nearest are "
            f"{', '.join(nearest_names(name, known))}; `skipserve policies` lists them all"
        )


def _misfit(name: str, sizes: ModelSizes, reason: object) -> str:
    return f"{name} does not fit this model of {sizes.decoder.num_layers} layers: {reason}"


def _policy_info(
    resolved: ResolvedPolicy,
    saved: Saving,
    saved_for: SavedFor,
    measured: tuple[Quality, ...],
    *,
    is_default: bool,
) -> PolicyInfo:
    return PolicyInfo(
        name=resolved.name,
        description=resolved.policy.description,
        source=resolved.policy.source,
        digest=resolved.digest,
        layers=resolved.layers,
        scope=resolved.scope,
        saved_ratio=saved.saved_ratio,
        saved_for=saved_for,
        quality=(*measured, *resolved.policy.quality),
        default=is_default,
    )


def request_cost(
    model: str,
    choice: PolicyChoice,
    shape: SavedFor,
    policies_file: Path | None,
) -> PolicyCost:
    """Count what a request costs under a policy and under the full model.

    Args:
        model: as `model_sizes` takes it.
        choice: a name of the catalog, of the model's or of the file, or a policy that is spelt out.
        shape: of the request.
        policies_file: adds policies to the catalog.

    Raises:
        CommandError: there is no such model or policy, it does not fit, or the prompt is in no
            such form.
        PolicyError: a file, or what is spelt out, cannot be used.
    """
    sizes = model_sizes(model)
    name, policy = _policy(choice, load_policies(_folder(model), policies_file).by_name)
    try:
        resolved = resolve_for(name, policy, sizes)
    except PolicyError as error:
        raise CommandError(_misfit(name, sizes, error)) from error
    try:
        segments = parse_prompt(shape.prompt)
        request = make_request(
            segments, shape.generated_tokens, shape.cached_tokens, shape.scored_tokens
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    return compare(sizes, resolved, request)
