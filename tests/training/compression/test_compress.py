"""What is zeroed in a language model, against transformers' own forward and loops over weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_language import make_llama, make_opt
from torch import Tensor, nn
from transformers import PreTrainedModel

from skipserve_training.compression.calibration import Calibration, draw_calibration
from skipserve_training.compression.compress import compress
from skipserve_training.compression.mask_files import Masks, write_masks
from skipserve_training.compression.recipe import (
    CompressionRecipe,
    Group,
    Method,
    Part,
    Pattern,
    Share,
)
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.packing import Example, pack
from skipserve_training.mapping.served import open_model
from skipserve_training.mapping.sources import read_source

pytestmark = pytest.mark.fast

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": make_llama,
    "opt": make_opt,
    "opt-350m": lambda: make_opt(word_embed_proj_dim=16, do_layer_norm_before=False),
}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj")
FFN = ("gate_proj", "up_proj", "down_proj", "fc1", "fc2")
PARTS = {Part.ALL: ATTENTION + FFN, Part.FFN: FFN, Part.ATTENTION: ATTENTION}


def _calibration(name: str, language: FrozenLanguageModel, *prompts: Sequence[int]) -> Calibration:
    """Make a calibration of two questions to each prompt's beginning."""
    batches = [
        pack([[Example((*prompt, 9), (8, 7, 1), 0), Example((*prompt, 5, 6), (11, 1), 0)]])
        for prompt in prompts
    ]
    return Calibration(name, [language.embed(batch.ids) for batch in batches], batches)


def _answers(language: FrozenLanguageModel) -> Calibration:
    return _calibration("answers", language, (3, 4), (12, 13, 14))


def _captions(language: FrozenLanguageModel) -> Calibration:
    return _calibration("captions", language, (20, 30, 40, 50), (60,))


def _linears(model: PreTrainedModel, part: Part) -> dict[str, nn.Linear]:
    """Find the layers by transformers' names, as the masks call them."""
    return {
        f"language_model.{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in PARTS[part]
    }


def _recipe(method: Method, pattern: Pattern | None, part: Part = Part.ALL) -> CompressionRecipe:
    return CompressionRecipe(method, pattern, part)


def _inputs(model: Any, calibration: Calibration) -> dict[str, NDArray[np.float64]]:
    """Run transformers' own forward, and return what each linear layer is fed, [N, I]."""
    seen: dict[str, list[Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, args, name=name: seen.setdefault(name, []).append(args[0].flatten(0, -2))
        )
        for name, module in _linears(model, Part.ALL).items()
    ]
    for rows, batch in zip(calibration.rows, calibration.batches, strict=True):
        mask = torch.zeros(batch.allowed.shape).masked_fill(~batch.allowed, -1e9)[:, None]
        with torch.no_grad():
            model.base_model(inputs_embeds=rows, attention_mask=mask, position_ids=batch.positions)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(some).double().numpy() for name, some in seen.items()}


def _layer_of(name: str) -> int:
    return int(name.split(".layers.")[1].split(".", maxsplit=1)[0])


def _wanda_by_loops(
    model: PreTrainedModel, calibration: Calibration, part: Part, zeroed: Callable[[int], int]
) -> Masks:
    """Prune layer by layer, and run the whole model anew for each."""
    masks: Masks = {}
    for layer in range(2):
        fed = _inputs(model, calibration)
        for name, linear in _linears(model, part).items():
            if _layer_of(name) != layer:
                continue
            weight = linear.weight.detach().numpy()
            kept = np.ones(weight.shape, dtype=bool)
            for row in range(len(weight)):
                scores = [
                    abs(float(weight[row, column])) * np.linalg.norm(fed[name][:, column])
                    for column in range(weight.shape[1])
                ]
                for column in sorted(range(len(scores)), key=scores.__getitem__)[
                    : zeroed(len(scores))
                ]:
                    kept[row, column] = False
            masks[name] = torch.from_numpy(kept)
        for name, mask in masks.items():
            _linears(model, part)[name].weight.data *= mask
    return masks


