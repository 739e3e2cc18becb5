"""The blend: sums by hand, TRL's functions unchanged, failures told or counted, and independence of order and split."""

import copy
import math
import pickle
import threading
import time

import pytest
import trl.rewards

from reward_models import RewardBlend, RewardError, RewardSpec, Unscored
from reward_models.base import WeightSchedule

REWARDS = """
import asyncio, threading, time

release = threading.Event()

def length(completions, **kwargs):
    return [float(len(c)) for c in completions]

def negative(completions, **kwargs):
    return [-float(len(c)) for c in completions]

def grpo_style(prompts, completions, completion_ids, answer, trainer_state, log_extra, log_metric, **kwargs):
    log_extra("seen", [c.upper() for c in completions])
    log_metric("steps", trainer_state["global_step"])
    assert len(prompts) == len(completion_ids) == len(answer)
    return [1.0 if c == a else None if a is None else 0.0 for c, a in zip(completions, answer)]

def narrow(completions, *, limit):
    return [min(1.0, len(c) / limit) for c in completions]

async def slowly(completions, **kwargs):
    await asyncio.sleep(0.2)
    return [float(len(c)) for c in completions]

class Grader:
    async def __call__(self, completions, **kwargs):
        await asyncio.sleep(0.01)
        return [2.0] * len(completions)

grader = Grader()

def sleepy(completions, **kwargs):
    time.sleep(0.2)
    return [1.0] * len(completions)

def endless(completions, **kwargs):
    release.wait(60)
    return [1.0] * len(completions)

async def endless_async(completions, **kwargs):
    await asyncio.sleep(60)

def raises_on_b(completions, **kwargs):
    return [{"a": 1.0, "c": 3.0}[c] for c in completions]

async def raises_on_b_async(completions, **kwargs):
    await asyncio.sleep(0.01)
    return [{"a": 1.0, "c": 3.0}[c] for c in completions]

def vandal(prompts, completions, completion_ids, answer, nested, **kwargs):
    for column in (prompts, completions):
        for message in column:
            message[-1]["content"] = "spoiled"
            message.append({"role": "user", "content": "more"})
    for row in nested:
        row["cases"][0]["input"].append("spoiled")
        row["more"] = 1
    for ids in completion_ids:
        ids.clear()
    completions.clear(); answer.clear(); nested.clear()
    return [0.0] * 3

def untouched(prompts, completions, completion_ids, answer, nested, **kwargs):
    time.sleep(0.1)
    good = [
        (p, c, i, a, n) == (
            [{"role": "user", "content": "p"}], [{"role": "assistant", "content": "c"}], [1, 2], "a",
            {"cases": [{"input": ["x"]}]},
        )
        for p, c, i, a, n in zip(prompts, completions, completion_ids, answer, nested, strict=True)
    ]
    return [float(g) for g in good]

from reward_models import Unscored

def judge(completions, **kwargs):
    verdicts = {"right": 1.0, "wrong": 0.0, "outage": Unscored("outage"), "elsewhere": None}
    return [verdicts[c] for c in completions]

async def judge_async(completions, **kwargs):
    return judge(completions)

def logging_half(completions, log_metric, **kwargs):
    if "a" in completions:
        log_metric("only/a", 1.0)
    log_metric("size", len(completions[0]))
    return [None if c == "a" else 1.0 for c in completions]

def wants_text(prompts: list[str], completions: list[str]):
    return [float(p == "shown p" and c == "c") for p, c in zip(prompts, completions)]

class WantsMessages:
    def __call__(self, prompts: list[list[dict]], completions: list[list[dict[str, str]]], **kwargs):
        return [
            float(p == [{"role": "user", "content": "p"}] and c == [{"role": "assistant", "content": "c"}])
            for p, c in zip(prompts, completions)
        ]

wants_messages = WantsMessages()

def as_given(prompts, completions, **kwargs):
    return [float(isinstance(p, list)) + 2.0 * isinstance(c, list) for p, c in zip(prompts, completions)]

def too_few(completions, **kwargs):
    return [1.0]

def no_list(completions, **kwargs):
    return 1.0

def nan_on_b(completions, **kwargs):
    return [float("nan") if c == "b" else 1.0 for c in completions]

def infinite(completions, **kwargs):
    return [float("inf")] * len(completions)

def words(completions, **kwargs):
    return ["good"] * len(completions)

def arrays(completions, **kwargs):
    import numpy
    return numpy.arange(len(completions), dtype=numpy.float32)

def booleans(completions, **kwargs):
    return [c == "a" for c in completions]

def teacher_gap(completions, teacher_logprobs, **kwargs):
    return [sum(row) for row in teacher_logprobs]

def teacher_thread(completions, teacher_output, **kwargs):
    return [float(threading.get_ident() == threading.main_thread().ident)] * len(completions)
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    return lambda fn, weight=1.0, **keys: RewardSpec(f"{tmp_path}/my_rewards.py:{fn}", weight, **keys)


def score(specs, completions=("a", "b", "c"), answer=None, teacher_columns=None, **options):
    completions = list(completions)
    with RewardBlend(specs, **options) as blend:
        return blend.score(teacher_columns=teacher_columns, **batch(completions, answer))


def batch(completions, answer=None):
    columns = {"answer": answer or ["a"] * len(completions)}
    ids = [[1] * len(c) for c in completions]
    return {"prompts": ["p"] * len(completions), "completions": completions, "completion_ids": ids, "columns": columns}


def test_total_is_the_weighted_sum_of_the_scored_parts(mine):
    specs = [mine("length", 0.5), mine("grpo_style", 2.0), mine("negative", 0)]
    with RewardBlend(specs) as blend:
        scores = blend.score(
            prompts=["p"] * 3, completions=["a", "bb", "ccc"], completion_ids=[[1]] * 3,
            columns={"answer": ["a", "x", None]}, trainer_state={"global_step": 7},
        )  # fmt: skip
    assert scores.total == [2.5, 1.0, 1.5]
    assert scores.parts == {"length": [1.0, 2.0, 3.0], "grpo_style": [1.0, 0.0, None], "negative": [-1.0, -2.0, -3.0]}
    assert scores.columns == {"seen": ["A", "BB", "CCC"]}
    metrics = scores.metrics
    assert (metrics["rewards/length/mean"], metrics["rewards/negative/mean"]) == (2.0, -2.0)
    assert metrics["rewards/length/std"] == pytest.approx(math.sqrt(2 / 3))
    assert metrics["rewards/grpo_style/unscored"] == pytest.approx(1 / 3)
    assert metrics["rewards/total/mean"] == pytest.approx(5 / 3)
    assert metrics["steps"] == 7.0
    assert metrics["rewards/negative/weight"] == 0


def test_weights_are_not_normalised_and_an_item_without_a_scored_part_is_unscored(mine):
    scores = score([mine("length", 30.0)], ["a", "bb"])
    assert scores.total == [30.0, 60.0]
    scores = score([RewardSpec("math_answer", 0.3), mine("length", 0)], ["#### 5", "x"], ["5", None])
    assert scores.total == [0.3, None]


def test_settings_go_to_the_function_and_a_narrow_signature_is_enough(mine):
    assert score([mine("narrow", kwargs={"limit": 4})], ["a", "bb"]).total == [0.25, 0.5]


@pytest.mark.parametrize("chat", [False, True])
def test_functions_of_trl_plug_in_unchanged(chat):
    prompts, texts = ["1/2?"] * 2, ["<think>hm</think>\\boxed{\\frac{1}{2}}", "\\boxed{\\frac{1}{3}}"]
    if chat:
        prompts = [[{"role": "user", "content": text}] for text in prompts]
        texts = [[{"role": "assistant", "content": text}] for text in texts]
    overlong = {"max_completion_len": 100, "soft_punish_cache": 20}
    specs = [
        RewardSpec("trl.rewards:accuracy_reward", 1.0),
        RewardSpec("trl.rewards:think_format_reward", 0.5),
        RewardSpec("trl.rewards:reasoning_accuracy_reward", 0.0),
        RewardSpec("trl.rewards:get_repetition_penalty_reward", 1.0, {"ngram_size": 2, "max_penalty": -1.0}),
        RewardSpec("trl.rewards:get_soft_overlong_punishment", 1.0, overlong),
        RewardSpec("trl.rewards:get_cosine_scaled_reward", 1.0, {"max_len": 100}),
    ]
    functions = {name for name in trl.rewards.__all__ if callable(getattr(trl.rewards, name))}
    assert {spec.fn.partition(":")[2] for spec in specs} == functions
    with RewardBlend(specs) as blend:
        scores = blend.score(
            prompts=prompts, completions=texts,
            completion_ids=[list(range(50)), [5] * 90], columns={"solution": ["\\frac{1}{2}"] * 2},
        )  # fmt: skip
    assert scores.parts["accuracy_reward"] == [1.0, 0.0]
    assert scores.parts["think_format_reward"] == [1.0, 0.0]
    assert scores.parts["reasoning_accuracy_reward"] == [1.0, 0.0]
    assert scores.parts["get_repetition_penalty_reward"] == [0.0, pytest.approx(-88 / 89)]
    assert scores.parts["get_soft_overlong_punishment"] == [0.0, -0.5]
    assert scores.parts["get_cosine_scaled_reward"][0] == pytest.approx(0.75)
    assert scores.columns["gold_parsed"][0].startswith("[1/2")


def chat_batch(size=3):
    return {
        "prompts": [[{"role": "user", "content": "p"}] for _ in range(size)],
        "completions": [[{"role": "assistant", "content": "c"}] for _ in range(size)],
        "completion_ids": [[1, 2] for _ in range(size)],
        "columns": {
            "answer": ["a"] * size,
            "nested": [{"cases": [{"input": ["x"]}]} for _ in range(size)],
            "rendered_prompt": ["shown p"] * size,
        },
    }


def test_no_function_changes_what_another_sees_however_deep(mine):
    given = chat_batch()
    with RewardBlend([mine("vandal"), mine("untouched"), mine("vandal", name="again")]) as blend:
        assert blend.score(**given).parts["untouched"] == [1.0, 1.0, 1.0]
    assert given == chat_batch()


def test_chat_arrives_as_messages_unless_the_function_declares_text(mine):
    specs = [mine("as_given"), mine("wants_text"), mine("wants_messages")]
    with RewardBlend(specs) as blend:
        parts = blend.score(**chat_batch(2)).parts
        assert parts == {"as_given": [3.0, 3.0], "wants_text": [1.0, 1.0], "wants_messages": [1.0, 1.0]}
        text = chat_batch(2) | {"prompts": ["p"] * 2, "completions": ["c"] * 2}
        parts = blend.score(**text).parts
        assert parts == {"as_given": [0.0, 0.0], "wants_text": [1.0, 1.0], "wants_messages": [1.0, 1.0]}


@pytest.mark.parametrize("name", ["judge", "judge_async"])
def test_what_could_not_be_scored_is_not_trained_as_wrong(mine, name):
    """right 1.1, wrong 0.1; an outage is neither, and what does not apply leaves the other part alone."""
    specs = [mine(name, 1.0), mine("narrow", 0.1, kwargs={"limit": 1})]
    scores = score(specs, ["right", "wrong", "outage", "elsewhere"])
    assert scores.total == [pytest.approx(1.1), pytest.approx(0.1), None, pytest.approx(0.1)]
    assert scores.unscored == [None, None, f"{name}: outage", None]
    assert scores.parts[name] == [1.0, 0.0, None, None]
    assert scores.metrics[f"rewards/{name}/unscored"] == 0.5
    assert scores.metrics[f"rewards/{name}/unscored_outage"] == 0.25
    assert scores.metrics[f"rewards/{name}/errors"] == 0.0
    assert scores.metrics["rewards/total/unscored"] == 0.25
    assert scores.metrics["rewards/total/mean"] == pytest.approx(1.3 / 3)


def test_a_part_that_does_not_count_unscores_nothing(mine):
    scores = score([mine("judge", 0.0), mine("narrow", kwargs={"limit": 1})], ["outage", "right"])
    assert scores.total == [1.0, 1.0]
    assert scores.metrics["rewards/judge/unscored_outage"] == 0.5


@pytest.mark.parametrize("normalize", ["running", "rank"])
def test_unscored_items_take_no_part_in_normalisation(mine, normalize):
    scores = score([mine("judge", normalize=normalize)], ["right", "outage", "wrong"])
    assert scores.total == ([1.0, None, -1.0] if normalize == "running" else [0.5, None, -0.5])


def test_unscored_is_nan_with_a_reason():
    outage = Unscored("outage")
    assert math.isnan(outage)
    assert pickle.loads(pickle.dumps(outage)) == copy.deepcopy(outage) == outage != Unscored("error")
    assert repr(outage) == "Unscored('outage')"
    with pytest.raises(ValueError, match="a word in lower case such as 'outage', not 'The server is down'"):
        Unscored("The server is down")


def test_slow_functions_run_side_by_side_and_async_ones_share_a_loop(mine):
    started = time.monotonic()
    specs = [
        mine("sleepy"),
        mine("sleepy", name="again"),
        mine("slowly"),
        mine("slowly", name="slowly2"),
        mine("grader"),
    ]
    scores = score(specs, ["a", "bb"])
    assert scores.total == [1.0 + 1.0 + 1.0 + 1.0 + 2.0, 1.0 + 1.0 + 2.0 + 2.0 + 2.0]
    elapsed, each = time.monotonic() - started, [scores.metrics[f"rewards/{spec.label}/seconds"] for spec in specs]
    assert scores.metrics["rewards/sleepy/seconds"] >= 0.2
    assert elapsed < 0.8 * sum(each)


def test_scoring_goes_on_while_the_caller_is_busy(mine):
    with RewardBlend([mine("sleepy")]) as blend:
        pending = blend.start(**batch(["a"]))
        time.sleep(0.5)
        started = time.monotonic()
        assert pending.finish(None).total == [1.0]
    assert time.monotonic() - started < 0.2  # which is what the function alone takes


def test_functions_that_need_the_teacher_run_in_finish(mine):
    with RewardBlend([mine("teacher_gap"), RewardSpec("teacher_likelihood", 0.5), mine("length", 0)]) as blend:
        pending = blend.start(**batch(["a", "b"]))
        scores = pending.finish({"teacher_logprobs": [[-1.0, -2.0], [0.0]]})
        assert scores.parts["teacher_gap"] == [-3.0, 0.0]
        assert scores.total == [pytest.approx(-3.0 + 0.5 * math.exp(-1.5)), 0.5]
        with pytest.raises(RewardError, match=r"teacher_gap .*teacher_logprobs"):
            blend.start(**batch(["a"])).finish(None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_few", r"too_few .* returned 1 scores for 3 completions"),
        ("no_list", r"no_list .* returned float instead of a list of 3 scores"),
        ("nan_on_b", r"nan_on_b .* returned nan on item 1 of 3: prompt 'p', completion 'b'"),
        ("infinite", r"infinite .* returned inf"),
        ("words", r"words .* returned 'good' instead of a number"),
        ("raises_on_b", r"raises_on_b .* raised KeyError: 'b' on item 1 of 3: prompt 'p', completion 'b'"),
        ("raises_on_b_async", r"raises_on_b_async .* raised KeyError: 'b' on item 1 of 3: prompt 'p', completion 'b'"),
    ],
)
def test_errors_name_the_function_and_show_the_item(mine, name, message):
    with pytest.raises(RewardError, match=message):
        score([mine("length"), mine(name)])


@pytest.mark.parametrize(
    ("name", "expected", "errors"),
    [
        ("nan_on_b", [1.0, None, 1.0], 1 / 3),
        ("raises_on_b", [1.0, None, 3.0], 1 / 3),
        ("raises_on_b_async", [1.0, None, 3.0], 1 / 3),
        ("too_few", [None] * 3, 1.0),
        ("words", [None] * 3, 1.0),
    ],
)
def test_on_error_skip_counts_and_leaves_unscored(mine, name, expected, errors):
    scores = score([mine(name, on_error="skip"), mine("length")])
    assert scores.parts[name] == expected
    assert scores.total == [None if s is None else 1.0 + s for s in expected]
    assert scores.unscored == [f"{name}: error" if s is None else None for s in expected]
    assert scores.metrics[f"rewards/{name}/errors"] == pytest.approx(errors)
    assert scores.metrics[f"rewards/{name}/unscored_error"] == pytest.approx(errors)
    assert scores.metrics["rewards/total/unscored"] == pytest.approx(errors)


@pytest.mark.parametrize("name", ["endless", "endless_async"])
def test_a_function_over_its_time_limit_is_an_error_or_skipped_and_holds_nobody(mine, name):
    started = time.monotonic()
    with pytest.raises(RewardError, match=rf"{name} .* took longer than its time limit of 0.2 s"):
        score([mine("length"), mine(name, time_limit=0.2)])
    scores = score([mine("length"), mine(name, time_limit=0.2, on_error="skip")])
    assert scores.total == [None, None, None]
    assert scores.parts["length"] == [1.0, 1.0, 1.0]
    assert scores.metrics[f"rewards/{name}/errors"] == 1.0
    assert scores.metrics[f"rewards/{name}/unscored_time_limit"] == 1.0
    assert time.monotonic() - started < 30.0  # it sleeps for 60 s


def test_numpy_arrays_and_booleans_are_scores(mine):
    assert score([mine("arrays")]).total == [0.0, 1.0, 2.0]
    assert score([mine("booleans")]).total == [1.0, 0.0, 0.0]


def test_columns_of_another_length_are_refused(mine):
    with pytest.raises(ValueError, match="column 'answer' has 2 items, but there are 3 completions"):
        score([mine("length")], answer=["a", "b"])


def test_an_empty_list_and_an_unknown_name_are_refused_at_once():
    with pytest.raises(ValueError, match="list is empty"):
        RewardBlend([])
    with pytest.raises(ValueError, match="did you mean 'bleu'"):
        RewardBlend([RewardSpec("blue")])


def test_rank_normalisation_by_hand(mine):
    # lengths 1, 2, 2, 4: mean places 0.5, 2, 2, 3.5 of 4 -> 2 * place / 4 - 1
    scores = score([mine("length", normalize="rank")], ["a", "bb", "cc", "dddd"])
    assert scores.total == [-0.75, 0.0, 0.0, 0.75]
    assert scores.parts["length"] == [1.0, 2.0, 2.0, 4.0]


def test_running_normalisation_uses_every_batch_so_far(mine):
    with RewardBlend([mine("length", normalize="running")]) as blend:
        assert blend.score(**batch(["aa", "aa"])).total == [0.0, 0.0]  # no spread yet
        total = blend.score(**batch(["aaaa", "aaaa"])).total  # mean 3, standard deviation 1
        assert total == [pytest.approx(1.0)] * 2
        state = blend.state_dict()
        expected = blend.score(**batch(["a", "aaaaaa"])).total
    with RewardBlend([mine("length", normalize="running")]) as resumed:
        resumed.load_state_dict(state)
        assert resumed.score(**batch(["a", "aaaaaa"])).total == expected


def test_annealed_weights_follow_the_progress(mine):
    """The "progressive" recipe: the teacher alone for the first 20 % of the steps."""
    specs = [mine("length", 0.7), mine("negative", WeightSchedule(start=0.0, end=0.3, until=0.2))]
    with RewardBlend(specs) as blend:
        blend.set_progress(0.1)
        assert blend.score(**batch(["a"])).total == [0.7]
        blend.set_progress(0.2)
        assert blend.score(**batch(["a"])).total == [pytest.approx(0.4)]
        assert blend.state_dict()["progress"] == 0.2


class TwoProcesses:
    """Two blends in two threads whose `gather` meets the other's, as all_gather does."""

    def __init__(self):
        self.barrier, self.slots = threading.Barrier(2, timeout=120), [None, None]

    def gather(self, rank):
        def call(values):
            self.slots[rank] = list(values)
            self.barrier.wait()
            both = self.slots[0] + self.slots[1]
            self.barrier.wait()
            return both

        return call

    def run(self, functions):
        results = [None, None]

        def work(rank):
            try:
                results[rank] = functions[rank](self.gather(rank))
            except Exception as error:
                results[rank] = error

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        return results


