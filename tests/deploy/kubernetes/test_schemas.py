"""Every manifest fits the published schema of its kind, with no field that the schema lacks."""

from typing import Any

import pytest
from installation import ALL, INSTALLATIONS, Manifest, render
from kubernetes_validate import validate  # type: ignore[import-untyped]
from pydantic import BaseModel

# The oldest that has `preStop.sleep` without a feature gate, and a recent one.
_VERSIONS = ("1.30", "1.37")


@pytest.mark.parametrize("version", _VERSIONS)
@pytest.mark.parametrize("folder", ALL)
def test_kubernetes_own_kinds_fit_their_schema(folder: str, version: str) -> None:
    own = [manifest for manifest in render(folder) if not _is_custom(manifest)]

    assert own
    for manifest in own:
        validate(manifest, version, strict=True)


@pytest.mark.parametrize("folder", ALL)
def test_custom_kinds_fit_the_models_of_their_operators(folder: str) -> None:
    # Here and not above: the import takes seconds.
    from cloudcoil.models.keda.v1alpha1 import ScaledObject  # noqa: PLC0415
    from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor  # noqa: PLC0415

    models: dict[str, type[BaseModel]] = {
        "ScaledObject": ScaledObject,
        "ServiceMonitor": ServiceMonitor,
    }
    custom = [manifest for manifest in render(folder) if _is_custom(manifest)]

    expected = set(models) if folder in INSTALLATIONS else set()
    assert {manifest["kind"] for manifest in custom} == expected
    for manifest in custom:
        model = models[manifest["kind"]]
        assert _known(model, manifest) == manifest
        mistaken = manifest | {"spec": manifest["spec"] | {"selectors": {}}}
        assert _known(model, mistaken) != mistaken


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "template", "spec", "terminationGracePeriodSecond"), 1),
        ("Deployment", ("spec", "strategy", "rollingUpdate", "maxSurge"), [1]),
        ("PodDisruptionBudget", ("spec", "minAvailables"), 1),
    ],
)
def test_a_mistake_is_found(kind: str, path: tuple[str, ...], value: object) -> None:
    (found,) = (it for it in render("gpu") if it["kind"] == kind)
    wrong = _with(found, path, value)

    with pytest.raises(Exception, match=path[-1]):
        validate(wrong, _VERSIONS[-1], strict=True)


def _known(model: type[BaseModel], manifest: Manifest) -> Manifest:
    """Return what the model keeps of a manifest: it drops what it does not know.

    Raises:
        ValidationError: a value is of the wrong type, or a field is missing.
    """
    return model.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True)


def _is_custom(manifest: Manifest) -> bool:
    """Return whether the kind is an operator's: its group has a domain that is not Kubernetes'."""
    group = manifest["apiVersion"].partition("/")[0]
    return "." in group and not group.endswith(".k8s.io")


def _with(manifest: Any, path: tuple[str, ...], value: object) -> Any:
    """Return a copy with one value put in."""
    head, *rest = path
    inner = _with(manifest[head], tuple(rest), value) if rest else value
    return manifest | {head: inner}
