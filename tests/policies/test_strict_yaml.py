"""Tests of reading YAML that people write."""

import pytest

from skipserve_policies.strict_yaml import YamlTextError, load_yaml

pytestmark = pytest.mark.fast


def test_plain_yaml() -> None:
    assert load_yaml("a: [1, {b: c}]\n") == {"a": [1, {"b": "c"}]}
    assert load_yaml("") is None
    assert load_yaml("[0, 7, -12, +3, 010.5, '010', 08]") == [0, 7, -12, 3, 10.5, "010", "08"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3", "is not valid YAML, line 3: 'a' stands twice"),
        ("a: [{b: 1, b: 2}]", "is not valid YAML, line 1: 'b' stands twice"),
        (
            "a:\n\tb: 1",
            "is not valid YAML, line 2: found character '\\t' that cannot start any token; "
            "indent with spaces, not with tabs",
        ),
        ("a: [", "is not valid YAML, line 1: expected the node content, but found '<stream end>'"),
        *(
            (f"a:\n- {number}", f"is not valid YAML, line 2: {number} is no plain decimal number")
            for number in ("010", "0x1F", "0b11", "1_000", "1:30", "-07")
        ),
        ("a: 2026-99-99", "is not valid YAML: month must be in 1..12"),
        ("a: \x00", "is not valid YAML: unacceptable character #x0000: special characters"),
        ("[" * 5000, "is not valid YAML: "),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(text: str, told: str) -> None:
    with pytest.raises(YamlTextError) as caught:
        load_yaml(text)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)
