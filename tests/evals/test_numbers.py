"""Numbers of the evaluation against values worked out by hand: pass@k, intervals, bootstrap, text metrics, overlap."""

import math
from itertools import combinations

import pytest
import torch

from rl_distill.evals import comparison, engine, statistics
from rl_distill.evals.decontamination import overlap, training_texts
from rl_distill.evals.records import by_problem
from rl_distill.generation.sampling import Sampling
from rl_distill.tasks import text_metrics
from rl_distill.types import Problem


@pytest.mark.parametrize(
    ("n", "c", "k", "value"), [(5, 2, 1, 0.4), (5, 2, 2, 0.7), (5, 0, 3, 0.0), (3, 3, 1, 1.0), (4, 2, 3, 1.0)]
)
def test_pass_at_k_by_hand(n, c, k, value):
    assert statistics.pass_at_k(n, c, k) == pytest.approx(value)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(combinations([i < c for i in range(n)], k))
                assert statistics.pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="needs at least 10 samples"):
        statistics.pass_at_k(5, 1, 10)


def test_wilsons_interval_against_published_numbers():
    assert statistics.wilson(0.0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    low, high = statistics.wilson(81 / 263, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_an_estimate_of_shares_and_of_scores():
    shares = statistics.estimate([1.0, 0.0, 1.0, 1.0])
    assert (shares.value, shares.n, shares.standard_error) == (0.75, 4, pytest.approx(math.sqrt(0.75 * 0.25 / 4)))
    scores = statistics.estimate([0.2, 0.4, 0.6])
    assert scores.standard_error == pytest.approx(0.2 / math.sqrt(3))
    assert scores.high - scores.value == pytest.approx(1.96 * 0.2 / math.sqrt(3), rel=1e-4)
    assert math.isnan(statistics.estimate([]).value)


def test_the_paired_bootstrap_of_a_clear_and_of_no_difference():
    better = statistics.paired_bootstrap([1.0] * 30 + [0.0] * 10, [0.0] * 25 + [1.0] * 5 + [0.0] * 10)
    assert better.difference == pytest.approx(25 / 40)
    assert (better.first_only, better.second_only, better.n) == (25, 0, 40)
    assert better.low > 0.4
    assert better.p_value == pytest.approx(2 / 10_001)  # the least that 10,000 resamples can show
    spread = 1.96 * math.sqrt((25 / 40) * (15 / 40) / 40)  # the differences are 0 or 1: a binomial share
    assert better.high - better.low == pytest.approx(2 * spread, rel=0.1)
    same = statistics.paired_bootstrap([1.0, 0.0] * 20, [0.0, 1.0] * 20)
    assert same.difference == 0.0
    assert same.low < 0 < same.high
    assert same.p_value > 0.5


def test_quantiles_lie_between_neighbours():
    assert statistics.quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert statistics.quantile([1.0, 2.0], 0.95) == pytest.approx(1.95)
    assert math.isnan(statistics.quantile([], 0.5))


def record(key, score, sample=0):
    return {"key": key, "scores": {"accuracy": score}, "index": int(key), "sample": sample}


def test_models_are_compared_on_the_problems_that_both_have_graded():
    first = [record("0", 1.0), record("1", 1.0), record("2", None), record("3", 0.0)]
    second = [record("0", 1.0), record("1", 0.0), record("2", 1.0), record("3", 1.0)]
    found = comparison.compare_records("accuracy", first, second)
    assert (found["n"], found["better_on"], found["worse_on"]) == (3, 1, 1)
    assert found["difference"] == 0.0
    assert found["retention"] == 1.0


def test_a_question_asked_twice_counts_twice():
    records = [record("0", 1.0) | {"key": "same"}, record("1", 0.0) | {"key": "same"}]
    assert by_problem(records, "accuracy") == {0: 1.0, 1: 0.0}


def test_the_ratio_of_means_has_the_interval_of_the_binomial_where_the_bottom_is_constant():
    low, high = statistics.bootstrap_ratio([1.0] * 60 + [0.0] * 40, [0.5] * 100)
    half = 2 * 1.96 * math.sqrt(0.6 * 0.4 / 100)  # mean 0.6 / 0.5 = 1.2, its spread doubled by the division
    assert (low, high) == (pytest.approx(1.2 - half, abs=0.03), pytest.approx(1.2 + half, abs=0.03))
    assert statistics.bootstrap_ratio([1.0, 0.0], [2.0, 0.0]) is None  # a resample may hold the second row only
    assert statistics.bootstrap_ratio([], []) is None


def test_the_gap_is_resampled_over_problems_for_all_three_models_together():
    baseline, teacher = [0.0] * 100, [1.0] * 100
    low, high = statistics.bootstrap_gap([1.0] * 30 + [0.0] * 70, baseline, teacher)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 100)  # the gap is 1 in every resample
    assert (low, high) == (pytest.approx(0.3 - half, abs=0.02), pytest.approx(0.3 + half, abs=0.02))
    assert statistics.bootstrap_gap([1.0, 1.0], [0.0, 1.0], [1.0, 0.0]) is None
    same = [0.0, 1.0] * 20
    low, high = statistics.bootstrap_gap(same, [0.0] * 40, same)  # model = teacher in every resample
    assert (low, high) == (1.0, 1.0)


def test_the_gap_between_records_is_that_of_the_problems_all_three_have_graded():
    model = [record("0", 1.0), record("1", 0.0), record("2", 1.0)]
    baseline = [record("0", 0.0), record("1", 0.0), record("2", None)]
    teacher = [record("0", 1.0), record("1", 1.0), record("2", 0.0)]
    found = comparison.compare_gap("accuracy", model, baseline, teacher)
    assert (found["value"], found["n"]) == (0.5, 2)
    assert comparison.compare_gap("accuracy", model, [record("0", None)], teacher)["value"] is None


def test_speed_is_that_of_answers_of_equal_length_though_the_model_would_end_them(make_policy, tokenizer):
    model = make_policy(0)
    ids = tokenizer("Q: 1")["input_ids"]
    greedy = engine.complete(engine.Student.of(model, tokenizer), [ids], Sampling(1, temperature=0.0))[0].token_ids
    model.generation_config.eos_token_id = greedy[0]  # ends every answer at once
    student = engine.Student.of(model, tokenizer)
    assert len(engine.complete(student, [ids], Sampling(5, temperature=0.0))[0].token_ids) == 1
    lengths = []
    real = comparison.complete
    try:
        comparison.complete = lambda *args: [lengths.append(len(g.token_ids)) or g for g in real(*args)]
        found = comparison.measure_speed(student, [ids, ids], 5, batch_size=3)
    finally:
        comparison.complete = real
    assert lengths == [5] * 6  # once to warm up, two alone, a batch of three
    assert model.generation_config.eos_token_id == greedy[0]
    assert 0 < found["latency_p50_seconds"] <= found["latency_p95_seconds"]
    assert found["tokens_per_second"] > 0


def test_gap_recovered_and_where_there_is_no_gap():
    assert comparison.gap_recovered(0.7, 0.5, 0.9) == pytest.approx(0.5)
    assert comparison.gap_recovered(1.0, 0.5, 0.9) == pytest.approx(1.25)
    assert comparison.gap_recovered(0.7, 0.9, 0.9) is None


def test_sizes_count_tied_parameters_once(make_policy):
    model = make_policy(0, hidden_size=32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    found = comparison.size_of(model)
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["bytes"] == 4 * found["parameters"]
    assert comparison.size_of(model.to(torch.bfloat16))["bytes"] == 2 * found["parameters"]


def test_compression_and_speed_up_are_above_one_for_a_smaller_faster_model():
    small = {
        "size": {"parameters": 10, "bytes": 20},
        "speed": {"latency_p50_seconds": 1.0, "latency_p95_seconds": 2.0, "tokens_per_second": 30.0},
    }
    large = {
        "size": {"parameters": 40, "bytes": 160},
        "speed": {"latency_p50_seconds": 3.0, "latency_p95_seconds": 8.0, "tokens_per_second": 10.0},
    }
    assert comparison.compare_models(small, large) == {
        "compression_parameters": 4.0,
        "compression_bytes": 8.0,
        "speedup_latency_p50": 3.0,
        "speedup_latency_p95": 4.0,
        "speedup_tokens_per_second": 3.0,
    }


def test_bleu_of_a_corpus():
    assert text_metrics.corpus_bleu(["the cat sat on the mat"], [["the cat sat on the mat", "x"]]) == pytest.approx(1.0)
    # 1-grams 5/6, 2-grams 3/5, 3-grams 2/4, 4-grams 1/3, same length
    found = text_metrics.corpus_bleu(["the cat sat on a mat"], [["the cat sat on the mat"]])
    assert found == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_rouge_l_f1_and_exact_match_take_the_best_reference():
    assert text_metrics.rouge_l("a b c d", ["x", "a c d e"]) == pytest.approx(0.75)
    assert text_metrics.f1("The cat, the dog", ["the cat"]) == pytest.approx(2 / 3)
    assert text_metrics.exact_match(" Yes. ", ["no", "yes"]) == 1.0
    assert text_metrics.f1("", ["a"]) == 0.0


def test_macro_f1_by_hand():
    # a: 1 hit, 2 predicted, 1 gold -> 2/3; b: 1 hit, 1 predicted, 2 gold -> 2/3; c: never predicted -> 0
    assert text_metrics.macro_f1(["a", "b", "a", None], ["a", "b", "b", "c"]) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_auc_by_hand():
    assert text_metrics.auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == pytest.approx(0.75)
    assert text_metrics.auc([0.5, 0.5], [True, False]) == 0.5
    assert math.isnan(text_metrics.auc([0.5], [True]))


def test_labels_are_whole_words_and_the_longest_wins():
    labels = ["art", "modern art"]
    assert text_metrics.first_label("It is Modern Art.", labels) == "modern art"
    assert text_metrics.first_label("a party", labels) is None


def test_overlap_finds_a_problem_hidden_in_a_training_prompt(tmp_path):
    question = "Tom has three apples and buys two more at the market on Monday how many"
    problems = [
        Problem("t", "copied", "p", columns={"question": question}),
        Problem(
            "t",
            "own",
            "p",
            columns={"question": "Something else entirely, about a train that leaves the station at noon on time"},
        ),
        Problem("t", "short", "p", columns={"question": "What is 2 plus 2?"}),
    ]
    texts = [
        "Context. TOM has three apples, and buys two more at the market on Monday; how many? Answer",
        "what is 2 plus 2",
    ]
    found = overlap(problems, texts, 13)
    assert set(found.keys) == {"copied", "short"}
    assert found.share == pytest.approx(2 / 3)
    assert found.num_training_texts == 2
    assert set(overlap(problems, texts[:1], 13).keys) == {"copied"}
    path = tmp_path / "train.jsonl"
    path.write_text('{"id": 1, "question": "What is it?"}\n')
    assert training_texts(str(path)) == ["What is it?"]
