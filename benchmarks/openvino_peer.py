"""OpenVINO GenAI as a contender, in a process and an environment of its own."""

import json
import math
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from questions import Question
from timing import OnToken
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from skipserve.model.config import ModelConfig
from skipserve_policies.plan import TokenClass

_WORKER = Path(__file__).with_name("openvino_worker.py")

# Text tokens that the pipeline adds itself: the line breaks after the picture.
_NUM_OWN_TEXT = 2


class OpenVino:
    """OpenVINO GenAI's continuous batching, with its own defaults.

    It takes text, not token ids, so its questions have the shape of ours but other words.

    Attributes:
        version: of openvino-genai.
    """

    def __init__(self, worker: "subprocess.Popen[str]", concurrency: int) -> None:
        self._worker = worker
        self._concurrency = concurrency
        self.version: str = self._read()["version"]

    @classmethod
    @contextmanager
    def start(
        cls,
        python: Path,
        folder: Path,
        concurrency: int,
        threads: int,
        weights: str = "fp16",
    ) -> Iterator[Self]:
        """Export a checkpoint and load it.

        Args:
            python: of an environment with openvino-genai and optimum-intel.
            folder: the checkpoint.
            concurrency: so many questions are under way at a time.
            threads: of its arithmetic.
            weights: the type that they are exported in: fp16, or int8, whose inputs it then rounds
                to 8 bits by groups as it runs.
        """
        with TemporaryDirectory() as exported:
            _export(python, folder, Path(exported), weights)
            command = [str(python), str(_WORKER), exported, str(threads)]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as worker:
                yield cls(worker, concurrency)
                assert worker.stdin is not None
                worker.stdin.close()

    def answer(self, questions: Sequence[Question], on_token: OnToken) -> None:
        """Answer all greedily; report the tokens when all are known."""
        answers = self._ask([_as_json(question) for question in questions])["answers"]
        for index, token_ids in enumerate(answers):
            for token_id in token_ids:
                on_token(index, token_id)

    def cpu_seconds(self) -> float:
        """Return the processor time of its process."""
        return float(self._ask([])["cpu_seconds"])

    def _ask(self, questions: list[dict[str, Any]]) -> dict[str, Any]:
        assert self._worker.stdin is not None
        order = {"questions": questions, "concurrency": self._concurrency}
        self._worker.stdin.write(json.dumps(order) + "\n")
        self._worker.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._worker.stdout is not None
        line = self._worker.stdout.readline()
        if not line:
            raise RuntimeError("the worker of OpenVINO GenAI has ended; see its messages above")
        return dict(json.loads(line))


def _as_json(question: Question) -> dict[str, Any]:
    return {
        "prompt": prompt_text(question),
        "num_prompt": len(question.prompt_ids),
        "num_new_tokens": question.num_new_tokens,
        "pixels": b64encode(question.image.pixels).decode(),
        "size": math.isqrt(len(question.image.pixels) // 3),
    }


def prompt_text(question: Question) -> str:
    """Return a text of as many bytes as the question has text tokens, behind the picture."""
    pairs = zip(question.prompt_ids, question.token_classes, strict=True)
    text_ids = [token_id for token_id, kind in pairs if kind is not TokenClass.VISUAL]
    letters = [chr(ord("a") + token_id % 26) for token_id in text_ids]
    return "<image>\n" + "".join(letters[_NUM_OWN_TEXT:])


def _export(python: Path, folder: Path, exported: Path, weights: str) -> None:
    """Turn a checkpoint into OpenVINO's format, with a tokenizer of bytes."""
    with TemporaryDirectory() as copied:
        copy = Path(copied)
        for file in (*folder.glob("*.safetensors*"), folder / "config.json"):
            shutil.copy(file, copy)
        write_processor(ModelConfig.from_folder(folder), copy)
        flags = ["--model", copied, "--task", "image-text-to-text", "--weight-format", weights]
        command = [str(python.with_name("optimum-cli")), "export", "openvino", *flags]
        run = subprocess.run([*command, str(exported)], capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(f"optimum-cli cannot export {folder}: {run.stderr[-2000:]}")


def write_processor(config: ModelConfig, folder: Path) -> None:
    """Write a tokenizer that makes each byte a token, and what prepares pictures."""
    image_id = config.image_token_id
    tokenizer = byte_tokenizer(config.sizes.decoder.vocab_size, image_id)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    vision = config.sizes.vision
    images = {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": vision.image_size, "width": vision.image_size},
        "size": {"shortest_edge": vision.image_size},
        "image_mean": config.image_processor.mean,
        "image_std": config.image_processor.std,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "patch_size": vision.patch_size,
        "vision_feature_select_strategy": "default",
    }
    (folder / "processor_config.json").write_text(json.dumps(processor))


def byte_tokenizer(vocab_size: int, image_token_id: int) -> Tokenizer:
    """Return a tokenizer of bytes with a given vocabulary and place of the image's token."""
    special = ["<unk>", "<bos>", "<eos>", "<pad>"]
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += [f"unused{number}" for number in range(vocab_size - 1 - len(words))]
    words.insert(image_token_id, "<image>")
    vocab = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in (*special, "<image>")])
    return tokenizer
