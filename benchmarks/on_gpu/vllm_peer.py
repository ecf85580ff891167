"""vLLM on the same decoder, where it is installed: text alone, random weights of its own."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from checkpoints import Shape

# Of the device's memory: the decoder and the keys and values of a few requests beside ours.
_MEMORY_SHARE = 0.3

# An answer of so many tokens more tells what one token takes.
_FEWER, _MORE = 4, 36


class Vllm:
    """vLLM's offline engine with its defaults, but without reuse of prefixes.

    Args:
        shape: whose decoder it runs.
        context: positions of a request at most.
        dtype: as torch names it.

    Raises:
        ImportError: vLLM is not installed.
    """

    def __init__(self, shape: Shape, context: int, dtype: str) -> None:
        # Not at the top: few machines have it.
        import vllm  # type: ignore[import-not-found]  # noqa: PLC0415

        self._sampling = vllm.SamplingParams
        with TemporaryDirectory() as folder:
            config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **shape.text}
            (Path(folder) / "config.json").write_text(json.dumps(config))
            self._engine: Any = vllm.LLM(
                folder,
                load_format="dummy",
                skip_tokenizer_init=True,
                dtype=dtype,
                max_model_len=context,
                gpu_memory_utilization=_MEMORY_SHARE,
                enable_prefix_caching=False,
            )

    def token_seconds(self, prompts: Sequence[Sequence[int]]) -> float:
        """Return what one more token of every answer takes."""
        self._generate(prompts, _FEWER)
        fewer, more = (self._generate(prompts, number) for number in (_FEWER, _MORE))
        return (more - fewer) / (_MORE - _FEWER)

    def _generate(self, prompts: Sequence[Sequence[int]], num_new_tokens: int) -> float:
        """Return the seconds of greedy answers of one length."""
        sampling = self._sampling(
            temperature=0.0, max_tokens=num_new_tokens, ignore_eos=True, detokenize=False
        )
        start = time.perf_counter()
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        self._engine.generate(asked, sampling, use_tqdm=False)
        return time.perf_counter() - start
