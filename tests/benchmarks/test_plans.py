"""The policies that the benchmarks name fit the models that they time."""

import pytest
from plans import FOUR_POLICIES, fitting_policies, plan_of, policies_for

from skipserve_policies.catalog import load_catalog
from skipserve_policies.plan import TokenClass
from skipserve_policies.sizes import KNOWN_MODELS

pytestmark = pytest.mark.fast


def test_the_four_policies_do_four_different_things_for_generated_rows() -> None:
    columns = {plan_of(policy, 32).column_digest(TokenClass.GENERATED) for policy in FOUR_POLICIES}
    assert len(columns) == 4


def test_the_full_model_runs_every_layer_of_the_four_policies() -> None:
    full = plan_of(FOUR_POLICIES[0], 32).sublayers[TokenClass.GENERATED]
    for policy in FOUR_POLICIES[1:]:
        found = plan_of(policy, 32).sublayers[TokenClass.GENERATED]
        assert (found.attention, found.kv, found.ffn) <= (full.attention, full.kv, full.ffn)


def test_policies_for_another_depth_are_left_out() -> None:
    shallow, deep = fitting_policies(20), fitting_policies(32)
    assert "shortv-7b" in set(deep) - set(shallow)
    assert "full" in shallow


def test_a_model_runs_what_takes_rows_away_too() -> None:
    assert policies_for(KNOWN_MODELS["llava-1.5-7b"]) == list(load_catalog())
    assert "fastv-2-half" not in fitting_policies(32)
