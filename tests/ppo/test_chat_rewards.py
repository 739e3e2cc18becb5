"""Chat data inside a run: reward functions see messages, TRL's own included, and the prompt as the model saw it."""

import json
from dataclasses import replace

import pytest

from reward_models import resolve
from rl_distill import pipeline
from rl_distill.config import DataConfig
from rl_distill.data.loading import load_problems
from rl_distill.data.reward_inputs import reward_inputs
from rl_distill.evals.engine import Item, said
from rl_distill.types import Completion, Finish, Problem, Splits
from tests.tiny_run import make_config, make_context

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}Q: {% endif %}"
)
PROBE = """
seen = []

def probe(prompts, completions, rendered_prompt, **kwargs):
    seen.extend(zip(prompts, completions, rendered_prompt))
    return [0.5] * len(completions)
"""


@pytest.fixture
def problems(tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": f"What is {n} + {n}?"}], "solution": f"${2 * n}$", "extra": {"n": [n]}}
        for n in range(12)
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("chat", ["messages", "text in the template", "text"])
def test_a_run_hands_chat_to_trls_functions_as_messages(tmp_path, problems, chat):
    (tmp_path / "probe_rewards.py").write_text(PROBE)
    fn = f"{tmp_path}/probe_rewards.py:probe"
    rewards = [{"fn": "trl.rewards:accuracy_reward"}, {"fn": "trl.rewards:think_format_reward"}, {"fn": fn}]
    config = make_config(tmp_path / "run", ppo__num_steps=1, rewards=rewards)
    context = make_context(config)
    context.tokenizer.chat_template = TEMPLATE
    if chat != "messages":
        rows = [json.loads(line) for line in problems.read_text().splitlines()]
        rows = [row | {"prompt": row["prompt"][0]["content"]} for row in rows]
        problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(task="math", chat=chat == "text in the template")
    loaded = load_problems(data, str(problems), "train", context.tokenizer)
    splits = Splits(cold_start=[], train=loaded, validation=[], test=[])
    trainer = pipeline.make_trainer(config, replace(context, splits=splits))
    rollout = trainer.collector.collect(trainer.model, 0)
    assert rollout.scores.parts["accuracy_reward"] == [0.0] * 8
    assert rollout.scores.total == [0.5] * 8
    prompts, completions, rendered = zip(*resolve(fn).__globals__["seen"], strict=True)
    texts = [completion.text for completion in rollout.completions]
    if chat == "text":
        assert list(completions) == texts
        assert list(prompts) == list(rendered) == [problem.prompt for problem in rollout.problems]
    else:
        assert list(completions) == [[{"role": "assistant", "content": text}] for text in texts]
        assert [prompt[0]["role"] for prompt in prompts] == ["user"] * 8
        assert list(rendered) == [f"<user>{prompt[0]['content']}Q: " for prompt in prompts]


def test_reward_inputs_of_chat_beside_text():
    user = [{"role": "user", "content": "hi"}]
    problems = [Problem("a", "1", "<user>hi", messages=user, columns={"x": 1}), Problem("b", "2", "hello")]
    completions = [Completion("ho", [1], Finish.STOP), Completion("there", [2, 3], Finish.LENGTH)]
    assert reward_inputs(problems, completions) == {
        "prompts": [user, "hello"],
        "completions": [[{"role": "assistant", "content": "ho"}], "there"],
        "completion_ids": [[1], [2, 3]],
        "columns": {
            "x": [1, None],
            "task": ["a", "b"],
            "finished": [True, False],
            "rendered_prompt": ["<user>hi", "hello"],
        },
    }


def test_graders_of_an_evaluation_see_where_reasoning_starts():
    problem = Problem("a", "1", "2x?")
    assert said(Item(0, 0, problem, "2x?<assistant><think>\n", [1]), "draft") == "<think>draft"
    assert said(Item(0, 0, problem, "2x?<assistant>", [1]), "answer") == "answer"
