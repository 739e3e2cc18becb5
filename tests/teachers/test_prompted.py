"""A teacher with prompts of its own: it writes and scores under them, about the student's very tokens."""

import json

import pytest
import torch

from rl_distill import pipeline, run_setup
from rl_distill.config import ConfigError
from rl_distill.data.teacher_prompts import as_teacher_sees, prompt_table
from rl_distill.generation.sampling import Sampling
from rl_distill.models.tokenizers import prompt_ids
from rl_distill.progress import Stages
from rl_distill.startup.findings import StartError
from rl_distill.teachers.colocated import ColocatedTeacher
from rl_distill.teachers.prompted import PromptedTeacher
from rl_distill.types import Problem
from tests import own_models

TEMPLATE = "Hint: it is {answer}.\n{prompt}"
PROBLEMS = [Problem("t", str(i), f"{i}+1=", columns={"answer": str(i + 1)}) for i in range(4)]


@pytest.fixture
def folder(tmp_path):
    return own_models.write(tmp_path / "models")


def config(folder, **changes):
    return own_models.config(folder, folder.parent / "run", **{"teacher__model": str(folder / "large")} | changes)


def test_scores_and_texts_are_those_under_the_teachers_own_prompts(make_policy, tokenizer, folder):
    model, eos = make_policy(3), tokenizer.eos_token_id
    inner = ColocatedTeacher(model, eos_token_ids=[eos], pad_token_id=tokenizer.pad_token_id)
    teacher = PromptedTeacher(inner, prompt_table(TEMPLATE, config(folder).data, PROBLEMS, tokenizer))
    ours = prompt_ids(tokenizer, [problem.prompt for problem in PROBLEMS])
    theirs = tokenizer([f"Hint: it is {i + 1}.\n{i}+1=" for i in range(4)], add_special_tokens=False)["input_ids"]
    completions = [[20 + i, 30, eos] for i in range(4)]
    scores = teacher.score(ours, completions)
    for row, (prompt, completion) in enumerate(zip(theirs, completions, strict=True)):
        with torch.no_grad():
            logits_LV = model(torch.tensor([prompt + completion])).logits[0].float()
        logprobs_TV = logits_LV[len(prompt) - 1 : -1].log_softmax(-1)
        by_hand = [logprobs_TV[t, token].item() for t, token in enumerate(completion)]
        assert scores.logprobs_N[3 * row : 3 * row + 3].tolist() == pytest.approx(by_hand, abs=1e-4)
    greedy = Sampling(5, temperature=0.0)
    assert teacher.generate(ours, greedy) == inner.generate(theirs, greedy)
    assert teacher.fingerprint != inner.fingerprint


def test_a_chat_keeps_its_template_around_the_teachers_last_user_turn(folder, tokenizer):
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "2+2?"}]
    chat = Problem("t", "k", "<system>S<user>2+2?<assistant>", columns={"answer": "4"}, messages=messages)
    (seen,) = as_teacher_sees(TEMPLATE, config(folder).data, [chat], tokenizer)
    assert seen.prompt == "<system>S<user>Hint: it is 4.\n2+2?<assistant>"
    assert messages[1]["content"] == "2+2?"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{hint}", r"teacher.prompt_template: no column 'hint'"),
        ("{", "teacher.prompt_template: .*write literal braces twice"),
        ("{solution} {prompt}", "teacher.prompt_template: problem .* the column solution of the template is missing"),
    ],
)
def test_a_template_that_cannot_be_filled_is_told_before_a_model_is_loaded(folder, template, message, monkeypatch):
    monkeypatch.setattr("rl_distill.run_setup.load_model", lambda *a, **k: pytest.fail("a model was loaded"))
    with pytest.raises(StartError, match=message):
        run_setup.prepare(config(folder, teacher__prompt_template=template), Stages(quiet=True))


def test_one_prompt_with_two_hints_is_refused(folder, tokenizer):
    twice = [*PROBLEMS, Problem("t", "again", "0+1=", columns={"answer": "7"})]
    with pytest.raises(ConfigError, match="problem 'again' has the prompt of another problem with other columns"):
        prompt_table(TEMPLATE, config(folder).data, twice, tokenizer)
    assert len(prompt_table("Think. {prompt}", config(folder).data, twice, tokenizer)) == 4


def test_states_cannot_be_compared_under_two_prompts(folder):
    with pytest.raises(ConfigError, match="prompt_template gives the teacher another prompt than the student"):
        config(folder, teacher__prompt_template="A {prompt}", distill={"inner": {"hidden_map": "last"}})
    with pytest.raises(ConfigError, match=r"teacher\.prompt_template is for one teacher"):
        config(
            folder,
            teacher__prompt_template="A {prompt}",
            teachers=[{"model": "a", "tasks": ["math"]}, {"model": "b", "tasks": ["code"]}],
        )


def test_a_run_trains_under_a_teacher_that_sees_more(folder):
    settings = config(folder, teacher__prompt_template="Do it well.\n{prompt}", teacher__num_outputs_per_prompt=1)
    context = run_setup.prepare(settings, Stages(quiet=True))
    assert isinstance(context.teacher, PromptedTeacher)
    pipeline.train(settings, pipeline.make_trainer(settings, context))
    rows = [json.loads(line) for line in (folder.parent / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum("kl_to_teacher" in str(row) or "anchor" in str(row) for row in rows) >= 1
