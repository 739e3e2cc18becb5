"""The examples run, and PPO in one file is the library's PPO."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from examples import own_model_and_data, ppo_in_one_file
from rl_distill.generation.sampling import Generated
from rl_distill.types import Finish
from tests.tiny_run import make_config, make_context, make_trainer

ROOT = Path(__file__).parents[1]
SAME = {
    "ppo__num_epochs": ppo_in_one_file.NUM_EPOCHS,
    "ppo__num_minibatches": 1,
    "ppo__critic": "shared",
    "ppo__final_learning_rate_fraction": 1.0,
    "ppo__learning_rate": ppo_in_one_file.LEARNING_RATE,
    "ppo__value_learning_rate": ppo_in_one_file.VALUE_LEARNING_RATE,
    "anchor__schedule": "fixed",
    "rewards": [{"fn": "tests.test_examples:letters"}],
}


def letters(completions, **kwargs):
    """A reward that differs between any two completions, right or wrong."""
    return [(7 * sum(map(ord, text)) % 100) / 100 for text in completions]


class Ending:
    """The trainer's engine, where every other completion ends with EOS, sooner or later, and the rest are cut."""

    def __init__(self, engine, eos_id):
        self.engine, self.eos_id, self.seen = engine, eos_id, []

    def generate(self, policy, prompt_ids, sampling, seeds, on_batch=None):
        rows = self.engine.generate(policy, prompt_ids, sampling, seeds)
        ended = [Generated([*row.token_ids[: 2 + i], self.eos_id], Finish.STOP) for i, row in enumerate(rows)]
        cut = [ended[i] if i % 2 else row for i, row in enumerate(rows)]
        self.seen.append(([list(ids) for ids in prompt_ids], [row.token_ids for row in cut]))
        if on_batch is not None:
            on_batch(range(len(cut)), cut)
        return cut


def library_steps(folder):
    """(student before, teacher, what each step saw, the trainer after three steps)."""
    trainer = make_trainer(folder, **SAME)
    student = deepcopy(trainer.actor_critic.policy)
    trainer.collector.engine = Ending(trainer.collector.engine, trainer.collector.tokenizer.eos_token_id)
    collect, scores = trainer.collector.collect, []

    def and_keep_scores(*args, **kwargs):
        rollout = collect(*args, **kwargs)
        scores.append(list(rollout.scores.total))
        return rollout

    trainer.collector.collect = and_keep_scores
    trainer.train()
    teacher = trainer.collector.teacher.model
    return student, teacher, [(*s, z) for s, z in zip(trainer.collector.engine.seen, scores)], trainer


def test_three_steps_of_the_one_file_equal_the_librarys(tmp_path):
    student, teacher, steps, trainer = library_steps(tmp_path)
    model = ppo_in_one_file.ActorCritic(student)
    before = deepcopy(student.state_dict())
    optimizer = ppo_in_one_file.make_optimizer(model)
    assert len(steps) == 3
    for prompts, completions, scores in steps:
        ppo_in_one_file.ppo_step(model, teacher, optimizer, prompts, completions, scores, pad_id=0)
    after = dict(trainer.actor_critic.policy.state_dict())
    for name, ours in model.student.state_dict().items():
        moved, apart = after[name] - before[name], ours - after[name]
        assert apart.norm() < 0.005 * moved.norm(), name  # Adam turns float32 noise of a zero gradient into a step
    head = trainer.actor_critic.critic.head
    torch.testing.assert_close(model.value_head.weight, head.weight, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(model.value_head.bias, head.bias, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("constant", ["GAMMA", "LAMBDA", "CLIP", "VALUE_COEF", "KL_COEF"])
def test_the_comparison_notices_every_constant(tmp_path, monkeypatch, constant):
    """The test above can fail: a change of any constant moves the weights by more than its tolerance."""
    monkeypatch.setattr(ppo_in_one_file, constant, 0.01 if constant == "CLIP" else 0.7)
    with pytest.raises(AssertionError):
        test_three_steps_of_the_one_file_equal_the_librarys(tmp_path)


def test_the_toy_of_the_one_file_runs(capsys):
    rewards = ppo_in_one_file.main(num_steps=2, batch_size=4, max_tokens=3)
    assert len(rewards) == 2
    assert "step  2  reward" in capsys.readouterr().out


def test_own_models_and_data_end_to_end(tmp_path, monkeypatch):
    context = make_context(make_config(tmp_path))
    for name, model in (("student", context.student), ("teacher", context.teacher.model)):
        model.save_pretrained(tmp_path / name)
        context.tokenizer.save_pretrained(tmp_path / name)
    rows = [{"prompt": p.prompt, "task": p.task, **p.columns} for p in context.splits.train]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    words = "--student student --teacher teacher --data prompts.jsonl --output_dir run --batch_size 8 --epochs 0.2"
    own_model_and_data.main([*words.split(), "--max_completion_length", "8"])
    assert (tmp_path / "run" / "final" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
def test_own_rewards_run(tmp_path):
    script = ROOT / "examples" / "own_reward.py"
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    first = json.loads((tmp_path / "runs" / "own_reward" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"rewards/brevity/mean", "rewards/says_its_answer/mean"} <= set(first)
