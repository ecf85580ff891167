"""What one block launches and moves: the parallel form less than the serial one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from row_sets import indexes_of
from torch import Tensor
from triton_interpreter import traffic

from skipserve.model.batch import KvGroup, Segment
from skipserve.model.block_weights import BlockWeights
from skipserve.model.fused import block as block_module
from skipserve.model.fused.block import BlockContext, FusedBlock
from skipserve.model.fused.rows import prepare_rows
from skipserve.model.work import GatedWork, RowWork, Work
from skipserve_kernels.fused.launch import Scratch
from skipserve_kernels.key_values import KeyValues
from skipserve_kernels.projection import Projection

pytestmark = pytest.mark.kernels

# Wide enough for both serial output projections to be split, as at real sizes.
HEADS, HEAD_SIZE, FFN = 8, 16, 144
HIDDEN = HEADS * HEAD_SIZE
NUM_ROWS = 3
PAGE_SIZE = 4
LAUNCHERS = (
    "norm_rows",
    "input_projection",
    "paged_decode",
    "paged_prefill",
    "output_projection",
)
ATTENTION = Work.ATTENTION | Work.KV
SERIAL = Work.FFN | Work.SERIAL
PARALLEL = Work.FFN | Work.PARALLEL
SHARED = Work.FFN | Work.PARALLEL_SHARED


class Rig:
    """A block whose launches are counted, each on its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        generator = torch.Generator().manual_seed(0)

        def linear(num_outputs: int, num_inputs: int) -> Projection:
            return Projection(torch.randn(num_outputs, num_inputs, generator=generator) / 8)

        plain = BlockWeights(
            attention_gain=torch.ones(HIDDEN),
            query=linear(HIDDEN, HIDDEN),
            key=linear(HIDDEN, HIDDEN),
            value=linear(HIDDEN, HIDDEN),
            output=linear(HIDDEN, HIDDEN),
            ffn_gain=torch.ones(HIDDEN),
            gate=linear(FFN, HIDDEN),
            up=linear(FFN, HIDDEN),
            down=linear(HIDDEN, FFN),
            epsilon=1e-5,
            head_size=HEAD_SIZE,
        )
        self.block = FusedBlock.pack(plain)
        self.context = BlockContext(
            factors=torch.randn(8, 2, HEAD_SIZE // 2, generator=generator),
            scratch=Scratch.empty(8192, 64, torch.device("cpu")),
            page_size=PAGE_SIZE,
        )
        self.cache = KeyValues(*torch.zeros(2, NUM_ROWS * PAGE_SIZE, HEADS, HEAD_SIZE).clone())
        self.hidden = torch.randn(NUM_ROWS, HIDDEN, generator=generator)
        self.launches: list[str] = []
        self.bytes_moved = 0
        self.weight_bytes = 0
        self._rooms = torch.empty(20_000)
        self._room_used = 0
        monkeypatch.setattr(FusedBlock, "_room", lambda _, *args: self._room(*args))
        for name in LAUNCHERS:
            launcher = getattr(block_module, name)
            monkeypatch.setattr(block_module, name, self._counted(name, launcher))

    def run(self, *work: Work) -> None:
        """Run the block on three sequences of one row each; of one that is given, on all alike."""
        bits = np.array([work * (NUM_ROWS // len(work))], dtype=np.uint8)
        self._run(RowWork.of(bits))

    def run_gated(self, *work: Work) -> None:
        """Run the block on them as a captured graph does."""
        self._run(GatedWork(torch.tensor([work])))

    def _run(self, work: RowWork | GatedWork) -> None:
        numbers = np.arange(NUM_ROWS + 1)
        tables = indexes_of(np.arange(NUM_ROWS).reshape(-1, 1))
        positions = torch.tensor([0, 1, 2])
        group = KvGroup(
            tables,
            slots=torch.tensor([0, 5, 10]),
            places=positions,
            positions=positions,
            num_cached=numbers[:NUM_ROWS],
        )
        self._segment = Segment.whole(work, numbers, group)
        rows = prepare_rows(self._segment, span_rows=16)
        self.block(self.hidden, rows[0], self.cache, self.context)

    def _room(self, hidden: Tensor, selection: Any, width: int) -> Tensor:
        start, self._room_used = self._room_used, self._room_used + selection.num_rows * width
        return self._rooms[start : self._room_used].view(selection.num_rows, width)

    def _counted(self, name: str, launcher: Callable[..., None]) -> Callable[..., None]:
        """Wrap a launcher so that each launch counts the distinct bytes it moves."""

        def launch(*arguments: Any, **keywords: Any) -> None:
            with traffic(**self._tensors(arguments, keywords)) as moved:
                launcher(*arguments, **keywords)
            self.launches += [name] * moved.num_launches
            self.bytes_moved += moved.total_distinct()
            self.weight_bytes += moved.distinct("w_in.load") + moved.distinct("w_out.load")

        return launch

    def _tensors(self, arguments: Any, keywords: Any) -> dict[str, Tensor]:
        """Name the memory of everything; small indexes that only one launch reads come last."""
        tensors = {
            "rooms": self._rooms,
            "hidden": self.hidden,
            "w_in": self.block.inputs.weight,
            "w_out": self.block.outputs.weight,
            "kv": self.cache.keys,
            "factors": self.context.factors,
            "parts": self.context.scratch.parts,
            "arrivals": self.context.scratch.arrivals,
            "attention_gain": self.block.attention_gain,
            "ffn_gain": self.block.ffn_gain,
        }
        known = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
        for tensor in _find([*arguments, *keywords.values()]):
            if tensor.numel() and tensor.untyped_storage().data_ptr() not in known:
                known.add(tensor.untyped_storage().data_ptr())
                tensors[f"index_{len(tensors)}"] = tensor
        return tensors


def _find(values: Any) -> list[Tensor]:
    """Return the tensors in arguments, and in the plain data among them."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _find(value)
        elif hasattr(value, "__slots__"):
            found += _find([getattr(value, name) for name in value.__slots__])
    return found


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


SERIAL_LAUNCHES = [
    "norm_rows",
    "input_projection",
    "paged_decode",
    "output_projection",
    "norm_rows",
    "input_projection",
    "output_projection",
]


@pytest.mark.fast
def test_a_serial_block_takes_seven_launches(rig: Rig) -> None:
    rig.run(ATTENTION | SERIAL)
    assert rig.launches == SERIAL_LAUNCHES


@pytest.mark.fast
@pytest.mark.parametrize("form", [PARALLEL, SHARED], ids=["parallel", "shared"])
@pytest.mark.parametrize("other", ["same", "nothing"])
def test_a_parallel_block_takes_four(rig: Rig, form: Work, other: str) -> None:
    row = ATTENTION | form
    rig.run(row, row if other == "same" else Work(0), row)
    assert rig.launches == ["norm_rows", "input_projection", "paged_decode", "output_projection"]


def test_a_parallel_block_moves_less_than_a_serial_one(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = {}
    for form in (SERIAL, PARALLEL, SHARED):
        with monkeypatch.context() as patch:
            rig = Rig(patch)
            rig.run(ATTENTION | form)
        moved[form] = rig.bytes_moved
        weights = (rig.block.inputs.weight, rig.block.outputs.weight)
        # Each weight is read, and once.
        assert rig.weight_bytes == sum(weight.nbytes for weight in weights)
    assert moved[SHARED] < moved[PARALLEL] < moved[SERIAL]
    # The serial form reads and writes the residual stream once more.
    assert moved[SERIAL] - moved[PARALLEL] >= 2 * NUM_ROWS * HIDDEN * 4


@pytest.mark.parametrize(
    ("rows", "launches"),
    [
        (
            [Work.KV | SERIAL],
            ["norm_rows", "input_projection", "norm_rows", "input_projection", "output_projection"],
        ),
        ([SERIAL], ["norm_rows", "input_projection", "output_projection"]),
        ([ATTENTION], SERIAL_LAUNCHES[:4]),
        (
            [ATTENTION | SERIAL, Work.KV | SERIAL, ATTENTION | SERIAL],
            [*SERIAL_LAUNCHES[:2], *SERIAL_LAUNCHES[:4], *SERIAL_LAUNCHES[4:]],
        ),
        (
            [ATTENTION | PARALLEL, ATTENTION | SERIAL, ATTENTION | PARALLEL],
            ["norm_rows", *SERIAL_LAUNCHES],
        ),
    ],
    ids=["frozen attention", "skipped attention", "skipped ffn", "some queries", "mixed"],
)
def test_what_no_row_does_is_not_launched(
    rig: Rig, rows: Sequence[Work], launches: list[str]
) -> None:
    rig.run(*rows)
    assert rig.launches == launches


def test_a_gated_block_reads_only_the_weights_that_some_row_wants(rig: Rig) -> None:
    rig.run_gated(Work(0), ATTENTION, Work(0))
    before = rig.hidden[[0, 2]].clone()
    ffn = rig.block.inputs.attention_size
    row_bytes = rig.block.inputs.weight[0].nbytes
    assert rig.launches == SERIAL_LAUNCHES
    assert rig.weight_bytes == ffn * row_bytes + rig.block.outputs.output[0].numel() * 4
    assert torch.equal(rig.hidden[[0, 2]], before)


def test_a_gated_row_gets_what_it_would_get_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serial, parallel and shared rows in one frozen launch, against one form at a time."""
    expected: list[Tensor] = []
    for form in (SERIAL, PARALLEL, SHARED):
        with monkeypatch.context() as patch:
            rig = Rig(patch)
            rig.run(ATTENTION | form)
        expected.append(rig.hidden[len(expected)])
    with monkeypatch.context() as patch:
        rig = Rig(patch)
        rig.run_gated(ATTENTION | SERIAL, ATTENTION | PARALLEL, ATTENTION | SHARED)
    torch.testing.assert_close(rig.hidden, torch.stack(expected), rtol=1e-5, atol=1e-5)
