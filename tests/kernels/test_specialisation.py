"""No launch compiles in the middle of traffic: row counts and alignment are no part of binaries."""

import pytest
from specialised_kernels import find_new_binaries

pytestmark = pytest.mark.kernels


def test_traffic_needs_no_binary_that_a_warm_up_did_not() -> None:
    assert find_new_binaries("any rows") == []


def test_an_engine_compiles_all_it_needs_when_it_starts() -> None:
    assert find_new_binaries("an engine") == []


def test_another_model_needs_other_binaries() -> None:
    new = find_new_binaries("another model")
    kernels = {"_norm_row", "_project", "_decode", "_prefill", "_score", "_mean"}
    assert {binary.kernel for binary in new} == kernels
    [decode, *_] = [binary for binary in new if binary.kernel == "_decode"]
    assert decode.differences["NUM_KV_HEADS"] == ("constexpr 32", "constexpr 40")
