"""Your own models and data: what does not fit together is refused in words that say what to do."""

import json
import warnings
from dataclasses import replace

import pytest

from rl_distill import pipeline
from rl_distill.config import ConfigError, DataConfig, load_config
from rl_distill.data.loading import load_problems, load_splits
from rl_distill.demo.problems import make_problems
from rl_distill.distill.sft import TrainingText
from rl_distill.generation.sampling import Generated, Sampling
from rl_distill.models.tokenizers import check_same_tokenizer, prompt_ids
from rl_distill.ppo.coefficients import SuccessCount
from rl_distill.progress import Stages
from rl_distill.run_setup import cold_start_lessons, measure_evidence, prepare, teacher_evidence, teacher_texts
from rl_distill.teachers.colocated import make_teacher
from rl_distill.teachers.outputs import TeacherOutput
from rl_distill.types import Finish, Problem
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


def keys(problems):
    return {problem.key for problem in problems}


def test_a_prompt_that_is_four_times_in_the_file_is_in_one_split_and_trained_on_once(tmp_path, tokenizer):
    rows = [{"prompt": f"{i}?", "answer": str(copy)} for copy in range(4) for i in range(100)]
    source = write_jsonl(tmp_path / "d.jsonl", rows)
    with pytest.warns(UserWarning, match=r"300 of 400 rows repeat the prompt .* the first is '0\?'"):
        splits = load_splits(DataConfig(train=source), tokenizer, seed=0)
    assert not keys(splits.train) & keys(splits.validation)
    assert (len(splits.train), len(splits.validation)) == (95, 5)
    assert {problem.columns["answer"] for problem in splits.train} == {"0"}  # the first row of each prompt


def test_what_a_validation_or_test_file_shares_with_train_is_told_and_not_trained_on(tmp_path, tokenizer):
    def file(name, numbers):
        return write_jsonl(tmp_path / f"{name}.jsonl", [{"prompt": f"{i}?"} for i in numbers])

    config = DataConfig(
        train=file("train", range(20)), validation=file("validation", range(15, 25)), test=file("test", range(18, 40))
    )
    with pytest.warns(UserWarning, match="left out") as caught:
        splits = load_splits(config, tokenizer, seed=0)
    assert [problem.prompt for problem in splits.train] == [f"{i}?" for i in range(15)]
    assert [problem.prompt for problem in splits.validation] == ["15?", "16?", "17?"]
    assert [problem.prompt for problem in splits.test] == [f"{i}?" for i in range(18, 40)]
    assert [str(item.message).partition(" were left out")[0] for item in caught] == [
        "data.train: 2 of 20 prompts are in data.test too and",
        "data.validation: 7 of 10 prompts are in data.test too and",
        "data.train: 3 of 18 prompts are in data.validation too and",
    ]
    assert "the first is '18?'. Remove them from the file" in str(caught[0].message)


