"""Supervised stages on TRL's SFTTrainer: the teacher's warm-up and the student's cold start.

Assumes texts; loss on the completion only. EOS is included unless the text was cut by length: an EOS after a cut text
would teach the student to stop early. Prompt and completion are tokenised apart, as generation sees them: joined text
could merge a token across the boundary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from .. import distributed
from ..config import SFTStageConfig
from ..models.tokenizers import prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TrainingText(NamedTuple):
    """A completion to learn; `finished` is False where it was cut by length."""

    prompt: str
    completion: str
    finished: bool = True


class MuonAdamW(torch.optim.Optimizer):
    """Muon on the matrices inside the blocks, AdamW on embeddings, norms and biases, at one learning rate.

    Learns small transformers in fewer steps than AdamW alone (Jordan et al. 2024, kellerjordan.github.io/posts/muon;
    the update is scaled to AdamW's size as in Liu et al. 2025, "Muon is Scalable for LLM Training").
    """

    def __init__(self, model: nn.Module, learning_rate: float) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name and "lm_head" not in name]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
        )
        super().__init__([dict(part.param_groups[0]) for part in self._parts], {"lr": learning_rate})
        self._share_state()

    def _share_state(self) -> None:
        """Both parts work on this optimizer's own groups and state, so that schedules and checkpoints reach them."""
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share_state()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both parts at the learning rates the schedule has set."""
        for part in self._parts:
            part.step()


@distributed.without_sharding()
def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[TrainingText],
    stage: SFTStageConfig,
    *,
    seed: int,
    work_dir: Path,
    bf16: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> Any:
    """`model` after `stage.num_steps` optimizer steps on the texts, in place; nothing is saved."""
    arguments = SFTConfig(
        output_dir=str(work_dir),
        max_steps=stage.num_steps,
        per_device_train_batch_size=math.ceil(stage.batch_size / distributed.world_size()),
        learning_rate=stage.learning_rate,
        warmup_steps=stage.warmup_steps,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        dataloader_pin_memory=False,
    )
    trainer = SFTTrainer(
        model=model,
        args=distributed.on_one_device(arguments),
        train_dataset=tokenized(tokenizer, texts),
        processing_class=tokenizer,
        optimizers=(MuonAdamW(model, stage.learning_rate), None),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return model


def tokenized(tokenizer: PreTrainedTokenizerBase, texts: Sequence[TrainingText]) -> Dataset:
    """Columns `input_ids` and `labels`: the prompt's labels are -100, a finished completion ends with EOS."""
    prompts = prompt_ids(tokenizer, [text.prompt for text in texts])
    completions = tokenizer([text.completion for text in texts], add_special_tokens=False)["input_ids"]
    ends = [[tokenizer.eos_token_id] if text.finished else [] for text in texts]
    rows = [(p, c + end) for p, c, end in zip(prompts, completions, ends, strict=True)]
    return Dataset.from_dict({"input_ids": [p + c for p, c in rows], "labels": [[-100] * len(p) + c for p, c in rows]})
