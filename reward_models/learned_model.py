"""The trained reward model: a Transformer that reads teacher's output, prompt and candidate, and gives two scalars.

It may assume torch and transformers, and a trunk that takes `inputs_embeds` (any decoder or encoder of transformers).
It will not read a run's settings, nor decide whether its own quality is good enough (learned.py does).

SHAPES  B rows, L tokens, D hidden size.   Segments: 0 prompt, 1 teacher's output, 2 candidate; padding is on the right.
Matches: 0 nothing to compare with, 1 + n the longest n-gram ending at this token that the other text has (n = 0 to 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .learned_posterior import LastLayerPosterior
from .learned_readings import WIDTH as READINGS_WIDTH
from .learned_readings import Readings, ReadingsHead, pad_readings

PROMPT, TEACHER, CANDIDATE = 0, 1, 2
LONGEST_MATCH = 4
"""BLEU-4 counts n-grams up to this length."""
NUM_MATCHES = LONGEST_MATCH + 2
TOKENS_ON_CPU = 4096
"""Per forward pass: larger activations leave the cache, and rows of 370 tokens then take half as long again."""


class LearnedRewardConfig(PreTrainedConfig):
    """`trunk` is the trunk's own configuration as a dict. `scale` and `shift` turn the score's logit into the score.

    `readings`: the model has a head for the scoring teacher's readings (learned_readings.py). `noise`: by what is shown
    of the teacher, the noise of both outputs beside their spread (learned_posterior.py); None where it was not fitted.
    """

    model_type = "rl_distill_reward"

    def __init__(
        self,
        trunk: dict[str, Any] | None = None,
        max_tokens: int = 512,
        scale: float = 1.0,
        shift: float = 0.0,
        correctness_weight: float = 1.0,
        readings: bool = False,
        noise: dict[str, list[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.trunk = trunk or {}
        self.max_tokens = max_tokens
        self.scale, self.shift = scale, shift
        self.correctness_weight = correctness_weight
        self.readings, self.noise = readings, noise
        super().__init__(**{"num_labels": 1} | kwargs)


@dataclass
class RewardOutput(ModelOutput):
    """`logits` (B, 1) of the score, before scale and shift; `correct_logits` (B,) of "the answer is right"; `features`
    (B, D), what the last layer saw.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    correct_logits: Tensor | None = None
    features: Tensor | None = None


class LearnedRewardModel(PreTrainedModel):
    """Features of each candidate token, pooled over the candidate (mean, maximum, last), then one linear layer.

    Pooling lets a token say "the teacher says otherwise here" without carrying it to the end of the text. Each token of
    the candidate and of the teacher's output is told how long an n-gram it ends that the other text has too, which is
    what BLEU counts (the exact-match feature of Chen et al. 2017, "Reading Wikipedia to Answer Open-Domain Questions").
    """

    config_class = LearnedRewardConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: LearnedRewardConfig) -> None:
        super().__init__(config)
        trunk_config = dict(config.trunk)
        self.trunk = AutoModel.from_config(AutoConfig.for_model(trunk_config.pop("model_type"), **trunk_config))
        width = self.trunk.config.get_text_config().hidden_size
        self.segments = nn.Embedding(3, width)
        self.matches = nn.Embedding(NUM_MATCHES, width)
        self.features = nn.Linear(width + NUM_MATCHES, width)
        self.pooled_norm = nn.LayerNorm(3 * width)
        self.readings = ReadingsHead() if config.readings else None
        self.head = nn.Linear(self.num_features, 2)
        self.posterior = None if config.noise is None else LastLayerPosterior(self.num_features)
        self.post_init()

    @property
    def num_features(self) -> int:
        """Numbers that the last layer sees of a row."""
        width = self.features.out_features
        return 3 * width + (READINGS_WIDTH if self.config.readings else 0)

    def _init_weights(self, module: nn.Module) -> None:
        """Segments and matches start at zero, so that a copied trunk first reads what it always read."""
        if module is self.segments or module is self.matches:
            nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        return self.trunk.get_input_embeddings()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor,
        match_ids: Tensor,
        scores: Tensor | None = None,
        verdicts: Tensor | None = None,
        readings: Tensor | None = None,
        readings_mask: Tensor | None = None,
        **ignored: Any,
    ) -> RewardOutput:
        """RewardOutput; with `scores` (B,) in 0..1 the loss too: cross-entropy with the score as a soft label, and
        with `verdicts` (B,), 1 right, 0 wrong, NaN not checked.
        """
        pooled = self.pooled(input_ids, attention_mask, segment_ids, match_ids, readings, readings_mask)
        logits = self.head(pooled)
        output = RewardOutput(logits=logits[:, :1], correct_logits=logits[:, 1], features=pooled.detach())
        if scores is not None:
            output.loss = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], scores)
            if verdicts is not None and (known := ~verdicts.isnan()).any():
                correct = nn.functional.binary_cross_entropy_with_logits(logits[known, 1], verdicts[known])
                output.loss = output.loss + self.config.correctness_weight * correct
        return output

    def pooled(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor,
        match_ids: Tensor,
        readings: Tensor | None = None,
        readings_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, num_features): what the last layer sees, in float32 at least."""
        embeddings = self.trunk.get_input_embeddings()(input_ids) + self.segments(segment_ids) + self.matches(match_ids)
        hidden_BLD = self.trunk(inputs_embeds=embeddings, attention_mask=attention_mask).last_hidden_state
        mask_BL = attention_mask.bool() & (segment_ids == CANDIDATE)
        matches_BLM = nn.functional.one_hot(match_ids, NUM_MATCHES).to(hidden_BLD.dtype)
        features_BLD = nn.functional.silu(self.features(torch.cat([hidden_BLD, matches_BLM], dim=-1)))
        pooled = self.pooled_norm(pool(features_BLD, mask_BL).float())
        if self.readings is None:
            return pooled
        if readings is None or readings_mask is None:
            return torch.cat([pooled, pooled.new_zeros(len(pooled), READINGS_WIDTH)], dim=-1)
        return torch.cat([pooled, self.readings(readings.to(pooled), readings_mask)], dim=-1)


AutoConfig.register(LearnedRewardConfig.model_type, LearnedRewardConfig)
AutoModel.register(LearnedRewardConfig, LearnedRewardModel)


def pool(features_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """(B, 3D): mean, maximum and last of each row's features where the mask is true; every row has such a place."""
    mask_BL1 = mask_BL.unsqueeze(-1)
    mean_BD = (features_BLD * mask_BL1).sum(1) / mask_BL1.sum(1)
    highest_BD = features_BLD.masked_fill(~mask_BL1, float("-inf")).amax(1)
    places = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    last_B = torch.where(mask_BL, places, -1).amax(1)
    last_BD = features_BLD[torch.arange(len(last_B), device=last_B.device), last_B]
    return torch.cat([mean_BD, highest_BD, last_BD], dim=-1)


