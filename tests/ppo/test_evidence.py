"""The anchor that follows the evidence: counts with their uncertainty, against numbers by hand and brute force."""

import itertools
import json
import math

import pytest

from rl_distill.ppo.coefficients import EvidenceCoefficient, SuccessCount, count_successes, upper_lead


def observe(evidence: EvidenceCoefficient, **successes: list[float | None]) -> None:
    """One step with these successes by task."""
    tasks = [task for task, values in successes.items() for _ in values]
    evidence.observe(tasks=tasks, successes=[v for values in successes.values() for v in values], kl=0.0)


def score_interval(right: float, trials: float) -> tuple[float, float]:
    """The rates p at which the observed rate is exactly one standard error away, |rate - p| = sqrt(p (1 - p) / trials),
    found by bisection."""

    def errors_away(p: float) -> float:
        return (right / trials - p) ** 2 - p * (1 - p) / trials

    def root(inside: float, outside: float) -> float:
        for _ in range(100):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if errors_away(middle) < 0 else (inside, middle)
        return inside

    rate = right / trials
    return root(rate, 0.0) if rate > 0 else 0.0, root(rate, 1.0) if rate < 1 else 1.0


@pytest.mark.parametrize(("right", "trials"), [(8, 10), (1, 3), (320, 640), (2.5, 6.3), (0.9, 0.9), (0.0, 4.0)])
def test_the_ends_of_a_count_are_one_standard_error_away(right, trials):
    count = SuccessCount(right, trials)
    assert (count.lower, count.upper) == pytest.approx(score_interval(right, trials), abs=1e-9)


def test_ends_by_hand():
    eight_of_ten = SuccessCount(8, 10)  # (8.5 +- sqrt(8 * 2 / 10 + 0.25)) / 11
    assert eight_of_ten.lower == pytest.approx((8.5 - math.sqrt(1.85)) / 11)
    assert eight_of_ten.upper == pytest.approx((8.5 + math.sqrt(1.85)) / 11)
    nothing = SuccessCount()
    assert (nothing.lower, nothing.upper) == (0.0, 1.0)
    assert math.isnan(nothing.rate)


def test_successes_are_counted_per_task_without_the_unscored():
    counts = count_successes(["b", "a", "b", "b", "c"], [1.0, 0.0, None, 0.5, math.nan])
    assert counts == {"a": SuccessCount(0.0, 1.0), "b": SuccessCount(1.5, 2.0)}


def test_the_coefficient_by_hand():
    evidence = EvidenceCoefficient({"math": SuccessCount(8, 10)}, floor=0.05, ceiling=1.0, scale=0.5, decay=0.9)
    assert evidence.coefficients(["math"], 0.0) == [1.0]  # nothing seen yet: (0.8 - 0.5 + 0.509) / 0.5
    observe(evidence, math=[1.0, 1.0, 0.0, None])
    # teacher 8 of 10, upper 0.8964; student 2 of 3, lower (2.5 - sqrt(2 * 1 / 3 + 0.25)) / 4 = 0.3856
    above, below = (8.5 + math.sqrt(1.85)) / 11 - 0.8, 2 / 3 - (2.5 - math.sqrt(2 / 3 + 0.25)) / 4
    expected = (0.8 - 2 / 3 + math.sqrt(above**2 + below**2)) / 0.5
    assert evidence.coefficients(["math"], 0.5) == pytest.approx([expected])
    assert expected == pytest.approx(0.861, abs=1e-3)
    observe(evidence, math=[1.0] * 30)  # 31.8 of 32.7, above the teacher: at the floor
    assert evidence.student_success["math"] == SuccessCount(0.9 * 2 + 30, 0.9 * 3 + 30)
    assert evidence.coefficients(["math"], 0.5) == [0.05]


def test_trials_count_less_with_every_step_whether_their_task_comes_or_not():
    evidence = EvidenceCoefficient({"math": SuccessCount(5, 10), "code": SuccessCount(5, 10)}, decay=0.5)
    observe(evidence, math=[1.0, 0.0], code=[1.0])
    observe(evidence, math=[1.0])
    observe(evidence, math=[0.0])
    assert evidence.student_success["math"] == SuccessCount(0.25 + 0.5, 0.5 + 0.5 + 1)
    assert evidence.student_success["code"] == SuccessCount(0.25, 0.25)
    assert evidence.metrics()["anchor/student_success/code"] == 1.0
    assert evidence.metrics()["anchor/teacher_success/code"] == 0.5


