"""What the folders of student and teachers say before any weight is loaded.

Tokenizers and configurations are read; a model is at most built without weights. Whether weights are complete and
finite shows when they are loaded (models/loading.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedConfig

from ..config import ConfigError, StudentConfig
from ..models.families import FAMILIES
from ..models.loading import adapter_base, auto_class, is_adapter
from ..models.positions import has_learned_positions, num_positions
from ..models.tokenizers import check_same_tokenizer, num_token_ids, prompt_ids
from ..types import Problem
from .findings import Finding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
BYTES_PER_PARAMETER = 12
"""Of a checkpoint: weights in float32 and Adam's two moments."""


def weight_file_findings(who: str, path: str) -> list[Finding]:
    """Whether the weight files of a local folder are all there and whole; nothing about a hub id."""
    folder = Path(adapter_base(path, who) or path)
    if not folder.is_dir():
        return []
    files = [file for pattern in WEIGHTS for file in sorted(folder.glob(pattern))]
    if not files:
        return [Finding("bad", who, f"{str(folder)!r} holds no weights", "copy its *.safetensors files too")]
    lacking = sorted(_named_in_index(folder) - {file.name for file in files})
    if lacking:
        words = f"{str(folder)!r} lacks {len(lacking)} of its weight files, such as {lacking[0]}"
        return [Finding("bad", who, words, "copy the folder again")]
    return [finding for file in files if (finding := _torn(who, file)) is not None]


def _named_in_index(folder: Path) -> set[str]:
    names: set[str] = set()
    for index in folder.glob("*.index.json"):
        try:
            names |= set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise ConfigError(f"{index} is damaged ({type(error).__name__}: {error}): copy the folder again") from error
    return names


def _torn(who: str, file: Path) -> Finding | None:
    """safetensors compares the file's size with what its head promises, and reads no weights."""
    if file.suffix != ".safetensors":
        return None
    try:
        with safe_open(file, "pt") as opened:
            opened.keys()
        return None
    except (SafetensorError, OSError) as error:
        words = f"the weight file {file} is torn ({' '.join(str(error).split())[:80]})"
        return Finding("bad", who, words, "copy or download it again")


def eos_findings(who: str, tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    """An EOS to end answers with."""
    if tokenizer.eos_token_id is not None:
        return []
    do = 'set "eos_token" in its tokenizer_config.json'
    return [Finding("bad", who, "its tokenizer has no EOS, so no answer could end", do)]


def vocabulary_findings(who: str, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> list[Finding]:
    """An embedding row for every id."""
    rows, ids = config.get_text_config().vocab_size, num_token_ids(tokenizer)
    if rows >= ids:
        return []
    words = f"it has {rows:,} embedding rows but its tokenizer uses id {ids - 1:,}"
    do = "call resize_token_embeddings and save the model again, or use its own tokenizer"
    return [Finding("bad", who, words, do)]


def family_findings(who: str, config: PreTrainedConfig) -> list[Finding]:
    """A family that is known not to work."""
    model_type = config.get_text_config().model_type
    for name, family in FAMILIES.items():
        if family.refused and family.model_type == model_type:
            return [Finding("bad", who, f"{name} is not supported: it {family.refused}", "take another family")]
    return []


def pair_findings(student: Any, teacher: Any, who: str) -> list[Finding]:
    """Whether both tokenizers map tokens to the same ids. Another EOS is a warning: answers then end at either."""
    check_same_tokenizer(student, teacher)
    if student.eos_token_id == teacher.eos_token_id:
        return []
    words = f"it ends texts with {teacher.eos_token!r}, the student with {student.eos_token!r}"
    return [Finding("warn", who, words, "answers end at either, and the exported student does too")]


def position_findings(
    who: str,
    config: PreTrainedConfig,
    splits: Mapping[str, Sequence[Problem]],
    tokenizer: PreTrainedTokenizerBase,
    num_new: int,
) -> list[Finding]:
    """Whether the longest prompt of every split and an answer fit into the positions the model was made for."""
    limit = num_positions(config)
    if limit is None:
        return []
    num_new += has_learned_positions(config)  # the state after an answer that was cut is looked at too
    longest = {split: _longest(problems, tokenizer) for split, problems in splits.items()}
    split = max(longest, key=longest.__getitem__)
    if longest[split] + num_new <= limit:
        return []
    words = (
        f"it has {limit} positions; the longest prompt of data.{split} has {longest[split]} tokens and a completion "
    )
    words += f"may have {num_new}, together {longest[split] + num_new}"
    do = "lower generation.max_completion_length"
    do += f", or set data.max_prompt_length to {limit - num_new}" if limit > num_new else f" below {limit}"
    return [Finding("bad", who, words, do)]


def _longest(problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase) -> int:
    texts = [problem.prompt for problem in problems]
    return max((len(ids) for ids in prompt_ids(tokenizer, texts)), default=0)


def adapter_findings(settings: StudentConfig) -> list[Finding]:
    """A student that is an adapter already, and is to get another one."""
    if not is_adapter(str(settings.model)) or settings.adapter == "merge" or settings.lora is None:
        return []
    words = f"{settings.model} is an adapter already, which is trained further"
    return [Finding("bad", "student.lora", words, "leave it out, or set student.adapter to merge for a new adapter")]


def lora_findings(targets: str | tuple[str, ...], config: PreTrainedConfig) -> list[Finding]:
    """Whether LoRA finds modules by these names in the student."""
    if targets == "all-linear":
        return []
    names = list(linear_names(config))
    wanted = [targets] if isinstance(targets, str) else list(targets)
    try:
        lacking = [target for target in wanted if not any(_matches(target, targets, name) for name in names)]
    except re.error as error:
        return [Finding("bad", "student.lora.target_modules", f"{targets!r} is no pattern ({error})")]
    if not lacking:
        return []
    there = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
    words = f"{lacking[0]!r} is no module of the student"
    return [Finding("bad", "student.lora.target_modules", words, f"there are: {there}")]


def _matches(target: str, targets: str | tuple[str, ...], name: str) -> bool:
    """As peft does: one text is a pattern for a whole name, an item of a list an ending of it."""
    if isinstance(targets, str):
        return re.fullmatch(target, name) is not None
    return name == target or name.endswith(f".{target}")


def linear_names(config: PreTrainedConfig) -> Iterator[str]:
    """Names of the student's linear layers, from a model without weights."""
    with torch.device("meta"):
        model: nn.Module = auto_class(config).from_config(config)
    head = model.get_output_embeddings()  # type: ignore[operator]
    for name, module in model.named_modules():
        if module is not head and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"):
            yield name


def checkpoint_bytes(path: str, config: PreTrainedConfig) -> float:
    """About the size of a checkpoint that trains all of the model's weights."""
    with torch.device("meta"):
        model: nn.Module = auto_class(config).from_config(config)
    return BYTES_PER_PARAMETER * sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