@pytest.mark.parametrize("normalize", ["none", "running", "rank"])
def test_two_processes_give_the_totals_and_metrics_of_one(mine, normalize):
    specs = [mine("length", 0.5, normalize=normalize), RewardSpec("bleu", 0.3), RewardSpec("math_answer", 0.2)]
    texts = ["#### 5", "5", "so #### 5 then", "x", "#### 4", "the answer is 5", "6", "#### 5.0"]

    def run(slices, gather=None):
        totals = []
        with RewardBlend(specs, gather=gather) as blend:
            for part in slices:
                columns = {"answer": ["5"] * len(part), "teacher_output": ["the answer is #### 5"] * len(part)}
                scores = blend.score(
                    prompts=["p"] * len(part), completions=part, completion_ids=[[1]] * len(part), columns=columns
                )
                totals += scores.total
        return totals, {k: v for k, v in scores.metrics.items() if "seconds" not in k}

    alone, metrics = run([texts[:4], texts[4:]])
    halves = [[texts[0:2], texts[4:6]], [texts[2:4], texts[6:8]]]
    (first, metrics_a), (second, metrics_b) = TwoProcesses().run(
        [lambda g: run(halves[0], g), lambda g: run(halves[1], g)]
    )
    assert first[:2] + second[:2] + first[2:] + second[2:] == alone
    assert metrics_a == metrics_b == metrics


