"""One rollout: sample completions, score them, and turn scores into advantages and returns.

Everything is fixed by (seed, step): the prompts, the sampled tokens and the order of minibatches. A resumed run, or one
with another number of processes, therefore collects the same rollouts. What is read here never carries a gradient.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from reward_models import VERIFYING_REWARDS, BlendedScores, RewardBlend
from reward_models.blend import PendingScores

from .. import distributed
from ..config import RunConfig
from ..data.mixture import PromptSampler
from ..data.reward_inputs import reward_inputs
from ..errors import UserError
from ..generation.sampling import Generated, GenerationEngine, Sampling, StopStrings, TransformersEngine, added_text
from ..maths.batching import length_sorted, places_of_rows, token_batch
from ..maths.kl import kl_k1
from ..models.actor_critic import ActorCritic
from ..models.critics import flat_teacher_scalars
from ..models.tokenizers import prompt_ids
from ..teachers import Scoring, Teacher, TeacherScores
from ..teachers.colocated import DeferredScoring
from ..timing import Phases, peak_memory_mib
from ..types import Completion, Problem
from .anchor import reads_exact_kl
from .coefficients import Coefficient
from .rollout_building import Rollout, Sampled, TokenStates, build_rollout, has_one_update

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TrainingStopped(UserError, RuntimeError):
    """Numbers left the sane range; the message names the step and the cause, and the last checkpoint is whole."""


class RolloutCollector:
    """Collects rollouts with the policy as it is now. Its state: the reward blend's, the anchor's and a count."""

    def __init__(
        self,
        config: RunConfig,
        problems: Sequence[Problem],
        tokenizer: PreTrainedTokenizerBase,
        teacher: Teacher,
        blend: RewardBlend,
        coefficient: Coefficient,
        phases: Phases,
    ) -> None:
        self.config, self.problems, self.tokenizer = config, list(problems), tokenizer
        self.teacher, self.blend, self.coefficient, self.phases = teacher, blend, coefficient, phases
        self.prompt_ids = prompt_ids(tokenizer, [problem.prompt for problem in problems])
        settings = config.generation
        stop = StopStrings(tokenizer, settings.stop) if settings.stop else None
        if settings.dtype != "student" and (distributed.is_fsdp() or distributed.zero_stage() == 3):
            raise UserError(
                "generation.dtype: a copy of weights that are sharded would be whole on every GPU; leave it out"
            )
        self.engine: GenerationEngine = TransformersEngine(
            tokenizer, settings.batch_size, stop, is_copy=settings.dtype == "bfloat16"
        )
        self.last_rollout: Rollout | None = None
        self.sampler: PromptSampler | None = None
        """What chooses the prompts; None walks through all of them in shuffled passes."""
        self.top_k = config.anchor.top_k if config.anchor.estimator == "top_k" else 0
        self._orders: dict[int, list[int]] = {}
        self.teacher_tokens_scored = 0
        """By all processes since the run began, also before it was resumed."""
        self._scored_before = 0

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
        rows, temperature = self._rows(step), self._temperature(step)
        problems = [self.problems[row] for row in rows]
        prompt_ids = [self.prompt_ids[row] for row in rows]
        model.eval()
        with self.phases("generate"), gathered_weights():
            tasks = [problem.task for problem in problems]
            scoring = self.teacher.scoring(tasks, temperature=temperature, top_k=self.top_k)
            joined = self._joins_heads(scoring)
            generated = self._generate(model, prompt_ids, step, temperature, scoring)
        completions = [self._completion(*pair) for pair in zip(prompt_ids, generated, strict=True)]
        sampled = Sampled(step, problems, prompt_ids, completions, temperature)
        pending = self._start_scores(sampled)
        with self.phases("teacher"):
            teacher = scoring.finish()
        with self.phases("prepare"):
            states = self._token_states(model, sampled, teacher, generated, joined)
        with self.phases("reward"):
            scores = self._counted(problems, pending.finish(self._teacher_columns(states.teacher, sampled.lengths)))
        with self.phases("prepare"):
            rollout = build_rollout(self.config, self.coefficient, sampled, states, scores)
            rollout.extra_metrics |= scoring.metrics | ({} if self.sampler is None else self.sampler.metrics())
        self._observe(rollout)
        self.last_rollout = rollout
        return rollout

    @property
    def longest_row(self) -> int:
        """Tokens of the longest prompt with the longest completion that sampling may give."""
        return max(map(len, self.prompt_ids), default=0) + self.config.generation.max_completion_length

    def latest(self) -> Rollout:
        """The rollout that training is at. To be asked only after the first one."""
        assert self.last_rollout is not None
        return self.last_rollout

    def timing(self) -> dict[str, float]:
        """Seconds by phase since the last call, peak memory, and the tokens of the last rollout."""
        tokens = sum(self.latest().lengths)
        taken = self.phases.take()
        seconds = {f"seconds/{name}": value for name, value in taken.items()}
        collected = sum(taken.get(name, 0.0) for name in ("generate", "teacher", "prepare", "reward", "update"))
        seconds["tokens_per_second"] = tokens / collected if collected else 0.0
        return seconds | {"peak_memory_mib": peak_memory_mib(), "completion_tokens": float(tokens)}

    def _temperature(self, step: int) -> float:
        """Of sampling, old and new log-probs and the teacher alike."""
        settings = self.config.generation
        if settings.temperature_end is None:
            return settings.temperature
        share = step / max(1, self.config.ppo.num_steps - 1)
        return settings.temperature + share * (settings.temperature_end - settings.temperature)

    def _rows(self, step: int) -> list[int]:
        """Indices into the training problems: walks through one shuffled pass after another, this process's share."""
        ppo = self.config.ppo
        if self.sampler is not None:
            drawn = self.sampler.rows(step)
            return [drawn[row // ppo.group_size] for row in distributed.my_rows(ppo.batch_size)]
        prompts_per_step = ppo.batch_size // ppo.group_size
        wanted = [step * prompts_per_step + row // ppo.group_size for row in distributed.my_rows(ppo.batch_size)]
        return [self._order(epoch)[i] for epoch, i in (divmod(place, len(self.problems)) for place in wanted)]

    def _order(self, epoch: int) -> list[int]:
        """The shuffled problems of one pass; kept for this pass and the one before, as shuffling many takes long."""
        if epoch not in self._orders:
            order = list(range(len(self.problems)))
            random.Random(f"{self.config.seed}:prompts:{epoch}").shuffle(order)
            self._orders = {old: rows for old, rows in self._orders.items() if old == epoch - 1} | {epoch: order}
        return self._orders[epoch]

    def _generate(
        self, model: ActorCritic, prompt_ids: list[list[int]], step: int, temperature: float, scoring: Scoring
    ) -> list[Generated]:
        """Completions of the prompts; each batch goes to the teacher as soon as it is sampled."""

        def score(rows: Sequence[int], batch: Sequence[Generated]) -> None:
            scoring.add(rows, [prompt_ids[row] for row in rows], [generated.token_ids for generated in batch])

        settings = self.config.generation
        sampling = Sampling(settings.max_completion_length, temperature, settings.top_p)
        rng = random.Random(f"{self.config.seed}:sampling:{step}")
        seeds = [rng.getrandbits(62) for _ in range(self.config.ppo.batch_size)]
        mine = distributed.my_rows(self.config.ppo.batch_size)
        return self.engine.generate(model.policy, prompt_ids, sampling, [seeds[row] for row in mine], score)

    def _completion(self, prompt_ids: list[int], generated: Generated) -> Completion:
        text = added_text(self.tokenizer, prompt_ids, generated.token_ids)
        return Completion(text, generated.token_ids, generated.finish)

    def _start_scores(self, sampled: Sampled) -> PendingScores:
        """The reward functions, which begin in the background."""
        return self.blend.start(**reward_inputs(sampled.problems, sampled.completions))

    def _teacher_columns(self, teacher: TeacherScores, lengths: Sequence[int]) -> dict[str, list]:
        """Columns for the rewards that read the teacher's pass; no entropy where a server tells that of its top k."""
        columns = {"teacher_logprobs": teacher.logprobs_N}
        if self.config.teacher.placement != "remote":
            columns["teacher_entropy"] = teacher.entropy_N
        return {name: [row.tolist() for row in flat.split(lengths)] for name, flat in columns.items()}

    def _counted(self, problems: Sequence[Problem], scores: BlendedScores) -> BlendedScores:
        """The scores, without a total where the problem's source, or the problem itself, is for the anchor alone."""
        quiet = {entry.label for entry in self.config.data.mixture or () if entry.anchor_only}
        routed = self.config.anchor.prompts == "routed"
        if not quiet and not routed:
            return scores
        silent = [problem.source in quiet or bool(routed and problem.teacher_right) for problem in problems]
        totals = zip(silent, scores.total, strict=True)
        return replace(scores, total=[None if is_silent else total for is_silent, total in totals])

    def _joins_heads(self, scoring: Scoring) -> bool:
        """Whether the teacher's numbers come out of the pass for the policy's old ones, which applies both heads for
        the exact KL; the teacher's own pass then ends at its hidden states.
        """
        if not isinstance(scoring, DeferredScoring) or not reads_exact_kl(self.config) or has_one_update(self.config):
            return False
        scoring.states_only = True
        return True

    @torch.no_grad()
    def _token_states(
        self,
        model: ActorCritic,
        sampled: Sampled,
        teacher: TeacherScores,
        generated: Sequence[Generated],
        joined: bool,
    ) -> TokenStates:
        """Old log-probs, entropy, KL and old values, by the forward that training uses; NaN, without a forward, where
        the update is to tell them (see has_one_update). `joined`: the teacher's log-probs and entropy as well.

        Why sorted and put back: batches of similar length compute little padding, and ZeRO-3 and FSDP gather weights
        in every forward, so processes with fewer batches repeat their last one. Example: completions of 2, 5 and 3
        tokens in batches of two: places [0, 1, 7, 8, 9], then [2 .. 6], together all N = 10.
        """
        lengths, device = sampled.lengths, teacher.logprobs_N.device
        scalars_NK = flat_teacher_scalars(teacher.logprobs_N, teacher.entropy_N, lengths)
        if has_one_update(self.config):
            unknown_N = torch.full_like(teacher.logprobs_N, torch.nan)
            return TokenStates(unknown_N, unknown_N, unknown_N, torch.zeros_like(unknown_N), teacher, scalars_NK)
        ends = [len(prompt) + length for prompt, length in zip(sampled.prompt_ids, lengths, strict=True)]
        places, parts = [], []
        for rows in distributed.in_step(list(length_sorted(ends, self.config.generation.batch_size))):
            places_n = places_of_rows(lengths, rows).to(device)
            inputs = (teacher.hidden_NE[places_n], teacher.logprobs_N[places_n], scalars_NK[places_n])
            parts.append(self._policy_states(model, sampled, rows, *inputs, joined))
            places.append(places_n)
        places_N, states_NS = torch.cat(places), torch.cat(parts)
        ordered_NS = torch.empty_like(states_NS[: sum(lengths)])
        ordered_NS[places_N] = states_NS  # a batch that was repeated to stay in step is written twice
        logprobs_N, entropy_N, kl_N, values_N, *of_teacher = ordered_NS.unbind(1)
        if joined:
            teacher = replace(teacher, logprobs_N=of_teacher[0], entropy_N=of_teacher[1])
            scalars_NK = flat_teacher_scalars(teacher.logprobs_N, teacher.entropy_N, lengths)
        told_N = _sampler_logprobs(generated, ordered_NS)
        return TokenStates(logprobs_N, entropy_N, kl_N, values_N, teacher, scalars_NK, told_N)

    def _policy_states(
        self,
        model: ActorCritic,
        sampled: Sampled,
        rows: Sequence[int],
        teacher_hidden_nE: Tensor,
        teacher_logprobs_n: Tensor,
        teacher_scalars_nK: Tensor,
        joined: bool,
    ) -> Tensor:
        """(n, 4): log-probability, entropy, KL and value of each token of these rows; `joined`: (n, 6), with the
        teacher's log-probability and entropy.
        """
        exact, device = reads_exact_kl(self.config), teacher_logprobs_n.device
        batch = token_batch(
            [sampled.prompt_ids[row] for row in rows],
            [sampled.completions[row].token_ids for row in rows],
            self.tokenizer.pad_token_id,
        )
        output = model(
            batch.input_ids_BL.to(device),
            batch.state_index_N.to(device),
            batch.targets_N.to(device),
            temperature=sampled.temperature,
            teacher_hidden_NE=teacher_hidden_nE,
            teacher_weight_VE=self.teacher.lm_head_weight_VE if exact else None,
            teacher_scalars_NK=teacher_scalars_nK,
            completion_lengths=[sampled.lengths[row] for row in rows] if joined else None,
        )
        kl_n = kl_k1(output.logprobs_N, teacher_logprobs_n) if output.kl_N is None else output.kl_N
        values_n = torch.zeros_like(output.logprobs_N) if output.values_N is None else output.values_N
        columns = [output.logprobs_N, output.entropy_N, kl_n, values_n]
        for column in (output.teacher_logprobs_N, output.teacher_entropy_N):
            columns += [] if column is None else [column]
        return torch.stack(columns, dim=1)

    def state_dict(self) -> dict[str, int]:
        return {"teacher_tokens_scored": self.teacher_tokens_scored}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.teacher_tokens_scored = state["teacher_tokens_scored"]

    def _observe(self, rollout: Rollout) -> None:
        """Checks the numbers and lets the anchor's coefficient follow the evidence of all processes."""
        kl_N, scored = rollout.states.kl_N.double(), self.teacher.tokens_scored - self._scored_before
        sums = torch.stack([kl_N.sum(), torch.full_like(kl_N.sum(), len(kl_N)), torch.full_like(kl_N.sum(), scored)])
        total, count, scored_everywhere = distributed.sum_over_processes(sums).tolist()
        self.teacher_tokens_scored += round(scored_everywhere)
        self._scored_before += scored
        kl = total / count
        if not has_one_update(self.config) and self.explodes(kl):
            of_rows = [float(row.sum().nan_to_num(math.inf)) for row in kl_N.split(rollout.lengths)]
            worst = of_rows.index(max(of_rows))
            self.stop_at_kl(rollout.step, kl, f"; worst prompt {rollout.problems[worst].prompt[:80]!r}")
        tasks = distributed.gather_list([problem.task for problem in rollout.problems])
        solved = distributed.gather_list(successes(rollout.scores))
        self.coefficient.observe(tasks=tasks, successes=solved, kl=kl)
        if self.sampler is not None:
            self.sampler.observe(solved)
            rows = zip(rollout.prompt_ids, rollout.lengths, strict=True)
            self.sampler.observe_tokens(distributed.gather_list([len(prompt) + length for prompt, length in rows]))

    def explodes(self, kl: float) -> bool:
        """Whether a mean KL per token is one at which a run stops."""
        limit = self.config.ppo.stop_at_kl
        return math.isnan(kl) or (limit is not None and kl > limit)

    def stop_at_kl(self, step: int, kl: float, details: str = "") -> NoReturn:
        """Raises TrainingStopped because of this KL."""
        raise TrainingStopped(
            f"step {step}: KL to the teacher is {kl:.4g} per token (limit ppo.stop_at_kl: "
            f"{self.config.ppo.stop_at_kl}){details}. The last checkpoint is kept: resume from it with a lower "
            "ppo.learning_rate or a stronger anchor"
        )


def _sampler_logprobs(generated: Sequence[Generated], like: Tensor) -> Tensor | None:
    """What the sampler says of its own tokens, flat, where it says anything."""
    if not generated or generated[0].logprobs is None:
        return None
    return like.new_tensor([value for item in generated for value in item.logprobs or ()])


def successes(scores: BlendedScores) -> list[float | None]:
    """The verified part of each score, whichever check applied to it; None where nothing was verified."""
    parts = [scores.parts[name] for name in VERIFYING_REWARDS if name in scores.parts]
    found = [[value for value in row if value is not None] for row in zip(*parts, strict=True)]
    return [max(row) if row else None for row in found] if parts else [None] * len(scores.total)
