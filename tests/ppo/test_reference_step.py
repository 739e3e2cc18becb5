"""One whole PPO step against a reference written row by row: nothing in it is the project's but the models' weights.

Rows are finished, cut by length and unscored, of different lengths. The policy has moved since it sampled, so that
ratios clip on both sides. Everything is in float64 but the models' norms, which transformers computes in float32, and
gradients of every weight are compared.
"""

import copy
import math
from dataclasses import dataclass, replace

import pytest
import torch

from rl_distill import pipeline
from rl_distill.generation.sampling import Generated
from rl_distill.ppo.minibatches import micro_batches
from rl_distill.ppo.rollout_metrics import rollout_metrics
from rl_distill.types import Finish
from tests.tiny_run import make_config, make_context

EOS = 1
STEP = {
    "ppo__batch_size": 8,
    "ppo__num_minibatches": 1,
    "ppo__micro_batch_size": 3,
    "ppo__num_epochs": 2,  # so that there is a rollout to move away from, without a critic too
    "ppo__entropy_coef": 0.0625,
    "ppo__gamma": 0.97,
    "ppo__lam": 0.9,
    "ppo__clip_high": 0.3,
    "ppo__dual_clip": 1.5,
    "generation__temperature": 0.8,
    "teacher__autocast": "off",
    "anchor__schedule": "fixed",
    "anchor__coef": 0.25,
}
LENGTHS = [3, 12, 1, 7, 12, 12, 5, 9]
CUT, UNSCORED = {1, 4, 5, 6}, {2, 5}  # row 5 is both; row 6 was cut by a context window, below the length limit


@dataclass
class Row:
    prompt: list[int]
    completion: list[int]
    cut: bool
    score: float | None


class Scripted:
    """Samples nothing: returns completions of known lengths."""

    def generate(self, policy, prompt_ids, sampling, seeds, on_batch=None):
        torch.manual_seed(1)
        generated = []
        for row, length in enumerate(LENGTHS):
            ids = torch.randint(5, 250, (length,)).tolist()
            if row not in CUT:
                ids[-1] = EOS
            generated.append(Generated(ids, Finish.LENGTH if row in CUT else Finish.STOP))
        on_batch(range(len(generated)), generated)
        return generated


