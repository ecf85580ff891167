"""What whoever starts a model should know of its files: what is missing, and what stands in."""

from pathlib import Path

from skipserve.model.config import ModelConfig, processor_fields, read_json
from skipserve.prompt.template_files import find_template
from skipserve_policies.sizes import Modality, VisionSizes

_STAND_INS = {
    "generation_config.json": "the end tokens are those of config.json and of the tokenizer",
    "tokenizer_config.json": "the special tokens are those that the tokenizer's other files name",
}

# What in generation_config.json changes answers and is not followed, where it is set at all; 1 is
# as good as nothing for those of the first line.
_OF_ONE = {"repetition_penalty", "encoder_repetition_penalty", "num_beams"}
_GENERATION = (
    *sorted(_OF_ONE),
    "no_repeat_ngram_size", "min_length", "min_new_tokens", "stop_strings", "bad_words_ids",
    "suppress_tokens", "begin_suppress_tokens", "sequence_bias",
    "forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty",
)  # fmt: skip


def checkpoint_notes(folder: Path, config: ModelConfig) -> list[str]:
    """Return one line for each file that is missing, and for what is said but not followed.

    Raises:
        ModelFilesError: a file is not what it should be.
    """
    notes = [
        f"there is no {name}: {stand_in}"
        for name, stand_in in _STAND_INS.items()
        if not (folder / name).is_file()
    ]
    if find_template(folder) is None:
        notes.append("there is no chat template: that of LLaVA-1.5 stands in")
    if config.dtype == "float64":
        notes.append("config.json declares float64, which is run as float32")
    if config.max_positions < config.declared_positions:
        notes.append(
            f"attention slides over {config.max_positions:,} positions (sliding_window in "
            "config.json), which is not computed here: the context is cut to them, from "
            f"{config.declared_positions:,}"
        )
    return notes + _generation_notes(folder) + _processor_notes(folder, config)


def _generation_notes(folder: Path) -> list[str]:
    generation = read_json(folder / "generation_config.json")
    said = {name: generation[name] for name in _GENERATION if generation.get(name)}
    asked = [name for name, value in said.items() if value != 1 or name not in _OF_ONE]
    return [f"generation_config.json sets {', '.join(asked)}: not followed"] if asked else []


def _stand_in_note(vision: VisionSizes) -> str:
    files = "in processor_config.json or preprocessor_config.json"
    if vision.modality is Modality.AUDIO:
        return f"there is no feature extractor, {files}: sounds are prepared as for AST"
    side, model = vision.image_size, "LLaVA-1.5" if vision.has_cls else "SigLIP"
    if not vision.has_picture_tower:
        model = "ViT"
    return (
        f"there is no image processor, {files}: pictures are prepared as for {model}, at "
        f"{side} x {side}"
    )


def _processor_notes(folder: Path, config: ModelConfig) -> list[str]:
    found = processor_fields(folder, config.sizes.vision.modality)
    if found is None:
        return [_stand_in_note(config.sizes.vision)]
    notes = []
    file, fields = found
    if not (folder / "processor_config.json").is_file():
        notes.append("there is no processor_config.json: config.json says what an image becomes")
    if config.processor.unread:
        unread = ", ".join(config.processor.unread)
        notes.append(f"{file.name} has fields that are not known and have no effect: {unread}")
    older = read_json(folder / "preprocessor_config.json")
    differing = sorted(name for name in older.keys() & fields.keys() if older[name] != fields[name])
    if differing:
        notes.append(
            f"preprocessor_config.json and {file.name} differ in {', '.join(differing)}: the "
            "latter is followed"
        )
    return notes
