"""Several teachers as one: by task, as the mean of their distributions, or one after the other. Real tiny models."""

import math
import weakref

import pytest
import torch

from rl_distill import pipeline
from rl_distill.config import ConfigError, TeacherServerConfig, load_config
from rl_distill.files import read_jsonl
from rl_distill.generation.sampling import Sampling
from rl_distill.maths import logprobs as logprobs_module
from rl_distill.maths.logprobs import token_statistics
from rl_distill.progress import Stages
from rl_distill.run_setup import prepare
from rl_distill.teachers.colocated import ColocatedTeacher
from rl_distill.teachers.curriculum import TeacherCurriculum, upper_lead
from rl_distill.teachers.multi_teacher import EnsembleTeacher, RoutedTeacher
from rl_distill.teachers.remote import RemoteTeacher
from tests import own_models
from tests.completions_server import CompletionsServer

PROMPTS, COMPLETIONS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]], [[20, 21], [22, 23, 24], [25]]
TASKS, TEMPERATURE = ["code", "math", "code"], 0.7
BY_TASK = [("math",), ()]


@pytest.fixture
def pair(make_policy, tokenizer):
    """Two teachers of different widths."""
    ends = {"eos_token_ids": [tokenizer.eos_token_id], "pad_token_id": tokenizer.pad_token_id}
    models = (make_policy(3), make_policy(4, hidden_size=48))
    return [ColocatedTeacher(model, **ends) for model in models]


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_each_row_is_scored_by_the_teacher_of_its_task(pair):
    routed = RoutedTeacher(pair, BY_TASK)
    found = routed.score(PROMPTS, COMPLETIONS, tasks=TASKS, temperature=TEMPERATURE, top_k=4)
    alone = [
        pair[TASKS[i] == "code"].score(PROMPTS[i : i + 1], COMPLETIONS[i : i + 1], temperature=TEMPERATURE, top_k=4)
        for i in range(3)
    ]
    for name in ("logprobs_N", "entropy_N", "top_ids_NK", "top_logprobs_NK"):
        close(getattr(found, name), torch.cat([getattr(scores, name) for scores in alone]))
    assert found.hidden_NE.shape == (6, 32 + 48)


def test_the_exact_kl_to_teachers_by_task_is_that_to_each_alone(pair, make_policy):
    torch.manual_seed(0)
    hidden_ND, head_VD = torch.randn(6, 16), torch.randn(320, 16)
    targets_N = torch.tensor([token for row in COMPLETIONS for token in row])
    routed = RoutedTeacher(pair, BY_TASK)

    def kl(teacher, scores, rows):
        stats = token_statistics(
            hidden_ND[rows],
            head_VD,
            targets_N[rows],
            teacher_hidden_NE=scores.hidden_NE[rows],
            teacher_weight_VE=teacher.lm_head_weight_VE,
            temperature=TEMPERATURE,
        )
        return stats.kl_N

    code, math_ = [0, 1, 5], [2, 3, 4]  # tokens of completions 0 and 2, and of 1
    found = kl(routed, routed.score(PROMPTS, COMPLETIONS, tasks=TASKS, temperature=TEMPERATURE), list(range(6)))
    close(found[math_], kl(pair[0], pair[0].score(PROMPTS, COMPLETIONS, temperature=TEMPERATURE), math_))
    close(found[code], kl(pair[1], pair[1].score(PROMPTS, COMPLETIONS, temperature=TEMPERATURE), code))


def test_rows_may_come_in_any_order_and_all_for_one_teacher(pair):
    routed = RoutedTeacher(pair, BY_TASK)
    scoring = routed.scoring(["code"] * 3, temperature=TEMPERATURE)
    for row in (2, 0, 1):
        scoring.add([row], PROMPTS[row : row + 1], COMPLETIONS[row : row + 1])
    close(scoring.finish().logprobs_N, pair[1].score(PROMPTS, COMPLETIONS, temperature=TEMPERATURE).logprobs_N)


def test_texts_are_those_of_the_teacher_of_the_task(pair):
    greedy = Sampling(6, temperature=0.0)
    found = RoutedTeacher(pair, BY_TASK).generate(PROMPTS, greedy, tasks=TASKS)
    alone = [teacher.generate(PROMPTS, greedy) for teacher in pair]
    assert found == [alone[1][0], alone[0][1], alone[1][2]]