@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize("name", MODELS)
def test_wanda_is_what_loops_find(name: str, part: Part) -> None:
    model, reference = MODELS[name](), MODELS[name]()
    language = FrozenLanguageModel(model)
    calibration = _answers(language)
    masks, report = compress(language, _recipe(Method.WANDA, Share(0.5), part), [calibration])
    FrozenLanguageModel(reference)  # the same attention
    expected = _wanda_by_loops(reference, calibration, part, lambda count: count // 2)
    assert masks.keys() == expected.keys() == _linears(model, part).keys()
    for weight_name, mask in masks.items():
        assert torch.equal(mask, expected[weight_name]), weight_name
    for (key, value), other in zip(
        model.state_dict().items(), reference.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), key
    assert report.removed * 2 == report.considered == report.zeros * 2
    assert report.least == report.most == 0.5
    assert report.tokens == {"answers": calibration.num_tokens}


def test_later_layers_are_fed_by_pruned_ones() -> None:
    """The second layer's masks are others where the first one's weights all stay."""
    language, untouched = FrozenLanguageModel(make_llama()), make_llama()
    masks, _ = compress(language, _recipe(Method.WANDA, Share(0.7)), [_answers(language)])
    fed = _inputs(untouched, _answers(FrozenLanguageModel(untouched)))
    differing = set()
    for name, linear in _linears(untouched, Part.ALL).items():
        scores = linear.weight.abs().numpy() * np.linalg.norm(fed[name], axis=0)
        count = round(0.7 * scores.shape[1])
        kept = np.argsort(np.argsort(scores, axis=1), axis=1) >= count
        if not np.array_equal(kept, masks[name].numpy()):
            differing.add(_layer_of(name))
    assert differing == {1}


@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize("pattern", [Share(0.3), Share(0.5), Group(2, 4), Group(4, 8)], ids=str)
@pytest.mark.parametrize("method", [Method.WANDA, Method.MAGNITUDE, Method.RANDOM])
def test_counts_are_exact(method: Method, pattern: Pattern, part: Part) -> None:
    model, before = make_llama(), make_llama()
    language = FrozenLanguageModel(model)
    calibrations = [_answers(language)] if method is Method.WANDA else []
    masks, report = compress(language, _recipe(method, pattern, part), calibrations)
    old = before.state_dict()
    touched = _linears(model, part)
    assert masks.keys() == touched.keys()
    for name, linear in touched.items():
        zeros = linear.weight == 0
        assert torch.equal(zeros, ~masks[name])
        original = old[name.removeprefix("language_model.")]
        assert torch.equal(linear.weight[~zeros], original[~zeros])
        outputs, inputs = linear.weight.shape
        if isinstance(pattern, Group):
            assert (zeros.view(-1, pattern.size).sum(1) == pattern.size - pattern.kept).all()
        elif method is Method.WANDA:
            assert (zeros.sum(1) == round(pattern.sparsity * inputs)).all()
        else:
            assert zeros.sum() == round(pattern.sparsity * outputs * inputs)
    for name, value in model.state_dict().items():
        if f"language_model.{name}" not in touched:
            assert torch.equal(value, old[name]), name
    assert report.removed == sum(int((~mask).sum()) for mask in masks.values())
    assert report.parameters == sum(weight.numel() for weight in before.parameters())


def test_magnitude_takes_the_smallest_of_a_matrix() -> None:
    language, before = FrozenLanguageModel(make_llama()), make_llama()
    masks, _ = compress(language, _recipe(Method.MAGNITUDE, Share(0.4)))
    for name, linear in _linears(before, Part.ALL).items():
        sizes = linear.weight.abs()
        assert sizes[masks[name]].min() >= sizes[~masks[name]].max()


def test_a_seed_draws_what_goes() -> None:
    def draw(seed: int) -> Masks:
        recipe = CompressionRecipe(Method.RANDOM, Share(0.5), Part.FFN, seed)
        return compress(FrozenLanguageModel(make_llama()), recipe)[0]

    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_alpha_subnet_keeps_what_every_task_keeps() -> None:
    model = make_llama()
    language = FrozenLanguageModel(model)
    tasks = [_answers(language), _captions(language)]
    masks, report = compress(language, _recipe(Method.ALPHA_SUBNET, Share(0.5)), tasks)
    alone = []
    for task in tasks:
        fresh = FrozenLanguageModel(make_llama())
        alone.append(compress(fresh, _recipe(Method.WANDA, Share(0.5)), [task])[0])
    old = make_llama().state_dict()
    for name, linear in _linears(model, Part.ALL).items():
        expected = torch.from_numpy(alone[0][name].numpy() * alone[1][name].numpy())
        assert torch.equal(masks[name], expected)
        original = old[name.removeprefix("language_model.")]
        assert torch.equal(linear.weight, original * expected)
    assert 0.5 < report.sparsity < 0.75
    assert report.tokens == {task.name: task.num_tokens for task in tasks}


def test_a_file_tells_what_stays(tmp_path: Path) -> None:
    model = make_llama()
    name, linear = next(iter(_linears(model, Part.FFN).items()))
    mask = torch.rand(linear.weight.shape) > 0.5
    write_masks({name: mask}, tmp_path / "masks.safetensors")
    _, report = compress(
        FrozenLanguageModel(model),
        _recipe(Method.MASK, None, Part.FFN),
        mask_file=tmp_path / "masks.safetensors",
    )
    assert torch.equal(linear.weight == 0, ~mask)
    assert report.zeros == report.removed == int((~mask).sum())
    assert report.least == 0.0


def test_a_mask_of_the_other_half_is_refused(tmp_path: Path) -> None:
    name, linear = next(iter(_linears(make_llama(), Part.ATTENTION).items()))
    write_masks(
        {name: torch.ones_like(linear.weight, dtype=torch.bool)}, tmp_path / "m.safetensors"
    )
    with pytest.raises(ValueError, match=f"{name} is no weight that can be zeroed"):
        compress(
            FrozenLanguageModel(make_llama()),
            _recipe(Method.MASK, None, Part.FFN),
            mask_file=tmp_path / "m.safetensors",
        )


@pytest.mark.parametrize(
    ("method", "tasks", "said"),
    [
        (Method.WANDA, 0, "'wanda' takes one calibration, and was given 0"),
        (Method.WANDA, 2, "'wanda' takes one calibration, and was given 2"),
        (Method.ALPHA_SUBNET, 1, "'alpha-subnet' takes two tasks or more, and was given 1"),
        (Method.RANDOM, 1, "'random' takes none, and was given 1"),
    ],
)
def test_methods_take_so_many_calibrations(method: Method, tasks: int, said: str) -> None:
    language = FrozenLanguageModel(make_llama())
    given = [_answers(language), _captions(language)][:tasks]
    with pytest.raises(ValueError, match=said):
        compress(language, _recipe(method, Share(0.5)), given)


def test_tasks_have_names_of_their_own() -> None:
    language = FrozenLanguageModel(make_llama())
    with pytest.raises(ValueError, match="two tasks have one name, of answers, answers"):
        compress(language, _recipe(Method.ALPHA_SUBNET, Share(0.5)), [_answers(language)] * 2)


def test_masks_come_with_their_method_alone(tmp_path: Path) -> None:
    language = FrozenLanguageModel(make_llama())
    with pytest.raises(ValueError, match="mask_file: the method 'random' takes none"):
        compress(language, _recipe(Method.RANDOM, Share(0.5)), mask_file=tmp_path)
    with pytest.raises(ValueError, match="mask_file: the method 'mask' needs one"):
        compress(language, _recipe(Method.MASK, None))


class StoppedError(Exception):
    """Someone interrupted the compression."""


@pytest.mark.parametrize("method", [Method.WANDA, Method.ALPHA_SUBNET])
def test_an_interrupted_compression_goes_on(method: Method, tmp_path: Path) -> None:
    def tasks(language: FrozenLanguageModel) -> list[Calibration]:
        made = [_answers(language), _captions(language)]
        return made[:1] if method is Method.WANDA else made

    def stop(task: str, done: int, total: int) -> None:
        if done == 1 and task == made[-1].name:
            raise StoppedError

    recipe = _recipe(method, Share(0.5))
    whole = FrozenLanguageModel(make_llama())
    expected, _ = compress(whole, recipe, tasks(whole))
    language = FrozenLanguageModel(make_llama())
    made = tasks(language)
    with pytest.raises(StoppedError):
        compress(language, recipe, made, folder=tmp_path, progress=stop)
    assert (tmp_path / made[-1].name / "layer-000.safetensors").is_file()
    written = (tmp_path / made[-1].name / "layer-000.safetensors").stat().st_mtime_ns
    resumed = FrozenLanguageModel(make_llama())
    masks, _ = compress(resumed, recipe, tasks(resumed), folder=tmp_path)
    assert all(torch.equal(masks[name], expected[name]) for name in expected)
    assert (tmp_path / made[-1].name / "layer-000.safetensors").stat().st_mtime_ns == written


def test_a_calibration_is_drawn_by_its_seed(served_folder: Path, easy_folder: Path) -> None:
    model = open_model(served_folder, torch.float32, torch.device("cpu"))
    lessons = read_source(f"easy-vqa:{easy_folder}")

    def draw(seed: int, media: int = 3) -> Calibration:
        return draw_calibration("answers", model, lessons, media, seed)

    first, again, other = draw(1), draw(1), draw(2)
    assert len(first.rows) == 3
    assert first.num_tokens == sum(batch.ids.shape[1] for batch in first.batches)
    assert all(map(torch.equal, first.rows, again.rows))
    assert any(
        one.shape != two.shape or not torch.equal(one, two)
        for one, two in zip(first.rows, other.rows, strict=True)
    )
    for media in (0, 9):
        with pytest.raises(ValueError, match=f"media is {media}: the task 'answers' has 8"):
            draw(1, media)
