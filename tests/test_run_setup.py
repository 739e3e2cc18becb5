"""Your own models and data: what does not fit together is refused in words that say what to do."""

import json

import pytest

from rl_distill.config import ConfigError, DataConfig, load_config
from rl_distill.data.loading import load_problems, load_splits
from rl_distill.models.tokenizers import check_same_tokenizer
from rl_distill.progress import Stages
from rl_distill.run_setup import prepare, success_rates, teacher_texts
from rl_distill.teachers.colocated import make_teacher
from tests.tiny_run import make_config, make_context


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_prompts_come_from_a_column_or_a_template_and_other_columns_travel(tmp_path, tokenizer):
    source = write_jsonl(
        tmp_path / "d.jsonl", [{"question": "1+1?", "answer": "2"}, {"question": "2+2?", "answer": "4"}]
    )
    by_column = load_problems(DataConfig(prompt_column="question", task="math"), source, "train", tokenizer)
    assert (by_column[0].prompt, by_column[0].columns, by_column[0].task) == ("1+1?", {"answer": "2"}, "math")
    template = load_problems(DataConfig(prompt_template="Q: {question}\nA:"), source, "train", tokenizer)
    assert template[1].prompt == "Q: 2+2?\nA:"


def test_a_missing_column_lists_the_columns_there_are(tmp_path, tokenizer):
    source = write_jsonl(tmp_path / "d.jsonl", [{"question": "1+1?", "answer": "2"}])
    with pytest.raises(ConfigError, match="no column 'prompt'; columns are question, answer"):
        load_problems(DataConfig(), source, "train", tokenizer)
    with pytest.raises(ConfigError, match="no column 'text'; columns are question, answer"):
        load_problems(DataConfig(prompt_template="{text}"), source, "train", tokenizer)


def test_a_missing_file_and_an_unreachable_dataset_say_so(tokenizer):
    with pytest.raises(ConfigError, match=r"data.train: file 'nowhere.jsonl' does not exist"):
        load_problems(DataConfig(), "nowhere.jsonl", "train", tokenizer)
    with pytest.raises(ConfigError, match=r"cannot load 'nobody/nothing' from the hub"):
        load_problems(DataConfig(), "nobody/nothing", "train", tokenizer)


def test_validation_is_held_out_of_the_training_prompts(tmp_path, tokenizer):
    source = write_jsonl(tmp_path / "d.jsonl", [{"prompt": f"{i}?"} for i in range(100)])
    splits = load_splits(DataConfig(train=source), tokenizer, seed=0)
    assert (len(splits.train), len(splits.validation)) == (95, 5)
    assert not {p.key for p in splits.train} & {p.key for p in splits.validation}


def test_tokenizers_that_differ_are_refused_with_the_first_difference(tokenizer):
    from rl_distill.demo.tiny import make_tokenizer

    check_same_tokenizer(tokenizer, tokenizer)
    other = make_tokenizer(["completely different text, so other merges"] * 50, 320)
    with pytest.raises(ConfigError, match=r"different tokenizers: token .* is id \d+ in the student's"):
        check_same_tokenizer(tokenizer, other)


def test_teacher_texts_are_made_once_and_kept(tmp_path):
    config = make_config(tmp_path)
    context = make_context(config)
    problems = context.splits.train[:5]
    first = teacher_texts(config, context.teacher, context.tokenizer, problems[:3], 2)
    assert [len(texts) for texts in first] == [2, 2, 2]
    calls = []
    generate = context.teacher.generate
    context.teacher.generate = lambda prompts, sampling, **kw: calls.append(len(prompts)) or generate(prompts, sampling)
    again = teacher_texts(config, context.teacher, context.tokenizer, problems, 2)
    assert again[:3] == first
    assert calls == [4]  # two texts for each of the two new prompts


def test_success_rates_are_per_task_and_leave_out_what_cannot_be_graded(tmp_path):
    problems = make_context(make_config(tmp_path)).splits.train[:20]
    right = success_rates(problems, [problem.solution for problem in problems])
    assert right == {"code": 1.0, "math": 1.0}


def test_own_models_and_data_train_end_to_end(tmp_path):
    from rl_distill import pipeline

    base = make_config(tmp_path)
    context = make_context(base)
    for name, model in (("student", context.student), ("teacher", context.teacher.model)):
        model.save_pretrained(tmp_path / name)
        context.tokenizer.save_pretrained(tmp_path / name)
    rows = [{"prompt": p.prompt, "task": p.task, **p.columns} for p in context.splits.train]
    source = write_jsonl(tmp_path / "train.jsonl", rows)
    from tests.tiny_run import SETTINGS

    config = load_config(
        None,
        SETTINGS
        | {
            "demo": None,
            "output_dir": str(tmp_path / "run"),
            "student.model": str(tmp_path / "student"),
            "teacher.model": str(tmp_path / "teacher"),
            "teacher.num_outputs_per_prompt": 1,
            "teacher.num_evidence_prompts": 10,
            "data.train": source,
            "ppo.num_steps": 1,
            "rewards": [{"fn": "task_check"}, {"fn": "bleu", "weight": 0.5}],
        },
    )
    own = prepare(config, Stages(quiet=True))
    assert set(own.teacher_success) == {"code", "math"}
    assert all(problem.columns["teacher_output"] for problem in own.splits.train)
    trainer = pipeline.make_trainer(config, own)
    pipeline.train(config, trainer)
    record = next(r for r in trainer.state.log_history if "kl" in r)
    assert 0 <= record["rewards/bleu/mean"] <= 1


def test_the_demo_world_is_made_once(tmp_path, monkeypatch):
    settings = {
        "output_dir": str(tmp_path),
        "demo.teacher_sft.num_steps": 3,
        "demo.student_sft.num_steps": 3,
        "demo.num_teacher_problems": 100,
        "demo.num_teacher_outputs": 20,
        "demo.num_train_prompts": 30,
        "demo.num_validation": 5,
        "demo.num_test": 5,
    }
    config = load_config(None, settings)
    first = prepare(config, Stages(quiet=True))
    monkeypatch.setattr("rl_distill.demo.models.fine_tune", lambda *a, **k: pytest.fail("made again"))
    second = prepare(config, Stages(quiet=True))
    assert first.teacher.fingerprint == second.teacher.fingerprint
    assert first.teacher_success == second.teacher_success


def test_make_teacher_freezes_the_model(tmp_path):
    config = make_config(tmp_path)
    teacher = make_teacher(config, make_context(config).teacher.model, make_context(config).tokenizer)
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_a_text_prompt_can_be_put_into_the_chat_template(tmp_path, tokenizer):
    import copy

    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    source = write_jsonl(tmp_path / "d.jsonl", [{"prompt": "1+1?"}])
    assert load_problems(DataConfig(chat=True), source, "train", chatty)[0].prompt == "<user>1+1?<assistant>"
    messages = write_jsonl(tmp_path / "m.jsonl", [{"prompt": [{"role": "user", "content": "hi"}]}])
    assert load_problems(DataConfig(), messages, "train", chatty)[0].prompt == "<user>hi<assistant>"