def test_a_task_without_a_teacher_is_refused(pair):
    with pytest.raises(ConfigError, match="no teacher for task 'physics': name it in `tasks`"):
        RoutedTeacher(pair, [("math",), ("code",)]).shares(["math", "physics"])


@torch.no_grad()
def mean_logprobs(teachers):
    """(6, V) by brute force: softmax of each model's own logits, their mean, its log."""
    rows = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        ids, first = torch.tensor([[*prompt, *completion]]), len(prompt) - 1
        each = [(teacher.model(ids).logits[0, first:-1] / TEMPERATURE).softmax(-1) for teacher in teachers]
        rows.append((sum(each) / len(each)).log())
    return torch.cat(rows)


def test_an_ensemble_is_the_mean_of_the_distributions(pair):
    ensemble = EnsembleTeacher(pair, 320)
    found, expected_NV = ensemble.score(PROMPTS, COMPLETIONS, temperature=TEMPERATURE, top_k=320), mean_logprobs(pair)
    targets_N = torch.tensor([token for row in COMPLETIONS for token in row])
    close(found.logprobs_N, expected_NV[range(6), targets_N])
    close(found.entropy_N, -(expected_NV.exp() * expected_NV).sum(-1))
    close(torch.zeros(6, 320).scatter(1, found.top_ids_NK, found.top_logprobs_NK), expected_NV)
    close(
        found.hidden_NE, torch.cat([t.score(PROMPTS, COMPLETIONS, temperature=TEMPERATURE).hidden_NE for t in pair], 1)
    )


@pytest.mark.parametrize("chunk_tokens", [None, 4])
def test_the_exact_kl_to_an_ensemble_and_its_gradient_are_those_to_the_mean(pair, chunk_tokens, monkeypatch):
    if chunk_tokens is not None:  # logits recomputed in backward
        monkeypatch.setattr(logprobs_module, "KEEP_FLOATS", -1)
    ensemble = EnsembleTeacher(pair, 320)
    hidden_ND, head_VD = torch.randn(6, 16, requires_grad=True), torch.randn(320, 16)
    targets_N = torch.tensor([token for row in COMPLETIONS for token in row])
    scores = ensemble.score(PROMPTS, COMPLETIONS, temperature=TEMPERATURE)
    stats = token_statistics(
        hidden_ND,
        head_VD,
        targets_N,
        chunk_tokens=chunk_tokens,
        temperature=TEMPERATURE,
        teacher_hidden_NE=scores.hidden_NE,
        teacher_weight_VE=ensemble.lm_head_weight_VE,
    )
    logp_NV = (hidden_ND @ head_VD.t() / TEMPERATURE).log_softmax(-1)
    kl_N = (logp_NV.exp() * (logp_NV - mean_logprobs(pair))).sum(-1)
    close(stats.kl_N, kl_N)
    close(stats.teacher_logprobs_N, mean_logprobs(pair)[range(6), targets_N])
    close(*(torch.autograd.grad(x.sum(), hidden_ND)[0] for x in (stats.kl_N, kl_N)))


def test_an_ensemble_takes_a_server_in_and_its_texts_are_of_the_first(pair, tokenizer):
    server = CompletionsServer(pair[1].model, tokenizer)
    server.start()
    served = RemoteTeacher(TeacherServerConfig(base_url=server.url))
    mixed, here = (EnsembleTeacher([pair[0], other], 320) for other in (served, pair[1]))
    found = mixed.score(PROMPTS, COMPLETIONS)
    mixed.close()
    server.stop()
    close(found.logprobs_N, here.score(PROMPTS, COMPLETIONS).logprobs_N)
    assert found.hidden_NE.shape == (6, mixed.hidden_size) == (6, 0)
    greedy = Sampling(6, temperature=0.0)
    assert here.generate(PROMPTS, greedy) == pair[0].generate(PROMPTS, greedy)


def adaptive(pair, **options):
    openers = [lambda teacher=teacher: teacher for teacher in pair]
    return TeacherCurriculum(openers, [32, 48], **{"switch_gap": 0.1} | options)


