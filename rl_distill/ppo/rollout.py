"""One rollout: sample completions, score them, and turn scores into advantages and returns.

Everything is fixed by (seed, step): the prompts, the sampled tokens and the order of minibatches. A resumed run, or one
with another number of processes, therefore collects the same rollouts. What is read here never carries a gradient.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reward_models import VERIFYING_REWARDS, BlendedScores, RewardBlend

from .. import distributed
from ..config import RunConfig
from ..errors import UserError
from ..generation.sampling import Generated, GenerationEngine, Sampling, StopStrings, TransformersEngine, added_text
from ..maths.batching import completion_lengths_mask, length_sorted, to_padded, token_batch
from ..maths.kl import kl_k1
from ..maths.masking import masked_mean
from ..models.actor_critic import ActorCritic
from ..models.critics import teacher_scalars
from ..teachers import Scoring, Teacher
from ..timing import Phases
from ..types import Completion, Finish, Problem
from .anchor import ESTIMATORS
from .coefficients import Coefficient
from .rollout_building import Rollout, Sampled, build_rollout


class TrainingStopped(UserError, RuntimeError):
    """Numbers left the sane range; the message names the step and the cause, and the last checkpoint is whole."""


class RolloutCollector:
    """Collects rollouts with the policy as it is now. Holds no state but the reward blend's and the anchor's."""

    def __init__(
        self,
        config: RunConfig,
        problems: Sequence[Problem],
        tokenizer: Any,
        teacher: Teacher,
        blend: RewardBlend,
        coefficient: Coefficient,
        phases: Phases,
    ) -> None:
        self.config, self.problems, self.tokenizer = config, list(problems), tokenizer
        self.teacher, self.blend, self.coefficient, self.phases = teacher, blend, coefficient, phases
        self.prompt_ids = [tokenizer(problem.prompt, add_special_tokens=False)["input_ids"] for problem in problems]
        settings = config.generation
        self.sampling = Sampling(settings.max_completion_length, settings.temperature, settings.top_p)
        stop = StopStrings(tokenizer, settings.stop) if settings.stop else None
        self.engine: GenerationEngine = TransformersEngine(tokenizer, settings.batch_size, stop)
        if config.anchor.estimator == "top_k":
            teacher.top_k = config.anchor.top_k

    def collect(
        self,
        model: ActorCritic,
        step: int,
        gathered_weights: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ) -> Rollout:
        """The rollout of `step` (counted from 0); sampling happens inside `gathered_weights`.

        Raises TrainingStopped on NaN or a KL explosion.
        """
        self.blend.set_progress(step / self.config.ppo.num_steps)
        self._set_temperature(step)
        rows = self._rows(step)
        problems = [self.problems[row] for row in rows]
        prompt_ids = [self.prompt_ids[row] for row in rows]
        model.eval()
        with self.phases("generate"), gathered_weights():
            scoring = self.teacher.scoring([problem.task for problem in problems])
            generated = self._generate(model, prompt_ids, step, scoring)
        completions = [self._completion(*pair) for pair in zip(prompt_ids, generated, strict=True)]
        pending = self.blend.start(
            prompts=[problem.prompt for problem in problems],
            completions=[completion.text for completion in completions],
            completion_ids=[completion.token_ids for completion in completions],
            columns=columns_of(problems, completions),
        )
        with self.phases("teacher"):
            states = self._teacher_states(scoring, completions)
            self._add_sampler_logprobs(states, generated)
        with self.phases("prepare"):
            states |= self._policy_states(model, prompt_ids, completions, states)
        with self.phases("reward"):
            lengths = [len(completion.token_ids) for completion in completions]
            scored = [row[:n] for row, n in zip(states["teacher_logprobs_BT"].tolist(), lengths, strict=True)]
            scores = pending.finish({"teacher_logprobs": scored})
        with self.phases("prepare"):
            sampled = Sampled(step, problems, prompt_ids, completions, self.sampling.temperature)
            rollout = build_rollout(self.config, self.coefficient, sampled, states, scores)
            rollout.extra_metrics |= scoring.metrics
        self._observe(rollout)
        return rollout

    def _set_temperature(self, step: int) -> None:
        """Sampling, old and new log-probs and the teacher all use the temperature of the step."""
        settings = self.config.generation
        if settings.temperature_end is not None:
            share = step / max(1, self.config.ppo.num_steps - 1)
            temperature = settings.temperature + share * (settings.temperature_end - settings.temperature)
            self.sampling = replace(self.sampling, temperature=temperature)
            self.teacher.temperature = temperature

    def _rows(self, step: int) -> list[int]:
        """Indices into the training problems: walks through one shuffled pass after another, this process's share."""
        ppo = self.config.ppo
        prompts_per_step = ppo.batch_size // ppo.group_size
        wanted = [step * prompts_per_step + row // ppo.group_size for row in distributed.my_rows(ppo.batch_size)]
        orders: dict[int, list[int]] = {}
        rows = []
        for position in wanted:
            epoch, offset = divmod(position, len(self.problems))
            if epoch not in orders:
                orders[epoch] = list(range(len(self.problems)))
                random.Random(f"{self.config.seed}:prompts:{epoch}").shuffle(orders[epoch])
            rows.append(orders[epoch][offset])
        return rows

    def _generate(
        self, model: ActorCritic, prompt_ids: list[list[int]], step: int, scoring: Scoring
    ) -> list[Generated]:
        """Completions of the prompts; each batch goes to the teacher as soon as it is sampled."""

        def score(rows: Sequence[int], batch: Sequence[Generated]) -> None:
            scoring.add(rows, [prompt_ids[row] for row in rows], self._with_final_state(batch))

        rng = random.Random(f"{self.config.seed}:sampling:{step}")
        seeds = [rng.getrandbits(62) for _ in range(self.config.ppo.batch_size)]
        mine = distributed.my_rows(self.config.ppo.batch_size)
        return self.engine.generate(model.policy, prompt_ids, self.sampling, [seeds[row] for row in mine], score)

    def _completion(self, prompt_ids: list[int], generated: Generated) -> Completion:
        text = added_text(self.tokenizer, prompt_ids, generated.token_ids)
        return Completion(text, generated.token_ids, generated.finish)

    def _with_final_state(self, completions: Sequence[Completion | Generated]) -> list[list[int]]:
        """Token ids, with one more id after a completion cut by length: its state gives the bootstrap value."""
        extra = [self.tokenizer.eos_token_id]
        return [c.token_ids + (extra if c.finish is Finish.LENGTH else []) for c in completions]

    def _teacher_states(self, scoring: Scoring, completions: list[Completion]) -> dict[str, Tensor]:
        mask_BT = completion_lengths_mask([len(row) for row in self._with_final_state(completions)])
        scores = scoring.finish()
        mask_BT = mask_BT.to(scores.logprobs_N.device)
        logprobs_BT, entropy_BT = to_padded(scores.logprobs_N, mask_BT), to_padded(scores.entropy_N, mask_BT)
        top = {}
        if scores.top_ids_NK is not None and scores.top_logprobs_NK is not None:
            top["teacher_top_ids_BTK"] = to_padded(scores.top_ids_NK, mask_BT)
            top["teacher_top_logprobs_BTK"] = to_padded(scores.top_logprobs_NK, mask_BT)
        return top | {
            "teacher_hidden_BTE": to_padded(scores.hidden_NE, mask_BT),
            "teacher_logprobs_BT": logprobs_BT,
            "teacher_scalars_BTK": teacher_scalars(logprobs_BT, entropy_BT, mask_BT),
        }

    def _add_sampler_logprobs(self, states: dict[str, Tensor], generated: list[Generated]) -> None:
        """Where the sampler is another engine than the trainer: what it said of its own tokens, in the same places."""
        if generated and generated[0].logprobs is not None:
            states["sampler_logprobs_BT"] = torch.zeros_like(states["teacher_logprobs_BT"])
            for row, item in enumerate(generated):
                values = states["sampler_logprobs_BT"].new_tensor(item.logprobs)
                states["sampler_logprobs_BT"][row, : len(values)] = values

    @torch.no_grad()
    def _policy_states(
        self, model: ActorCritic, prompt_ids: list[list[int]], completions: list[Completion], states: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Old log-probs, entropy, KL and old values, by the forward that training uses. The KL is exact unless the
        anchor too takes an estimate from the sampled tokens: that spares a product of tokens x vocabulary.
        """
        exact = self.config.anchor.estimator not in ESTIMATORS
        ids = self._with_final_state(completions)
        sizes = [len(row) for row in ids]
        mask_BT = completion_lengths_mask(sizes).to(states["teacher_logprobs_BT"].device)
        names = ("logprobs_BT", "entropy_BT", "kl_BT", "values_BT")
        padded = {name: torch.zeros_like(states["teacher_logprobs_BT"]) for name in names}
        lengths = [len(p) + n for p, n in zip(prompt_ids, sizes, strict=True)]
        for rows in distributed.in_step(list(length_sorted(lengths, self.config.generation.batch_size))):
            batch = token_batch([prompt_ids[r] for r in rows], [ids[r] for r in rows], self.tokenizer.pad_token_id)
            index = torch.tensor(rows, device=mask_BT.device)
            row_mask = mask_BT[index]
            output = model(
                batch.input_ids_BL.to(mask_BT.device),
                batch.state_index_N.to(mask_BT.device),
                batch.targets_N.to(mask_BT.device),
                temperature=self.sampling.temperature,
                teacher_hidden_NE=states["teacher_hidden_BTE"][index][row_mask],
                teacher_weight_VE=self.teacher.lm_head_weight_VE if exact else None,
                teacher_scalars_NK=states["teacher_scalars_BTK"][index][row_mask],
            )
            values_N = torch.zeros_like(output.logprobs_N) if output.values_N is None else output.values_N
            kl_N = output.kl_N
            if kl_N is None:  # unbiased
                kl_N = kl_k1(output.logprobs_N, states["teacher_logprobs_BT"][index][row_mask])
            for name, column in zip(names, (output.logprobs_N, output.entropy_N, kl_N, values_N), strict=True):
                padded[name][index] = to_padded(column, row_mask)
        return padded

    def _observe(self, rollout: Rollout) -> None:
        """Checks the numbers and lets the anchor's coefficient follow the evidence of all processes."""
        count = distributed.sum_over_processes(rollout.mask_BT.sum().double())
        kl = float(distributed.sum_over_processes(masked_mean(rollout.kl_BT.double(), rollout.mask_BT, count)))
        limit = self.config.ppo.stop_at_kl
        if math.isnan(kl) or (limit is not None and kl > limit):
            worst = int(torch.where(rollout.mask_BT, rollout.kl_BT, 0.0).sum(1).nan_to_num(float("inf")).argmax())
            raise TrainingStopped(
                f"step {rollout.step}: KL to the teacher is {kl:.4g} per token (limit ppo.stop_at_kl: {limit}); worst "
                f"prompt {rollout.problems[worst].prompt[:80]!r}. The last checkpoint is kept: resume from it with a "
                "lower ppo.learning_rate or a stronger anchor"
            )
        tasks = distributed.gather_list([problem.task for problem in rollout.problems])
        self.coefficient.observe(tasks=tasks, successes=distributed.gather_list(successes(rollout.scores)), kl=kl)


def successes(scores: BlendedScores) -> list[float | None]:
    """The verified part of each score, whichever check applied to it; None where nothing was verified."""
    parts = [scores.parts[name] for name in VERIFYING_REWARDS if name in scores.parts]
    found = [[value for value in row if value is not None] for row in zip(*parts, strict=True)]
    return [max(row) if row else None for row in found] if parts else [None] * len(scores.total)


def columns_of(problems: Sequence[Problem], completions: Sequence[Completion]) -> dict[str, list]:
    """The dataset columns as reward functions receive them: one list per column, None where a problem lacks it."""
    names = sorted({name for problem in problems for name in problem.columns})
    columns: dict[str, list] = {name: [problem.columns.get(name) for problem in problems] for name in names}
    columns["task"] = [problem.task for problem in problems]
    columns["finished"] = [completion.finish is Finish.STOP for completion in completions]
    return columns
