"""The policies beside one model: whose they are, what a model runs by default, what is refused."""

from pathlib import Path

import pytest

from skipserve_policies.catalog import load_catalog
from skipserve_policies.named import POLICIES_FILE, load_policies, model_file_text
from skipserve_policies.resolve import PolicyError, resolve
from skipserve_policies.schema import SkipPolicy

pytestmark = pytest.mark.fast

HALF = """
default: half
policies:
  half:
    rules:
      - {action: skip_block, layers: {start: 0, interval: 2}, scope: all}
  other: {}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def refusal(folder: Path, text: str) -> str:
    """Return why a model's file is refused, in one line that begins with the file's name."""
    (folder / POLICIES_FILE).write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_policies(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / POLICIES_FILE}: ")
    return message.removeprefix(f"{folder / POLICIES_FILE}: ")


def test_without_files_there_is_what_ships_and_full_is_the_default(folder: Path) -> None:
    for named in (load_policies(), load_policies(folder)):
        assert named.by_name == load_catalog()
        assert (named.default, named.of_model, named.of_operator) == ("full", {}, {})


def test_a_model_brings_policies_and_its_default(folder: Path, tmp_path: Path) -> None:
    (folder / POLICIES_FILE).write_text(HALF)
    (tmp_path / "ours.yaml").write_text("ours: {}\n")
    named = load_policies(folder, tmp_path / "ours.yaml")
    assert named.default == "half"
    assert (list(named.of_model), list(named.of_operator)) == (["half", "other"], ["ours"])
    assert list(named.by_name) == [*load_catalog(), "half", "other", "ours"]
    layers = resolve("half", named.by_name["half"], 30).layers
    assert layers == {"skip_block": tuple(range(2, 29, 2))}


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}", "policies:\n", "default: full\n"])
def test_a_file_may_say_next_to_nothing(folder: Path, text: str) -> None:
    (folder / POLICIES_FILE).write_text(text)
    named = load_policies(folder)
    assert (named.default, named.of_model) == ("full", {})


def test_a_default_may_be_a_policy_that_ships(folder: Path) -> None:
    (folder / POLICIES_FILE).write_text("default: visual-freeze-from-16\n")
    assert load_policies(folder).default == "visual-freeze-from-16"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("default: halve\npolicies: {half: {}}", "default: there is no skip policy 'halve' that"),
        ("default: visual-freeze", "the nearest are visual-freeze-from-16, "),
        ("default: ''", "default: there is no skip policy ''"),
        ("default: 5", "default: this must be a text"),
        ("default: [half]", "default: this must be a text"),
        ("defaults: full", "defaults: this field is not known; is it default?"),
        ("half: {rules: []}", "half: this field is not known"),
        ("just text", "this must be a mapping with the fields default, policies"),
        ("- half", "this must be a mapping with the fields default, policies"),
        ("policies: [half]", "policies: must be a mapping from names to policies"),
        ("policies: {half: {rulez: []}}", "policies: policy 'half': rulez: this field is not"),
        ("policies: {full: {}}", "policies: policy 'full': the name is taken by a policy that"),
        ("policies: {Half: {}}", "policies: 'Half' cannot name a policy"),
        ("policies: {inline: {}}", "policies: 'inline' is reserved"),
        ("default: full\ndefault: full", "is not valid YAML, line 2: 'default' stands twice"),
        ("default: [", "is not valid YAML"),
    ],
)
def test_a_fault_names_file_and_field(folder: Path, text: str, message: str) -> None:
    assert message in refusal(folder, text)


def test_every_faulty_policy_has_its_line(folder: Path) -> None:
    (folder / POLICIES_FILE).write_text("policies: {a: {rulez: []}, b: {}, c: 5}")
    with pytest.raises(PolicyError) as caught:
        load_policies(folder)
    starts = [f"{folder / POLICIES_FILE}: policies: policy '{name}': " for name in "ac"]
    for line, start in zip(str(caught.value).splitlines(), starts, strict=True):
        assert line.startswith(start)


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    (folder / POLICIES_FILE).mkdir()
    with pytest.raises(PolicyError, match=rf"{POLICIES_FILE}: cannot be read: Is a directory"):
        load_policies(folder)


def test_an_operator_takes_no_name_of_the_models(folder: Path, tmp_path: Path) -> None:
    (folder / POLICIES_FILE).write_text(HALF)
    ours = tmp_path / "ours.yaml"
    ours.write_text("half: {}\n")
    with pytest.raises(PolicyError) as caught:
        load_policies(folder, ours)
    assert str(caught.value) == (
        f"{ours}: policy 'half': the name is taken by a policy that ships, or of {POLICIES_FILE} "
        "of the model; choose another"
    )


def test_what_is_written_is_read(folder: Path) -> None:
    rules = [{"action": "skip_block", "layers": {"start": 0, "interval": 2}, "scope": "all"}]
    policy = SkipPolicy.model_validate({"description": "Half: 'it'.", "rules": rules})
    (folder / POLICIES_FILE).write_text(model_file_text("half", {"half": policy}))
    named = load_policies(folder)
    assert (named.default, named.of_model) == ("half", {"half": policy})
    assert model_file_text("full", {}) == "default: full\n"
