"""A byte-level BPE tokenizer of the demo's own sentences, and the prompt they stand in."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from skipserve_client.evaluate.questions import vocabulary

UNKNOWN, START, END, PADDING, IMAGE = "<unk>", "<s>", "</s>", "<pad>", "<image>"
SPECIAL_TOKENS = (UNKNOWN, START, END, PADDING, IMAGE)
START_ID, END_ID, PADDING_ID, IMAGE_ID = 1, 2, 3, 4

PROMPT_HEAD = "USER: "
ANSWER_MARK = " ASSISTANT:"

_REPEATS = 16  # more than once, or the trainer merges nothing


def question_text(question: str) -> str:
    """Write what follows the picture in a prompt."""
    return f"\n{question}{ANSWER_MARK}"


def train_tokenizer(size: int) -> Tokenizer:
    """Train merges until every word of the questions and answers is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A $B", special_tokens=[(START, START_ID)]
    )
    return tokenizer


def _corpus() -> list[str]:
    """List every word of the prompts and answers, each equally often.

    In whole sentences the words of the templates would use up the merges before the rare
    words are whole.
    """
    sentences = [f"{PROMPT_HEAD}{question_text(line)} {line}" for line in vocabulary()]
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words: set[str] = set()
    for sentence in sentences:
        pieces = splitter.pre_tokenize_str(sentence)
        words.update(sentence[start:end] for _, (start, end) in pieces)
    return [word for word in sorted(words) for _ in range(_REPEATS)]