def make_step(folder, **settings):
    """(trainer, rollout, the rows) with scores drawn here and the policy and critic moved after the rollout."""
    config = make_config(folder, **STEP | settings)
    context = make_context(config)
    context = replace(context, student=context.student.double())
    context.teacher.model.double()
    trainer = pipeline.make_trainer(config, context)
    model = trainer.model.double()
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    if model.critic is not None:
        (model.critic.head if hasattr(model.critic, "head") else model.critic.mlp[-1]).weight.data.normal_()
    trainer.collector.engine = Scripted()
    drawn = torch.randn(len(LENGTHS)).tolist()
    start = trainer.collector.blend.start

    class Scored:
        def __init__(self, pending):
            self.pending = pending

        def finish(self, columns):
            scores = self.pending.finish(columns)
            scores.total[:] = [None if row in UNSCORED else score for row, score in enumerate(drawn)]
            return scores

    trainer.collector.blend.start = lambda **batch: Scored(start(**batch))
    old = copy.deepcopy(model)
    rollout = trainer.collector.collect(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
    rows = [
        Row(prompt, c.token_ids, c.finish is Finish.LENGTH, score)
        for prompt, c, score in zip(rollout.prompt_ids, rollout.completions, rollout.scores.total, strict=True)
    ]
    return trainer, rollout, rows, old


class Reference:
    """PPO as its papers say, for one completion after the other."""

    def __init__(self, config, model, old, teacher, rows):
        self.config, self.model, self.old, self.teacher, self.rows = config, model, old, teacher, rows
        self.temperature = config.generation.temperature

    def logits(self, policy, row):
        """(T, V): what each token of the completion was drawn from."""
        ids = torch.tensor([row.prompt + row.completion])
        first = len(row.prompt) - 1
        return policy(ids).logits[0, first : first + len(row.completion)] / self.temperature

    def logprobs(self, policy, row):
        """([log p of token t], [log p over the vocabulary before token t])."""
        everything = self.logits(policy, row) - self.logits(policy, row).exp().sum(1, keepdim=True).log()
        return [everything[t, token] for t, token in enumerate(row.completion)], everything

    def states(self, trunk, row):
        first = len(row.prompt) - 1
        hidden = trunk(torch.tensor([row.prompt + row.completion])).last_hidden_state[0]
        return hidden[first : first + len(row.completion)]

    def values(self, model, row):
        """The critic's value of the state before each token, from its weights."""
        weights = dict(model.critic.named_parameters()) if model.critic is not None else {}
        if not weights:
            return [torch.zeros(()) for _ in row.completion]
        if "head.weight" in weights:
            trunk = model.critic.trunk if hasattr(model.critic, "trunk") else model.policy.model
            return [h @ weights["head.weight"][0] + weights["head.bias"][0] for h in self.states(trunk, row)]
        with torch.no_grad():
            student, teacher = self.states(model.policy.model, row), self.states(self.teacher.model, row)
            log_q, all_q = self.logprobs(self.teacher, row)
        values = []
        for t in range(len(row.completion)):
            before = [float(x) for x in log_q[:t]]
            entropy = -float((all_q[t].exp() * all_q[t]).sum())
            scalars = [before[-1] / 4, min(0.0, *before) / 8, sum(before) / 16] if before else [0.0, 0.0, 0.0]
            scalars = torch.tensor([*scalars, entropy], dtype=torch.float64).clamp(-4, 4)
            parts = [norm(student[t], weights, "student_norm"), norm(teacher[t], weights, "teacher_norm"), scalars]
            inner = torch.tanh(weights["mlp.0.weight"] @ torch.cat(parts) + weights["mlp.0.bias"])
            values.append(weights["mlp.2.weight"][0] @ inner + weights["mlp.2.bias"][0])
        return values

    def trains(self, row):
        return row.score is not None and not (self.config.ppo.mask_truncated and row.cut)

    def old_numbers(self):
        """Of each row: old log-probs, old values, advantages before normalising, returns."""
        ppo, anchor, numbers = self.config.ppo, self.config.anchor, []
        for row in self.rows:
            with torch.no_grad():
                log_p = [float(x) for x in self.logprobs(self.old.policy, row)[0]]
                log_q = [float(x) for x in self.logprobs(self.teacher, row)[0]]
                values = [float(x) for x in self.values(self.old, row)]
            rewards = [0.0] * len(log_p)
            rewards[-1] = row.score or 0.0
            if anchor.placement == "reward":
                rewards = [r - anchor.coef * (p - q) for r, p, q in zip(rewards, log_p, log_q, strict=True)]
            advantages, advantage, following = [], 0.0, 0.0
            for reward, value in zip(reversed(rewards), reversed(values), strict=True):
                advantage = reward + ppo.gamma * following - value + ppo.gamma * ppo.lam * advantage
                following = value
                advantages.insert(0, advantage)
            returns = [a + v for a, v in zip(advantages, values, strict=True)]
            numbers.append((log_p, values, advantages, returns, sum(rewards)))
        if ppo.advantage == "group_mean":
            numbers = [self.with_group_mean(i, numbers) for i in range(len(numbers))]
        return numbers

    def with_group_mean(self, index, numbers):
        size = self.config.ppo.group_size
        group = [i for i in range(len(numbers)) if i // size == index // size and self.trains(self.rows[i])]
        mean = sum(numbers[i][4] for i in group) / len(group) if group else 0.0
        log_p, values, advantages, returns, total = numbers[index]
        return log_p, values, [total - mean] * len(advantages), returns, total

    def loss(self):
        """(the loss of the step, its statistics)."""
        ppo, anchor = self.config.ppo, self.config.anchor
        numbers = self.old_numbers()
        trained = [(row, n) for row, n in zip(self.rows, numbers, strict=True) if self.trains(row)]
        pool = [a for _, n in trained for a in n[2]]
        mean = sum(pool) / len(pool)
        scale = max(math.sqrt(sum((a - mean) ** 2 for a in pool) / len(pool)), 0.01)
        all_tokens = sum(len(row.completion) for row in self.rows)
        total, clipped, ratios = torch.zeros((), dtype=torch.float64), 0, 0.0
        for row, (old_log_p, old_values, advantages, returns, _) in trained:
            log_p, _ = self.logprobs(self.model.policy, row)
            values = self.values(self.model, row)
            for t in range(len(row.completion)):
                a = (advantages[t] - mean) / scale
                ratio = (log_p[t] - old_log_p[t]).exp()
                bounded = min(max(float(ratio), 1 - ppo.clip_low), 1 + ppo.clip_high)
                objective = min(ratio * a, torch.tensor(bounded * a, dtype=torch.float64), key=float)
                if a < 0 and float(objective) < ppo.dual_clip * a:
                    objective = torch.tensor(ppo.dual_clip * a, dtype=torch.float64)
                clipped += float(objective) != float(ratio * a)
                ratios += float(ratio)
                total = total - ppo.policy_coef * objective / len(pool)
                if self.model.critic is not None:
                    low, high = old_values[t] - ppo.value_clip, old_values[t] + ppo.value_clip
                    kept = (
                        values[t]
                        if low <= float(values[t]) <= high
                        else torch.tensor(low if float(values[t]) < low else high)
                    )
                    errors = [(values[t] - returns[t]) ** 2, (kept - returns[t]) ** 2]
                    total = total + ppo.value_coef * 0.5 * max(errors, key=float) / len(pool)
        for row in self.rows:
            _, log_p = self.logprobs(self.model.policy, row)
            with torch.no_grad():
                _, log_q = self.logprobs(self.teacher, row)
            total = total + ppo.entropy_coef * (log_p.exp() * log_p).sum() / all_tokens
            if anchor.placement == "loss":
                total = total + anchor.coef * (log_p.exp() * (log_p - log_q)).sum() / all_tokens
        return total, {"clip_fraction": clipped / len(pool), "ratio": ratios / len(pool), "values": trained}


def norm(x, weights, name):
    """Layer norm."""
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def explained(trained):
    returns = [x for _, n in trained for x in n[3]]
    errors = [r - v for _, n in trained for r, v in zip(n[3], n[1], strict=True)]

    def variance(xs):
        return sum((x - sum(xs) / len(xs)) ** 2 for x in xs) / len(xs)

    return 1 - variance(errors) / variance(returns)


@pytest.mark.parametrize(
    ("critic", "settings"),
    [
        ("shared", {}),
        ("separate", {}),
        ("teacher_informed", {}),
        ("shared", {"anchor__placement": "reward", "anchor__estimator": "k1"}),
        ("teacher_informed", {"ppo__mask_truncated": True}),
        ("none", {"ppo__advantage": "group_mean", "ppo__group_size": 4}),
        (
            "none",
            {
                "ppo__advantage": "group_mean",
                "ppo__group_size": 4,
                "anchor__placement": "reward",
                "anchor__estimator": "k1",
                "ppo__mask_truncated": True,
            },
        ),
    ],
)
def test_the_gradient_of_a_step_is_the_references(tmp_path, critic, settings):
    if critic != "none":
        settings = settings | {"ppo__critic": critic}
    trainer, rollout, rows, old = make_step(tmp_path, **settings)
    teacher = trainer.collector.teacher.model
    expected, stats = Reference(trainer.config, trainer.model, old, teacher, rows).loss()
    names, parameters = zip(*trainer.model.named_parameters(), strict=True)
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)

    every = list(range(len(rows)))
    pieces = micro_batches(rollout, every, trainer.config, trainer.collector.tokenizer.pad_token_id)
    assert len(pieces) == 3
    loss = sum(trainer.compute_loss(trainer.model, piece) for piece in pieces)
    loss.backward()
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    for name, parameter, gradient in zip(names, parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-6, msg=name)
    assert max(float(gradient.abs().max()) for gradient in wanted if gradient is not None) > 0.01

    summed = {name: sum(float(s[name]) for s in trainer.step_stats) for name in trainer.step_stats[0]}
    assert 0.05 < stats["clip_fraction"] < 0.95
    assert summed["policy/clip_fraction"] == pytest.approx(stats["clip_fraction"], abs=1e-6)
    assert summed["policy/ratio"] == pytest.approx(stats["ratio"], abs=1e-6)
    if critic != "none":
        found = rollout_metrics(rollout, trainer.collector.coefficient)["explained_variance"]
        assert found == pytest.approx(explained(stats["values"]), rel=1e-5)
