"""Tests of the policies that requests can ask for."""

from dataclasses import replace

import pytest

from skipserve.asking.policies import PolicyRegistry
from skipserve.errors import NotFoundError, PolicyFitError
from skipserve_policies.catalog import load_catalog
from skipserve_policies.schema import SkipPolicy
from skipserve_policies.sizes import KNOWN_MODELS

pytestmark = pytest.mark.fast

LISTING = "the page of all policies"
OF_32_LAYERS = KNOWN_MODELS["llava-1.5-7b"]
OF_4_LAYERS = replace(OF_32_LAYERS, decoder=replace(OF_32_LAYERS.decoder, num_layers=4))


def inline(layer: int) -> SkipPolicy:
    return SkipPolicy.model_validate({"rules": [{"action": "skip_ffn", "layers": [layer]}]})


def test_the_catalog_fits_32_layers() -> None:
    catalog = load_catalog()
    policies = PolicyRegistry(catalog, OF_32_LAYERS, LISTING)
    assert list(policies.resolved) == list(catalog)
    assert not policies.misfits
    assert policies.find("full").layers == {}


def test_what_does_not_fit_is_told_apart_from_what_is_not_there() -> None:
    policies = PolicyRegistry(load_catalog(), OF_4_LAYERS, LISTING)
    assert "full" in policies.resolved
    with pytest.raises(PolicyFitError, match="for models with 32 layers alone") as misfit:
        policies.find("shortv-7b")
    with pytest.raises(NotFoundError) as missing:
        policies.find("exit-after-25")
    assert {misfit.value.param, missing.value.param} == {"skip_policy"}
    assert missing.value.message.endswith(f"; {LISTING} lists them all")


def test_a_long_name_is_not_repeated_in_full() -> None:
    with pytest.raises(NotFoundError) as caught:
        PolicyRegistry(load_catalog(), OF_32_LAYERS, LISTING).find("x" * 100_000)
    assert len(caught.value.message) < 500


def test_inline_policies_are_remembered_up_to_a_bound() -> None:
    policies = PolicyRegistry({}, OF_4_LAYERS, LISTING)
    variants = [SkipPolicy(description=str(index)) for index in range(300)]
    first = policies.resolve_inline(variants[0])
    assert policies.resolve_inline(SkipPolicy(description="0")) is first
    for variant in variants:
        policies.resolve_inline(variant)
    assert policies.resolve_inline(variants[0]) is not first


def test_inline_policies_share_nothing_but_the_name() -> None:
    policies = PolicyRegistry({}, OF_32_LAYERS, LISTING)
    first, second = policies.resolve_inline(inline(1)), policies.resolve_inline(inline(2))
    assert (first.name, second.name) == ("inline", "inline")
    assert first.digest != second.digest
