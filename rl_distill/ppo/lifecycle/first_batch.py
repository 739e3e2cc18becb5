"""What a run shows of its first rollout, where most wrong templates are seen, and its end where nothing is scored.

The preview is printed once and kept in output_dir. It draws nothing from the run's random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from reward_models import RewardError, RewardSpec

from ... import distributed
from ...config import RunConfig
from ...generation.sampling import Sampling, added_text
from ...startup.rewards import score_texts
from ...teachers import Teacher
from ...types import Finish, Problem
from ..rollout import TrainingStopped
from ..rollout_building import Rollout

FILE = "first_batch.txt"
NUM_SHOWN = 2
SHOWN_CHARACTERS = 1500
RewardLogs = dict[str, float]


class FirstBatchPreview(TrainerCallback):
    """Before the first update: the first prompts with their special tokens, the answers of teacher and student with
    their scores, and the share of answers that were cut. To be made and called on every process.
    """

    def __init__(self, config: RunConfig, teacher: Teacher, tokenizer: Any, rollout: Callable[[], Rollout]) -> None:
        self.config, self.teacher, self.tokenizer, self.rollout = config, teacher, tokenizer, rollout

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            text = self.text(self.rollout())
            if distributed.is_main():
                (Path(args.output_dir) / FILE).write_text(text)
                print(f"\n{text}", flush=True)

    def text(self, rollout: Rollout) -> str:
        """The preview. Every process queries the teacher, because a dedicated teacher waits for all of them."""
        problems = rollout.problems[:NUM_SHOWN]
        answers = self.teacher_answers(problems, rollout.prompt_ids[:NUM_SHOWN])
        cut = distributed.gather_list([completion.finish is Finish.LENGTH for completion in rollout.completions])
        lines = [f"first batch: {sum(cut)} of {len(cut)} answers were cut at {self.limit} tokens"]
        if sum(cut) > len(cut) / 2:
            lines[0] += " (raise generation.max_completion_length, or look whether answers ever end)"
        if not distributed.is_main():  # scoring is for the main process alone
            return ""
        scores = self.teacher_scores(problems, answers)
        for row, problem in enumerate(problems):
            completion, score = rollout.completions[row], rollout.scores.total[row]
            ended = "ended" if completion.finish is Finish.STOP else "cut"
            shown = self.tokenizer.decode(rollout.prompt_ids[row], skip_special_tokens=False)
            lines += [f"--- prompt {row + 1}, task {problem.task}, as the model sees it", _short(shown)]
            lines += [f"--- teacher, score {_number(scores[row])}", _short(answers[row])]
            own = self.tokenizer.decode(completion.token_ids, skip_special_tokens=False)
            lines += [f"--- student, score {_number(score)}, {ended}", _short(own)]
        return "\n".join(lines) + "\n"

    @property
    def limit(self) -> int:
        return self.config.generation.max_completion_length

    def teacher_answers(self, problems: Sequence[Problem], prompt_ids: Sequence[Sequence[int]]) -> list[str]:
        greedy = Sampling(self.limit, temperature=0.0)
        written = self.teacher.generate(prompt_ids, greedy, tasks=[problem.task for problem in problems])
        pairs = zip(prompt_ids, written, strict=True)
        return [added_text(self.tokenizer, ids, item.token_ids) for ids, item in pairs]

    def teacher_scores(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[float | None]:
        """By the run's rewards; None where they cannot score such a text, which is no reason to stop a run."""
        specs = [RewardSpec.from_config(entry) for entry in self.config.rewards]
        has_texts = self.config.teacher.num_outputs_per_prompt > 0
        try:
            return score_texts(specs, problems, texts, self._encode, has_teacher_texts=has_texts).total
        except (RewardError, ValueError):
            return [None] * len(texts)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _short(text: str) -> str:
    rest = len(text) - SHOWN_CHARACTERS
    half = SHOWN_CHARACTERS // 2
    return text if rest <= 0 else f"{text[:half]} [... {rest} characters ...] {text[-half:]}"


def _number(score: float | None) -> str:
    return "none" if score is None else f"{score:.3f}"


class StopWhereUnscored(TrainerCallback):
    """Ends the run with an error after `num_steps` PPO steps in a row in which no reward that counts scored anything.

    What `on_error: skip` and graders in trouble leave unscored teaches nothing; a few steps may pass so, not a run.
    """

    def __init__(self, num_steps: int | None, labels: Sequence[str]) -> None:
        self.num_steps, self.labels = num_steps, list(labels)
        self.in_a_row = 0

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.num_steps is None or not logs or "loss" not in logs:
            return
        self.in_a_row = self.in_a_row + 1 if self.nothing_scored(logs) else 0
        if self.in_a_row >= self.num_steps:
            raise TrainingStopped(
                f"none of the rewards {', '.join(self.labels)} has scored a completion for {self.in_a_row} steps: look "
                "at the columns they need and at what they log (ppo.stop_at_unscored_steps: null would go on)"
            )

    def nothing_scored(self, logs: RewardLogs) -> bool:
        """True where every reward with a weight left everything unscored, on all processes."""
        counting = [label for label in self.labels if logs.get(f"rewards/{label}/weight", 0.0) != 0.0]
        return bool(counting) and all(logs.get(f"rewards/{label}/unscored", 0.0) == 1.0 for label in counting)