def test_files_that_share_nothing_are_loaded_without_a_word(tmp_path, tokenizer):
    train, test = (
        write_jsonl(tmp_path / f"{start}.jsonl", [{"prompt": f"{i}?"} for i in range(start, start + 30)])
        for start in (0, 50)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = load_splits(DataConfig(train=train, test=test), tokenizer, seed=0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (28, 2, 30)


def test_one_file_for_training_and_test_leaves_nothing_to_train_on(tmp_path, tokenizer):
    source = write_jsonl(tmp_path / "d.jsonl", [{"prompt": "1?"}, {"prompt": "2?"}])
    with pytest.raises(ConfigError, match="no prompt left to train on"), pytest.warns(UserWarning, match="2 of 2"):
        load_splits(DataConfig(train=source, test=source), tokenizer, seed=0)


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


class Unsteady:
    """A teacher that is always right when greedy, and at any temperature right for every second row."""

    fingerprint = "unsteady"

    def __init__(self, problems, tokenizer):
        self.solutions = {tuple(prompt_ids(tokenizer, [p.prompt])[0]): p.solution for p in problems}
        self.tokenizer, self.asked = tokenizer, []

    def generate(self, prompts, sampling, batch_size=64, *, tasks=()):
        self.asked.append((len(prompts), sampling))
        texts = [self.solutions[tuple(ids)] for ids in prompts]
        right = [sampling.temperature == 0 or row % 2 == 0 for row in range(len(texts))]
        texts = [text if is_right else "no idea" for text, is_right in zip(texts, right, strict=True)]
        rows = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [Generated([*row, self.tokenizer.eos_token_id], Finish.STOP) for row in rows]


def unsteady_context(config, problems=None):
    context = make_context(config)
    if problems is not None:
        context.splits = replace(context.splits, train=problems)
    context.teacher = Unsteady(context.splits.train, context.tokenizer)
    return context


def test_evidence_is_the_success_of_a_teacher_that_is_sampled_as_the_student_is(tmp_path):
    config = make_config(tmp_path, teacher__num_evidence_samples=2, generation__temperature=0.7, generation__top_p=0.9)
    context = unsteady_context(config)
    counts = teacher_evidence(config, context)
    # 40 prompts, of each of which the first answer is right and the second wrong; a prompt is one trial
    assert counts == {"code": SuccessCount(6.0, 12.0), "math": SuccessCount(14.0, 28.0)}
    assert context.teacher.asked == [(80, Sampling(12, 0.7, 0.9))]
    problems, tokenizer = context.splits.train, context.tokenizer
    texts = [text for problem in problems for text in (problem.solution, "no idea")]
    assert context.teacher_tokens_generated == sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts)


def test_evidence_prompts_are_divided_evenly_over_the_tasks(tmp_path):
    config = make_config(tmp_path, teacher__num_evidence_prompts=16)
    problems = sorted(make_context(config).splits.train, key=lambda problem: problem.task, reverse=True)
    assert {problem.task for problem in problems[:16]} == {"math"}  # a file sorted by task: 28 math, then 12 code
    counts = teacher_evidence(config, unsteady_context(config, problems))
    assert {task: count.trials for task, count in counts.items()} == {"code": 8.0, "math": 8.0}


def with_chat(problems):
    return [Problem("chat", f"chat-{i}", f"Tell me about the number {i}.") for i in range(20)] + problems


def test_a_task_that_cannot_be_verified_is_told_once_and_keeps_the_full_anchor(tmp_path):
    config = make_config(tmp_path, ppo__num_steps=2, teacher__num_evidence_prompts=10)
    context = unsteady_context(config, with_chat(make_context(config).splits.train))
    with pytest.warns(UserWarning, match="no answer to the tasks chat could be verified") as caught:
        measure_evidence(config, context, Stages(quiet=True))
    assert len(caught) == 1
    assert "keeps anchor.coef (1) there for the whole run" in str(caught[0].message)
    assert context.teacher.asked[0][0] == 10  # none of them spent on chat
    context.teacher = make_context(config).teacher
    trainer = pipeline.make_trainer(config, context)
    pipeline.train(config, trainer)  # rollouts of all three tasks
    assert trainer.collector.coefficient.coefficients(["chat"], 0.5) == [1.0]


def test_data_that_cannot_be_verified_at_all_is_told_at_the_start(tmp_path):
    config = make_config(tmp_path)
    context = unsteady_context(config, with_chat([]))
    with pytest.warns(UserWarning, match=r"no answer to any task \(chat\) could be verified"):
        measure_evidence(config, context, Stages(quiet=True))
    assert context.teacher_success == {}


def test_rewards_that_verify_nothing_of_the_data_count_no_evidence(tmp_path):
    """The problems have answers, but the run's own rewards would not check them."""
    config = make_config(tmp_path, rewards=[{"fn": "code_execution"}], teacher__num_evidence_prompts=4)
    problems = [problem for problem in make_context(config).splits.train if problem.task == "math"]
    with pytest.warns(UserWarning, match=r"any task \(math\)"):
        measure_evidence(config, unsteady_context(config, problems), Stages(quiet=True))


def test_own_models_and_data_train_end_to_end(tmp_path):
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
    assert sum(count.trials for count in first.teacher_success.values()) == 20  # the prompts of the cold start
    spared = prepare(config, Stages(quiet=True), with_anchor=False)
    assert spared.teacher_success == {}
    assert spared.teacher_tokens_generated < first.teacher_tokens_generated


def test_a_verified_cold_start_learns_the_texts_that_pass_the_check_alone():
    problems = make_problems("train", 6, 0)  # both tasks
    texts = [problem.solution if number % 2 else "no idea" for number, problem in enumerate(problems)]
    outputs = [TeacherOutput(p.key, p.prompt, (text,), (True,)) for p, text in zip(problems, texts, strict=True)]
    everything = [TrainingText(p.prompt, text) for p, text in zip(problems, texts, strict=True)]
    assert cold_start_lessons(problems, outputs, only_verified=False) == everything
    assert cold_start_lessons(problems, outputs, only_verified=True) == everything[1::2]
    with pytest.raises(ConfigError, match="none of the teacher's 3 texts passes the check"):
        cold_start_lessons(problems[::2], outputs[::2], only_verified=True)


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
