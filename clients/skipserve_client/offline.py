"""What can be said about a model and its skip policies without a server or the model's weights."""

import json
from importlib.util import find_spec
from pathlib import Path

from skipserve_client.command_group import CommandError
from skipserve_client.replies import PolicyInfo
from skipserve_policies.catalog import load_catalog, nearest_names
from skipserve_policies.cost import (
    PolicyCost,
    Saving,
    compare,
    make_request,
    parse_prompt,
    saving,
    standard_request,
)
from skipserve_policies.quality import load_measured
from skipserve_policies.resolve import PolicyError, ResolvedPolicy, resolve
from skipserve_policies.schema import Quality
from skipserve_policies.sizes import KNOWN_MODELS, ModelSizes

DEMO = "demo"


def model_sizes(model: str) -> ModelSizes:
    """Return the sizes of a published model, of the demo model, or of a folder with a config.json.

    Raises:
        CommandError: there is no such model.
    """
    if model in KNOWN_MODELS:
        return KNOWN_MODELS[model]
    file = _demo_folder() if model == DEMO else Path(model)
    if file.is_dir():
        file /= "config.json"
    try:
        return ModelSizes.from_config(json.loads(file.read_text()))
    except OSError as error:
        known = ", ".join([*KNOWN_MODELS, DEMO])
        raise CommandError(
            f"no model {model!r}: give {known}, or a folder that holds a config.json"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(f"{file} is not the configuration of a LLaVA model: {error}") from error


def _demo_folder() -> Path:
    """Find the demo model's folder in the server's package, without importing that."""
    spec = find_spec("skipserve")
    if spec is None or spec.origin is None:
        raise CommandError("the demo model comes with the server: pip install 'skipserve[server]'")
    return Path(spec.origin).parent / DEMO


def offline_policies(
    model: str, policies_file: Path | None
) -> tuple[tuple[PolicyInfo, ...], dict[str, str]]:
    """Return the catalog's policies that fit a model, and the others with the reason.

    Raises:
        CommandError: there is no such model.
        PolicyError: the file of policies, or that of measured quality, cannot be used.
    """
    sizes, measured = model_sizes(model), _measured(model)
    request = standard_request(sizes)
    fitting: list[PolicyInfo] = []
    misfits: dict[str, str] = {}
    for name, policy in load_catalog(policies_file).items():
        try:
            resolved = resolve(name, policy, sizes.decoder.num_layers)
        except PolicyError as error:
            misfits[name] = str(error)
            continue
        saved = saving(sizes, resolved.plan, request)
        fitting.append(_policy_info(resolved, saved, measured.get(resolved.digest, ())))
    return tuple(fitting), misfits


def _measured(model: str) -> dict[str, tuple[Quality, ...]]:
    """Return what was measured on a model whose files are at hand."""
    if model in KNOWN_MODELS:
        return {}
    folder = _demo_folder() if model == DEMO else Path(model).resolve()
    return load_measured(folder, folder.name)


def _policy_info(
    resolved: ResolvedPolicy, saved: Saving, measured: tuple[Quality, ...]
) -> PolicyInfo:
    return PolicyInfo(
        name=resolved.name,
        description=resolved.policy.description,
        source=resolved.policy.source,
        digest=resolved.digest,
        layers=resolved.layers,
        scope=resolved.scope,
        saved_ratio=saved.saved_ratio,
        quality=(*measured, *resolved.policy.quality),
    )


def request_cost(
    sizes: ModelSizes, policy: str, prompt: str, num_generated: int, policies_file: Path | None
) -> PolicyCost:
    """Count what a request costs under a named policy and under the full model.

    Args:
        sizes: the model.
        policy: a name of the catalog or of the file.
        prompt: such as "35+576+25": tokens of text and of pictures in turn, text first.
        num_generated: tokens that are answered.
        policies_file: adds policies to the catalog.

    Raises:
        CommandError: there is no such policy, it does not fit, or the prompt is in no such form.
        PolicyError: the file cannot be used.
    """
    catalog = load_catalog(policies_file)
    if policy not in catalog:
        nearest = ", ".join(nearest_names(policy, catalog))
        raise CommandError(
            f"there is no skip policy {policy!r}; the nearest are {nearest}; "
            "`skipserve policies` lists them all"
        )
    try:
        resolved = resolve(policy, catalog[policy], sizes.decoder.num_layers)
    except PolicyError as error:
        raise CommandError(
            f"{policy} does not fit {sizes.decoder.num_layers} layers: {error}"
        ) from error
    try:
        segments = parse_prompt(prompt)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return compare(sizes, resolved, make_request(segments, num_generated))