def from_trunk(trunk: PreTrainedModel, **settings: Any) -> LearnedRewardModel:
    """A reward model whose trunk is a copy of `trunk` (a decoder without its language-model head, or an encoder)."""
    model = LearnedRewardModel(LearnedRewardConfig(trunk=trunk.config.to_dict(), **settings))
    model.trunk.load_state_dict(trunk.state_dict())
    return model


@dataclass(frozen=True)
class Encoded:
    """One row: token ids, the segment and the match of each; `cut` if something had to be left out for length.

    `readings` are of the candidate's tokens as the teacher scored them, which need not be those of `input_ids`.
    """

    input_ids: list[int]
    segment_ids: list[int]
    match_ids: list[int]
    cut: bool = False
    readings: Readings | None = None


def encode(
    tokenizer: Any,
    prompt: str,
    teacher_output: str | None,
    candidate: str,
    max_length: int,
    readings: Readings | None = None,
) -> Encoded:
    """Teacher's output, EOS, prompt, candidate, EOS: prompt and candidate stand together as a causal trunk knows them.

    A row that is too long loses the teacher's output first, then the prompt's beginning, then the candidate's.
    """
    eos = [tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id]
    prompt_ids, candidate_ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, candidate))
    teacher_ids = []
    if teacher_output is not None:
        teacher_ids = tokenizer(teacher_output, add_special_tokens=False)["input_ids"] + eos
    length = len(teacher_ids) + len(prompt_ids) + len(candidate_ids) + 1
    cut = length > max_length
    if cut:
        teacher_ids = []
        candidate_ids = candidate_ids[-(max_length - 1) :]
        room = max_length - 1 - len(candidate_ids)
        prompt_ids = prompt_ids[-room:] if room else []
    candidate_ids = candidate_ids + eos
    parts = (
        (TEACHER, teacher_ids, longest_matches(teacher_ids, candidate_ids)),
        (PROMPT, prompt_ids, [0] * len(prompt_ids)),
        (CANDIDATE, candidate_ids, longest_matches(candidate_ids, teacher_ids)),
    )
    return Encoded(
        [token for _, ids, _ in parts for token in ids],
        [segment for segment, ids, _ in parts for _ in ids],
        [match for _, _, matches in parts for match in matches],
        cut,
        readings,
    )


