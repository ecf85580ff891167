"""Answers the held-out questions with the model under training, greedily and in batches."""

from collections.abc import Iterator
from itertools import islice

import torch
from tokenizers import Tokenizer
from torch import Tensor

from skipserve_client.evaluate.dataset import Example, demo_examples
from skipserve_client.evaluate.scenes import Split
from skipserve_client.evaluate.scoring import GradedAnswer
from skipserve_training.demo.batches import prompt_prefix, to_pixels
from skipserve_training.demo.model import DemoModel, decoder_block
from skipserve_training.demo.stages import ACTIVATIONS, embed
from skipserve_training.demo.tokenizer import END_ID, PADDING_ID, question_text

_BATCH = 84
_MAX_ANSWER = 32


@torch.inference_mode()
def answer_held_out(model: DemoModel, tokenizer: Tokenizer, count: int) -> Iterator[GradedAnswer]:
    """Yield the model's answers to the first `count` held-out questions."""
    model.decoder.run_block = decoder_block  # compiled for the one shape of training
    examples = demo_examples(Split.HELD_OUT, count)
    while chunk := list(islice(examples, _BATCH)):
        given = _answer(model, tokenizer, chunk)
        for example, answer in zip(chunk, given, strict=True):
            yield GradedAnswer(example.type, example.answer, answer)


def _answer(model: DemoModel, tokenizer: Tokenizer, examples: list[Example]) -> list[str]:
    """Decode a chunk without a K/V cache: most answers are one word and its end."""
    device = model.decoder.embedding.device
    pixels = to_pixels([example.image for example in examples])
    seen = model.vision(pixels.to(device, ACTIVATIONS))
    prompts = _prompts(model, tokenizer, examples)
    sequences = [list(prompt) for prompt in prompts]
    open_rows = list(range(len(examples)))
    for _ in range(_MAX_ANSWER):
        chosen = _next_tokens(model, [sequences[row] for row in open_rows], seen[open_rows])
        for row, token in zip(open_rows, chosen, strict=True):
            sequences[row].append(token)
        open_rows = [row for row in open_rows if sequences[row][-1] != END_ID]
        if not open_rows:
            break
    answers = [sequence[len(prompt) :] for sequence, prompt in zip(sequences, prompts, strict=True)]
    return [tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]


def _prompts(model: DemoModel, tokenizer: Tokenizer, examples: list[Example]) -> list[list[int]]:
    head = prompt_prefix(tokenizer, model.sizes.patches)[:-1]  # the line break comes again
    return [
        head + tokenizer.encode(question_text(example.question), add_special_tokens=False).ids
        for example in examples
    ]


def _next_tokens(model: DemoModel, sequences: list[list[int]], seen: Tensor) -> list[int]:
    """Run the model over sequences padded on the right, where causal rows cannot see."""
    rows = max(map(len, sequences))
    padded = [sequence + [PADDING_ID] * (rows - len(sequence)) for sequence in sequences]
    ids = torch.tensor(padded, device=seen.device)
    positions = torch.arange(rows, device=seen.device).expand(ids.shape)
    allowed = torch.ones(rows, rows, dtype=torch.bool, device=seen.device).tril()
    hidden = model.decoder(embed(model, ids, seen), positions, allowed.expand(len(ids), -1, -1))
    last = torch.tensor([len(sequence) - 1 for sequence in sequences], device=seen.device)
    final = hidden[torch.arange(len(ids), device=seen.device), last]
    chosen: list[int] = model.decoder.logits(final).argmax(-1).tolist()
    return chosen