def test_counts_and_a_functions_own_metrics_are_over_all_processes(mine):
    specs = [mine("logging_half", name="half"), mine("nan_on_b", on_error="skip")]
    first, second = TwoProcesses().run(
        [lambda g: score(specs, ["a", "b"], gather=g), lambda g: score(specs, ["cc", "cc"], gather=g)]
    )
    for metrics in (first.metrics, second.metrics):
        assert metrics["size"] == 1.5  # 1 here, 2 there
        assert metrics["only/a"] == 1.0  # logged by one process alone
        assert metrics["rewards/nan_on_b/errors"] == metrics["rewards/nan_on_b/unscored_error"] == 0.25
        assert metrics["rewards/half/unscored"] == 0.25
        assert metrics["rewards/total/unscored"] == 0.25


def test_a_failure_in_one_process_stops_all(mine):
    first, second = TwoProcesses().run(
        [
            lambda g: score([mine("raises_on_b")], ["a", "b"], gather=g),
            lambda g: score([mine("raises_on_b")], ["a", "c"], gather=g),
        ]
    )
    assert isinstance(first, RewardError)
    assert "item 1 of 2" in str(first)
    assert "in another process" in str(second)


def test_results_do_not_depend_on_the_order_of_the_batch(mine):
    specs = [
        RewardSpec("math_answer", 0.3), RewardSpec("bleu", 0.5), RewardSpec("rouge_l", 0.1),
        mine("length", 0.1, normalize="rank"),
    ]  # fmt: skip
    texts = [f"so the answer is {i}" for i in range(20)] + ["\\boxed{\\sqrt{25}}", "\\boxed{\\frac{10}{2}}"]
    order = [(7 * i + 3) % 22 for i in range(22)]
    assert sorted(order) == list(range(22))

    def totals(completions):
        with RewardBlend(specs) as blend:
            columns = {"answer": ["5"] * 22, "teacher_output": ["the answer is 5"] * 22}
            ids = [[1]] * 22
            return blend.score(prompts=["p"] * 22, completions=completions, completion_ids=ids, columns=columns).total

    straight = totals(texts)
    assert totals([texts[i] for i in order]) == [straight[i] for i in order]


def test_overhead_for_128_short_completions_is_a_few_milliseconds():
    with RewardBlend([RewardSpec("math_answer", 0.3)]) as blend:
        completions = [f"so 3 + 4 = {i}. #### {i}" for i in range(128)]
        durations = []
        for _ in range(10):
            started = time.process_time()  # CPU of all threads: the machine may be busy
            blend.score(**batch(completions, ["7"] * 128))
            durations.append(time.process_time() - started)
    assert min(durations) < 0.010