def longest_matches(ids: Sequence[int], others: Sequence[int]) -> list[int]:
    """Per token of `ids` 1 + the length (0 to LONGEST_MATCH) of the longest n-gram ending there that `others` contains;
    0 everywhere where there are no others.
    """
    if not others:
        return [0] * len(ids)
    matches = [1] * len(ids)
    for n in range(1, LONGEST_MATCH + 1):
        found = {tuple(others[end - n : end]) for end in range(n, len(others) + 1)}
        for end in range(n, len(ids) + 1):
            if tuple(ids[end - n : end]) in found:
                matches[end - 1] = 1 + n
    return matches


def pad_rows(rows: Sequence[Encoded], pad_token_id: int) -> dict[str, Tensor]:
    """The rows as one right-padded batch: input_ids, attention_mask, segment_ids and match_ids, each (B, L), and the
    readings where a row has some.
    """
    length = max(len(row.input_ids) for row in rows)

    def padded(lists: Sequence[Sequence[int]], filler: int) -> Tensor:
        return torch.tensor([[*items, *[filler] * (length - len(items))] for items in lists])

    return {
        "input_ids": padded([row.input_ids for row in rows], pad_token_id),
        "attention_mask": padded([[1] * len(row.input_ids) for row in rows], 0),
        "segment_ids": padded([row.segment_ids for row in rows], PROMPT),
        "match_ids": padded([row.match_ids for row in rows], 0),
    } | pad_readings([row.readings for row in rows])


def _batches(rows: Sequence[Encoded], batch_size: int, most_tokens: int | None) -> Iterator[list[int]]:
    """Indices of rows of similar length, at most `batch_size` of them and, padding included, `most_tokens` tokens."""
    picks: list[int] = []
    for row in sorted(range(len(rows)), key=lambda row: (len(rows[row].input_ids), rows[row].input_ids)):
        too_long = most_tokens is not None and (len(picks) + 1) * len(rows[row].input_ids) > most_tokens
        if picks and (len(picks) == batch_size or too_long):
            yield picks
            picks = []
        picks.append(row)
    if picks:
        yield picks


@dataclass(frozen=True)
class Judgements:
    """Row by row: predicted score and probability of being right, each in 0..1, and the leverage (0 if not fitted)."""

    scores: list[float]
    correct: list[float]
    leverages: list[float]

    def spreads(self, noise: float) -> list[float]:
        """Posterior standard deviations of an output with this noise."""
        return [noise * leverage**0.5 for leverage in self.leverages]


def judge(model: LearnedRewardModel, rows: Sequence[Encoded], pad_token_id: int, batch_size: int = 64) -> Judgements:
    """What the model says of the rows, in their order.

    Rows of similar length share a batch. Padding changes a score by rounding only, which 6 decimals hide.
    """
    found = Judgements([0.0] * len(rows), [0.0] * len(rows), [0.0] * len(rows))
    for picks, output in _outputs(model, rows, pad_token_id, batch_size):
        score_B = torch.sigmoid(model.config.scale * output.logits[:, 0].double() + model.config.shift)
        correct_B = torch.sigmoid(output.correct_logits.double())
        leverage_B = torch.zeros_like(score_B) if model.posterior is None else model.posterior(output.features)
        for pick, *said in zip(picks, score_B.tolist(), correct_B.tolist(), leverage_B.tolist(), strict=True):
            found.scores[pick], found.correct[pick], found.leverages[pick] = (round(value, 6) for value in said)
    return found


def predict(
    model: LearnedRewardModel, rows: Sequence[Encoded], pad_token_id: int, batch_size: int = 64
) -> tuple[list[float], list[float]]:
    """(scores, probabilities of being right), as `judge` says them."""
    found = judge(model, rows, pad_token_id, batch_size)
    return found.scores, found.correct


def last_features(model: LearnedRewardModel, rows: Sequence[Encoded], pad_token_id: int) -> Tensor:
    """(N, D): what the last layer sees of the rows, in no particular order."""
    return torch.cat([output.features for _, output in _outputs(model, rows, pad_token_id, 64)])


@torch.inference_mode()
def _outputs(
    model: LearnedRewardModel, rows: Sequence[Encoded], pad_token_id: int, batch_size: int
) -> list[tuple[list[int], Any]]:
    most_tokens, found = TOKENS_ON_CPU if model.device.type == "cpu" else None, []
    for picks in _batches(rows, batch_size, most_tokens):
        batch = pad_rows([rows[pick] for pick in picks], pad_token_id)
        found.append((picks, model(**{name: tensor.to(model.device) for name, tensor in batch.items()})))
    return found


def load(folder: str | Path, device: torch.device | str) -> tuple[LearnedRewardModel, Any]:
    """(model in evaluation mode, tokenizer) of a folder that launch/reward_model.py wrote."""
    model: Any = LearnedRewardModel.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)
