"""Samples from a mixture of teacher and student, token by token (MiniLLM, arXiv 2306.08543, section 2.2).

Assumes both models in this process, with the same ids. Early students then read fewer of their own degenerate texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..generation.decoding import Decoder, make_decoder
from ..generation.sampling import Generated, Sampling, generate
from ..models.tokenizers import num_token_ids
from ..teachers.colocated import ColocatedTeacher


class MixedDecoder:
    """Two decoders in step. Its logits, divided by `temperature`, are those of share x teacher + (1 - share) x student,
    both at that temperature; ids from `num_vocab` on have none."""

    def __init__(self, student: Decoder, teacher: Decoder, share: float, temperature: float, num_vocab: int) -> None:
        self.student, self.teacher = student, teacher
        self.share, self.temperature, self.num_vocab = share, temperature, num_vocab

    def prefill(self, input_ids_PT: Tensor, mask_PT: Tensor, prompt_of_row_B: Tensor | None) -> Tensor:
        return self._mixed(*(d.prefill(input_ids_PT, mask_PT, prompt_of_row_B) for d in (self.student, self.teacher)))

    def step(self, tokens_B: Tensor) -> Tensor:
        return self._mixed(self.student.step(tokens_B), self.teacher.step(tokens_B))

    def keep(self, rows: Tensor) -> None:
        self.student.keep(rows)
        self.teacher.keep(rows)

    def _mixed(self, student_BV: Tensor, teacher_BV: Tensor) -> Tensor:
        p_BV, q_BV = (
            (logits[:, : self.num_vocab].float() / self.temperature).softmax(-1) for logits in (student_BV, teacher_BV)
        )
        return self.temperature * torch.lerp(p_BV, q_BV, self.share).log()


def generate_mixed(
    policy: PreTrainedModel,
    teacher: ColocatedTeacher,
    share: float,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    batch_size: int = 64,
) -> list[Generated]:
    """A completion per prompt; every token is drawn from share x teacher + (1 - share) x student."""
    num_vocab = min(
        num_token_ids(tokenizer), len(teacher.lm_head_weight_VE), len(policy.get_output_embeddings().weight)
    )

    def decoder_of(model: PreTrainedModel, max_new_tokens: int) -> Decoder:
        pair = make_decoder(model, max_new_tokens), make_decoder(teacher.model, max_new_tokens)
        return MixedDecoder(*pair, share, sampling.temperature or 1.0, num_vocab)

    found = generate(
        policy,
        prompt_ids,
        sampling,
        eos_token_ids=[tokenizer.eos_token_id],
        pad_token_id=tokenizer.pad_token_id,
        seeds=seeds,
        batch_size=batch_size,
        vocab_size=num_vocab,
        decoder_of=decoder_of,
    )
    read = sum(map(len, prompt_ids)) + sum(len(item.token_ids) for item in found)
    teacher.tokens_scored += read
    return found
