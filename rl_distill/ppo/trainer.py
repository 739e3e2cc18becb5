"""PPO on transformers.Trainer: the train dataloader IS the rollout stream, compute_loss is the PPO loss.

Trainer owns Accelerate, DeepSpeed, FSDP, precision, schedules, logging and checkpoints; only its documented hooks are
overridden. One PPO step = one rollout, then num_epochs x num_minibatches optimizer steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, Trainer, TrainerCallback

from .. import distributed
from ..config import RunConfig
from ..hf_training import summed_over_processes
from ..maths.losses import anchor_loss, entropy_bonus, policy_loss, value_loss
from ..maths.schedules import warmup_cosine
from ..models.actor_critic import ActorCritic, ActorCriticOutput, clip_gradients, parameter_groups
from ..models.packing import packs
from ..timing import Phases
from . import checkpoint
from .anchor import anchor_kl, watched_kl
from .hf_arguments import training_arguments, updates_per_step
from .lifecycle.alarms import alarm_metrics
from .lifecycle.interruption import StopOnSignal
from .minibatches import minibatches
from .rank_padding import PaddedMicroBatches
from .rollout import RolloutCollector, TrainingStopped
from .rollout_building import has_one_update
from .rollout_metrics import rollout_metrics

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class RolloutStream:
    """A stream of micro-batches: collects a rollout whenever the last one is used up.

    Empty where training is over already, so that resuming from the last checkpoint trains no step too many.
    """

    def __init__(self, trainer: PPOTrainer) -> None:
        self.trainer = trainer

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        trainer, config = self.trainer, self.trainer.config
        step = trainer.state.global_step // updates_per_step(config)
        while step < config.ppo.num_steps and not trainer.control.should_training_stop:
            rollout = trainer.collector.collect(trainer.actor_critic, step, trainer.gathered_weights)
            number = trainer.args.gradient_accumulation_steps
            pad = trainer.collector.tokenizer.pad_token_id
            filling = PaddedMicroBatches(rollout, config, pad, number, trainer.packed)
            for epoch in range(config.ppo.num_epochs):
                for rows in minibatches(rollout, config, epoch):
                    yield from filling.micro_batches(rows)
            step += 1


class PPOTrainer(Trainer):
    """Trains an ActorCritic from a RolloutCollector. `validate` returns accuracies by task and "overall"."""

    def __init__(
        self,
        model: ActorCritic,
        config: RunConfig,
        collector: RolloutCollector,
        validate: Callable[[Any], dict[str, float]],
        output_dir: Path,
        callbacks: Sequence[TrainerCallback] = (),
        parts: checkpoint.StatefulParts | None = None,
    ) -> None:
        self.parts = parts or checkpoint.StatefulParts()
        self.config, self.collector, self.validate = config, collector, validate
        self.actor_critic = model
        self.packed = packs(config, model.policy)
        self.interruption = StopOnSignal(updates_per_step(config))
        self.phases: Phases = collector.phases
        self.step_stats: list[dict[str, Tensor]] = []
        self.grad_norms: list[dict[str, float]] = []
        super().__init__(
            model=model,
            args=training_arguments(config, output_dir, collector.longest_row),
            train_dataset=collector.problems,
            eval_dataset=collector.problems,
            processing_class=collector.tokenizer,
            callbacks=[
                SeparateGradClipping(self),
                self.interruption,
                *callbacks,
                checkpoint.CompleteCheckpoints(
                    self.parts, config.checkpoint.keep_last, keep_best=config.evaluation.load_best
                ),
            ],
        )
        distributed.check_world(self.args.world_size)
        if config.ppo.bf16:
            distributed.compute_in_bf16(self.accelerator)
        self.loss_is_scaled_for_ga = True
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> Any:
        return RolloutStream(self)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW (or `args.optim`) over the policy's and the critic's parameter groups, each with its learning rate."""
        if self.optimizer is None:
            ppo = self.config.ppo
            cls, kwargs = self.get_optimizer_cls_and_kwargs(self.args, self.actor_critic)
            groups = parameter_groups(self.actor_critic, ppo.learning_rate, ppo.value_learning_rate, ppo.weight_decay)
            self.optimizer = cls(groups, **kwargs)
        return self.optimizer

    @property
    def critic_warmup_updates(self) -> int:
        """Optimizer steps at the start of the run in which only the critic learns. The policy then has gradients and a
        learning rate of 0, so that neither weight decay nor the optimizer's state moves it under any launch.
        """
        has_critic = self.actor_critic.critic is not None
        return self.config.ppo.critic_warmup_steps * updates_per_step(self.config) if has_critic else 0

    @property
    def in_critic_warmup(self) -> bool:
        return self.state.global_step < self.critic_warmup_updates

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """Warm-up, then cosine: the critic's from the first optimizer step, the policy's from its own first."""
        ppo, optimizer = self.config.ppo, optimizer or self.optimizer
        assert optimizer is not None
        shape = partial(
            warmup_cosine,
            warmup=ppo.warmup_steps * updates_per_step(self.config),
            total=num_training_steps,
            floor=ppo.final_learning_rate_fraction,
        )
        begins = {"policy": self.critic_warmup_updates, "critic": 0}
        factors: list[Callable[[int], float]] = [
            partial(shape, begin=begins[group["part"]]) for group in optimizer.param_groups
        ]
        scheduler = self.lr_scheduler = LambdaLR(optimizer, factors)
        return scheduler

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trainer.train, after which Ctrl-C and SIGTERM mean what they meant before, however it ends."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self.interruption.restore()

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        if not inputs:  # one of the micro-batches that this minibatch does not need (PaddedMicroBatches)
            return torch.zeros((), device=self.args.device)
        with self.phases("update"):
            return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Sum over this micro-batch's tokens / tokens of the whole minibatch: micro-batches and processes add up."""
        exact = self.config.anchor.placement == "loss" and self.config.anchor.estimator == "exact"
        output = model(
            inputs["input_ids_BL"],
            inputs["state_index_N"],
            inputs["targets_N"],
            temperature=inputs["temperature"],
            teacher_hidden_NE=inputs["teacher_hidden_NE"],
            teacher_weight_VE=self.collector.teacher.lm_head_weight_VE if exact else None,
            teacher_scalars_NK=inputs["teacher_scalars_NK"],
            teacher_top_ids_NK=inputs.get("teacher_top_ids_NK"),
            position_ids_BL=inputs.get("position_ids_BL"),
            critic_only=self.in_critic_warmup,
        )
        loss, stats = self._loss(output, inputs)
        if not torch.isfinite(loss):
            step = self.state.global_step // updates_per_step(self.config)
            raise TrainingStopped(
                f"step {step}: the loss is {loss.item()} ({ {name: x.item() for name, x in stats.items()} }). The last "
                "checkpoint is kept: resume from it with a lower ppo.learning_rate"
            )
        self.step_stats.append({name: value.detach() for name, value in stats.items()})
        return loss * distributed.world_size()  # DDP averages gradients over processes

    def _loss(self, output: ActorCriticOutput, inputs: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Policy and critic learn from scored rows; anchor and entropy need no score and are of all tokens."""
        ppo, count, trained_N = self.config.ppo, inputs["count"], inputs["trained_N"]
        one_update = has_one_update(self.config)
        surrogate, policy_stats = policy_loss(
            output.logprobs_N,
            output.logprobs_N.detach() if one_update else inputs["old_logprobs_N"],
            inputs["advantages_N"],
            trained_N,
            clip_low=ppo.clip_low,
            clip_high=ppo.clip_high,
            dual_clip=ppo.dual_clip,
            count=inputs["trained_count"],
        )
        entropy = entropy_bonus(output.entropy_N, count=count)
        anchor = self._anchor(output, inputs)
        loss = ppo.policy_coef * surrogate - ppo.entropy_coef * entropy + anchor
        stats = {"loss/policy": surrogate, "loss/anchor": anchor}
        stats |= {f"policy/{name}": value for name, value in asdict(policy_stats).items()}
        if one_update:  # the rollout's own numbers, which no pass before the update told
            stats |= {"kl": watched_kl(output, inputs).sum() / count, "entropy": entropy}
        if output.values_N is not None:
            if self.in_critic_warmup:
                # Only the critic learns now. Times 0, not left out: DDP and ZeRO wait for every parameter's gradient.
                loss = 0.0 * loss
            critic, value_stats = value_loss(
                output.values_N,
                inputs["old_values_N"],
                inputs["returns_N"],
                trained_N,
                clip=ppo.value_clip,
                count=inputs["trained_count"],
            )
            loss = loss + ppo.value_coef * critic
            stats |= {"loss/value": critic} | {f"value/{name}": value for name, value in asdict(value_stats).items()}
        return loss, stats

    def _anchor(self, output: ActorCriticOutput, inputs: dict[str, Any]) -> Tensor:
        """coefficient x KL(student || teacher), added to the loss; 0 where the anchor is in the reward or absent."""
        anchor = self.config.anchor
        if anchor.placement != "loss":
            return output.logprobs_N.new_zeros(())
        return anchor_loss(anchor_kl(anchor.estimator, output, inputs), inputs["anchor_N"], count=inputs["count"])

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Greedy accuracy on the validation problems, by task and overall, graded as training grades."""
        with self.phases("evaluate"), self.gathered_weights():
            accuracies = self.validate(self.model)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in accuracies.items()}
        metrics[f"{metric_key_prefix}_accuracy"] = accuracies["overall"]
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the rollout's and the updates' numbers to each training record."""
        if "loss" in logs and self.collector.last_rollout is not None:
            logs |= self._step_metrics()
            logs |= alarm_metrics(self.state.log_history, logs, self.config.alarms)
        super().log(logs, start_time)

    def _step_metrics(self) -> dict[str, float]:
        metrics = rollout_metrics(self.collector.latest(), self.collector.coefficient, self.config.ppo.group_size)
        metrics |= summed_over_processes(self.step_stats, updates_per_step(self.config))
        if has_one_update(self.config) and self.collector.explodes(metrics["kl"]):
            self.collector.stop_at_kl(self.collector.latest().step, metrics["kl"])
        if self.grad_norms:
            for name in self.grad_norms[0]:
                metrics[name] = sum(norms[name] for norms in self.grad_norms) / len(self.grad_norms)
        self.step_stats, self.grad_norms = [], []
        metrics["ppo_step"] = self.collector.latest().step + 1
        return metrics

    def gathered_weights(self) -> contextlib.AbstractContextManager:
        """Inside, every process holds all of the policy's weights, wherever they live while it trains."""
        return distributed.gathered_weights(self.model_wrapped, self.accelerator)

    def load_best(self) -> None:
        """Puts the weights of the best evaluated checkpoint into the model; nothing where none was saved."""
        best = self.state.best_model_checkpoint
        if best is not None:
            checkpoint.load_weights(self.actor_critic, Path(best))

    def spent(self) -> dict[str, int]:
        """Sequences sampled and teacher tokens scored by all processes since the run began, whatever interrupted it."""
        steps = self.state.global_step // updates_per_step(self.config)
        scored = self.collector.teacher_tokens_scored
        return {"student_sequences": steps * self.config.ppo.batch_size, "teacher_tokens_scored": scored}


class SeparateGradClipping(TrainerCallback):
    """Clips the policy's and the critic's gradients apart before the optimizer steps (DeepSpeed clips by itself)."""

    def __init__(self, trainer: PPOTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not distributed.is_deepspeed():
            model = self.trainer.accelerator.unwrap_model(self.trainer.model)
            self.trainer.grad_norms.append(clip_gradients(model, self.trainer.config.ppo.max_grad_norm))