def test_the_lead_of_a_teacher_is_paired_and_one_standard_error_up():
    teacher, student = [1.0, 1.0, 1.0, 0.0, None], [1.0, 0.0, 1.0, 0.0, 1.0]
    # differences 0, 1, 0, 0: mean 1/4, variance 3/16, four problems
    assert upper_lead(teacher, student) == pytest.approx(1 / 4 + math.sqrt(3 / 16 / 4))
    assert upper_lead([1.0, 0.0], [1.0, 0.0]) == 0.0  # the very same answers leave no doubt
    assert math.isnan(upper_lead([1.0, None], [None, 1.0]))


def test_the_next_teacher_takes_over_when_the_lead_is_surely_small_and_no_sooner(pair):
    teacher, asked = adaptive(pair), []
    half = [1.0] * 50 + [0.0] * 50

    def measure():
        asked.append(teacher.index)
        return half

    def behind_by(number):
        return [0.0] * number + half[number:]

    assert not teacher.observe([None] * 100, measure)
    # 8 behind of 100: 0.08 + sqrt(0.08 * 0.92 / 100) = 0.107; 7 behind: 0.07 + 0.0255 = 0.0955
    assert not teacher.observe(behind_by(8), measure)
    assert teacher.observe(behind_by(7), measure)
    assert (teacher.index, teacher.accuracy, asked) == (1, 0.5, [0, 1])
    assert not teacher.observe([1.0] * 100, measure)  # it is the last


def test_teachers_of_all_widths_look_alike(pair):
    teacher = adaptive(pair)
    for index in (0, 1):
        found, expected = teacher.score(PROMPTS, COMPLETIONS), pair[index].score(PROMPTS, COMPLETIONS)
        assert found.hidden_NE.shape[1] == teacher.lm_head_weight_VE.shape[1] == teacher.hidden_size == 48
        close(found.logprobs_N, expected.logprobs_N)
        logits_NV = found.hidden_NE @ teacher.lm_head_weight_VE.t()
        close(logits_NV, expected.hidden_NE @ pair[index].lm_head_weight_VE.t())
        teacher.observe([1.0], lambda: [0.5])


def test_only_the_present_teacher_is_held(make_policy, tokenizer):
    models = []

    def opener(width):
        model = make_policy(1, hidden_size=width)
        models.append(weakref.ref(model))
        return ColocatedTeacher(model, eos_token_ids=[tokenizer.eos_token_id], pad_token_id=tokenizer.pad_token_id)

    openers = [lambda: opener(32), lambda: opener(48)]
    teacher = TeacherCurriculum(openers, [32, 48], switch_gap=0.1)
    assert not models
    teacher.score(PROMPTS, COMPLETIONS)
    teacher.observe([1.0], lambda: [0.5])
    teacher.score(PROMPTS, COMPLETIONS)
    assert [model() is None for model in models] == [True, False]
    assert teacher.tokens_scored == 2 * 15


def test_the_present_teacher_is_part_of_the_checkpoint(pair):
    teacher, again = adaptive(pair), adaptive(pair)
    teacher.observe([1.0], lambda: [0.5])
    again.load_state_dict(teacher.state_dict())
    assert (again.index, again.grades) == (1, {0: [0.5], 1: [0.5]})
    close(again.score(PROMPTS, COMPLETIONS).logprobs_N, pair[1].score(PROMPTS, COMPLETIONS).logprobs_N)
    with pytest.raises(ValueError, match=r"at teacher 2 of teachers, which has 1"):
        TeacherCurriculum([None], [32], switch_gap=0).load_state_dict(teacher.state_dict())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("models"))


def run(folder, output_dir, stop_after=None, **changes):
    """The training records of a run; stopped after so many PPO steps where that is asked for."""
    config = own_models.config(folder, output_dir, **changes)
    context = prepare(config, Stages(quiet=True))
    trainer = pipeline.make_trainer(config, context)
    if stop_after is not None:
        from tests.ppo.test_trainer import StopAfter

        trainer.add_callback(StopAfter(stop_after * 2))
    pipeline.train(config, trainer)
    return [record for record in read_jsonl(output_dir / "metrics.jsonl") if "loss" in record]