def test_every_observation_counts_alike_however_many_come_in_a_step():
    """Of a success rate of 1/3, one rollout in each of three steps: the deviation of the estimate over all outcomes is
    that of weights 0.81, 0.9, 1, not that of a mean dominated by the first."""
    moments = [0.0, 0.0]
    for outcome in itertools.product((0.0, 1.0), repeat=3):
        evidence = EvidenceCoefficient({"math": SuccessCount(5, 10)}, decay=0.9)
        for success in outcome:
            observe(evidence, math=[success])
        chance = math.prod(1 / 3 if success else 2 / 3 for success in outcome)
        rate = evidence.metrics()["anchor/student_success/math"]
        moments = [moments[0] + chance * rate, moments[1] + chance * rate**2]
    assert moments[0] == pytest.approx(1 / 3)
    deviation = math.sqrt(moments[1] - moments[0] ** 2)
    assert deviation == pytest.approx(math.sqrt(2 / 9 * (0.81**2 + 0.9**2 + 1)) / 2.71)
    assert deviation < 0.28  # a running mean that starts at the first observation: 0.39


def test_luck_with_few_rollouts_does_not_let_go():
    """A student 25 points behind its teacher, one rollout per step: over all outcomes of ten steps the anchor is below
    half its strength in fewer than 7 % of them."""
    chance_of_letting_go = 0.0
    for outcome in itertools.product((0.0, 1.0), repeat=10):
        evidence = EvidenceCoefficient({"math": SuccessCount(583, 1000)}, decay=0.9)
        for success in outcome:
            observe(evidence, math=[success])
        if evidence.coefficient("math") < 0.5:
            chance_of_letting_go += math.prod(1 / 3 if success else 2 / 3 for success in outcome)
    assert chance_of_letting_go < 0.07


def test_a_student_as_good_as_its_teacher_is_let_go_of_as_the_evidence_grows():
    found = []
    for rollouts in (4, 16, 64, 256):
        evidence = EvidenceCoefficient({"math": SuccessCount(50 * rollouts, 100 * rollouts)}, decay=0.9)
        for _ in range(200):
            observe(evidence, math=[0.0, 1.0] * (rollouts // 2))
        found.append(evidence.coefficient("math"))
    assert found == sorted(found, reverse=True)
    # both rates 1/2; 25600 trials of the teacher and 10 x 256 discounted ones of the student
    above, below = (12800.5 + math.sqrt(6400.25)) / 25601 - 0.5, 0.5 - (1280.5 - math.sqrt(640.25)) / 2561
    assert found[-1] == pytest.approx(math.sqrt(above**2 + below**2) / 0.15, abs=1e-6)
    assert found[-1] < 0.07


def test_without_trials_a_student_is_taken_to_be_behind():
    """However good or bad its teacher is, and continuously from no trial to a small part of one, right or wrong."""
    for right in (2, 10, 50, 98):
        teacher = SuccessCount(right, 100)
        assert upper_lead(teacher, SuccessCount()) >= right / 100
        for student in (SuccessCount(1e-9, 1e-9), SuccessCount(0.0, 1e-9)):
            assert upper_lead(teacher, student) >= right / 100 - 1e-6


@pytest.mark.parametrize(("rate", "trials_of_teacher", "trials_of_student"), [(0.577, 700, 900), (0.3, 50, 20)])
def test_the_lead_covers_the_truth_as_often_as_one_standard_error_should(rate, trials_of_teacher, trials_of_student):
    """Student as good as its teacher: the upper lead is above 0 in about 84 % of all pairs of outcomes."""

    def chances(trials):
        return [math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(trials + 1)]

    covered = sum(
        p * q
        for i, p in enumerate(chances(trials_of_teacher))
        if p > 1e-12
        for j, q in enumerate(chances(trials_of_student))
        if q > 1e-12 and upper_lead(SuccessCount(i, trials_of_teacher), SuccessCount(j, trials_of_student)) >= 0
    )
    assert covered == pytest.approx(0.841, abs=0.03)


def test_a_task_without_evidence_keeps_the_full_coefficient():
    evidence = EvidenceCoefficient({"math": SuccessCount(9, 10)}, ceiling=0.7)
    observe(evidence, chat=[None, None], math=[1.0] * 50)
    assert evidence.coefficients(["chat", "math"], 0.0) == [0.7, 0.05]
    assert "anchor/coefficient/chat" not in evidence.metrics()


def test_the_teachers_counts_belong_to_the_checkpoint():
    evidence = EvidenceCoefficient({"math": SuccessCount(9, 10)})
    evidence.teacher_success = {"math": SuccessCount(19, 20)}  # the next teacher took over
    observe(evidence, math=[1.0, 0.0, 0.0])
    again = EvidenceCoefficient({"math": SuccessCount(9, 10)})
    again.load_state_dict(json.loads(json.dumps(evidence.state_dict())))
    assert again.teacher_success == evidence.teacher_success
    assert again.coefficient("math") == evidence.coefficient("math")
