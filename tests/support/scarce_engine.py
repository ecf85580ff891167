"""Run as the engine process: one whose device has no memory for prompts of many rows.

`python scarce_engine.py FD SPEC`, as `skipserve.service.process` is started.
"""

import sys

import torch
from torch import Tensor

from skipserve.model.batch import Batch
from skipserve.model.layers import KVCache
from skipserve.model.llava import Llava
from skipserve.service import process

MAX_ROWS = 60

_forward = Llava.forward


def _scarce_forward(self: Llava, batch: Batch, cache: KVCache) -> Tensor:
    if len(batch.token_ids) > MAX_ROWS:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB at 0xdeadbeef")
    return _forward(self, batch, cache)


if __name__ == "__main__":
    Llava.forward = _scarce_forward  # type: ignore[method-assign]
    sys.exit(process.main())
