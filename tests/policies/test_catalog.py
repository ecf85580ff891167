"""The policies that ship, and what an operator's file may add."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from skipserve_policies.catalog import (
    load_added,
    load_catalog,
    nearest_names,
    policies_text,
)
from skipserve_policies.narrowing import VisualRows
from skipserve_policies.plan import Cell, Ffn, Plan, TokenClass
from skipserve_policies.resolve import PolicyError, PolicyMisfitError, resolve, resolve_for
from skipserve_policies.schema import SkipPolicy
from skipserve_policies.sizes import KNOWN_MODELS

pytestmark = pytest.mark.fast

MEASURED = ("shortv-7b", "opskip-7b-20", "opskip-7b-28")
LATE_HALF = tuple(range(16, 32))
EVERY_THIRD = (18, 21, 24, 27, 30)
SHORTV = (31, 29, 30, 28, 0, 26, 27, 25, 24, 22, 23, 21, 2, 3, 20, 18, 17, 12, 19)
PAIRS = tuple(sorted(block for layer in EVERY_THIRD for block in (layer, layer + 1)))

# What the catalog holds: the scope of each policy and the layers that it touches of 32.
EXPECTED: dict[str, tuple[str | None, dict[str, tuple[int, ...]]]] = {
    "full": (None, {}),
    **{
        name + suffix: (scope, {action: layers})
        for name, action, layers in (
            ("skip-block-every-3-from-16", "skip_block", EVERY_THIRD),
            ("skip-ffn-every-3-from-16", "skip_ffn", EVERY_THIRD),
            ("skip-attention-every-3-from-16", "skip_attention", EVERY_THIRD),
            ("parallel-ffn-attention-every-3-from-16", "parallel_ffn_attention", EVERY_THIRD),
            ("parallel-blocks-every-3-from-16", "parallel_blocks", PAIRS),
            ("skip-block-every-3-from-0", "skip_block", tuple(range(3, 31, 3))),
            ("skip-block-every-2-from-0", "skip_block", tuple(range(2, 31, 2))),
        )
        for suffix, scope in (("", "generated"), ("-all", "all"))
    },
    "visual-freeze-from-16": ("visual", {"skip_block": LATE_HALF}),
    "visual-ffn-skip-from-16": ("visual", {"skip_ffn": LATE_HALF}),
    "visual-attention-skip-from-16": ("visual", {"skip_attention": LATE_HALF}),
    "shortv-7b": ("visual", {"skip_block": tuple(sorted(SHORTV))}),
    "opskip-7b-20": (
        "visual",
        {
            "skip_ffn": (2,),
            "skip_attention": (0, 3, 5, *range(16, 24)),
            "skip_block": tuple(range(24, 32)),
        },
    ),
    "opskip-7b-28": (
        "visual",
        {
            "skip_ffn": (2,),
            "skip_attention": (0, 1, *range(3, 9), 11, 12, 13, *range(16, 24)),
            "skip_block": tuple(range(24, 32)),
        },
    ),
    "exit-after-24": ("all", {"skip_block": tuple(range(25, 32))}),
    "keep-block-every-4-from-16": (
        "all",
        {"skip_block": tuple(layer for layer in LATE_HALF if layer not in (16, 20, 24, 28))},
    ),
    "skip-ffn-from-16-all": ("all", {"skip_ffn": LATE_HALF}),
    "skip-attention-from-16-all": ("all", {"skip_attention": LATE_HALF}),
}


# Those that take rows of images away: how many are left of 576.
REDUCING = {
    **{
        f"{method}-{count}": count
        for method in ("visionzip", "vispruner", "divprune", "random")
        for count in (192, 128, 64)
    },
    "downsample-half": 288,
    "downsample-192": 192,
    "downsample-64": 64,
}

# Those of which rows leave inside the decoder: before which layers of 32, and how many of 576 are
# left then, with 25 rows behind them.
DROPPING = {
    "vtw-half": {16: 0},
    "fastv-2-half": {2: 288},
    "fastv-192": {2: 192},
    "fastv-128": {2: 128},
    "fastv-64": {2: 64},
    "dart-192": {2: 196},
    "dart-128": {2: 132},
    "dart-64": {2: 68},
    "pyramiddrop": {8: 288, 16: 144, 24: 72},
    "sparsevlm-192": {3: 309, 7: 204, 16: 113},
    "sparsevlm-128": {3: 312, 7: 117, 16: 39},
    "sparsevlm-64": {3: 82, 7: 32, 16: 18},
    "random-2-half": {2: 288},
}

RULES = tuple(name for name in EXPECTED if name not in (*MEASURED, "full"))

# Of what runs, and of the table before it is trimmed.
DIGESTS = {
    "full": ("91254c3383e3156d", "4e05b657354cf8c9"),
    "skip-block-every-3-from-16": ("56bbc0e0a634e13a", "35599dd9978cb038"),
    "skip-block-every-3-from-16-all": ("976dfc03a08850e7", "27c7dde1fec56b56"),
    "skip-ffn-every-3-from-16": ("6b67d229fb7eb0a4", "09abc988342b70ba"),
    "skip-ffn-every-3-from-16-all": ("3c3989f11425cfe0", "59948f79ec6aa086"),
    "skip-attention-every-3-from-16": ("ba4702e94d7f2efe", "0a13f6f7d1af2610"),
    "skip-attention-every-3-from-16-all": ("afebd43a1e0958a7", "74282c0330911b21"),
    "parallel-ffn-attention-every-3-from-16": ("8277f4db9163a4fa", "79e2d2a2e3df95e8"),
    "parallel-ffn-attention-every-3-from-16-all": ("29552c8e8f89c322", "802eae1618b52d97"),
    "parallel-blocks-every-3-from-16": ("cd7573e914323fa6", "56f56e019bbc42b7"),
    "parallel-blocks-every-3-from-16-all": ("e4bd3eb9b793fb03", "f9f1361a3efb36ea"),
    "skip-block-every-3-from-0": ("d2b401dbcc6ad79f", "d9e4ad8ab7b1d966"),
    "skip-block-every-3-from-0-all": ("02393e107972a256", "faac2783c9b7a471"),
    "skip-block-every-2-from-0": ("3a76682f04dc8898", "f3b068a97fa37378"),
    "skip-block-every-2-from-0-all": ("fa45e344e4d6b86d", "9c230401417e02b8"),
    "visual-freeze-from-16": ("ccc3726daa1b2851", "7c1d2df7f068425e"),
    "visual-ffn-skip-from-16": ("a1cc0bd50d8ff8c6", "001843033bb874c9"),
    "visual-attention-skip-from-16": ("42788de25afe83b8", "5a23d800084279a7"),
    "shortv-7b": ("3c8c0fb08bcfc12e", "fe091dc6b20ea3c1"),
    "opskip-7b-20": ("53a6676a42b2cd55", "b400a85220eb52fb"),
    "opskip-7b-28": ("b5e10c36aed65f50", "2b34e107173196e3"),
    "exit-after-24": ("f1a1e33019ccfce9", "a6fe2fe1688d3b2f"),
    "keep-block-every-4-from-16": ("0a9029fcf46cc9fe", "05c1b6ff85ecbc8d"),
    "skip-ffn-from-16-all": ("986e4a72ebf24183", "bb09afed76f5104b"),
    "skip-attention-from-16-all": ("bac7a568146edaed", "4a6c99e5574dfbb4"),
}


@pytest.fixture(scope="module")
def catalog() -> dict[str, SkipPolicy]:
    return load_catalog()


def written(folder: Path, text: str) -> Path:
    path = folder / "policies.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> str:
    """Return why a file is refused, without its name, which must lead the message."""
    path = written(folder, text)
    with pytest.raises(PolicyError) as caught:
        load_added(path, load_catalog())
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


# --- what ships


def test_the_catalog_holds_exactly_these(catalog: dict[str, SkipPolicy]) -> None:
    assert set(catalog) == {*EXPECTED, *REDUCING, *DROPPING}
    assert next(iter(catalog)) == "full"


@pytest.mark.parametrize("name", EXPECTED)
def test_scope_and_layers_of_a_shipped_policy(name: str, catalog: dict[str, SkipPolicy]) -> None:
    policy = resolve(name, catalog[name], 32)
    assert (policy.scope, policy.layers) == EXPECTED[name]


@pytest.mark.parametrize("name", REDUCING)
def test_rows_that_a_shipped_policy_leaves(name: str, catalog: dict[str, SkipPolicy]) -> None:
    policy = resolve_for(name, catalog[name], KNOWN_MODELS["llava-1.5-7b"])
    assert policy.reduction is not None
    assert policy.reduction.num_rows == REDUCING[name]
    assert (policy.scope, policy.layers) == (None, {})


@pytest.mark.parametrize("name", DROPPING)
def test_rows_that_leave_under_a_shipped_policy(name: str, catalog: dict[str, SkipPolicy]) -> None:
    policy = resolve_for(name, catalog[name], KNOWN_MODELS["llava-1.5-7b"])
    narrowing = policy.narrowing
    assert narrowing is not None
    left = narrowing.num_left(VisualRows(576, num_images=1, num_behind=25))
    assert dict(zip(policy.layers["drop_visual"], left, strict=True)) == DROPPING[name]
    assert policy.reduction is None


def test_all_shipped_policies_differ(catalog: dict[str, SkipPolicy]) -> None:
    sizes = KNOWN_MODELS["llava-1.5-7b"]
    digests = {name: resolve_for(name, policy, sizes).digest for name, policy in catalog.items()}
    assert len(set(digests.values())) == len(digests)


def test_every_shipped_policy_says_what_it_does(catalog: dict[str, SkipPolicy]) -> None:
    for name, policy in catalog.items():
        assert policy.description.endswith("."), name
        assert policy.source or name == "full" or name.startswith("random-")
        assert all(quality.source for quality in policy.quality)


def test_published_quality(catalog: dict[str, SkipPolicy]) -> None:
    measured = {q.dataset: (q.value, q.full) for q in catalog["shortv-7b"].quality}
    assert measured["mean of 9 benchmarks"] == (97.73, 100)
    assert measured["GQA"] == (60.9, 61.9)
    pruned = {q.dataset: (q.value, q.full) for q in catalog["vispruner-192"].quality}
    assert pruned["POPE"] == (86.0, 85.9)
    published = [name for name, policy in catalog.items() if policy.quality]
    controls = ("random", "downsample")
    removing = [it for it in (*REDUCING, *DROPPING) if not it.startswith(controls)]
    unknown = {"fastv-2-half", "dart-128"}
    assert published == ["shortv-7b", *(it for it in removing if it not in unknown)]


def test_the_norm_of_the_parallel_form_is_the_papers(catalog: dict[str, SkipPolicy]) -> None:
    name = "parallel-ffn-attention-every-3-from-16"
    plan = resolve(name, catalog[name], 32).plan
    assert plan.cell(18, TokenClass.GENERATED) == Cell(ffn=Ffn.PARALLEL_SHARED)


@pytest.mark.parametrize("name", DIGESTS)
def test_what_runs_at_32_layers_never_changes(name: str, catalog: dict[str, SkipPolicy]) -> None:
    """Records, measured qualities and cached pages are known by these digests."""
    policy = resolve(name, catalog[name], 32)
    assert (policy.digest, policy.untrimmed.digest) == DIGESTS[name]


@pytest.mark.parametrize("num_layers", [4, 24, 31, 33, 40])
@pytest.mark.parametrize("name", MEASURED)
def test_layers_that_were_measured_at_32_fit_no_other_depth(
    name: str, num_layers: int, catalog: dict[str, SkipPolicy]
) -> None:
    with pytest.raises(PolicyMisfitError, match=f"32 layers alone.* layers 0 to {num_layers - 1}"):
        resolve(name, catalog[name], num_layers)


@pytest.mark.parametrize(
    ("num_layers", "touched"),
    [
        (24, ((15, 18, 21), range(12, 24), range(19, 24), (13, 14, 15, 17, 18, 19, 21, 22, 23))),
        (
            30,
            (
                (18, 21, 24, 27),
                range(15, 30),
                range(23, 30),
                (15, 17, 18, 19, 21, 22, 23, 25, 26, 27, 29),
            ),
        ),
        (8, ((6,), range(4, 8), range(6, 8), (5, 6, 7))),
    ],
)
def test_the_catalog_at_other_depths(
    num_layers: int, touched: tuple[Iterable[int], ...], catalog: dict[str, SkipPolicy]
) -> None:
    names = (
        "skip-block-every-3-from-16",
        "visual-freeze-from-16",
        "exit-after-24",
        "keep-block-every-4-from-16",
    )
    for name, layers in zip(names, touched, strict=True):
        assert resolve(name, catalog[name], num_layers).layers == {"skip_block": tuple(layers)}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_follows_any_depth(name: str, catalog: dict[str, SkipPolicy]) -> None:
    """From 8 layers on it touches some; what it touches first never comes earlier when deeper."""
    firsts = []
    for num_layers in range(8, 81):
        policy = resolve(name, catalog[name], num_layers)
        (layers,) = policy.layers.values()
        assert 0 < layers[0] <= layers[-1] < num_layers
        assert policy.untrimmed != Plan.full(num_layers)
        firsts.append(layers[0])
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("num_layers", range(1, 8))
def test_at_few_layers_a_rule_touches_some_or_says_that_it_touches_none(
    num_layers: int, catalog: dict[str, SkipPolicy]
) -> None:
    for name in RULES:
        try:
            found = str(any(resolve(name, catalog[name], num_layers).layers.values()))
        except PolicyMisfitError as error:
            found = str(error)
        assert re.search(f"^True$|none of the model's {num_layers} layers", found), name


# --- an operator's file


def test_an_operator_adds_policies(tmp_path: Path, catalog: dict[str, SkipPolicy]) -> None:
    path = written(
        tmp_path,
        """
        ours:
          description: The last block but one.
          rules: [{action: skip_block, layers: [30], scope: answer}]
        also.ours-2: {}
        """,
    )
    loaded = load_added(path, catalog)
    assert list(loaded) == ["ours", "also.ours-2"]
    assert resolve("ours", loaded["ours"], 32).layers == {"skip_block": (30,)}


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}"])
def test_an_empty_file_adds_nothing(
    tmp_path: Path, text: str, catalog: dict[str, SkipPolicy]
) -> None:
    assert load_added(written(tmp_path, text), catalog) == {}


def test_a_shipped_name_is_taken(tmp_path: Path) -> None:
    message = refusal(tmp_path, "shortv-7b: {}\nours: {}\nfull: {}\n")
    taken = "the name is taken by a policy that ships; choose another"
    first, second = message.splitlines()
    assert first == f"policy 'shortv-7b': {taken}"
    assert second.endswith(f"policy 'full': {taken}")


@pytest.mark.parametrize(
    "name", ["demo@full", "Ours", "-ours", ".ours", "o" * 65, "a b", "a_b", "a/b", '""', '"a\\n"']
)
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    assert "cannot name a policy: a name is up to 64" in refusal(tmp_path, f"{name}: {{}}")


@pytest.mark.parametrize("name", ["1", "true", "on", "null", "2026-01-01", "[a]"])
def test_names_that_yaml_does_not_read_as_text(tmp_path: Path, name: str) -> None:
    assert refusal(tmp_path, f"{name}: {{}}")


def test_added_is_reserved(tmp_path: Path) -> None:
    assert "'added' is reserved" in refusal(tmp_path, "added: {}")


def test_policies_are_written_as_they_are_read(
    tmp_path: Path, catalog: dict[str, SkipPolicy]
) -> None:
    odd = {
        "description": "a: b # \U0001f600 \x85\x07\u2028 'quoted' \"twice\" \n",
        "source": "0123",
        "num_layers": 32,
        "quality": [{"model": "m", "dataset": "d", "metric": "a", "value": 1e-20, "n": 3}],
        "rules": [{"action": "reduce_visual", "method": "random", "keep": "1/3", "seed": 0}],
    }
    names = ("1.5", "null", "010", "1e5", "yes", "2026-11-28")
    written = {f"our-{name}": policy for name, policy in catalog.items()}
    written |= dict.fromkeys(names, SkipPolicy.model_validate(odd))
    (tmp_path / "p.yaml").write_text(policies_text(written), "utf-8")
    assert load_added(tmp_path / "p.yaml", catalog) == written


def test_inline_is_reserved(tmp_path: Path) -> None:
    assert "'inline' is reserved" in refusal(tmp_path, "inline: {}")


def test_auto_is_reserved(tmp_path: Path) -> None:
    assert "'auto' is reserved" in refusal(tmp_path, "auto: {}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {rulez: []}", "policy 'a': rulez: this field is not known; is it rules?"),
        ("a: {rule: []}", "policy 'a': rule: this field is not known; is it rules?"),
        ("a:", "policy 'a': this must be a mapping with the fields description, source"),
        ("a: {rules: [{action: skip_block}]}", "rules.0.layers: this field is missing"),
        (
            "a: {rules: [{action: skip_block, layer: [1]}]}",
            "policy 'a': rules.0.layer: this field is not known; is it layers?",
        ),
        (
            "a: {rules: [{action: skip_blok, layers: [1]}]}",
            "policy 'a': rules.0.action: this must be one of skip_block, skip_ffn, skip_attention, "
            "parallel_ffn_attention, parallel_blocks, reduce_visual, drop_visual; is it "
            "skip_block?",
        ),
        (
            "a: {rules: [{action: skip_ffn, layers: {from: 150%, to: 100%}}]}",
            "policy 'a': rules.0.layers.from: a share of the depth lies between 0% and 100%",
        ),
        (
            "a: {rules: [{action: skip_ffn, layers: {from: 0.5, to: 1.0}}]}",
            "rules.0.layers.from: this must be a whole number such as 16, or a share",
        ),
        ('a: {rules: [{action: skip_ffn, layers: "16-31"}]}', "rules.0.layers: layers are a list"),
        (
            "a: {rules: [{action: skip_ffn, layers: {from: 2, to: 1}}]}",
            "policy 'a': rules.0.layers: the range from 2 to 1 holds no layer",
        ),
        ("a: {quality: [{value: .nan}], x: 1}", "quality.0.model: this field is missing; "),
        ("- a\n- b", "must be a mapping from names to policies"),
        ("just text", "must be a mapping from names to policies"),
        ("a: [", "is not valid YAML"),
        ("a: {}\nb: {}\na: {}", "is not valid YAML, line 3: 'a' stands twice"),
        ("a:\n\trules: []", "cannot start any token; indent with spaces, not with tabs"),
        ("a: {rules: [], rules: []}", "'rules' stands twice"),
        ("a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("? {a: 1}\n: {}", "is not valid YAML"),
        ("a: 2026-99-99", "is not valid YAML"),
        ("a: &x [*x]", "policy 'a': this must be a mapping"),
    ],
)
def test_a_faulty_file_is_refused_in_plain_words(tmp_path: Path, text: str, message: str) -> None:
    told = refusal(tmp_path, text)
    assert message in told
    assert "\n" not in told


def test_every_faulty_policy_of_a_file_has_its_line(tmp_path: Path) -> None:
    told = refusal(tmp_path, "a: {rulez: []}\nb: {}\nC: {}\nd: 5\n")
    path = tmp_path / "policies.yaml"
    starts = ["policy 'a': rulez: ", f"{path}: 'C' cannot name", f"{path}: policy 'd': this must"]
    lines = told.splitlines()
    assert len(lines) == 3
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(PolicyError, match="cannot be read"):
            load_added(path, ())
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: {description: \xe9t\xe9}".encode("latin-1"))
    with pytest.raises(PolicyError, match="is not UTF-8 text"):
        load_added(latin, ())


# --- near misses


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("skip-block-every-3-from16", "skip-block-every-3-from-16"),
        ("shortv", "shortv-7b"),
        ("SHORTV-7B", "shortv-7b"),
        ("exit-after-12", "exit-after-24"),
        ("ful", "full"),
    ],
)
def test_nearest_names(name: str, nearest: str) -> None:
    found = nearest_names(name, EXPECTED)
    assert found[0] == nearest
    assert len(found) == 3


@pytest.mark.parametrize("name", ["zzzzzz", "no-such-policy", ""])
def test_there_is_always_a_nearest(name: str) -> None:
    assert len(nearest_names(name, EXPECTED)) == 3
    assert nearest_names(name, ["full"]) == ["full"]