def several(folder, *entries, **common):
    return {
        "teachers": [{"model": str(folder / name), **entry} for name, entry in entries],
        **{f"teacher__{name}": value for name, value in common.items()},
    }


@pytest.mark.parametrize(
    ("selection", "first", "second"), [("by_task", {"tasks": ["math"]}, {"tasks": ["code"]}), ("ensemble", {}, {})]
)
def test_one_model_twice_trains_as_the_one_teacher(folder, tmp_path, selection, first, second):
    common = {"ppo__critic": "shared", "ppo__num_steps": 2}
    twice = several(folder, ("large", first), ("large", second), selection=selection)
    ours = run(folder, tmp_path / "twice", **common, **twice)
    theirs = run(folder, tmp_path / "one", **common, teacher__model=str(folder / "large"))
    for found, expected in zip(ours, theirs, strict=True):
        for name in ("loss", "kl", "reward", "entropy", "loss/anchor", "loss/policy", "loss/value"):
            assert found[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize(
    ("selection", "changes"),
    [
        ("by_task", {}),
        ("ensemble", {}),
        ("ensemble", {"anchor__estimator": "top_k", "anchor__top_k": 8}),
        ("curriculum", {"evaluation__every_steps": 1, "teacher__switch_gap": 1.0}),
    ],
)
def test_every_choice_trains_with_a_critic_that_reads_the_teachers(folder, tmp_path, selection, changes):
    entries = several(
        folder, ("small", {"tasks": ["math"]} if selection == "by_task" else {}), ("large", {}), selection=selection
    )
    records = run(folder, tmp_path, **entries, **changes)
    assert len(records) == 3
    assert all(math.isfinite(record[name]) for record in records for name in ("loss", "kl", "loss/value"))
    if selection == "curriculum":
        assert [record["teacher"] for record in records] == [1, 2, 2]


def test_a_run_resumed_after_the_next_teacher_took_over_goes_on_exactly(folder, tmp_path):
    changes = several(folder, ("small", {}), ("large", {}), selection="curriculum", switch_gap=1.0) | {
        "ppo__num_steps": 4,
        "evaluation__every_steps": 2,
        "checkpoint__every_steps": 3,
        "anchor__schedule": "evidence",
    }
    whole = run(folder, tmp_path / "whole", **changes)
    assert [record["teacher"] for record in whole] == [1, 1, 2, 2]
    run(folder, tmp_path / "stopped", stop_after=3, **changes)
    run(folder, tmp_path / "stopped", **changes, resume_from_checkpoint="latest")
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "stopped")]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(
    ("several", "changes", "message"),
    [
        ([{"model": "a"}], {}, "has one entry"),
        ([{"model": "a"}, {}], {}, r"teachers\[1\] needs `model`"),
        ([{"model": "a"}, {"modle": "b"}], {}, r"teachers\[1\].modle is no setting of one teacher; did you mean"),
        ([{"model": "a"}, {"model": "b", "tasks": "math"}], {}, r"teachers\[1\].tasks: expected a list"),
        ([{"model": "a"}, {"model": "b"}], {}, "one entry may be without `tasks`"),
        ([{"model": "a", "tasks": ["x"]}, {"model": "b", "tasks": ["x"]}], {}, "no task may be in `tasks` of two"),
        ([{"model": "a", "tasks": ["x"]}, {"model": "b"}], {"teacher.selection": "curriculum"}, "does not go by task"),
        (
            [{"model": "a"}, {"model": "b", "placement": "remote", "server": {"base_url": "http://x"}}],
            {"teacher.selection": "ensemble", "ppo.critic": "shared"},
            "sends no hidden states: set anchor.estimator",
        ),
        ([{"model": "a"}, {"model": "b", "placement": "remote"}], {"teacher.selection": "curriculum"}, "base_url"),
        ([{"model": "a"}, {"model": "b"}], {"demo": {}}, "demo: null"),
    ],
)
def test_lists_of_teachers_that_make_no_sense_are_refused(several, changes, message):
    settings = {"demo": None, "student.model": "s", "data.train": "d", "teachers": several}
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings | changes)
